//! Making the host port an interface of this host.

use common::Mac;

use super::{Error, plan::Plan};
use crate::host::{
    self,
    links::{self, Link, LinkChange},
    netlink::Requests,
};

/// The host port's interface.
#[derive(Debug)]
pub(super) struct HostInterface {
    pub name: String,
    pub index: u32,
    pub mac: Mac,
}

/// Frames that may wait for the worker: it is one thread, and the kernel's default of 500 is gone within a burst.
const QUEUE_FRAMES: u32 = 2048;

/// Sets the interface up. In bridge mode it only carries frames between the NIC's stack and the worker: it has no
/// addresses, speaks no ARP and nothing by itself. In underlay mode it is the operator's, with an address that stays
/// the same from start to start, so that agents' ARP caches stay right.
pub(super) fn prepare(plan: &Plan, name: &str, requests: &mut Requests) -> Result<HostInterface, Error> {
    let link = links::by_name(requests, name)?;
    if let Some(bridge) = &plan.joins {
        return join(plan, bridge, link, requests);
    }
    let change = LinkChange::of(link.index).mtu(plan.host_port_mtu()).transmit_queue(QUEUE_FRAMES);
    let mac = stable_mac(plan, name).filter(|_| !plan.host_port_exists);
    let change = mac.map_or(change.clone(), |mac| change.clone().mac(mac));
    let change = if plan.bridge { change.arp(false) } else { change };
    if plan.bridge {
        // Before it is up: a link-local address would be given at that moment, and announced to the peers.
        links::disable_ipv6(&link)?;
    }
    change.up().apply(requests)?;
    if let Some(own) = plan.host_address {
        let prefix = u8::try_from(own.netmask.to_bits().leading_ones()).unwrap_or(32);
        links::add_address(requests, &link, own.address, prefix)?;
    }
    Ok(HostInterface { index: link.index, mac: mac.or(link.mac).unwrap_or_default(), name: link.name })
}

/// Makes it a port of the bridge, unless the operator has. One of our own has an address that no bridge prefers to the one
/// it has, and the bridge's MTU: neither of the bridge's changes.
fn join(plan: &Plan, bridge: &Link, link: Link, requests: &mut Requests) -> Result<HostInterface, Error> {
    if link.master.is_some_and(|master| master != bridge.index) {
        return Err(Error::from(host::Error::Unfit(format!(
            "{} is a port of another bridge or bond than {}: take it out (`ip link set {} nomaster`), or name the other for --bridge",
            link.name, bridge.name, link.name
        ))));
    }
    let mac = (!plan.host_port_exists).then(|| highest_mac(bridge, &link.name)).flatten();
    let change = LinkChange::of(link.index).mtu(plan.host_port_mtu()).transmit_queue(QUEUE_FRAMES);
    let change = mac.map_or(change.clone(), |mac| change.clone().mac(mac));
    if !plan.host_port_exists {
        // It has no address of its own, and says nothing by itself.
        links::disable_ipv6(&link)?;
    }
    // The address first: a bridge looks at it when the port joins.
    change.apply(requests)?;
    let change = LinkChange::of(link.index).up();
    let change = if link.master.is_none() { change.master(bridge.index) } else { change };
    change.apply(requests)?;
    Ok(HostInterface { index: link.index, mac: mac.or(link.mac).unwrap_or_default(), name: link.name })
}

/// A bridge takes the lowest of its ports' addresses (`br_stp_recalculate_bridge_id` in net/bridge/br_stp_if.c).
fn highest_mac(bridge: &Link, name: &str) -> Option<Mac> {
    let [_, rest @ ..] = derived_mac(bridge.mac?, name);
    let [b, c, d, e, f] = rest;
    Some([0xfe, b, c, d, e, f])
}

/// From the NIC's address and the port's name: the same at each start, another one for each gateway.
fn stable_mac(plan: &Plan, name: &str) -> Option<Mac> {
    Some(derived_mac(plan.nic.as_ref()?.mac?, name))
}

fn derived_mac(nic: Mac, name: &str) -> Mac {
    // FNV-1a, for no more than spreading.
    let spread = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = nic.iter().chain(name.as_bytes()).fold(0xcbf2_9ce4_8422_2325, spread);
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    // Locally administered, unicast.
    [0x02, a, b, c, d, e]
}
