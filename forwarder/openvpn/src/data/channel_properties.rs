//! What holds for every profile, key and frame.

use proptest::prelude::*;

use super::*;

/// The reference: another implementation of AES-GCM, and the layout written down a second time.
mod reference {
    use aes_gcm::{
        AeadInOut, Aes128Gcm, Aes256Gcm, AesGcm, KeyInit,
        aead::consts::{U12, U16},
        aes::Aes192,
    };

    use super::Cipher;

    type Nonce = aes_gcm::aead::array::Array<u8, U12>;
    type Tag = aes_gcm::aead::array::Array<u8, U16>;

    /// The packet in which `plaintext` travels under one direction's half of the key block.
    pub(super) fn seal(cipher: Cipher, half: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let nonce: [u8; 12] = [aad.last_chunk::<4>().unwrap(), &half[64..72]].concat().try_into().unwrap();
        let mut text = plaintext.to_vec();
        let tag = match cipher {
            Cipher::Aes128Gcm => encrypt::<Aes128Gcm>(&half[..16], nonce.into(), aad, &mut text),
            Cipher::Aes192Gcm => encrypt::<AesGcm<Aes192, U12>>(&half[..24], nonce.into(), aad, &mut text),
            Cipher::Aes256Gcm => encrypt::<Aes256Gcm>(&half[..32], nonce.into(), aad, &mut text),
            other => panic!("no reference for {other:?}"),
        };
        [aad, &tag, &text].concat()
    }

    fn encrypt<C>(key: &[u8], nonce: Nonce, aad: &[u8], text: &mut [u8]) -> Tag
    where
        C: KeyInit + AeadInOut<NonceSize = U12, TagSize = U16>,
    {
        let cipher = C::new_from_slice(key).unwrap();
        cipher.encrypt_inout_detached(&nonce, aad, text.into()).unwrap()
    }
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 14..MAX_FRAME)
}

fn gcm() -> impl Strategy<Value = Cipher> {
    prop_oneof![Just(Cipher::Aes128Gcm), Just(Cipher::Aes192Gcm), Just(Cipher::Aes256Gcm)]
}

/// Every cipher, with every digest where it matters, in every layout.
fn profiles() -> Vec<Profile> {
    let mut profiles = Vec::new();
    for cipher in Cipher::ALL {
        let digests = if cipher.is_aead() { &Digest::ALL[..1] } else { &Digest::ALL[..] };
        for &digest in digests {
            for layout in [Layout::V1, Layout::V2, Layout::Epoch] {
                profiles.push(Profile { digest, layout, ..Profile::new(cipher, Framing::V2) });
            }
        }
    }
    profiles
}

#[test]
fn frames_of_every_length_cross_under_every_profile_and_are_as_long_as_it_says() {
    for profile in profiles() {
        let mut pair = Pair::of(profile);
        let mut longest = 0;
        for len in (14..80).chain([590, 1513, MAX_FRAME]) {
            let frame: Vec<u8> = (0..len).map(|at| at as u8 | 0x80).collect();
            let packet = seal(&mut pair.client, &frame);
            assert_eq!(packet.len(), profile.sealed_len(len), "{profile:?}");
            longest = longest.max(packet.len() - len);
            assert_eq!(open(&mut pair.server, &packet).as_ref(), Ok(&frame), "{profile:?}");
            assert_eq!(opened(&mut pair.server, &packet), Err(OpenError::Replayed), "{profile:?}");
            let back = seal(&mut pair.server, &frame);
            assert_eq!(open(&mut pair.client, &back), Ok(frame), "{profile:?}");
        }
        // The escape is 2 bytes more.
        assert_eq!(longest + 2, profile.max_overhead(), "{profile:?}");
        assert!(profile.max_overhead() <= MAX_OVERHEAD, "{profile:?}");
    }
}

#[test]
fn what_comes_out_of_order_is_opened_once_under_every_profile() {
    for profile in profiles() {
        let mut pair = Pair::of(profile);
        let packets: Vec<_> = (0..5).map(|_| seal(&mut pair.client, &FRAME)).collect();
        for at in [4, 0, 3, 1, 2] {
            assert_eq!(open(&mut pair.server, &packets[at]).unwrap(), FRAME, "{profile:?}");
        }
        for packet in &packets {
            assert_eq!(opened(&mut pair.server, packet), Err(OpenError::Replayed), "{profile:?}");
        }
    }
}

#[test]
fn packets_of_one_layout_are_none_of_another() {
    let of = |layout| Pair::of(Profile { layout, ..PLAIN });
    let layouts = [Layout::V1, Layout::V2, Layout::Epoch];
    for (from, to) in layouts.into_iter().flat_map(|from| layouts.map(|to| (from, to))) {
        let packet = seal(&mut of(from).client, &FRAME);
        let (mut to_pair, same) = (of(to), from == to);
        assert_eq!(opened(&mut to_pair.server, &packet).is_ok(), same, "{from:?} to {to:?}");
    }
}

#[test]
fn a_packet_without_peer_id_has_the_layout_the_protocol_says() {
    let mut pair = Pair::of(Profile { layout: Layout::V1, ..PLAIN });
    let packet = seal(&mut pair.server, &FRAME);
    assert_eq!(packet.len(), 21 + FRAME.len());
    assert_eq!(packet[..5], [0x30, 0, 0, 0, 1], "opcode and key id, packet id");
    let reference = reference::seal(Cipher::Aes256Gcm, &key2(1)[128..], &packet[1..5], &FRAME);
    assert_eq!(packet[1..], reference, "the packet id alone is authenticated with it");
}

#[test]
fn printing_shows_the_profile() {
    let shown = format!("{:?}", profiles()[0]);
    assert!(shown.contains("cipher: Aes256Gcm") && shown.contains("layout: V1"), "{shown}");
}

proptest! {
    #[test]
    fn packets_agree_with_the_reference_in_both_directions(
        cipher in gcm(),
        key2 in prop::collection::vec(any::<u8>(), 256),
        frame in frames(),
        id in 1u32..=u32::MAX,
    ) {
        let key2: [u8; 256] = key2.try_into().unwrap();
        let mut server = DataChannel::new(peer_id(), Profile::new(cipher, Framing::None), MAX_FRAME);
        server.install(SECOND, DataKeys::new(Profile::new(cipher, Framing::None), Role::Server, &key2));
        server.send_with(SECOND);
        aead(&mut server, SECOND).allowance.skip_to(id);
        let aad = [&[0x49, 1, 2, 3][..], &id.to_be_bytes()].concat();

        let from_client = reference::seal(cipher, &key2[..128], &aad, &frame);
        prop_assert_eq!(open(&mut server, &from_client), Ok(frame.clone()));
        prop_assert_eq!(seal(&mut server, &frame), reference::seal(cipher, &key2[128..], &aad, &frame));
    }

    #[test]
    fn frames_cross_unchanged(frame in frames(), first in prop_oneof![Just(0x50), any::<u8>()], v2: bool) {
        let mut pair = Pair::new(if v2 { Framing::V2 } else { Framing::None });
        let frame = [&[first], &frame[1..]].concat();
        let packet = seal(&mut pair.client, &frame);
        prop_assert_eq!(open(&mut pair.server, &packet), Ok(frame));
    }

    #[test]
    fn no_changed_packet_is_opened(
        frame in frames(), at: prop::sample::Index, bit in 0..8u32, profile in prop::sample::select(profiles()),
    ) {
        let mut pair = Pair::of(profile);
        let packet = seal(&mut pair.client, &frame);
        let mut changed = packet.clone();
        // In CBC mode the HMAC does not cover the peer id, and without AAD nothing covers the key id of `P_DATA_V1`.
        let free = if profile.cipher.is_aead() { 0 } else { 4 };
        changed[free + at.index(packet.len() - free)] ^= 1 << bit;
        prop_assert!(opened(&mut pair.server, &changed).is_err());
        prop_assert!(opened(&mut pair.server, &packet[..packet.len() - 1]).is_err());
        prop_assert!(opened(&mut pair.server, &packet).is_ok(), "the true one still is");
    }

    #[test]
    fn arbitrary_packets_are_refused(
        packet in prop::collection::vec(any::<u8>(), 0..200),
        first in prop_oneof![Just(0x30), Just(0x48), any::<u8>()],
        profile in prop::sample::select(profiles()),
    ) {
        let mut pair = Pair::of(profile);
        let mut packet = packet;
        if let Some(byte) = packet.first_mut() {
            *byte = first;
        }
        prop_assert!(opened(&mut pair.server, &packet).is_err());
    }
}
