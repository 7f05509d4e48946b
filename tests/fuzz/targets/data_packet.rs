//! The data channel against packets that are arbitrary, authentic with arbitrary contents, or changed on the way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openvpn::{
    data::{Cipher, DataChannel, DataKeys, Framing, Layout, MAX_OVERHEAD, OpenError, Opened, Profile, Role},
    ids::{KeyId, PeerId},
};

const MAX_FRAME: usize = 1518;

fuzz_target!(|input: &[u8]| {
    for (cipher, layout) in LAYOUTS {
        let profile = Profile { layout, ..Profile::new(cipher, Framing::V2) };
        arbitrary_packet(input, profile);
        round_trip(input, profile);
    }
    for framing in [Framing::None, Framing::V2, Framing::Prefixed, Framing::Swapped] {
        arbitrary_plaintext(input, framing);
        round_trip(input, Profile::new(Cipher::Aes256Gcm, framing));
    }
});

/// Every layout there is.
const LAYOUTS: [(Cipher, Layout); 4] = [
    (Cipher::Aes256Gcm, Layout::V2),
    (Cipher::Aes256Gcm, Layout::V1),
    (Cipher::Aes256Gcm, Layout::Epoch),
    (Cipher::Aes128Cbc, Layout::V2),
];

/// Nothing that was not sealed is opened.
fn arbitrary_packet(packet: &[u8], profile: Profile) {
    let mut server = channel(Role::Server, profile);
    assert!(server.open(packet, &mut [0; 2048]).is_err());
}

/// A peer that knows the key may send any plaintext: it gets no further than one frame of bounded length.
fn arbitrary_plaintext(plaintext: &[u8], framing: Framing) {
    let profile = |framing| Profile::new(Cipher::Aes256Gcm, framing);
    let Some(packet) = seal(&mut channel(Role::Client, profile(Framing::None)), plaintext) else { return };
    let mut out = [0; 2048];
    if let Ok(Opened::Frame { len }) = channel(Role::Server, profile(framing)).open(&packet, &mut out) {
        assert!((14..=MAX_FRAME).contains(&len));
    }
}

/// What was sealed is opened unchanged, once; changed on the way it is not, and does no harm.
fn round_trip(frame: &[u8], profile: Profile) {
    let mut server = channel(Role::Server, profile);
    let Some(packet) = seal(&mut channel(Role::Client, profile), frame) else { return };
    let mut out = [0; 2048];
    assert!(server.open(&changed(&packet, frame, profile), &mut out).is_err());
    match server.open(&packet, &mut out) {
        Ok(Opened::Frame { len }) => assert_eq!(&out[..len], frame),
        Ok(_) => assert!(frame.len() >= 16, "a message is no shorter than its magic"),
        Err(OpenError::PlaintextMalformed) => assert!(frame.len() < 14),
        Err(OpenError::Malformed) => assert!(frame.is_empty()),
        Err(error) => assert!(frame.len() > MAX_FRAME, "{error}"),
    }
    assert!(server.open(&packet, &mut out).is_err(), "replayed");
}

/// `packet` with one bit changed, where `input` says. The HMAC of CBC packets does not cover the prefix ahead of it.
fn changed(packet: &[u8], input: &[u8], profile: Profile) -> Vec<u8> {
    let mut changed = packet.to_vec();
    let at = input.iter().fold(0usize, |sum, &byte| sum * 31 % 65_521 + usize::from(byte));
    let free = if profile.cipher.is_aead() { 0 } else { 4 };
    changed[free + at % (packet.len() - free)] ^= 1 << (at % 8);
    changed
}

fn seal(channel: &mut DataChannel, frame: &[u8]) -> Option<Vec<u8>> {
    let mut packet = vec![0; frame.len() + MAX_OVERHEAD];
    let len = channel.seal(frame, &mut packet).expect("a key is there and the frame fits");
    packet.truncate(len);
    (len <= 2048).then_some(packet)
}

fn channel(role: Role, profile: Profile) -> DataChannel {
    let peer_id = PeerId::new(1).expect("it fits 24 bits");
    let mut channel = DataChannel::new(peer_id, profile, MAX_FRAME);
    channel.install(KeyId::FIRST, DataKeys::new(profile, role, &[7; 256]));
    channel.send_with(KeyId::FIRST);
    channel
}
