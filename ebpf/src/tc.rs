//! TC on the NIC and on the host port: what of the kernel's traffic the peers get, and what of theirs the host gets.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_UNSPEC},
    programs::TcContext,
};
use common::{MARK_INJECTED, Settings};

use crate::{
    frame,
    maps::{self, Station},
    parse::{Ethernet, Malformed, Udp, UdpV6, is_group},
};

/// What is done with a frame of the stack.
pub enum Action {
    /// It goes on, to other programs and filters first.
    Pass,
    /// It was put here by the gateway: it goes on without our mark.
    PassUnmarked,
    /// The gateway gets it, nobody else.
    ToHostPort,
    /// The gateway gets a copy, and it goes on.
    CloneToHostPort,
    /// The host gets it as if it came from the wire of this NIC.
    IntoHost,
}

/// Does it, and says so in TC's terms.
//
// The action carries no interface, and the settings are looked up again: the compiler keeps values that belong to one
// action only in registers that hold pointers for another, which verifiers refuse.
#[inline(always)]
pub fn act(context: &TcContext, action: Action) -> i32 {
    let Some(settings) = maps::settings() else { return TC_ACT_UNSPEC };
    match action {
        Action::Pass => TC_ACT_UNSPEC,
        Action::PassUnmarked => {
            context.set_mark(0);
            TC_ACT_UNSPEC
        }
        Action::ToHostPort => frame::redirect(settings.host_port, 0),
        Action::CloneToHostPort => {
            // Without memory for the copy the peers miss the frame; the host must not.
            let _ = context.clone_redirect(settings.host_port, 0);
            TC_ACT_UNSPEC
        }
        Action::IntoHost => {
            context.set_mark(MARK_INJECTED);
            frame::redirect(settings.nic, BPF_F_INGRESS.into())
        }
    }
}

/// A frame the host is about to receive from the NIC.
#[inline(always)]
pub fn from_wire(context: &TcContext) -> Action {
    if frame::mark(context) == MARK_INJECTED {
        return Action::PassUnmarked;
    }
    let Some(settings) = switching() else { return Action::Pass };
    let Ok(ethernet) = Ethernet::parse(context) else { return Action::Pass };
    learn(&ethernet);
    if ethernet.destination == settings.mac {
        return Action::Pass;
    }
    forward(&ethernet)
}

/// A frame the host is about to send to the NIC.
#[inline(always)]
pub fn from_host(context: &TcContext) -> Action {
    // The gateway marks what it sends to the wire through the stack: the peers have had it.
    if frame::mark(context) == MARK_INJECTED {
        return Action::PassUnmarked;
    }
    if switching().is_none() {
        return Action::Pass;
    }
    let Ok(ethernet) = Ethernet::parse(context) else { return Action::Pass };
    match forward(&ethernet) {
        Action::Pass => Action::Pass,
        // Looked at last, for the next hops of tunnel packets are known to stand on the wire.
        _ if is_tunnel(context, &ethernet) => Action::Pass,
        action => action,
    }
}

/// A frame the workers wrote to the host port.
#[inline(always)]
pub fn from_peers() -> Action {
    match maps::settings() {
        Some(settings) if settings.bridge != 0 && settings.nic != 0 => Action::IntoHost,
        _ => Action::Pass,
    }
}

/// The settings, if there is a living gateway that switches between wire and peers.
#[inline(always)]
fn switching() -> Option<&'static Settings> {
    let settings = maps::settings()?;
    (settings.bridge != 0 && settings.host_port != 0 && maps::gateway_alive(settings)).then_some(settings)
}

#[inline(always)]
fn forward(ethernet: &Ethernet) -> Action {
    if is_group(ethernet.destination) {
        return Action::CloneToHostPort;
    }
    match maps::station(&ethernet.destination_key()) {
        Station::Peer | Station::FixedPeer => Action::ToHostPort,
        Station::Unknown => Action::CloneToHostPort,
        Station::Here => Action::Pass,
    }
}

#[inline(always)]
fn learn(ethernet: &Ethernet) {
    if !ethernet.has_valid_source() {
        return;
    }
    match maps::hear(&ethernet.source_key()) {
        Station::Unknown | Station::Peer => maps::report(ethernet.source_key()),
        Station::FixedPeer | Station::Here => {}
    }
}

/// Whether it is a tunnel packet the gateway sent. (A later fragment of one has no port: it is recognised by its
/// next hop, which the forwarding database has on the wire.)
#[inline(always)]
fn is_tunnel(context: &TcContext, ethernet: &Ethernet) -> bool {
    match Udp::parse(context, ethernet) {
        Ok(Some(udp)) => maps::is_listener(&udp.source),
        Ok(None) => is_tunnel_v6(context, ethernet).unwrap_or(false),
        Err(Malformed) => false,
    }
}

#[inline(always)]
fn is_tunnel_v6(context: &TcContext, ethernet: &Ethernet) -> Result<bool, Malformed> {
    match UdpV6::parse(context, ethernet)? {
        Some(udp) => Ok(maps::is_listener_v6(&udp.source(context)?)),
        None => Ok(false),
    }
}
