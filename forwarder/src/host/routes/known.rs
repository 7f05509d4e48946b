//! What is known of the surroundings, and how news changes it. Pure: no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use common::Mac;

use super::super::links::{Address, Link, host_macs};
use super::event::{Event, Neighbour, RouteNews};
use super::lookup::Route;
use super::{Change, Detour, NextHop, OuterPath};

/// Answers of the kernel's routing kept at most; beyond it they are asked for again. More than peers there can be.
const ROUTES: usize = 16_384;

/// The host's surroundings as last heard.
#[derive(Debug, Default)]
pub struct Known {
    /// Uplinks: NICs that packets may leave by directly.
    pub(super) uplinks: BTreeSet<u32>,
    pub(super) links: BTreeMap<u32, Link>,
    pub(super) addresses: BTreeSet<Address>,
    /// Neighbours whose hardware address the kernel would use.
    pub(super) neighbours: BTreeMap<(u32, IpAddr), Mac>,
    /// Routers of default routes.
    pub(super) gateways: BTreeSet<(u32, IpAddr)>,
    /// Further unicast addresses in the uplinks' receive filters.
    pub(super) filters: BTreeMap<u32, BTreeSet<Mac>>,
    /// What the kernel answered, by remote and local address.
    pub(super) routes: BTreeMap<(Ipv4Addr, Ipv4Addr), Result<Route, Detour>>,
}

/// What news has touched since it was last told.
#[derive(Debug, Default)]
pub(super) struct Touched {
    links: BTreeSet<u32>,
    addresses: bool,
    routes: bool,
    neighbours: BTreeSet<(u32, IpAddr)>,
    /// A default route is gone: which gateways are left is to be asked.
    pub(super) gateway_withdrawn: bool,
}

impl Known {
    /// All interfaces, by number.
    pub fn links(&self) -> &BTreeMap<u32, Link> {
        &self.links
    }

    /// The host's IPv4 addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.iter()
    }

    /// The hardware address of a neighbour, if it can be used.
    pub fn neighbour(&self, nic: u32, address: IpAddr) -> Option<Mac> {
        self.neighbours.get(&(nic, address)).copied()
    }

    /// Routers of default routes through `nic`, with their hardware addresses where known.
    pub fn gateways(&self, nic: u32) -> impl Iterator<Item = (IpAddr, Option<Mac>)> {
        let there = self.gateways.iter().filter(move |(on, _)| *on == nic);
        there.map(move |(_, address)| (*address, self.neighbour(nic, *address)))
    }

    /// The host's own addresses on `nic`'s wire: the NIC's, and those of whatever stands on it.
    pub fn host_macs(&self, nic: u32) -> BTreeSet<Mac> {
        let mut macs = host_macs(&self.links, nic);
        macs.extend(self.filters.get(&nic).into_iter().flatten());
        macs
    }

    /// Hardware addresses on `nic`'s wire that no peer may claim, besides [`Known::host_macs`]: its default gateways
    /// and the next hops of the paths that were asked for.
    pub fn router_macs(&self, nic: u32) -> BTreeSet<Mac> {
        let gateways = self.gateways(nic).filter_map(|(_, mac)| mac);
        let next_hops = self.next_hops().filter(|(on, _)| *on == nic);
        gateways.chain(next_hops.filter_map(|(on, address)| self.neighbour(on, address.into()))).collect()
    }

    /// Interface and address of the next hops of the paths that were asked for, without repetition.
    pub fn next_hops(&self) -> impl Iterator<Item = (u32, Ipv4Addr)> {
        let routes = self.routes.values().filter_map(|route| route.as_ref().ok());
        let through_uplinks = routes.filter(|route| self.uplinks.contains(&route.nic));
        through_uplinks.map(|route| (route.nic, route.next_hop)).collect::<BTreeSet<_>>().into_iter()
    }

    /// The path to `remote` from `local`, if the kernel's answer for it is still known.
    pub fn path(&self, remote: Ipv4Addr, local: Ipv4Addr) -> Option<OuterPath> {
        let route = self.routes.get(&(remote, local))?;
        Some(match route.and_then(|route| self.next_hop(&route)) {
            Ok(next_hop) => OuterPath::Direct(next_hop),
            Err(detour) => OuterPath::BySocket(detour),
        })
    }

    fn next_hop(&self, route: &Route) -> Result<NextHop, Detour> {
        if !self.uplinks.contains(&route.nic) {
            return Err(Detour::OtherInterface(route.nic));
        }
        let link = self.links.get(&route.nic).filter(|link| link.up && link.running);
        let (link, source) =
            link.and_then(|link| Some((link, link.mac?))).ok_or(Detour::InterfaceDown(route.nic))?;
        let destination =
            self.neighbour(route.nic, route.next_hop.into()).ok_or(Detour::NoNeighbour(route.next_hop))?;
        Ok(NextHop {
            nic: route.nic,
            address: route.next_hop,
            destination,
            source,
            source_address: route.source,
            mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
        })
    }

    /// Forgets the answer about a peer that has gone.
    pub(super) fn forget(&mut self, remote: Ipv4Addr, local: Ipv4Addr) {
        self.routes.remove(&(remote, local));
    }

    /// Keeps an answer; whether it says something new.
    pub(super) fn keep(&mut self, remote: Ipv4Addr, local: Ipv4Addr, route: Result<Route, Detour>) -> bool {
        if self.routes.len() >= ROUTES {
            self.routes.clear();
        }
        self.routes.insert((remote, local), route) != Some(route)
    }

    pub(super) fn apply(&mut self, event: Event, touched: &mut Touched) {
        match event {
            Event::Link(link) => self.link(link, touched),
            Event::LinkGone(index) => self.link_gone(index, touched),
            Event::Address(address) => {
                if self.addresses.insert(address) {
                    self.addresses_changed(touched);
                }
            }
            Event::AddressGone(address) => {
                if self.addresses.remove(&address) {
                    self.addresses_changed(touched);
                }
            }
            Event::Route(news) => self.route(&news, touched),
            Event::Rule => self.forget_routes(touched),
            Event::Neighbour(neighbour) => self.heard_of(neighbour, touched),
        }
    }

    fn link(&mut self, link: Link, touched: &mut Touched) {
        let index = link.index;
        let before = self.links.insert(index, link);
        if before.as_ref() == self.links.get(&index) {
            return;
        }
        touched.links.insert(index);
        // Routes of an interface that goes down vanish without further news.
        self.forget_routes(touched);
    }

    fn link_gone(&mut self, index: u32, touched: &mut Touched) {
        self.links.remove(&index);
        self.filters.remove(&index);
        self.neighbours.retain(|(nic, _), _| *nic != index);
        self.gateways.retain(|(nic, _)| *nic != index);
        touched.links.insert(index);
        self.forget_routes(touched);
    }

    /// With an address, routes that prefer it as source come and go without further news.
    fn addresses_changed(&mut self, touched: &mut Touched) {
        touched.addresses = true;
        self.forget_routes(touched);
    }

    pub(super) fn forget_routes(&mut self, touched: &mut Touched) {
        touched.routes |= !self.routes.is_empty();
        self.routes.clear();
    }

    /// Only answers within the route's destination can be others now: on a host with a million routes that change all
    /// day most news concerns nobody.
    fn route(&mut self, news: &RouteNews, touched: &mut Touched) {
        let before = self.routes.len();
        self.routes.retain(|(remote, _), _| !news.destination.contains(*remote));
        touched.routes |= self.routes.len() != before;
        if news.destination.is_default() {
            touched.routes = true;
            touched.gateway_withdrawn |= news.gone;
            if !news.gone {
                self.gateways.extend(&news.gateways);
            }
        }
    }

    fn heard_of(&mut self, Neighbour { nic, address, mac }: Neighbour, touched: &mut Touched) {
        let before = match mac {
            Some(mac) => self.neighbours.insert((nic, address), mac),
            None => self.neighbours.remove(&(nic, address)),
        };
        if before != mac {
            touched.neighbours.insert((nic, address));
        }
    }

    /// What was touched, as it is now.
    pub(super) fn changes(&self, touched: &Touched) -> Vec<Change> {
        let links = touched.links.iter().map(|index| Change::Link(*index));
        let neighbours = touched.neighbours.iter().map(|&(nic, address)| Change::Neighbour {
            nic,
            address,
            mac: self.neighbour(nic, address),
        });
        let addresses = touched.addresses.then_some(Change::Address);
        let routes = touched.routes.then_some(Change::Route);
        links.chain(addresses).chain(routes).chain(neighbours).collect()
    }
}
