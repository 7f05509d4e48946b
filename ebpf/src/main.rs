//! Trestle's XDP and TC programs: from what a frame is to what is done with it.
//!
//! ```text
//!                 wire                                     host's stack
//!                  │                                        ▲       │
//!   ┌──────────────▼────────────── NIC ─────────────────────┼───────▼──────┐
//!   │           xdp_nic ── PASS ──────────► tc_nic_in ──────┘   tc_nic_out │
//!   └──────────────┼─────────────────────────▲   │                  │──────┘► wire
//!        Tunnel, ToPeer, Flood         marked│   │clone, redirect   │clone, redirect
//!                  ▼                         │   ▼                  ▼
//!             XSKS[queue]               tc_host_in ◄── host port (TAP) ──► worker
//! ```
//!
//! On the ports of a kernel bridge stands `xdp_port` alone ([`bridge`]).
//!
//! Read on in the order of a frame: [`frame`] (the one accessor), [`parse`] (what it is), [`xdp`], [`bridge`] and [`tc`]
//! (what becomes of it), [`fragments`] (of a datagram, which stay together), [`unfinished`] (checksums), [`maps`] (what the
//! gateway told us). Whatever is not fully understood is passed to the kernel.
//! `unsafe` stands in [`frame`] and [`maps`] only.
#![no_std]
#![no_main]
#![deny(unsafe_code)]
#![expect(missing_docs, reason = "the program macros lose the comments of what they wrap")]

mod bridge;
mod fragments;
mod frame;
mod maps;
mod parse;
mod tc;
mod unfinished;
mod xdp;

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// On the NIC: steers tunnel packets and frames for peers to the workers.
#[xdp]
#[allow(unsafe_code, reason = "the macro exports the symbol")]
pub fn xdp_nic(context: XdpContext) -> u32 {
    xdp::steer(&context)
}

/// On a port of a kernel bridge: forwards what the bridge has learnt.
#[xdp]
#[allow(unsafe_code, reason = "the macro exports the symbol")]
pub fn xdp_port(context: XdpContext) -> u32 {
    bridge::forward(&context)
}

/// Passes everything: a veth's far end needs a program before frames can be sent to it.
#[xdp]
#[allow(unsafe_code, reason = "the macro exports the symbol")]
pub fn xdp_pass(_context: XdpContext) -> u32 {
    XDP_PASS
}

/// On the NIC, towards the host: what XDP passed, and what the host port injects.
#[classifier]
#[allow(unsafe_code, reason = "the macro exports the symbol")]
pub fn tc_nic_in(context: TcContext) -> i32 {
    tc::act(&context, tc::from_wire(&context))
}

/// On the NIC, from the host: its own frames, of which the peers get theirs.
#[classifier]
#[allow(unsafe_code, reason = "the macro exports the symbol")]
pub fn tc_nic_out(context: TcContext) -> i32 {
    tc::act(&context, tc::from_host(&context))
}

/// On the host port: frames the workers wrote for the host.
#[classifier]
#[allow(unsafe_code, reason = "the macro exports the symbol")]
pub fn tc_host_in(context: TcContext) -> i32 {
    tc::act(&context, tc::from_peers())
}

/// The kernel's helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the loader looks for this section and symbol")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Never linked: the verifier would refuse the endless loop.
    loop {}
}
