//! Which port a frame goes to. Pure: no IO, no clock, no threads.
//!
//! A segment has three kinds of ports ([`Port`]): NICs' wires, the gateway host and the peers. What a frame's
//! header says is read by [`Header`], where it goes is decided by [`Segment::decide`] against a [`Fdb`] (what a worker
//! knows), and who stands where is kept by [`Table`] (what the control thread knows, the one writer).

mod decide;
mod fdb;
mod header;
mod probe;
mod table;
mod wires;

pub use decide::{Decision, Flood, Ingress, Segment};
pub use fdb::{Fdb, Lookup};
pub use header::{ETHERNET_HEADER, Header};
pub use probe::{Nonce, PROBE_BYTES, probe, probe_nonce};
pub use table::{Change, Heard, Table, Tally};
pub use wires::{Joined, WireId, WireSet, Wires};

use openvpn::ids::PeerId;

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
