//! What is known of the surroundings, and how news changes it. Pure: no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

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
    pub(super) routes: BTreeMap<(IpAddr, IpAddr), Result<Route, Detour>>,
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

    /// The host's addresses.
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
        gateways.chain(next_hops.filter_map(|(on, address)| self.neighbour(on, address))).collect()
    }

    /// Hardware addresses of remotes that are reached on `nic`'s wire without a router: whoever can make a path be asked
    /// for, and speak ARP, chooses them.
    pub fn neighbouring_remotes(&self, nic: u32) -> BTreeSet<Mac> {
        let routes =
            self.routes.iter().filter_map(|((remote, _), route)| Some((remote, route.as_ref().ok()?)));
        let direct = routes.filter(|(remote, route)| route.nic == nic && route.next_hop == **remote);
        direct.filter_map(|(remote, _)| self.neighbour(nic, *remote)).collect()
    }

    /// Interface and address of the next hops of the paths that were asked for, without repetition.
    pub fn next_hops(&self) -> impl Iterator<Item = (u32, IpAddr)> {
        let routes = self.routes.values().filter_map(|route| route.as_ref().ok());
        let through_uplinks = routes.filter(|route| self.uplinks.contains(&route.nic));
        through_uplinks.map(|route| (route.nic, route.next_hop)).collect::<BTreeSet<_>>().into_iter()
    }

    /// The path to `remote` from `local`, if the kernel's answer for it is still known.
    pub fn path(&self, remote: IpAddr, local: IpAddr) -> Option<OuterPath> {
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
            self.neighbour(route.nic, route.next_hop).ok_or(Detour::NoNeighbour(route.next_hop))?;
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
    pub(super) fn forget(&mut self, remote: IpAddr, local: IpAddr) {
        self.routes.remove(&(remote, local));
    }

    /// Keeps an answer; whether it says something new.
    pub(super) fn keep(&mut self, remote: IpAddr, local: IpAddr, route: Result<Route, Detour>) -> bool {
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::event::Prefix;
    use super::*;
    use crate::host::links::sample;

    const NIC: u32 = 2;
    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254));
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    const OWN: Mac = [2, 0, 0, 0, 0, 2];
    const ROUTER_MAC: Mac = [2, 0, 0, 0, 0, 0xfe];

    fn route() -> Route {
        Route { nic: NIC, next_hop: ROUTER, source: HOST, mtu: None }
    }

    fn neighbour(mac: Option<Mac>) -> Event {
        Event::Neighbour(Neighbour { nic: NIC, address: ROUTER, mac })
    }

    fn news(gone: bool, address: [u8; 4], length: u8, gateway: Option<IpAddr>) -> Event {
        let gateways = gateway.map(|gateway| (NIC, gateway)).into_iter().collect();
        Event::Route(RouteNews { gone, destination: Prefix { address: address.into(), length }, gateways })
    }

    /// A host with one NIC, its router known, and a path to [`PEER`].
    fn known() -> Known {
        let mut known = Known { uplinks: BTreeSet::from([NIC]), ..Known::default() };
        for event in
            [Event::Link(sample(NIC, OWN)), neighbour(Some(ROUTER_MAC)), news(false, [0; 4], 0, Some(ROUTER))]
        {
            known.apply(event, &mut Touched::default());
        }
        known.keep(PEER, HOST, Ok(route()));
        known
    }

    /// What is told after `events`.
    fn after(known: &mut Known, events: impl IntoIterator<Item = Event>) -> Vec<Change> {
        let mut touched = Touched::default();
        events.into_iter().for_each(|event| known.apply(event, &mut touched));
        known.changes(&touched)
    }

    #[test]
    fn a_path_is_direct_when_all_of_it_is_known_and_else_says_what_is_missing() {
        let mut known = known();
        let direct = NextHop {
            nic: NIC,
            address: ROUTER,
            destination: ROUTER_MAC,
            source: OWN,
            source_address: HOST,
            mtu: 1500,
        };
        assert_eq!(known.path(PEER, HOST), Some(OuterPath::Direct(direct)));
        assert_eq!(known.path(PEER, ROUTER), None, "the answer for another source is not this one");

        let detour = |known: &mut Known, route| {
            known.keep(PEER, HOST, route);
            match known.path(PEER, HOST) {
                Some(OuterPath::BySocket(detour)) => detour,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(detour(&mut known, Err(Detour::NoRoute)), Detour::NoRoute);
        assert_eq!(detour(&mut known, Ok(Route { nic: 9, ..route() })), Detour::OtherInterface(9));
        assert_eq!(detour(&mut known, Ok(Route { next_hop: PEER, ..route() })), Detour::NoNeighbour(PEER));
        known.links.get_mut(&NIC).unwrap().running = false;
        assert_eq!(detour(&mut known, Ok(route())), Detour::InterfaceDown(NIC));
    }

    #[test]
    fn remotes_without_a_router_are_told_from_routers() {
        const BESIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
        const BESIDE_MAC: Mac = [2, 0, 0, 0, 0, 9];
        let mut known = known();
        known.neighbours.insert((NIC, BESIDE), BESIDE_MAC);
        assert_eq!(known.neighbouring_remotes(NIC), BTreeSet::new());
        known.keep(BESIDE, HOST, Ok(Route { next_hop: BESIDE, ..route() }));
        assert_eq!(known.neighbouring_remotes(NIC), BTreeSet::from([BESIDE_MAC]));
        assert_eq!(known.router_macs(NIC), BTreeSet::from([ROUTER_MAC, BESIDE_MAC]));
    }

    #[test]
    fn the_smaller_mtu_counts() {
        let mut known = known();
        for (of_route, expected) in [(Some(1400), 1400), (Some(9000), 1500), (None, 1500)] {
            known.keep(PEER, HOST, Ok(Route { mtu: of_route, ..route() }));
            assert!(matches!(known.path(PEER, HOST), Some(OuterPath::Direct(hop)) if hop.mtu == expected));
        }
    }

    #[test]
    fn a_router_that_moves_is_told_once_with_its_latest_address() {
        let mut known = known();
        let newest = [2, 0, 0, 0, 0, 0xfc];
        let told = after(
            &mut known,
            [neighbour(Some([2, 0, 0, 0, 0, 0xfd])), neighbour(None), neighbour(Some(newest))],
        );
        assert_eq!(told, [Change::Neighbour { nic: NIC, address: ROUTER, mac: Some(newest) }]);
        assert_eq!(known.router_macs(NIC), BTreeSet::from([newest]));
        assert_eq!(after(&mut known, [neighbour(Some(newest))]), [], "hearing the same again is no change");
    }

    #[test]
    fn routes_elsewhere_leave_a_path_alone() {
        let mut known = known();
        assert_eq!(after(&mut known, [news(false, [198, 51, 100, 0], 24, Some(HOST))]), []);
        assert!(known.path(PEER, HOST).is_some());
        assert_eq!(known.gateways(NIC).count(), 1, "only default routes' routers are protected");
        assert_eq!(after(&mut known, [news(true, [203, 0, 113, 0], 24, None)]), [Change::Route]);
        assert_eq!(known.path(PEER, HOST), None, "it is to be asked for again");
    }

    #[test]
    fn rules_links_and_addresses_put_every_path_in_question() {
        let address = Address { index: NIC, address: HOST, prefix: 24 };
        for (event, change) in [
            (Event::Rule, None),
            (Event::Link(sample(7, [2; 6])), Some(Change::Link(7))),
            (Event::LinkGone(NIC), Some(Change::Link(NIC))),
            (Event::Address(address), Some(Change::Address)),
        ] {
            let mut known = known();
            let told = after(&mut known, [event]);
            assert_eq!(told, change.into_iter().chain([Change::Route]).collect::<Vec<_>>());
            assert_eq!(known.path(PEER, HOST), None);
        }
        let unchanged = Event::Link(sample(NIC, OWN));
        assert_eq!(after(&mut known(), [unchanged]), [], "most news of links repeats what is known");
    }

    #[test]
    fn an_interface_that_is_gone_takes_its_neighbours_and_routers_along() {
        let mut known = known();
        after(&mut known, [Event::LinkGone(NIC)]);
        assert_eq!(known.neighbour(NIC, ROUTER), None);
        assert!(known.router_macs(NIC).is_empty() && known.host_macs(NIC).is_empty());
    }

    #[test]
    fn half_of_everything_is_a_default_route_and_a_withdrawn_one_is_to_be_asked() {
        let mut known = known();
        let mut touched = Touched::default();
        let other = IpAddr::from([192, 0, 2, 253]);
        known.apply(news(false, [128, 0, 0, 0], 1, Some(other)), &mut touched);
        assert!(known.gateways(NIC).any(|(gateway, _)| gateway == other));
        assert!(!touched.gateway_withdrawn);
        known.apply(news(true, [0; 4], 0, Some(ROUTER)), &mut touched);
        assert!(touched.gateway_withdrawn);
    }

    #[test]
    fn next_hops_of_many_peers_are_named_once_and_answers_are_bounded() {
        let mut known = known();
        for peer in 0..u32::try_from(ROUTES).unwrap() + 10 {
            known.keep(Ipv4Addr::from_bits(0x0a00_0000 + peer).into(), HOST, Ok(route()));
            assert!(known.routes.len() <= ROUTES);
        }
        assert_eq!(known.next_hops().collect::<Vec<_>>(), [(NIC, ROUTER)]);
        known.forget(Ipv4Addr::from_bits(0x0a00_0000 + 16_390).into(), HOST);
        assert_eq!(known.path(Ipv4Addr::from_bits(0x0a00_0000 + 16_390).into(), HOST), None);
    }
}
