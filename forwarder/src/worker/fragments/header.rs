//! What the header of a fragment says.
//!
//! ```text
//!  0          14                  34
//!  ├ Ethernet ┼ IPv4 ┬─ options? ─┼ a part of the datagram: UDP header and payload ┼ padding?
//!             2 total length   4 identification   6 flags and offset   12 source   16 destination
//! ```

use std::ops::Range;

/// Ethernet header.
const ETHERNET: usize = 14;
/// IPv4 header without options.
const IPV4: usize = 20;

mod field {
    use std::ops::Range;

    pub const ETHER_TYPE: Range<usize> = 12..14;
    pub const VERSION_IHL: usize = 14;
    pub const TOTAL_LENGTH: Range<usize> = 16..18;
    pub const IDENTIFICATION: Range<usize> = 18..20;
    pub const FRAGMENT: Range<usize> = 20..22;
    pub const PROTOCOL: usize = 23;
    pub const SOURCE: Range<usize> = 26..30;
    pub const DESTINATION: Range<usize> = 30..34;
}

const ETHER_TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const PROTOCOL_UDP: u8 = 17;
/// More fragments follow this one.
pub(super) const MORE_FRAGMENTS: u16 = 0x2000;
/// Offset in units of [`UNIT`] bytes.
const OFFSET: u16 = 0x1fff;
/// Every fragment but the last holds a multiple of this many bytes.
pub(super) const UNIT: usize = 8;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// Address it comes from, in network order.
    pub source: [u8; 4],
    /// Address it goes to.
    pub destination: [u8; 4],
    /// The sender's number for it.
    pub identification: u16,
}

impl Key {
    /// A number that is spread evenly, and that those who do not know `seed` cannot choose.
    pub fn hash(&self, seed: u64) -> usize {
        let [source, destination] = [self.source, self.destination].map(u32::from_be_bytes);
        let addresses = u64::from(source) << 32 | u64::from(destination);
        // Of a product the upper half depends on every lower bit: so the upper half is what is used, and added below.
        let mix = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = mix(addresses ^ seed);
        let mixed = mix(mixed ^ mixed >> 32 ^ u64::from(self.identification));
        (mixed >> 32) as usize
    }
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which datagram it is a part of.
    pub key: Key,
    /// Where its part begins in the datagram, in bytes behind the IPv4 header.
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

/// Whether an IPv4 packet is a part only. For frames that XDP steered as tunnel packets, which are IPv4.
pub fn is_fragment(frame: &[u8]) -> bool {
    be16(frame, field::FRAGMENT).is_some_and(|bits| bits & (MORE_FRAGMENTS | OFFSET) != 0)
}

/// Reads the fragment of a UDP datagram. `None` if it is none, ends early, is empty, or ends where only a last one may.
pub fn parse(frame: &[u8]) -> Option<Fragment> {
    let first = *frame.get(field::VERSION_IHL)?;
    let header = usize::from(first & 0x0f) * 4;
    let is_udp_over_ipv4 = frame.get(field::ETHER_TYPE)? == ETHER_TYPE_IPV4
        && first >> 4 == 4
        && header >= IPV4
        && frame.get(field::PROTOCOL) == Some(&PROTOCOL_UDP);
    let total = usize::from(be16(frame, field::TOTAL_LENGTH)?);
    if !is_udp_over_ipv4 || !is_fragment(frame) || frame.len() < ETHERNET + total {
        return None;
    }
    let bits = be16(frame, field::FRAGMENT)?;
    let is_last = bits & MORE_FRAGMENTS == 0;
    let len = total.checked_sub(header).filter(|len| *len > 0 && (is_last || len % UNIT == 0))?;
    let key = Key {
        source: frame.get(field::SOURCE)?.try_into().ok()?,
        destination: frame.get(field::DESTINATION)?.try_into().ok()?,
        identification: be16(frame, field::IDENTIFICATION)?,
    };
    let offset = usize::from(bits & OFFSET) * UNIT;
    Some(Fragment { key, offset, len, is_last, begin: ETHERNET + header })
}

/// Makes the header of a datagram's first fragment that of the whole, of `end` bytes in the frame. The header's checksum
/// stays what it was: nobody looks at it any more.
pub(super) fn make_whole(frame: &mut [u8], end: usize) {
    let total = u16::try_from(end.saturating_sub(ETHERNET)).unwrap_or(u16::MAX);
    if let Some(length) = frame.get_mut(field::TOTAL_LENGTH) {
        length.copy_from_slice(&total.to_be_bytes());
    }
    if let Some(bits) = frame.get_mut(field::FRAGMENT) {
        bits.fill(0);
    }
}

fn be16(bytes: &[u8], at: Range<usize>) -> Option<u16> {
    bytes.get(at)?.try_into().ok().map(u16::from_be_bytes)
}
