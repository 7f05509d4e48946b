use super::*;
use crate::data::{
    Cipher, Digest, Framing, HEADER, MAX_OVERHEAD, OCC_EXIT, OCC_MAGIC, PING, Role,
    aead::{AeadKeys, DirectionKey},
    keys::{HALF, Kind},
    packet::V2_PREFIX,
};

const MAX_FRAME: usize = 1518;
const PLAIN: Profile = Profile::new(Cipher::Aes256Gcm, Framing::None);
const FIRST: KeyId = KeyId::FIRST;
const SECOND: KeyId = FIRST.next();

fn key2(seed: u8) -> [u8; 256] {
    std::array::from_fn(|at| (at as u8).wrapping_mul(167) ^ seed)
}

fn peer_id() -> PeerId {
    PeerId::new(0x01_0203).unwrap()
}

/// A server's and a client's channel that share the key under [`FIRST`].
struct Pair {
    server: DataChannel,
    client: DataChannel,
    profile: Profile,
}

impl Pair {
    fn without_keys(profile: Profile) -> Self {
        let channel = || DataChannel::new(peer_id(), profile, MAX_FRAME);
        Self { server: channel(), client: channel(), profile }
    }

    fn new(framing: Framing) -> Self {
        Self::of(Profile { framing, ..PLAIN })
    }

    fn of(profile: Profile) -> Self {
        let mut pair = Self::without_keys(profile);
        pair.install(FIRST, 1);
        pair.send_with(FIRST);
        pair
    }

    fn install(&mut self, key_id: KeyId, seed: u8) {
        self.server.install(key_id, DataKeys::new(self.profile, Role::Server, &key2(seed)));
        self.client.install(key_id, DataKeys::new(self.profile, Role::Client, &key2(seed)));
    }

    fn send_with(&mut self, key_id: KeyId) {
        self.server.send_with(key_id);
        self.client.send_with(key_id);
    }
}

fn seal(channel: &mut DataChannel, frame: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; frame.len() + MAX_OVERHEAD];
    let len = channel.seal(frame, &mut packet).unwrap();
    packet.truncate(len);
    packet
}

fn open(channel: &mut DataChannel, packet: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut out = [0; 2048];
    match channel.open(packet, &mut out)? {
        Opened::Frame { len } => Ok(out[..len].to_vec()),
        other => panic!("{other:?} is no frame"),
    }
}

fn opened(channel: &mut DataChannel, packet: &[u8]) -> Result<Opened, OpenError> {
    channel.open(packet, &mut [0; 2048])
}

const FRAME: [u8; 60] = [0x02; 60];

#[test]
fn a_sealed_packet_has_the_layout_the_protocol_says() {
    let mut pair = Pair::new(Framing::V2);
    let packet = seal(&mut pair.server, &FRAME);
    assert_eq!(packet.len(), 24 + FRAME.len());
    assert_eq!(packet[..8], [0x48, 1, 2, 3, 0, 0, 0, 1], "opcode and key id, peer id, packet id");
    pair.install(SECOND, 2);
    pair.send_with(SECOND);
    assert_eq!(seal(&mut pair.server, &FRAME)[..8], [0x49, 1, 2, 3, 0, 0, 0, 1], "ids begin anew with a key");
}

#[test]
fn frames_cross_in_both_directions() {
    let mut pair = Pair::new(Framing::None);
    let packet = seal(&mut pair.server, &FRAME);
    assert_eq!(open(&mut pair.client, &packet).unwrap(), FRAME);
    assert_eq!(
        open(&mut pair.server, &packet),
        Err(OpenError::AuthenticationFailed),
        "a packet reflected to its sender is not opened"
    );
    let packet = seal(&mut pair.client, &FRAME);
    assert_eq!(open(&mut pair.server, &packet).unwrap(), FRAME);
}

#[test]
fn a_frame_to_a_mac_beginning_0x50_is_escaped_and_arrives() {
    let mut pair = Pair::new(Framing::V2);
    let frame = [0x50; MAX_FRAME];
    let packet = seal(&mut pair.server, &frame);
    assert_eq!(packet.len(), HEADER + 2 + frame.len());
    assert_eq!(open(&mut pair.client, &packet).unwrap(), frame);
}

#[test]
fn stock_openvpn_s_spelling_of_the_escape_is_opened() {
    let mut stock = Pair::new(Framing::None);
    let mut ours = Pair::new(Framing::V2);
    let packet = seal(&mut stock.client, &[&[0x50, 0x0a][..], &[0x50; 60]].concat());
    assert_eq!(open(&mut ours.server, &packet).unwrap(), [0x50; 60]);
}

#[test]
fn a_compressed_frame_of_an_old_client_is_opened() {
    let mut stock = Pair::new(Framing::None);
    let mut ours = Pair::new(Framing::V2);
    let block = lz4_flex::block::compress(&[0x33; MAX_FRAME]);
    let packet = seal(&mut stock.client, &[&[0x50, 0x01], &block[..]].concat());
    assert_eq!(open(&mut ours.server, &packet).unwrap(), [0x33; MAX_FRAME]);
}

#[test]
fn messages_are_told_from_frames_with_and_without_framing() {
    for framing in [Framing::None, Framing::V2] {
        let mut pair = Pair::new(framing);
        let mut ping = [0; 64];
        let len = pair.client.seal_ping(&mut ping).unwrap();
        assert_eq!(len, HEADER + PING.len());
        assert_eq!(opened(&mut pair.server, &ping[..len]), Ok(Opened::Ping));
        let exit = seal(&mut pair.client, &OCC_EXIT);
        assert_eq!(opened(&mut pair.server, &exit), Ok(Opened::Exit));
        let request = seal(&mut pair.client, &[&OCC_MAGIC[..], &[0]].concat());
        assert_eq!(opened(&mut pair.server, &request), Ok(Opened::Occ));
    }
}

#[test]
fn a_replayed_packet_is_dropped_and_a_reordered_one_is_not() {
    let mut pair = Pair::new(Framing::V2);
    let (first, second) = (seal(&mut pair.client, &FRAME), seal(&mut pair.client, &FRAME));
    assert!(open(&mut pair.server, &second).is_ok());
    assert!(open(&mut pair.server, &first).is_ok());
    assert_eq!(open(&mut pair.server, &first), Err(OpenError::Replayed));
    assert_eq!(open(&mut pair.server, &second), Err(OpenError::Replayed));
}

#[test]
fn a_forged_packet_does_not_move_the_window() {
    let mut pair = Pair::new(Framing::V2);
    let packet = seal(&mut pair.client, &FRAME);
    let mut forged = packet.clone();
    forged[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(open(&mut pair.server, &forged), Err(OpenError::AuthenticationFailed));
    assert!(open(&mut pair.server, &packet).is_ok());
}

#[test]
fn an_authentic_packet_counts_as_received_even_when_it_holds_no_frame() {
    let mut pair = Pair::new(Framing::V2);
    let packet = seal(&mut pair.client, &[0x02; 13]);
    assert_eq!(open(&mut pair.server, &packet), Err(OpenError::PlaintextMalformed));
    assert_eq!(open(&mut pair.server, &packet), Err(OpenError::Replayed));
}

#[test]
fn a_frame_beyond_the_longest_is_too_long() {
    let mut pair = Pair::new(Framing::V2);
    let packet = seal(&mut pair.client, &[0x02; MAX_FRAME + 1]);
    assert_eq!(open(&mut pair.server, &packet), Err(OpenError::TooLong));
    let packet = seal(&mut pair.client, &FRAME);
    assert_eq!(pair.server.open(&packet, &mut [0; 59]), Err(OpenError::TooLong), "no room");
    assert_eq!(pair.server.open(&packet, &mut [0; 60]), Ok(Opened::Frame { len: 60 }));
}

#[test]
fn without_a_key_nothing_is_sealed_or_opened() {
    let mut pair = Pair::without_keys(Profile { framing: Framing::V2, ..PLAIN });
    assert_eq!(pair.server.seal(&FRAME, &mut [0; 100]), Err(SealError::NoKey));
    pair.send_with(FIRST);
    assert_eq!(pair.server.seal_ping(&mut [0; 100]), Err(SealError::NoKey), "unknown ids change nothing");
    pair.install(FIRST, 1);
    assert_eq!(
        pair.server.seal(&FRAME, &mut [0; 100]),
        Err(SealError::NoKey),
        "installed, not yet sent with"
    );
    assert_eq!(opened(&mut pair.client, &[0x49; 100]), Err(OpenError::KeyUnknown));
    assert_eq!(opened(&mut pair.client, &[0x31; 100]), Err(OpenError::Malformed));
}

#[test]
fn through_a_rekey_both_keys_are_opened_and_the_sender_chooses() {
    let mut pair = Pair::new(Framing::V2);
    pair.install(SECOND, 2);
    let old = seal(&mut pair.client, &FRAME);
    assert_eq!(old[0], 0x48, "installing does not change what is sent with");
    pair.client.send_with(SECOND);
    let new = seal(&mut pair.client, &FRAME);
    assert_eq!(new[0], 0x49);
    assert!(open(&mut pair.server, &new).is_ok());
    assert!(open(&mut pair.server, &old).is_ok());
    pair.server.retire(FIRST);
    pair.client.send_with(FIRST);
    let late = seal(&mut pair.client, &FRAME);
    assert_eq!(open(&mut pair.server, &late), Err(OpenError::KeyUnknown));
}

#[test]
fn retiring_the_key_in_use_leaves_nothing_to_seal_with() {
    let mut pair = Pair::new(Framing::V2);
    pair.server.retire(FIRST);
    assert_eq!(pair.server.seal(&FRAME, &mut [0; 100]), Err(SealError::NoKey));
}

#[test]
fn all_eight_key_ids_can_be_installed() {
    let mut pair = Pair::without_keys(Profile { framing: Framing::V2, ..PLAIN });
    let ids: Vec<KeyId> = std::iter::successors(Some(FIRST), |id| Some(id.next())).take(8).collect();
    for &id in &ids {
        pair.install(id, id.value());
    }
    for &id in &ids {
        pair.client.send_with(id);
        let packet = seal(&mut pair.client, &FRAME);
        assert_eq!(open(&mut pair.server, &packet).unwrap(), FRAME);
    }
}

/// The keys of AES-GCM in `P_DATA_V2`.
fn aead(channel: &mut DataChannel, key_id: KeyId) -> &mut AeadKeys<V2_PREFIX> {
    match &mut channel.keys[slot(key_id)].as_mut().unwrap().kind {
        Kind::V2(keys) => keys,
        _ => panic!("another kind of key"),
    }
}

#[test]
fn a_rekey_is_requested_once_and_the_last_id_ends_the_key() {
    let mut pair = Pair::new(Framing::V2);
    assert!(!pair.server.take_rekey_request());
    aead(&mut pair.server, FIRST).allowance.skip_to(0xff00_0000);
    seal(&mut pair.server, &FRAME);
    assert!(pair.server.take_rekey_request());
    assert!(!pair.server.take_rekey_request());
    aead(&mut pair.server, FIRST).allowance.skip_to(u32::MAX);
    let last = seal(&mut pair.server, &FRAME);
    assert_eq!(open(&mut pair.client, &last).unwrap(), FRAME);
    assert_eq!(pair.server.seal(&FRAME, &mut [0; 100]), Err(SealError::KeyExhausted));
    pair.install(SECOND, 2);
    pair.send_with(SECOND);
    assert_eq!(seal(&mut pair.server, &FRAME)[..1], [0x49]);
}

#[test]
fn what_is_received_asks_for_a_rekey_too() {
    let mut pair = Pair::new(Framing::V2);
    aead(&mut pair.server, FIRST).opened.add(16 * ((7 << 33) - 8));
    let packet = seal(&mut pair.client, &FRAME);
    assert!(!pair.server.take_rekey_request());
    for _ in 0..2 {
        let packet = seal(&mut pair.client, &FRAME);
        open(&mut pair.server, &packet).unwrap();
    }
    open(&mut pair.server, &packet).unwrap();
    assert!(pair.server.take_rekey_request());
    assert!(!pair.server.take_rekey_request());
}

#[test]
fn no_rekey_is_requested_while_a_newer_key_waits() {
    let mut pair = Pair::new(Framing::V2);
    pair.install(SECOND, 2);
    aead(&mut pair.server, FIRST).allowance.skip_to(0xff00_0001);
    assert!(!pair.server.take_rekey_request());
    pair.server.retire(SECOND);
    assert!(pair.server.take_rekey_request(), "the newer key came to nothing");
}

#[test]
fn a_packet_that_does_not_fit_takes_no_packet_id() {
    let mut pair = Pair::new(Framing::V2);
    for room in [0, 8, HEADER, HEADER + FRAME.len() - 1] {
        assert_eq!(pair.server.seal(&FRAME, &mut vec![0; room]), Err(SealError::TooLong), "{room} bytes");
    }
    assert_eq!(seal(&mut pair.server, &FRAME)[4..8], [0, 0, 0, 1]);
}

#[test]
fn printing_a_channel_shows_no_key() {
    let pair = Pair::new(Framing::V2);
    let shown = format!("{:?}", pair.server);
    assert!(shown.starts_with("DataChannel { peer_id: PeerId(66051), framing: V2"), "{shown}");
    assert!(!shown.contains("keys"), "{shown}");
}

/// OpenVPN's own known packet (`vectors.json`, `data_aes_256_gcm`), which has another opcode than ours in its AAD.
#[test]
fn openvpn_s_known_packet_is_reproduced() {
    let text = b"abcdefgh01234567ABCDEFGHjkuchenl";
    let key2: [u8; 256] = std::array::from_fn(|at| text[at % 32] ^ (at % 128) as u8);
    let half: &[u8; HALF] = key2.first_chunk().unwrap();
    let key = DirectionKey::new(Cipher::Aes256Gcm, half);
    let text = *b"The quick little fox jumps over the bureaucratic hurdles";
    let (aad, id) = ([0x07, 0x00, 0x00, 0x17, 0, 0, 0, 1], std::num::NonZeroU32::MIN);
    let expected =
        [0x1f, 0xdd, 0x90, 0x8f, 0x0e, 0x9d, 0xc2, 0x5e, 0x79, 0xd8, 0x32, 0x02, 0x0d, 0x58, 0xe7, 0x3f];
    let whole = Plaintext { head: &[], body: &text, tail: &[] };
    let parts = Plaintext { head: &text[..2], body: &text[2..55], tail: &text[55..] };
    for plaintext in [whole, parts] {
        let (mut bytes, mut tag) = ([0; 56], [0; 16]);
        key.seal(id, &aad, &plaintext, &mut bytes, &mut tag).unwrap();
        assert_eq!(tag, expected);
        let wire = [&aad[4..], &tag, &bytes].concat();
        assert_eq!(wire[30..36], [0xa8, 0x2e, 0x6b, 0x17, 0x06, 0xd9]);
    }
}

#[path = "channel_properties.rs"]
mod properties;
