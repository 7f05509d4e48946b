//! What a frame's Ethernet header says to a switch.

use common::{FdbKey, Mac};

/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET_HEADER: usize = 14;

mod field {
    use std::ops::Range;

    pub const DESTINATION: Range<usize> = 0..6;
    pub const SOURCE: Range<usize> = 6..12;
    pub const ETHER_TYPE: Range<usize> = 12..14;
    pub const TAG_CONTROL: Range<usize> = 14..16;
}

const ETHER_TYPE_8021Q: [u8; 2] = [0x81, 0x00];
const ETHER_TYPE_8021AD: [u8; 2] = [0x88, 0xa8];
/// Low twelve bits of the tag control information.
const VLAN_ID_MASK: u16 = 0x0fff;

/// Destination, source and VLAN of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// VLAN id of the outer tag; 0 for untagged and priority-tagged frames.
    pub vlan: u16,
}

impl Header {
    /// `None` when `frame` is shorter than an Ethernet header, or ends within its tag.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let destination = frame.get(field::DESTINATION)?.try_into().ok()?;
        let source = frame.get(field::SOURCE)?.try_into().ok()?;
        let ether_type = frame.get(field::ETHER_TYPE)?;
        let vlan = if ether_type == ETHER_TYPE_8021Q || ether_type == ETHER_TYPE_8021AD {
            u16::from_be_bytes(frame.get(field::TAG_CONTROL)?.try_into().ok()?) & VLAN_ID_MASK
        } else {
            0
        };
        Some(Self { destination, source, vlan })
    }

    /// The destination's key in the forwarding database.
    pub fn destination_key(&self) -> FdbKey {
        FdbKey::new(self.vlan, self.destination)
    }

    /// The source's key in the forwarding database.
    pub fn source_key(&self) -> FdbKey {
        FdbKey::new(self.vlan, self.source)
    }

    /// True for broadcast and multicast destinations.
    pub fn is_group(&self) -> bool {
        is_group(self.destination)
    }

    /// True for the address of everybody.
    pub fn is_broadcast(&self) -> bool {
        self.destination == [0xff; 6]
    }

    /// True for 01:80:C2:00:00:00 to 0F, which a bridge does not forward. Source: IEEE 802.1Q table 8-1.
    pub fn is_link_local(&self) -> bool {
        matches!(self.destination, [0x01, 0x80, 0xc2, 0x00, 0x00, last] if last < 0x10)
    }

    /// False for a source no station can have: a group address, or all zero.
    pub fn has_valid_source(&self) -> bool {
        !is_group(self.source) && self.source != [0; 6]
    }
}

const fn is_group(mac: Mac) -> bool {
    mac[0] & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ether_type: [u8; 2], rest: &[u8]) -> Vec<u8> {
        [&[1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13][..], &ether_type, rest].concat()
    }

    #[test]
    fn an_untagged_frame_is_in_vlan_0() {
        let header = Header::parse(&frame([0x08, 0x00], &[])).unwrap();
        assert_eq!(
            header,
            Header { destination: [1, 2, 3, 4, 5, 6], source: [8, 9, 10, 11, 12, 13], vlan: 0 }
        );
    }

    #[test]
    fn the_vlan_id_is_the_low_twelve_bits_of_the_outer_tag() {
        assert_eq!(Header::parse(&frame(ETHER_TYPE_8021Q, &[0xe1, 0x23])).unwrap().vlan, 0x123);
        assert_eq!(
            Header::parse(&frame(ETHER_TYPE_8021AD, &[0x00, 0x07, 0x81, 0x00, 0, 9])).unwrap().vlan,
            7
        );
    }

    #[test]
    fn a_cut_header_is_no_header() {
        let whole = frame(ETHER_TYPE_8021Q, &[0, 1]);
        for len in 0..whole.len() {
            assert_eq!(Header::parse(&whole[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn link_local_groups_are_the_sixteen_of_8021q() {
        let to = |last| Header { destination: [1, 0x80, 0xc2, 0, 0, last], source: [2; 6], vlan: 0 };
        assert!(to(0x00).is_link_local() && to(0x0f).is_link_local());
        assert!(!to(0x10).is_link_local());
    }

    #[test]
    fn group_and_zero_sources_are_invalid() {
        let from = |source| Header { destination: [2; 6], source, vlan: 0 };
        assert!(!from([0; 6]).has_valid_source());
        assert!(!from([0xff; 6]).has_valid_source());
        assert!(!from([0x01, 0, 0, 0, 0, 1]).has_valid_source());
        assert!(from([0x02, 0, 0, 0, 0, 1]).has_valid_source());
    }
}
