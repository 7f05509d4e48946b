//! What is known of one bridge, and how news changes it: pure.

use std::collections::BTreeMap;

use super::super::links::Link;
use super::super::netlink::nested::Nested;
use super::facts::{Bridge, Port, PortSettings, Station, StationKey};
use super::parse::{self, LinkNews, PortNews};

/// Stations kept at most, about 100 bytes each. Those beyond stay with the kernel bridge, which forwards them as ever.
pub const STATIONS: usize = 262_144;

/// What has changed about the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The bridge appeared, or its settings are others.
    BridgeChanged,
    /// The bridge is gone, and with it its ports and stations. One of the same name may come again.
    BridgeGone,
    /// An interface became a port.
    PortAdded(u32),
    /// A port is another: state, settings, VLANs, name, carrier, MTU, XDP program.
    PortChanged(u32),
    /// A port left the bridge, or is gone.
    PortGone(u32),
    /// A station is new, or at another port, or of another kind.
    Station(Station),
    /// A station is forgotten; it was like this.
    StationGone(Station),
}

/// A bridge, its ports and its stations.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub(super) wanted: String,
    pub(super) bridge: Option<Bridge>,
    pub(super) ports: BTreeMap<u32, Port>,
    pub(super) stations: BTreeMap<StationKey, Station>,
    /// Stations that came when there were as many as are kept.
    pub(super) unkept: u64,
}

impl Known {
    /// What dumps of all interfaces and of all bridges' ports say about the bridge called `wanted`. Stations are not
    /// among it; nor is anything where there is no such bridge.
    pub fn read(wanted: &str, links: &[Vec<u8>]) -> Self {
        let mut known = Self { wanted: wanted.to_owned(), ..Self::default() };
        known.bridge = links.iter().find_map(|rest| {
            let LinkNews::Whole(link, attributes) = parse::link(rest)? else { return None };
            (link.name == wanted).then(|| parse::bridge(link, attributes)).flatten()
        });
        for rest in links {
            // Events are not wanted here, only the state.
            let _ = known.take(nix::libc::RTM_NEWLINK, rest, &mut Vec::new());
        }
        known
    }

    /// The bridge, if there is one now.
    pub fn bridge(&self) -> Option<&Bridge> {
        self.bridge.as_ref()
    }

    /// Its ports, by number.
    pub fn ports(&self) -> &BTreeMap<u32, Port> {
        &self.ports
    }

    /// Its stations, by VLAN and address.
    pub fn stations(&self) -> impl ExactSizeIterator<Item = &Station> {
        self.stations.values()
    }

    /// The station `key`, if it is known.
    pub fn station(&self, key: &common::FdbKey) -> Option<&Station> {
        self.stations.get(&(key.vlan, key.mac))
    }

    /// How often a station came when there were [`STATIONS`] already.
    pub fn unkept(&self) -> u64 {
        self.unkept
    }

    /// Takes `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_NEWNEIGH` and `RTM_DELNEIGH` from the kernel; others are not looked at.
    ///
    /// True: a bridge appeared under the name, and everything about it is to be read.
    #[must_use]
    pub fn take(&mut self, kind: u16, rest: &[u8], events: &mut Vec<Event>) -> bool {
        match kind {
            nix::libc::RTM_NEWLINK => match parse::link(rest) {
                Some(LinkNews::Whole(link, attributes)) => return self.link(link, attributes, events),
                Some(LinkNews::Port(news)) => self.port(&news, events),
                None => {}
            },
            nix::libc::RTM_DELLINK => {
                // A bridge's own word that a port leaves comes while it is still one; the interface's follows.
                if let Some(LinkNews::Whole(link, _)) = parse::link(rest) {
                    self.gone(link.index, events);
                }
            }
            nix::libc::RTM_NEWNEIGH => self.heard(rest, events),
            nix::libc::RTM_DELNEIGH => self.forgotten(rest, events),
            _ => {}
        }
        false
    }

    fn index(&self) -> Option<u32> {
        self.bridge.as_ref().map(|bridge| bridge.link.index)
    }

    fn link(&mut self, link: Link, attributes: Nested<'_>, events: &mut Vec<Event>) -> bool {
        match self.index() {
            Some(index) if link.index == index => self.own(link, attributes, events),
            Some(index) if link.master == Some(index) => self.joined(link, attributes, events),
            Some(_) if self.ports.contains_key(&link.index) => self.gone(link.index, events),
            None => return link.name == self.wanted && link.is_bridge(),
            Some(_) => {}
        }
        false
    }

    fn own(&mut self, link: Link, attributes: Nested<'_>, events: &mut Vec<Event>) {
        let found = parse::bridge(link, attributes);
        if found.is_some() && found != self.bridge {
            self.bridge = found;
            events.push(Event::BridgeChanged);
        }
    }

    fn joined(&mut self, link: Link, attributes: Nested<'_>, events: &mut Vec<Event>) {
        let index = link.index;
        let before = self.ports.get(&index);
        let settings =
            parse::port_settings(attributes).or_else(|| before.map(|port| port.settings)).unwrap_or_default();
        let vlans = before.map(|port| port.vlans.clone()).unwrap_or_default();
        let far_end = parse::far_end(&link, attributes);
        self.keep(Port { link, far_end, settings, vlans }, events);
    }

    fn port(&mut self, news: &PortNews<'_>, events: &mut Vec<Event>) {
        if self.index() != Some(news.bridge) {
            return;
        }
        let Some(before) = self.ports.get(&news.index) else { return };
        let settings: PortSettings = news.settings().unwrap_or(before.settings);
        self.keep(Port { settings, vlans: news.vlans(), ..before.clone() }, events);
    }

    fn keep(&mut self, port: Port, events: &mut Vec<Event>) {
        let index = port.link.index;
        match self.ports.get(&index) {
            Some(before) if *before == port => return,
            Some(_) => events.push(Event::PortChanged(index)),
            None => events.push(Event::PortAdded(index)),
        }
        self.ports.insert(index, port);
    }

    /// The bridge or a port is no more.
    pub(super) fn gone(&mut self, index: u32, events: &mut Vec<Event>) {
        if self.index() == Some(index) {
            self.clear(events);
        } else if self.ports.remove(&index).is_some() {
            self.forget_port(index, events);
            events.push(Event::PortGone(index));
        }
    }

    fn clear(&mut self, events: &mut Vec<Event>) {
        events.extend(std::mem::take(&mut self.stations).into_values().map(Event::StationGone));
        events.extend(std::mem::take(&mut self.ports).into_keys().map(Event::PortGone));
        self.bridge = None;
        events.push(Event::BridgeGone);
    }

    fn forget_port(&mut self, index: u32, events: &mut Vec<Event>) {
        self.stations.retain(|_, station| {
            let stays = station.port != index;
            events.extend((!stays).then_some(Event::StationGone(*station)));
            stays
        });
    }

    fn heard(&mut self, rest: &[u8], events: &mut Vec<Event>) {
        let Some(station) = self.index().and_then(|bridge| parse::station(rest, bridge)) else { return };
        self.enter(station, events);
    }

    fn enter(&mut self, station: Station, events: &mut Vec<Event>) {
        // News of a station at a port that left meanwhile is old: its end is told, too, but may have been told before.
        if !self.ports.contains_key(&station.port) && self.index() != Some(station.port) {
            return;
        }
        let key = station.sort_key();
        if self.stations.get(&key) == Some(&station) {
            return;
        }
        if self.stations.len() >= STATIONS && !self.stations.contains_key(&key) {
            self.unkept = self.unkept.saturating_add(1);
            return;
        }
        self.stations.insert(key, station);
        events.push(Event::Station(station));
    }

    fn forgotten(&mut self, rest: &[u8], events: &mut Vec<Event>) {
        let Some(station) = self.index().and_then(|bridge| parse::station(rest, bridge)) else { return };
        events.extend(self.stations.remove(&station.sort_key()).map(Event::StationGone));
    }

    /// Adds stations, as a dump tells of them.
    pub(super) fn adopt_stations(&mut self, stations: Vec<Station>) {
        let mut events = Vec::new();
        for station in stations {
            self.enter(station, &mut events);
            events.clear();
        }
    }

    /// Becomes what was read anew; the difference is told as if it had been told one by one.
    pub(super) fn replace(&mut self, mut new: Self, events: &mut Vec<Event>) {
        if self.index().is_some() && self.index() != new.index() {
            self.clear(events);
        }
        let left: Vec<_> =
            self.ports.keys().filter(|index| !new.ports.contains_key(index)).copied().collect();
        left.into_iter().for_each(|index| self.gone(index, events));
        if new.bridge != self.bridge {
            self.bridge = new.bridge.take();
            events.push(Event::BridgeChanged);
        }
        std::mem::take(&mut new.ports).into_values().for_each(|port| self.keep(port, events));
        self.stations.retain(|key, station| {
            let stays = new.stations.contains_key(key);
            events.extend((!stays).then_some(Event::StationGone(*station)));
            stays
        });
        self.unkept = self.unkept.saturating_add(new.unkept);
        new.stations.into_values().for_each(|station| self.enter(station, events));
    }
}
