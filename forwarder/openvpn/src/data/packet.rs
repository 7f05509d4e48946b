//! Layout of data packets that an AEAD seals under 32-bit packet ids, and what all data packets begin with.
//! Source: brief A.10.
//!
//! ```text
//!            P_DATA_V2                              P_DATA_V1
//! prefix     +0  opcode 9 << 3 | key_id (1) ┐       +0  opcode 6 << 3 | key_id (1)
//!            +1  peer_id (3)                │ AAD
//! packet id  +4  (4)                        ┘       +1  (4)  AAD
//! tag        +8  (16)                               +5  (16)
//! ciphertext +24 at least 1 byte                    +21
//! ```
//! Other packets have the same prefix: [`super::cbc`], [`super::epoch`].

use std::{num::NonZeroU32, ops::Range};

use super::Layout;
use crate::ids::{KeyId, PeerId};

/// Bytes ahead of a frame in a `P_DATA_V2` packet of an AEAD without epochs, the common case: opcode and key id, peer id,
/// packet id, tag.
pub const HEADER: usize = V2_PREFIX + PACKET_ID + TAG;
/// Length of a `P_DATA_V1` packet's prefix: opcode and key id.
pub(super) const V1_PREFIX: usize = 1;
/// Length of a `P_DATA_V2` packet's prefix: opcode and key id, peer id.
pub(super) const V2_PREFIX: usize = 4;
/// Length of a packet id without epoch.
pub(super) const PACKET_ID: usize = 4;
/// Length of an AEAD's tag; all ciphers' tags are whole.
pub(super) const TAG: usize = 16;

/// `P_DATA_V1` in the first byte's upper five bits; the lower three are the key id.
const DATA_V1: u8 = 6 << 3;
/// `P_DATA_V2` likewise.
const DATA_V2: u8 = 9 << 3;
/// The opcode's bits in the first byte.
const OPCODE_MASK: u8 = 0b1111_1000;

/// What a packet begins with; `P_DATA_V1` has the first byte only.
pub(super) type Prefix = [u8; V2_PREFIX];

impl Layout {
    /// Which key a packet names; `None` if it is empty or no data packet of this layout.
    pub(super) fn key_id(self, packet: &[u8]) -> Option<KeyId> {
        let first = *packet.first()?;
        (first & OPCODE_MASK == self.opcode()).then_some(KeyId::from_first_byte(first))
    }

    /// What packets under `key_id` begin with.
    pub(super) fn prefix(self, key_id: KeyId, peer_id: PeerId) -> Prefix {
        let [_, p0, p1, p2] = peer_id.value().to_be_bytes();
        [self.opcode() | key_id.value(), p0, p1, p2]
    }

    fn opcode(self) -> u8 {
        match self {
            Self::V1 => DATA_V1,
            Self::V2 | Self::Epoch => DATA_V2,
        }
    }
}

/// A data packet behind a prefix of `PREFIX` bytes, split into its fields; nothing of it is authentic yet.
pub(super) struct Packet<'a, const PREFIX: usize> {
    /// Its number under its key: never 0.
    pub(super) packet_id: NonZeroU32,
    /// What is authenticated but not encrypted.
    pub(super) aad: &'a [u8],
    /// The tag.
    pub(super) tag: &'a [u8],
    /// The encrypted frame or message, not empty.
    pub(super) ciphertext: &'a [u8],
}

impl<'a, const PREFIX: usize> Packet<'a, PREFIX> {
    /// Splits a packet; `None` if it is too short or has packet id 0.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(PREFIX + PACKET_ID)?;
        let (tag, ciphertext) = rest.split_at_checked(TAG)?;
        let packet_id = NonZeroU32::new(u32::from_be_bytes(*head.last_chunk()?))?;
        let aad = head.get(aad_of::<PREFIX>())?;
        (!ciphertext.is_empty()).then_some(Self { packet_id, aad, tag, ciphertext })
    }
}

/// Where in a packet the additional authenticated data stand: with the peer id if there is one, else the packet id alone.
pub(super) const fn aad_of<const PREFIX: usize>() -> Range<usize> {
    if PREFIX == V2_PREFIX { 0..PREFIX + PACKET_ID } else { PREFIX..PREFIX + PACKET_ID }
}

/// The peer a data packet names, before anything of it is looked at or authentic; `None` if it names no peer or is too
/// short to. Opening says what else is wrong with it. Source: brief A.10.
pub fn peer_id_of(packet: &[u8]) -> Option<PeerId> {
    let [_, p0, p1, p2, ..] = *packet else { return None };
    PeerId::new(u32::from_be_bytes([0, p0, p1, p2]))
}

/// True for `P_DATA_V1`, which names no peer: it is the peer's who stands where the packet comes from.
pub fn names_no_peer(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & OPCODE_MASK == DATA_V1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_has_the_length_the_protocol_says() {
        assert_eq!(HEADER, 24);
    }

    #[test]
    fn a_packet_is_malformed_until_it_holds_one_byte_of_ciphertext() {
        let mut packet = [0x48; 25];
        assert!(Packet::<V2_PREFIX>::parse(&packet).is_some());
        assert!(Packet::<V1_PREFIX>::parse(&packet[3..]).is_some());
        for len in 0..25 {
            assert!(Packet::<V2_PREFIX>::parse(&packet[..len]).is_none(), "{len} bytes");
            assert!(Packet::<V1_PREFIX>::parse(&packet[..len.min(21)]).is_none(), "{len} bytes");
        }
        packet[4..8].fill(0);
        assert!(Packet::<V2_PREFIX>::parse(&packet).is_none(), "packet id 0 is never used");
    }

    #[test]
    fn only_data_packets_of_the_layout_name_a_key() {
        for first in 0..=u8::MAX {
            assert_eq!(Layout::V2.key_id(&[first]).is_some(), (0x48..0x50).contains(&first), "{first:#x}");
            assert_eq!(Layout::Epoch.key_id(&[first]).is_some(), (0x48..0x50).contains(&first), "{first:#x}");
            assert_eq!(Layout::V1.key_id(&[first]).is_some(), (0x30..0x38).contains(&first), "{first:#x}");
            assert_eq!(names_no_peer(&[first]), (0x30..0x38).contains(&first), "{first:#x}");
        }
        assert_eq!(Layout::V2.key_id(&[]), None);
        assert!(!names_no_peer(&[]));
    }

    #[test]
    fn a_packet_of_no_peer_names_none() {
        let mut packet = [0x48; 25];
        assert_eq!(peer_id_of(&packet), PeerId::new(0x48_4848));
        packet[1..4].fill(0xff);
        assert_eq!(peer_id_of(&packet), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_parsed(key in 0u8..8, peer in 0..PeerId::NONE, id in 1u32.., rest: [u8; 17]) {
            let (key_id, peer_id) = (KeyId::from_first_byte(key), PeerId::new(peer).unwrap());
            for layout in [Layout::V1, Layout::V2] {
                let prefix = layout.prefix(key_id, peer_id);
                let v2 = [&prefix[..], &id.to_be_bytes(), &rest].concat();
                let v1 = [&prefix[..1], &id.to_be_bytes(), &rest].concat();
                prop_assert_eq!(layout.key_id(&v2), Some(key_id));
                prop_assert_eq!(peer_id_of(&v2), Some(peer_id));
                let parsed = Packet::<V2_PREFIX>::parse(&v2).unwrap();
                prop_assert_eq!(parsed.packet_id.get(), id);
                prop_assert_eq!(parsed.aad, &v2[..8]);
                prop_assert_eq!([parsed.tag, parsed.ciphertext].concat(), rest);
                let parsed = Packet::<V1_PREFIX>::parse(&v1).unwrap();
                prop_assert_eq!(parsed.packet_id.get(), id);
                prop_assert_eq!(parsed.aad, id.to_be_bytes());
                prop_assert_eq!([parsed.tag, parsed.ciphertext].concat(), rest);
            }
        }
    }
}
