use super::*;

const CIPHER: Cipher = Cipher::Aes256Gcm;
fn plain(body: &[u8]) -> Plaintext<'_> {
    Plaintext { head: &[], body, tail: &[] }
}

const PREFIX: Prefix = [0x48, 1, 2, 3];
const TEXT: [u8; 60] = [0x02; 60];

/// Two ends of the same keys.
struct Pair {
    server: EpochKeys,
    client: EpochKeys,
}

impl Pair {
    fn new(cipher: Cipher) -> Self {
        let (one, other) = ([0x11; keys::HALF], [0x22; keys::HALF]);
        Self {
            server: EpochKeys::new(cipher, Halves { open: &one, seal: &other }),
            client: EpochKeys::new(cipher, Halves { open: &other, seal: &one }),
        }
    }

    /// A client that is in `epoch` already; the server knows nothing of it.
    fn with_client_in(epoch: u16) -> Self {
        let mut pair = Self::new(CIPHER);
        pair.client.seal.advance_to(epoch);
        pair
    }
}

fn sealed(keys: &mut EpochKeys) -> Vec<u8> {
    let mut packet = vec![0; TEXT.len() + HEADER + TAG];
    let len = keys.seal(&PREFIX, &plain(&TEXT), &mut packet).unwrap();
    assert_eq!(len, packet.len());
    packet
}

fn opened(keys: &mut EpochKeys, packet: &[u8]) -> Result<(), OpenError> {
    let mut out = [0; 128];
    let len = keys.open(packet, &mut out)?;
    assert_eq!(out[..len], TEXT);
    Ok(())
}

fn epoch_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[4], packet[5]])
}

/// OpenVPN's own known packet (`vectors.json`, `data_epoch_aes_256_gcm`), which has another prefix than ours.
#[test]
fn openvpn_s_known_packet_is_reproduced() {
    let text = b"abcdefgh01234567ABCDEFGHjkuchenl";
    let half: [u8; keys::HALF] = std::array::from_fn(|at| text[at % 32] ^ at as u8);
    let mut sender = Sender::new(CIPHER, &half);
    sender.advance_to(4);
    let plaintext = b"The quick little fox jumps over the bureaucratic hurdles";
    let mut packet = [0; 12 + 56 + 16];
    let len = sender
        .seal(
            &[0x07, 0, 0, 0x17],
            &Plaintext { head: &plaintext[..2], body: &plaintext[2..55], tail: &plaintext[55..] },
            &mut packet,
        )
        .unwrap();
    assert_eq!(len, packet.len());
    assert_eq!(packet[..12], [0x07, 0, 0, 0x17, 0, 4, 0, 0, 0, 0, 0, 1]);
    let tag =
        [0x0f, 0xff, 0xf5, 0x91, 0x3d, 0x39, 0xd7, 0x5b, 0x18, 0x57, 0x3b, 0x57, 0x48, 0x58, 0x9a, 0x7d];
    assert_eq!(packet[68..], tag);
    assert_eq!(packet[4..][14..20], [0x36, 0xaa, 0xb4, 0xd4, 0x9c, 0xe6]);
}

#[test]
fn a_packet_has_the_layout_the_protocol_says() {
    let mut pair = Pair::new(CIPHER);
    let packet = sealed(&mut pair.server);
    assert_eq!(packet.len(), 28 + TEXT.len());
    assert_eq!(packet[..12], [0x48, 1, 2, 3, 0, 1, 0, 0, 0, 0, 0, 1], "epoch 1, counter 1");
    assert_eq!(sealed(&mut pair.server)[4..12], [0, 1, 0, 0, 0, 0, 0, 2]);
}

#[test]
fn epochs_follow_each_other_in_both_directions_without_a_loss() {
    for cipher in [Cipher::Aes128Gcm, Cipher::Aes192Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let mut pair = Pair::new(cipher);
        for epoch in 1..40 {
            let first = sealed(&mut pair.client);
            assert_eq!(epoch_of(&first), epoch);
            opened(&mut pair.server, &first).unwrap();
            let back = sealed(&mut pair.server);
            assert_eq!(epoch_of(&back), epoch, "who receives under an epoch sends under no earlier one");
            opened(&mut pair.client, &back).unwrap();
            pair.client.seal.advance();
        }
    }
}

#[test]
fn four_epochs_ahead_are_received_and_no_fifth() {
    for ahead in 1..=6 {
        let mut pair = Pair::with_client_in(1 + ahead);
        let packet = sealed(&mut pair.client);
        let expected = if ahead <= 4 { Ok(()) } else { Err(OpenError::KeyUnknown) };
        assert_eq!(opened(&mut pair.server, &packet), expected, "{ahead} ahead");
        assert_eq!(pair.server.open.future.len(), FUTURE);
    }
}

#[test]
fn after_a_move_the_former_epoch_is_still_received_and_those_before_are_not() {
    let mut pair = Pair::new(CIPHER);
    let mut of_epoch = |epoch| {
        pair.client.seal.advance_to(epoch);
        [sealed(&mut pair.client), sealed(&mut pair.client)]
    };
    let [second, third] = [of_epoch(2), of_epoch(3)];
    let fifth = of_epoch(5);
    opened(&mut pair.server, &second[0]).unwrap();
    opened(&mut pair.server, &third[0]).unwrap();
    opened(&mut pair.server, &second[1]).unwrap();
    assert_eq!(opened(&mut pair.server, &second[0]), Err(OpenError::Replayed), "windows move along");
    opened(&mut pair.server, &fifth[0]).unwrap();
    opened(&mut pair.server, &third[1]).unwrap();
    assert_eq!(opened(&mut pair.server, &second[1]), Err(OpenError::KeyUnknown));
    assert_eq!(opened(&mut pair.server, &fifth[0]), Err(OpenError::Replayed));
    opened(&mut pair.server, &fifth[1]).unwrap();
}

#[test]
fn a_forged_packet_of_a_later_epoch_moves_nothing() {
    let mut pair = Pair::with_client_in(3);
    let mut forged = sealed(&mut pair.client);
    forged[30] ^= 1;
    assert_eq!(opened(&mut pair.server, &forged), Err(OpenError::AuthenticationFailed));
    assert_eq!(pair.server.open.current.key.epoch, 1);
    assert_eq!(epoch_of(&sealed(&mut pair.server)), 1);
}

#[test]
fn epoch_and_counter_zero_are_never_used() {
    let mut pair = Pair::new(CIPHER);
    let packet = sealed(&mut pair.client);
    for field in [4..6, 6..12] {
        let mut zero = packet.clone();
        zero[field].fill(0);
        assert_eq!(opened(&mut pair.server, &zero), Err(OpenError::Malformed));
    }
    for len in 0..29 {
        assert_eq!(opened(&mut pair.server, &packet[..len]), Err(OpenError::Malformed), "{len} bytes");
    }
}

/// As if data had gone through it.
fn use_up(usage: &mut Usage) {
    usage.add(16 << 36);
}

#[test]
fn a_sender_goes_on_when_its_key_is_used_up() {
    let mut pair = Pair::new(CIPHER);
    sealed(&mut pair.client);
    use_up(&mut pair.client.seal.sealed);
    let packet = sealed(&mut pair.client);
    assert_eq!(packet[4..12], [0, 2, 0, 0, 0, 0, 0, 1], "counters begin anew");
    pair.client.seal.next = LAST_COUNTER;
    let last = sealed(&mut pair.client);
    assert_eq!(last[4..12], [0, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(sealed(&mut pair.client)[4..12], [0, 3, 0, 0, 0, 0, 0, 1]);
    opened(&mut pair.server, &packet).unwrap();
    opened(&mut pair.server, &last).unwrap();
}

#[test]
fn chacha20_is_not_limited_by_what_it_encrypts() {
    let mut pair = Pair::new(Cipher::ChaCha20Poly1305);
    use_up(&mut pair.client.seal.sealed);
    assert_eq!(epoch_of(&sealed(&mut pair.client)), 1);
}

#[test]
fn a_sender_whose_key_is_used_up_is_told_by_a_later_epoch_once() {
    let mut pair = Pair::new(CIPHER);
    let packet = sealed(&mut pair.client);
    opened(&mut pair.server, &packet).unwrap();
    use_up(&mut pair.server.open.current.opened);
    let hint = sealed(&mut pair.server);
    assert_eq!((epoch_of(&hint), epoch_of(&sealed(&mut pair.server))), (2, 2));
    opened(&mut pair.client, &hint).unwrap();
    let answer = sealed(&mut pair.client);
    assert_eq!(epoch_of(&answer), 2);
    opened(&mut pair.server, &answer).unwrap();
    assert_eq!(epoch_of(&sealed(&mut pair.server)), 2);
}

#[test]
fn new_keys_are_asked_for_long_before_the_last_epoch() {
    let mut pair = Pair::with_client_in(EPOCH_NEAR - 1);
    assert!(!pair.client.is_near_limit());
    pair.client.seal.advance();
    assert!(pair.client.is_near_limit());
    pair.client.seal.advance_to(u16::MAX);
    sealed(&mut pair.client);
    use_up(&mut pair.client.seal.sealed);
    let mut out = [0; 128];
    for _ in 0..2 {
        assert_eq!(pair.client.seal(&PREFIX, &plain(&TEXT), &mut out), Err(SealError::KeyExhausted));
    }
}

#[test]
fn the_last_epochs_are_not_received() {
    let mut pair = Pair::new(CIPHER);
    for epoch in (2..=u16::MAX).step_by(FUTURE) {
        pair.client.seal.advance_to(epoch);
        let packet = sealed(&mut pair.client);
        let expected = if epoch <= LAST_RECEIVED { Ok(()) } else { Err(OpenError::KeyUnknown) };
        assert_eq!(opened(&mut pair.server, &packet), expected, "epoch {epoch}");
    }
}
