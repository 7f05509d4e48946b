//! Everything an attacker can send: nothing panics, nothing is kept, nothing is answered that should not be.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

mod pair;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use pair::{Dice, FINE, GATEWAY, Pair, server_config};
use proptest::prelude::*;
use trestle_openvpn::{
    ids::{KeyId, PeerId},
    server::{ControlError, Event, Path, Server},
    wire::{Acks, Body, ControlPacket, Head, Opcode, SessionId},
};

const SECOND: Duration = Duration::from_secs(1);

fn path(port: u16) -> Path {
    Path::udp(SocketAddr::from(([203, 0, 113, 9], port)), GATEWAY)
}

fn server() -> (Server, Instant) {
    #[expect(clippy::disallowed_methods, reason = "the test begins at some moment")]
    let now = Instant::now();
    (Server::new(server_config(), [7; 32], now), now)
}

fn packet(opcode: Opcode, id: Option<u32>, acks: &[u32], ours: Option<SessionId>, payload: &[u8]) -> Vec<u8> {
    let session_id = SessionId::new([5; 8]).unwrap();
    let head = Head { opcode, key_id: KeyId::FIRST, session_id };
    let acks = Acks::from_iter(acks.iter().copied());
    let body = Body { acks, remote_session_id: ours, packet_id: id, payload };
    ControlPacket { head, body }.emit()
}

fn reset() -> Vec<u8> {
    packet(Opcode::HardResetClient, Some(0), &[], None, &[])
}

/// Sends a reset and returns the session id that the server answers with.
fn cookie(server: &mut Server, now: Instant, path: Path) -> SessionId {
    server.handle_datagram(now, path, &reset()).unwrap();
    let answer = server.poll_transmit().unwrap();
    assert_eq!(answer.path, path);
    ControlPacket::parse(&answer.payload).unwrap().head.session_id
}

#[test]
fn a_reset_is_answered_and_forgotten() {
    let (mut server, now) = server();
    server.handle_datagram(now, path(1), &reset()).unwrap();
    let answer = server.poll_transmit().unwrap().payload;
    let answer = ControlPacket::parse(&answer).unwrap();
    assert_eq!(answer.head.opcode, Opcode::HardResetServer);
    assert_eq!(answer.body.acks.as_slice(), [0]);
    assert_eq!(answer.body.remote_session_id, SessionId::new([5; 8]));
    assert_eq!((answer.body.packet_id, answer.body.payload), (Some(0), &[][..]));
    assert_eq!((server.half_open(), server.poll_timeout()), (0, None));
}

#[test]
fn resets_beyond_connect_freq_initial_are_not_answered_until_its_period_is_over() {
    let (mut server, now) = server();
    for port in 0..100 {
        assert_eq!(server.handle_datagram(now, path(port), &reset()), Ok(()));
    }
    assert_eq!(server.handle_datagram(now, path(100), &reset()), Err(ControlError::RateLimited));
    assert_eq!(server.handle_datagram(now + 10 * SECOND, path(100), &reset()), Ok(()));
    assert_eq!(std::iter::from_fn(|| server.poll_transmit()).count(), 101);
}

#[test]
fn a_cookie_opens_a_session_for_its_address_only_and_for_a_while_only() {
    for (delay, port, expected) in [(0, 1, Ok(())), (59, 1, Ok(())), (0, 2, Err(())), (100, 1, Err(()))] {
        let (mut server, now) = server();
        let ours = cookie(&mut server, now, path(1));
        let ack = packet(Opcode::Ack, None, &[0], Some(ours), &[]);
        let result = server.handle_datagram(now + delay * SECOND, path(port), &ack);
        assert_eq!(result.map_err(|_| ()), expected, "{delay} s, port {port}");
        assert_eq!(server.half_open(), usize::from(expected.is_ok()));
    }
}

#[test]
fn a_cookie_with_ids_beyond_the_first_opens_nothing() {
    let (mut server, now) = server();
    let ours = Some(cookie(&mut server, now, path(1)));
    let late = [
        packet(Opcode::Ack, None, &[2], ours, &[]),
        packet(Opcode::Control, Some(2), &[0], ours, &[22]),
        packet(Opcode::SoftReset, Some(0), &[0], ours, &[]),
    ];
    for datagram in late {
        assert_eq!(server.handle_datagram(now, path(1), &datagram), Err(ControlError::UnknownPeer));
    }
    assert_eq!(server.half_open(), 0);
}

#[test]
fn a_client_hello_whose_acknowledgement_was_lost_brings_the_answer_again() {
    let (mut server, now) = server();
    let ours = cookie(&mut server, now, path(1));
    let hello = packet(Opcode::Control, Some(1), &[], None, &[22, 3, 1]);
    server.handle_datagram(now, path(1), &hello).unwrap();
    let again = server.poll_transmit().unwrap().payload;
    assert_eq!(ControlPacket::parse(&again).unwrap().head.session_id, ours);
    assert_eq!(server.half_open(), 0);
}

#[test]
fn wrapped_first_packets_are_refused_in_words_and_never_answered() {
    let text = include_str!("data/control_packets.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    for name in ["client_reset_v2_tls_auth", "client_reset_v2_tls_crypt"] {
        let hex = vectors["control_packets"][name].as_str().unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let (mut server, now) = server();
        assert_eq!(server.handle_datagram(now, path(1), &bytes), Err(ControlError::Refused), "{name}");
        let Some(Event::Refused { reason, .. }) = server.poll_event() else { panic!("{name}") };
        assert!(reason.contains("tls-crypt"), "{reason}");
        assert_eq!(server.poll_transmit(), None);
    }
}

#[test]
fn half_open_sessions_are_bounded_and_die_at_hand_window() {
    let (mut server, start) = server();
    let mut now = start;
    for port in 0..3000 {
        // As fast as the rate limit lets an attacker with many addresses.
        now = start + Duration::from_millis(100) * u32::from(port);
        server.handle_timeout(now);
        if server.handle_datagram(now, path(port), &reset()).is_ok() {
            let ours =
                ControlPacket::parse(&server.poll_transmit().unwrap().payload).unwrap().head.session_id;
            let ack = packet(Opcode::Ack, None, &[0], Some(ours), &[]);
            server.handle_datagram(now, path(port), &ack).unwrap();
        }
        while server.poll_event().is_some() {}
        assert!(server.half_open() <= 1024);
    }
    assert!(server.half_open() > 500);
    server.handle_timeout(now + 60 * SECOND);
    while server.poll_event().is_some() {}
    server.handle_timeout(now + 66 * SECOND);
    assert_eq!((server.half_open(), server.poll_timeout()), (0, None));
}

#[test]
fn what_a_half_open_session_holds_is_bounded() {
    let (mut server, now) = server();
    let ours = Some(cookie(&mut server, now, path(1)));
    server.handle_datagram(now, path(1), &packet(Opcode::Ack, None, &[0], ours, &[])).unwrap();
    // Id 1 never comes: only what lies in the receive window is kept.
    for id in 2..13 {
        let datagram = packet(Opcode::Control, Some(id), &[], None, &[0; 2048]);
        assert_eq!(server.handle_datagram(now, path(1), &datagram), Ok(()), "{id}");
    }
    let beyond = packet(Opcode::Control, Some(13), &[], None, &[0; 2048]);
    assert_eq!(server.handle_datagram(now, path(1), &beyond), Err(ControlError::OutOfSync));
    let huge = packet(Opcode::Control, Some(2), &[], None, &[0; 2049]);
    assert_eq!(server.handle_datagram(now, path(1), &huge), Err(ControlError::Malformed));
}

#[test]
fn cookies_used_again_and_again_begin_no_more_sessions_than_honest_clients_would() {
    let (mut server, now) = server();
    let of = |name: u8, opcode, id, acks: &[u32], ours, payload: &[u8]| {
        let mut packet = packet(opcode, id, acks, ours, payload);
        packet[1..9].fill(name);
        packet
    };
    let cookies: Vec<(u8, SessionId)> = [1, 2]
        .into_iter()
        .map(|name| {
            let reset = of(name, Opcode::HardResetClient, Some(0), &[], None, &[]);
            server.handle_datagram(now, path(1), &reset).unwrap();
            let answer = server.poll_transmit().unwrap().payload;
            (name, ControlPacket::parse(&answer).unwrap().head.session_id)
        })
        .collect();
    let mut refused = 0;
    for (name, ours) in cookies.into_iter().cycle().take(2000) {
        let junk = of(name, Opcode::Control, Some(1), &[0], Some(ours), b"GET / HTTP/1.1");
        let _ = server.handle_datagram(now, path(1), &junk);
        refused += std::iter::from_fn(|| server.poll_event()).count();
        while server.poll_transmit().is_some() {}
    }
    assert!(refused <= 200, "{refused} sessions begun, and as many lines in the log");
}

#[test]
fn whoever_comes_back_with_a_cookie_does_not_count_against_connect_freq_initial() {
    let (mut server, now) = server();
    for port in 0..1000 {
        let ours = Some(cookie(&mut server, now, path(port)));
        server.handle_datagram(now, path(port), &packet(Opcode::Ack, None, &[0], ours, &[])).unwrap();
    }
    assert_eq!(server.half_open(), 1000);
}

#[test]
fn a_client_that_rekeys_without_pause_gets_few_handshakes() {
    let mut pair = Pair::new(server_config(), FINE, 98);
    pair.traffic = Some(SECOND / 10);
    let at = pair.named("agent");
    for _ in 0..1000 {
        pair.run_for(SECOND / 100);
        pair.agents[at].client.handle_rekey_request(pair.now);
        pair.drain_agent(at);
    }
    assert!(pair.keys_installed <= 20, "{} handshakes in ten seconds", pair.keys_installed);
    pair.run_for(10 * SECOND);
    assert_eq!(pair.agents[at].tunnel().lost, []);
    assert!(pair.peers.values().all(|(_, tunnel)| tunnel.lost.is_empty()));
}

#[test]
fn nonsense_in_tls_ends_the_attempt_with_a_sentence() {
    let (mut server, now) = server();
    let ours = Some(cookie(&mut server, now, path(1)));
    let junk = packet(Opcode::Control, Some(1), &[0], ours, b"GET / HTTP/1.1\r\n\r\n");
    server.handle_datagram(now, path(1), &junk).unwrap();
    assert!(matches!(server.poll_event(), Some(Event::Refused { name: None, .. })));
    server.handle_timeout(now + 5 * SECOND);
    assert_eq!((server.half_open(), server.poll_timeout()), (0, None));
}

/// Control packets of real sessions, to be mutilated.
fn recorded() -> (Pair, Vec<Vec<u8>>) {
    let mut pair = Pair::new(server_config(), FINE, 99);
    pair.record = Some(Vec::new());
    let at = pair.named("agent");
    pair.run_for(SECOND);
    pair.agents[at].client.handle_rekey_request(pair.now);
    pair.drain_agent(at);
    pair.run_for(SECOND);
    assert_eq!(pair.keys_installed, 2);
    let packets = pair.record.take().unwrap();
    (pair, packets)
}

#[test]
fn mutilated_and_repeated_packets_harm_no_session_and_create_none() {
    let (mut pair, packets) = recorded();
    let stranger = SocketAddr::from(([203, 0, 113, 9], 9));
    let mut dice = Dice(1);
    for _ in 0..20_000 {
        let mut bytes = packets[dice.below(packets.len() as u64) as usize].clone();
        match dice.below(4) {
            0 => bytes.truncate(dice.below(bytes.len() as u64) as usize),
            1 => bytes.extend(dice.seed()),
            2 => {}
            _ => {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << dice.below(8);
            }
        }
        pair.deliver_to_server(stranger, &bytes);
        // From the client's own address only what cannot be taken for its next packet: the control channel has no
        // authentication of its own without tls-auth.
        if dice.below(4) == 0 {
            let old = packets[dice.below(packets.len() as u64) as usize].clone();
            pair.deliver_to_server(pair.agents[0].address, &old);
        }
    }
    assert_eq!((pair.server.len(), pair.server.half_open()), (1, 0));
    let installed = pair.keys_installed;
    pair.traffic = Some(SECOND);
    pair.server.handle_rekey_request(pair.now, PeerId::new(0).unwrap());
    pair.drain_server();
    pair.run_for(200 * SECOND);
    assert_eq!(pair.keys_installed, installed + 1);
    assert_eq!(pair.agents[0].tunnel().lost, []);
}

#[test]
fn mutilated_packets_from_a_clients_own_address_never_panic() {
    let (mut pair, packets) = recorded();
    let address = pair.agents[0].address;
    let mut dice = Dice(2);
    for _ in 0..20_000 {
        let mut bytes = packets[dice.below(packets.len() as u64) as usize].clone();
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] = dice.roll() as u8;
        }
        pair.deliver_to_server(address, &bytes);
        pair.now += Duration::from_millis(5);
        pair.server.handle_timeout(pair.now);
        pair.drain_server();
    }
    assert!(pair.server.len() + pair.server.half_open() <= 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_datagrams_create_nothing(datagrams in prop::collection::vec(
        (any::<u16>(), 0_u8..16, prop::collection::vec(any::<u8>(), 0..80)), 0..100)) {
        let (mut server, now) = server();
        for (port, opcode, mut bytes) in datagrams {
            if let Some(first) = bytes.first_mut() {
                *first = opcode << 3 | *first & 7;
            }
            let _ = server.handle_datagram(now, path(port), &bytes);
        }
        prop_assert_eq!((server.len(), server.half_open()), (0, 0));
    }
}

#[test]
fn resets_made_up_in_a_peers_name_are_answered_only_when_it_is_silent_and_seldom() {
    let mut pair = Pair::new(server_config(), FINE, 2);
    pair.traffic = Some(SECOND / 10);
    let at = pair.named("agent");
    pair.run_for(5 * SECOND);
    let path = Path::udp(pair.agents[at].address, GATEWAY);
    let reset = |pair: &mut Pair, number: u8| {
        let packet = [0x38, 9, 9, 9, 9, 9, 9, 9, number, 0, 0, 0, 0, 0];
        let outcome = pair.server.handle_datagram(pair.now, path, &packet);
        (outcome, pair.server.poll_transmit().is_some())
    };
    for number in 1..50 {
        assert_eq!(reset(&mut pair, number), (Err(ControlError::OutOfSync), false));
    }
    // Its network is down, or it begins anew.
    pair.agents[at].alive = false;
    pair.run_for(3 * SECOND);
    assert_eq!(reset(&mut pair, 1), (Ok(()), true));
    assert_eq!(reset(&mut pair, 2), (Err(ControlError::OutOfSync), false));
    pair.run_for(2 * SECOND);
    assert_eq!(reset(&mut pair, 3), (Ok(()), true));
}

/// Without a cookie it is answered as a reset is, for it could be of somebody whose acknowledgement was lost.
#[test]
fn client_hellos_made_up_in_a_peers_name_are_answered_no_sooner_than_resets() {
    let mut pair = Pair::new(server_config(), FINE, 2);
    pair.traffic = Some(SECOND / 10);
    let at = pair.named("agent");
    pair.run_for(5 * SECOND);
    let path = Path::udp(pair.agents[at].address, GATEWAY);
    let hello = packet(Opcode::Control, Some(1), &[], None, &[22]);
    assert_eq!(pair.server.handle_datagram(pair.now, path, &hello), Err(ControlError::OutOfSync));
    assert!(pair.server.poll_transmit().is_none());
    pair.agents[at].alive = false;
    pair.run_for(3 * SECOND);
    assert_eq!(pair.server.peer_to_judge(&path, &hello), PeerId::new(0));
    assert_eq!(pair.server.handle_datagram(pair.now, path, &hello), Ok(()));
    assert_eq!(pair.server.handle_datagram(pair.now, path, &reset()), Err(ControlError::OutOfSync));
}

/// A stock client gives up its session when a rekey fails, and begins a new one by a reset; the old key carries its data
/// meanwhile (ssl.c `tls_multi_process`).
#[test]
fn a_speaking_peer_whose_rekey_failed_may_begin_anew() {
    let mut pair = Pair::new(server_config(), FINE, 2);
    pair.traffic = Some(SECOND / 10);
    let at = pair.named("agent");
    pair.run_for(5 * SECOND);
    let path = Path::udp(pair.agents[at].address, GATEWAY);
    pair.server.handle_rekey_request(pair.now, PeerId::new(0).unwrap());
    let end = pair.now + 61 * SECOND;
    while pair.now < end {
        pair.now += SECOND;
        pair.server.handle_timeout(pair.now);
        while pair.server.poll_transmit().is_some() {}
    }
    let now = pair.now;
    pair.server.handle_activity(PeerId::new(0).unwrap(), now, now);
    assert_eq!(pair.server.handle_datagram(now, path, &reset()), Ok(()));
    assert_eq!(pair.server.handle_datagram(now, path, &reset()), Err(ControlError::OutOfSync));
}
