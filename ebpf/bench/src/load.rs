//! Sending, paced.

use aya_ebpf::{
    btf_maps::Array,
    helpers::{bpf_ktime_get_ns, bpf_redirect, bpf_xdp_adjust_tail, bpf_xdp_store_bytes},
    macros::btf_map,
    programs::XdpContext,
};

use crate::shared::{Orders, Progress, SLOT_HEADER};

#[btf_map]
static ORDERS: Array<Orders, 1> = Array::new();
#[btf_map]
static PROGRESS: Array<Progress, 1> = Array::new();
// The ruler gives it the size and number of its packets before it loads the programs.
#[btf_map]
static RECORDING: Array<[u64; 16], 1> = Array::new();

/// Longest packet of the recording in bytes: written by the ruler before loading, so that the verifier knows it.
#[unsafe(no_mangle)]
static PACKET_ROOM: u32 = 120;

/// How late a frame may be made up for: what is later is not sent at all, and not counted as offered. Longer, and a
/// pause of the load's processor becomes a burst that no sender would have sent; shorter than what 64 frames set off on
/// it (a bridge takes 130 µs), and the rate sags.
const MAKE_UP_NS: u64 = 1_000_000;

/// The verdict on a frame of the generator; `None` while none is due.
#[inline(always)]
pub fn generate(context: &XdpContext) -> Option<u32> {
    let orders = ORDERS.get(0)?;
    let number = take(orders)?;
    if orders.destinations > 1 {
        let destination = orders.first_destination.wrapping_add(number % orders.destinations) as u32;
        let bytes = destination.to_be_bytes();
        // SAFETY: the helper reads four bytes of an array of four, and checks the frame's bounds itself.
        unsafe { bpf_xdp_store_bytes(context.ctx, 2, bytes.as_ptr().cast_mut().cast(), 4) };
    }
    redirect(orders)
}

/// The verdict on a frame that becomes the next packet of the recording; `None` while none is due.
#[inline(always)]
pub fn replay(context: &XdpContext) -> Option<u32> {
    let orders = ORDERS.get(0)?;
    let number = take(orders)?;
    let slot = RECORDING.get_ptr(u32::try_from(number).ok()?)?.cast::<u8>();
    // SAFETY: a slot begins with its length, eight bytes of it; it is read at once, and nobody writes while it is sent.
    let length = unsafe { *slot.cast::<u64>() };
    // SAFETY: a static is valid for reads; volatile since the ruler writes another value before loading.
    let room = unsafe { core::ptr::read_volatile(&raw const PACKET_ROOM) };
    if length == 0 || length > u64::from(room) {
        return None;
    }
    let length = length as u32;
    let shorter = length as i32 - (context.data_end() - context.data()) as i32;
    // SAFETY: the helper takes the context the program was called with; it refuses what does not fit.
    if shorter != 0 && unsafe { bpf_xdp_adjust_tail(context.ctx, shorter) } != 0 {
        return None;
    }
    // SAFETY: a slot has room for the header and PACKET_ROOM bytes, and `length` is no more, which the verifier checks
    // against the map's size; the helper checks the frame's bounds itself.
    let failed =
        unsafe { bpf_xdp_store_bytes(context.ctx, 0, slot.add(SLOT_HEADER).cast_mut().cast(), length) };
    if failed != 0 {
        return None;
    }
    redirect(orders)
}

/// The number of the frame that is due now, from 0.
#[inline(always)]
fn take(orders: &Orders) -> Option<u64> {
    if orders.sending == 0 {
        return None;
    }
    // SAFETY: one processor at a time runs a load, and the ruler only reads what the programs write.
    let progress = unsafe { &mut *PROGRESS.get_ptr_mut(0)? };
    progress.runs += 1;
    if progress.sent >= orders.limit {
        return None;
    }
    if orders.gap_ns != 0 {
        // SAFETY: the helper has no precondition.
        let now = unsafe { bpf_ktime_get_ns() };
        if now < progress.next_ns {
            return None;
        }
        progress.next_ns = progress.next_ns.max(now.saturating_sub(MAKE_UP_NS)) + orders.gap_ns;
    }
    let number = progress.sent;
    progress.sent = number + 1;
    Some(number)
}

#[inline(always)]
fn redirect(orders: &Orders) -> Option<u32> {
    // SAFETY: the helper only notes its arguments, for any values of them.
    Some(unsafe { bpf_redirect(orders.interface as u32, 0) } as u32)
}
