//! Sessions over TCP: bound to their connection, both ways.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

mod pair;

use std::{net::SocketAddr, time::Duration};

use pair::{FINE, GATEWAY, PKI, Pair, server_config};
use trestle_openvpn::{
    client,
    ids::PeerId,
    server::{Event, GoneReason, Path, Transport},
};

const SECOND: Duration = Duration::from_secs(1);

fn pair(seed: u64) -> Pair {
    let mut pair = Pair::new(server_config(), FINE, seed);
    pair.transport = Transport::Tcp;
    pair
}

fn unused(pair: &Pair) -> Vec<Path> {
    let path = |event: &Event| if let Event::PathUnused { path } = event { Some(*path) } else { None };
    pair.events.iter().filter_map(path).collect()
}

fn path_of(pair: &Pair, at: usize) -> Path {
    Path::tcp(pair.agents[at].address, GATEWAY)
}

#[test]
fn the_end_of_a_connection_is_the_end_of_its_session() {
    let mut pair = pair(1);
    let (first, second) = (pair.named("a"), pair.named("b"));
    pair.run_for(SECOND);
    assert_eq!(pair.peers.len(), 2);
    let path = path_of(&pair, first);
    pair.server.handle_closed(pair.now, path);
    pair.drain_server();
    assert_eq!(pair.gone_reasons(), [GoneReason::ConnectionClosed]);
    assert_eq!((pair.server.len(), pair.server.half_open(), unused(&pair)), (1, 0, vec![]));
    let elsewhere = Path::udp(pair.agents[second].address, GATEWAY);
    pair.server.handle_closed(pair.now, elsewhere);
    pair.drain_server();
    assert_eq!(pair.server.len(), 1, "another path is another path");
}

/// A client with a port of its own comes back from there: its new connection has the former one's path.
#[test]
fn a_connection_that_takes_a_closed_ones_path_is_not_given_up_with_it() {
    let mut pair = pair(7);
    let at = pair.named("a");
    pair.run_for(SECOND);
    let address = pair.agents[at].address;
    pair.agents[at].alive = false;
    pair.server.handle_closed(pair.now, path_of(&pair, at));
    // Nobody asks for events in between: both came in one go.
    pair.connect_from(client::Config::new(PKI.client("a")), address);
    pair.run_for(SECOND);
    assert_eq!(pair.gone_reasons(), [GoneReason::ConnectionClosed]);
    assert_eq!((pair.server.len(), unused(&pair)), (1, vec![]));
}

#[test]
fn a_connection_is_given_up_when_nobody_is_behind_it_any_more() {
    let mut pair = pair(2);
    let at = pair.named("a");
    pair.run_for(SECOND);
    pair.server.disconnect(pair.now, PeerId::new(0).unwrap());
    pair.drain_server();
    assert_eq!(unused(&pair), [], "what was said last is still on its way");
    pair.run_for(10 * SECOND);
    assert_eq!(unused(&pair), [path_of(&pair, at)]);
}

#[test]
fn a_session_that_takes_anothers_place_at_a_connection_keeps_it() {
    let mut pair = pair(3);
    let at = pair.named("a");
    pair.run_for(SECOND);
    let address = pair.agents[at].address;
    pair.agents[at].alive = false;
    pair.connect_from(client::Config::new(PKI.client("a")), address);
    pair.run_for(SECOND);
    assert_eq!(pair.gone_reasons(), [GoneReason::Restarted]);
    assert_eq!((pair.server.len(), unused(&pair)), (1, vec![]));
}

#[test]
fn no_session_floats_to_or_from_a_connection() {
    let mut pair = pair(4);
    pair.named("a");
    pair.run_for(SECOND);
    let elsewhere = SocketAddr::from(([198, 51, 100, 77], 7777));
    let peer_id = PeerId::new(0).unwrap();
    for path in [Path::udp(elsewhere, GATEWAY), Path::tcp(elsewhere, GATEWAY)] {
        pair.server.handle_float(pair.now, peer_id, path);
        pair.drain_server();
    }
    assert!(!pair.events.iter().any(|event| matches!(event, Event::PathChanged { .. })));

    let mut over_udp = Pair::new(server_config(), FINE, 5);
    over_udp.named("a");
    over_udp.run_for(SECOND);
    over_udp.server.handle_float(over_udp.now, peer_id, Path::tcp(elsewhere, GATEWAY));
    over_udp.drain_server();
    assert!(!over_udp.events.iter().any(|event| matches!(event, Event::PathChanged { .. })));
}

#[test]
fn a_stopping_server_tells_nobody_over_tcp_and_does_not_wait() {
    let mut pair = pair(6);
    let at = pair.named("a");
    pair.run_for(SECOND);
    pair.server.stop(pair.now);
    pair.drain_server();
    assert!(pair.server.is_stopped());
    pair.run_for(SECOND);
    assert_eq!(pair.agents[at].closed(), None);
    assert_eq!(unused(&pair), [path_of(&pair, at)]);
}
