//! The loop guard: finds a segment that is joined to itself through a peer, and cuts it there. Pure: no IO, no clock.
//!
//! ```text
//!                     a station moves from or to the peer
//!        quiet ───────────────────────────────────────────► suspected
//!   a probe in 10 s ◄──────────────────────────────────── a probe in 50 ms
//!          ▲                 no more moves                      │
//!          │                                                    │ a probe for one peer comes back by any port
//!          │  no probe has come back for 3 s, or longer if      ▼
//!          └─────────────────────────────────────────────────  held: only probes pass, three a second
//!                          it happened before
//! ```
//!
//! Moves only say where to look: a station may roam, two may share an address, and a hostile peer may imitate others. A
//! verdict takes a probe that came back ([`crate::switch::probe`]). Of two peers the later is held, so that who comes to a
//! working segment does not cut off who was there; at a loop through the host or a wire, and with a peer that sends back
//! what it gets, it is the peer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use common::Mac;
use openvpn::ids::PeerId;

use crate::switch::{Nonce, PROBE_BYTES, Port, probe};

/// Between probes where nothing points to a loop. A loop that carries frames moves stations, so this finds only those that
/// carry none yet; more often would keep links of mobile peers awake.
const QUIET_INTERVAL: Duration = Duration::from_secs(10);
/// Between probes to a suspected peer. Queues are full in a storm and most probes are lost: forty in two seconds find it if
/// one in ten gets through.
const SUSPECT_INTERVAL: Duration = Duration::from_millis(50);
/// Probes at that pace; then, as a hostile peer may move stations for ever, at [`SLOW_INTERVAL`] until it has been calm.
const SUSPECT_PROBES: u32 = 60;
const SLOW_INTERVAL: Duration = Duration::from_millis(500);
const CALM: Duration = Duration::from_secs(10);
/// A move is news of a loop this long.
const SUSPECT_TIME: Duration = Duration::from_millis(500);
/// Between probes where a peer is held.
const HELD_INTERVAL: Duration = Duration::from_millis(300);
/// A held peer is let go when no probe has come back for so long: ten in a row.
const OPEN_TIME: Duration = Duration::from_secs(3);
/// The longest a peer that made loops again and again is held after the last of them was opened.
const LONGEST_HOLD: Duration = Duration::from_secs(60);
/// After that time a former loop is forgotten.
const FORGIVEN: Duration = Duration::from_secs(600);
/// A probe that comes back later proves nothing. Queues of a saturated client are some seconds long.
const PROBE_LIFE: Duration = Duration::from_secs(5);
/// Most probes under way that are remembered, and most sent in one go.
const MOST_PROBES: usize = 8192;
const BATCH: usize = 64;

/// Where nonces come from; `None`: not now.
pub(super) type Nonces = Box<dyn FnMut() -> Option<Nonce>>;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Send the peer this probe, even if it is held.
    Probe(PeerId, Box<[u8; PROBE_BYTES]>),
    /// Let nothing but probes from the peer and to it: it is joined with that port.
    Hold(PeerId, Port),
    /// The peer is as all others again; it was held for so long.
    Release(PeerId, Duration),
}

/// A peer that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// The port that it is joined with; itself, where it sends back what it gets.
    pub with: Port,
    /// Since when.
    pub since: Instant,
    last_proof: Instant,
    /// Without proof for so long, it is let go.
    until_open: Duration,
}

#[derive(Debug)]
struct Watch {
    /// Number of its session: the later is the higher, and none is used twice.
    session: u64,
    next_probe: Instant,
    suspected_until: Instant,
    suspect_probes_left: u32,
    last_move: Option<Instant>,
    held: Option<Hold>,
    /// Loops in a row, each soon after the last was opened.
    loops: u32,
    let_go: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    peer_id: PeerId,
    session: u64,
    at: Instant,
}

/// The guard of one segment.
pub(super) struct LoopGuard {
    source: Mac,
    nonces: Nonces,
    peers: BTreeMap<PeerId, Watch>,
    due: BTreeSet<(Instant, PeerId)>,
    under_way: HashMap<Nonce, Sent>,
    /// The same, the oldest first.
    sent: VecDeque<(Instant, Nonce)>,
    actions: VecDeque<Action>,
}

impl LoopGuard {
    /// A guard whose probes come from `source`.
    pub fn new(source: Mac, nonces: Nonces) -> Self {
        Self {
            source,
            nonces,
            peers: BTreeMap::new(),
            due: BTreeSet::new(),
            under_way: HashMap::new(),
            sent: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// Whether the peer is held.
    pub fn held(&self, peer_id: PeerId) -> Option<&Hold> {
        self.peers.get(&peer_id)?.held.as_ref()
    }
}

/// What comes in.
impl LoopGuard {
    /// A peer is there. Its `session` is higher than those of peers before it.
    pub fn handle_connected(&mut self, peer_id: PeerId, session: u64, now: Instant) {
        self.handle_gone(peer_id);
        let next_probe = now + Duration::from_secs(1);
        let watch = Watch {
            session,
            next_probe,
            suspected_until: now,
            suspect_probes_left: SUSPECT_PROBES,
            last_move: None,
            held: None,
            loops: 0,
            let_go: None,
        };
        self.peers.insert(peer_id, watch);
        self.due.insert((next_probe, peer_id));
    }

    /// A peer has left.
    pub fn handle_gone(&mut self, peer_id: PeerId) {
        if let Some(watch) = self.peers.remove(&peer_id) {
            self.due.remove(&(watch.next_probe, peer_id));
        }
    }

    /// A station moved from the peer or to it.
    pub fn handle_move(&mut self, peer_id: PeerId, now: Instant) {
        if let Some(watch) = self.peers.get_mut(&peer_id) {
            let next = watch.suspect(now);
            self.schedule(peer_id, next);
        }
    }

    /// A probe came in by `port`.
    pub fn handle_returned(&mut self, nonce: Nonce, port: Port, now: Instant) {
        let Some(sent) = self.under_way.get(&nonce).copied() else { return };
        let is_old = now.saturating_duration_since(sent.at) > PROBE_LIFE;
        let session = self.session_of(sent.peer_id);
        if is_old || session != Some(sent.session) {
            return;
        }
        let by = match port {
            Port::Peer(by) if self.peers.contains_key(&by) => Some(by),
            Port::Peer(_) => return,
            Port::Host | Port::Wire(_) => None,
        };
        let ends = [Some(sent.peer_id), by];
        if self.prove_again(ends, now) {
            return;
        }
        match by {
            Some(by) if self.session_of(by) > session => self.hold(by, Port::Peer(sent.peer_id), now),
            _ => self.hold(sent.peer_id, port, now),
        }
    }

    /// To be called when [`LoopGuard::poll_timeout`] says so.
    pub fn handle_time(&mut self, now: Instant) {
        self.forget_probes(now);
        for _ in 0..BATCH {
            match self.due.first() {
                Some(&(at, peer_id)) if at <= now => self.visit(peer_id, now),
                _ => return,
            }
        }
    }
}

/// What goes out.
impl LoopGuard {
    /// What is to be done next.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When the next probe is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

impl LoopGuard {
    fn session_of(&self, peer_id: PeerId) -> Option<u64> {
        self.peers.get(&peer_id).map(|watch| watch.session)
    }

    /// A loop that is cut already, at one of its ends: it is still there.
    fn prove_again(&mut self, ends: [Option<PeerId>; 2], now: Instant) -> bool {
        let mut is_cut = false;
        for peer_id in ends.into_iter().flatten() {
            if let Some(hold) = self.peers.get_mut(&peer_id).and_then(|watch| watch.held.as_mut()) {
                hold.last_proof = now;
                is_cut = true;
            }
        }
        is_cut
    }

    fn hold(&mut self, peer_id: PeerId, with: Port, now: Instant) {
        let Some(watch) = self.peers.get_mut(&peer_id) else { return };
        watch.hold(with, now);
        self.actions.push_back(Action::Hold(peer_id, with));
        self.schedule(peer_id, now);
    }

    /// It is the peer's turn: it is let go, or sent a probe.
    fn visit(&mut self, peer_id: PeerId, now: Instant) {
        let Some(watch) = self.peers.get_mut(&peer_id) else { return };
        if let Some(since) = watch.let_go(now) {
            self.actions.push_back(Action::Release(peer_id, now.saturating_duration_since(since)));
        }
        // A loop that goes round one way only returns the probes of one of its ends.
        let other = watch.held.and_then(|hold| match hold.with {
            Port::Peer(other) if other != peer_id => Some(other),
            _ => None,
        });
        let next = now + watch.pace(now);
        self.schedule(peer_id, next);
        self.send(peer_id, now);
        other.into_iter().for_each(|other| self.send(other, now));
    }

    fn schedule(&mut self, peer_id: PeerId, at: Instant) {
        let Some(watch) = self.peers.get_mut(&peer_id) else { return };
        self.due.remove(&(watch.next_probe, peer_id));
        watch.next_probe = at;
        self.due.insert((at, peer_id));
    }

    fn send(&mut self, peer_id: PeerId, now: Instant) {
        let (Some(session), Some(nonce)) = (self.session_of(peer_id), (self.nonces)()) else { return };
        if self.sent.len() >= MOST_PROBES
            && let Some((_, oldest)) = self.sent.pop_front()
        {
            self.under_way.remove(&oldest);
        }
        self.sent.push_back((now, nonce));
        self.under_way.insert(nonce, Sent { peer_id, session, at: now });
        self.actions.push_back(Action::Probe(peer_id, Box::new(probe(self.source, nonce))));
    }

    fn forget_probes(&mut self, now: Instant) {
        while let Some((at, nonce)) = self.sent.front()
            && now.saturating_duration_since(*at) > PROBE_LIFE
        {
            self.under_way.remove(nonce);
            self.sent.pop_front();
        }
    }
}

impl Watch {
    /// Looks at it closely for a while. Returns when the next probe is due.
    fn suspect(&mut self, now: Instant) -> Instant {
        let was_calm = self.last_move.is_none_or(|last| now.saturating_duration_since(last) >= CALM);
        if was_calm {
            self.suspect_probes_left = SUSPECT_PROBES;
        }
        let is_news = now >= self.suspected_until;
        self.last_move = Some(now);
        self.suspected_until = now + SUSPECT_TIME;
        if !is_news || self.held.is_some() {
            return self.next_probe;
        }
        let soon = if self.suspect_probes_left > 0 { now } else { now + SLOW_INTERVAL };
        self.next_probe.min(soon)
    }

    /// Until the next probe.
    fn pace(&mut self, now: Instant) -> Duration {
        if self.held.is_some() {
            return HELD_INTERVAL;
        }
        if now >= self.suspected_until {
            return QUIET_INTERVAL;
        }
        match self.suspect_probes_left.checked_sub(1) {
            Some(left) => {
                self.suspect_probes_left = left;
                SUSPECT_INTERVAL
            }
            None => SLOW_INTERVAL,
        }
    }

    fn hold(&mut self, with: Port, now: Instant) {
        let forgiven = self.let_go.is_none_or(|at| now.saturating_duration_since(at) >= FORGIVEN);
        self.loops = if forgiven { 0 } else { self.loops.saturating_add(1) };
        let factor = 2u32.saturating_pow(self.loops.min(8));
        let until_open = (OPEN_TIME * factor).min(LONGEST_HOLD);
        self.held = Some(Hold { with, since: now, last_proof: now, until_open });
    }

    /// Lets it go if its loop is open; says since when it was held. It is looked at closely at first.
    fn let_go(&mut self, now: Instant) -> Option<Instant> {
        let open = |hold: &Hold| now.saturating_duration_since(hold.last_proof) >= hold.until_open;
        let hold = self.held.take_if(|hold| open(hold))?;
        self.let_go = Some(now);
        self.suspected_until = now + SUSPECT_TIME;
        self.suspect_probes_left = SUSPECT_PROBES;
        Some(hold.since)
    }
}

#[cfg(test)]
mod tests;
