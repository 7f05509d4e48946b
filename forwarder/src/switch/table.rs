//! The MAC table: who stands where. The control thread is its one writer; every [`Change`] goes on to the eBPF map
//! and to the workers' copies.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    time::{Duration, Instant},
};

use common::{FdbKey, Mac};
use openvpn::ids::PeerId;

use super::{Port, Station};
use crate::drops::Drop;

/// The MAC table. Bounded: by `capacity` in all, by `limit_per_peer` behind each peer.
#[derive(Debug)]
pub struct Table {
    // Ordered, so that what is shown and what is aged has a fixed order.
    stations: BTreeMap<(u16, u16, Mac), Entry>,
    behind: HashMap<PeerId, usize>,
    ageing: Duration,
    limit_per_peer: usize,
    /// Peers with a limit of their own.
    limits: HashMap<PeerId, usize>,
    capacity: usize,
    tally: Tally,
}

/// What happened to learnt stations since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Stations that were new.
    pub learned: u64,
    /// Stations that moved to another port.
    pub moved: u64,
    /// Stations that were not heard for the ageing time.
    pub expired: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    station: Station,
    last_heard: Instant,
    /// A kernel bridge says that it stands there: the bridge ages it, not we.
    mirrored: bool,
}

/// A station entered, moved (`Some`) or removed (`None`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: FdbKey,
    /// Where it stands now.
    pub station: Option<Station>,
}

/// What hearing a station led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It stands where it stood.
    Refreshed,
    /// It is new, or has moved.
    Changed(Change),
    /// It may not stand there.
    Refused(Drop),
}

impl Entry {
    /// It leaves the table by somebody's word alone.
    const fn keeps(&self) -> bool {
        self.station.fixed || self.mirrored
    }
}

const fn order(key: FdbKey) -> (u16, u16, Mac) {
    (key.segment, key.vlan, key.mac)
}

const fn key_of((segment, vlan, mac): (u16, u16, Mac)) -> FdbKey {
    FdbKey { segment, vlan, mac, reserved: 0 }
}

impl Table {
    /// An empty table. Stations not heard for `ageing` are removed, zero means never.
    pub fn new(ageing: Duration, limit_per_peer: usize, capacity: usize) -> Self {
        Self {
            stations: BTreeMap::new(),
            behind: HashMap::new(),
            ageing,
            limit_per_peer,
            limits: HashMap::new(),
            capacity,
            tally: Tally::default(),
        }
    }

    /// Changes the limit of peers that have none of their own. Stations that are there stay.
    pub fn limit_peers(&mut self, limit_per_peer: usize) {
        self.limit_per_peer = limit_per_peer;
    }

    /// Gives a peer a limit of its own, until it is forgotten.
    pub fn limit_peer(&mut self, peer: PeerId, limit: usize) {
        self.limits.insert(peer, limit);
    }

    /// A frame from `key` was heard at `port`.
    pub fn hear(&mut self, key: FdbKey, port: Port, now: Instant) -> Heard {
        if self.is_fixed_elsewhere(key, port) {
            return Heard::Refused(Drop::SourceIsGateway);
        }
        let known = self.stations.get_mut(&order(key));
        if let Some(entry) = known
            && entry.station.port == port
        {
            entry.last_heard = now;
            return Heard::Refreshed;
        }
        if let Err(reason) = self.admit(key, port) {
            return Heard::Refused(reason);
        }
        let seen_before = if self.stations.contains_key(&order(key)) {
            &mut self.tally.moved
        } else {
            &mut self.tally.learned
        };
        *seen_before += 1;
        Heard::Changed(self.enter(key, Station { port, fixed: false }, now))
    }

    fn is_fixed_elsewhere(&self, key: FdbKey, port: Port) -> bool {
        // Fixed stations stand in every VLAN under their key in VLAN 0.
        let entry = self.stations.get(&order(FdbKey { vlan: 0, ..key }));
        entry.is_some_and(|entry| entry.station.fixed && entry.station.port != port)
    }

    fn admit(&self, key: FdbKey, port: Port) -> Result<(), Drop> {
        let behind = |peer| self.behind.get(&peer).copied().unwrap_or(0);
        let limit = |peer| self.limits.get(&peer).copied().unwrap_or(self.limit_per_peer);
        match port {
            Port::Peer(peer) if behind(peer) >= limit(peer) => Err(Drop::MacLimit),
            _ if self.stations.len() >= self.capacity && !self.stations.contains_key(&order(key)) => {
                Err(Drop::MacTableFull)
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, key: FdbKey, station: Station, now: Instant) -> Change {
        self.insert(key, Entry { station, last_heard: now, mirrored: false })
    }

    fn insert(&mut self, key: FdbKey, entry: Entry) -> Change {
        let station = entry.station;
        let former = self.stations.insert(order(key), entry);
        if let Some(former) = former {
            self.count(former.station.port, false);
        }
        self.count(station.port, true);
        Change { key, station: Some(station) }
    }

    fn remove(&mut self, key: FdbKey) -> Option<Change> {
        let entry = self.stations.remove(&order(key))?;
        self.count(entry.station.port, false);
        Some(Change { key, station: None })
    }

    fn count(&mut self, port: Port, added: bool) {
        let Port::Peer(peer) = port else { return };
        let behind = self.behind.entry(peer).or_insert(0);
        *behind = if added { *behind + 1 } else { behind.saturating_sub(1) };
        if *behind == 0 {
            self.behind.remove(&peer);
        }
    }

    /// Makes `fixed` exactly the set of fixed stations: new ones are entered over whatever stood there, former ones
    /// leave the table.
    pub fn fix(&mut self, fixed: &[(Mac, Port)], now: Instant) -> Vec<Change> {
        let wanted: HashMap<Mac, Port> = fixed.iter().copied().collect();
        let is_wanted = |key: FdbKey, port| key.vlan == 0 && wanted.get(&key.mac) == Some(&port);
        let former: Vec<FdbKey> = self.keys_where(|key, entry| {
            // A fixed address also ends what was learnt of it under a tag.
            let learnt = !entry.station.fixed && key.vlan != 0 && wanted.contains_key(&key.mac);
            learnt || entry.station.fixed && !is_wanted(key, entry.station.port)
        });
        let mut changes: Vec<Change> = former.into_iter().filter_map(|key| self.remove(key)).collect();
        for &(mac, port) in fixed {
            let (key, station) = (FdbKey::new(0, mac), Station { port, fixed: true });
            let former = self.stations.get(&order(key));
            if former.is_none_or(|entry| entry.station != station) {
                let mirrored = former.is_some_and(|entry| entry.mirrored && entry.station.port == port);
                changes.push(self.insert(key, Entry { station, last_heard: now, mirrored }));
            }
        }
        changes
    }

    /// The peer is gone, and so are all stations behind it.
    pub fn forget_peer(&mut self, peer: PeerId) -> Vec<Change> {
        self.limits.remove(&peer);
        self.forget_behind(peer)
    }

    /// All stations behind the peer leave the table; it may have others at once.
    pub fn forget_behind(&mut self, peer: PeerId) -> Vec<Change> {
        let behind = self.keys_where(|_, entry| entry.station.port == Port::Peer(peer));
        behind.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Removes what has not been heard for the ageing time. `heard_elsewhere` is asked before: the eBPF programs
    /// refresh stations on the wire without telling.
    pub fn age(
        &mut self,
        now: Instant,
        mut heard_elsewhere: impl FnMut(FdbKey) -> Option<Instant>,
    ) -> Vec<Change> {
        if self.ageing.is_zero() {
            return Vec::new();
        }
        let is_old = |heard: Instant, ageing| now.saturating_duration_since(heard) >= ageing;
        let silent = self.keys_where(|_, entry| !entry.keeps() && is_old(entry.last_heard, self.ageing));
        let mut changes = Vec::new();
        for key in silent {
            match heard_elsewhere(key).filter(|heard| !is_old(*heard, self.ageing)) {
                Some(heard) => {
                    self.stations.entry(order(key)).and_modify(|entry| entry.last_heard = heard);
                }
                None => {
                    self.tally.expired += 1;
                    changes.extend(self.remove(key));
                }
            }
        }
        changes
    }

    /// A kernel bridge says that `key` stands at `port` now. Fixed stations are not its to move, but for those that were fixed
    /// where it had them (a router on one of its wires), and a full table takes
    /// moves only: such a station stays unknown to XDP, and its frames with the kernel.
    pub fn mirror(&mut self, key: FdbKey, port: Port, now: Instant) -> Option<Change> {
        let former = self.stations.get(&order(key)).copied();
        let is_kept = |entry: Entry| entry.station.fixed && !entry.mirrored;
        // Fixed stations stand in every VLAN under their key in VLAN 0.
        let untagged = self.stations.get(&order(FdbKey { vlan: 0, ..key }));
        let is_everywhere = key.vlan != 0 && untagged.is_some_and(|entry| entry.station.fixed);
        if is_everywhere
            || former.is_some_and(is_kept)
            || former.is_none() && self.stations.len() >= self.capacity
        {
            return None;
        }
        let fixed = former.is_some_and(|entry| entry.station.fixed);
        let entry = Entry { station: Station { port, fixed }, last_heard: now, mirrored: true };
        match former {
            Some(former) if former.station == entry.station => {
                self.stations.insert(order(key), entry);
                return None;
            }
            Some(_) => self.tally.moved += 1,
            None => self.tally.learned += 1,
        }
        Some(self.insert(key, entry))
    }

    /// The bridge has forgotten `key`. Who has moved to a peer meanwhile stays there.
    pub fn unmirror(&mut self, key: FdbKey) -> Option<Change> {
        self.stations.get(&order(key)).filter(|entry| entry.mirrored)?;
        self.tally.expired += 1;
        self.remove(key)
    }

    /// A port of the bridge is gone, with all that the bridge had there.
    pub fn unmirror_port(&mut self, port: Port) -> Vec<Change> {
        let there = self.keys_where(|_, entry| entry.mirrored && entry.station.port == port);
        there.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Up to `most` mirrored stations behind `after` in the table's order, each with when it was last heard: to go
    /// through all of them bit by bit.
    pub fn mirrored(&self, after: Option<FdbKey>, most: usize) -> Vec<(FdbKey, Instant)> {
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(order(key)));
        let behind = self.stations.range((from, Bound::Unbounded));
        let mirrored = behind.filter(|(_, entry)| entry.mirrored);
        mirrored.take(most).map(|(order, entry)| (key_of(*order), entry.last_heard)).collect()
    }

    /// XDP has heard a mirrored station.
    pub fn heard_by_xdp(&mut self, key: FdbKey, at: Instant) {
        if let Some(entry) = self.stations.get_mut(&order(key)) {
            entry.last_heard = entry.last_heard.max(at);
        }
    }

    fn keys_where(&self, mut wanted: impl FnMut(FdbKey, &Entry) -> bool) -> Vec<FdbKey> {
        let keys = self.stations.iter().map(|(order, entry)| (key_of(*order), entry));
        keys.filter(|(key, entry)| wanted(*key, entry)).map(|(key, _)| key).collect()
    }

    /// Where `key` stands.
    pub fn get(&self, key: FdbKey) -> Option<Station> {
        self.stations.get(&order(key)).map(|entry| entry.station)
    }

    /// Every station with when it was last heard, ordered by segment, VLAN and address.
    pub fn iter(&self) -> impl Iterator<Item = (FdbKey, Station, Instant)> {
        self.stations.iter().map(|(order, entry)| (key_of(*order), entry.station, entry.last_heard))
    }

    /// Number of stations.
    pub fn len(&self) -> usize {
        self.stations.len()
    }

    /// True without stations.
    pub fn is_empty(&self) -> bool {
        self.stations.is_empty()
    }

    /// What happened to learnt stations since the start.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Most stations it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// A station not heard for this long is forgotten; zero: never.
    pub fn ageing(&self) -> Duration {
        self.ageing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::WireId;

    const AGEING: Duration = Duration::from_secs(300);
    const A: FdbKey = FdbKey::new(0, [2, 0, 0, 0, 0, 1]);
    const B: FdbKey = FdbKey::new(0, [2, 0, 0, 0, 0, 2]);
    const C: FdbKey = FdbKey::new(0, [2, 0, 0, 0, 0, 3]);

    const WIRE: Port = Port::Wire(WireId::UPLINK);

    fn peer(id: u32) -> Port {
        Port::Peer(PeerId::new(id).unwrap())
    }

    fn learnt(port: Port) -> Option<Station> {
        Some(Station { port, fixed: false })
    }

    #[test]
    fn a_station_is_learnt_once_and_followed_when_it_moves() {
        let (mut table, now) = (Table::new(AGEING, 8, 8), Instant::now());
        assert_eq!(table.hear(A, peer(1), now), Heard::Changed(Change { key: A, station: learnt(peer(1)) }));
        assert_eq!(table.hear(A, peer(1), now), Heard::Refreshed);
        assert_eq!(
            table.hear(A, Port::Wire(WireId::UPLINK), now),
            Heard::Changed(Change { key: A, station: learnt(Port::Wire(WireId::UPLINK)) })
        );
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_fixed_station_is_never_claimed_in_any_vlan() {
        let (mut table, now) = (Table::new(AGEING, 8, 8), Instant::now());
        table.fix(&[(A.mac, Port::Wire(WireId::UPLINK))], now);
        assert_eq!(table.hear(A, peer(1), now), Heard::Refused(Drop::SourceIsGateway));
        assert_eq!(table.hear(FdbKey { vlan: 5, ..A }, peer(1), now), Heard::Refused(Drop::SourceIsGateway));
        assert_eq!(table.hear(A, Port::Wire(WireId::UPLINK), now), Heard::Refreshed);
    }

    #[test]
    fn fixing_replaces_the_former_set_and_what_was_learnt() {
        let (mut table, now) = (Table::new(AGEING, 8, 8), Instant::now());
        table.hear(A, peer(1), now);
        table.hear(FdbKey { vlan: 5, ..A }, peer(1), now);
        table.fix(&[(A.mac, Port::Wire(WireId::UPLINK))], now);
        assert_eq!(table.len(), 1);
        let changes = table.fix(&[(B.mac, Port::Host)], now);
        assert!(changes.contains(&Change { key: A, station: None }));
        assert_eq!(table.fix(&[(B.mac, Port::Host)], now), []);
        assert!(matches!(table.hear(A, peer(1), now), Heard::Changed(_)));
    }

    #[test]
    fn a_peer_has_at_most_its_limit_of_stations() {
        let (mut table, now) = (Table::new(AGEING, 2, 8), Instant::now());
        table.hear(A, peer(1), now);
        table.hear(B, peer(1), now);
        assert_eq!(table.hear(C, peer(1), now), Heard::Refused(Drop::MacLimit));
        table.hear(A, peer(2), now);
        assert!(matches!(table.hear(C, peer(1), now), Heard::Changed(_)));
    }

    #[test]
    fn a_peers_own_limit_counts_until_it_is_forgotten() {
        let (mut table, now) = (Table::new(AGEING, 1, 8), Instant::now());
        let id = PeerId::new(1).unwrap();
        table.limit_peer(id, 2);
        table.hear(A, peer(1), now);
        assert!(matches!(table.hear(B, peer(1), now), Heard::Changed(_)));
        assert_eq!(table.hear(C, peer(1), now), Heard::Refused(Drop::MacLimit));
        table.forget_peer(id);
        table.hear(A, peer(1), now);
        assert_eq!(table.hear(B, peer(1), now), Heard::Refused(Drop::MacLimit));
    }

    #[test]
    fn a_full_table_takes_moves_but_nothing_new() {
        let (mut table, now) = (Table::new(AGEING, 8, 1), Instant::now());
        table.hear(A, peer(1), now);
        assert_eq!(table.hear(B, Port::Wire(WireId::UPLINK), now), Heard::Refused(Drop::MacTableFull));
        assert!(matches!(table.hear(A, Port::Wire(WireId::UPLINK), now), Heard::Changed(_)));
    }

    #[test]
    fn silent_stations_age_unless_heard_elsewhere_or_fixed() {
        let (mut table, now) = (Table::new(AGEING, 8, 8), Instant::now());
        table.hear(A, peer(1), now);
        table.hear(B, Port::Wire(WireId::UPLINK), now);
        table.fix(&[(C.mac, Port::Host)], now);
        let later = now + AGEING;
        assert_eq!(table.age(later - Duration::from_secs(1), |_| None), []);
        let gone = table.age(later, |key| (key == B).then_some(later - Duration::from_secs(9)));
        assert_eq!(gone, [Change { key: A, station: None }]);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_gone_peer_takes_its_stations_along() {
        let (mut table, now) = (Table::new(AGEING, 1, 8), Instant::now());
        table.hear(A, peer(1), now);
        table.hear(B, peer(2), now);
        assert_eq!(table.forget_peer(PeerId::new(1).unwrap()), [Change { key: A, station: None }]);
        assert!(matches!(table.hear(C, peer(1), now), Heard::Changed(_)));
    }

    #[test]
    fn what_a_bridge_says_is_not_aged_and_goes_by_its_word() {
        let (mut table, now) = (Table::new(AGEING, 8, 8), Instant::now());
        assert_eq!(table.mirror(A, WIRE, now), Some(Change { key: A, station: learnt(WIRE) }));
        assert_eq!(table.mirror(A, WIRE, now), None);
        assert_eq!(table.mirror(A, Port::Host, now), Some(Change { key: A, station: learnt(Port::Host) }));
        assert_eq!(table.age(now + 2 * AGEING, |_| None), []);
        assert_eq!(table.unmirror(A), Some(Change { key: A, station: None }));
        assert_eq!((table.unmirror(A), table.len()), (None, 0));
        assert_eq!(table.tally(), Tally { learned: 1, moved: 1, expired: 1 });
    }

    #[test]
    fn a_router_is_fixed_where_the_bridge_has_it_and_moves_by_its_word() {
        let (mut table, now) = (Table::new(AGEING, 8, 8), Instant::now());
        let other = Port::Wire(WireId::new(2).unwrap());
        table.mirror(A, WIRE, now);
        table.fix(&[(A.mac, WIRE)], now);
        assert_eq!(table.hear(A, peer(1), now), Heard::Refused(Drop::SourceIsGateway));
        let moved = Some(Station { port: other, fixed: true });
        assert_eq!(table.mirror(A, other, now), Some(Change { key: A, station: moved }));
        assert_eq!(table.mirrored(None, 8), [(A, now)]);
        table.fix(&[(A.mac, Port::Host)], now);
        assert_eq!(table.mirror(A, WIRE, now), None, "the host's own are not the bridge's to move");
    }

    #[test]
    fn who_moved_from_the_bridge_to_a_peer_is_the_peer_s() {
        let (mut table, now) = (Table::new(AGEING, 8, 8), Instant::now());
        table.mirror(A, WIRE, now);
        table.hear(A, peer(1), now);
        assert_eq!(table.unmirror(A), None);
        assert_eq!(table.age(now + AGEING, |_| None), [Change { key: A, station: None }]);
    }

    #[test]
    fn a_bridge_moves_no_fixed_station_and_fills_no_full_table() {
        let (mut table, now) = (Table::new(AGEING, 8, 2), Instant::now());
        table.fix(&[(A.mac, Port::Host)], now);
        assert_eq!(table.mirror(A, WIRE, now), None);
        table.mirror(B, WIRE, now);
        assert_eq!(table.mirror(C, WIRE, now), None);
        assert_eq!((table.len(), table.get(C)), (2, None));
    }

    #[test]
    fn mirrored_stations_are_gone_through_bit_by_bit_and_leave_with_their_port() {
        let (mut table, now) = (Table::new(AGEING, 8, 8), Instant::now());
        table.mirror(A, WIRE, now);
        table.hear(B, peer(1), now);
        table.mirror(C, WIRE, now);
        assert_eq!(table.mirrored(None, 1), [(A, now)]);
        assert_eq!(table.mirrored(Some(A), 8), [(C, now)]);
        assert_eq!(table.mirrored(Some(C), 8), []);
        let later = now + AGEING;
        table.heard_by_xdp(C, later);
        table.heard_by_xdp(C, now);
        assert_eq!(table.mirrored(Some(A), 8), [(C, later)]);
        assert_eq!(table.unmirror_port(WIRE).len(), 2);
        assert_eq!(table.len(), 1);
    }
}
