//! Ethernet, IPv6 and UDP headers of a tunnel packet.
//!
//! ```text
//!  0          14     54      62
//!  ├ Ethernet ┼ IPv6 ┼ UDP ──┼ OpenVPN data packet
//!  ├ Ethernet ┼ IPv6 ┼ fragment header ┼ a part of UDP header and OpenVPN data packet
//! ```
//! Source: RFC 8200, RFC 768. Of the extension headers only the fragment header is known here: XDP leaves packets with
//! others to the kernel. The flow label is 0, which RFC 6437 allows: a tunnel packet's ports tell its flow.

use std::{
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    ops::Range,
};

use common::Mac;
use openvpn::server::Path;

use super::{Arrived, PROTOCOL_UDP, TTL, Way, be16};
use crate::ports::{checksum, tunnel::headers};

/// Bytes ahead of the OpenVPN packet.
pub(super) const LEN: usize = 62;
/// Bytes of a fragment header.
pub(in crate::worker) const FRAGMENT_LEN: usize = 8;

mod field {
    use std::ops::Range;

    pub const ETHER_TYPE: Range<usize> = 12..14;
    pub const VERSION: usize = 14;
    pub const PAYLOAD_LENGTH: Range<usize> = 18..20;
    pub const NEXT_HEADER: usize = 20;
    pub const HOP_LIMIT: usize = 21;
    pub const SOURCE: Range<usize> = 22..38;
    pub const DESTINATION: Range<usize> = 38..54;
    /// Where the IPv6 header ends.
    pub const PAYLOAD: usize = 54;
    pub const UDP_SOURCE: Range<usize> = 54..56;
    pub const UDP_DESTINATION: Range<usize> = 56..58;
    pub const UDP_LENGTH: Range<usize> = 58..60;
    pub const UDP_CHECKSUM: Range<usize> = 60..62;

    pub const FRAGMENT_NEXT_HEADER: usize = 54;
    pub const FRAGMENT_BITS: Range<usize> = 56..58;
    pub const FRAGMENT_IDENTIFICATION: Range<usize> = 58..62;
}

const ETHER_TYPE: [u8; 2] = [0x86, 0xdd];
const VERSION: u8 = 6;
/// Next header: fragment header.
const FRAGMENT: u8 = 44;
/// Fragment offset and, as the lowest bit, "more".
const FRAGMENT_BITS: u16 = 0xfff9;

/// Every IPv6 link takes packets of this length (RFC 8200, section 5). Where a route says less, packets that are longer
/// than it allows are the kernel's.
const LEAST_MTU: u16 = 1280;

/// The headers of packets from `local` to `remote`, all but lengths and checksum filled in.
pub(super) fn header(local: SocketAddrV6, remote: SocketAddrV6, source: Mac, destination: Mac) -> [u8; LEN] {
    let mut header = [0; LEN];
    header[..6].copy_from_slice(&destination);
    if remote.ip().is_unicast_link_local() {
        // By the socket alone: no other hardware address stands there.
        header[headers::SCOPE].copy_from_slice(&remote.scope_id().to_be_bytes());
    }
    header[6..12].copy_from_slice(&source);
    header[field::ETHER_TYPE].copy_from_slice(&ETHER_TYPE);
    header[field::VERSION] = VERSION << 4;
    header[field::NEXT_HEADER] = PROTOCOL_UDP;
    header[field::HOP_LIMIT] = TTL;
    header[field::SOURCE].copy_from_slice(&local.ip().octets());
    header[field::DESTINATION].copy_from_slice(&remote.ip().octets());
    header[field::UDP_SOURCE].copy_from_slice(&local.port().to_be_bytes());
    header[field::UDP_DESTINATION].copy_from_slice(&remote.port().to_be_bytes());
    header
}

/// Writes `header` at the beginning of `packet`, which ends with its payload, and says by which way it leaves.
pub(super) fn write(header: &[u8; LEN], way: Way, packet: &mut [u8]) -> Way {
    let Some(place) = packet.get_mut(..LEN) else { return way };
    place.copy_from_slice(header);
    let udp = u16::try_from(packet.len() - field::PAYLOAD).unwrap_or(u16::MAX);
    packet[field::PAYLOAD_LENGTH].copy_from_slice(&udp.to_be_bytes());
    packet[field::UDP_LENGTH].copy_from_slice(&udp.to_be_bytes());
    match way {
        Way::Nic { mtu, .. } if mtu >= LEAST_MTU || !super::is_too_long(packet.len(), mtu) => {
            let pseudo = checksum::pseudo_header(
                &packet[field::SOURCE.start..field::DESTINATION.end],
                PROTOCOL_UDP,
                usize::from(udp),
            );
            let sum = checksum::finished(pseudo + checksum::sum(&packet[field::PAYLOAD..]));
            packet[field::UDP_CHECKSUM].copy_from_slice(&checksum::never_none(sum).to_be_bytes());
        }
        // The kernel writes its own headers, checksums and fragments.
        Way::Nic { .. } | Way::Socket | Way::Stream(_) => return Way::Socket,
    }
    way
}

/// Makes the headers of a frame that of the fragment it holds: its part of the datagram stands behind the room for a
/// fragment header. `bits` are its offset in bytes, a multiple of 8, and "more" as the lowest bit.
pub(in crate::worker) fn fragment(frame: &mut [u8], bits: u16, identification: u32) {
    let payload = u16::try_from(frame.len() - field::PAYLOAD).unwrap_or(u16::MAX);
    frame[field::PAYLOAD_LENGTH].copy_from_slice(&payload.to_be_bytes());
    frame[field::NEXT_HEADER] = FRAGMENT;
    frame[field::FRAGMENT_NEXT_HEADER] = PROTOCOL_UDP;
    frame[field::FRAGMENT_NEXT_HEADER + 1] = 0;
    frame[field::FRAGMENT_BITS].copy_from_slice(&bits.to_be_bytes());
    frame[field::FRAGMENT_IDENTIFICATION].copy_from_slice(&identification.to_be_bytes());
}

/// Whether a frame holds IPv6.
pub(in crate::worker) fn is_ipv6(frame: &[u8]) -> bool {
    frame.get(field::ETHER_TYPE).is_some_and(|kind| kind == ETHER_TYPE)
}

/// From where the UDP datagram comes whose header begins at `udp`.
pub(super) fn source(frame: &[u8], udp: usize) -> Option<SocketAddr> {
    let address = address(frame, field::SOURCE)?;
    let scope = headers::scope(address, frame);
    Some(SocketAddrV6::new(address, be16(frame, udp..udp + 2)?, 0, scope).into())
}

/// Reads a whole IPv6 UDP packet, possibly with Ethernet padding, or with a fragment header that says it is whole: that
/// is how [`super::super::fragments`] leaves it. An address that stands for one of IPv4 is no address on a wire.
pub(super) fn parse(frame: &[u8]) -> Option<Arrived> {
    if !is_ipv6(frame) || frame.get(field::VERSION)? >> 4 != VERSION {
        return None;
    }
    let end = field::PAYLOAD + usize::from(be16(frame, field::PAYLOAD_LENGTH)?);
    let packet = frame.get(..end)?;
    let udp = match *packet.get(field::NEXT_HEADER)? {
        PROTOCOL_UDP => field::PAYLOAD,
        FRAGMENT if is_whole(packet)? => field::PAYLOAD + FRAGMENT_LEN,
        _ => return None,
    };
    let udp_bytes = usize::from(be16(packet, udp + 4..udp + 6)?);
    let payload = udp + 8..udp + udp_bytes;
    (payload.start <= payload.end && payload.end <= packet.len()).then_some(())?;
    let local =
        SocketAddrV6::new(address(packet, field::DESTINATION)?, be16(packet, udp + 2..udp + 4)?, 0, 0);
    Some(Arrived { path: Path::udp(source(packet, udp)?, local.into()), payload })
}

/// Whether the fragment header is one of UDP, and the datagram all there.
fn is_whole(packet: &[u8]) -> Option<bool> {
    let is_udp = *packet.get(field::FRAGMENT_NEXT_HEADER)? == PROTOCOL_UDP;
    Some(is_udp && be16(packet, field::FRAGMENT_BITS)? & FRAGMENT_BITS == 0)
}

fn address(bytes: &[u8], at: Range<usize>) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets)).filter(|address| address.to_ipv4_mapped().is_none())
}
