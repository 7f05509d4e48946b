//! Handshakes done elsewhere: late, in any order, for sessions that may be gone.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

mod pair;

use std::time::Duration;

use pair::{FINE, GATEWAY, Pair, server_config};
use trestle_openvpn::{
    server::{ControlError, Event, Path, Server},
    wire::{Acks, Body, ControlPacket, Head, Opcode, SessionId},
};

const SECOND: Duration = Duration::from_secs(1);
/// Odd: with a pool.
const SEED: u64 = 1;

/// Jobs stay where they are.
fn holding() -> Pair {
    let mut pair = Pair::new(server_config(), FINE, SEED);
    pair.held = Some(Vec::new());
    pair
}

fn held(pair: &Pair) -> usize {
    pair.held.as_ref().map_or(0, Vec::len)
}

/// Does what is held, the last first, and holds what follows from it.
fn do_held(pair: &mut Pair) {
    for job in pair.held.replace(Vec::new()).unwrap_or_default().into_iter().rev() {
        pair.server.handle_job(pair.now, job.run());
        pair.drain_server();
    }
}

fn packet(opcode: Opcode, id: Option<u32>, acks: &[u32], ours: Option<SessionId>, payload: &[u8]) -> Vec<u8> {
    let session_id = SessionId::new([0x51; 8]).unwrap();
    let head = Head { opcode, key_id: trestle_openvpn::ids::KeyId::FIRST, session_id };
    let acks = acks.iter().copied().collect::<Acks>();
    ControlPacket { head, body: Body { acks, remote_session_id: ours, packet_id: id, payload } }.emit()
}

/// Comes to the server from `port`, with nonsense for TLS.
fn intrude(pair: &mut Pair, port: u16) -> Result<(), ControlError> {
    let path = Path::udp(([198, 51, 100, 9], port).into(), GATEWAY);
    let server: &mut Server = &mut pair.server;
    server.handle_datagram(pair.now, path, &packet(Opcode::HardResetClient, Some(0), &[], None, &[]))?;
    let answer = std::iter::from_fn(|| server.poll_transmit()).last().unwrap().payload;
    let ours = ControlPacket::parse(&answer).unwrap().head.session_id;
    let hello = packet(Opcode::Control, Some(1), &[0], Some(ours), b"GET / HTTP/1.1");
    server.handle_datagram(pair.now, path, &hello)?;
    pair.drain_server();
    Ok(())
}

#[test]
fn a_handshake_waits_for_its_jobs_and_then_goes_on() {
    let mut pair = holding();
    let at = pair.named("agent");
    pair.run_for(10 * SECOND);
    assert_eq!((held(&pair), pair.server.half_open(), pair.server.len()), (1, 1, 0));
    let mut jobs = 0;
    while held(&pair) > 0 {
        jobs += held(&pair);
        do_held(&mut pair);
        pair.run_for(SECOND);
    }
    assert!(jobs >= 2, "hello and certificate, {jobs} jobs");
    assert!(pair.agents[at].connected().is_some());
    assert_eq!((pair.server.half_open(), pair.server.len()), (0, 1));
}

#[test]
fn jobs_done_in_reverse_order_connect_everyone_as_himself() {
    let mut pair = holding();
    let names: Vec<String> = (0..8).map(|n| format!("agent {n}")).collect();
    names.iter().for_each(|name| _ = pair.named(name));
    pair.run_for(SECOND);
    assert_eq!(held(&pair), 8);
    while held(&pair) > 0 {
        do_held(&mut pair);
        pair.run_for(SECOND);
    }
    let mut connected: Vec<(Path, String)> = Vec::new();
    for event in &pair.events {
        if let Event::Connected(peer) = event {
            connected.push((peer.path, peer.name.clone()));
        }
    }
    assert_eq!(connected.len(), 8);
    for (path, name) in connected {
        let at = pair.agents.iter().position(|agent| agent.address == path.remote).unwrap();
        assert_eq!(name, names[at]);
    }
}

#[test]
fn the_job_of_a_session_that_timed_out_comes_to_nothing() {
    let mut pair = holding();
    pair.named("agent");
    pair.run_for(59 * SECOND);
    assert_eq!(held(&pair), 1);
    pair.agents[0].alive = false;
    pair.run_for(10 * SECOND);
    assert_eq!(pair.server.half_open(), 0);
    let events = pair.events.len();
    do_held(&mut pair);
    assert_eq!((held(&pair), pair.events.len(), pair.server.poll_timeout()), (0, events, None));
}

#[test]
fn a_job_done_before_its_session_was_replaced_is_not_taken_for_the_next_ones() {
    let mut pair = holding();
    let first = pair.named("agent");
    pair.run_for(SECOND);
    let done: Vec<_> = pair.held.replace(Vec::new()).unwrap().into_iter().map(|job| job.run()).collect();
    // The same client begins anew at the same address, and gives up what it began before.
    pair.agents[first].alive = false;
    let address = pair.agents[first].address;
    let config = trestle_openvpn::client::Config::new(pair::PKI.client("agent"));
    let second = pair.connect_from(config, address);
    pair.run_for(SECOND);
    assert_eq!((held(&pair), pair.server.half_open()), (1, 1));
    for done in done {
        pair.server.handle_job(pair.now, done);
        pair.drain_server();
    }
    assert_eq!((held(&pair), pair.server.len()), (1, 0));
    while held(&pair) > 0 {
        do_held(&mut pair);
        pair.run_for(SECOND);
    }
    assert!(pair.agents[second].connected().is_some());
}

#[test]
fn a_rekey_waits_for_its_job_while_the_old_key_carries_everything() {
    let mut config = server_config();
    config.reneg = Some(60 * SECOND);
    let mut pair = Pair::new(config, FINE, SEED);
    pair.traffic = Some(SECOND / 10);
    let at = pair.named("agent");
    pair.run_for(10 * SECOND);
    pair.held = Some(Vec::new());
    pair.run_for(70 * SECOND);
    assert_eq!((held(&pair), pair.keys_installed), (1, 1));
    while held(&pair) > 0 {
        do_held(&mut pair);
        pair.run_for(SECOND);
    }
    pair.run_for(40 * SECOND);
    assert!(pair.keys_installed >= 2);
    assert_eq!(pair.agents[at].tunnel().lost, []);
    assert!(pair.peers.values().all(|(_, tunnel)| tunnel.lost.is_empty() && tunnel.opened > 1000));
}

#[test]
fn a_server_stops_without_waiting_for_jobs() {
    let mut pair = holding();
    pair.named("agent");
    pair.run_for(SECOND);
    pair.server.stop(pair.now);
    pair.drain_server();
    assert!(pair.server.is_stopped());
    do_held(&mut pair);
    assert!(pair.server.is_stopped() && held(&pair) == 0);
}

#[test]
fn nonsense_in_a_job_ends_the_attempt_with_a_sentence() {
    let mut pair = holding();
    intrude(&mut pair, 1).unwrap();
    assert_eq!((held(&pair), pair.events.len()), (1, 0));
    do_held(&mut pair);
    assert!(matches!(pair.events[..], [Event::Refused { .. }]));
}

#[test]
fn what_waits_for_a_job_is_bounded() {
    let mut pair = holding();
    intrude(&mut pair, 1).unwrap();
    let path = Path::udp(([198, 51, 100, 9], 1).into(), GATEWAY);
    let now = pair.now;
    let mut say = |id| {
        let datagram = packet(Opcode::Control, Some(id), &[], None, &[0; 2048]);
        pair.server.handle_datagram(now, path, &datagram)
    };
    assert!((2..14).all(|id| say(id).is_ok()));
    assert_eq!(say(14), Err(ControlError::OutOfSync));
    assert_eq!(held(&pair), 1);
}

#[test]
fn jobs_under_way_are_bounded_and_abandoned_ones_count() {
    let mut pair = holding();
    let refused = (1..=2100).filter(|port| intrude(&mut pair, *port) == Err(ControlError::RateLimited));
    assert_eq!(refused.count(), 2100 - 2048);
    assert_eq!((held(&pair), pair.server.half_open()), (2048, 1024));
    do_held(&mut pair);
    // Half of them had given way to later ones: nobody has to hear of them.
    assert_eq!(pair.events.len(), 1024);
    assert_eq!(intrude(&mut pair, 3000), Ok(()));
}
