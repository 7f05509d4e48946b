//! What one routing message says, as far as it matters here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use common::Mac;
use neli::consts::rtnl::{Nda, Nud, RtAddrFamily, Rta, RtmF, Rtn};
use neli::rtnl::{Ndmsg, Rtmsg};
use nix::libc;

use super::super::links::{Address, Link};
use super::super::netlink::wire::{Attributes, body};

/// A change the kernel told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Link(Link),
    LinkGone(u32),
    Address(Address),
    AddressGone(Address),
    Route(RouteNews),
    Rule,
    Neighbour(Neighbour),
}

/// A route that appeared or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteNews {
    pub(super) gone: bool,
    pub(super) destination: Prefix,
    /// Interface and router of each way.
    pub(super) gateways: BTreeSet<(u32, IpAddr)>,
}

/// A route's destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) address: IpAddr,
    pub(super) length: u8,
}

impl Prefix {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let equal = match (self.address, address) {
            (IpAddr::V4(prefix), IpAddr::V4(address)) => {
                (prefix.to_bits() ^ address.to_bits()).leading_zeros()
            }
            (IpAddr::V6(prefix), IpAddr::V6(address)) => {
                (prefix.to_bits() ^ address.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        equal >= u32::from(self.length)
    }

    /// Everything, or one half of it: the two halves together are how VPN software writes a default route that is to
    /// win over the host's own.
    pub(super) fn is_default(&self) -> bool {
        self.length <= 1
    }
}

/// A neighbour; `mac` only if the kernel would use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) nic: u32,
    pub(super) address: IpAddr,
    pub(super) mac: Option<Mac>,
}

impl Event {
    pub(super) fn parse(kind: u16, rest: &[u8]) -> Option<Self> {
        match kind {
            libc::RTM_NEWLINK => Link::parse(rest).map(Self::Link),
            libc::RTM_DELLINK => Link::parse(rest).map(|link| Self::LinkGone(link.index)),
            libc::RTM_NEWADDR => Address::parse(rest).map(Self::Address),
            libc::RTM_DELADDR => Address::parse(rest).map(Self::AddressGone),
            libc::RTM_NEWROUTE => RouteNews::parse(rest, false).map(Self::Route),
            libc::RTM_DELROUTE => RouteNews::parse(rest, true).map(Self::Route),
            libc::RTM_NEWRULE | libc::RTM_DELRULE => Some(Self::Rule),
            libc::RTM_NEWNEIGH => Neighbour::parse(rest).map(Self::Neighbour),
            libc::RTM_DELNEIGH => {
                Neighbour::parse(rest).map(|neighbour| Self::Neighbour(Neighbour { mac: None, ..neighbour }))
            }
            _ => None,
        }
    }
}

impl RouteNews {
    pub(super) fn parse(rest: &[u8], gone: bool) -> Option<Self> {
        let route: Rtmsg = body(rest)?;
        let attributes = Attributes::of(route.rtattrs());
        if route.rtm_flags().contains(RtmF::CLONED) {
            return None;
        }
        let address = match route.rtm_family() {
            RtAddrFamily::Inet => attributes.array::<4>(Rta::Dst).unwrap_or_default().into(),
            RtAddrFamily::Inet6 => attributes.array::<16>(Rta::Dst).unwrap_or_default().into(),
            _ => return None,
        };
        let destination = Prefix { address, length: *route.rtm_dst_len() };
        let gateways =
            if *route.rtm_type() == Rtn::Unicast { gateways(&attributes) } else { BTreeSet::new() };
        Some(Self { gone, destination, gateways })
    }
}

fn gateways(attributes: &Attributes<'_, Rta>) -> BTreeSet<(u32, IpAddr)> {
    let one = attributes.number(Rta::Oif).zip(router(attributes));
    let ways = attributes.bytes(Rta::Multipath).unwrap_or_default();
    one.into_iter().chain(next_hops(ways)).collect()
}

/// The router of a route or of one of its ways: `RTA_GATEWAY`, or `RTA_VIA` (two bytes of family, then the address)
/// for one of the other family.
pub(super) fn router(attributes: &Attributes<'_, Rta>) -> Option<IpAddr> {
    let bytes = attributes.bytes(Rta::Gateway).or_else(|| attributes.bytes(Rta::Via)?.get(2..))?;
    let four = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let sixteen = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    four().or_else(|_| sixteen()).ok()
}

/// `RTA_MULTIPATH`: `struct rtnexthop` (length, flags, hops, interface), each followed by its attributes.
fn next_hops(mut ways: &[u8]) -> impl Iterator<Item = (u32, IpAddr)> {
    const HEADER: usize = 8;
    std::iter::from_fn(move || {
        let [l0, l1, _, _, i0, i1, i2, i3] = *ways.first_chunk::<HEADER>()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let attributes = body(ways.get(HEADER..len)?)?;
        ways = ways.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u32::from_ne_bytes([i0, i1, i2, i3]), router(&Attributes::of(&attributes))))
    })
    .filter_map(|(nic, router)| Some((nic, router?)))
}

impl Neighbour {
    pub(super) fn parse(rest: &[u8]) -> Option<Self> {
        let entry: Ndmsg = body(rest)?;
        let attributes = Attributes::of(entry.rtattrs());
        let address = match entry.ndm_family() {
            RtAddrFamily::Inet => attributes.array::<4>(Nda::Dst)?.into(),
            RtAddrFamily::Inet6 => attributes.array::<16>(Nda::Dst)?.into(),
            _ => return None,
        };
        let valid = Nud::REACHABLE | Nud::STALE | Nud::DELAY | Nud::PROBE | Nud::PERMANENT | Nud::NOARP;
        let usable = entry.ndm_state().intersects(valid);
        let mac =
            attributes.array(Nda::Lladdr).filter(|mac: &Mac| usable && mac[0] & 1 == 0 && *mac != [0; 6]);
        Some(Self { nic: u32::try_from(*entry.ndm_index()).ok()?, address, mac })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One way of a multipath route: `struct rtnexthop` and an `RTA_GATEWAY`.
    fn way(nic: u32, router: [u8; 4]) -> Vec<u8> {
        const RTA_GATEWAY: u16 = 5;
        let mut way = [16u16.to_ne_bytes(), [0, 0]].concat();
        way.extend(nic.to_ne_bytes());
        way.extend([8u16.to_ne_bytes(), RTA_GATEWAY.to_ne_bytes()].concat());
        way.extend(router);
        way
    }

    #[test]
    fn all_routers_of_a_multipath_route_are_found() {
        let ways = [way(2, [192, 0, 2, 253]), way(3, [198, 51, 100, 254])].concat();
        let found: Vec<_> = next_hops(&ways).collect();
        assert_eq!(found, [(2, [192, 0, 2, 253].into()), (3, [198, 51, 100, 254].into())]);
        assert_eq!(next_hops(&ways[..20]).count(), 1, "one cut short is left out");
        assert_eq!(next_hops(&[0; 64]).count(), 0, "a length of zero ends it");
    }

    #[test]
    fn a_prefix_contains_what_it_should() {
        let prefix = |address: [u8; 4], length| Prefix { address: address.into(), length };
        let address = IpAddr::from([203, 0, 113, 9]);
        assert!(prefix([203, 0, 113, 0], 24).contains(address));
        assert!(!prefix([203, 0, 112, 0], 24).contains(address));
        assert!(prefix([203, 0, 112, 0], 23).contains(address));
        assert!(prefix([0; 4], 0).contains(address));
        assert!(prefix([203, 0, 113, 9], 32).contains(address));
        assert!(!prefix([203, 0, 113, 8], 32).contains(address));
        let six = |text: &str, length| Prefix { address: text.parse().unwrap(), length };
        assert!(!six("::", 0).contains(address));
        let address = "2001:db8:1::9".parse().unwrap();
        assert!(six("2001:db8:1::", 64).contains(address) && six("::", 0).contains(address));
        assert!(!six("2001:db8:2::", 64).contains(address) && six("2001:db8:2::", 46).contains(address));
        assert!(!prefix([0; 4], 0).contains(address));
    }

    proptest! {
        #[test]
        fn random_messages_never_panic(kind in 16u16..40, bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = Event::parse(kind, &bytes);
            let _ = next_hops(&bytes).count();
        }
    }
}
