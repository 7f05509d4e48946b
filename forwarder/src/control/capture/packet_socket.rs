//! What the kernel itself receives and sends by an interface. Of frames that XDP took, or a worker sends by AF_XDP, a packet
//! socket knows nothing: XDP comes ahead of it, and AF_XDP goes past it.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType, recvmsg, setsockopt,
            socket, sockopt,
        },
        time::TimeSpec,
    },
};

use crate::{management::capture::SNAP, worker::Direction, xdp::sys};

/// What waits for us at most: some thousand full frames, as in XDP's ring. Others are counted, and not copied.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// `struct tpacket_auxdata` of `include/uapi/linux/if_packet.h`, and what of it says that there was a tag.
const PACKET_AUXDATA: i32 = 8;
const AUXDATA_BYTES: usize = 20;
const VLAN_VALID: u32 = 1 << 4;
const VLAN_TPID_VALID: u32 = 1 << 6;
/// The tag that is meant where the kernel does not say which.
const CUSTOMER_TAG: u16 = 0x8100;
/// Both addresses; a tag follows them.
const ADDRESSES: usize = 12;

/// A packet socket that hears everything on one interface.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: OwnedFd,
    frame: Vec<u8>,
    control: Vec<u8>,
}

/// A frame that it heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    pub direction: Direction,
    /// Length of the frame in bytes.
    pub length: usize,
    /// The first bytes of it.
    pub bytes: Vec<u8>,
}

impl PacketSocket {
    /// Begins to listen at the interface of this number.
    ///
    /// # Errors
    /// There is no such interface, or a privilege is missing.
    pub fn open(interface: u32) -> io::Result<Self> {
        // Of no protocol until it is bound: it would hear all interfaces meanwhile.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
        }
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        sys::set_socket_option(socket.as_fd(), libc::SOL_PACKET, PACKET_AUXDATA, 1)?;
        sys::bind_packet_socket(socket.as_fd(), interface, libc::ETH_P_ALL as u16)?;
        let frame = vec![0; usize::try_from(SNAP).unwrap_or(usize::MAX)];
        Ok(Self { socket, frame, control: cmsg_space!(TimeSpec, [u8; AUXDATA_BYTES]) })
    }

    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Frames there was no room for.
    pub fn missed(&self) -> u64 {
        sys::socket_drops(self.socket.as_fd()).unwrap_or(0)
    }

    /// The next frame, of which `snap` bytes are kept; `None` when there is no more for now.
    pub fn hear(&mut self, snap: usize) -> Option<Heard> {
        loop {
            match self.receive(snap) {
                // Once told, these are gone: the interface went down, and will come back or be closed by us.
                Err(Errno::ENETDOWN | Errno::EINTR) => {}
                heard => return heard.ok().flatten(),
            }
        }
    }

    fn receive(&mut self, snap: usize) -> nix::Result<Option<Heard>> {
        let mut room = [IoSliceMut::new(&mut self.frame)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let message =
            recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut room, Some(&mut self.control), flags)?;
        let mut length = message.bytes;
        let outgoing = message.address.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
        let (mut time_ns, mut tag) = (0, None);
        for said in message.cmsgs()? {
            match said {
                ControlMessageOwned::ScmTimestampns(time) => time_ns = nanoseconds(time),
                ControlMessageOwned::Unknown(said) => tag = tag_of(&said.data_bytes),
                _ => {}
            }
        }
        let mut bytes = self.frame.get(..length).unwrap_or(&self.frame).to_vec();
        if let Some(tag) = tag {
            length += put_back(tag, &mut bytes);
        }
        bytes.truncate(snap);
        let direction = if outgoing { Direction::Out } else { Direction::In };
        Ok(Some(Heard { time_ns, direction, length, bytes }))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn nanoseconds(time: TimeSpec) -> u64 {
    u64::try_from(std::time::Duration::from(time).as_nanos()).unwrap_or(u64::MAX)
}

/// The tag that the kernel has taken out of the frame, as it stood there.
fn tag_of(auxdata: &[u8]) -> Option<[u8; 4]> {
    let word = |at: usize| Some(u16::from_ne_bytes(*auxdata.get(at..)?.first_chunk()?));
    let status = u32::from_ne_bytes(*auxdata.first_chunk()?);
    if status & VLAN_VALID == 0 {
        return None;
    }
    let (tci, tpid) = (word(16)?, word(18)?);
    let tpid = if status & VLAN_TPID_VALID == 0 { CUSTOMER_TAG } else { tpid };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
    Some([a, b, c, d])
}

/// Puts a tag where it was; returns how much longer the frame is.
fn put_back(tag: [u8; 4], bytes: &mut Vec<u8>) -> usize {
    if bytes.len() < ADDRESSES {
        return 0;
    }
    bytes.splice(ADDRESSES..ADDRESSES, tag);
    tag.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auxdata(status: u32, tci: u16, tpid: u16) -> Vec<u8> {
        let mut bytes = [status, 64, 64, 0].map(u32::to_ne_bytes).concat();
        bytes.extend([tci, tpid].map(u16::to_ne_bytes).concat());
        assert_eq!(bytes.len(), AUXDATA_BYTES);
        bytes
    }

    #[test]
    fn a_tag_that_the_kernel_took_out_stands_again_behind_the_addresses() {
        let both = VLAN_VALID | VLAN_TPID_VALID;
        assert_eq!(tag_of(&auxdata(both, 0x2007, 0x88a8)), Some([0x88, 0xa8, 0x20, 7]));
        assert_eq!(tag_of(&auxdata(VLAN_VALID, 7, 0)), Some([0x81, 0, 0, 7]));
        assert_eq!(tag_of(&auxdata(1, 7, 0x8100)), None);
        assert_eq!(tag_of(&auxdata(both, 7, 0x8100)[..17]), None);
        let mut bytes: Vec<u8> = (0..14).collect();
        assert_eq!(put_back([0x81, 0, 0, 7], &mut bytes), 4);
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x81, 0, 0, 7, 12, 13]);
        assert_eq!(put_back([0x81, 0, 0, 7], &mut vec![0; 11]), 0);
    }
}
