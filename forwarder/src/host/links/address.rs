//! Giving an interface an address.

use std::net::Ipv4Addr;

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifa, RtAddrFamily, RtScope};
use neli::rtnl::IfaddrmsgBuilder;
use nix::libc;

use super::super::netlink::Requests;
use super::super::{Error, Result};
use super::{Link, invalid, put};

/// Gives `link` an address in the subnet of `prefix` bits; one it has already stays. The kernel adds the subnet's route,
/// and takes both away with the interface. Kernel: net/ipv4/devinet.c `inet_rtm_newaddr`.
///
/// # Errors
/// What the kernel says.
pub fn add_address(requests: &mut Requests, link: &Link, address: Ipv4Addr, prefix: u8) -> Result<()> {
    let broadcast = address.to_bits() | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    let attributes = [
        put(Ifa::Local, &address.octets()[..])?,
        put(Ifa::Address, &address.octets()[..])?,
        put(Ifa::Broadcast, &broadcast.to_be_bytes()[..])?,
    ];
    let message = IfaddrmsgBuilder::default()
        .ifa_family(RtAddrFamily::Inet)
        .ifa_prefixlen(prefix)
        .ifa_scope(RtScope::Universe)
        .ifa_index(link.index)
        .rtattrs(attributes.into_iter().collect())
        .build()
        .map_err(invalid)?;
    let flags = i32::from((NlmF::CREATE | NlmF::REPLACE).bits());
    requests
        .order(libc::RTM_NEWADDR, flags, &message)
        .map_err(Error::os(format!("give {} the address {address}/{prefix}", link.name)))
}
