//! Where frames come in and go out.
//!
//! The worker knows a port by the [`Port`] trait only. Behind it stand AF_XDP rings, kernel sockets (the tunnel's UDP
//! socket, AF_PACKET, TAP) or plain memory. All ports of a worker share its [`Frames`].
//!
//! What passes a port is always a whole Ethernet frame. The tunnel's UDP socket is no exception: what it received
//! comes with Ethernet, IPv4 and UDP headers written ahead of it ([`crate::ports::tunnel`]), so that the worker parses
//! a tunnel packet in one way, whichever way it came.

use std::os::fd::BorrowedFd;

pub use crate::xdp::frames::{Frame, Frames};

/// Internet checksums, and finishing those that a sender left to its NIC.
pub mod checksum;
/// The host port: a TAP.
pub mod host;
/// Where the IP and transport headers of a frame are.
pub mod layers;
/// Rings over plain memory, for tests and benchmarks.
pub mod memory;
/// The NIC as a worker has it, whichever way.
pub mod nic;
/// Several NICs' queues as one port: they come and go.
pub mod nics;
/// A port over memory of its own.
pub mod own_memory;
/// Cutting large TCP segments into frames.
pub mod segment;
#[cfg(test)]
mod testing;
/// The tunnel's UDP sockets of one listener.
pub mod tunnel;
/// A worker's sockets of all UDP listeners.
pub mod tunnels;
/// A NIC by packet socket, and promiscuity.
pub mod wire;
/// A NIC's queue, over AF_XDP.
pub mod xsk;

/// Most frames a worker takes from one port in one turn. Higher gathers better, lower is fairer between ports.
pub const BATCH: usize = 64;

/// A way in and out for frames.
pub trait Port {
    /// Appends frames that have arrived to `received`, at most `limit`, with memory from `frames`. Never waits.
    fn receive(&mut self, frames: &mut Frames, received: &mut Vec<Frame>, limit: usize);

    /// Sends all of `queue`, which is empty afterwards: what cannot be sent is counted, and its memory returned.
    /// Never waits.
    fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>);

    /// End of the worker's turn: gives memory to the kernel to receive into, takes back what it has sent, and rings
    /// its bell where it asks for that.
    fn wake(&mut self, frames: &mut Frames);

    /// What becomes readable when there is something to receive; `None` for a port that is only looked at.
    fn readable(&self) -> Option<BorrowedFd<'_>>;

    /// Frames inside the port: added to the free ones and those the worker holds they give the total.
    fn held(&self) -> usize;

    /// True while the port has something to do that [`Port::readable`] does not tell of (frames of a large segment to
    /// hand over, frames the kernel has not sent yet): the worker takes another turn before it sleeps.
    fn has_leftovers(&self) -> bool {
        false
    }

    /// Frames since the start that the kernel lost ahead of the port: it was not emptied as fast as they came.
    fn missed(&self) -> u64 {
        0
    }

    /// The port as several NICs, if it is that.
    fn nics(&mut self) -> Option<&mut nics::Nics> {
        None
    }
}

// A worker's ports are opened by another thread, which may hold what the worker may not.
const _: () = {
    const fn goes_to_another_thread<T: Send>() {}
    goes_to_another_thread::<Frames>();
    goes_to_another_thread::<host::HostPort>();
    goes_to_another_thread::<nics::Nics>();
    goes_to_another_thread::<memory::MemoryPort>();
    goes_to_another_thread::<tunnels::Tunnels>();
    goes_to_another_thread::<wire::WirePort>();
    goes_to_another_thread::<xsk::XskPort>();
};
