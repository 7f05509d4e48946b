//! Where the IP and transport headers of a frame are. Pure, and no bytes make it panic.

use std::ops::Range;

/// EtherTypes.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

/// Length of an IPv6 header.
pub const IPV6_LEN: usize = 40;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// Most IPv6 extension headers that are stepped over; senders use one or two.
const MAX_EXTENSIONS: usize = 8;

/// Which IP it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// The source and destination addresses in a frame whose IP header begins at `network`.
    pub const fn addresses(self, network: usize) -> Range<usize> {
        match self {
            Self::V4 => network + 12..network + 20,
            Self::V6 => network + 8..network + 40,
        }
    }
}

/// The layers of a frame that holds a whole IP packet. All are offsets into the frame.
///
/// Invariant: `network < transport <= end <= frame.len()`, and the IP header without options is within the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Which IP it is.
    pub version: Version,
    /// Where the IP header begins.
    pub network: usize,
    /// Where the header after IP begins.
    pub transport: usize,
    /// Where the IP packet ends: padding may follow.
    pub end: usize,
    /// The protocol of that header.
    pub protocol: u8,
}

/// Where the IP header of a frame begins, behind up to two VLAN tags, and which IP it is. `None` for anything else.
pub fn network(frame: &[u8]) -> Option<(Version, usize)> {
    let mut at = 12;
    for _ in 0..=2 {
        match u16_at(frame, at)? {
            VLAN | SERVICE_VLAN => at += 4,
            IPV4 => return Some((Version::V4, at + 2)),
            IPV6 => return Some((Version::V6, at + 2)),
            _ => return None,
        }
    }
    None
}

/// The layers of a frame. `None` for what is not IP, an IP fragment, a packet longer than the frame, and for IPv6 with
/// headers that change what its checksum covers (routing) or hide it.
pub fn layers(frame: &[u8]) -> Option<Layers> {
    let (version, network) = network(frame)?;
    match version {
        Version::V4 => ipv4(frame, network),
        Version::V6 => ipv6(frame, network),
    }
}

fn ipv4(frame: &[u8], network: usize) -> Option<Layers> {
    let header: &[u8; 20] = frame.get(network..)?.first_chunk()?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // More fragments, or an offset.
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    if header[0] >> 4 != 4 || header_len < 20 || total < header_len || fragment {
        return None;
    }
    let (transport, end) = (network + header_len, network + total);
    (end <= frame.len()).then_some(Layers {
        version: Version::V4,
        network,
        transport,
        end,
        protocol: header[9],
    })
}

fn ipv6(frame: &[u8], network: usize) -> Option<Layers> {
    let header: &[u8; IPV6_LEN] = frame.get(network..)?.first_chunk()?;
    let end = network + IPV6_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || end > frame.len() {
        return None;
    }
    let (protocol, transport) = skip_extensions(frame.get(..end)?, header[6], network + IPV6_LEN)?;
    Some(Layers { version: Version::V6, network, transport, end, protocol })
}

/// Steps over hop-by-hop (0) and destination (60) options; stops at anything else. `None` at routing (43) and fragment
/// (44) headers.
fn skip_extensions(packet: &[u8], mut protocol: u8, mut at: usize) -> Option<(u8, usize)> {
    for _ in 0..MAX_EXTENSIONS {
        match protocol {
            0 | 60 => {
                let [next, length] = *packet.get(at..)?.first_chunk()?;
                protocol = next;
                at += (usize::from(length) + 1) * 8;
            }
            43 | 44 => return None,
            _ => return (at <= packet.len()).then_some((protocol, at)),
        }
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|field| u16::from_be_bytes(*field))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn layers_are_in_order_and_within_the_frame(
            mut frame in prop::collection::vec(any::<u8>(), 0..200), kind in 0_usize..4, tags in 0_usize..4,
        ) {
            // Random bytes are hardly ever IP: help them.
            let mut header = vec![0; 12];
            (0..tags).for_each(|_| header.extend_from_slice(&[0x81, 0, 0, 5]));
            match kind {
                0 => header.extend_from_slice(&[0x08, 0x00, 0x45, 0, 0, frame.len() as u8]),
                1 => header.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, frame.len() as u8, 0]),
                2 => header.extend_from_slice(&[0x86, 0xdd, 0x60]),
                _ => header.clear(),
            }
            header.append(&mut frame);
            if let Some(found) = layers(&header) {
                prop_assert!(found.network < found.transport);
                prop_assert!(found.transport <= found.end);
                prop_assert!(found.end <= header.len());
                prop_assert!(found.version.addresses(found.network).end <= header.len());
            }
        }
    }

    #[test]
    fn a_third_tag_is_not_looked_behind() {
        let tagged = |tags: usize| [&[0; 12][..], &[0x81, 0, 0, 5].repeat(tags), &[0x08, 0]].concat();
        assert_eq!(network(&tagged(2)), Some((Version::V4, 22)));
        assert_eq!(network(&tagged(3)), None);
    }
}
