//! [`Known`], kept up to date by the kernel.
//!
//! ```text
//!   RTM_NEWLINK, RTM_NEWNEIGH ──► Known ──► events
//!            lost some? ──► emptied ──► all read anew ──► the difference as events
//! ```
//!
//! Two things of the kernel's are put up with. An entry that moves and is deleted at the same moment may be told of in the
//! wrong order, and a dump during which entries vanish may miss others. Either is mended by [`Mirror::reread`] now and
//! then, and neither loses a frame: what is not known stays with the kernel bridge.

use std::os::fd::{AsFd, BorrowedFd};

use neli::consts::rtnl::{Ifla, RtAddrFamily};
use neli::rtnl::{Ifinfomsg, IfinfomsgBuilder};
use nix::libc;

use super::super::links::{invalid, put};
use super::super::netlink::{News, Requests, Subscription};
use super::super::{Error, Result};
use super::known::{Event, Known};

/// What the kernel is asked to tell of: interfaces and neighbours, a bridge's included.
const GROUPS: &[u32] = &[libc::RTNLGRP_LINK, libc::RTNLGRP_NEIGH];

/// Datagrams read in one go. More than the kernel's queue holds; whoever makes news faster than it is read makes all be
/// read anew.
const LOOKS: usize = 16_384;

/// `RTEXT_FILTER_BRVLAN_COMPRESSED`: VLANs in ranges. Source: include/uapi/linux/rtnetlink.h.
const VLANS_IN_RANGES: u32 = 1 << 2;

/// A bridge, followed.
#[derive(Debug)]
pub struct Mirror {
    known: Known,
    pub(super) requests: Requests,
    subscription: Subscription,
    /// What was told while something else was done.
    pub(super) pending: Vec<Event>,
}

impl Mirror {
    /// Reads everything about the bridge called `name` and subscribes to changes. What is there already is no event.
    ///
    /// # Errors
    /// There is no such bridge, or the kernel does not answer.
    pub fn open(name: &str) -> Result<Self> {
        // Subscribed first, read then: what changes in between is told twice, not never.
        let subscription = Subscription::open(GROUPS).map_err(Error::os("follow changes of the bridge"))?;
        let requests = Requests::routing().map_err(Error::os("open a netlink socket"))?;
        let mut mirror = Self { known: Known::read(name, &[]), requests, subscription, pending: Vec::new() };
        mirror.reread()?;
        if mirror.known.bridge().is_none() {
            return Err(mirror.no_such_bridge(name));
        }
        mirror.pending.clear();
        Ok(mirror)
    }

    /// What is known now.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Reads what the kernel has told since, until there is no more: to be called when [`AsFd`] becomes readable.
    pub fn handle_netlink(&mut self) -> Result<Vec<Event>> {
        self.read_news()?;
        Ok(std::mem::take(&mut self.pending))
    }

    /// Reads everything anew; [`Mirror::handle_netlink`] then returns what was different. Some things change without
    /// news (the ageing time by an old ioctl), and news can come in the wrong order, so this should be done every
    /// minute: about a millisecond for a thousand stations.
    pub fn reread(&mut self) -> Result<()> {
        let mut new = self.read_links()?;
        self.read_stations(&mut new)?;
        self.known.replace(new, &mut self.pending);
        Ok(())
    }

    pub(super) fn read_news(&mut self) -> Result<()> {
        for _ in 0..LOOKS {
            let Self { known, subscription, pending, .. } = self;
            let mut appeared = false;
            let news = subscription.look(|kind, rest| appeared |= known.take(kind, rest, pending));
            match news.map_err(Error::os("read the news of the bridge"))? {
                News::None => return Ok(()),
                News::Lost => break,
                News::Some if appeared => self.reread()?,
                News::Some => {}
            }
        }
        self.empty()?;
        self.reread()
    }

    /// What still waits is older than what was lost, and must not be taken after all was read anew. The kernel adds
    /// nothing before the queue was empty once (`NETLINK_S_CONGESTED`).
    fn empty(&mut self) -> Result<()> {
        for _ in 0..LOOKS {
            let news = self.subscription.look(|_, _| ());
            if news.map_err(Error::os("read the news of the bridge"))? == News::None {
                break;
            }
        }
        Ok(())
    }

    fn read_links(&mut self) -> Result<Known> {
        let mut links = self.dump(libc::RTM_GETLINK, &question(RtAddrFamily::Unspecified, &[])?)?;
        let with_vlans = [put(Ifla::ExtMask, VLANS_IN_RANGES)?];
        links.extend(self.dump(libc::RTM_GETLINK, &question(bridge_family(), &with_vlans)?)?);
        Ok(Known::read(&self.known.wanted, &links))
    }

    fn read_stations(&mut self, known: &mut Known) -> Result<()> {
        let Some(bridge) = known.bridge().map(|bridge| bridge.link.index) else { return Ok(()) };
        // The kernel takes struct ifinfomsg here to tell one bridge from all (valid_fdb_dump_legacy, net/core/rtnetlink.c).
        let of_bridge = question(bridge_family(), &[put(Ifla::Master, bridge)?])?;
        let stations = self.requests.dump(libc::RTM_GETNEIGH, &of_bridge, |found: &mut Vec<_>, _, rest| {
            found.extend(super::parse::station(rest, bridge))
        });
        known.adopt_stations(stations.map_err(Error::os("read the bridge's stations"))?);
        Ok(())
    }

    fn dump(&mut self, kind: u16, question: &Ifinfomsg) -> Result<Vec<Vec<u8>>> {
        let found =
            self.requests.dump(kind, question, |found: &mut Vec<_>, _, rest| found.push(rest.to_vec()));
        found.map_err(Error::os("read the bridge's ports"))
    }

    fn no_such_bridge(&mut self, name: &str) -> Error {
        let links = match super::super::links::all(&mut self.requests) {
            Ok(links) => links,
            Err(error) => return error,
        };
        let what = if links.values().any(|link| link.name == name) {
            format!("{name} is no bridge")
        } else {
            format!("there is no bridge {name}")
        };
        let there: Vec<_> =
            links.values().filter(|link| link.is_bridge()).map(|link| link.name.as_str()).collect();
        let cure = if there.is_empty() {
            format!("make it with `ip link add {name} type bridge`, or with the network's configuration")
        } else {
            format!("this host has {}: name one of them with --bridge", there.join(", "))
        };
        Error::Unfit(format!("{what}; {cure}"))
    }
}

impl AsFd for Mirror {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscription.as_fd()
    }
}

fn question(
    family: RtAddrFamily,
    attributes: &[neli::rtnl::Rtattr<Ifla, neli::types::Buffer>],
) -> Result<Ifinfomsg> {
    IfinfomsgBuilder::default()
        .ifi_family(family)
        .rtattrs(attributes.iter().cloned().collect())
        .build()
        .map_err(invalid)
}

pub(super) fn bridge_family() -> RtAddrFamily {
    const BRIDGE: u8 = {
        assert!(libc::AF_BRIDGE == 7);
        7
    };
    RtAddrFamily::UnrecognizedConst(BRIDGE)
}
