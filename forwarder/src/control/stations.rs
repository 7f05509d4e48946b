//! Who stands where: the MAC table, and its copies in the eBPF map and the workers.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use common::{FDB_ENTRIES, FdbKey, FdbValue, Mac, Place};
use openvpn::ids::PeerId;

use super::peer_entries::PeerEntries;
use crate::{
    drops::{Drop, DropCounters},
    switch::{Change, Heard, Port, Table},
    worker::{Command, Post},
    xdp::maps::{Fdb, MapError, monotonic_ns},
};

/// Most stations behind a peer whose limit was not told: OpenVPN's default of `max-routes-per-client`.
const UNTOLD_LIMIT: usize = 256;

/// The MAC table. Every change goes to all [`Copies`], here and nowhere else.
#[derive(Debug)]
pub(super) struct Stations {
    table: Table,
    /// What is fixed in the table.
    fixed: Vec<(Mac, Port)>,
    next_ageing: Instant,
    ageing_interval: Duration,
    /// Peers that a station moved from or to, see [`Stations::take_moves`].
    moves: BTreeSet<PeerId>,
}

/// The copies of the MAC table.
pub(super) struct Copies<'a> {
    /// The workers'.
    pub posts: &'a [Post],
    /// The eBPF programs'; `None` when there are none.
    pub map: Option<&'a mut Fdb>,
    /// A kernel bridge's; `None` where none is joined.
    pub bridge: Option<&'a mut PeerEntries>,
}

impl Stations {
    /// Before a peer's first frame comes its limit ([`Self::limit_peer`]).
    pub fn new(ageing: Duration, now: Instant) -> Self {
        let ageing_interval = ageing_interval(ageing);
        Self {
            table: Table::new(ageing, UNTOLD_LIMIT, FDB_ENTRIES as usize),
            fixed: Vec::new(),
            next_ageing: now + ageing_interval,
            ageing_interval,
            moves: BTreeSet::new(),
        }
    }

    /// Gives a peer its limit, until it is forgotten.
    pub fn limit_peer(&mut self, peer_id: PeerId, limit: usize) {
        self.table.limit_peer(peer_id, limit);
    }

    /// A frame from `key` was heard at `port`.
    pub fn hear(
        &mut self,
        copies: &mut Copies<'_>,
        drops: &DropCounters,
        key: FdbKey,
        port: Port,
        now: Instant,
    ) {
        let former = self.table.get(key).map(|station| station.port);
        match self.table.hear(key, port, now) {
            Heard::Refreshed => {}
            Heard::Changed(change) => {
                self.note_move(former, port);
                copies.publish(change);
            }
            Heard::Refused(reason) => {
                // The worker has counted all other reasons, by the frame; only it can lose one.
                if reason == Drop::MacTableFull {
                    drops.count(reason);
                }
                // The worker may have entered it ahead of this word: tell it how things stand.
                copies.tell(Change { key, station: self.table.get(key) });
            }
        }
    }

    /// Peers that a station moved from or to since this was asked last, by whoever's word.
    pub fn take_moves(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.moves)
    }

    fn note_move(&mut self, former: Option<Port>, port: Port) {
        let Some(former) = former.filter(|former| *former != port) else { return };
        let peers = [former, port].into_iter().filter_map(|port| match port {
            Port::Peer(peer_id) => Some(peer_id),
            Port::Host | Port::Wire(_) => None,
        });
        self.moves.extend(peers);
    }

    /// A worker heard `key` at a peer that has gone since, and may have entered it there ahead of our word: it is told
    /// how things stand, or frames for `key` would go nowhere until it is heard elsewhere.
    pub fn disown(&self, copies: &Copies<'_>, key: FdbKey) {
        copies.tell(Change { key, station: self.table.get(key) });
    }

    /// Where a station stands, if it is known.
    pub fn stands(&self, mac: Mac) -> Option<Port> {
        self.table.get(FdbKey::new(0, mac)).map(|station| station.port)
    }

    /// Makes `fixed` the stations that no peer may claim.
    pub fn fix(&mut self, copies: &mut Copies<'_>, fixed: &[(Mac, Port)], now: Instant) {
        // All stations are gone through for it, and news of the network is mostly of other things.
        if self.fixed == fixed {
            return;
        }
        self.fixed = fixed.to_vec();
        for change in self.table.fix(fixed, now) {
            tracing::debug!(?change, "a protected station changed");
            copies.publish(change);
        }
    }

    /// The peer is gone, with all stations behind it.
    pub fn forget_peer(&mut self, copies: &mut Copies<'_>, peer_id: PeerId) {
        for change in self.table.forget_peer(peer_id) {
            copies.publish(change);
        }
    }

    /// What stands behind the peer is unknown again.
    pub fn forget_behind(&mut self, copies: &mut Copies<'_>, peer_id: PeerId) {
        for change in self.table.forget_behind(peer_id) {
            copies.publish(change);
        }
    }

    /// Once in a while: removes silent stations.
    pub fn age(&mut self, copies: &mut Copies<'_>, now: Instant) {
        if now < self.next_ageing {
            return;
        }
        self.next_ageing = now + self.ageing_interval;
        let ktime_ns = monotonic_ns();
        let heard = |key| copies.map.as_deref().and_then(|map| heard_by_ebpf(map, key, now, ktime_ns));
        for change in self.table.age(now, heard) {
            copies.publish(change);
        }
    }

    /// A kernel bridge says that `key` stands at `port`.
    pub fn mirror(&mut self, copies: &mut Copies<'_>, key: FdbKey, port: Port, now: Instant) {
        let former = self.table.get(key).map(|station| station.port);
        if let Some(change) = self.table.mirror(key, port, now) {
            self.note_move(former, port);
            copies.publish(change);
        }
    }

    /// The bridge has forgotten `key`.
    pub fn unmirror(&mut self, copies: &mut Copies<'_>, key: FdbKey) {
        if let Some(change) = self.table.unmirror(key) {
            copies.publish(change);
        }
    }

    /// A port of the bridge is gone.
    pub fn unmirror_port(&mut self, copies: &mut Copies<'_>, port: Port) {
        for change in self.table.unmirror_port(port) {
            copies.publish(change);
        }
    }

    /// When XDP heard the station last, which the table is told as well.
    pub fn heard_by_xdp(&mut self, copies: &Copies<'_>, key: FdbKey, now: Instant) -> Option<Instant> {
        let heard = heard_by_ebpf(copies.map.as_deref()?, key, now, monotonic_ns())?;
        self.table.heard_by_xdp(key, heard);
        Some(heard)
    }

    /// The table, to be shown.
    pub fn table(&self) -> &Table {
        &self.table
    }
}

impl Copies<'_> {
    fn publish(&mut self, change: Change) {
        if let Some(map) = &mut self.map
            && let Err(error) = write(map, change)
        {
            tracing::warn!(%error, ?change, "the forwarding map was not updated");
        }
        if let Some(bridge) = &mut self.bridge {
            bridge.follow(change);
        }
        self.tell(change);
    }

    fn tell(&self, change: Change) {
        for post in self.posts {
            post.send(Command::Station(change));
        }
    }
}

fn write(map: &mut Fdb, change: Change) -> Result<(), MapError> {
    let Some(station) = change.station else { return map.remove(change.key).map(|_| ()) };
    let value = FdbValue {
        place: place(station.port) as u32,
        fixed: u32::from(station.fixed),
        port: slot(station.port),
        reserved: 0,
        last_seen_ns: monotonic_ns(),
    };
    map.insert(change.key, value)
}

const fn place(port: Port) -> Place {
    match port {
        Port::Host => Place::Host,
        Port::Wire(_) => Place::Wire,
        Port::Peer(_) => Place::Peer,
    }
}

const fn slot(port: Port) -> u32 {
    match port {
        Port::Wire(wire) => wire.number() as u32,
        Port::Host | Port::Peer(_) => 0,
    }
}

/// Often enough that a station leaves at most a tenth late.
fn ageing_interval(ageing: Duration) -> Duration {
    (ageing / 10).clamp(Duration::from_millis(500), Duration::from_secs(30))
}

fn heard_by_ebpf(map: &Fdb, key: FdbKey, now: Instant, ktime_ns: u64) -> Option<Instant> {
    let value = map.value(key).ok()??;
    let age = Duration::from_nanos(ktime_ns.saturating_sub(value.last_seen_ns));
    now.checked_sub(age)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::{
        switch::{Station, WireId},
        worker::Mailbox,
    };

    /// A mailbox as workers have it, for what they are told.
    fn mailbox() -> (Poll, Post, Mailbox) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (notices, _) = crossbeam::channel::bounded(1);
        let (post, mailbox) = Mailbox::new(notices, waker).unwrap();
        (poll, post, mailbox)
    }

    fn told(mailbox: &Mailbox) -> Vec<Change> {
        let commands = std::iter::from_fn(|| mailbox.take());
        commands
            .map(|command| match command {
                Command::Station(change) => change,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_worker_that_heard_a_peer_now_gone_is_told_how_things_stand() {
        let (_poll, post, mailbox) = mailbox();
        let now = Instant::now();
        let mut stations = Stations::new(Duration::from_secs(300), now);
        let posts = [post];
        let mut copies = Copies { posts: &posts, map: None, bridge: None };
        let (unknown, moved) = (FdbKey::new(0, [2, 0, 0, 0, 0, 1]), FdbKey::new(0, [2, 0, 0, 0, 0, 2]));
        stations.hear(&mut copies, &DropCounters::default(), moved, Port::Wire(WireId::UPLINK), now);
        told(&mailbox);
        stations.disown(&copies, unknown);
        stations.disown(&copies, moved);
        let on_wire = Station { port: Port::Wire(WireId::UPLINK), fixed: false };
        assert_eq!(
            told(&mailbox),
            [Change { key: unknown, station: None }, Change { key: moved, station: Some(on_wire) }]
        );
    }

    #[test]
    fn moves_from_and_to_peers_are_noted_whoever_tells_of_them() {
        let now = Instant::now();
        let mut stations = Stations::new(Duration::from_secs(300), now);
        let mut copies = Copies { posts: &[], map: None, bridge: None };
        let [one, two] = [1, 2].map(|id| PeerId::new(id).unwrap());
        let key = FdbKey::new(0, MAC);
        let mut moves = |at: Option<PeerId>| {
            match at {
                Some(peer_id) => {
                    stations.hear(&mut copies, &DropCounters::default(), key, Port::Peer(peer_id), now);
                }
                None => stations.mirror(&mut copies, key, Port::Wire(WireId::UPLINK), now),
            }
            Vec::from_iter(stations.take_moves())
        };
        assert_eq!(moves(Some(one)), [], "it is new");
        assert_eq!(moves(Some(one)), []);
        assert_eq!(moves(None), [one], "the bridge's word");
        assert_eq!(moves(None), []);
        assert_eq!(moves(Some(two)), [two]);
        assert_eq!(moves(Some(one)), [one, two]);
    }

    #[test]
    fn what_a_bridge_has_beyond_our_table_stays_with_it_and_is_told_nobody() {
        let (_poll, post, mailbox) = mailbox();
        let now = Instant::now();
        let mut stations = Stations::new(Duration::from_secs(300), now);
        let posts = [post];
        let mut copies = Copies { posts: &posts, map: None, bridge: None };
        let key = |number: u32| {
            let [_, a, b, c] = number.to_be_bytes();
            FdbKey::new(0, [2, 0, 0, a, b, c])
        };
        let wires = [1, 2].map(|wire| Port::Wire(WireId::new(wire).unwrap()));
        let beyond = FDB_ENTRIES..FDB_ENTRIES + 10_000;
        for number in 0..beyond.end {
            stations.mirror(&mut copies, key(number), wires[0], now);
        }
        assert_eq!(told(&mailbox).len(), FDB_ENTRIES as usize);
        // They move and go as they like.
        for number in beyond.clone() {
            stations.mirror(&mut copies, key(number), wires[1], now);
            stations.unmirror(&mut copies, key(number));
        }
        assert_eq!((told(&mailbox).len(), stations.table().len()), (0, FDB_ENTRIES as usize));
        stations.mirror(&mut copies, key(0), wires[1], now);
        stations.unmirror(&mut copies, key(1));
        stations.mirror(&mut copies, key(beyond.start), wires[0], now);
        let places: Vec<_> =
            told(&mailbox).into_iter().map(|change| change.station.map(|station| station.port)).collect();
        assert_eq!(places, [Some(wires[1]), None, Some(wires[0])], "a move, an end, and who takes the room");
    }

    #[test]
    fn what_is_fixed_is_told_once() {
        let (_poll, post, mailbox) = mailbox();
        let now = Instant::now();
        let mut stations = Stations::new(Duration::from_secs(300), now);
        let posts = [post];
        let mut copies = Copies { posts: &posts, map: None, bridge: None };
        let (one, two) = ([(MAC, Port::Host)], [(MAC, Port::Wire(WireId::UPLINK))]);
        for (fixed, changes) in [(&one[..], 1), (&one, 0), (&two, 2), (&[], 1), (&[], 0), (&one, 1)] {
            stations.fix(&mut copies, fixed, now);
            assert_eq!(told(&mailbox).len(), changes, "{fixed:?}");
        }
    }

    const MAC: Mac = [2, 0, 0, 0, 0, 9];
}
