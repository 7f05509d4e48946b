//! The host's interfaces: what they are, and whose frames carry which address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use common::Mac;
use neli::consts::rtnl::{Arphrd, Ifa, Iff, Ifla, IflaInfo, RtAddrFamily, RtScope};
use neli::rtnl::{Ifaddrmsg, IfaddrmsgBuilder, Ifinfomsg, IfinfomsgBuilder};
use nix::libc;

use super::netlink::Requests;
use super::netlink::wire::{Attributes, attribute, body};
use super::{Error, Result};

mod address;
mod change;
mod create;
mod entries;
mod qdiscs;
mod unicast_filter;
mod uppers;

pub use address::add_address;
pub use change::{LinkChange, disable_ipv6, ipv6_mtu};
pub use create::create_veth;
pub(super) use entries::entry;
pub use entries::{enter_station, entered_stations, remove_station};
pub use qdiscs::qdiscs;
pub use unicast_filter::unicast_filter;
pub use uppers::{host_macs, uppers};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Hardware address; `None` where it has none of six bytes (a tunnel).
    pub mac: Option<Mac>,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Set up by the administrator.
    pub up: bool,
    /// Carries frames: up, and the other end is there.
    pub running: bool,
    /// An Ethernet interface (and not loopback, PPP or a tunnel).
    pub ethernet: bool,
    /// The administrator switched ARP off: neighbours need no address.
    pub no_arp: bool,
    /// What software made it (`veth`, `bridge`, `macvlan`, `tun` …); `None` for a NIC.
    pub kind: Option<String>,
    /// The bridge or bond it is a port of.
    pub master: Option<u32>,
    /// The interface it stands on (VLAN, macvlan). Never the other end of a veth.
    pub lower: Option<u32>,
    /// Receive queues the kernel has reserved for it; ethtool's channels say how many are in use.
    pub receive_queues: u32,
    /// The XDP program on it.
    pub xdp: Option<Xdp>,
}

/// An XDP program found on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// As `bpftool prog show id` knows it; 0 where several are attached.
    pub program_id: u32,
    /// Where it runs.
    pub mode: XdpMode,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the kernel's network stack (`xdpgeneric`).
    Generic,
    /// In the NIC.
    Offload,
    /// In several of these places.
    Several,
}

impl Link {
    /// Whether it is a kernel bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }

    /// What `RTM_NEWLINK` and `RTM_DELLINK` hold; `None` for what is not about an interface (a bridge's port states).
    pub fn parse(rest: &[u8]) -> Option<Self> {
        let info: Ifinfomsg = body(rest)?;
        let attributes = Attributes::of(info.rtattrs());
        if *info.ifi_family() != RtAddrFamily::Unspecified {
            return None;
        }
        let kind = Attributes::of(&attributes.nested(Ifla::Linkinfo)).text(IflaInfo::Kind);
        let across = kind.as_deref() == Some("veth") || attributes.number(Ifla::LinkNetnsid).is_some();
        Some(Self {
            index: u32::try_from(*info.ifi_index()).ok()?,
            name: attributes.text(Ifla::Ifname)?,
            mac: attributes.array(Ifla::Address),
            mtu: attributes.number(Ifla::Mtu)?,
            up: info.ifi_flags().contains(Iff::UP),
            running: info.ifi_flags().contains(Iff::RUNNING),
            ethernet: *info.ifi_type() == Arphrd::Ether,
            no_arp: info.ifi_flags().contains(Iff::NOARP),
            kind,
            master: attributes.number(Ifla::Master),
            // Of a veth this is the other end, of one in another namespace a number that means nothing here.
            lower: attributes.number(Ifla::Link).filter(|lower| *lower != 0 && !across),
            receive_queues: attributes.number(Ifla::NumRxQueues).unwrap_or(1),
            xdp: xdp(&attributes),
        })
    }
}

/// `IFLA_XDP`: how attached (`IFLA_XDP_ATTACHED`, one byte) and what (`IFLA_XDP_PROG_ID`).
/// Kernel: include/uapi/linux/if_link.h.
fn xdp(attributes: &Attributes<'_, Ifla>) -> Option<Xdp> {
    const ATTACHED: u16 = 2;
    const PROG_ID: u16 = 4;
    let nested = attributes.nested::<u16>(Ifla::Xdp);
    let nested = Attributes::of(&nested);
    let mode = match nested.array(ATTACHED)? {
        [1] => XdpMode::Native,
        [2] => XdpMode::Generic,
        [3] => XdpMode::Offload,
        [4] => XdpMode::Several,
        _ => return None,
    };
    Some(Xdp { program_id: nested.number(PROG_ID).unwrap_or(0), mode })
}

/// All interfaces, by number.
pub fn all(requests: &mut Requests) -> Result<BTreeMap<u32, Link>> {
    let everything = question().build().map_err(invalid)?;
    requests
        .dump(libc::RTM_GETLINK, &everything, |links: &mut BTreeMap<_, _>, _, rest| {
            links.extend(Link::parse(rest).map(|link| (link.index, link)));
        })
        .map_err(Error::os("read the host's interfaces"))
}

/// The interface called `name`; the error names those there are.
pub fn by_name(requests: &mut Requests, name: &str) -> Result<Link> {
    let links = all(requests)?;
    let found = links.values().find(|link| link.name == name);
    found.cloned().ok_or_else(|| no_such_interface(name, links.values()))
}

fn no_such_interface<'a>(name: &str, links: impl Iterator<Item = &'a Link>) -> Error {
    let there: Vec<_> = links.filter(|link| link.ethernet).map(|link| link.name.as_str()).collect();
    Error::Unfit(format!(
        "there is no interface {name}; this host has {}: name one of them with --uplink",
        if there.is_empty() { "no Ethernet interface at all".to_owned() } else { there.join(", ") }
    ))
}

/// An address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The interface it is set on.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of its subnet's prefix.
    pub prefix: u8,
}

impl Address {
    /// What `RTM_NEWADDR` and `RTM_DELADDR` hold.
    pub fn parse(rest: &[u8]) -> Option<Self> {
        let info: Ifaddrmsg = body(rest)?;
        let attributes = Attributes::of(info.rtattrs());
        // On a point-to-point interface IFA_ADDRESS is the other end's.
        let address = match info.ifa_family() {
            RtAddrFamily::Inet => {
                attributes.array::<4>(Ifa::Local).or_else(|| attributes.array(Ifa::Address))?.into()
            }
            RtAddrFamily::Inet6 => {
                attributes.array::<16>(Ifa::Local).or_else(|| attributes.array(Ifa::Address))?.into()
            }
            _ => return None,
        };
        Some(Self { index: *info.ifa_index(), address, prefix: *info.ifa_prefixlen() })
    }
}

/// All addresses of the host.
pub fn addresses(requests: &mut Requests) -> Result<BTreeSet<Address>> {
    let everything = IfaddrmsgBuilder::default()
        .ifa_family(RtAddrFamily::Unspecified)
        .ifa_prefixlen(0)
        .ifa_scope(RtScope::Universe)
        .ifa_index(0)
        .build()
        .map_err(invalid)?;
    requests
        .dump(libc::RTM_GETADDR, &everything, |found: &mut BTreeSet<_>, _, rest| {
            found.extend(Address::parse(rest))
        })
        .map_err(Error::os("read the host's addresses"))
}

/// A body about no interface in particular.
fn question() -> IfinfomsgBuilder {
    IfinfomsgBuilder::default().ifi_family(RtAddrFamily::Unspecified)
}

/// A message could not be put together: a fault of this program.
pub(super) fn invalid(fault: impl std::fmt::Display) -> Error {
    Error::Os { doing: "write a netlink message".into(), source: std::io::Error::other(fault.to_string()) }
}

/// A routing attribute; see [`attribute`].
pub(super) fn put<T: neli::consts::rtnl::RtaType>(
    kind: T,
    payload: impl neli::Size + neli::ToBytes,
) -> Result<neli::rtnl::Rtattr<T, neli::types::Buffer>> {
    attribute(kind, payload).map_err(invalid)
}

/// An ordinary NIC that is up, for tests.
#[cfg(test)]
pub(crate) fn sample(index: u32, mac: Mac) -> Link {
    Link {
        index,
        name: format!("if{index}"),
        mac: Some(mac),
        mtu: 1500,
        up: true,
        running: true,
        ethernet: true,
        no_arp: false,
        kind: None,
        master: None,
        lower: None,
        receive_queues: 1,
        xdp: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_interface_is_answered_with_those_there_are() {
        let link = |name: &str, ethernet| Link { name: name.into(), ethernet, ..sample(1, [2; 6]) };
        let error =
            no_such_interface("ens5", [link("lo", false), link("eth0", true), link("eth1", true)].iter());
        assert_eq!(
            error.to_string(),
            "there is no interface ens5; this host has eth0, eth1: name one of them with --uplink"
        );
        assert!(no_such_interface("ens5", [].iter()).to_string().contains("no Ethernet interface at all"));
    }
}
