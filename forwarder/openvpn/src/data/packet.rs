//! Layout of a data packet, `P_DATA_V2` with an AEAD and 32-bit packet ids. Source: brief A.10.
//!
//! ```text
//! +0   opcode 9 << 3 | key_id (1)  ┐
//! +1   peer_id (3)                 │ additional authenticated data
//! +4   packet_id (4)               ┘
//! +8   tag (16)
//! +24  ciphertext, at least 1 byte
//! ```

use std::num::NonZeroU32;

use crate::ids::{KeyId, PeerId};

/// Bytes ahead of a frame in a data packet: opcode and key id, peer id, packet id, tag. Source: brief A.10.
pub const HEADER: usize = AAD + TAG;
/// Length of the additional authenticated data, which is everything ahead of the tag.
pub(super) const AAD: usize = 8;
/// Length of the tag; both ciphers' tags are whole.
pub(super) const TAG: usize = 16;

/// `P_DATA_V2` in the first byte's upper five bits; the lower three are the key id.
const DATA_V2: u8 = 9 << 3;
/// The opcode's bits in the first byte.
const OPCODE_MASK: u8 = 0b1111_1000;

/// A data packet, split into its fields; nothing of it is authentic yet.
pub(super) struct Packet<'a> {
    /// Which key it claims to be sealed with.
    pub(super) key_id: KeyId,
    /// Its number under that key: never 0.
    pub(super) packet_id: NonZeroU32,
    /// What is authenticated but not encrypted.
    pub(super) aad: &'a [u8; AAD],
    /// The tag.
    pub(super) tag: &'a [u8; TAG],
    /// The encrypted frame or message, not empty.
    pub(super) ciphertext: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Splits a UDP payload; `None` if it is too short, not `P_DATA_V2`, or has packet id 0.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (aad, rest) = bytes.split_first_chunk::<AAD>()?;
        let (tag, ciphertext) = rest.split_first_chunk::<TAG>()?;
        let [first, _, _, _, packet_id @ ..] = *aad;
        if first & OPCODE_MASK != DATA_V2 || ciphertext.is_empty() {
            return None;
        }
        let packet_id = NonZeroU32::new(u32::from_be_bytes(packet_id))?;
        Some(Self { key_id: KeyId::from_first_byte(first), packet_id, aad, tag, ciphertext })
    }
}

/// The peer a data packet names, before anything of it is looked at or authentic; `None` if it names no peer or is too
/// short to. Opening says what else is wrong with it. Source: brief A.10.
pub fn peer_id_of(packet: &[u8]) -> Option<PeerId> {
    let [_, p0, p1, p2, ..] = *packet else { return None };
    PeerId::new(u32::from_be_bytes([0, p0, p1, p2]))
}

/// The authenticated part of a packet's header.
pub(super) fn aad(key_id: KeyId, peer_id: PeerId, packet_id: NonZeroU32) -> [u8; AAD] {
    let [_, p0, p1, p2] = peer_id.value().to_be_bytes();
    let [i0, i1, i2, i3] = packet_id.get().to_be_bytes();
    [DATA_V2 | key_id.value(), p0, p1, p2, i0, i1, i2, i3]
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
        assert!(Packet::parse(&packet).is_some());
        for len in 0..25 {
            assert!(Packet::parse(&packet[..len]).is_none(), "{len} bytes");
        }
        packet[4..8].fill(0);
        assert!(Packet::parse(&packet).is_none(), "packet id 0 is never used");
    }

    #[test]
    fn only_data_v2_is_parsed() {
        for first in 0..=u8::MAX {
            let mut packet = [1; 25];
            packet[0] = first;
            assert_eq!(Packet::parse(&packet).is_some(), (0x48..0x50).contains(&first), "{first:#x}");
        }
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
            let packet_id = NonZeroU32::new(id).unwrap();
            let packet = [&aad(key_id, peer_id, packet_id)[..], &rest].concat();
            let parsed = Packet::parse(&packet).unwrap();
            prop_assert_eq!(parsed.key_id, key_id);
            prop_assert_eq!(parsed.packet_id, packet_id);
            prop_assert_eq!(peer_id_of(&packet), Some(peer_id));
            prop_assert_eq!([parsed.tag, parsed.ciphertext].concat(), rest);
        }
    }
}
