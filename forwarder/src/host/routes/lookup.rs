//! One question to the kernel's routing: which way does a packet go?

use std::net::IpAddr;

use neli::consts::rtnl::{RtAddrFamily, RtScope, RtTable, Rta, RtmF, Rtn, Rtprot};
use neli::rtnl::{Rtmsg, RtmsgBuilder};
use nix::libc;

use super::super::links::{invalid, put};
use super::super::netlink::Requests;
use super::super::netlink::wire::{Attributes, body};
use super::super::{Error, Result};
use super::Detour;
use super::event::router;

/// The kernel's answer, without what neighbours and interfaces add to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) nic: u32,
    /// The router, or the destination where it is on the wire.
    pub(super) next_hop: IpAddr,
    pub(super) source: IpAddr,
    /// Of the route, or learnt of the path; the NIC's own may be smaller.
    pub(super) mtu: Option<u32>,
}

/// Asks for the way of UDP packets from `local` (unspecified: the kernel's choice) to `remote`.
pub(super) fn lookup(
    requests: &mut Requests,
    remote: IpAddr,
    local: IpAddr,
) -> Result<Result<Route, Detour>> {
    let question = question(remote, local)?;
    let answer = requests.request(libc::RTM_GETROUTE, 0, &question, |found: &mut Option<_>, _, rest| {
        *found = found.or_else(|| parse(rest, remote, local));
    });
    match answer {
        Ok(route) => Ok(route.unwrap_or(Err(Detour::NoRoute))),
        // No route; "unreachable", "prohibit" or "blackhole" route; or `local` is no address of this host any more.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
            ) =>
        {
            Ok(Err(Detour::NoRoute))
        }
        Err(error) => Err(Error::os(format!("look up the route to {remote}"))(error)),
    }
}

fn question(remote: IpAddr, local: IpAddr) -> Result<Rtmsg> {
    /// `RTA_IP_PROTO`, since 4.17: rules may tell protocols apart.
    const IP_PROTO: u16 = 27;
    const UDP: u8 = 17;
    let mut attributes = vec![put(Rta::Dst, &octets(remote)[..])?, put(Rta::from(IP_PROTO), UDP)?];
    if !local.is_unspecified() {
        attributes.push(put(Rta::Src, &octets(local)[..])?);
    }
    RtmsgBuilder::default()
        .rtm_family(family(remote))
        .rtm_dst_len(bits(remote))
        .rtm_src_len(if local.is_unspecified() { 0 } else { bits(local) })
        .rtm_tos(0)
        .rtm_table(RtTable::Unspec)
        .rtm_protocol(Rtprot::Unspec)
        .rtm_scope(RtScope::Universe)
        .rtm_type(Rtn::Unspec)
        .rtm_flags(RtmF::empty())
        .rtattrs(attributes.into_iter().collect())
        .build()
        .map_err(invalid)
}

fn parse(rest: &[u8], remote: IpAddr, local: IpAddr) -> Option<Result<Route, Detour>> {
    let answer: Rtmsg = body(rest)?;
    let attributes = Attributes::of(answer.rtattrs());
    match answer.rtm_type() {
        Rtn::Unicast => {}
        Rtn::Local => return Some(Err(Detour::ThisHost)),
        Rtn::Broadcast | Rtn::Multicast | Rtn::Anycast => return Some(Err(Detour::NotUnicast)),
        _ => return Some(Err(Detour::NoRoute)),
    }
    let next_hop = router(&attributes).unwrap_or(remote);
    if attributes.bytes(Rta::EncapType).is_some() {
        return Some(Err(Detour::Encapsulated));
    }
    Some(Ok(Route {
        nic: attributes.number(Rta::Oif)?,
        next_hop,
        source: source(&attributes, local),
        mtu: mtu(&attributes),
    }))
}

/// The kernel names a source of IPv4 only where it differs from the one asked with, and of IPv6 always the one it would
/// have chosen itself.
fn source(attributes: &Attributes<'_, Rta>, local: IpAddr) -> IpAddr {
    if !local.is_unspecified() {
        return local;
    }
    let four = || attributes.array::<4>(Rta::Prefsrc).map(IpAddr::from);
    attributes.array::<16>(Rta::Prefsrc).map(IpAddr::from).or_else(four).unwrap_or(local)
}

fn mtu(attributes: &Attributes<'_, Rta>) -> Option<u32> {
    /// `RTAX_MTU`.
    const MTU: u16 = 2;
    Attributes::of(&attributes.nested::<u16>(Rta::Metrics)).number(MTU).filter(|mtu| *mtu != 0)
}

/// The family of an address, as netlink names it.
pub(super) fn family(address: IpAddr) -> RtAddrFamily {
    if address.is_ipv6() { RtAddrFamily::Inet6 } else { RtAddrFamily::Inet }
}

/// An address in network order.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}
