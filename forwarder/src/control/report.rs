//! The gateway's state for the operator: control socket and status file.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant, SystemTime},
};

use common::{FdbKey, Mac};
use openvpn::ids::PeerId;

use super::{bridge::Bridge, gateway::Gateway, plan::Plan, sessions};
use crate::{
    config::{self, Config, UplinkMode},
    drops::Drop,
    management::{
        status::{self, Datapath, Fdb, Peer, Role, Snapshot, Status, Xdp, Xsk},
        status_file::{Client, Route, StatusFile},
    },
    switch::{Port, Station},
    worker::PortCounters,
    xdp::{attach::XdpGot, xsk::XskMode},
};

/// What does not change while the gateway runs.
#[derive(Debug)]
pub(super) struct About {
    started: Instant,
    /// There are no workers.
    accelerator: bool,
    nic: Option<String>,
    host_port: Option<String>,
    /// The bridge that was joined.
    bridge: Option<String>,
    mode: UplinkMode,
    mtu: u32,
    max_peers: usize,
}

impl About {
    pub fn new(config: &Config, plan: &Plan, host_port: Option<&str>, started: Instant) -> Self {
        Self {
            started,
            accelerator: plan.workers == 0,
            nic: plan.nic.as_ref().map(|nic| nic.name.clone()),
            host_port: host_port.map(ToOwned::to_owned),
            bridge: plan.joins.as_ref().map(|bridge| bridge.name.clone()),
            mode: if plan.bridge { UplinkMode::Bridge } else { UplinkMode::Underlay },
            mtu: plan.host_port_mtu(),
            max_peers: if plan.workers == 0 {
                0
            } else {
                config.servers().map(|server| server.max_clients).sum()
            },
        }
    }

    fn datapath(&self, af_xdp: bool) -> Datapath {
        match (self.accelerator, af_xdp) {
            (true, _) => Datapath::Xdp,
            (false, true) => Datapath::AfXdp,
            (false, false) => Datapath::Socket,
        }
    }

    /// The NIC's name.
    pub fn nic(&self) -> Option<&str> {
        self.nic.as_deref()
    }

    /// The wire is a port of the segment.
    pub fn has_wire(&self) -> bool {
        self.mode == UplinkMode::Bridge
    }

    /// The name of the bridge that was joined; empty without.
    pub fn bridge(&self) -> &str {
        self.bridge.as_deref().unwrap_or_default()
    }

    /// The host port's name; `None` without workers.
    pub fn host_port(&self) -> Option<&str> {
        self.host_port.as_deref()
    }
}

/// The status file, and when it is due.
#[derive(Debug)]
pub(super) struct StatusSchedule {
    file: StatusFile,
    interval: Duration,
    due: Instant,
}

impl StatusSchedule {
    /// Opens the file, before privileges are dropped; it is first written at once. As with OpenVPN a status file that
    /// cannot be written is no reason not to start: the reference file names a directory that may not exist.
    pub fn open(server: &config::Server, now: Instant) -> Option<Self> {
        let status = server.status.as_ref()?;
        let path = config::tls::resolve(server, &status.path);
        match StatusFile::open(&path, status.version) {
            Ok(file) => Some(Self { file, interval: status.interval, due: now }),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no status file is written: make its directory");
                None
            }
        }
    }
}

impl Gateway {
    /// The state now.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut behind = self.stations_behind_peers();
        let peers = self.sessions.peers.iter().map(|(peer_id, peer)| {
            self.peer(*peer_id, peer, behind.remove(peer_id).unwrap_or_default(), now)
        });
        Snapshot {
            status: Status {
                version: env!("CARGO_PKG_VERSION").into(),
                uptime_s: seconds(self.about.started, now),
                datapath: self.about.datapath(self.datapath.xsk().is_some()),
                ports: self.ports(),
                peers: peers.collect(),
                drops: status::drops(|reason| self.lost(reason)),
                pid: std::process::id(),
                listen: self.surroundings.listen_texts(),
                max_peers: self.about.max_peers,
                health: self.health(),
                confirm_s: self.confirmation.due().map(|due| seconds(now, due)),
            },
            fdb: self.fdb(now),
            confirmed: None,
        }
    }

    /// Frames lost for `reason`, wherever.
    fn lost(&self, reason: Drop) -> u64 {
        let elsewhere = match reason {
            Drop::ControlQueueFull => self.sockets.missed(),
            Drop::HostPortOverrun => self.about.host_port().map_or(0, transmit_drops),
            _ => 0,
        };
        let streams = self.connections.as_ref().map_or(0, |connections| connections.lost(reason));
        self.datapath.lost(reason) + elsewhere + streams
    }

    /// What is slower or worse than it could be, with its cure.
    fn health(&self) -> Vec<String> {
        let udp = self.sessions.peers.values().filter(|peer| peer.path.is_udp());
        let detoured = udp.filter(|peer| !peer.leaves_by_nic()).count();
        let detour = (self.datapath.sends_by_nic() && detoured > 0).then(|| {
            format!(
                "packets to {detoured} of {} peers leave by the kernel's socket: the router's hardware address is not known, or their route leaves by another NIC",
                self.sessions.peers.len()
            )
        });
        let generic = (self.datapath.xdp() == Some(XdpGot::Generic)).then(|| {
            "XDP runs in generic mode, several times slower than native: use a NIC driver with native XDP, or see the log for why it was refused".to_owned()
        });
        self.role
            .trouble()
            .into_iter()
            .chain(self.bridge.as_ref().and_then(Bridge::trouble))
            .chain(self.loops())
            .chain(detour)
            .chain(generic)
            .chain(self.datapath.unprepared().iter().cloned())
            .collect()
    }

    fn loops(&self) -> impl Iterator<Item = String> {
        self.sessions.peers.keys().filter_map(|&peer_id| {
            let with = self.port_text(self.held(peer_id)?.with);
            let peer = self.port_text(Port::Peer(peer_id));
            Some(format!("a loop: what is sent to {peer} comes back by {with}, so the former is held down: remove one of the two ways"))
        })
    }

    fn ports(&self) -> Vec<status::Port> {
        let counters = self.datapath.counters();
        let sum = |count: fn(&PortCounters) -> u64, nic: bool| {
            counters.iter().map(|worker| count(if nic { &worker.nic } else { &worker.host })).sum()
        };
        let queues = u32::try_from(counters.len()).unwrap_or(u32::MAX);
        let uplink = self.about.nic.as_ref().map(|name| status::Port {
            name: name.clone(),
            role: Role::Uplink,
            mode: self.about.mode,
            xdp: self.datapath.xdp().map_or(Xdp::None, Into::into),
            xsk: self.datapath.xsk().map_or(Xsk::None, Into::into),
            rx_frames: sum(PortCounters::rx_frames, true),
            tx_frames: sum(PortCounters::tx_frames, true),
            queues: if self.datapath.xsk().is_some() { queues } else { 0 },
            mtu: self.about.mtu,
            bridge: None,
        });
        let host = self.about.host_port.as_ref().map(|name| status::Port {
            name: name.clone(),
            role: Role::Host,
            mode: self.about.mode,
            xdp: Xdp::None,
            xsk: Xsk::None,
            rx_frames: sum(PortCounters::rx_frames, false),
            tx_frames: sum(PortCounters::tx_frames, false),
            queues: 0,
            mtu: self.about.mtu,
            bridge: None,
        });
        let bridged = self.bridge.iter().flat_map(|bridge| bridge.report(&self.datapath));
        uplink.into_iter().chain(host).chain(bridged).collect()
    }

    /// One walk through the table for all peers: it may have 65,536 stations, and the control thread does this.
    fn stations_behind_peers(&self) -> BTreeMap<PeerId, Vec<String>> {
        let mut behind = BTreeMap::<PeerId, Vec<String>>::new();
        for (key, station, _) in self.stations.table().iter() {
            if let Port::Peer(peer_id) = station.port {
                behind.entry(peer_id).or_default().push(mac_text(key.mac));
            }
        }
        behind
    }

    fn peer(&self, peer_id: PeerId, peer: &sessions::Peer, macs: Vec<String>, now: Instant) -> Peer {
        let counters = &peer.counters;
        Peer {
            name: peer.name.clone(),
            address: peer.path.remote.to_string(),
            peer_id: peer_id.value(),
            cipher: peer.cipher.name().into(),
            rx_frames: counters.rx_frames.load(Relaxed),
            tx_frames: counters.tx_frames.load(Relaxed),
            rx_frames_xdp: counters.rx_frames_xdp.load(Relaxed),
            rx_frames_socket: counters.rx_frames_socket.load(Relaxed),
            rx_bytes: counters.rx_bytes.load(Relaxed),
            tx_bytes: counters.tx_bytes.load(Relaxed),
            macs,
            connected_s: seconds(peer.connected, now),
            leased: peer.address.map(|address| address.to_string()),
            software: peer.software.clone(),
            held: self.held(peer_id).map(|hold| status::Held {
                joined_with: self.port_text(hold.with),
                held_s: seconds(hold.since, now),
            }),
            heard_s: self.sessions.last_heard(peer).map(|heard| seconds(heard, now)),
        }
    }

    fn fdb(&self, now: Instant) -> Fdb {
        let table = self.stations.table();
        let tally = table.tally();
        Fdb {
            entries: table
                .iter()
                .map(|(key, station, heard)| self.station(key, station, heard, now))
                .collect(),
            limit: table.capacity(),
            ageing_s: table.ageing().as_secs(),
            learned: tally.learned,
            moved: tally.moved,
            expired: tally.expired,
        }
    }

    fn station(&self, key: FdbKey, station: Station, heard: Instant, now: Instant) -> status::Station {
        let nic = self.about.nic.as_deref();
        let (place, port, peer_id) = match station.port {
            Port::Host => (status::Place::Host, nic.filter(|_| self.about.mode == UplinkMode::Bridge), None),
            Port::Wire(wire) => {
                let port = self.bridge.as_ref().and_then(|bridge| bridge.port_name(wire));
                (status::Place::Wire, port.or(nic), None)
            }
            Port::Peer(id) => {
                (status::Place::Peer, self.sessions.peers.get(&id).map(|peer| &*peer.name), Some(id))
            }
        };
        status::Station {
            mac: mac_text(key.mac),
            vlan: key.vlan,
            place,
            port: port.or(self.about.host_port()).unwrap_or_default().to_owned(),
            peer_id: peer_id.map(PeerId::value),
            fixed: station.fixed,
            age_s: if station.fixed { 0 } else { seconds(heard, now) },
        }
    }

    /// Writes the status file when it is due.
    #[expect(clippy::disallowed_methods, reason = "the wall clock, for the operator's eyes only")]
    pub fn write_status_file(&mut self, now: Instant) {
        let Some(schedule) = &mut self.status_file else { return };
        if now < schedule.due {
            return;
        }
        schedule.due = now + schedule.interval;
        let wall = SystemTime::now();
        let (clients, routes) = (self.clients(), self.routes(now, wall));
        if let Some(schedule) = &mut self.status_file
            && let Err(error) = schedule.file.write(wall, &clients, &routes)
        {
            tracing::warn!(%error, "the status file was not written");
        }
    }

    fn clients(&self) -> Vec<Client> {
        let peers = self.sessions.peers.iter();
        peers
            .map(|(peer_id, peer)| Client {
                name: peer.name.clone(),
                address: peer.path.remote.to_string(),
                rx_bytes: peer.counters.rx_bytes.load(Relaxed),
                tx_bytes: peer.counters.tx_bytes.load(Relaxed),
                since: peer.connected_at,
                inside: peer.address,
                session: peer.session,
                peer_id: peer_id.value(),
                cipher: peer.cipher.name(),
            })
            .collect()
    }

    fn routes(&self, now: Instant, wall: SystemTime) -> Vec<Route> {
        let stations = self.stations.table().iter();
        stations
            .filter_map(|(key, station, heard)| {
                let Port::Peer(peer_id) = station.port else { return None };
                let peer = self.sessions.peers.get(&peer_id)?;
                Some(Route {
                    mac: mac_text(key.mac),
                    vlan: key.vlan,
                    name: peer.name.clone(),
                    address: peer.path.remote.to_string(),
                    last: wall.checked_sub(now.saturating_duration_since(heard)).unwrap_or(wall),
                })
            })
            .collect()
    }
}

/// Frames the kernel could not queue for the reader of a TAP, by its own count of the interface.
fn transmit_drops(interface: &str) -> u64 {
    // Unlike sysfs this is always of the namespace the process is in.
    std::fs::read_to_string("/proc/self/net/dev")
        .ok()
        .and_then(|table| transmit_drops_in(&table, interface))
        .unwrap_or(0)
}

fn transmit_drops_in(table: &str, interface: &str) -> Option<u64> {
    // Eight receive columns, then transmit: bytes, packets, errs, drop. Source: net/core/net-procfs.c.
    const TRANSMIT_DROP: usize = 11;
    let mut rows = table.lines().filter_map(|line| line.trim_start().split_once(':'));
    let (_, columns) = rows.find(|(name, _)| *name == interface)?;
    columns.split_whitespace().nth(TRANSMIT_DROP)?.parse().ok()
}

impl From<XdpGot> for Xdp {
    fn from(got: XdpGot) -> Self {
        match got {
            XdpGot::Native => Self::Native,
            XdpGot::Generic => Self::Generic,
        }
    }
}

impl From<XskMode> for Xsk {
    fn from(mode: XskMode) -> Self {
        match mode {
            XskMode::ZeroCopy => Self::ZeroCopy,
            XskMode::Copy => Self::Copy,
        }
    }
}

fn seconds(since: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(since).as_secs()
}

fn mac_text(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taps_lost_frames_stand_in_the_twelfth_column() {
        let table = "Inter-|   Receive |  Transmit\n face |bytes ...\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  tap0: 21 22 0 0 0 0 0 0 31 32 0 77 0 0 0 0\n";
        assert_eq!(transmit_drops_in(table, "tap0"), Some(77));
        assert_eq!(transmit_drops_in(table, "tap"), None);
    }
}
