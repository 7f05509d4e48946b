//! Wire formats: known answers from OpenVPN's own unit tests, and round trips of whatever can be built.

use proptest::prelude::*;
use trestle_openvpn::{
    data::{Cipher, Framing},
    ids::KeyId,
    wire::{
        Acks, Body, ControlPacket, Head, Opcode, SessionId,
        command::{self, Command},
        key_method::KeyMethod,
        occ,
        peer_info::{PeerInfo, proto},
        push,
    },
};

fn vector(name: &str) -> Vec<u8> {
    let text = include_str!("data/control_packets.json");
    let vectors: serde_json::Value = serde_json::from_str(text).expect("the file is JSON");
    let hex = vectors["control_packets"][name].as_str().expect("the vector exists");
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("the vector is hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn session(hex: u64) -> SessionId {
    SessionId::new(hex.to_be_bytes()).expect("not zero")
}

fn head(opcode: Opcode, id: u64) -> Head {
    Head { opcode, key_id: KeyId::FIRST, session_id: session(id) }
}

#[track_caller]
fn assert_vector(name: &str, packet: ControlPacket<'_>) {
    let bytes = vector(name);
    assert_eq!(ControlPacket::parse(&bytes), Ok(packet), "{name}");
    assert_eq!(packet.emit(), bytes, "{name}");
}

#[test]
fn upstreams_client_reset_is_understood() {
    let body = Body { acks: Acks::default(), remote_session_id: None, packet_id: Some(0), payload: &[] };
    let head = head(Opcode::HardResetClient, 0x6891_923f_a310_3437);
    assert_vector("client_reset_v2_none", ControlPacket { head, body });
}

#[test]
fn upstreams_control_packets_are_understood() {
    let payload = &[0x16, 0x03, 0x01];
    let acks = Acks::from_iter([0]);
    let remote_session_id = Some(session(0xeafe_bfa4_418a_e31b));
    let body = Body { acks, remote_session_id, packet_id: Some(1), payload };
    let head = head(Opcode::Control, 0x7819_bf2e_bcd1_9a45);
    assert_vector("client_control_with_ack", ControlPacket { head, body });
}

#[test]
fn upstreams_cut_off_control_packet_is_malformed() {
    // One acknowledgement, and then the packet ends within the session id it belongs to.
    assert!(ControlPacket::parse(&vector("client_control_none_random_id")).is_err());
}

#[test]
fn upstreams_acknowledgements_are_understood() {
    let head = head(Opcode::Ack, 0xaeb9_afe1_f01d_79c8);
    let remote_session_id = Some(session(0xdd85_db53_5623_b02e));
    for (name, acks) in
        [("client_ack_none_random_id", vec![0]), ("client_ack_123_none_random_id", vec![0, 1, 2])]
    {
        let body = Body { acks: Acks::from_iter(acks), remote_session_id, packet_id: None, payload: &[] };
        assert_vector(name, ControlPacket { head, body });
    }
}

#[test]
fn every_truncation_of_a_packet_without_payload_is_malformed() {
    for name in ["client_reset_v2_none", "client_ack_123_none_random_id"] {
        let bytes = vector(name);
        for len in 0..bytes.len() {
            assert!(ControlPacket::parse(&bytes[..len]).is_err(), "{name} cut to {len}");
        }
    }
}

#[test]
fn packets_no_reader_accepts_are_malformed() {
    let ack = vector("client_ack_none_random_id");
    let changed = |at: usize, byte: u8| {
        let mut bytes = ack.clone();
        bytes[at] = byte;
        ControlPacket::parse(&bytes).is_err()
    };
    assert!(changed(9, 9), "nine acknowledgements");
    assert!(changed(0, 1 << 3), "key method 1");
    assert!(changed(0, 31 << 3), "no such opcode");
    assert!(changed(0, 9 << 3), "a data packet");
    assert!(ControlPacket::parse(&[&ack[..], &[0]].concat()).is_err(), "bytes behind an ACK_V1");
    assert!(ControlPacket::parse(&[&[0x38][..], &[0; 13]].concat()).is_err(), "session id zero");
}

fn packets() -> impl Strategy<Value = (ControlPacket<'static>, Vec<u8>)> {
    let opcodes = vec![
        Opcode::SoftReset,
        Opcode::Control,
        Opcode::Ack,
        Opcode::HardResetClient,
        Opcode::HardResetServer,
    ];
    let ids = (1..u64::MAX, 1..u64::MAX, any::<u8>(), any::<u32>());
    let acks = prop::collection::vec(any::<u32>(), 0..=8);
    let payload = prop::collection::vec(any::<u8>(), 0..1200);
    (prop::sample::select(opcodes), ids, acks, payload).prop_map(|(opcode, ids, acks, payload)| {
        let (sender, receiver, key_id, packet_id) = ids;
        let is_ack = opcode == Opcode::Ack;
        let body = Body {
            acks: Acks::from_iter(acks.iter().copied()),
            remote_session_id: (!acks.is_empty()).then(|| session(receiver)),
            packet_id: (!is_ack).then_some(packet_id),
            payload: &[],
        };
        let head = Head { opcode, key_id: KeyId::from_first_byte(key_id), session_id: session(sender) };
        (ControlPacket { head, body }, if is_ack { Vec::new() } else { payload })
    })
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..500)
}

prop_compose! {
    fn key_methods()(
        pre_master in prop::option::of(any::<[u8; 32]>()),
        random1 in any::<[u8; 32]>(),
        random2 in any::<[u8; 32]>(),
        options in texts(),
        username in texts(),
        password in texts(),
        peer_info in texts(),
    ) -> KeyMethod {
        let pre_master = pre_master.map(|half| std::array::from_fn(|at| half[at % 32]));
        KeyMethod { pre_master, random1, random2, options, username, password, peer_info }
    }
}

proptest! {
    #[test]
    fn control_packets_survive_a_round_trip((packet, payload) in packets()) {
        let packet = ControlPacket { body: Body { payload: &payload, ..packet.body }, ..packet };
        let bytes = packet.emit();
        prop_assert_eq!(ControlPacket::parse(&bytes), Ok(packet));
    }

    #[test]
    fn what_parses_as_a_control_packet_is_emitted_as_it_came(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(packet) = ControlPacket::parse(&bytes) {
            prop_assert_eq!(packet.emit(), bytes);
        }
    }

    #[test]
    fn key_method_messages_survive_a_round_trip(message in key_methods(), behind in texts()) {
        let bytes = message.emit();
        let whole = [&bytes[..], &behind].concat();
        let parsed = KeyMethod::parse(&whole, message.pre_master.is_some());
        prop_assert_eq!(parsed, Ok((message, bytes.len())));
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = ControlPacket::parse(&bytes);
        let _ = KeyMethod::parse(&bytes, true);
        let _ = KeyMethod::parse(&[&[0, 0, 0, 0, 2], &bytes[..]].concat(), false);
        let _ = PeerInfo::parse(&bytes);
        let _ = occ::cipher_name(&bytes);
        let _ = occ::device_type(&bytes);
        let _ = command::take(&mut bytes.clone());
        let _ = Command::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn pushed_options_come_back_in_order(options in prop::collection::vec("[a-z][a-z0-9. -]{0,120}", 0..60)) {
        let messages = push::messages(&options);
        let mut assembly = push::Assembly::default();
        let mut whole = None;
        for (at, message) in messages.iter().enumerate() {
            prop_assert!(message.len() < 1024, "{} bytes", message.len());
            let Command::PushReply(text) = Command::parse(message) else { panic!("{message}") };
            whole = assembly.add(text);
            prop_assert_eq!(whole.is_some(), at + 1 == messages.len());
        }
        prop_assert_eq!(whole, Some(options));
    }

    #[test]
    fn messages_come_off_the_stream_whole(texts in prop::collection::vec("[A-Z,a-z0-9]{1,40}", 0..10), cut in 1_usize..9) {
        let stream: Vec<u8> = texts.iter().flat_map(|text| text.bytes().chain([0])).collect();
        let (mut buffer, mut taken) = (Vec::new(), Vec::new());
        for part in stream.chunks(cut) {
            buffer.extend_from_slice(part);
            while let Ok(Some(text)) = command::take(&mut buffer) {
                taken.push(text);
            }
        }
        prop_assert_eq!(taken, texts);
    }
}

#[test]
fn a_key_method_message_may_end_after_the_randoms_or_any_string() {
    let full = KeyMethod {
        pre_master: Some([1; 48]),
        random1: [2; 32],
        random2: [3; 32],
        options: b"V4,dev-type tap".to_vec(),
        username: Vec::new(),
        password: Vec::new(),
        peer_info: Vec::new(),
    };
    let bytes = full.emit();
    for missing in [0, 2, 4, 6] {
        let cut = &bytes[..bytes.len() - missing];
        assert_eq!(KeyMethod::parse(cut, true), Ok((full.clone(), cut.len())), "{missing} bytes missing");
    }
    let randoms = 5 + 48 + 64;
    assert!(KeyMethod::parse(&bytes[..randoms], true).is_ok_and(|(message, _)| message.options.is_empty()));
    assert!(KeyMethod::parse(&bytes[..randoms - 1], true).is_err());
}

#[test]
fn a_string_without_its_nul_is_malformed() {
    let mut bytes = vec![0, 0, 0, 0, 2];
    bytes.extend([7; 64]);
    bytes.extend([0, 2, b'V', b'4']);
    assert!(KeyMethod::parse(&bytes, false).is_err());
}

#[test]
fn a_stock_2_6_clients_peer_info_is_understood() {
    let text = b"IV_VER=2.6.14\nIV_PLAT=linux\nIV_TCPNL=1\nIV_MTU=1600\nIV_NCP=2\n\
                 IV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\nIV_PROTO=990\nIV_LZO_STUB=1\n\
                 IV_COMP_STUB=1\nIV_COMP_STUBv2=1\n";
    let info = PeerInfo::parse(text);
    assert_eq!(info.ciphers, Cipher::DEFAULT);
    assert_eq!((info.has_mtu, info.framings.lz4_v2, info.framings.stub_v2), (true, false, true));
    assert!(
        info.supports(proto::DATA_V2 | proto::REQUEST_PUSH | proto::TLS_KEY_EXPORT | proto::CC_EXIT_NOTIFY)
    );
    assert_eq!(info.software, "2.6.14 linux");
}

#[test]
fn what_a_client_calls_itself_is_bounded_and_printable() {
    let text = [b"IV_VER=\x1b[31m".as_slice(), &[b'x'; 4000], b"\nIV_PLAT=\x07\n"].concat();
    let info = PeerInfo::parse(&text);
    assert!(info.software.len() <= 64 && info.software.chars().all(|c| !c.is_control()), "{}", info.software);
}

#[test]
fn a_client_that_only_says_ncp_2_has_both_gcm_ciphers() {
    assert_eq!(PeerInfo::parse(b"IV_NCP=2\n").ciphers, [Cipher::Aes256Gcm, Cipher::Aes128Gcm]);
    assert_eq!(PeerInfo::parse(b"IV_NCP=1\n").ciphers, []);
}

#[test]
fn our_options_string_is_upstreams_for_the_reference_deployment() {
    let options = occ::Options {
        tun_mtu: 1500,
        cipher: Cipher::Aes256Gcm,
        framing: Framing::V2,
        fragments: false,
        stream: false,
        server: true,
    };
    assert_eq!(
        options.to_text(),
        "V4,dev-type tap,link-mtu 1581,tun-mtu 1500,proto UDPv4,comp-lzo,cipher AES-256-GCM,auth [null-digest],\
         keysize 256,key-method 2,tls-server"
    );
    assert_eq!(occ::cipher_name(options.to_text().as_bytes()), Some("AES-256-GCM"));
    assert_eq!(occ::device_type(options.to_text().as_bytes()), Some("tap"));
    assert_eq!(occ::fragments(options.to_text().as_bytes()), Some(false));
    assert_eq!(occ::fragments(b""), None);
    let cut = occ::Options { framing: Framing::Prefixed, fragments: true, ..options }.to_text();
    assert!(cut.contains("link-mtu 1586,") && cut.contains("UDPv4,comp-lzo,mtu-dynamic,cipher"), "{cut}");
    assert_eq!(occ::fragments(cut.as_bytes()), Some(true));
}

/// Source: socket.c `proto_remote`, mtu.c `frame_calculate_protocol_header_size`.
#[test]
fn over_tcp_our_options_string_says_so_and_counts_the_length() {
    let options = occ::Options {
        tun_mtu: 1500,
        cipher: Cipher::Aes256Cbc,
        framing: Framing::None,
        fragments: false,
        stream: true,
        server: true,
    };
    let server = options.to_text();
    assert!(server.contains("link-mtu 1583,tun-mtu 1500,proto TCPv4_SERVER,cipher AES-256-CBC,"), "{server}");
    assert!(server.contains(",keysize 256,"), "{server}");
    let client = occ::Options { server: false, cipher: Cipher::Aes192Gcm, ..options }.to_text();
    assert!(client.contains(",proto TCPv4_CLIENT,") && client.contains(",keysize 192,"), "{client}");
}

#[test]
fn the_options_string_names_the_length_of_the_ciphers_key() {
    for (cipher, bits) in
        [(Cipher::ChaCha20Poly1305, 256), (Cipher::Aes192Gcm, 192), (Cipher::Aes128Gcm, 128)]
    {
        let options = occ::Options {
            tun_mtu: 1500,
            cipher,
            framing: Framing::None,
            fragments: false,
            stream: false,
            server: true,
        };
        assert!(options.to_text().contains(&format!("keysize {bits},")), "{cipher:?}");
    }
}

#[test]
fn an_option_that_would_be_two_is_not_pushed() {
    assert_eq!(push::messages(&["ping 10,peer-id 5".into(), "ping 10".into()]), ["PUSH_REPLY,ping 10"]);
}

#[test]
fn a_message_without_end_is_malformed() {
    assert!(command::take(&mut vec![b'x'; command::MAX_LEN + 1]).is_err());
    assert_eq!(command::take(&mut vec![b'x'; command::MAX_LEN]), Ok(None));
}

#[test]
fn empty_messages_are_skipped_and_leave_nothing() {
    let mut stream = b"\0\0one\0\0\0two\0\0".to_vec();
    let texts: Vec<String> = std::iter::from_fn(|| command::take(&mut stream).unwrap()).collect();
    assert_eq!((texts, stream.len()), (vec!["one".to_owned(), "two".to_owned()], 0));
}
