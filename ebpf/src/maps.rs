//! What the gateway tells the programs, and what they tell it.

#![allow(
    unsafe_code,
    reason = "one of the two fences: map values are shared with other CPUs and the gateway"
)]

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf, XskMap},
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::btf_map,
};
use common::{
    FdbKey, FdbValue, ListenerKey, ListenerKeyV6, Place, QUEUES, Settings, SourceEvent, Verdict,
    bridge::PORTS,
};

/// Of the ports of a kernel bridge.
pub mod ports;

#[btf_map]
static FDB: HashMap<FdbKey, FdbValue, { common::FDB_ENTRIES as usize }> = HashMap::new();
#[btf_map]
static LISTENERS: HashMap<ListenerKey, u32, { common::LISTENERS as usize }> = HashMap::new();
#[btf_map]
static LISTENERS_V6: HashMap<ListenerKeyV6, u32, { common::LISTENERS as usize }> = HashMap::new();
#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
static XSKS: XskMap<{ (PORTS * common::QUEUES) as usize }> = XskMap::new();
// Not `RingBuf<SourceEvent, _>`: libbpf takes the type's size for a value size, which a ring buffer must not have.
#[btf_map]
static EVENTS: RingBuf<(), { common::EVENTS_BYTES as usize }> = RingBuf::new();
#[btf_map]
static VERDICTS: PerCpuArray<u64, { common::VERDICTS as usize }> = PerCpuArray::new();
#[btf_map]
static HEARTBEAT: Array<u64, 1> = Array::new();
#[btf_map]
static FRAGMENTS: Array<u64, { common::FRAGMENT_MARKS as usize }> = Array::new();

/// Least age at which `last_seen_ns` is written anew: ageing counts in seconds, and a write costs every CPU the line.
const REFRESH_NS: u64 = 1_000_000_000;

/// What the forwarding database says of a station.
#[derive(Clone, Copy)]
pub enum Station {
    /// Nothing.
    Unknown,
    /// It stands behind a peer.
    Peer,
    /// It stands behind a peer, and nothing heard elsewhere changes that.
    FixedPeer,
    /// It is the host's own, on the wire, or of a kind this program is too old to know.
    Here,
}

/// The gateway's settings; until it has written them they are zero, and all frames pass.
#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// Where a station stands.
#[inline(always)]
pub fn station(key: &FdbKey) -> Station {
    // SAFETY: the value is read at once. Should the gateway remove the entry meanwhile, its slot may be taken by
    // another: then one frame is judged by a neighbour's entry, as it would have been a moment later or earlier.
    match unsafe { FDB.get(key) } {
        None => fixed_station(key),
        Some(value) => place_of(value),
    }
}

/// Fixed stations stand in every VLAN, under their key in VLAN 0: the host's own addresses are its own under any tag.
#[inline(always)]
fn fixed_station(key: &FdbKey) -> Station {
    if key.vlan == 0 {
        return Station::Unknown;
    }
    let untagged = FdbKey { vlan: 0, ..*key };
    // SAFETY: as in `station`.
    match unsafe { FDB.get(&untagged) } {
        Some(value) if value.fixed != 0 => place_of(value),
        _ => Station::Unknown,
    }
}

#[inline(always)]
fn place_of(value: &FdbValue) -> Station {
    match (value.place == Place::Peer as u32, value.fixed != 0) {
        (true, false) => Station::Peer,
        (true, true) => Station::FixedPeer,
        (false, _) => Station::Here,
    }
}

/// Notes that a station was heard on the wire, if that is where it is known to stand; else says where it does.
#[inline(always)]
pub fn hear(key: &FdbKey) -> Station {
    let Some(value) = FDB.get_ptr_mut(key) else { return fixed_station(key) };
    // SAFETY: as in `station`. The one field written is an aligned u64, which others see whole; at worst a neighbour's
    // entry is refreshed once.
    unsafe {
        if (*value).place == Place::Wire as u32 && (*value).fixed == 0 {
            let now = bpf_ktime_get_ns();
            if now.saturating_sub((*value).last_seen_ns) >= REFRESH_NS {
                (*value).last_seen_ns = now;
            }
        }
        place_of(&*value)
    }
}

/// Whether the gateway listens there.
#[inline(always)]
pub fn is_listener(key: &ListenerKey) -> bool {
    // SAFETY: only the entry's being there is looked at.
    unsafe { LISTENERS.get(key) }.is_some()
}

/// The same of IPv6.
#[inline(always)]
pub fn is_listener_v6(key: &ListenerKeyV6) -> bool {
    // SAFETY: as in `is_listener`.
    unsafe { LISTENERS_V6.get(key) }.is_some()
}

/// Tells the gateway of a new or moved source. A full ring loses the event; the next frame brings another.
#[inline(always)]
pub fn report(key: FdbKey) {
    let _ = EVENTS.output_untyped::<SourceEvent>(SourceEvent { key }, 0);
}

/// Where the mark of a fragmented datagram is kept. An aligned u64, which other CPUs see whole.
pub struct FragmentMark(*mut u64);

impl FragmentMark {
    /// The mark in `slot`.
    #[inline(always)]
    pub fn at(slot: u16) -> Option<Self> {
        FRAGMENTS.get_ptr_mut(slot.into()).map(Self)
    }

    /// What stands there.
    #[inline(always)]
    pub fn read(&self) -> u64 {
        // SAFETY: the pointer is to an element of an array map, which lives as long as the program; `volatile` because
        // other CPUs write there.
        unsafe { self.0.read_volatile() }
    }

    /// Writes it anew.
    #[inline(always)]
    pub fn write(&self, mark: u64) {
        // SAFETY: as in `read`.
        unsafe { self.0.write_volatile(mark) }
    }
}

/// Nanoseconds since boot, in steps of a few milliseconds, and cheaper for it.
#[inline(always)]
pub fn coarse_ns() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// A hardware address, as pairs of its bytes as they stand in memory.
pub type MacPairs = [u16; 3];

/// An [`FdbKey`] of segment 0, written in the words that the map's hash reads.
#[repr(C)]
pub struct StationKey([u32; 3]);

impl StationKey {
    /// The key of `mac` in VLAN `vlan`.
    #[inline(always)]
    pub fn new(vlan: u16, [first, second, third]: MacPairs) -> Self {
        Self([word(0, vlan), word(first, second), word(third, 0)])
    }

    #[inline(always)]
    fn as_key(&self) -> &FdbKey {
        const { assert!(size_of::<FdbKey>() == size_of::<StationKey>()) }
        // SAFETY: of the same size and no less aligned; an `FdbKey` is 12 bytes of integers, for which all values are
        // valid: segment, VLAN, three pairs of the address and what is always zero.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }
}

/// Two pairs as they stand in memory one after the other.
#[inline(always)]
fn word(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// A station on a wire, for the programs on the ports of a bridge.
#[derive(Clone, Copy)]
pub enum Stand {
    /// On the wire of the port in this slot.
    Port(u32),
    /// Behind a peer.
    Peer,
    /// Not where XDP could forward to.
    Elsewhere,
}

/// Where a station of a bridge stands: under this key alone.
#[inline(always)]
pub fn stand(key: &StationKey) -> Stand {
    // SAFETY: as in `station`.
    match unsafe { FDB.get(key.as_key()) } {
        Some(value) if value.place == Place::Wire as u32 => Stand::Port(value.port),
        Some(value) if value.place == Place::Peer as u32 => Stand::Peer,
        _ => Stand::Elsewhere,
    }
}

/// The slot of the port that a station stands on.
pub struct Source(*mut FdbValue);

impl Source {
    /// The station of this key, if it stands on a wire.
    #[inline(always)]
    pub fn find(key: &StationKey) -> Option<(Self, u32)> {
        let value = FDB.get_ptr_mut(key.as_key())?;
        // SAFETY: as in `station`.
        let (place, port) = unsafe { ((*value).place, (*value).port) };
        (place == Place::Wire as u32).then_some((Self(value), port))
    }

    /// Notes that it was heard: fixed or not, the bridge's own entry must not age either.
    #[inline(always)]
    pub fn hear(&self) {
        let now = coarse_ns();
        // SAFETY: as in `hear`.
        unsafe {
            if now.saturating_sub((*self.0).last_seen_ns) >= REFRESH_NS {
                (*self.0).last_seen_ns = now;
            }
        }
    }
}

/// Counts a verdict.
#[inline(always)]
pub fn count(verdict: Verdict) {
    if let Some(counter) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: the slot is this CPU's own, and XDP runs do not interrupt one another there.
        unsafe { *counter += 1 }
    }
}

/// Hands the current frame to the AF_XDP socket of `queue` of the NIC in `slot`; without one the answer is `otherwise`.
#[inline(always)]
pub fn to_socket(slot: u32, queue: u32, otherwise: u32) -> Result<u32, u32> {
    // The next slot's sockets follow, and the kernel drops what is for a socket of another NIC.
    if queue >= QUEUES {
        return Err(otherwise);
    }
    XSKS.redirect(slot * QUEUES + queue, otherwise.into())
}

/// Whether the gateway still lives, where no link ties the programs to its life.
#[inline(always)]
pub fn gateway_alive(settings: &Settings) -> bool {
    if settings.heartbeat_timeout_ns == 0 {
        return true;
    }
    // SAFETY: the helper has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let beat = HEARTBEAT.get(0).copied().unwrap_or(0);
    now.saturating_sub(beat) <= settings.heartbeat_timeout_ns
}
