//! Ports of a kernel bridge, by slot.

use core::{mem::offset_of, slice};

use aya_ebpf::{
    btf_maps::{Array, DevMap, HashMap, PerCpuArray, RingBuf},
    helpers::{bpf_ktime_get_ns, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::XdpContext,
};
use common::bridge::{
    CAPTURED_BYTES, CAPTURES_BYTES, CaptureHeader, PORTS as SLOT_COUNT, PortCounters, PortValue, VLAN_WORDS,
    VlanWord,
};

#[btf_map]
static SLOTS: HashMap<u32, u32, { SLOT_COUNT as usize }> = HashMap::new();
#[btf_map]
static PORTS: Array<PortValue, { SLOT_COUNT as usize }> = Array::new();
#[btf_map]
static VLANS: Array<VlanWord, { (SLOT_COUNT * VLAN_WORDS) as usize }> = Array::new();
#[btf_map]
static DEVMAP: DevMap<{ SLOT_COUNT as usize }> = DevMap::new();
#[btf_map]
static PORT_COUNTERS: PerCpuArray<PortCounters, { SLOT_COUNT as usize }> = PerCpuArray::new();
#[btf_map]
static CAPTURES: RingBuf<(), { CAPTURES_BYTES as usize }> = RingBuf::new();
#[btf_map]
static CAPTURE_SCRATCH: PerCpuArray<Record, 1> = PerCpuArray::new();

/// A captured frame on its way into the ring.
#[repr(C)]
struct Record {
    header: CaptureHeader,
    bytes: [u8; CAPTURED_BYTES as usize],
}

/// What the gateway says of the port in `slot`.
#[inline(always)]
pub fn port(slot: u32) -> Option<&'static PortValue> {
    PORTS.get(slot)
}

/// The slot of an interface.
#[inline(always)]
pub fn slot_of(ifindex: u32) -> Option<u32> {
    // SAFETY: the value is copied at once, and is one aligned u32.
    unsafe { SLOTS.get(&ifindex) }.copied()
}

/// How the port in `slot` carries a VLAN, if it does: `Some(true)`: without a tag.
#[inline(always)]
pub fn carries_untagged(slot: u32, vlan: u16) -> Option<bool> {
    let (word, bit) = (u32::from(vlan) / 64, u32::from(vlan) % 64);
    let vlans = VLANS.get(slot * VLAN_WORDS + word)?;
    (vlans.member >> bit & 1 == 1).then_some(vlans.untagged >> bit & 1 == 1)
}

/// Sends the current frame out of the port in `slot`; without a device there the answer is `otherwise`.
#[inline(always)]
pub fn to_port(slot: u32, otherwise: u32) -> Result<u32, u32> {
    DEVMAP.redirect(slot, otherwise.into())
}

/// Counts a frame that came by the port in `slot` and leaves by another.
#[inline(always)]
pub fn count_to_port(slot: u32, bytes: u32) {
    if let Some(counters) = PORT_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the counters are this CPU's own, and XDP runs do not interrupt one another there.
        unsafe {
            (*counters).frames_to_ports += 1;
            (*counters).bytes_to_ports += u64::from(bytes);
        }
    }
}

/// Counts a frame that came by the port in `slot` and was handed to an AF_XDP socket.
#[inline(always)]
pub fn count_to_socket(slot: u32, bytes: u32) {
    if let Some(counters) = PORT_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: as in `count_to_port`.
        unsafe {
            (*counters).frames_to_sockets += 1;
            (*counters).bytes_to_sockets += u64::from(bytes);
        }
    }
}

/// Copies a frame into the ring of captures. `header.time_ns` is filled in here.
#[inline(always)]
pub fn capture(context: &XdpContext, header: CaptureHeader) {
    if copy(context, &header).is_none()
        && let Some(counters) = PORT_COUNTERS.get_ptr_mut(header.from)
    {
        // SAFETY: as in `count_to_port`.
        unsafe { (*counters).uncaptured += 1 }
    }
}

/// `None`: the ring is full.
#[inline(always)]
fn copy(context: &XdpContext, header: &CaptureHeader) -> Option<()> {
    let record = CAPTURE_SCRATCH.get_ptr_mut(0)?;
    // Not `min` alone: that a frame is not empty has to be seen from the number itself, which the verifier follows
    // where it would not follow comparisons.
    let bytes = (header.length.min(CAPTURED_BYTES).wrapping_sub(1) & (CAPTURED_BYTES - 1)) + 1;
    // SAFETY: `record` is this CPU's own, and XDP runs do not interrupt one another there. The helper writes at most
    // CAPTURED_BYTES to an array of so many, or fails. What is lent to the ring lies within the record, is initialised
    // as all of a map is, and is copied before anybody writes there again.
    unsafe {
        (*record).header = CaptureHeader { time_ns: bpf_ktime_get_ns(), ..*header };
        let place = (&raw mut (*record).bytes).cast();
        if bpf_xdp_load_bytes(context.ctx, 0, place, bytes) != 0 {
            return None;
        }
        let length = offset_of!(Record, bytes) + bytes as usize;
        CAPTURES.output_untyped::<[u8]>(slice::from_raw_parts(record.cast::<u8>(), length), 0).ok()
    }
}
