//! What the header of a fragment says.
//!
//! ```text
//!  0          14                  34
//!  ├ Ethernet ┼ IPv4 ┬─ options? ─┼ a part of the datagram: UDP header and payload ┼ padding?
//!             2 total length   4 identification   6 flags and offset   12 source   16 destination
//!  0          14     54                62
//!  ├ Ethernet ┼ IPv6 ┼ fragment header ┼ a part of the datagram ┼ padding?
//!             4 payload length   6 next header 44   8 source   24 destination
//!                     0 next header   2 offset and "more"   4 identification
//! ```

use std::{net::Ipv4Addr, ops::Range};

use super::super::outer::ipv6;

/// Ethernet header.
const ETHERNET: usize = 14;
const PROTOCOL_UDP: u8 = 17;
/// IPv4: more fragments follow this one.
pub(super) const MORE_FRAGMENTS: u16 = 0x2000;
/// Every fragment but the last holds a multiple of this many bytes.
pub(super) const UNIT: usize = 8;

/// What the fragments of one datagram have in common. IPv4's addresses stand in the form of IPv6 (`::ffff:a.b.c.d`), so
/// that a key of one is none of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// Address it comes from, in network order.
    pub source: [u8; 16],
    /// Address it goes to.
    pub destination: [u8; 16],
    /// The sender's number for it; of IPv4 16 bits.
    pub identification: u32,
}

impl Key {
    /// A number that is spread evenly, and that those who do not know `seed` cannot choose.
    pub fn hash(&self, seed: u64) -> usize {
        // Of a product the upper half depends on every lower bit: so the upper half is what is used, and added below.
        let mix = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let words =
            [&self.source, &self.destination].into_iter().flat_map(|address| address.as_chunks::<8>().0);
        let words = words.map(|word| u64::from_be_bytes(*word)).chain([self.identification.into()]);
        let mixed = words.fold(seed, |mixed, word| mix(mixed ^ mixed >> 32 ^ word));
        (mixed >> 32) as usize
    }
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which datagram it is a part of.
    pub key: Key,
    /// Where its part begins in the datagram, in bytes behind the IP header.
    pub offset: usize,
    /// Length of its part in bytes, at least 1.
    pub len: usize,
    /// The datagram ends with it.
    pub is_last: bool,
    /// Where its part begins in the frame.
    pub begin: usize,
}

impl Fragment {
    /// Where its part ends in the datagram.
    pub fn end(&self) -> usize {
        self.offset + self.len
    }
}

/// Whether a packet is a part only. For frames that XDP steered as tunnel packets.
pub fn is_fragment(frame: &[u8]) -> bool {
    if ipv6::is_ipv6(frame) { six::is_fragment(frame) } else { four::is_fragment(frame) }
}

/// Reads the fragment of a UDP datagram. `None` if it is none, ends early, is empty, or ends where only a last one may.
pub fn parse(frame: &[u8]) -> Option<Fragment> {
    if ipv6::is_ipv6(frame) { six::parse(frame) } else { four::parse(frame) }
}

/// Makes the header of a datagram's first fragment that of the whole, of `end` bytes in the frame. The header's checksum
/// stays what it was, and IPv6's fragment header where it is: nobody looks at them any more.
pub(super) fn make_whole(frame: &mut [u8], end: usize) {
    let (length, from, bits) = if ipv6::is_ipv6(frame) {
        (six::PAYLOAD_LENGTH, six::PAYLOAD, six::FRAGMENT)
    } else {
        (four::TOTAL_LENGTH, ETHERNET, four::FRAGMENT)
    };
    let total = u16::try_from(end.saturating_sub(from)).unwrap_or(u16::MAX);
    if let Some(length) = frame.get_mut(length) {
        length.copy_from_slice(&total.to_be_bytes());
    }
    if let Some(bits) = frame.get_mut(bits) {
        bits.fill(0);
    }
}

/// A part of `len` bytes, unless it is empty or ends where only the last one may.
fn sound_len(len: Option<usize>, is_last: bool) -> Option<usize> {
    len.filter(|len| *len > 0 && (is_last || len % UNIT == 0))
}

fn be16(bytes: &[u8], at: Range<usize>) -> Option<u16> {
    bytes.get(at)?.try_into().ok().map(u16::from_be_bytes)
}

/// IPv4.
mod four {
    use super::*;

    const ETHER_TYPE: Range<usize> = 12..14;
    const VERSION_IHL: usize = 14;
    pub const TOTAL_LENGTH: Range<usize> = 16..18;
    const IDENTIFICATION: Range<usize> = 18..20;
    pub const FRAGMENT: Range<usize> = 20..22;
    const PROTOCOL: usize = 23;
    const SOURCE: Range<usize> = 26..30;
    const DESTINATION: Range<usize> = 30..34;

    const ETHER_TYPE_IPV4: [u8; 2] = [0x08, 0x00];
    /// IPv4 header without options.
    const HEADER: usize = 20;
    /// Offset in units of [`UNIT`] bytes.
    const OFFSET: u16 = 0x1fff;

    pub fn is_fragment(frame: &[u8]) -> bool {
        be16(frame, FRAGMENT).is_some_and(|bits| bits & (MORE_FRAGMENTS | OFFSET) != 0)
    }

    pub fn parse(frame: &[u8]) -> Option<Fragment> {
        let first = *frame.get(VERSION_IHL)?;
        let header = usize::from(first & 0x0f) * 4;
        let is_udp_over_ipv4 = frame.get(ETHER_TYPE)? == ETHER_TYPE_IPV4
            && first >> 4 == 4
            && header >= HEADER
            && frame.get(PROTOCOL) == Some(&PROTOCOL_UDP);
        let total = usize::from(be16(frame, TOTAL_LENGTH)?);
        if !is_udp_over_ipv4 || !is_fragment(frame) || frame.len() < ETHERNET + total {
            return None;
        }
        let bits = be16(frame, FRAGMENT)?;
        let is_last = bits & MORE_FRAGMENTS == 0;
        let len = sound_len(total.checked_sub(header), is_last)?;
        let address = |at: Range<usize>| -> Option<[u8; 16]> {
            let octets: [u8; 4] = frame.get(at)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets).to_ipv6_mapped().octets())
        };
        let key = Key {
            source: address(SOURCE)?,
            destination: address(DESTINATION)?,
            identification: be16(frame, IDENTIFICATION)?.into(),
        };
        let offset = usize::from(bits & OFFSET) * UNIT;
        Some(Fragment { key, offset, len, is_last, begin: ETHERNET + header })
    }
}

/// IPv6, where the fragment header follows the IPv6 header at once.
mod six {
    use super::*;

    const VERSION: usize = 14;
    pub const PAYLOAD_LENGTH: Range<usize> = 18..20;
    const NEXT_HEADER: usize = 20;
    const SOURCE: Range<usize> = 22..38;
    const DESTINATION: Range<usize> = 38..54;
    pub const PAYLOAD: usize = 54;
    const FRAGMENT_NEXT_HEADER: usize = 54;
    pub const FRAGMENT: Range<usize> = 56..58;
    const IDENTIFICATION: Range<usize> = 58..62;
    const BEGIN: usize = 62;

    /// Next header: fragment header.
    const FRAGMENT_HEADER: u8 = 44;
    const MORE: u16 = 1;
    /// Offset in bytes, in the place of units of 8 that are counted from bit 3.
    const OFFSET: u16 = 0xfff8;

    pub fn is_fragment(frame: &[u8]) -> bool {
        frame.get(NEXT_HEADER) == Some(&FRAGMENT_HEADER)
            && be16(frame, FRAGMENT).is_some_and(|bits| bits & (MORE | OFFSET) != 0)
    }

    pub fn parse(frame: &[u8]) -> Option<Fragment> {
        let payload = usize::from(be16(frame, PAYLOAD_LENGTH)?);
        let is_version_6 = frame.get(VERSION)? >> 4 == 6;
        //= rfc8200 section 4.5: only the first fragment's next header counts; XDP saw that one, and of UDP all are alike.
        let is_udp = frame.get(FRAGMENT_NEXT_HEADER) == Some(&PROTOCOL_UDP);
        if !is_version_6 || !is_fragment(frame) || !is_udp || frame.len() < PAYLOAD + payload {
            return None;
        }
        let bits = be16(frame, FRAGMENT)?;
        let is_last = bits & MORE == 0;
        let len = sound_len((PAYLOAD + payload).checked_sub(BEGIN), is_last)?;
        let key = Key {
            source: frame.get(SOURCE)?.try_into().ok()?,
            destination: frame.get(DESTINATION)?.try_into().ok()?,
            identification: frame.get(IDENTIFICATION)?.try_into().ok().map(u32::from_be_bytes)?,
        };
        Some(Fragment { key, offset: usize::from(bits & OFFSET), len, is_last, begin: BEGIN })
    }
}
