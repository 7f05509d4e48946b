//! The one way to read a frame: copies out of it, each checked against its end.

#![allow(unsafe_code, reason = "one of the two fences: packet pointers and context fields")]

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_redirect, bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};

/// A frame, as either hook has it.
pub trait Frame {
    /// `N` bytes from the constant offset `at`, or `None` where the frame ends before. Two at least: a comparison that allows one
    /// byte (`start < end`) teaches the verifier nothing.
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// The same at an offset that depends on the frame. Slower: direct access there would need CAP_PERFMON, without
    /// which the verifier allows no arithmetic on packet pointers but with constants.
    fn read_far<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Length in bytes, with the Ethernet header.
    fn length(&self) -> u32;

    /// The tag control information that the kernel took out of the frame and keeps beside it.
    fn stripped_tag(&self) -> Option<u16>;
}

impl Frame for XdpContext {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        const { assert!(N >= 2) }
        let start = self.data() + at;
        if start + N > self.data_end() {
            return None;
        }
        // SAFETY: start..start + N lies within data..data_end, checked above, as the verifier checks again; an array
        // of bytes has no alignment and no invalid values.
        Some(unsafe { *(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn read_far<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes N bytes to an array of N bytes, or fails.
        let failed = unsafe { bpf_xdp_load_bytes(self.ctx, at as u32, bytes.as_mut_ptr().cast(), N as u32) };
        // SAFETY: it has not failed, so all N bytes have been written.
        (failed == 0).then(|| unsafe { bytes.assume_init() })
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // Not `data_end - data`: of a frame in several buffers that is the first one only.
        // SAFETY: the helper takes the context the program was called with, which `self` holds.
        let bytes = unsafe { bpf_xdp_get_buff_len(self.ctx) };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    #[inline(always)]
    fn stripped_tag(&self) -> Option<u16> {
        None
    }
}

/// The first `N` pairs of bytes, each as it stands in memory. What is read in bytes is stored in bytes, and a map's hash
/// then waits for those stores: 7 ns of a frame's 57 in test runs of `xdp_port`.
#[inline(always)]
pub fn pairs<const N: usize>(frame: &XdpContext) -> Option<[u16; N]> {
    let start = frame.data();
    if start + N * 2 > frame.data_end() {
        return None;
    }
    // SAFETY: as in `read`. Where frames begin is up to the driver; loads of BPF need no alignment where the verifier
    // allows them, and it refuses them on a machine that does.
    Some(unsafe { *(start as *const [u16; N]) })
}

impl Frame for TcContext {
    /// By the helper: a frame of the stack may have its bytes anywhere, not only where direct access reaches. Nothing
    /// is zeroed before: the compiler's loop for that is more than the verifier grants without CAP_PERFMON.
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes N bytes to an array of N bytes, or fails.
        let failed = unsafe {
            bpf_skb_load_bytes(
                self.skb.skb.cast_const().cast(),
                at as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        // SAFETY: it has not failed, so all N bytes have been written.
        (failed == 0).then(|| unsafe { bytes.assume_init() })
    }

    #[inline(always)]
    fn read_far<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.read(at)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn stripped_tag(&self) -> Option<u16> {
        let skb = fields(self);
        (skb.vlan_present != 0).then_some(skb.vlan_tci as u16)
    }
}

/// The mark of a frame of the stack.
#[inline(always)]
pub fn mark(context: &TcContext) -> u32 {
    fields(context).mark
}

/// Sends the frame to interface `index` when the program has returned this; the flag turns it to what that receives.
#[inline(always)]
pub fn redirect(index: u32, flags: u64) -> i32 {
    // SAFETY: the helper only notes its arguments, for any values of them.
    unsafe { bpf_redirect(index, flags) as i32 }
}

#[inline(always)]
fn fields(context: &TcContext) -> &__sk_buff {
    // SAFETY: the kernel calls the program with a valid context, which outlives the call and so `context`.
    unsafe { &*context.skb.skb }
}
