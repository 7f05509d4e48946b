//! Which port a frame goes to. Pure: no IO, no clock, no threads.
//!
//! A segment has three kinds of ports ([`Port`]): the NIC's wire, the gateway host and the peers. What a frame's
//! header says is read by [`Header`], where it goes is decided by [`Segment::decide`] against a [`Fdb`] (what a worker
//! knows), and who stands where is kept by [`Table`] (what the control thread knows, the one writer).

mod decide;
mod fdb;
mod header;
mod table;

pub use decide::{Decision, Flood, Ingress, Segment};
pub use fdb::{Fdb, Lookup};
pub use header::{ETHERNET_HEADER, Header};
pub use table::{Change, Heard, Table, Tally};

use openvpn::ids::PeerId;

/// A NIC of the gateway: the same number in the MAC table, the workers and the eBPF maps, where it is the slot of PORTS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireId(u16);

impl WireId {
    /// The NIC of `--uplink`.
    pub const UPLINK: Self = Self(0);
    /// Numbers there are: one for the uplink, the others for ports of a bridge.
    pub const COUNT: usize = 256;

    /// The wire with that number; `None` from [`WireId::COUNT`] on.
    pub fn new(number: u16) -> Option<Self> {
        (usize::from(number) < Self::COUNT).then_some(Self(number))
    }

    /// Its number, below [`WireId::COUNT`].
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The same, to index with.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A port of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// The gateway host.
    Host,
    /// The wire behind one NIC, with all stations on it.
    Wire(WireId),
    /// One peer, with all stations behind it.
    Peer(PeerId),
}

/// Where a station stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Behind which port.
    pub port: Port,
    /// The host's own address or a next hop in use: never learnt over, never aged, never claimed by a peer.
    pub fixed: bool,
}
