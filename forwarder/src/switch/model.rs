//! The switch against a naive model of it: lists, and rules as a person would say them. After every step of a random
//! sequence the table, a worker's copy and the decisions must be the model's.

use std::time::{Duration, Instant};

use common::{FdbKey, Mac};
use openvpn::ids::PeerId;
use proptest::prelude::*;

use super::*;
use crate::drops::Drop;

const AGEING: Duration = Duration::from_secs(300);
const LIMIT: usize = 3;
const OWN_LIMIT: usize = 5;
const CAPACITY: usize = 10;
const PEERS: u32 = 3;

/// What the model knows of one station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    vlan: u16,
    mac: Mac,
    port: Port,
    fixed: bool,
    mirrored: bool,
    heard: u64,
}

/// A learning switch as one would explain it.
#[derive(Debug, Default)]
struct Model {
    known: Vec<Known>,
    limits: Vec<(PeerId, usize)>,
    now: u64,
}

impl Model {
    fn at(&self, vlan: u16, mac: Mac) -> Option<Known> {
        self.known.iter().find(|known| known.vlan == vlan && known.mac == mac).copied()
    }

    /// A fixed station stands in every VLAN.
    fn stands(&self, vlan: u16, mac: Mac) -> Option<Port> {
        let everywhere = self.at(0, mac).filter(|known| known.fixed);
        self.at(vlan, mac).or(everywhere).map(|known| known.port)
    }

    fn behind(&self, port: Port) -> usize {
        self.known.iter().filter(|known| known.port == port).count()
    }

    fn put(&mut self, station: Known) {
        self.known.retain(|known| (known.vlan, known.mac) != (station.vlan, station.mac));
        self.known.push(station);
    }

    /// Says why not, if so.
    fn hear(&mut self, vlan: u16, mac: Mac, port: Port) -> Option<Drop> {
        if self.at(0, mac).is_some_and(|known| known.fixed && known.port != port) {
            return Some(Drop::SourceIsGateway);
        }
        if self.at(vlan, mac).or(self.at(0, mac)).is_some_and(|known| known.fixed) {
            return None;
        }
        let known = self.at(vlan, mac);
        if let Some(known) = known.filter(|known| known.port == port) {
            self.put(Known { heard: self.now, ..known });
            return None;
        }
        if let Port::Peer(peer) = port {
            let own = self.limits.iter().find(|(limited, _)| *limited == peer);
            if self.behind(port) >= own.map_or(LIMIT, |(_, limit)| *limit) {
                return Some(Drop::MacLimit);
            }
        }
        if known.is_none() && self.known.len() >= CAPACITY {
            return Some(Drop::MacTableFull);
        }
        self.put(Known { vlan, mac, port, fixed: false, mirrored: false, heard: self.now });
        None
    }

    fn fix(&mut self, fixed: &[(Mac, Port)]) {
        let is_fixed = |mac| fixed.iter().any(|(other, _)| *other == mac);
        // What a bridge says of a station goes on while that stands where it is fixed.
        let by_bridge: Vec<bool> = fixed
            .iter()
            .map(|&(mac, port)| self.at(0, mac).is_some_and(|known| known.mirrored && known.port == port))
            .collect();
        self.known.retain(|known| !known.fixed && !is_fixed(known.mac));
        for (&(mac, port), mirrored) in fixed.iter().zip(by_bridge) {
            self.put(Known { vlan: 0, mac, port, fixed: true, mirrored, heard: self.now });
        }
    }

    fn mirror(&mut self, vlan: u16, mac: Mac, port: Port) {
        let known = self.at(vlan, mac);
        let everywhere = self.at(0, mac).filter(|known| known.fixed);
        let is_kept = everywhere.is_some_and(|known| vlan != 0 || !known.mirrored);
        if !is_kept && (known.is_some() || self.known.len() < CAPACITY) {
            let fixed = known.is_some_and(|known| known.fixed);
            self.put(Known { vlan, mac, port, fixed, mirrored: true, heard: self.now });
        }
    }

    fn age(&mut self) {
        let now = self.now;
        self.known.retain(|known| known.fixed || known.mirrored || now - known.heard < AGEING.as_secs());
    }

    /// Who gets a frame: all there are, each judged by itself. `None`: nobody, it is dropped.
    fn receivers(&self, segment: &Segment, ingress: Ingress, header: &Header) -> Vec<Port> {
        let vlan = match segment.wires {
            Wires::Joined(joined) if !joined.vlan_aware => 0,
            _ => header.vlan,
        };
        let group = header.destination[0] & 1 == 1;
        let station = if group { None } else { self.stands(vlan, header.destination) };
        all_ports().into_iter().filter(|to| gets(segment, ingress, header, group, station, *to)).collect()
    }
}

fn all_ports() -> Vec<Port> {
    let peers = (0..PEERS).map(|number| Port::Peer(peer(number)));
    let wires = (0..3).filter_map(|number| WireId::new(number).map(Port::Wire));
    peers.chain(wires).chain([Port::Host]).collect()
}

/// Whether the port `to` gets the frame: the rules, one by one.
fn gets(
    segment: &Segment,
    from: Ingress,
    header: &Header,
    group: bool,
    station: Option<Port>,
    to: Port,
) -> bool {
    let from_peer = matches!(from, Ingress::Peer(_));
    match to {
        Port::Peer(to) => {
            let itself = from == Ingress::Peer(to);
            let wanted = station.is_none_or(|port| port == Port::Peer(to));
            !itself && wanted && (segment.peer_to_peer || !from_peer)
        }
        // What a wire or the host has sent, both have had, or the kernel saw to it.
        Port::Wire(_) | Port::Host if !from_peer => false,
        Port::Wire(to) => {
            let withheld = group && header.is_link_local();
            match segment.wires {
                Wires::None => false,
                Wires::Uplink => match station {
                    Some(port) => port == Port::Wire(to),
                    None => to == WireId::UPLINK && !withheld,
                },
                Wires::Joined(joined) => station == Some(Port::Wire(to)) && joined.open.contains(to),
            }
        }
        Port::Host => {
            let withheld = group && header.is_link_local() && segment.wires != Wires::None;
            match (segment.wires, station) {
                (_, Some(Port::Host)) => true,
                (_, Some(Port::Peer(_))) | (Wires::None | Wires::Uplink, Some(Port::Wire(_))) => false,
                (Wires::Joined(joined), Some(Port::Wire(wire))) => !joined.open.contains(wire),
                (Wires::Uplink, None) => group && !withheld,
                (Wires::None | Wires::Joined(_), None) => !withheld,
            }
        }
    }
}

/// Whom a decision reaches.
fn reached(decision: Decision, ingress: Ingress) -> Vec<Port> {
    all_ports()
        .into_iter()
        .filter(|port| match (decision, port) {
            (Decision::To(to), port) => to == *port,
            (Decision::Flood(flood), Port::Peer(peer)) => flood.peers && ingress != Ingress::Peer(*peer),
            (Decision::Flood(flood), Port::Wire(wire)) => flood.wire && *wire == WireId::UPLINK,
            (Decision::Flood(flood), Port::Host) => flood.host,
            (Decision::Drop(_), _) => false,
        })
        .collect()
}

fn peer(number: u32) -> PeerId {
    PeerId::new(number).unwrap()
}

fn mac() -> impl Strategy<Value = Mac> {
    (0..6u8).prop_map(|last| [2, 0, 0, 0, 0, last])
}

fn destination() -> impl Strategy<Value = Mac> {
    prop_oneof![6 => mac(), 1 => Just([0xff; 6]), 1 => Just([1, 0, 0x5e, 0, 0, 1]), 1 => Just([1, 0x80, 0xc2, 0, 0, 0])]
}

fn vlan() -> impl Strategy<Value = u16> {
    prop_oneof![3 => Just(0u16), 1 => Just(7u16)]
}

fn port() -> impl Strategy<Value = Port> {
    (0..all_ports().len()).prop_map(|number| all_ports()[number])
}

fn segment() -> impl Strategy<Value = Segment> {
    let joined = (any::<[bool; 3]>(), any::<bool>()).prop_map(|(states, vlan_aware)| {
        let mut open = WireSet::default();
        for (number, state) in (0..).zip(states) {
            open.set(WireId::new(number).unwrap(), state);
        }
        Wires::Joined(Joined { open, vlan_aware })
    });
    (prop_oneof![Just(Wires::None), Just(Wires::Uplink), joined], any::<bool>())
        .prop_map(|(wires, peer_to_peer)| Segment { wires, peer_to_peer })
}

#[derive(Clone, Debug)]
enum Step {
    Frame { from: Port, source: Mac, destination: Mac, vlan: u16 },
    Fix(Vec<(Mac, Port)>),
    Mirror(u16, Mac, Port),
    Unmirror(u16, Mac),
    UnmirrorPort(Port),
    LimitPeer(u32),
    PeerGone(u32),
    Held(u32),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let frame = (port(), mac(), destination(), vlan())
        .prop_map(|(from, source, destination, vlan)| Step::Frame { from, source, destination, vlan });
    let fixed = prop::collection::hash_map(mac(), port(), 0..3);
    prop_oneof![
        12 => frame,
        1 => fixed.prop_map(|fixed| Step::Fix(fixed.into_iter().collect())),
        2 => (vlan(), mac(), port()).prop_map(|(vlan, mac, port)| Step::Mirror(vlan, mac, port)),
        1 => (vlan(), mac()).prop_map(|(vlan, mac)| Step::Unmirror(vlan, mac)),
        1 => port().prop_map(Step::UnmirrorPort),
        1 => (0..PEERS).prop_map(Step::LimitPeer),
        1 => (0..PEERS).prop_map(Step::PeerGone),
        1 => (0..PEERS).prop_map(Step::Held),
        2 => (0..400u64).prop_map(Step::Wait),
    ]
}

/// The table and one worker's copy of it, kept by changes alone.
struct Switch {
    table: Table,
    copy: Fdb,
    model: Model,
    start: Instant,
}

impl Switch {
    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.model.now)
    }

    fn tell(&mut self, changes: impl IntoIterator<Item = Change>) {
        let now = self.now();
        changes.into_iter().for_each(|change| self.copy.set(change.key, change.station, now));
    }

    fn frame(&mut self, segment: &Segment, from: Port, header: Header) -> Result<(), TestCaseError> {
        let ingress = match from {
            Port::Peer(peer) => Ingress::Peer(peer),
            Port::Wire(wire) => Ingress::Wire(wire),
            Port::Host => Ingress::Host,
        };
        let by = segment.known_by(header);
        let learns = match ingress {
            Ingress::Peer(_) => true,
            Ingress::Wire(_) => segment.learns_from_wires(),
            Ingress::Host => segment.learns_from_host(),
        };
        if learns {
            let lookup = self.copy.hear(by.source_key(), from, None);
            let refused = self.model.hear(by.vlan, by.source, from);
            prop_assert_eq!(lookup == Lookup::Protected, refused == Some(Drop::SourceIsGateway));
            // The worker tells nobody of a fixed station: there is nothing to learn.
            let is_fixed = self.copy.get(by.source_key()).is_some_and(|station| station.fixed);
            if !is_fixed || lookup == Lookup::Protected {
                match self.table.hear(by.source_key(), from, self.now()) {
                    Heard::Changed(change) => {
                        prop_assert_eq!((lookup, refused), (Lookup::Differs, None));
                        self.tell([change]);
                    }
                    Heard::Refreshed => prop_assert_eq!((lookup, refused), (Lookup::Agrees, None)),
                    Heard::Refused(reason) => prop_assert_eq!(Some(reason), refused),
                }
            }
        }
        let decision = segment.decide(&self.copy, ingress, &by);
        let model = self.model.receivers(segment, ingress, &header);
        prop_assert_eq!(reached(decision, ingress), model, "{:?} {:?} {:?}", decision, ingress, header);
        Ok(())
    }

    fn step(&mut self, segment: &Segment, step: Step) -> Result<(), TestCaseError> {
        let now = self.now();
        match step {
            Step::Frame { from, source, destination, vlan } => {
                self.frame(segment, from, Header { destination, source, vlan })?;
            }
            Step::Fix(fixed) => {
                let changes = self.table.fix(&fixed, now);
                self.tell(changes);
                self.model.fix(&fixed);
            }
            Step::Mirror(vlan, mac, port) => {
                let change = self.table.mirror(FdbKey::new(vlan, mac), port, now);
                self.tell(change);
                self.model.mirror(vlan, mac, port);
            }
            Step::Unmirror(vlan, mac) => {
                let change = self.table.unmirror(FdbKey::new(vlan, mac));
                self.tell(change);
                self.model.known.retain(|known| !(known.mirrored && (known.vlan, known.mac) == (vlan, mac)));
            }
            Step::UnmirrorPort(port) => {
                let changes = self.table.unmirror_port(port);
                self.tell(changes);
                self.model.known.retain(|known| !(known.mirrored && known.port == port));
            }
            Step::LimitPeer(number) => {
                self.table.limit_peer(peer(number), OWN_LIMIT);
                self.model.limits.push((peer(number), OWN_LIMIT));
            }
            Step::PeerGone(number) => {
                let changes = self.table.forget_peer(peer(number));
                self.tell(changes);
                self.model.limits.retain(|(limited, _)| *limited != peer(number));
                self.model.known.retain(|known| known.port != Port::Peer(peer(number)));
            }
            Step::Held(number) => {
                let changes = self.table.forget_behind(peer(number));
                self.tell(changes);
                self.model.known.retain(|known| known.port != Port::Peer(peer(number)));
            }
            Step::Wait(seconds) => {
                self.model.now += seconds;
                let changes = self.table.age(self.now(), |_| None);
                self.tell(changes);
                self.model.age();
            }
        }
        Ok(())
    }

    /// Table, copy and model know the same stations at the same places.
    fn agree(&self) -> Result<(), TestCaseError> {
        let mut model: Vec<_> =
            self.model.known.iter().map(|known| (known.vlan, known.mac, known.port, known.fixed)).collect();
        model.sort_by_key(|(vlan, mac, ..)| (*vlan, *mac));
        let table: Vec<_> = self
            .table
            .iter()
            .map(|(key, station, _)| (key.vlan, key.mac, station.port, station.fixed))
            .collect();
        prop_assert_eq!(&table, &model);
        prop_assert_eq!(self.copy.len(), model.len());
        for (vlan, mac, port, fixed) in model {
            prop_assert_eq!(self.copy.get(FdbKey::new(vlan, mac)), Some(Station { port, fixed }));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn the_switch_does_what_a_naive_model_of_it_does(
        segment in segment(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let table = Table::new(AGEING, LIMIT, CAPACITY);
        let start = Instant::now();
        let mut switch = Switch { table, copy: Fdb::default(), model: Model::default(), start };
        for step in steps {
            switch.step(&segment, step)?;
            switch.agree()?;
        }
    }
}
