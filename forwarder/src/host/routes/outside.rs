//! [`Known`], kept up to date by the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd};

use neli::consts::rtnl::{Nda, Ntf, Nud, RtAddrFamily, RtScope, RtTable, RtmF, Rtn, Rtprot};
use neli::rtnl::{Ndmsg, NdmsgBuilder, RtmsgBuilder};
use nix::libc;

use super::super::links::{self, invalid, put, unicast_filter};
use super::super::netlink::{News, Requests, Subscription};
use super::super::{Error, Result};
use super::event::{Event, Neighbour, RouteNews};
use super::known::Touched;
use super::lookup::{Route, family, lookup, octets};
use super::{Change, Detour, Known, OuterPath};

/// What changes the kernel is asked to tell of (`RTNLGRP_…`): links, neighbours, addresses, routes and rules.
const GROUPS: &[u32] = &[
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV6_RULE,
];

/// Datagrams read in one go at most. The kernel's queue holds fewer; news that comes while these are read rings again.
const LOOKS: usize = 16_384;

/// Paths asked for again in one go: a few milliseconds of the control thread's time.
const RECHECKED: usize = 256;

/// Before all paths.
const FIRST: (IpAddr, IpAddr) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED));

/// The surroundings of the gateway: knows what the kernel told, asks where it must, and follows changes.
#[derive(Debug)]
pub struct Outside {
    known: Known,
    requests: Requests,
    subscription: Subscription,
    /// The path that was last asked for again.
    rechecked: (IpAddr, IpAddr),
}

impl Outside {
    /// Reads everything and subscribes to changes. `uplinks` are the NICs the gateway uses: paths are direct through
    /// these only, and their receive filters are looked at. With `--datapath socket` no path is asked for.
    pub fn open(uplinks: &[u32]) -> Result<Self> {
        // Subscribed first, read then: what changes in between is told twice, not never.
        let subscription = Subscription::open(GROUPS).map_err(Error::os("follow changes of the network"))?;
        let requests = Requests::routing().map_err(Error::os("open a netlink socket"))?;
        let known = Known { uplinks: uplinks.iter().copied().collect(), ..Known::default() };
        let mut outside = Self { known, requests, subscription, rechecked: FIRST };
        outside.read_everything()?;
        Ok(outside)
    }

    /// What is known now.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// The way to `remote` for packets from `local` (unspecified: the kernel's choice). Asks the kernel where its answer
    /// is not known, which takes some ten microseconds.
    pub fn resolve(&mut self, remote: IpAddr, local: IpAddr) -> Result<OuterPath> {
        if let Some(path) = self.known.path(remote, local) {
            return Ok(path);
        }
        let route = self.look_up(remote, local)?;
        self.known.keep(remote, local, route);
        Ok(self.known.path(remote, local).unwrap_or(OuterPath::BySocket(Detour::NoRoute)))
    }

    /// Reads what the kernel has told since, until there is no more: to be called when [`AsFd`] becomes readable.
    /// Paths, protected addresses and [`Known`] are as returned changes say.
    pub fn handle_netlink(&mut self) -> Result<Vec<Change>> {
        let mut touched = Touched::default();
        for _ in 0..LOOKS {
            let known = &mut self.known;
            let news = self.subscription.look(|kind, rest| {
                if let Some(event) = Event::parse(kind, rest) {
                    known.apply(event, &mut touched);
                }
            });
            match news.map_err(Error::os("read changes of the network"))? {
                News::Some => {}
                News::None => break,
                News::Lost => return self.resync(),
            }
        }
        if touched.gateway_withdrawn {
            self.known.gateways = gateways(&mut self.requests)?;
        }
        Ok(self.known.changes(&touched))
    }

    /// Forgets what the kernel answered about a peer that has gone.
    pub fn forget(&mut self, remote: IpAddr, local: IpAddr) {
        self.known.forget(remote, local);
    }

    /// What is still queued is older than what is read now, and later news of the same things may be what was lost:
    /// it is thrown away first.
    fn resync(&mut self) -> Result<Vec<Change>> {
        for _ in 0..LOOKS {
            let news = self.subscription.look(|_, _| {}).map_err(Error::os("read changes of the network"))?;
            if news == News::None {
                break;
            }
        }
        self.read_everything()?;
        Ok(vec![Change::Resync])
    }

    /// To be called every five seconds: tells the kernel which neighbours are in use, so that it checks them (packets
    /// sent by AF_XDP are nothing it could see), and asks for what it gives no news of: receive filters, and path
    /// MTUs it has learnt.
    pub fn refresh(&mut self) -> Result<Vec<Change>> {
        let next_hops: Vec<_> = self.known.next_hops().collect();
        for (nic, address) in next_hops {
            self.keep_alive(nic, address)?;
        }
        let mut changes = self.read_filters()?;
        changes.extend(self.recheck_paths()?.then_some(Change::Route));
        Ok(changes)
    }

    /// Asks again for some of the paths, in turn; whether one is another now.
    fn recheck_paths(&mut self) -> Result<bool> {
        let rest = (Bound::Excluded(self.rechecked), Bound::Unbounded);
        let due: Vec<_> = self.known.routes.range(rest).map(|(ends, _)| *ends).take(RECHECKED).collect();
        self.rechecked = due.last().copied().unwrap_or(FIRST);
        let mut changed = false;
        for (remote, local) in due {
            let route = self.look_up(remote, local)?;
            changed |= self.known.keep(remote, local, route);
        }
        Ok(changed)
    }

    /// Asks the kernel. What a router advertises as the link's MTU stands in no route: IPv6 has it for each interface.
    fn look_up(&mut self, remote: IpAddr, local: IpAddr) -> Result<std::result::Result<Route, Detour>> {
        let mut route = lookup(&mut self.requests, remote, local)?;
        if let (Ok(route), true) = (&mut route, remote.is_ipv6())
            && let Some(link) = self.known.links.get(&route.nic)
        {
            route.mtu = route.mtu.into_iter().chain(links::ipv6_mtu(&link.name)).min();
        }
        Ok(route)
    }

    /// Tells the kernel that this neighbour is in use: it checks whether it is still there, and looks for it where it
    /// does not know it. What comes of it is told by [`Outside::handle_netlink`].
    pub fn keep_alive(&mut self, nic: u32, address: IpAddr) -> Result<()> {
        let entry = NdmsgBuilder::default()
            .ndm_family(family(address))
            .ndm_index(i32::try_from(nic).map_err(invalid)?)
            .ndm_state(Nud::empty())
            .ndm_flags(Ntf::USE)
            .ndm_type(Rtn::Unspec)
            .rtattrs([put(Nda::Dst, &octets(address)[..])?].into_iter().collect())
            .build()
            .map_err(invalid)?;
        match self.requests.order(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE, &entry) {
            // The interface is down or gone: news of that is on its way.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENODEV)) => Ok(()),
            other => other.map_err(Error::os(format!("keep the neighbour {address} alive"))),
        }
    }

    fn read_everything(&mut self) -> Result<()> {
        self.known.links = links::all(&mut self.requests)?;
        self.known.addresses = links::addresses(&mut self.requests)?;
        self.known.neighbours = neighbours(&mut self.requests)?;
        self.known.gateways = gateways(&mut self.requests)?;
        self.known.forget_routes(&mut Touched::default());
        self.read_filters()?;
        Ok(())
    }

    fn read_filters(&mut self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for nic in self.known.uplinks.iter().filter(|nic| self.known.links.contains_key(nic)) {
            let filter = unicast_filter(&mut self.requests, *nic)?;
            if self.known.filters.get(nic) != Some(&filter) {
                self.known.filters.insert(*nic, filter);
                changes.push(Change::HostMacs(*nic));
            }
        }
        Ok(changes)
    }
}

impl AsFd for Outside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscription.as_fd()
    }
}

fn neighbours(requests: &mut Requests) -> Result<BTreeMap<(u32, IpAddr), common::Mac>> {
    let everything: Ndmsg = NdmsgBuilder::default()
        .ndm_family(RtAddrFamily::Unspecified)
        .ndm_index(0)
        .ndm_state(Nud::empty())
        .ndm_type(Rtn::Unspec)
        .build()
        .map_err(invalid)?;
    requests
        .dump(libc::RTM_GETNEIGH, &everything, |found: &mut BTreeMap<_, _>, _, rest| {
            let usable =
                Neighbour::parse(rest).and_then(|entry| Some(((entry.nic, entry.address), entry.mac?)));
            found.extend(usable);
        })
        .map_err(Error::os("read the neighbour table"))
}

/// Interface and address of every default route's routers, in all tables.
fn gateways(requests: &mut Requests) -> Result<BTreeSet<(u32, IpAddr)>> {
    let mut found = gateways_of(requests, RtAddrFamily::Inet)?;
    found.extend(gateways_of(requests, RtAddrFamily::Inet6)?);
    Ok(found)
}

fn gateways_of(requests: &mut Requests, family: RtAddrFamily) -> Result<BTreeSet<(u32, IpAddr)>> {
    let everything = RtmsgBuilder::default()
        .rtm_family(family)
        .rtm_dst_len(0)
        .rtm_src_len(0)
        .rtm_tos(0)
        .rtm_table(RtTable::Unspec)
        .rtm_protocol(Rtprot::Unspec)
        .rtm_scope(RtScope::Universe)
        .rtm_type(Rtn::Unspec)
        .rtm_flags(RtmF::empty())
        .build()
        .map_err(invalid)?;
    requests
        .dump(libc::RTM_GETROUTE, &everything, |found: &mut BTreeSet<_>, _, rest| {
            let route = RouteNews::parse(rest, false).filter(|route| route.destination.is_default());
            found.extend(route.into_iter().flat_map(|route| route.gateways));
        })
        .map_err(Error::os("read the routes"))
}
