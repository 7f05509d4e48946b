//! The ruler's XDP programs.
//!
//! ```text
//!   BPF_PROG_RUN, live frames ──► generate, replay ──redirect──► wire ═══► ens5: the system under test
//!                                                    count ◄──── wire ◄═══ ens5
//! ```
//! `generate` and `replay` are run on frames that the kernel makes for them. A frame whose time has not come is dropped,
//! which costs next to nothing: so a load is paced to some microseconds without a timer. `count` is the far end: what
//! belongs to the load is counted and dropped, all else passes. `steer` feeds the null forwarder.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the program macros lose the comments of what they wrap")]

mod count;
mod load;
#[allow(dead_code, reason = "the ruler uses the rest")]
mod shared;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    btf_maps::XskMap,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use shared::ETHERTYPE_LOAD;

#[btf_map]
static XSKS: XskMap<64> = XskMap::new();

/// Sends the frame it is run on when it is due.
#[xdp]
pub fn generate(context: XdpContext) -> u32 {
    load::generate(&context).unwrap_or(XDP_DROP)
}

/// Sends the next packet of the recording when it is due.
#[xdp]
pub fn replay(context: XdpContext) -> u32 {
    load::replay(&context).unwrap_or(XDP_DROP)
}

/// Counts and drops what belongs to the load, and passes the rest.
#[xdp]
pub fn count(context: XdpContext) -> u32 {
    match count::classify(&context) {
        Some(class) => {
            count::count(class);
            XDP_DROP
        }
        None => XDP_PASS,
    }
}

/// Plain frames of the load to the socket of their queue.
#[xdp]
pub fn steer(context: XdpContext) -> u32 {
    if count::ethertype(&context) != Some(ETHERTYPE_LOAD) {
        return XDP_PASS;
    }
    XSKS.redirect(context.rx_queue_index(), XDP_PASS.into()).unwrap_or_else(|otherwise| otherwise)
}

/// The kernel's helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Never linked: the verifier would refuse the endless loop.
    loop {}
}
