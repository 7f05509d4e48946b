//! XDP on the NIC: one match from what a frame is to what is done with it.

use aya_ebpf::{bindings::xdp_action::XDP_PASS, programs::XdpContext};
use common::{Settings, Verdict};

use crate::{
    fragments,
    frame::Frame,
    maps::{self, Station},
    parse::{Ethernet, Ipv4, Ipv6, Malformed, Udp, UdpV6, is_group},
};

/// Decides about a frame and acts.
#[inline(always)]
pub fn steer(context: &XdpContext) -> u32 {
    let Some(settings) = maps::settings() else { return XDP_PASS };
    match classify(context, settings) {
        Ok(Some(verdict @ (Verdict::Tunnel | Verdict::ToPeer | Verdict::Flood))) => {
            redirect(context, settings, verdict)
        }
        // Not ours, or not understood: the kernel knows what to do.
        Ok(_) | Err(Malformed) => pass(Verdict::Pass),
    }
}

/// `Ok(None)`: the kernel's.
#[inline(always)]
fn classify(frame: &XdpContext, settings: &Settings) -> Result<Option<Verdict>, Malformed> {
    let ethernet = Ethernet::parse(frame)?;
    if ethernet.destination == settings.mac {
        return Ok(is_tunnel(frame, settings, &ethernet)?.then_some(Verdict::Tunnel));
    }
    // Groups belong to the host as well, so they pass, and TC clones them.
    if settings.bridge == 0 || is_group(ethernet.destination) {
        return Ok(None);
    }
    let verdict = match maps::station(&ethernet.destination_key()) {
        Station::Peer | Station::FixedPeer => Verdict::ToPeer,
        Station::Unknown => Verdict::Flood,
        Station::Here => return Ok(None),
    };
    // TC hears the sources of all that passes, but it does not see this frame.
    maps::hear(&ethernet.source_key());
    Ok(Some(verdict))
}

/// Whether a frame to the gateway's own address is a tunnel packet that the workers get.
#[inline(always)]
pub fn is_tunnel(frame: &XdpContext, settings: &Settings, ethernet: &Ethernet) -> Result<bool, Malformed> {
    let Some(ip) = Ipv4::parse(frame, ethernet)? else { return is_tunnel_v6(frame, settings, ethernet) };
    if ip.is_fragment() {
        return fragments::is_steered(frame, settings, &ip);
    }
    let udp = Udp::behind(frame, &ip)?;
    if maps::is_listener(&udp.destination) { udp.is_data(frame) } else { Ok(false) }
}

#[inline(always)]
fn is_tunnel_v6(frame: &XdpContext, settings: &Settings, ethernet: &Ethernet) -> Result<bool, Malformed> {
    let Some(ip) = Ipv6::parse(frame, ethernet)? else { return Ok(false) };
    if ip.has_fragment_header {
        return fragments::is_steered_v6(frame, settings, &ip);
    }
    let udp = UdpV6::behind(frame, &ip)?;
    if maps::is_listener_v6(&udp.destination(frame)?) { udp.is_data(frame) } else { Ok(false) }
}

#[inline(always)]
fn redirect(context: &XdpContext, settings: &Settings, verdict: Verdict) -> u32 {
    if context.length() > settings.max_frame {
        return pass(Verdict::TooLong);
    }
    match maps::to_socket(0, context.rx_queue_index(), XDP_PASS) {
        Ok(redirected) => {
            maps::count(verdict);
            redirected
        }
        Err(_) => pass(Verdict::NoSocket),
    }
}

/// Leaves the frame to the kernel, and counts that.
#[inline(always)]
pub fn pass(verdict: Verdict) -> u32 {
    maps::count(verdict);
    XDP_PASS
}
