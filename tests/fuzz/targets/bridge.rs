//! What the kernel says about a bridge, in any order and of any contents: what is told as events is what is known. And
//! what XDP copies of its frames.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use libfuzzer_sys::fuzz_target;
use trestle::host::bridge::obstacles::{nftables::Chain, tc::Qdisc};
use trestle::host::bridge::{Event, Known, STATIONS};
use trestle::xdp::maps::ports::captured;

/// `RTM_NEWLINK`; the messages looked at are this one, the next, and those of neighbours twelve further.
const NEW_LINK: u16 = 16;

fuzz_target!(|input: &[u8]| {
    let mut records = Vec::new();
    let mut left = input;
    while let [what, low, high, rest @ ..] = left {
        let (record, next) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        records.push((*what, record));
        left = next;
    }
    for (_, record) in &records {
        let _ = Chain::parse(record).map(|chain| chain.shown());
        let _ = Qdisc::parse(record);
        if let Some((_, bytes)) = captured(record) {
            assert!(record.ends_with(bytes));
        }
    }
    // 0 is of a dump, the others news: links new and gone, neighbours new and gone.
    let dump: Vec<_> =
        records.iter().filter(|(what, _)| *what == 0).map(|(_, record)| record.to_vec()).collect();
    let mut known = Known::read("br0", &dump);
    let mut model = Model::of(&known);
    for (what, record) in records.iter().filter(|(what, _)| *what != 0) {
        let kind = NEW_LINK + u16::from(what & 1) + if what & 2 == 0 { 0 } else { 12 };
        let mut events = Vec::new();
        let _ = known.take(kind, record, &mut events);
        events.into_iter().for_each(|event| model.take(event));
        model.check(&known);
    }
});

/// What one knows who was only told the events.
#[derive(Debug, Default, PartialEq)]
struct Model {
    ports: BTreeSet<u32>,
    stations: BTreeMap<(u16, [u8; 6]), u32>,
}

impl Model {
    fn of(known: &Known) -> Self {
        let stations = known.stations().map(|station| ((station.key.vlan, station.key.mac), station.port));
        Self { ports: known.ports().keys().copied().collect(), stations: stations.collect() }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::PortAdded(index) => assert!(self.ports.insert(index)),
            Event::PortChanged(index) => assert!(self.ports.contains(&index)),
            Event::PortGone(index) => assert!(self.ports.remove(&index)),
            Event::Station(station) => {
                self.stations.insert((station.key.vlan, station.key.mac), station.port);
            }
            Event::StationGone(station) => {
                assert_eq!(self.stations.remove(&(station.key.vlan, station.key.mac)), Some(station.port));
            }
            Event::BridgeGone => assert!(self.ports.is_empty() && self.stations.is_empty()),
            Event::BridgeChanged => {}
        }
    }

    fn check(&self, known: &Known) {
        assert_eq!(self, &Self::of(known));
        assert!(self.stations.len() <= STATIONS);
        let bridge = known.bridge().map(|bridge| bridge.link.index);
        assert!(self.stations.values().all(|port| self.ports.contains(port) || bridge == Some(*port)));
    }
}
