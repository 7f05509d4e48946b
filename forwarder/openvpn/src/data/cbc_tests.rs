use super::*;
use crate::data::{Digest, Framing};

fn key2() -> [u8; 256] {
    std::array::from_fn(|at| (at as u8).wrapping_mul(151) ^ 0x3c)
}

fn profile(cipher: Cipher, digest: Digest, layout: Layout) -> Profile {
    Profile { digest, layout, ..Profile::new(cipher, Framing::None) }
}

fn keys(profile: Profile) -> CbcKeys {
    let key2 = key2();
    // One half for both directions: what it seals it opens.
    let half = key2.first_chunk().unwrap();
    CbcKeys::new(profile, Halves { open: half, seal: half })
}

fn plain(body: &[u8]) -> Plaintext<'_> {
    Plaintext { head: &[], body, tail: &[] }
}

const PREFIX: Prefix = [0x48, 1, 2, 3];

fn sealed(keys: &mut CbcKeys, plaintext: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; plaintext.len() + 200];
    let len = keys.seal(&PREFIX, &plain(plaintext), &mut packet).unwrap();
    packet.truncate(len);
    packet
}

/// Another hand's reading of the layout: each part found by counting from the front, the text decrypted by itself.
#[test]
fn a_packet_is_hmac_then_iv_then_what_cbc_made_of_id_and_plaintext() {
    let mut keys = keys(profile(Cipher::Aes256Cbc, Digest::Sha256, Layout::V2));
    sealed(&mut keys, b"the first");
    let packet = sealed(&mut keys, b"plaintext of twenty-eight by");
    assert_eq!(packet.len(), 4 + 32 + 16 + 48);
    assert_eq!(packet[..4], PREFIX);
    let half = &key2()[..128];
    let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, &half[64..96]);
    assert_eq!(packet[4..36], *hmac::sign(&hmac_key, &packet[36..]).as_ref());
    let key = UnboundCipherKey::new(&AES_256, &half[..32]).unwrap();
    let mut text = packet[52..].to_vec();
    let iv: [u8; 16] = packet[36..52].try_into().unwrap();
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    DecryptingKey::cbc(key).unwrap().decrypt(&mut text, context).unwrap();
    let expected = [&[0, 0, 0, 2], &b"plaintext of twenty-eight by"[..], &[16; 16]].concat();
    assert_eq!(text, expected, "packet id, plaintext, a whole block of padding");
}

#[test]
fn without_peer_id_one_byte_is_ahead() {
    let mut keys = keys(profile(Cipher::Aes128Cbc, Digest::Sha1, Layout::V1));
    let packet = sealed(&mut keys, b"plaintext");
    assert_eq!(packet.len(), 1 + 20 + 16 + 16);
    let mut out = [0; 64];
    assert_eq!(keys.open(&packet, &mut out), Ok(9));
    assert_eq!(&out[..9], b"plaintext");
}

#[test]
fn no_iv_comes_twice_nor_is_the_other_directions() {
    let half = [0x42; 128];
    let mut seen = std::collections::HashSet::new();
    for half in [half, [0x43; 128]] {
        let halves = Halves { open: &half, seal: &half };
        let mut keys = CbcKeys::new(profile(Cipher::Aes256Cbc, Digest::Sha1, Layout::V2), halves);
        for _ in 0..100 {
            let packet = sealed(&mut keys, b"the same");
            assert!(seen.insert(packet[24..40].to_vec()), "an IV came twice");
        }
    }
}

/// A packet whose HMAC is right and whose decrypted text is `text`, which is whole blocks.
fn forged(keys: &mut CbcKeys, text: &[u8]) -> Vec<u8> {
    let mut body = [&[7; 16], text].concat();
    let context = EncryptionContext::Iv128(FixedLength::from([7; 16]));
    keys.seal.key.less_safe_encrypt(&mut body[16..], context).unwrap();
    let tag = hmac::sign(&keys.seal.hmac, &body);
    [&PREFIX[..], tag.as_ref(), &body].concat()
}

#[test]
fn an_authentic_packet_may_hold_nonsense() {
    let mut keys = keys(profile(Cipher::Aes192Cbc, Digest::Sha384, Layout::V2));
    let mut out = [0; 64];
    for (padding, text) in [
        ("none", [0; 16]),
        ("longer than a block", [17; 16]),
        ("longer than the text", [0xff; 16]),
        ("of different bytes", *b"\0\0\0\x09abcdefgh\x01\x02\x03\x04"),
        ("where the packet id should be", [15; 16]),
    ] {
        let packet = forged(&mut keys, &text);
        assert_eq!(keys.open(&packet, &mut out), Err(OpenError::PlaintextMalformed), "padding {padding}");
    }
    let zero = *b"\0\0\0\0abcdefghijk\x01";
    let packet = forged(&mut keys, &zero);
    assert_eq!(keys.open(&packet, &mut out), Err(OpenError::Malformed), "packet id 0 is never used");
    let empty = *b"\0\0\0\x09\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c\x0c";
    let packet = forged(&mut keys, &empty);
    assert_eq!(keys.open(&packet, &mut out), Ok(0));
    assert_eq!(keys.open(&packet, &mut out), Err(OpenError::Replayed));
}

#[test]
fn what_is_cut_is_malformed_and_what_is_not_authentic_is_not_decrypted() {
    let mut keys = keys(profile(Cipher::Aes256Cbc, Digest::Sha512, Layout::V2));
    let packet = sealed(&mut keys, &[1; 40]);
    let mut out = [0; 64];
    for len in 0..packet.len() {
        let error = keys.open(&packet[..len], &mut out).unwrap_err();
        let is_whole = len >= 4 + 64 + 16 + 16 && (len - 84) % 16 == 0;
        let expected = if is_whole { OpenError::AuthenticationFailed } else { OpenError::Malformed };
        assert_eq!(error, expected, "{len} bytes");
    }
    assert_eq!(out, [0; 64], "nothing was written");
    assert_eq!(keys.open(&packet, &mut [0; 47]), Err(OpenError::TooLong));
    assert_eq!(keys.open(&packet, &mut out), Ok(40));
}

#[test]
fn a_packet_that_does_not_fit_takes_no_packet_id() {
    let mut keys = keys(profile(Cipher::Aes256Cbc, Digest::Sha1, Layout::V2));
    let whole = sealed(&mut keys, &[1; 40]).len();
    for room in [0, 4, 24, 40, whole - 1] {
        assert_eq!(
            keys.seal(&PREFIX, &plain(&[1; 40]), &mut vec![0; room]),
            Err(SealError::TooLong),
            "{room}"
        );
    }
    keys.allowance.skip_to(u32::MAX);
    assert!(keys.is_near_limit());
    sealed(&mut keys, &[1; 40]);
    assert_eq!(keys.seal(&PREFIX, &plain(&[1; 40]), &mut [0; 200]), Err(SealError::KeyExhausted));
}
