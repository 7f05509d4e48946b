//! Telling what belongs to the load, and counting it.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
    programs::XdpContext,
};

use crate::shared::{CLASSES, Class, ETHERTYPE_LOAD, PORT_ANY, PORT_OPENVPN, SERVER_PORT};

#[btf_map]
static PORTS: Array<u32, 65_536> = Array::new();
#[btf_map]
static COUNTS: PerCpuArray<u64, CLASSES> = PerCpuArray::new();

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const ETHERTYPE_IPV4: u16 = 0x0800;
/// Version 4, header of five words: no system under test writes options.
const VERSION_AND_LENGTH: u8 = 0x45;
const PROTOCOL_UDP: u8 = 17;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// A keepalive is a UDP datagram of 48 bytes, a sealed frame one of at least 92: shorter ones pass.
const SHORTEST_DATAGRAM: u16 = 72;
/// Opcode P_DATA_V2 in the upper five bits, for any key.
const DATA_V2: u8 = 9;

/// What of the load a frame is; `None`: something else.
#[inline(always)]
pub fn classify(frame: &XdpContext) -> Option<Class> {
    match ethertype(frame)? {
        ETHERTYPE_LOAD => Some(Class::Plain),
        ETHERTYPE_IPV4 => tunnel(frame),
        _ => None,
    }
}

/// The frame's EtherType.
#[inline(always)]
pub fn ethertype(frame: &XdpContext) -> Option<u16> {
    read::<2>(frame, 12).map(u16::from_be_bytes)
}

#[inline(always)]
fn tunnel(frame: &XdpContext) -> Option<Class> {
    let ip = read::<IPV4>(frame, ETHERNET)?;
    if ip[0] != VERSION_AND_LENGTH || ip[9] != PROTOCOL_UDP {
        return None;
    }
    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    if fragment & FRAGMENT_OFFSET != 0 {
        return Some(Class::LaterFragment);
    }
    let [s0, s1, d0, d1, l0, l1, _, _, opcode, _] = read::<10>(frame, ETHERNET + IPV4)?;
    if u16::from_be_bytes([s0, s1]) != SERVER_PORT || u16::from_be_bytes([l0, l1]) < SHORTEST_DATAGRAM {
        return None;
    }
    let belongs = match *PORTS.get(u16::from_be_bytes([d0, d1]).into())? {
        PORT_OPENVPN => opcode >> 3 == DATA_V2,
        kind => kind == PORT_ANY,
    };
    match (belongs, fragment & MORE_FRAGMENTS) {
        (false, _) => None,
        (true, 0) => Some(Class::Tunnel),
        (true, _) => Some(Class::FirstFragment),
    }
}

/// Counts a frame.
#[inline(always)]
pub fn count(class: Class) {
    if let Some(counter) = COUNTS.get_ptr_mut(class as u32) {
        // SAFETY: the slot is this CPU's own, and XDP runs do not interrupt one another there.
        unsafe { *counter += 1 }
    }
}

/// `N` bytes at `at`, or `None` where the frame ends before.
#[inline(always)]
fn read<const N: usize>(frame: &XdpContext, at: usize) -> Option<[u8; N]> {
    let start = frame.data() + at;
    if start + N > frame.data_end() {
        return None;
    }
    // SAFETY: start..start + N lies within data..data_end, checked above, as the verifier checks again; an array of
    // bytes has no alignment and no invalid values.
    Some(unsafe { *(start as *const [u8; N]) })
}
