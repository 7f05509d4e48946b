//! Wrappings: known answers from OpenVPN's own unit tests and its keys, and round trips of whatever can be wrapped.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

use proptest::prelude::*;
use trestle_openvpn::{
    data::Role,
    ids::KeyId,
    wire::{
        Acks, Body, ControlPacket, Head, Opcode, SessionId,
        wrapping::{
            ClientKey, Digest, Direction, KeyFileError, Metadata, ServerKey, Stamp, StaticKey, Unauthentic,
            Wrapping, split_wrapped_key,
        },
    },
};

const SERVER_KEY: &[u8] = include_bytes!("data/tls_crypt_v2_server.key");
const CLIENT_KEY: &[u8] = include_bytes!("data/tls_crypt_v2_client.key");
const CLIENT_KEY_METADATA: &[u8] = include_bytes!("data/tls_crypt_v2_client_metadata.key");

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("data/control_packets.json")).unwrap()
}

fn vector(name: &str) -> Vec<u8> {
    bytes(vectors()["control_packets"][name].as_str().unwrap())
}

/// The key of upstream's unit tests.
fn key() -> StaticKey {
    let key = bytes(vectors()["static_key_2048"].as_str().unwrap());
    StaticKey::from_bytes(key.first_chunk().unwrap())
}

fn head(datagram: &[u8]) -> (Head, &[u8]) {
    Head::parse(datagram).unwrap()
}

/// Unwraps a vector and wraps what was in it again.
#[track_caller]
fn assert_vector(
    name: &str,
    receiver: &Wrapping,
    sender: &Wrapping,
    stamp: Stamp,
    acks: usize,
    packet_id: u32,
) {
    let datagram = vector(name);
    let (head, rest) = head(&datagram);
    let unwrapped = receiver.unwrap(&head, rest).unwrap();
    assert_eq!(unwrapped.stamp, Some(stamp), "{name}");
    let body = Body::parse(head.opcode, &unwrapped.body).unwrap();
    assert_eq!((body.acks.as_slice().len(), body.packet_id), (acks, Some(packet_id)), "{name}");
    assert_eq!(sender.wrap(stamp, &ControlPacket { head, body }), datagram, "{name}");
}

#[test]
fn upstreams_tls_auth_packets_are_understood_and_made() {
    let auth = |direction| Wrapping::auth(key(), Digest::Sha1, direction);
    let (server, client) = (auth(Some(Direction::Zero)), auth(Some(Direction::One)));
    let stamp = Stamp { id: 1, time: 0x61d3_bf6c };
    assert_vector("client_reset_v2_tls_auth", &server, &client, stamp, 0, 0);
    let stamp = Stamp { id: 3, time: 0x61d3_ff53 };
    assert_vector("client_ack_tls_auth_randomid", &server, &client, stamp, 0, 1);
}

#[test]
fn upstreams_tls_crypt_packets_are_understood_and_made() {
    let (server, client) = (Wrapping::crypt(key(), Role::Server), Wrapping::crypt(key(), Role::Client));
    let stamp = Stamp { id: 1, time: 0x61d3_f8e1 };
    assert_vector("client_reset_v2_tls_crypt", &server, &client, stamp, 0, 0);
}

#[test]
fn a_packet_of_another_wrapping_or_direction_or_key_is_not_authentic() {
    let other = StaticKey::from_bytes(&[7; 256]);
    let wrong = [
        ("client_reset_v2_tls_auth", Wrapping::auth(key(), Digest::Sha1, Some(Direction::One))),
        ("client_reset_v2_tls_auth", Wrapping::auth(key(), Digest::Sha1, None)),
        ("client_reset_v2_tls_auth", Wrapping::auth(key(), Digest::Sha256, Some(Direction::Zero))),
        ("client_reset_v2_tls_auth", Wrapping::auth(other.clone(), Digest::Sha1, Some(Direction::Zero))),
        ("client_reset_v2_tls_auth", Wrapping::crypt(key(), Role::Server)),
        ("client_reset_v2_tls_crypt", Wrapping::crypt(key(), Role::Client)),
        ("client_reset_v2_tls_crypt", Wrapping::crypt(other, Role::Server)),
        ("client_reset_v2_none", Wrapping::crypt(key(), Role::Server)),
        ("client_reset_v2_none", Wrapping::auth(key(), Digest::Sha1, None)),
    ];
    for (name, wrapping) in wrong {
        let datagram = vector(name);
        let (head, rest) = head(&datagram);
        assert_eq!(wrapping.unwrap(&head, rest).unwrap_err(), Unauthentic, "{name}, {wrapping:?}");
    }
}

#[test]
fn every_changed_bit_and_every_missing_byte_makes_a_packet_unauthentic() {
    let cases = [
        ("client_reset_v2_tls_auth", Wrapping::auth(key(), Digest::Sha1, Some(Direction::Zero))),
        ("client_reset_v2_tls_crypt", Wrapping::crypt(key(), Role::Server)),
    ];
    for (name, wrapping) in cases {
        let datagram = vector(name);
        let is_authentic = |datagram: &[u8]| {
            Head::parse(datagram).is_ok_and(|(head, rest)| wrapping.unwrap(&head, rest).is_ok())
        };
        assert!(is_authentic(&datagram));
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_authentic(&changed), "{name}, bit {bit}");
        }
        for len in 0..datagram.len() {
            assert!(!is_authentic(&datagram[..len]), "{name}, {len} bytes");
        }
    }
}

#[test]
fn client_keys_of_openvpn_are_unwrapped_by_its_server_key() {
    let server = ServerKey::parse(SERVER_KEY).unwrap();
    let client = ClientKey::parse(CLIENT_KEY).unwrap();
    let unwrapped = server.unwrap(&client.wrapped).unwrap();
    // Made by openvpn 2.6.14 at this time.
    let Metadata::Made(time) = unwrapped.metadata else { panic!("{:?}", unwrapped.metadata) };
    assert!(time > 1_700_000_000, "{time}");
    assert_eq!(server.wrap(&unwrapped.key, &unwrapped.metadata), Some(client.wrapped.clone()));
    let named = ClientKey::parse(CLIENT_KEY_METADATA).unwrap();
    let unwrapped = server.unwrap(&named.wrapped).unwrap();
    // `openvpn --genkey tls-crypt-v2-client FILE AABBCCDD`: base64.
    assert_eq!(unwrapped.metadata, Metadata::User(vec![0, 0, 0x41, 0x08, 0x20, 0xc3]));
    // What the client wraps with its key, the server unwraps with the one it was told.
    let stamp = Stamp { id: 0x0f00_0001, time: 9 };
    let packet = packet(Opcode::HardResetClientV3, 0, &[], b"");
    let datagram = Wrapping::crypt(named.key, Role::Client).wrap(stamp, &packet);
    let (head, rest) = head(&datagram);
    let unwrapped = Wrapping::crypt(unwrapped.key, Role::Server).unwrap(&head, rest).unwrap();
    assert_eq!(unwrapped.stamp, Some(stamp));
}

#[test]
fn a_client_key_of_another_server_key_or_changed_anywhere_is_not_authentic() {
    let wrapped = ClientKey::parse(CLIENT_KEY).unwrap().wrapped;
    let server = ServerKey::parse(SERVER_KEY).unwrap();
    for at in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[at] ^= 0x10;
        assert!(server.unwrap(&changed).is_err(), "byte {at}");
        assert!(server.unwrap(&wrapped[..at]).is_err(), "{at} bytes");
        assert!(server.unwrap(&wrapped[at + 1..]).is_err(), "without the first {at}");
    }
    let body: String = SERVER_KEY.iter().map(|&byte| char::from(byte)).collect();
    let other = body.replacen("q3bq", "q3br", 1);
    assert_ne!(other, body);
    assert!(ServerKey::parse(other.as_bytes()).unwrap().unwrap(&wrapped).is_err());
}

#[test]
fn the_length_of_a_wrapped_key_is_checked_before_it_is_believed() {
    let with_length = |len: usize, says: u16| {
        let mut rest = vec![0; len];
        rest.extend(says.to_be_bytes());
        split_wrapped_key(&rest).map(|(packet, wrapped)| (packet.len(), wrapped.len())).ok()
    };
    assert_eq!(with_length(300, 290), Some((12, 290)));
    assert_eq!(with_length(298, 300), Some((0, 300)));
    for (len, says) in [(300, 0), (300, 1), (300, 289), (300, 303), (2000, 1025), (0, 2), (300, u16::MAX)] {
        assert_eq!(with_length(len, says), None, "{len}, {says}");
    }
    assert!(split_wrapped_key(&[]).is_err() && split_wrapped_key(&[1]).is_err());
}

#[test]
fn metadata_that_does_not_fit_is_refused() {
    let server = ServerKey::parse(SERVER_KEY).unwrap();
    let wrap = |len| server.wrap(&key(), &Metadata::User(vec![1; len])).map(|wrapped| wrapped.len());
    // 1024 = 32 + 256 + 1 + 733 + 2.
    assert_eq!((wrap(733), wrap(734), wrap(0)), (Some(1024), None, Some(291)));
}

#[test]
fn key_files_of_another_kind_or_damaged_are_refused_in_words() {
    let words = |error: KeyFileError| error.to_string();
    assert!(words(ServerKey::parse(CLIENT_KEY).unwrap_err()).contains("tls-crypt-v2 server key"));
    assert!(words(ClientKey::parse(SERVER_KEY).unwrap_err()).contains("tls-crypt-v2 client key"));
    assert!(words(StaticKey::parse(SERVER_KEY).unwrap_err()).contains("OpenVPN Static key V1"));
    let client = String::from_utf8_lossy(CLIENT_KEY);
    let mut lines: Vec<&str> = client.lines().collect();
    lines.remove(3);
    assert_eq!(ClientKey::parse(lines.join("\n").as_bytes()).unwrap_err(), KeyFileError::Damaged);
    let short = "-----BEGIN OpenVPN tls-crypt-v2 server key-----\nAAAA\n-----END OpenVPN tls-crypt-v2 server key-----\n";
    let error = ServerKey::parse(short.as_bytes()).unwrap_err();
    assert_eq!(error, KeyFileError::Length { found: 3, expected: 128 });
}

#[test]
fn keys_are_never_printed() {
    let server = ServerKey::parse(SERVER_KEY).unwrap();
    let client = ClientKey::parse(CLIENT_KEY).unwrap();
    let auth = Wrapping::auth(key(), Digest::Sha1, None);
    let crypt = Wrapping::crypt(key(), Role::Server);
    let unwrapped = server.unwrap(&client.wrapped).unwrap();
    for text in [
        format!("{server:?}"),
        format!("{client:?}"),
        format!("{auth:?}"),
        format!("{crypt:?}"),
        format!("{:?}", unwrapped.key),
    ] {
        assert!(text.ends_with("(hidden)"), "{text}");
    }
}

fn packet<'a>(opcode: Opcode, packet_id: u32, acks: &[u32], payload: &'a [u8]) -> ControlPacket<'a> {
    let id = |byte| SessionId::new([byte; 8]).unwrap();
    let body = Body {
        acks: Acks::from_iter(acks.iter().copied()),
        remote_session_id: (!acks.is_empty()).then(|| id(2)),
        packet_id: (opcode != Opcode::Ack).then_some(packet_id),
        payload,
    };
    ControlPacket { head: Head { opcode, key_id: KeyId::FIRST, session_id: id(1) }, body }
}

/// Every wrapping, both ends of each.
fn wrappings() -> Vec<(Wrapping, Wrapping)> {
    let mut all = vec![
        (Wrapping::None, Wrapping::None),
        (Wrapping::crypt(key(), Role::Client), Wrapping::crypt(key(), Role::Server)),
        (Wrapping::crypt(key(), Role::Server), Wrapping::crypt(key(), Role::Client)),
    ];
    for digest in Digest::ALL {
        let auth = |direction| Wrapping::auth(key(), digest, direction);
        all.push((auth(None), auth(None)));
        all.push((auth(Some(Direction::One)), auth(Some(Direction::Zero))));
    }
    let exported = [9; 256];
    let dynamic: Vec<_> = all
        .iter()
        .map(|(here, there)| (here.dynamic(&exported, Role::Client), there.dynamic(&exported, Role::Server)))
        .collect();
    all.extend(dynamic);
    all
}

proptest! {
    #[test]
    fn what_is_wrapped_is_unwrapped_by_the_other_end(
        payload in prop::collection::vec(any::<u8>(), 0..1200),
        acks in prop::collection::vec(any::<u32>(), 0..=8),
        packet_id in any::<u32>(),
        (id, time) in any::<(u32, u32)>(),
    ) {
        let stamp = Stamp { id, time };
        let packet = packet(Opcode::Control, packet_id, &acks, &payload);
        for (here, there) in wrappings() {
            let datagram = here.wrap(stamp, &packet);
            prop_assert_eq!(datagram.len(), packet.emit().len() + here.overhead());
            let (head, rest) = head(&datagram);
            let unwrapped = there.unwrap(&head, rest).unwrap();
            prop_assert_eq!(unwrapped.stamp, (!here.is_none()).then_some(stamp));
            prop_assert_eq!(Body::parse(head.opcode, &unwrapped.body), Ok(packet.body));
        }
    }

    #[test]
    fn no_bytes_make_an_unwrapper_panic(bytes in prop::collection::vec(any::<u8>(), 0..1400)) {
        let server = ServerKey::parse(SERVER_KEY).unwrap();
        let _ = server.unwrap(&bytes);
        let _ = split_wrapped_key(&bytes);
        let _ = (StaticKey::parse(&bytes), ServerKey::parse(&bytes), ClientKey::parse(&bytes));
        if let Ok((head, rest)) = Head::parse(&bytes) {
            for (_, there) in wrappings() {
                let _ = there.unwrap(&head, rest);
            }
        }
    }
}
