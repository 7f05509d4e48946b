//! Ports of a kernel bridge: what XDP is told of each, what it counts there, and what it copies for a capture.
//!
//! A port is known by its *slot*, the number of a NIC of the gateway: 0 is the uplink, 1..=255 are ports of the bridge.

/// Slots there are.
pub const PORTS: u32 = 256;
/// VLAN ids there are.
pub const VLAN_IDS: u32 = 4096;
/// Size of the ring of captured frames, in bytes: some 1300 of full size, which at a gigabit a second are 16 ms.
pub const CAPTURES_BYTES: u32 = 2 * 1024 * 1024;
/// Most bytes of a frame that a capture has.
pub const CAPTURED_BYTES: u32 = 2048;

/// What may be done with frames of a port: bits of [`PortValue::flags`]. With none of them its frames pass.
pub mod port_flag {
    /// Frames that come by the port may be forwarded. Only while the bridge would: it forwards in its spanning tree.
    pub const FROM: u32 = 1 << 0;
    /// Frames may be forwarded to the port. Its driver takes them (netdev's `NDO_XMIT`), and it stands in the DEVMAP.
    pub const TO: u32 = 1 << 1;
    /// Between two such ports nothing is forwarded (`bridge link set dev PORT isolated on`).
    pub const ISOLATED: u32 = 1 << 2;
    /// One end of a veth: TCP and UDP checksums may be unfinished. Where they look so the frame passes.
    pub const UNFINISHED: u32 = 1 << 3;
    /// Frames for peers and tunnel packets that come by the port go to its AF_XDP sockets. Not where VLANs are filtered.
    pub const TO_PEERS: u32 = 1 << 4;
    /// Frames that XDP takes from the port, or sends to it, are copied into the ring of captures.
    pub const CAPTURE: u32 = 1 << 5;
}

/// What XDP is told of a port. All zero: a slot that is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortValue {
    /// Interface index.
    pub ifindex: u32,
    /// Bits of [`port_flag`].
    pub flags: u32,
    /// Longest frame that the port sends, in bytes with Ethernet header and tag: its MTU and 18. XDP would lose longer
    /// ones (`xdp_ok_fwd_dev` in include/linux/filter.h), so they pass.
    pub max_frame: u32,
    /// Where VLANs are filtered, the one that untagged frames are of; 0: none.
    pub pvid: u16,
    /// Always zero.
    pub reserved: u16,
}

/// What of 64 VLANs a port carries: bit `vid % 64` of the word at `vid / 64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct VlanWord {
    /// The port is a member.
    pub member: u64,
    /// Its frames leave without a tag.
    pub untagged: u64,
}

/// [`VlanWord`]s of a port.
pub const VLAN_WORDS: u32 = VLAN_IDS / 64;

/// What XDP has done with frames that came by a port, since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortCounters {
    /// Frames forwarded to other ports.
    pub frames_to_ports: u64,
    /// Their bytes, with the Ethernet header.
    pub bytes_to_ports: u64,
    /// Frames handed to AF_XDP sockets, for peers or of the tunnel.
    pub frames_to_sockets: u64,
    /// Their bytes.
    pub bytes_to_sockets: u64,
    /// Frames that a capture misses: the ring was full.
    pub uncaptured: u64,
}

/// What stands ahead of the bytes of a captured frame, which fill the rest of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CaptureHeader {
    /// `bpf_ktime_get_ns` (CLOCK_MONOTONIC) of the frame.
    pub time_ns: u64,
    /// Slot of the port it came by.
    pub from: u32,
    /// Slot of the port it left by; [`CaptureHeader::NO_PORT`]: it went to an AF_XDP socket.
    pub to: u32,
    /// A [`crate::Verdict`] as its number.
    pub verdict: u32,
    /// Length of the frame in bytes; of a longer one than [`CAPTURED_BYTES`] the first bytes follow.
    pub length: u32,
}

impl PortValue {
    /// Size in the map.
    pub const SIZE: usize = 16;

    /// As it stands in the map.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&self.ifindex.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.max_frame.to_ne_bytes());
        bytes[12..14].copy_from_slice(&self.pvid.to_ne_bytes());
        bytes
    }
}

impl VlanWord {
    /// Size in the map.
    pub const SIZE: usize = 16;

    /// As it stands in the map.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(&self.member.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.untagged.to_ne_bytes());
        bytes
    }
}

impl PortCounters {
    /// Size in the map.
    pub const SIZE: usize = 40;

    /// From what stands in the map, of one CPU.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let mut words = bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        Self {
            frames_to_ports: next(),
            bytes_to_ports: next(),
            frames_to_sockets: next(),
            bytes_to_sockets: next(),
            uncaptured: next(),
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            frames_to_ports: self.frames_to_ports.wrapping_add(other.frames_to_ports),
            bytes_to_ports: self.bytes_to_ports.wrapping_add(other.bytes_to_ports),
            frames_to_sockets: self.frames_to_sockets.wrapping_add(other.frames_to_sockets),
            bytes_to_sockets: self.bytes_to_sockets.wrapping_add(other.bytes_to_sockets),
            uncaptured: self.uncaptured.wrapping_add(other.uncaptured),
        }
    }
}

impl CaptureHeader {
    /// Size in a record.
    pub const SIZE: usize = 24;
    /// In [`CaptureHeader::to`]: no port.
    pub const NO_PORT: u32 = u32::MAX;

    /// From the beginning of a record.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [t0, t1, t2, t3, t4, t5, t6, t7, rest @ ..] = bytes;
        let mut words = rest.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        Self {
            time_ns: u64::from_ne_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            from: next(),
            to: next(),
            verdict: next(),
            length: next(),
        }
    }
}

// As in the crate's root: sizes and offsets agree by these.
const _: () = {
    assert!(size_of::<PortValue>() == PortValue::SIZE && core::mem::offset_of!(PortValue, pvid) == 12);
    assert!(size_of::<VlanWord>() == VlanWord::SIZE && core::mem::offset_of!(VlanWord, untagged) == 8);
    assert!(size_of::<PortCounters>() == PortCounters::SIZE);
    assert!(core::mem::offset_of!(PortCounters, uncaptured) == 32);
    assert!(size_of::<CaptureHeader>() == CaptureHeader::SIZE);
    assert!(core::mem::offset_of!(CaptureHeader, length) == 20);
};
