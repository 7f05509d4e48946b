//! Reading and writing netlink messages: the header here, bodies by neli.

use std::io::{self, Cursor};

use neli::consts::rtnl::RtaType;
use neli::rtnl::{Rtattr, RtattrBuilder};
use neli::types::{Buffer, RtBuffer};
use neli::{FromBytesWithInput, Size, ToBytes};
use nix::libc;

use super::bytes_of;

/// `struct nlmsghdr`, as far as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: that of the request this answers.
    pub sequence: u32,
}

/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;

impl Header {
    /// The table changed while it was written out.
    pub(super) fn dump_interrupted(&self) -> bool {
        i32::from(self.flags) & libc::NLM_F_DUMP_INTR != 0
    }

    /// What an acknowledgement (`NLMSG_ERROR`, `NLMSG_DONE`) says. `rest` begins with the negative error number;
    /// old kernels end a dump with nothing behind the header.
    pub(super) fn outcome(&self, rest: &[u8]) -> io::Result<()> {
        match rest.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        }
    }
}

/// One message, ready to send.
pub(super) fn message(kind: u16, flags: u16, sequence: u32, body: &impl ToBytes) -> io::Result<Vec<u8>> {
    let body = bytes_of(body)?;
    let len = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    // Port: 0, the kernel fills in ours.
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    Ok(message)
}

/// The messages of a datagram, each with what follows its header. Ends at the first that is not whole.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let (header, len) = header(datagram)?;
        let message = datagram.get(HEADER..len)?;
        // Messages begin on multiples of 4; the last one's padding may be missing.
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((header, message))
    })
}

fn header(datagram: &[u8]) -> Option<(Header, usize)> {
    let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *datagram.first_chunk::<HEADER>()?;
    let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let header = Header {
        kind: u16::from_ne_bytes([k0, k1]),
        flags: u16::from_ne_bytes([f0, f1]),
        sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
    };
    (len >= HEADER).then_some((header, len))
}

/// A message body, or nothing where it is not whole.
pub fn body<T: FromBytesWithInput<Input = usize>>(rest: &[u8]) -> Option<T> {
    T::from_bytes_with_input(&mut Cursor::new(rest), rest.len()).ok()
}

/// Attributes of a routing message, by type.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a, T>(&'a [Rtattr<T, Buffer>]);

impl<'a, T: RtaType> Attributes<'a, T> {
    /// The attributes of a body.
    pub fn of(attributes: &'a RtBuffer<T, Buffer>) -> Self {
        Self(attributes.as_ref())
    }

    /// The bytes of one.
    pub fn bytes(&self, kind: T) -> Option<&'a [u8]> {
        self.0
            .iter()
            .find(|attribute| *attribute.rta_type() == kind)
            .map(|found| found.rta_payload().as_ref())
    }

    /// One that is an array of `N` bytes: an address.
    pub fn array<const N: usize>(&self, kind: T) -> Option<[u8; N]> {
        self.bytes(kind)?.try_into().ok()
    }

    /// One that is a number.
    pub fn number(&self, kind: T) -> Option<u32> {
        self.array(kind).map(u32::from_ne_bytes)
    }

    /// One that is a text ended by zero.
    pub fn text(&self, kind: T) -> Option<String> {
        let bytes = self.bytes(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// One that holds attributes.
    pub fn nested<N: RtaType>(&self, kind: T) -> RtBuffer<N, Buffer> {
        self.bytes(kind).and_then(body).unwrap_or_default()
    }
}

/// One attribute to send.
pub fn attribute<T: RtaType>(kind: T, payload: impl Size + ToBytes) -> io::Result<Rtattr<T, Buffer>> {
    RtattrBuilder::default().rta_type(kind).rta_payload(payload).build().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use neli::consts::rtnl::{Ifla, RtAddrFamily};
    use neli::rtnl::{Ifinfomsg, IfinfomsgBuilder};
    use proptest::prelude::*;

    fn link(name: &str) -> Ifinfomsg {
        let attributes = [attribute(Ifla::Ifname, name).unwrap(), attribute(Ifla::Mtu, 1500u32).unwrap()];
        IfinfomsgBuilder::default()
            .ifi_family(RtAddrFamily::Unspecified)
            .ifi_index(7)
            .rtattrs(attributes.into_iter().collect())
            .build()
            .unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut datagram = message(16, 5, 9, &link("uplink")).unwrap();
        datagram.extend(message(17, 0, 10, &link("x")).unwrap());
        let read: Vec<_> = messages(&datagram).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].0, Header { kind: 16, flags: 5, sequence: 9 });
        let first: Ifinfomsg = body(read[0].1).unwrap();
        let attributes = Attributes::of(first.rtattrs());
        assert_eq!(attributes.text(Ifla::Ifname).as_deref(), Some("uplink"));
        assert_eq!(attributes.number(Ifla::Mtu), Some(1500));
        assert_eq!(attributes.number(Ifla::Master), None);
        assert_eq!(attributes.array::<6>(Ifla::Mtu), None, "an attribute of another length is not there");
    }

    #[test]
    fn an_error_number_becomes_an_error() {
        let header = Header { kind: 2, flags: 0, sequence: 0 };
        assert_eq!(header.outcome(&(-13i32).to_ne_bytes()).unwrap_err().raw_os_error(), Some(13));
        assert!(header.outcome(&0i32.to_ne_bytes()).is_ok());
        assert!(header.outcome(&[]).is_ok());
        assert!(header.outcome(&i32::MIN.to_ne_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_without_panic_and_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            for (_, rest) in messages(&bytes) {
                let _ = body::<Ifinfomsg>(rest);
            }
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER);
        }

        #[test]
        fn a_message_cut_short_is_left_out(cut in 0usize..48) {
            let whole = message(16, 0, 1, &link("eth0")).unwrap();
            prop_assert!(cut >= whole.len() || messages(&whole[..cut]).next().is_none());
        }
    }
}
