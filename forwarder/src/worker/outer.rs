//! The packet around a tunnel packet: Ethernet, IPv4 and UDP headers.
//!
//! ```text
//!  0          14             34      42
//!  ├ Ethernet ┼ IPv4, no opt ┼ UDP ──┼ OpenVPN data packet
//! ```
//! Source: RFC 791, RFC 768. DF is 0 (DESIGN, decision 11), so the identification counts.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    ops::Range,
};

use common::Mac;
use openvpn::server::Path;

use crate::ports::checksum;

/// Bytes ahead of the OpenVPN packet.
pub const OUTER_HEADER: usize = 42;

mod field {
    use std::ops::Range;

    pub const MAC_DESTINATION: Range<usize> = 0..6;
    pub const MAC_SOURCE: Range<usize> = 6..12;
    pub const ETHER_TYPE: Range<usize> = 12..14;
    pub const VERSION_IHL: usize = 14;
    pub const TOTAL_LENGTH: Range<usize> = 16..18;
    pub const IDENTIFICATION: Range<usize> = 18..20;
    pub const FRAGMENT: Range<usize> = 20..22;
    pub const TTL: usize = 22;
    pub const PROTOCOL: usize = 23;
    pub const IP_CHECKSUM: Range<usize> = 24..26;
    pub const IP_SOURCE: Range<usize> = 26..30;
    pub const IP_DESTINATION: Range<usize> = 30..34;
    pub const IP_HEADER: Range<usize> = 14..34;
    pub const UDP_SOURCE: Range<usize> = 34..36;
    pub const UDP_DESTINATION: Range<usize> = 36..38;
    pub const UDP_LENGTH: Range<usize> = 38..40;
    pub const UDP_CHECKSUM: Range<usize> = 40..42;
    pub const UDP: usize = 34;
}

const ETHER_TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const PROTOCOL_UDP: u8 = 17;
const VERSION_4: u8 = 4;
/// More-fragments flag and fragment offset.
const FRAGMENT_BITS: u16 = 0x3fff;
/// As Linux sends (`net.ipv4.ip_default_ttl`).
const TTL: u8 = 64;

/// Every IPv4 path takes packets of this length (RFC 791). Where a route says less, packets that are longer than it
/// allows are the kernel's to fragment: nobody's common case.
const LEAST_MTU: u16 = 576;

/// How packets to a peer leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the NIC's queue; an IPv4 packet of more than `mtu` bytes in fragments.
    Nic {
        /// MTU of the route.
        mtu: u16,
    },
    /// By the tunnel's UDP socket.
    Socket,
}

/// The headers of packets to one peer, all but lengths, identification and checksums filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    header: [u8; OUTER_HEADER],
    way: Way,
}

impl Outer {
    /// For packets from `local` to `remote`, sent by the kernel's socket.
    pub fn by_socket(local: SocketAddrV4, remote: SocketAddrV4) -> Self {
        Self::new(local, remote, [0; 6], [0; 6], Way::Socket)
    }

    /// For packets from `local` to `remote` that leave by the NIC, to the next hop's `destination`.
    pub fn by_nic(
        local: SocketAddrV4,
        remote: SocketAddrV4,
        source: Mac,
        destination: Mac,
        mtu: u16,
    ) -> Self {
        Self::new(local, remote, source, destination, Way::Nic { mtu })
    }

    fn new(local: SocketAddrV4, remote: SocketAddrV4, source: Mac, destination: Mac, way: Way) -> Self {
        let mut header = [0; OUTER_HEADER];
        header[field::MAC_DESTINATION].copy_from_slice(&destination);
        header[field::MAC_SOURCE].copy_from_slice(&source);
        header[field::ETHER_TYPE].copy_from_slice(&ETHER_TYPE_IPV4);
        header[field::VERSION_IHL] = VERSION_4 << 4 | 5;
        header[field::TTL] = TTL;
        header[field::PROTOCOL] = PROTOCOL_UDP;
        header[field::IP_SOURCE].copy_from_slice(&local.ip().octets());
        header[field::IP_DESTINATION].copy_from_slice(&remote.ip().octets());
        header[field::UDP_SOURCE].copy_from_slice(&local.port().to_be_bytes());
        header[field::UDP_DESTINATION].copy_from_slice(&remote.port().to_be_bytes());
        Self { header, way }
    }

    /// The address packets go to, in network order.
    pub fn destination(&self) -> [u8; 4] {
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| self.header[field::IP_DESTINATION.start + at]);
        [a, b, c, d]
    }

    /// Packets leave by the NIC.
    pub fn leaves_by_nic(&self) -> bool {
        matches!(self.way, Way::Nic { .. })
    }

    /// Writes the headers ahead of the `payload` bytes that stand in `packet` from [`OUTER_HEADER`] on, and says by
    /// which way the packet leaves. `packet` ends with its payload.
    pub fn write(&self, packet: &mut [u8], identification: u16) -> Way {
        let Some(header) = packet.get_mut(..OUTER_HEADER) else { return self.way };
        header.copy_from_slice(&self.header);
        let total = u16::try_from(packet.len() - field::IP_HEADER.start).unwrap_or(u16::MAX);
        let udp = total.saturating_sub(20);
        packet[field::TOTAL_LENGTH].copy_from_slice(&total.to_be_bytes());
        packet[field::UDP_LENGTH].copy_from_slice(&udp.to_be_bytes());
        match self.way {
            Way::Nic { mtu } if total <= mtu || mtu >= LEAST_MTU => self.finish(packet, udp, identification),
            // The kernel writes its own headers, checksums and fragments.
            Way::Nic { .. } | Way::Socket => Way::Socket,
        }
    }

    fn finish(&self, packet: &mut [u8], udp: u16, identification: u16) -> Way {
        packet[field::IDENTIFICATION].copy_from_slice(&identification.to_be_bytes());
        write_ip_checksum(packet);
        let addresses = &packet[field::IP_SOURCE.start..field::IP_DESTINATION.end];
        let pseudo = checksum::pseudo_header(addresses, PROTOCOL_UDP, usize::from(udp));
        let udp_sum = checksum::never_none(checksum::finished(pseudo + checksum::sum(&packet[field::UDP..])));
        packet[field::UDP_CHECKSUM].copy_from_slice(&udp_sum.to_be_bytes());
        self.way
    }
}

/// Whether a frame of `len` bytes is longer than a route with `mtu` takes.
pub(super) fn is_too_long(len: usize, mtu: u16) -> bool {
    len > field::IP_HEADER.start + usize::from(mtu)
}

/// Makes a frame's header, without options, that of the fragment the frame holds. `bits` are its flags and offset.
pub(super) fn fragment(frame: &mut [u8], bits: u16) {
    let total = u16::try_from(frame.len() - field::IP_HEADER.start).unwrap_or(u16::MAX);
    frame[field::TOTAL_LENGTH].copy_from_slice(&total.to_be_bytes());
    frame[field::FRAGMENT].copy_from_slice(&bits.to_be_bytes());
    write_ip_checksum(frame);
}

fn write_ip_checksum(frame: &mut [u8]) {
    frame[field::IP_CHECKSUM].fill(0);
    let sum = !checksum::fold(checksum::sum(&frame[field::IP_HEADER]));
    frame[field::IP_CHECKSUM].copy_from_slice(&sum.to_be_bytes());
}

/// From where a tunnel packet's first fragment comes, and what it has of the OpenVPN packet; `udp` is where its UDP
/// header begins.
pub(super) fn parse_first(frame: &[u8], udp: usize) -> Option<(SocketAddr, &[u8])> {
    let remote = SocketAddrV4::new(address(frame, field::IP_SOURCE)?, be16(frame, udp..udp + 2)?);
    Some((SocketAddr::V4(remote), frame.get(udp + 8..)?))
}

/// A tunnel packet as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// From where to which address of ours.
    pub path: Path,
    /// Where in the frame the OpenVPN packet stands.
    pub payload: Range<usize>,
}

/// Reads a tunnel packet: an unfragmented IPv4 UDP packet, possibly with IPv4 options and Ethernet padding. Checksums
/// are not looked at, the AEAD is stronger. `None` when it is none.
pub fn parse(frame: &[u8]) -> Option<Arrived> {
    let first = *frame.get(field::VERSION_IHL)?;
    let header_bytes = usize::from(first & 0x0f) * 4;
    let udp = field::IP_HEADER.start + header_bytes;
    let total = usize::from(be16(frame, field::TOTAL_LENGTH)?);
    let packet = frame.get(..field::IP_HEADER.start + total)?;
    let is_udp_over_ipv4 = frame.get(field::ETHER_TYPE)? == ETHER_TYPE_IPV4
        && first >> 4 == VERSION_4
        && header_bytes >= 20
        && packet.get(field::PROTOCOL) == Some(&PROTOCOL_UDP)
        && be16(packet, field::FRAGMENT)? & FRAGMENT_BITS == 0;
    if !is_udp_over_ipv4 {
        return None;
    }
    let udp_bytes = usize::from(be16(packet, udp + 4..udp + 6)?);
    let payload = udp + 8..udp + udp_bytes;
    (payload.start <= payload.end && payload.end <= packet.len()).then_some(())?;
    let remote = SocketAddrV4::new(address(packet, field::IP_SOURCE)?, be16(packet, udp..udp + 2)?);
    let local = SocketAddrV4::new(address(packet, field::IP_DESTINATION)?, be16(packet, udp + 2..udp + 4)?);
    Some(Arrived { path: Path::udp(remote.into(), local.into()), payload })
}

fn be16(bytes: &[u8], at: Range<usize>) -> Option<u16> {
    bytes.get(at)?.try_into().ok().map(u16::from_be_bytes)
}

fn address(bytes: &[u8], at: Range<usize>) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 10, 21, 5), 443);
    const REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 11), 40_000);

    fn written(payload: &[u8], outer: &Outer) -> (Vec<u8>, Way) {
        let mut packet = [&[0; OUTER_HEADER][..], payload].concat();
        let way = outer.write(&mut packet, 7);
        (packet, way)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let outer = Outer::by_nic(LOCAL, REMOTE, [2; 6], [4; 6], 1500);
        let (packet, way) = written(b"hello", &outer);
        assert_eq!(way, Way::Nic { mtu: 1500 });
        let arrived = parse(&packet).unwrap();
        assert_eq!(&packet[arrived.payload], b"hello");
        assert_eq!(arrived.path.remote, SocketAddr::V4(LOCAL));
        assert_eq!(arrived.path.local, SocketAddr::V4(REMOTE));
    }

    #[test]
    fn checksums_verify() {
        for payload in [&b""[..], b"odd", b"even", &[0xff; 1400]] {
            let (packet, _) = written(payload, &Outer::by_nic(LOCAL, REMOTE, [2; 6], [4; 6], 1500));
            assert_eq!(checksum::fold(checksum::sum(&packet[14..34])), 0xffff);
            let pseudo = checksum::sum(&packet[26..34]) + 17 + (8 + payload.len() as u64);
            assert_eq!(checksum::fold(pseudo + checksum::sum(&packet[34..])), 0xffff, "{payload:?}");
        }
    }

    #[test]
    fn a_packet_longer_than_the_least_mtu_leaves_by_the_socket() {
        let outer = Outer::by_nic(LOCAL, REMOTE, [2; 6], [4; 6], 1500);
        assert_eq!(written(&[0; 1472], &outer).1, Way::Nic { mtu: 1500 });
        assert_eq!(written(&[0; 1473], &outer).1, Way::Nic { mtu: 1500 });
        let narrow = Outer::by_nic(LOCAL, REMOTE, [2; 6], [4; 6], 575);
        assert_eq!(written(&[0; 547], &narrow).1, Way::Nic { mtu: 575 });
        assert_eq!(written(&[0; 548], &narrow).1, Way::Socket);
        assert_eq!(written(&[0; 9], &Outer::by_socket(LOCAL, REMOTE)).1, Way::Socket);
    }

    #[test]
    fn padding_is_not_payload_and_cut_packets_are_none() {
        let (mut packet, _) = written(b"x", &Outer::by_socket(LOCAL, REMOTE));
        for len in 0..packet.len() {
            assert_eq!(parse(&packet[..len]), None, "{len} bytes");
        }
        packet.extend([0; 17]);
        assert_eq!(parse(&packet).unwrap().payload, 42..43);
    }

    #[test]
    fn fragments_and_other_protocols_are_none() {
        let (packet, _) = written(b"x", &Outer::by_socket(LOCAL, REMOTE));
        for (at, value) in [(20, 0x20), (21, 0x01), (23, 6), (12, 0x86), (14, 0x65), (14, 0x44)] {
            let mut changed = packet.clone();
            changed[at] = value;
            assert_eq!(parse(&changed), None, "byte {at} = {value:#x}");
        }
    }
}
