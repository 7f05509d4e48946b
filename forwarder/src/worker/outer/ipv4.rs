//! Ethernet, IPv4 and UDP headers of a tunnel packet.
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

use super::{Arrived, PROTOCOL_UDP, TTL, Way, be16};
use crate::ports::checksum;

/// Bytes ahead of the OpenVPN packet.
pub(super) const LEN: usize = 42;

mod field {
    use std::ops::Range;

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

const ETHER_TYPE: [u8; 2] = [0x08, 0x00];
const VERSION: u8 = 4;
/// More-fragments flag and fragment offset.
const FRAGMENT_BITS: u16 = 0x3fff;

/// Every IPv4 path takes packets of this length (RFC 791). Where a route says less, packets that are longer than it
/// allows are the kernel's to fragment: nobody's common case.
const LEAST_MTU: u16 = 576;

/// The headers of packets from `local` to `remote`, all but lengths, identification and checksums filled in.
pub(super) fn header(local: SocketAddrV4, remote: SocketAddrV4, source: Mac, destination: Mac) -> [u8; LEN] {
    let mut header = [0; LEN];
    header[..6].copy_from_slice(&destination);
    header[6..12].copy_from_slice(&source);
    header[field::ETHER_TYPE].copy_from_slice(&ETHER_TYPE);
    header[field::VERSION_IHL] = VERSION << 4 | 5;
    header[field::TTL] = TTL;
    header[field::PROTOCOL] = PROTOCOL_UDP;
    header[field::IP_SOURCE].copy_from_slice(&local.ip().octets());
    header[field::IP_DESTINATION].copy_from_slice(&remote.ip().octets());
    header[field::UDP_SOURCE].copy_from_slice(&local.port().to_be_bytes());
    header[field::UDP_DESTINATION].copy_from_slice(&remote.port().to_be_bytes());
    header
}

/// The address packets with this header go to, in network order.
pub(super) fn destination(header: &[u8; LEN]) -> [u8; 4] {
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| header[field::IP_DESTINATION.start + at]);
    [a, b, c, d]
}

/// Writes `header` at the beginning of `packet`, which ends with its payload, and says by which way it leaves.
pub(super) fn write(header: &[u8; LEN], way: Way, packet: &mut [u8], identification: u16) -> Way {
    let Some(place) = packet.get_mut(..LEN) else { return way };
    place.copy_from_slice(header);
    let total = u16::try_from(packet.len() - field::IP_HEADER.start).unwrap_or(u16::MAX);
    let udp = total.saturating_sub(20);
    packet[field::TOTAL_LENGTH].copy_from_slice(&total.to_be_bytes());
    packet[field::UDP_LENGTH].copy_from_slice(&udp.to_be_bytes());
    match way {
        Way::Nic { mtu, .. } if total <= mtu || mtu >= LEAST_MTU => finish(packet, udp, identification),
        // The kernel writes its own headers, checksums and fragments.
        Way::Nic { .. } | Way::Socket | Way::Stream(_) => return Way::Socket,
    }
    way
}

fn finish(packet: &mut [u8], udp: u16, identification: u16) {
    packet[field::IDENTIFICATION].copy_from_slice(&identification.to_be_bytes());
    write_ip_checksum(packet);
    let addresses = &packet[field::IP_SOURCE.start..field::IP_DESTINATION.end];
    let pseudo = checksum::pseudo_header(addresses, PROTOCOL_UDP, usize::from(udp));
    let udp_sum = checksum::never_none(checksum::finished(pseudo + checksum::sum(&packet[field::UDP..])));
    packet[field::UDP_CHECKSUM].copy_from_slice(&udp_sum.to_be_bytes());
}

/// Makes a frame's header, without options, that of the fragment the frame holds. `bits` are its flags and offset.
pub(in crate::worker) fn fragment(frame: &mut [u8], bits: u16) {
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

/// From where the UDP datagram comes whose header begins at `udp`.
pub(super) fn source(frame: &[u8], udp: usize) -> Option<SocketAddr> {
    Some(SocketAddrV4::new(address(frame, field::IP_SOURCE)?, be16(frame, udp..udp + 2)?).into())
}

/// Reads an unfragmented IPv4 UDP packet, possibly with IPv4 options and Ethernet padding.
#[inline]
pub(super) fn parse(frame: &[u8]) -> Option<Arrived> {
    let first = *frame.get(field::VERSION_IHL)?;
    let header_bytes = usize::from(first & 0x0f) * 4;
    let udp = field::IP_HEADER.start + header_bytes;
    let total = usize::from(be16(frame, field::TOTAL_LENGTH)?);
    let packet = frame.get(..field::IP_HEADER.start + total)?;
    let is_udp_over_ipv4 = frame.get(field::ETHER_TYPE)? == ETHER_TYPE
        && first >> 4 == VERSION
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

fn address(bytes: &[u8], at: Range<usize>) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}
