//! Addresses a NIC was asked to receive for somebody else.

use std::collections::BTreeSet;

use common::Mac;
use neli::consts::rtnl::{Nda, Ntf, RtAddrFamily};
use neli::rtnl::{IfinfomsgBuilder, Ndmsg};
use nix::libc;

use super::super::netlink::Requests;
use super::super::netlink::wire::{Attributes, body};
use super::super::{Error, Result};
use super::invalid;

/// Unicast addresses in `nic`'s receive filter (`bridge fdb show dev NIC`, `self`): its macvlans and macvtaps, those
/// moved into containers too, and what VRRP daemons or VFs asked for. There is no news when it changes: ask again
/// every few seconds.
pub fn unicast_filter(requests: &mut Requests, nic: u32) -> Result<BTreeSet<Mac>> {
    let index = i32::try_from(nic).map_err(invalid)?;
    // The kernel takes struct ifinfomsg here to tell one interface from all (valid_fdb_dump_legacy, net/core/rtnetlink.c).
    let of_nic = IfinfomsgBuilder::default()
        .ifi_family(RtAddrFamily::UnrecognizedConst(BRIDGE))
        .ifi_index(index)
        .build()
        .map_err(invalid)?;
    requests
        .dump(libc::RTM_GETNEIGH, &of_nic, |found: &mut BTreeSet<_>, _, rest| {
            found.extend(filtered(rest, index))
        })
        .map_err(Error::os("read the NIC's receive filter"))
}

/// Family of a bridge's own messages.
pub(super) const BRIDGE: u8 = {
    assert!(libc::AF_BRIDGE == 7);
    7
};

fn filtered(rest: &[u8], nic: i32) -> Option<Mac> {
    let entry: Ndmsg = body(rest)?;
    let own = *entry.ndm_index() == nic && entry.ndm_flags().contains(Ntf::SELF);
    let mac = Attributes::of(entry.rtattrs()).array::<6>(Nda::Lladdr)?;
    (own && mac[0] & 1 == 0).then_some(mac)
}
