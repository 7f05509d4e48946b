//! Who stands where: the MAC table, and its copies in the eBPF map and the workers.

use std::time::{Duration, Instant};

use common::{FDB_ENTRIES, FdbKey, FdbValue, Mac, Place};
use openvpn::ids::PeerId;

use super::peer_entries::PeerEntries;
use crate::{
    drops::{Drop, DropCounters},
    switch::{Change, Heard, Port, Table},
    worker::{Command, Post},
    xdp::maps::{Fdb, MapError, monotonic_ns},
};

/// The MAC table. Every change goes to all [`Copies`], here and nowhere else.
#[derive(Debug)]
pub(super) struct Stations {
    table: Table,
    /// What is fixed in the table.
    fixed: Vec<(Mac, Port)>,
    next_ageing: Instant,
    ageing_interval: Duration,
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
    pub fn new(ageing: Duration, limit_per_peer: usize, now: Instant) -> Self {
        let ageing_interval = ageing_interval(ageing);
        Self {
            table: Table::new(ageing, limit_per_peer, FDB_ENTRIES as usize),
            fixed: Vec::new(),
            next_ageing: now + ageing_interval,
            ageing_interval,
        }
    }

    /// Most stations behind a peer that has no limit of its own, from now on.
    pub fn limit_peers(&mut self, limit: usize) {
        self.table.limit_peers(limit);
    }

    /// Gives a peer a limit of its own, until it is forgotten.
    pub fn limit_peer(&mut self, peer_id: PeerId, limit: usize) {
        self.table.limit_peer(peer_id, limit);
    }

    /// A frame from `key` was heard at `port`. If it moved there: from where.
    pub fn hear(
        &mut self,
        copies: &mut Copies<'_>,
        drops: &DropCounters,
        key: FdbKey,
        port: Port,
        now: Instant,
    ) -> Option<Port> {
        let former = self.table.get(key).map(|station| station.port);
        match self.table.hear(key, port, now) {
            Heard::Refreshed => {}
            Heard::Changed(change) => {
                copies.publish(change);
                return former;
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
        None
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
        if let Some(change) = self.table.mirror(key, port, now) {
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
        let mut stations = Stations::new(Duration::from_secs(300), 8, now);
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
    fn what_is_fixed_is_told_once() {
        let (_poll, post, mailbox) = mailbox();
        let now = Instant::now();
        let mut stations = Stations::new(Duration::from_secs(300), 8, now);
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
