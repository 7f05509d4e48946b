//! A kernel bridge, accelerated: what it has learnt is forwarded by XDP, all else by itself.
//!
//! ```text
//!   host::bridge::Mirror ─ events ─┬─► ports: look, policy ─► XDP attached or not, PORTS, DEVMAP, SLOTS, VLANS
//!                                  └─► stations ─► Stations ─► FDB, workers
//!   every second ─► look again: far ends, what devices take, what XDP would bypass
//!   every so often ─► stations that XDP heard are kept in the bridge
//! ```
//!
//! The bridge is the truth: what is not known here, or known too late, goes through it. What could do harm is stale
//! knowledge of a port that must not be used any more; so on every event flags are taken away before anything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use common::Mac;

use super::{datapath::Datapath, peer_entries::PeerEntries, plan::Plan, stations::Stations};
use crate::{
    host::{
        self,
        bridge::{Event, Mirror, Obstacle, Obstacles, Port as BridgePort, Station, StationKind},
        nic::xdp_features::AllXdpFeatures,
    },
    switch::{Port, WireId},
    xdp::attach::{XdpChoice, XdpGot},
};

mod captured;
/// What would become of ports, for who asks before a start.
pub mod forecast;
mod look;
mod member;
mod numbers;
mod peers;
/// What of a port is accelerated, and what is not and why.
mod policy;
mod refresh;
mod refusal;
mod report;

pub(super) use captured::Standing;
use member::{Early, Member, Terms};
use numbers::Numbers;
use peers::OwnPort;
pub(super) use peers::Peers;
use refresh::Refresh;

/// How often ports are looked at anew for what the kernel gives no news of.
const CHECK: Duration = Duration::from_secs(1);
/// Accelerated ports looked at each time: a few system calls each.
const LOOKS: usize = 16;
/// How often everything is read anew, see [`Mirror::reread`].
const REREAD: Duration = Duration::from_secs(30);

/// The bridge, its ports and what became of them.
pub(super) struct Bridge {
    name: String,
    mirror: Mirror,
    /// `None`: there are no peers.
    peers: Option<Peers>,
    /// Ports that were there while far ends could be reached, by interface.
    early: BTreeMap<u32, Early>,
    news: News,
    members: BTreeMap<u32, Member>,
    numbers: Numbers,
    refresh: Refresh,
    obstacles: Obstacles,
    /// What devices take; `None`: the kernel does not say.
    devices: Option<AllXdpFeatures>,
    next_check: Instant,
    next_reread: Instant,
}

impl Bridge {
    /// Begins to follow the bridge of this name.
    ///
    /// # Errors
    /// There is no such bridge.
    pub fn open(name: &str, peers: Option<Peers>, now: Instant) -> host::Result<Self> {
        let mirror = Mirror::open(name)?;
        // Without peers no privilege is given up that this takes: it can wait.
        let others =
            mirror.known().ports().iter().filter(|(index, _)| peers.is_some_and(|own| own.port != **index));
        let early = others.map(|(index, port)| (*index, Early::of(port))).collect();
        Ok(Self {
            name: name.to_owned(),
            mirror,
            peers,
            early,
            news: News::default(),
            members: BTreeMap::new(),
            numbers: Numbers::default(),
            refresh: Refresh::new(now),
            obstacles: Obstacles::open()?,
            devices: AllXdpFeatures::open()?,
            next_check: now + CHECK,
            next_reread: now + REREAD,
        })
    }

    /// Accelerates what is there at the start.
    pub fn begin(&mut self, datapath: &mut Datapath, stations: &mut Stations, now: Instant) {
        let ports: Vec<u32> = self.mirror.known().ports().keys().copied().collect();
        ports.into_iter().for_each(|port| self.add(port, datapath));
        let known: Vec<Station> = self.mirror.known().stations().copied().collect();
        known.into_iter().for_each(|station| self.enter(station, datapath, stations, now));
        self.judge(datapath, now);
    }

    /// Takes the kernel's news.
    pub fn handle_netlink(&mut self, datapath: &mut Datapath, stations: &mut Stations, now: Instant) {
        match self.mirror.handle_netlink() {
            Ok(events) if events.is_empty() => {}
            Ok(events) => self.handle(&events, datapath, stations, now),
            Err(error) => tracing::warn!("{error}"),
        }
        match self.devices.as_mut().map(AllXdpFeatures::handle_netlink).transpose() {
            Ok(Some(true)) => self.judge(datapath, now),
            Ok(_) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Readable when a device takes other frames than before.
    pub fn devices(&self) -> Option<BorrowedFd<'_>> {
        self.devices.as_ref().map(AsFd::as_fd)
    }

    /// What has changed since this was asked last, as far as somebody else depends on it.
    pub fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Closing first, then stations, then opening: see the head.
    fn handle(&mut self, events: &[Event], datapath: &mut Datapath, stations: &mut Stations, now: Instant) {
        for event in events {
            match event {
                Event::PortGone(port) => self.remove(*port, datapath, stations),
                Event::PortChanged(port) => self.close_if_unfit(*port, datapath),
                _ => {}
            }
        }
        for event in events {
            match event {
                Event::BridgeGone => {
                    tracing::warn!(bridge = %self.name, "the bridge is gone: waiting for it to come back")
                }
                Event::BridgeChanged => tracing::debug!(bridge = %self.name, "the bridge changed"),
                Event::PortAdded(port) => self.add(*port, datapath),
                Event::Station(station) => {
                    self.news.take(station);
                    self.enter(*station, datapath, stations, now);
                }
                Event::StationGone(station) => {
                    self.news.take(station);
                    self.forget(*station, datapath, stations);
                }
                Event::PortGone(_) | Event::PortChanged(_) => {}
            }
        }
        if events.iter().any(|event| !matches!(event, Event::Station(_) | Event::StationGone(_))) {
            self.news.ports = true;
            self.judge(datapath, now);
        }
    }

    /// About every second, and a few stations each time.
    pub fn chores(&mut self, datapath: &mut Datapath, stations: &mut Stations, now: Instant) {
        if now >= self.next_reread {
            self.next_reread = now + REREAD;
            if let Err(error) = self.mirror.reread() {
                tracing::warn!("{error}");
            }
        }
        self.handle_netlink(datapath, stations, now);
        if now >= self.next_check {
            self.next_check = now + CHECK;
            self.look_again();
            self.judge(datapath, now);
        }
        self.refresh.turn(&mut self.mirror, &self.numbers, datapath, stations, now);
    }

    /// Those accelerated first, for a far end may begin to leave checksums unfinished; of the others the one whose look
    /// is the oldest: with hundreds of containers' ports each is seen every few minutes.
    fn look_again(&mut self) {
        let ports = self.mirror.known().ports();
        let mut members: Vec<_> = self.members.iter_mut().collect();
        members.sort_by_key(|(_, member)| (!member.is_attached(), member.looked_turn));
        let attached = members.iter().take_while(|(_, member)| member.is_attached()).count();
        let (attached, others) = members.split_at_mut(attached);
        for (index, member) in attached.iter_mut().take(LOOKS).chain(others.first_mut()) {
            if let Some(port) = ports.get(index) {
                member.look(port);
            }
        }
    }

    /// Decides for every port anew, and has it so.
    fn judge(&mut self, datapath: &mut Datapath, now: Instant) {
        let Self { mirror, members, devices, obstacles, peers, .. } = self;
        let Some(bridge) = mirror.known().bridge() else { return };
        if datapath.filters_vlans() != bridge.vlan_filtering {
            // No frame is judged half by the old way and half by the new.
            members.values_mut().for_each(|member| member.shut(datapath));
            datapath.set_vlan_filtering(bridge.vlan_filtering);
        }
        let terms = Terms {
            filters_vlans: bridge.vlan_filtering,
            // Between ports generic XDP gains nothing.
            xdp: peers.map_or(XdpChoice::Native, |peers| peers.xdp),
            own: peers.map(|peers| OwnPort::of(peers, mirror.known(), bridge)),
        };
        let ports = mirror.known().ports();
        let obstacles = sentences(obstacles.look(mirror.known(), &unstrange(mirror)));
        let mut here: Vec<(&BridgePort, &mut Member)> =
            members.iter_mut().filter_map(|(index, member)| Some((ports.get(index)?, member))).collect();
        let facts: Vec<policy::Facts> = here
            .iter_mut()
            .map(|(port, member)| member.gather(port, bridge, &obstacles, devices.as_ref()))
            .collect();
        let candidates = policy::candidates(&facts, terms.own.is_some());
        // All that is closed before anything is opened.
        for ((port, member), candidate) in here.iter_mut().zip(&candidates) {
            member.close_unless(port, *candidate, datapath);
        }
        for ((port, member), candidate) in here.into_iter().zip(candidates) {
            member.open(port, candidate, &terms, datapath, now);
        }
    }

    fn add(&mut self, port: u32, datapath: &mut Datapath) {
        if self.is_own(port) {
            return datapath.peer_entries().into_iter().for_each(PeerEntries::restore_all);
        }
        if self.members.contains_key(&port) {
            return;
        }
        let Some(known) = self.mirror.known().ports().get(&port) else { return };
        let wire = self.numbers.give(port);
        let early = self.early.remove(&port);
        self.members.insert(port, Member::new(known, wire, early, datapath));
    }

    /// Whether that is our own port: the stations behind it are our peers'.
    fn is_own(&self, port: u32) -> bool {
        self.peers.is_some_and(|own| own.port == port)
    }

    fn remove(&mut self, port: u32, datapath: &mut Datapath, stations: &mut Stations) {
        let Some(member) = self.members.remove(&port) else { return };
        if let Some(wire) = member.wire() {
            member.leave(port, datapath);
            stations.unmirror_port(&mut datapath.copies(), Port::Wire(wire));
        }
        self.numbers.free(port);
    }

    fn close_if_unfit(&mut self, port: u32, datapath: &mut Datapath) {
        let known = self.mirror.known().ports().get(&port);
        if let (Some(known), Some(member)) = (known, self.members.get_mut(&port)) {
            member.close_if_unfit(known, datapath);
        }
    }

    fn enter(&self, station: Station, datapath: &mut Datapath, stations: &mut Stations, now: Instant) {
        if station.kind == StationKind::Local || self.is_own(station.port) {
            return;
        }
        stations.mirror(&mut datapath.copies(), station.key, self.place(&station), now);
    }

    /// Where a station stands. Nothing of a locked one is forwarded.
    fn place(&self, station: &Station) -> Port {
        let forwarded = !station.locked && station.kind != StationKind::Local;
        self.numbers.of(station.port).filter(|_| forwarded).map_or(Port::Host, Port::Wire)
    }

    fn forget(&self, station: Station, datapath: &mut Datapath, stations: &mut Stations) {
        if !self.is_own(station.port) {
            return stations.unmirror(&mut datapath.copies(), station.key);
        }
        // While our port is out of the bridge nothing can be entered there.
        let here = self.mirror.known().ports().contains_key(&station.port);
        if let Some(entries) = datapath.peer_entries().filter(|_| here) {
            entries.restore(station.key);
        }
    }

    /// Stations that nobody may claim: the bridge's own and its ports', and those that the operator has nailed to a port.
    pub fn nailed(&self) -> impl Iterator<Item = (Mac, Port)> {
        let nailed = self.mirror.known().stations().filter(|station| is_nailed(station));
        let others =
            nailed.filter(|station| !self.is_own(station.port) || station.kind == StationKind::Local);
        others.map(|station| (station.key.mac, self.place(station)))
    }

    /// Which XDP was got: the worst on any port.
    pub fn xdp(&self) -> Option<XdpGot> {
        let got = |wanted| self.members.values().any(|member| member.xdp() == Some(wanted));
        [XdpGot::Generic, XdpGot::Native].into_iter().find(|xdp| got(*xdp))
    }

    /// Name of the port that is this wire.
    pub fn port_name(&self, wire: WireId) -> Option<&str> {
        let port = self.numbers.port(wire)?;
        self.mirror.known().ports().get(&port).map(|port| port.link.name.as_str())
    }

    /// Detaches everything, flags first.
    pub fn end(&mut self, datapath: &mut Datapath) {
        for (port, member) in std::mem::take(&mut self.members) {
            member.leave(port, datapath);
        }
    }
}

impl AsFd for Bridge {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mirror.as_fd()
    }
}

/// Programs on the ports that are ours, or gone.
fn unstrange(mirror: &Mirror) -> BTreeSet<u32> {
    let programs = mirror.known().ports().values().filter_map(|port| port.link.xdp);
    programs.map(|xdp| xdp.program_id).filter(|id| look::is_no_stranger(*id)).collect()
}

/// What XDP would bypass, by port; `None`: on all of the bridge. Where that cannot be read there may be something.
fn sentences(found: host::Result<Vec<Obstacle>>) -> Vec<(Option<u32>, String)> {
    match found {
        Ok(found) => found.into_iter().map(|one| (one.port, one.kind.to_string())).collect(),
        Err(error) => vec![(None, format!("what XDP would bypass cannot be read: {error}"))],
    }
}

/// What was told of the bridge.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Its ports, or the bridge itself.
    pub ports: bool,
    /// Stations that nobody may claim.
    pub nailed: bool,
    /// These stations.
    pub macs: BTreeSet<Mac>,
}

impl News {
    fn take(&mut self, station: &Station) {
        self.macs.insert(station.key.mac);
        self.nailed |= is_nailed(station);
    }
}

fn is_nailed(station: &Station) -> bool {
    station.sticky || station.kind == StationKind::Local
}

/// Follows the bridge of the plan, `host_port` being the number of our own port. To be called before privileges are given
/// up and threads begin: far ends in other network namespaces are reached by nobody afterwards.
pub(super) fn follow(plan: &Plan, host_port: u32, now: Instant) -> host::Result<Option<Bridge>> {
    let peers = plan.xdp.filter(|_| plan.joins.is_some()).map(|xdp| Peers { port: host_port, xdp });
    let name = plan.accelerates.as_deref().filter(|_| plan.joins.is_none() || peers.is_some());
    name.map(|name| Bridge::open(name, peers, now)).transpose()
}
