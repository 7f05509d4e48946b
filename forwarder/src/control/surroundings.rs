//! What is around the gateway, as far as it decides something: who may not be imitated, where tunnel packets are
//! addressed to, and how packets to a peer leave.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use common::Mac;
use openvpn::server::{Path, Transport};

use crate::{
    config::{Family, Listener},
    host::{
        self,
        routes::{OuterPath, Outside},
    },
    switch::{Port, WireId},
    worker::Outer,
};

/// As [`Outside::refresh`] wants it.
const REFRESH: Duration = Duration::from_secs(5);

/// The surroundings of one gateway.
#[derive(Debug)]
pub(super) struct Surroundings {
    outside: Outside,
    /// Number of the NIC; `None` without an uplink.
    nic: Option<u32>,
    /// The wire is a port of the segment.
    bridge: bool,
    /// The NIC is a kernel bridge, whose ports' stations are the segment's.
    joined: bool,
    /// The host port's own address, where it is an interface of its own (underlay).
    host_port: Option<Mac>,
    listeners: Vec<Listener>,
    next_refresh: Instant,
}

/// What surroundings are told at birth.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub nic: Option<u32>,
    pub bridge: bool,
    pub joined: bool,
    pub host_port: Option<Mac>,
    /// Of the server's file.
    pub listeners: Vec<Listener>,
}

impl Surroundings {
    pub fn open(place: Place, now: Instant) -> host::Result<Self> {
        let uplinks: Vec<u32> = place.nic.into_iter().collect();
        let Place { nic, bridge, joined, host_port, listeners } = place;
        let outside = Outside::open(&uplinks)?;
        Ok(Self { outside, nic, bridge, joined, host_port, listeners, next_refresh: now })
    }

    pub fn readable(&self) -> BorrowedFd<'_> {
        self.outside.as_fd()
    }

    /// Reads the kernel's news; true when something changed.
    pub fn handle_netlink(&mut self) -> bool {
        match self.outside.handle_netlink() {
            Ok(changes) => {
                tracing::trace!(?changes, "the surroundings changed");
                !changes.is_empty()
            }
            Err(error) => {
                tracing::warn!("{error}");
                false
            }
        }
    }

    /// Every few seconds: keeps the neighbours in use alive. True when something changed.
    pub fn refresh(&mut self, now: Instant) -> bool {
        if now < self.next_refresh {
            return false;
        }
        self.next_refresh = now + REFRESH;
        match self.outside.refresh() {
            Ok(changes) => !changes.is_empty(),
            Err(error) => {
                tracing::warn!("{error}");
                false
            }
        }
    }

    /// The stations no peer may claim: the host's, and the next hops in use.
    ///
    /// A next hop that `is_behind_peer` and is no router is none: a peer can move its path to an address that it makes
    /// the host resolve to another peer's station, which would then be cut off.
    pub fn fixed_stations(&self, stands: impl Fn(Mac) -> Option<Port>) -> Vec<(Mac, Port)> {
        let known = self.outside.known();
        let own = self.host_port.map(|mac| (mac, Port::Host));
        let Some(nic) = self.nic.filter(|_| self.bridge || self.joined) else {
            return own.into_iter().collect();
        };
        let is_behind_peer = |mac| matches!(stands(mac), Some(Port::Peer(_)));
        let host = known.host_macs(nic);
        // A router's address that is the host's own (a VRRP address that came over) is the host's.
        let mut routers: Vec<Mac> = known.router_macs(nic).difference(&host).copied().collect();
        let remotes = known.neighbouring_remotes(nic);
        routers.retain(|mac| !remotes.contains(mac) || !is_behind_peer(*mac));
        let ports = known.links().values().filter(|link| self.joined && link.master == Some(nic));
        let host = host.into_iter().chain(ports.filter_map(|port| port.mac));
        let at = |mac| match stands(mac) {
            _ if self.bridge => Some((mac, Port::Wire(WireId::UPLINK))),
            // Where the bridge has it; one that it does not know is found by it, and is nobody's to claim as soon as it is.
            Some(port @ Port::Wire(_)) => Some((mac, port)),
            _ => None,
        };
        let fixed = host.map(|mac| (mac, Port::Host)).chain(own).chain(routers.into_iter().filter_map(at));
        fixed.collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    /// Whether one of the routers and next hops has one of these addresses.
    pub fn has_next_hop_among(&self, macs: &BTreeSet<Mac>) -> bool {
        self.nic.is_some_and(|nic| !self.outside.known().router_macs(nic).is_disjoint(macs))
    }

    /// Where tunnel packets are addressed to that XDP takes.
    pub fn listeners(&self) -> BTreeSet<SocketAddr> {
        let udp = self.listeners.iter().filter(|listener| listener.transport == Transport::Udp);
        udp.flat_map(|listener| self.addresses(listener)).collect()
    }

    /// The addresses clients reach a listener at, with its port: but for those that are no address on a wire, and those
    /// that mean something on one interface only, whose packets are the kernel's.
    fn addresses(&self, listener: &Listener) -> Vec<SocketAddr> {
        let every = || self.outside.known().addresses().map(|address| address.address);
        let addresses: Vec<IpAddr> = match (listener.address, listener.family) {
            (Some(address), _) => vec![address],
            (None, Family::V4) => every().filter(IpAddr::is_ipv4).collect(),
            (None, Family::V6) => every().filter(IpAddr::is_ipv6).collect(),
            (None, Family::Dual) => every().collect(),
        };
        let reached = addresses.into_iter().filter(|address| !address.is_loopback() && is_routed(*address));
        reached.map(|address| SocketAddr::new(address, listener.port)).collect()
    }

    /// Addresses and ports for the operator, each behind its transport's name where that is not UDP.
    pub fn listen_texts(&self) -> Vec<String> {
        let texts = self.listeners.iter().flat_map(|listener| {
            let scheme = if listener.transport == Transport::Tcp { "tcp " } else { "" };
            self.addresses(listener).into_iter().map(move |address| format!("{scheme}{address}"))
        });
        let mut texts: Vec<String> = texts.collect();
        texts.sort();
        texts.dedup();
        texts
    }

    /// Whether the host has an interface of this name.
    pub fn has_interface(&self, name: &str) -> bool {
        self.outside.known().links().values().any(|link| link.name == name)
    }

    /// Whether the bridge that was joined is still there: another of its name is another.
    pub fn has_nic(&self) -> bool {
        let is_there = |nic| self.outside.known().links().contains_key(&nic);
        !self.joined || self.nic.is_some_and(is_there)
    }

    /// The NIC's hardware address.
    pub fn nic_mac(&self) -> Option<Mac> {
        self.outside.known().links().get(&self.nic?)?.mac
    }

    /// How packets leave for a peer at `path`; `None` where they cannot. `towards` says which wire leads to the next hop with
    /// that hardware address.
    pub fn outer(&mut self, path: Path, towards: impl Fn(Mac) -> Option<WireId>) -> Option<Outer> {
        let Path { remote, local, .. } = path;
        if !is_routed(remote.ip()) {
            return Some(Outer::by_socket(local, remote));
        }
        // Asked for even where packets go by the socket: it makes the next hop one of the protected.
        let resolved = self.outside.resolve(remote.ip(), local.ip());
        match resolved {
            Ok(OuterPath::Direct(hop)) if Some(hop.nic) == self.nic => {
                if let Some(wire) = towards(hop.destination) {
                    let mtu = u16::try_from(hop.mtu).unwrap_or(u16::MAX);
                    return Some(Outer::by_nic(wire, local, remote, hop.source, hop.destination, mtu));
                }
            }
            Ok(OuterPath::BySocket(detour)) => {
                tracing::debug!(%remote, %detour, "packets to the peer go by the socket")
            }
            Ok(OuterPath::Direct(_)) => {}
            Err(error) => tracing::warn!(%remote, "{error}"),
        }
        Some(Outer::by_socket(local, remote))
    }

    /// The peer at `path` is gone.
    pub fn forget(&mut self, path: Path) {
        self.outside.forget(path.remote.ip(), path.local.ip());
    }
}

/// Whether the way to an address does not depend on an interface that the address itself does not name.
fn is_routed(address: IpAddr) -> bool {
    !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
