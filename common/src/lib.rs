//! What the eBPF programs and the gateway must agree on: keys and values of the shared maps, and their limits.
//!
//! Every type is `repr(C)`, has no implicit padding, and is plain data. Integers are in host order unless a field
//! says otherwise. The eBPF side reads and writes the types themselves; the gateway goes through `to_bytes` and
//! `from_bytes`, so that neither side needs to believe anything about the other's memory.
#![no_std]
#![forbid(unsafe_code)]

/// What concerns the ports of a kernel bridge.
pub mod bridge;

/// A hardware address as it stands in a frame.
pub type Mac = [u8; 6];

/// Most entries the forwarding database holds; the control thread, its only writer, stops learning there.
pub const FDB_ENTRIES: u32 = 65_536;
/// Most (address, port) pairs the gateway listens on, of IPv4 and again of IPv6.
pub const LISTENERS: u32 = 256;
/// Most receive queues, hence workers, of one NIC.
pub const QUEUES: u32 = 64;
/// Datagrams whose fragments XDP can tell apart: one for each IPv4 identification of one pair of addresses.
pub const FRAGMENT_MARKS: u32 = 65_536;
/// How long after its first fragment the others of a datagram still follow it, in nanoseconds. A sender sends them back
/// to back, so disorder of the path is all that has to pass meanwhile. Too low splits datagrams between worker and
/// kernel; too high keeps a datagram's ruins where the next one with its identification comes: at 100,000 a second that
/// is after 0.65 s.
pub const FRAGMENT_AGE_NS: u64 = 500_000_000;
/// Size of the ring that reports new and moved source addresses, in bytes.
pub const EVENTS_BYTES: u32 = 256 * 1024;

/// Set in `skb->mark` of a frame on its way from the host port into the host, so that it is not cloned back; the
/// NIC's ingress program zeroes it before the host's stack sees it.
pub const MARK_INJECTED: u32 = 0x7472_6573;

/// Who a MAC address stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Place {
    /// The gateway host itself, with its macvlan and VRRP addresses.
    Host = 1,
    /// A station on the NIC's wire.
    Wire = 2,
    /// A station behind a peer.
    Peer = 3,
}

/// Key of the forwarding database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FdbKey {
    /// Ethernet segment; 0 until there are several.
    pub segment: u16,
    /// VLAN id 0..=4095; 0 for untagged and priority-tagged frames.
    pub vlan: u16,
    /// The station.
    pub mac: Mac,
    /// Always zero: the map compares it.
    pub reserved: u16,
}

impl FdbKey {
    /// The key of `mac` in VLAN `vlan` of segment 0.
    pub const fn new(vlan: u16, mac: Mac) -> Self {
        Self { segment: 0, vlan, mac, reserved: 0 }
    }
}

/// In two numbers instead of five: every frame is looked up twice.
impl core::hash::Hash for FdbKey {
    #[inline]
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        let [m0, m1, m2, m3, m4, m5] = self.mac;
        let [v0, v1] = self.vlan.to_ne_bytes();
        state.write_u64(u64::from_ne_bytes([m0, m1, m2, m3, m4, m5, v0, v1]));
        state.write_u16(self.segment);
    }
}

/// Value of the forwarding database as the eBPF programs see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FdbValue {
    /// A [`Place`] as its number.
    pub place: u32,
    /// 1: never learnt over and never aged (the host's own addresses, next hops in use).
    pub fixed: u32,
    /// Of a station on a wire of several: the slot of its NIC in [`names::PORTS`].
    pub port: u32,
    /// Always zero.
    pub reserved: u32,
    /// `bpf_ktime_get_ns` when the station was last heard on the wire; only the eBPF programs write it after insertion.
    pub last_seen_ns: u64,
}

/// Key of the listener set of IPv4: where tunnel packets are addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ListenerKey {
    /// IPv4 address in network order, as it stands in the packet.
    pub address: [u8; 4],
    /// UDP port in network order.
    pub port: [u8; 2],
    /// Always zero.
    pub reserved: [u8; 2],
}

/// Key of the listener set of IPv6. A set of its own: a longer key takes longer to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ListenerKeyV6 {
    /// IPv6 address as it stands in the packet.
    pub address: [u8; 16],
    /// UDP port in network order.
    pub port: [u8; 2],
    /// Always zero.
    pub reserved: [u8; 2],
}

/// The one value of the settings map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Interface index of the NIC.
    pub nic: u32,
    /// Interface index of the host port (TAP).
    pub host_port: u32,
    /// 1: the NIC's wire is a port of the segment (bridge mode). 0: underlay, only tunnel packets are steered.
    pub bridge: u32,
    /// Longest frame XDP hands to an AF_XDP socket, in bytes with the Ethernet header; longer ones (unsplit TCP
    /// segments in generic mode) are passed.
    pub max_frame: u32,
    /// Hardware address of the NIC, or of the bridge it is a port of: tunnel packets are addressed to it.
    pub mac: Mac,
    /// 1: fragments of tunnel packets are steered as well. Only where every receive queue has an AF_XDP socket: the
    /// fragments of one packet may come by several.
    pub fragments: u16,
    /// Heartbeat time-out in nanoseconds; 0: the programs are held by links and need no heartbeat.
    pub heartbeat_timeout_ns: u64,
    /// 1: the kernel bridge filters VLANs. 0: it does not look at tags, and every key has VLAN 0.
    pub vlan_filtering: u32,
    /// Always zero.
    pub reserved: u32,
}

/// A source address that TC saw on the wire and the forwarding database does not place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SourceEvent {
    /// The station, with its VLAN.
    pub key: FdbKey,
}

/// What XDP decided about a frame: index into the per-CPU verdict counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// A tunnel data packet or a fragment of one, to the worker.
    Tunnel = 0,
    /// Unicast to a station behind a peer, to the worker.
    ToPeer = 1,
    /// Unicast to an unknown station, to the worker, which floods it to the peers.
    Flood = 2,
    /// Left to the kernel.
    Pass = 3,
    /// Longer than [`Settings::max_frame`], left to the kernel.
    TooLong = 4,
    /// The queue has no AF_XDP socket, left to the kernel.
    NoSocket = 5,
    /// Unicast between two ports of a kernel bridge. Counted by the port only, see [`bridge::PortCounters`].
    ToPort = 6,
}

/// Number of [`Verdict`]s that are counted.
pub const VERDICTS: u32 = 6;

/// Names of the maps and programs in the eBPF object.
pub mod names {
    /// `HashMap<FdbKey, FdbValue>`.
    pub const FDB: &str = "FDB";
    /// `HashMap<ListenerKey, u32>`.
    pub const LISTENERS: &str = "LISTENERS";
    /// `HashMap<ListenerKeyV6, u32>`.
    pub const LISTENERS_V6: &str = "LISTENERS_V6";
    /// `Array<Settings>` with one value.
    pub const SETTINGS: &str = "SETTINGS";
    /// `XskMap`, by slot times [`crate::QUEUES`] plus receive queue.
    pub const XSKS: &str = "XSKS";
    /// `RingBuf` of `SourceEvent`.
    pub const EVENTS: &str = "EVENTS";
    /// `PerCpuArray<u64>`, by `Verdict`.
    pub const VERDICTS: &str = "VERDICTS";
    /// `Array<u64>` with one value: `bpf_ktime_get_ns` (CLOCK_MONOTONIC) of the gateway's last heartbeat.
    pub const HEARTBEAT: &str = "HEARTBEAT";
    /// `Array<u64>`, by a hash of addresses and identification: the programs' own.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// `HashMap<u32, u32>`: interface index to slot. Looked up where VLANs are filtered, ahead of all else.
    pub const SLOTS: &str = "SLOTS";
    /// `Array<PortValue>`, by slot.
    pub const PORTS: &str = "PORTS";
    /// `Array<VlanWord>`, by slot times [`crate::bridge::VLAN_WORDS`] plus word.
    pub const VLANS: &str = "VLANS";
    /// `DevMap`, by slot.
    pub const DEVMAP: &str = "DEVMAP";
    /// `PerCpuArray<PortCounters>`, by slot.
    pub const PORT_COUNTERS: &str = "PORT_COUNTERS";
    /// `RingBuf`: each record a [`crate::bridge::CaptureHeader`] and the frame's bytes.
    pub const CAPTURES: &str = "CAPTURES";
    /// `PerCpuArray` of one record: the programs' own.
    pub const CAPTURE_SCRATCH: &str = "CAPTURE_SCRATCH";
    /// XDP program for a port of a kernel bridge.
    pub const XDP_PORT: &str = "xdp_port";
    /// XDP program for the NIC.
    pub const XDP_NIC: &str = "xdp_nic";
    /// TC program: frames the host receives from the NIC.
    pub const TC_NIC_IN: &str = "tc_nic_in";
    /// TC program: frames the host sends to the NIC.
    pub const TC_NIC_OUT: &str = "tc_nic_out";
    /// TC program: frames the workers wrote to the host port, on their way into the host.
    pub const TC_HOST_IN: &str = "tc_host_in";
    /// XDP program that passes everything (a veth's far end needs one before frames can be sent to it).
    pub const XDP_PASS: &str = "xdp_pass";
}

impl FdbKey {
    /// Size in the map.
    pub const SIZE: usize = 12;

    /// As it stands in the map.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..2].copy_from_slice(&self.segment.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.vlan.to_ne_bytes());
        bytes[4..10].copy_from_slice(&self.mac);
        bytes[10..12].copy_from_slice(&self.reserved.to_ne_bytes());
        bytes
    }

    /// From what stands in the map, or in a [`SourceEvent`], which is the key alone.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [s0, s1, v0, v1, m0, m1, m2, m3, m4, m5, r0, r1] = bytes;
        Self {
            segment: u16::from_ne_bytes([s0, s1]),
            vlan: u16::from_ne_bytes([v0, v1]),
            mac: [m0, m1, m2, m3, m4, m5],
            reserved: u16::from_ne_bytes([r0, r1]),
        }
    }
}

impl FdbValue {
    /// Size in the map.
    pub const SIZE: usize = 24;

    /// As it stands in the map.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let words = [self.place, self.fixed, self.port, self.reserved];
        for (at, word) in words.into_iter().enumerate() {
            bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[16..24].copy_from_slice(&self.last_seen_ns.to_ne_bytes());
        bytes
    }

    /// From what stands in the map.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [words @ .., s0, s1, s2, s3, s4, s5, s6, s7] = bytes;
        let mut words = words.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        Self {
            place: next(),
            fixed: next(),
            port: next(),
            reserved: next(),
            last_seen_ns: u64::from_ne_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        }
    }
}

impl ListenerKey {
    /// Size in the map.
    pub const SIZE: usize = 8;

    /// As it stands in the map.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let [a, b, c, d] = self.address;
        let [p, q] = self.port;
        [a, b, c, d, p, q, 0, 0]
    }
}

impl ListenerKeyV6 {
    /// Size in the map.
    pub const SIZE: usize = 20;

    /// As it stands in the map.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..16].copy_from_slice(&self.address);
        bytes[16..18].copy_from_slice(&self.port);
        bytes
    }
}

impl Settings {
    /// Size in the map.
    pub const SIZE: usize = 40;

    /// As it stands in the map.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let words = [self.nic, self.host_port, self.bridge, self.max_frame];
        for (at, word) in words.into_iter().enumerate() {
            bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[16..22].copy_from_slice(&self.mac);
        bytes[22..24].copy_from_slice(&self.fragments.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.heartbeat_timeout_ns.to_ne_bytes());
        bytes[32..36].copy_from_slice(&self.vlan_filtering.to_ne_bytes());
        bytes
    }
}

// The eBPF side uses the types, the gateway the bytes: sizes and offsets agree by these.
const _: () = {
    assert!(size_of::<FdbKey>() == FdbKey::SIZE && core::mem::offset_of!(FdbKey, mac) == 4);
    assert!(size_of::<FdbValue>() == FdbValue::SIZE && core::mem::offset_of!(FdbValue, last_seen_ns) == 16);
    assert!(size_of::<ListenerKey>() == ListenerKey::SIZE && core::mem::offset_of!(ListenerKey, port) == 4);
    assert!(size_of::<ListenerKeyV6>() == ListenerKeyV6::SIZE);
    assert!(core::mem::offset_of!(ListenerKeyV6, port) == 16);
    assert!(size_of::<Settings>() == Settings::SIZE && core::mem::offset_of!(Settings, mac) == 16);
    assert!(core::mem::offset_of!(Settings, fragments) == 22);
    assert!(core::mem::offset_of!(Settings, heartbeat_timeout_ns) == 24);
    assert!(core::mem::offset_of!(Settings, vlan_filtering) == 32);
    assert!(size_of::<SourceEvent>() == FdbKey::SIZE);
};
