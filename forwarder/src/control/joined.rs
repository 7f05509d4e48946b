//! A kernel bridge with peers behind one of its ports: which of the other ports they are reached by without passing it.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use common::{
    Mac,
    bridge::{PortValue, port_flag},
};

use super::{Error, datapath::Datapath, plan, stations::Stations};
use crate::{
    host::{
        self,
        bridge::{Event, Mirror, Port, PortState, Station, StationKind},
    },
    switch::{self, WireId},
    xdp::attach::{PortAttachment, XdpChoice},
};

/// Ethernet header and a tag: what a frame is longer than the MTU of what it leaves by.
const LINK_HEADER_BYTES: u32 = 14 + 4;

/// The bridge, and its ports that workers serve.
pub(super) struct Joined {
    mirror: Mirror,
    /// Number of our own port's interface.
    host_port: u32,
    xdp: XdpChoice,
    /// By the number of their interface.
    wires: BTreeMap<u32, Wire>,
}

/// What news was about.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Ports, or the bridge itself.
    pub ports: bool,
    /// Stations that nobody may claim.
    pub nailed: bool,
    /// These stations.
    pub macs: BTreeSet<Mac>,
}

struct Wire {
    id: WireId,
    _attachment: PortAttachment,
}

impl Joined {
    pub fn open(bridge: &str, host_port: u32, xdp: XdpChoice) -> host::Result<Self> {
        Ok(Self { mirror: Mirror::open(bridge)?, host_port, xdp, wires: BTreeMap::new() })
    }

    pub fn readable(&self) -> BorrowedFd<'_> {
        self.mirror.as_fd()
    }

    /// Takes over what is there at the start.
    pub fn begin(&mut self, datapath: &mut Datapath, stations: &mut Stations, now: Instant) {
        self.settle_ports(datapath, stations);
        for station in self.mirror.known().stations() {
            self.enter(datapath, stations, *station, now);
        }
    }

    /// Reads what the kernel has told. Returns what it was about, as far as paths may be others now.
    pub fn follow(&mut self, datapath: &mut Datapath, stations: &mut Stations, now: Instant) -> News {
        let mut news = News::default();
        let events = match self.mirror.handle_netlink() {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!("{error}");
                return news;
            }
        };
        self.settle_ports(datapath, stations);
        for event in &events {
            match event {
                Event::Station(station) => {
                    news.macs.insert(station.key.mac);
                    news.nailed |= station.sticky || station.kind == StationKind::Local;
                    self.enter(datapath, stations, *station, now);
                }
                Event::StationGone(station) => {
                    news.macs.insert(station.key.mac);
                    if station.port != self.host_port {
                        stations.unmirror(&mut datapath.copies(), station.key);
                    }
                }
                _ => news.ports = true,
            }
        }
        news
    }

    /// Stations that are not a peer's to claim, besides those of the bridge's interfaces: the bridge's own, and those that
    /// the operator has nailed to a port.
    pub fn nailed(&self) -> Vec<(Mac, switch::Port)> {
        let stations = self.mirror.known().stations().filter(|station| station.port != self.host_port);
        let nailed = stations.filter(|station| station.sticky || station.kind == StationKind::Local);
        nailed.map(|station| (station.key.mac, self.place(station))).collect()
    }

    fn place(&self, station: &Station) -> switch::Port {
        let wire = self.wires.get(&station.port).filter(|_| station.kind != StationKind::Local);
        wire.map_or(switch::Port::Host, |wire| switch::Port::Wire(wire.id))
    }

    /// Detaches everything, flags first.
    pub fn end(&mut self, datapath: &mut Datapath) {
        for wire in std::mem::take(&mut self.wires).into_values() {
            if let Some(Err(error)) = datapath.programs().map(|programs| programs.ports.clear(wire.id)) {
                tracing::warn!("{error}");
            }
        }
        datapath.abandon_wires();
    }

    /// Serves the ports that can be, and no others. Stations at one that changes are entered anew.
    fn settle_ports(&mut self, datapath: &mut Datapath, stations: &mut Stations) {
        let wanted: Vec<Port> =
            self.mirror.known().ports().values().filter(|port| self.is_served(port)).cloned().collect();
        let gone: Vec<u32> = self
            .wires
            .keys()
            .filter(|index| wanted.iter().all(|port| port.link.index != **index))
            .copied()
            .collect();
        for index in gone {
            self.leave(index, datapath, stations);
        }
        for port in wanted {
            if !self.wires.contains_key(&port.link.index)
                && let Err(error) = self.serve(&port, datapath)
            {
                tracing::warn!(port = %port.link.name, "peers reach the port by the bridge: {error}");
            }
        }
    }

    fn is_served(&self, port: &Port) -> bool {
        port.link.index != self.host_port
            && port.link.running
            && port.settings.state == PortState::Forwarding
            && port.settings.learning
            && !port.settings.locked
            && !self.mirror.known().bridge().is_some_and(|bridge| bridge.vlan_filtering)
    }

    fn serve(&mut self, port: &Port, datapath: &mut Datapath) -> Result<(), Error> {
        let taken = |id: &WireId| self.wires.values().any(|wire| wire.id == *id);
        let Some(id) = (1..).map_while(WireId::new).find(|id| !taken(id)) else { return Ok(()) };
        datapath.serve_wire(id, &port.link, plan::receive_queues(&port.link))?;
        let value = PortValue {
            ifindex: port.link.index,
            flags: port_flag::FROM | port_flag::TO_PEERS,
            max_frame: port.link.mtu.saturating_add(LINK_HEADER_BYTES),
            ..PortValue::default()
        };
        let attached = datapath.programs().map(|programs| {
            let attachment = programs.attach_port(&port.link.name, self.xdp)?;
            programs.ports.set(id, value)?;
            Ok::<_, Error>(attachment)
        });
        match attached.transpose() {
            Ok(Some(attachment)) => {
                self.wires.insert(port.link.index, Wire { id, _attachment: attachment });
                datapath.let_peers_out(id, true);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                datapath.abandon_wire(id);
                Err(error)
            }
        }
    }

    fn leave(&mut self, index: u32, datapath: &mut Datapath, stations: &mut Stations) {
        let Some(Wire { id, .. }) = self.wires.remove(&index) else { return };
        if let Some(Err(error)) = datapath.programs().map(|programs| programs.ports.clear(id)) {
            tracing::warn!("{error}");
        }
        stations.unmirror_port(&mut datapath.copies(), switch::Port::Wire(id));
        datapath.abandon_wire(id);
    }

    fn enter(&self, datapath: &mut Datapath, stations: &mut Stations, station: Station, now: Instant) {
        // Those at our own port are our peers'; the bridge's own are fixed.
        if station.port == self.host_port || station.kind == StationKind::Local {
            return;
        }
        stations.mirror(&mut datapath.copies(), station.key, self.place(&station), now);
    }
}
