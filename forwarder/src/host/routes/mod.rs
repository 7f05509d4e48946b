//! The outer path: how a tunnel packet leaves this host for a peer, and whose frames no peer may imitate.
//!
//! The kernel's own decision is asked for, never rebuilt: policy rules, metrics and multipath are its business. Its
//! answers are kept until it says that something has changed.
//!
//! ```text
//!  resolve(remote, local) ──► kept? ──no──► RTM_GETROUTE ──► Route: NIC, next hop, source, MTU
//!                               │                              │
//!                               └────────────► neighbour of the next hop, NIC's own address and state
//!                                                              │
//!                                      Direct(NextHop)  or  BySocket(why)
//! ```
//!
//! What a path by AF_XDP goes round: netfilter's output hook (NAT, marks), IPsec policies and traffic shaping. A host
//! that needs those for the tunnel's own packets runs with `--datapath socket`.

use std::fmt;
use std::net::IpAddr;

use common::Mac;

mod event;
mod known;
mod lookup;
mod outside;
#[cfg(test)]
mod tests;

pub use known::Known;
pub use outside::Outside;

/// How packets to a peer leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OuterPath {
    /// Straight out of a NIC, with these headers.
    Direct(NextHop),
    /// Through the kernel's socket, because of this.
    BySocket(Detour),
}

/// All that an outer packet's headers need of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Number of the NIC it leaves by.
    pub nic: u32,
    /// The router, or the peer itself where it is on the same wire.
    pub address: IpAddr,
    /// The next hop's hardware address: the frame's destination.
    pub destination: Mac,
    /// The NIC's hardware address: the frame's source.
    pub source: Mac,
    /// The packet's source.
    pub source_address: IpAddr,
    /// Largest IP packet in bytes: the NIC's MTU, or less where the route says so or the kernel has learnt it.
    pub mtu: u32,
}

/// Why a peer's packets go through the kernel's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detour {
    /// The host has no route to the peer: the socket will say so, too.
    NoRoute,
    /// The peer's address is this host's own.
    ThisHost,
    /// The route is for broadcast or multicast.
    NotUnicast,
    /// The route puts a tunnel of the kernel around the packet.
    Encapsulated,
    /// The route leaves by this interface, which is not one of the uplinks.
    OtherInterface(u32),
    /// The NIC is down, without carrier or without a hardware address.
    InterfaceDown(u32),
    /// The next hop's hardware address is not known (yet).
    NoNeighbour(IpAddr),
}

impl fmt::Display for Detour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => f.write_str("the host has no route to it"),
            Self::ThisHost => f.write_str("it is this host itself"),
            Self::NotUnicast => f.write_str("its address is a broadcast or multicast address"),
            Self::Encapsulated => f.write_str("its route goes through a tunnel of the kernel"),
            Self::OtherInterface(index) => {
                write!(f, "its route leaves by interface {index}, which is no uplink")
            }
            Self::InterfaceDown(index) => write!(f, "interface {index} is down"),
            Self::NoNeighbour(address) => write!(f, "the hardware address of {address} is not known"),
        }
    }
}

/// What has changed around the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The kernel had more to tell than there was room for, and everything was read anew: every path, address and
    /// protected MAC may be another.
    Resync,
    /// An interface appeared, changed or is gone.
    Link(u32),
    /// The host's addresses are others.
    Address,
    /// A path that was asked for, or a default gateway, may be another.
    Route,
    /// A neighbour's hardware address became known, another, or (`None`) unknown.
    Neighbour {
        /// The interface it is on.
        nic: u32,
        /// Its IP address.
        address: IpAddr,
        /// Its hardware address, if it can be used now.
        mac: Option<Mac>,
    },
    /// The NIC's receive filter names other addresses: a macvlan or VRRP address came or went.
    HostMacs(u32),
}
