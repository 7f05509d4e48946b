//! One question to the kernel's routing: which way does a packet go?

use std::net::{IpAddr, Ipv4Addr};

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
    pub(super) next_hop: Ipv4Addr,
    pub(super) source: Ipv4Addr,
    /// Of the route, or learnt of the path; the NIC's own may be smaller.
    pub(super) mtu: Option<u32>,
}

/// Asks for the way of UDP packets from `local` (0.0.0.0: the kernel's choice) to `remote`.
pub(super) fn lookup(
    requests: &mut Requests,
    remote: Ipv4Addr,
    local: Ipv4Addr,
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

fn question(remote: Ipv4Addr, local: Ipv4Addr) -> Result<Rtmsg> {
    /// `RTA_IP_PROTO`, since 4.17: rules may tell protocols apart.
    const IP_PROTO: u16 = 27;
    const UDP: u8 = 17;
    let mut attributes = vec![put(Rta::Dst, &remote.octets()[..])?, put(Rta::from(IP_PROTO), UDP)?];
    if !local.is_unspecified() {
        attributes.push(put(Rta::Src, &local.octets()[..])?);
    }
    RtmsgBuilder::default()
        .rtm_family(RtAddrFamily::Inet)
        .rtm_dst_len(32)
        .rtm_src_len(if local.is_unspecified() { 0 } else { 32 })
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

fn parse(rest: &[u8], remote: Ipv4Addr, local: Ipv4Addr) -> Option<Result<Route, Detour>> {
    let answer: Rtmsg = body(rest)?;
    let attributes = Attributes::of(answer.rtattrs());
    match answer.rtm_type() {
        Rtn::Unicast => {}
        Rtn::Local => return Some(Err(Detour::ThisHost)),
        Rtn::Broadcast | Rtn::Multicast | Rtn::Anycast => return Some(Err(Detour::NotUnicast)),
        _ => return Some(Err(Detour::NoRoute)),
    }
    let next_hop = match router(&attributes) {
        None => remote,
        Some(IpAddr::V4(router)) => router,
        Some(IpAddr::V6(_)) => return Some(Err(Detour::Encapsulated)),
    };
    if attributes.bytes(Rta::EncapType).is_some() {
        return Some(Err(Detour::Encapsulated));
    }
    // The kernel names a source only where it differs from the one asked with.
    let source = attributes.array::<4>(Rta::Prefsrc).map_or(local, Ipv4Addr::from);
    Some(Ok(Route { nic: attributes.number(Rta::Oif)?, next_hop, source, mtu: mtu(&attributes) }))
}

fn mtu(attributes: &Attributes<'_, Rta>) -> Option<u32> {
    /// `RTAX_MTU`.
    const MTU: u16 = 2;
    Attributes::of(&attributes.nested::<u16>(Rta::Metrics)).number(MTU).filter(|mtu| *mtu != 0)
}
