//! Storm limits, and what a worker does for the loop guard.

use std::num::NonZeroU32;

use super::*;
use crate::switch::{PROBE_BYTES, probe};

const SOURCE: Mac = [2, 0, 0, 0, 0, 0x77];
const GROUP: Mac = [1, 0, 0x5e, 0, 0, 0x10];

impl Gateway {
    fn guard(&self, guards: Guards) {
        for rig in &self.rigs {
            rig.post.send(Command::Guards(guards));
        }
    }

    fn command(&self, client: &Client, command: Command) {
        self.rigs[client.peer_id.index() % self.rigs.len()].post.send(command);
    }

    fn hold(&self, client: &Client, held: bool) {
        self.command(client, Command::Hold(client.peer_id, held));
    }

    /// What the control thread was told of probes.
    fn returned(&self) -> Vec<Notice> {
        let told = self.notices.try_iter();
        told.filter(|notice| matches!(notice, Notice::ProbeReturned(..))).collect()
    }

    /// How many of `count` frames of the client to `destination` reach the wire.
    fn crossing(&mut self, client: &mut Client, destination: Mac, count: usize) -> usize {
        for _ in 0..count {
            let packet = client.seal(&frame(destination, client.mac, b"storm"));
            self.rigs[0].nic.send(&packet);
        }
        self.turn();
        std::iter::from_fn(|| self.rigs[0].nic.next()).count()
    }
}

fn probes() -> Guards {
    Guards { probe_source: Some(SOURCE), ..Guards::default() }
}

#[test]
fn what_a_peer_sends_to_everybody_is_limited_by_kind_and_known_stations_are_not() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    let limit = NonZeroU32::new(10);
    gateway.guard(Guards { broadcast: limit, multicast: limit, unknown: limit, ..Guards::default() });
    gateway.turn();
    assert_eq!(gateway.crossing(&mut a, BROADCAST, 30), 10);
    assert_eq!(gateway.crossing(&mut a, GROUP, 40), 10);
    assert_eq!(gateway.crossing(&mut a, NOBODY, 50), 10);
    assert_eq!(gateway.crossing(&mut a, ON_WIRE, 30), 30);
    let reasons = [Drop::StormBroadcast, Drop::StormMulticast, Drop::StormUnknown];
    assert_eq!(reasons.map(|reason| gateway.drops(reason)), [20, 30, 40]);
    gateway.now += Duration::from_millis(500);
    assert_eq!(gateway.crossing(&mut a, BROADCAST, 30), 5);
    gateway.guard(Guards::default());
    gateway.turn();
    assert_eq!(gateway.crossing(&mut a, BROADCAST, 30), 30);
}

#[test]
fn one_peer_s_storm_leaves_another_its_share() {
    let mut gateway = Gateway::new(1);
    let (mut a, mut b) = (gateway.connect(0), gateway.connect(1));
    gateway.guard(Guards { broadcast: NonZeroU32::new(5), ..Guards::default() });
    gateway.turn();
    gateway.crossing(&mut a, BROADCAST, 30);
    let before = gateway.drops(Drop::StormBroadcast);
    gateway.crossing(&mut b, BROADCAST, 5);
    assert_eq!(gateway.drops(Drop::StormBroadcast), before);
}

#[test]
fn a_probe_goes_to_its_peer_and_is_told_of_wherever_it_comes_back() {
    let mut gateway = Gateway::new(2);
    let (mut a, mut b) = (gateway.connect(0), gateway.connect(1));
    gateway.guard(probes());
    let sent = probe(SOURCE, [5; 16]);
    gateway.command(&a, Command::Probe(a.peer_id, Box::new(sent)));
    gateway.turn();
    assert_eq!(gateway.received_by(&mut a), [sent.to_vec()]);
    assert_eq!(gateway.received_by(&mut b), Vec::<Vec<u8>>::new());

    gateway.rigs[1].nic.send(&b.seal(&sent));
    gateway.rigs[0].nic.send(&sent);
    gateway.rigs[0].host.as_ref().unwrap().send(&sent);
    gateway.turn();
    let mut ingresses: Vec<_> = gateway.returned();
    ingresses.sort_by_key(|notice| format!("{notice:?}"));
    let by = |ingress| Notice::ProbeReturned([5; 16], ingress);
    let all = [Ingress::Host, Ingress::Peer(b.peer_id), Ingress::Wire(WireId::UPLINK)].map(by);
    assert_eq!(ingresses, all);
    assert_eq!(gateway.drops(Drop::LoopGuard), 3);
    for client in [&mut a, &mut b] {
        assert_eq!(gateway.received_by(client), Vec::<Vec<u8>>::new(), "a probe is nobody else's");
    }
}

#[test]
fn the_probe_of_another_gateway_is_a_broadcast_like_any_other() {
    let mut gateway = Gateway::new(1);
    let (mut a, mut b) = (gateway.connect(0), gateway.connect(1));
    gateway.guard(probes());
    let foreign = probe([2, 0, 0, 0, 0, 0x78], [5; 16]).to_vec();
    gateway.rigs[0].nic.send(&a.seal(&foreign));
    gateway.turn();
    let left: Vec<_> = std::iter::from_fn(|| gateway.rigs[0].nic.next()).collect();
    assert!(left.contains(&foreign));
    assert_eq!(left.iter().filter_map(|packet| b.open(packet)).collect::<Vec<_>>(), [foreign]);
    assert_eq!(gateway.returned(), []);
}

#[test]
fn nothing_but_probes_passes_a_held_peer_until_it_is_let_go() {
    for workers in [1, 2] {
        let mut gateway = Gateway::new(workers);
        let (mut a, mut b) = (gateway.connect(0), gateway.connect(1));
        gateway.guard(probes());
        gateway.station(a.mac, Place::Peer(a.peer_id), false);
        gateway.hold(&a, true);
        gateway.turn();
        gateway.notices.try_iter().count();
        let owner = |client: &Client| client.peer_id.index() % workers;
        let to = |gateway: &mut Gateway, client: &mut Client, frame: &[u8]| {
            let packet = client.seal(frame);
            gateway.rigs[owner(client)].nic.send(&packet);
            gateway.turn();
        };
        let everybody = frame(BROADCAST, a.mac, b"hello");
        to(&mut gateway, &mut a, &everybody);
        assert_eq!(gateway.received_by(&mut b), Vec::<Vec<u8>>::new());
        assert_eq!(gateway.notices.try_iter().count(), 0, "a held peer teaches nothing");
        for destination in [a.mac, BROADCAST] {
            let sent = frame(destination, b.mac, b"are you there?");
            to(&mut gateway, &mut b, &sent);
        }
        assert_eq!(gateway.received_by(&mut a), Vec::<Vec<u8>>::new());
        assert_eq!(gateway.drops(Drop::LoopGuard), 3, "{workers} workers");
        let sent = probe(SOURCE, [6; 16]);
        gateway.command(&a, Command::Probe(a.peer_id, Box::new(sent)));
        gateway.turn();
        assert_eq!(gateway.received_by(&mut a), [sent.to_vec()]);
        to(&mut gateway, &mut a, &sent);
        assert_eq!(gateway.returned(), [Notice::ProbeReturned([6; 16], Ingress::Peer(a.peer_id))]);
        gateway.hold(&a, false);
        to(&mut gateway, &mut a, &everybody);
        assert!(!gateway.received_by(&mut b).is_empty());
    }
}

#[test]
fn imitated_probes_and_moving_stations_leave_room_for_other_news() {
    let mut gateway = Gateway::new(1);
    let (mut a, mut b) = (gateway.connect(0), gateway.connect(1));
    gateway.guard(probes());
    // The rig's room is 64 notices.
    for round in 0..40u8 {
        for client in [&mut a, &mut b] {
            let packet = client.seal(&frame(NOBODY, [2, 0, 0, 9, 9, round % 3], b"here I am"));
            gateway.rigs[0].nic.send(&packet);
        }
        gateway.turn();
    }
    while gateway.rigs[0].nic.next().is_some() {}
    let forged: [u8; PROBE_BYTES] = probe(SOURCE, [7; 16]);
    gateway.rigs[0].nic.send(&b.seal(&forged));
    gateway.turn();
    assert_eq!(gateway.returned().len(), 1);
    let mut told = 0;
    for _ in 0..1000 {
        gateway.rigs[0].nic.send(&b.seal(&forged));
        gateway.turn();
        told += gateway.returned().len();
    }
    assert_eq!(told, 199, "a second's worth, with the one before");
}
