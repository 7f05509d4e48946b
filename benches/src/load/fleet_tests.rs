use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use super::*;
use crate::load::testing::Hub;

static NEVER: AtomicBool = AtomicBool::new(false);
const FRAME: [u8; 60] = [0xff; 60];

/// Turns `fleet` until `done` or for a while.
fn turn_until(fleet: &mut Fleet, frames: &mut Vec<usize>, done: impl Fn(&Fleet, &[usize]) -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until && !done(fleet, frames) {
        fleet.turn(Duration::from_millis(10), |number, _| frames.push(number));
    }
    done(fleet, frames)
}

/// Waits until the hub has so many peers.
fn has_peers(hub: &Hub, count: usize) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while hub.peers() != count && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    hub.peers() == count
}

#[test]
fn all_sessions_are_connected_and_frames_go_between_them() {
    let hub = Hub::start(|_| {});
    let mut fleet = Fleet::connect(&Plan { at_once: 2, ..hub.plan(5) }, &NEVER).unwrap();
    assert_eq!((fleet.sessions().len(), fleet.failures().len()), (5, 0));
    let numbers: Vec<usize> = fleet.sessions().iter().map(Session::number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert!(fleet.sessions().iter().all(|session| session.handshake().duration() > Duration::ZERO));
    fleet.sessions_mut()[2].send(Instant::now(), &FRAME).unwrap();
    let mut frames = Vec::new();
    assert!(turn_until(&mut fleet, &mut frames, |_, frames| frames.len() >= 4));
    frames.sort_unstable();
    assert_eq!(frames, [0, 1, 3, 4]);
}

#[test]
fn a_server_has_forgotten_the_sessions_that_left() {
    let hub = Hub::start(|_| {});
    let fleet = Fleet::connect(&hub.plan(3), &NEVER).unwrap();
    assert!(has_peers(&hub, 3));
    fleet.leave();
    assert!(has_peers(&hub, 0));
}

#[test]
fn keepalives_keep_a_session_alive_beyond_ping_restart() {
    let hub = Hub::start(|config| {
        config.ping = Some(Duration::from_secs(1));
        config.ping_restart = Some(Duration::from_secs(2));
        config.push = vec!["ping 1".into(), "ping-restart 20".into()];
    });
    let mut fleet = Fleet::connect(&hub.plan(2), &NEVER).unwrap();
    fleet.hold(Instant::now() + Duration::from_secs(4), &NEVER);
    assert_eq!(hub.peers(), 2);
    assert!(fleet.sessions().iter().all(|session| session.over().is_none()));
}

#[test]
fn new_keys_are_sent_with_and_nothing_is_lost() {
    let hub = Hub::start(|_| {});
    let plan = hub.plan(2);
    let mut fleet = Fleet::connect(&plan, &NEVER).unwrap();
    fleet.sessions_mut()[0].rekey(Instant::now());
    let mut frames = Vec::new();
    assert!(turn_until(&mut fleet, &mut frames, |fleet, _| fleet.sessions()[0].rekeys() == 1));
    fleet.sessions_mut()[0].send(Instant::now(), &FRAME).unwrap();
    fleet.sessions_mut()[1].send(Instant::now(), &FRAME).unwrap();
    assert!(turn_until(&mut fleet, &mut frames, |_, frames| frames.len() == 2));
}

#[test]
fn sessions_that_others_replaced_are_found_out() {
    let hub = Hub::start(|config| config.duplicate_cn = false);
    let mut fleet = Fleet::connect(&hub.plan(3), &NEVER).unwrap();
    fleet.check_kept(Duration::from_millis(500));
    let over: Vec<bool> = fleet.sessions().iter().map(|session| session.over().is_some()).collect();
    assert_eq!(over, [true, true, false]);
}

#[test]
fn sessions_that_are_kept_are_not_ended() {
    let hub = Hub::start(|_| {});
    let mut fleet = Fleet::connect(&hub.plan(3), &NEVER).unwrap();
    fleet.check_kept(Duration::from_secs(10));
    assert!(fleet.sessions().iter().all(|session| session.over().is_none()));
}

#[test]
fn a_server_that_is_not_there_is_said_so() {
    let hub = Hub::start(|_| {});
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    let remote = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let plan = Plan { remote, time_out: Duration::from_millis(300), ..hub.plan(2) };
    let error = Fleet::connect(&plan, &NEVER).unwrap_err().to_string();
    assert!(error.contains("no answer from"), "{error}");
    drop(free);
    let error = Fleet::connect(&plan, &NEVER).unwrap_err().to_string();
    assert!(error.contains("nobody listens"), "{error}");
}
