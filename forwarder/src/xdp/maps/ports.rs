//! The ports of a kernel bridge. A port is a [`WireId`], which is its slot in all these maps.
//!
//! A port is opened last and closed first: DEVMAP and VLANS, stations, then [`Ports::set`] with its flags. A slot is
//! given to another NIC only when its flags are cleared and the stations in it are forgotten.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Array, DevMap, HashMap, MapData, PerCpuArray, RingBuf, xdp::XdpMapError};
use common::bridge::{CaptureHeader, PortCounters, PortValue, VLAN_WORDS, VlanWord};

use super::{MapError, failed, found};
use crate::switch::WireId;

/// What XDP may do with frames of each port; all zero, which passes them, until it is set.
pub struct Ports(pub(in crate::xdp) Array<MapData, [u8; PortValue::SIZE]>);

impl Ports {
    /// Says all there is to say of a port. A frame that is judged meanwhile may see some new and some old.
    pub fn set(&mut self, wire: WireId, value: PortValue) -> Result<(), MapError> {
        let set = self.0.set(wire.number().into(), value.to_bytes(), 0);
        set.map_err(|error| failed("write", "set of ports", error))
    }

    /// Frees the slot of a port that is gone: its frames pass.
    pub fn clear(&mut self, wire: WireId) -> Result<(), MapError> {
        self.set(wire, PortValue::default())
    }
}

/// Which NIC is which port. Only looked at where VLANs are filtered.
pub struct Slots(pub(in crate::xdp) HashMap<MapData, u32, u32>);

impl Slots {
    const NAME: &str = "map of slots";

    /// The NIC with this interface index is the port `wire`.
    pub fn insert(&mut self, ifindex: u32, wire: WireId) -> Result<(), MapError> {
        let inserted = self.0.insert(ifindex, u32::from(wire.number()), 0);
        inserted.map_err(|error| failed("write", Self::NAME, error))
    }

    /// It is none any more; `false` if it was none.
    pub fn remove(&mut self, ifindex: u32) -> Result<bool, MapError> {
        found(self.0.remove(&ifindex)).map_err(|error| failed("write", Self::NAME, error))
    }
}

/// VLANs of a port: what the kernel bridge has in `bridge vlan show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanSet([VlanWord; VLAN_WORDS as usize]);

impl Default for VlanSet {
    fn default() -> Self {
        Self([VlanWord::default(); VLAN_WORDS as usize])
    }
}

impl VlanSet {
    /// Makes the port a member of VLAN `vid` (of 12 bits: others are none); its frames leave with a tag or without.
    pub fn insert(&mut self, vid: u16, untagged: bool) {
        let Some(word) = self.0.get_mut(usize::from(vid / 64)) else { return };
        let bit = 1 << (vid % 64);
        word.member |= bit;
        word.untagged = if untagged { word.untagged | bit } else { word.untagged & !bit };
    }
}

/// Which VLANs the ports carry, where the bridge filters them; none until they are set.
pub struct Vlans(pub(in crate::xdp) Array<MapData, [u8; VlanWord::SIZE]>);

impl Vlans {
    /// Says which a port carries. Not all at once: a VLAN that is taken from a port may go on for a moment.
    pub fn set(&mut self, wire: WireId, vlans: &VlanSet) -> Result<(), MapError> {
        let first = u32::from(wire.number()) * VLAN_WORDS;
        for (index, word) in (first..).zip(&vlans.0) {
            let set = self.0.set(index, word.to_bytes(), 0);
            set.map_err(|error| failed("write", "map of VLANs", error))?;
        }
        Ok(())
    }
}

/// Where redirected frames leave. A NIC that goes leaves by itself.
pub struct Devmap(pub(in crate::xdp) DevMap<MapData>);

impl Devmap {
    /// Frames for the port `wire` leave by the interface with this index.
    pub fn set(&mut self, wire: WireId, ifindex: u32) -> Result<(), MapError> {
        self.0.set(wire.number().into(), ifindex, None, 0).map_err(|error| match error {
            XdpMapError::MapError(error) => failed("write", "map of devices", error),
            XdpMapError::ChainedProgramNotSupported => {
                MapError::Refused { action: "write", map: "map of devices", cause: error.to_string() }
            }
        })
    }

    /// Frames for the port `wire` pass, if they did not.
    pub fn remove(&mut self, wire: WireId) -> Result<(), MapError> {
        // No device has index 0: the entry is cleared (`__dev_map_alloc_node` in kernel/bpf/devmap.c).
        self.set(wire, 0)
    }
}

/// What XDP has done with frames of each port, since the programs were loaded.
pub struct PortCounts(pub(in crate::xdp) PerCpuArray<MapData, [u8; PortCounters::SIZE]>);

impl PortCounts {
    /// Counts of the port, of all CPUs. A slot that is given to another NIC counts on.
    pub fn read(&self, wire: WireId) -> Result<PortCounters, MapError> {
        let by_cpu = self.0.get(&wire.number().into(), 0);
        let by_cpu = by_cpu.map_err(|error| failed("read", "counters of ports", error))?;
        Ok(by_cpu
            .iter()
            .fold(PortCounters::default(), |sum, bytes| sum.plus(PortCounters::from_bytes(*bytes))))
    }
}

/// What is said of a captured frame, and its first bytes; `None`: the record is too short for one, as the programs write
/// none.
pub fn captured(record: &[u8]) -> Option<(CaptureHeader, &[u8])> {
    // The kernel rounds nothing.
    let (header, bytes) = record.split_first_chunk()?;
    Some((CaptureHeader::from_bytes(*header), bytes))
}

/// Frames that XDP took at ports with [`common::bridge::port_flag::CAPTURE`].
pub struct Captures(pub(in crate::xdp) RingBuf<MapData>);

impl Captures {
    /// Hands the next one to `read`, in the order seen: what is said of it, and its first bytes. `None` when there is
    /// no more for now. Never waits; read until `None` each time the descriptor is readable.
    pub fn next_frame<T>(&mut self, read: impl FnOnce(CaptureHeader, &[u8]) -> T) -> Option<T> {
        loop {
            let record = self.0.next()?;
            if let Some((header, bytes)) = captured(&record) {
                return Some(read(header, bytes));
            }
        }
    }
}

impl AsFd for Captures {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
