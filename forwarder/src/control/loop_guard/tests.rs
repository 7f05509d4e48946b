use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::switch::{WireId, probe_nonce};

const SOURCE: Mac = [2, 0, 0, 0, 0, 1];
const WIRE: Port = Port::Wire(WireId::UPLINK);

fn id(peer: u32) -> PeerId {
    PeerId::new(peer).unwrap()
}

fn port(peer: u32) -> Port {
    Port::Peer(id(peer))
}

/// A segment in virtual time: what is joined to what outside, and who is held.
struct Network {
    guard: LoopGuard,
    start: Instant,
    now: Instant,
    /// What goes to one of the peers comes back by that port, if the probe is the so-many-th or later of `lossy`.
    joined: Vec<(u32, Port)>,
    /// Only one probe in so many arrives.
    lossy: usize,
    sent: Vec<(PeerId, Nonce)>,
    held: Vec<PeerId>,
    log: Vec<(u64, Action)>,
}

fn counting() -> Nonces {
    let next = Cell::new(0u128);
    Box::new(move || {
        next.set(next.get() + 1);
        Some(next.get().to_be_bytes())
    })
}

impl Network {
    fn new(peers: u32) -> Self {
        let start = Instant::now();
        let mut guard = LoopGuard::new(SOURCE, counting());
        // The higher its number the earlier it came.
        for peer in 0..peers {
            guard.handle_connected(id(peer), u64::from(1000 - peer), start);
        }
        let (joined, sent, held, log) = Default::default();
        Self { guard, start, now: start, joined, lossy: 1, sent, held, log }
    }

    fn ms(&self) -> u64 {
        u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    fn act(&mut self) {
        while let Some(action) = self.guard.poll_action() {
            match &action {
                Action::Probe(peer, probe) => self.carry(*peer, probe_nonce(&probe[..], SOURCE).unwrap()),
                Action::Hold(peer, _) => {
                    assert!(!self.held.contains(peer), "held twice");
                    self.held.push(*peer);
                    self.log.push((self.ms(), action));
                }
                Action::Release(peer, _) => {
                    self.held.retain(|held| held != peer);
                    self.log.push((self.ms(), action));
                }
            }
        }
    }

    fn carry(&mut self, peer: PeerId, nonce: Nonce) {
        self.sent.push((peer, nonce));
        if !self.sent.len().is_multiple_of(self.lossy) {
            return;
        }
        for (_, by) in self.joined.clone().iter().filter(|(joined, _)| id(*joined) == peer) {
            self.guard.handle_returned(nonce, *by, self.now);
        }
    }

    /// Lets time pass; frames that circulate move a station at every tenth of a second.
    fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while self.now < end {
            self.now += Duration::from_millis(10);
            let joined = self.joined.clone();
            for (peer, by) in joined.into_iter().filter(|(peer, _)| !self.held.contains(&id(*peer))) {
                if self.ms().is_multiple_of(100) && !matches!(by, Port::Peer(by) if self.held.contains(&by)) {
                    self.guard.handle_move(id(peer), self.now);
                    if let Port::Peer(by) = by {
                        self.guard.handle_move(by, self.now);
                    }
                }
            }
            self.guard.handle_time(self.now);
            self.act();
        }
    }

    fn join(&mut self, one: u32, other: u32) {
        self.joined.extend([(one, port(other)), (other, port(one))]);
    }

    fn holds(&self) -> Vec<(PeerId, Port)> {
        let holds = self.log.iter().filter_map(|(_, action)| match action {
            Action::Hold(peer, with) => Some((*peer, *with)),
            _ => None,
        });
        holds.collect()
    }
}

#[test]
fn two_peers_at_one_site_are_cut_where_the_later_came_and_joined_again_when_open() {
    let mut network = Network::new(4);
    network.run(20_000);
    network.join(1, 3);
    network.run(2_000);
    assert_eq!(network.holds(), [(id(1), port(3))]);
    assert!(network.log[0].0 < 20_500, "{:?}", network.log);
    network.run(60_000);
    assert_eq!(network.held, [id(1)], "a loop that is cut stays cut");
    network.joined.clear();
    let opened = network.ms();
    network.run(5_000);
    assert!(network.held.is_empty());
    let at = network.log.last().unwrap().0 - opened;
    assert!((2_500..4_000).contains(&at), "{at} ms");
}

#[test]
fn a_peer_joined_with_the_wire_the_host_or_itself_is_held() {
    for by in [WIRE, Port::Host, port(2)] {
        let mut network = Network::new(3);
        network.run(3_000);
        network.joined.push((2, by));
        network.run(2_000);
        assert_eq!(network.holds(), [(id(2), by)]);
        assert_eq!(network.held, [id(2)]);
    }
}

#[test]
fn a_loop_is_cut_within_two_seconds_where_one_probe_in_ten_arrives() {
    let mut network = Network::new(2);
    network.run(5_000);
    network.lossy = 10;
    network.join(0, 1);
    network.run(2_000);
    assert_eq!(network.holds().len(), 1);
}

#[test]
fn a_loop_without_traffic_is_found_by_the_probes_of_quiet_times() {
    let mut network = Network::new(2);
    network.run(15_000);
    network.joined.push((1, WIRE));
    for _ in 0..QUIET_INTERVAL.as_millis() / 10 {
        network.now += Duration::from_millis(10);
        network.guard.handle_time(network.now);
        network.act();
    }
    assert_eq!(network.held, [id(1)]);
}

#[test]
fn who_loops_again_and_again_is_held_longer_each_time() {
    let mut network = Network::new(2);
    let mut lasted = Vec::new();
    for _ in 0..4 {
        network.join(0, 1);
        network.run(2_000);
        assert_eq!(network.held, [id(0)]);
        network.joined.clear();
        let opened = network.ms();
        network.run(70_000);
        assert!(network.held.is_empty());
        lasted.push((network.log.last().unwrap().0 - opened) / 1000);
    }
    assert!(lasted.is_sorted() && lasted[3] >= 20, "{lasted:?}");
}

#[test]
fn a_loop_round_three_peers_is_cut_once() {
    let mut network = Network::new(3);
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        network.join(one, other);
    }
    network.run(10_000);
    // One peer remains: the one who came first.
    let mut held = network.held.clone();
    held.sort();
    assert_eq!(held, [id(0), id(1)]);
}

#[test]
fn stations_that_move_for_ever_hold_nobody_and_cost_few_probes() {
    let mut network = Network::new(2);
    for _ in 0..6000 {
        (0..2).for_each(|peer| network.guard.handle_move(id(peer), network.now));
        network.run(10);
    }
    assert_eq!(network.holds(), []);
    assert!(network.sent.len() < 2 * (60 + 60 * 2 + 10), "{}", network.sent.len());
}

#[test]
fn a_probe_is_no_proof_when_it_is_invented_old_or_of_a_session_that_has_ended() {
    let mut network = Network::new(3);
    network.run(2_000);
    let (peer, nonce) = network.sent[0];
    network.guard.handle_returned([0xaa; 16], port(1), network.now);
    network.now += PROBE_LIFE + Duration::from_millis(1);
    network.guard.handle_returned(nonce, port(1), network.now);
    network.guard.handle_time(network.now + QUIET_INTERVAL);
    network.act();
    let (again, fresh) = *network.sent.last().unwrap();
    network.guard.handle_connected(again, 2000, network.now);
    network.guard.handle_returned(fresh, port(1), network.now);
    network.guard.handle_gone(peer);
    network.guard.handle_returned(fresh, port(9), network.now);
    network.act();
    assert_eq!(network.holds(), []);
}

#[test]
fn three_hundred_quiet_peers_get_thirty_probes_a_second() {
    let mut network = Network::new(300);
    network.run(5_000);
    let before = network.sent.len();
    network.run(10_000);
    assert_eq!(network.sent.len() - before, 300);
}

#[derive(Clone, Debug)]
enum Step {
    Connect(u32),
    Gone(u32),
    Move(u32),
    /// The so-many-th last probe is said to have come by a port.
    Return(usize, u32),
    Forge(u8, u32),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..5u32).prop_map(Step::Connect),
        (0..5u32).prop_map(Step::Gone),
        (0..6u32).prop_map(Step::Move),
        (0..40usize, 0..6u32).prop_map(|(which, by)| Step::Return(which, by)),
        (any::<u8>(), 0..6u32).prop_map(|(byte, by)| Step::Forge(byte, by)),
        (0..8000u16).prop_map(Step::Wait),
    ]
}

/// The peers, and one port that is none.
fn any_port(number: u32) -> Port {
    if number == 5 { WIRE } else { port(number) }
}

proptest! {
    #[test]
    fn whatever_happens_only_a_probe_that_came_back_holds_and_silence_lets_go(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut network = Network::new(0);
        let mut session = 0;
        for step in steps {
            let holds = network.holds().len();
            let mut returned = false;
            match step {
                Step::Connect(peer) => {
                    session += 1;
                    network.held.retain(|held| *held != id(peer));
                    network.guard.handle_connected(id(peer), session, network.now);
                }
                Step::Gone(peer) => {
                    network.held.retain(|held| *held != id(peer));
                    network.guard.handle_gone(id(peer));
                }
                Step::Move(peer) => network.guard.handle_move(id(peer), network.now),
                Step::Return(which, by) => {
                    returned = true;
                    let sent = network.sent.iter().rev().nth(which).copied();
                    if let Some((_, nonce)) = sent {
                        network.guard.handle_returned(nonce, any_port(by), network.now);
                    }
                }
                Step::Forge(byte, by) => {
                    network.guard.handle_returned([byte | 0x80; 16], any_port(by), network.now);
                }
                Step::Wait(ms) => network.run(u64::from(ms)),
            }
            network.act();
            prop_assert!(returned || network.holds().len() == holds);
            prop_assert!(network.guard.under_way.len() <= MOST_PROBES);
            prop_assert_eq!(network.guard.under_way.len(), network.guard.sent.len());
            prop_assert_eq!(network.guard.due.len(), network.guard.peers.len());
        }
        network.run(2 * 60_000);
        prop_assert!(network.held.is_empty());
    }
}
