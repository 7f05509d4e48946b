//! XDP on a port of a kernel bridge: what the bridge has learnt is forwarded here, all else is left to it.
//!
//! Taken is unicast alone, and only where source and destination are known, the source on the very port the frame came
//! by: so the bridge itself sees every group, every new or moved station and every frame it would treat in some way of its
//! own, and what this program knows is never more than a copy of what the bridge does.
//!
//! ```text
//!   frame ─► FDB[source] ─► PORTS: this port, FROM? ─┬─► to the bridge's MAC, a tunnel packet ─► XSKS[slot, queue]
//!                                                    ├─► FDB[destination]: behind a peer ──────► XSKS[slot, queue]
//!                                                    └─► ... on another port, TO ──────────────► DEVMAP[slot]
//! ```

use aya_ebpf::{bindings::xdp_action::XDP_PASS, programs::XdpContext};
use common::{
    Settings, Verdict,
    bridge::{CaptureHeader, PortValue, port_flag as flag},
};

use crate::{
    frame::{self, Frame},
    maps::{self, MacPairs, Source, Stand, StationKey, ports},
    parse::{Ethernet, Malformed},
    unfinished, xdp,
};

/// Decides about a frame and acts.
#[inline(always)]
pub fn forward(context: &XdpContext) -> u32 {
    match try_forward(context) {
        Ok(Some(redirected)) => redirected,
        // Not ours, or not understood: the bridge knows what to do.
        Ok(None) | Err(Malformed) => xdp::pass(Verdict::Pass),
    }
}

/// A frame that may be taken, as far as its source says.
struct Arrival<'a> {
    context: &'a XdpContext,
    settings: &'a Settings,
    ethernet: Ethernet,
    /// VLAN in the keys of its stations.
    vlan: u16,
    source: Source,
    /// The port it came by.
    slot: u32,
    port: &'static PortValue,
}

/// `Ok(None)`: the bridge's.
#[inline(always)]
fn try_forward(context: &XdpContext) -> Result<Option<u32>, Malformed> {
    let [d0, d1, d2, s0, s1, s2] = frame::pairs(context).ok_or(Malformed)?;
    let (destination, source) = ([d0, d1, d2], [s0, s1, s2]);
    if is_group(destination) {
        return Ok(None);
    }
    let ethernet = Ethernet::parse(context)?;
    let Some(arrival) = arrive(context, ethernet, source) else { return Ok(None) };
    let to_peers = arrival.port.flags & flag::TO_PEERS != 0;
    if to_peers && arrival.ethernet.destination == arrival.settings.mac {
        return arrival.to_gateway();
    }
    match maps::stand(&StationKey::new(arrival.vlan, destination)) {
        Stand::Port(slot) => arrival.to_port(slot),
        Stand::Peer if to_peers => Ok(arrival.to_socket(Verdict::ToPeer)),
        Stand::Peer | Stand::Elsewhere => Ok(None),
    }
}

#[inline(always)]
fn arrive(context: &XdpContext, ethernet: Ethernet, source: MacPairs) -> Option<Arrival<'_>> {
    let settings = maps::settings()?;
    let ifindex = context.ingress_ifindex() as u32;
    // A bridge that does not filter VLANs does not look at tags either: br_allowed_ingress in net/bridge/br_vlan.c.
    let vlan = if settings.vlan_filtering == 0 { 0 } else { vlan_of(ifindex, &ethernet)? };
    let (source, slot) = Source::find(&StationKey::new(vlan, source))?;
    let port = ports::port(slot)?;
    (port.ifindex == ifindex && port.flags & flag::FROM != 0).then_some(Arrival {
        context,
        settings,
        ethernet,
        vlan,
        source,
        slot,
        port,
    })
}

/// Broadcast and multicast.
#[inline(always)]
fn is_group([first, ..]: MacPairs) -> bool {
    first.to_ne_bytes()[0] & 1 != 0
}

/// The VLAN of a frame, where they are filtered; `None`: its port does not carry it, or its tag would have to change.
#[inline(always)]
fn vlan_of(ifindex: u32, ethernet: &Ethernet) -> Option<u16> {
    let slot = ports::slot_of(ifindex)?;
    let vlan = match ethernet.customer_tag() {
        None => ports::port(slot)?.pvid,
        // A tag with a priority only would become one with the port's VLAN, or go; another kind is none to the bridge.
        Some(vlan) => vlan,
    };
    if vlan == 0 {
        return None;
    }
    ports::carries_untagged(slot, vlan).map(|_| vlan)
}

impl Arrival<'_> {
    /// To the bridge's own address: tunnel packets go to the worker.
    #[inline(always)]
    fn to_gateway(&self) -> Result<Option<u32>, Malformed> {
        if !xdp::is_tunnel(self.context, self.settings, &self.ethernet)? {
            return Ok(None);
        }
        Ok(self.to_socket(Verdict::Tunnel))
    }

    /// To a station on the port in slot `to`.
    #[inline(always)]
    fn to_port(&self, to: u32) -> Result<Option<u32>, Malformed> {
        let Some(target) = ports::port(to) else { return Ok(None) };
        if target.flags & flag::TO == 0
            || to == self.slot
            || self.port.flags & target.flags & flag::ISOLATED != 0
            || !self.keeps_its_tag(to)
            || self.port.flags & flag::UNFINISHED != 0 && unfinished::may_be(self.context, &self.ethernet)?
        {
            return Ok(None);
        }
        let length = self.context.length();
        if length > target.max_frame {
            return Ok(Some(xdp::pass(Verdict::TooLong)));
        }
        let Ok(redirected) = ports::to_port(to, XDP_PASS) else { return Ok(None) };
        ports::count_to_port(self.slot, length);
        self.source.hear();
        if (self.port.flags | target.flags) & flag::CAPTURE != 0 {
            self.capture(to, Verdict::ToPort, length);
        }
        Ok(Some(redirected))
    }

    /// Whether the frame leaves the port in slot `to` as it came, tagged or not.
    #[inline(always)]
    fn keeps_its_tag(&self, to: u32) -> bool {
        self.settings.vlan_filtering == 0
            || ports::carries_untagged(to, self.vlan) == Some(!self.ethernet.is_tagged())
    }

    /// To the worker; `None`: it has no socket for this queue.
    #[inline(always)]
    fn to_socket(&self, verdict: Verdict) -> Option<u32> {
        if self.settings.vlan_filtering != 0 {
            return None;
        }
        let length = self.context.length();
        if length > self.settings.max_frame {
            return Some(xdp::pass(Verdict::TooLong));
        }
        let Ok(redirected) = maps::to_socket(self.slot, self.context.rx_queue_index(), XDP_PASS) else {
            return Some(xdp::pass(Verdict::NoSocket));
        };
        maps::count(verdict);
        ports::count_to_socket(self.slot, length);
        self.source.hear();
        if self.port.flags & flag::CAPTURE != 0 {
            self.capture(CaptureHeader::NO_PORT, verdict, length);
        }
        Some(redirected)
    }

    #[inline(always)]
    fn capture(&self, to: u32, verdict: Verdict, length: u32) {
        let header = CaptureHeader { time_ns: 0, from: self.slot, to, verdict: verdict as u32, length };
        ports::capture(self.context, header);
    }
}
