//! The NIC as a worker has it: a queue of AF_XDP rings, queues of several NICs, the kernel's packet socket, or nothing of its
//! own.

use std::os::fd::BorrowedFd;

use super::{Frame, Frames, Port, nics::Nics, wire::WirePort, xsk::XskPort};

/// The NIC's port of one worker.
#[derive(Debug)]
pub enum NicPort {
    /// AF_XDP on one receive queue.
    Xsk(Box<XskPort>),
    /// The ports of a kernel bridge.
    Several(Box<Nics>),
    /// `--datapath socket` in bridge mode: sends onto the wire; what comes from it comes by the host port.
    Socket(WirePort),
    /// `--datapath socket` in underlay mode: the tunnel's UDP socket is all there is.
    None,
}

impl Port for NicPort {
    fn receive(&mut self, frames: &mut Frames, received: &mut Vec<Frame>, limit: usize) {
        match self {
            Self::Xsk(port) => port.receive(frames, received, limit),
            Self::Several(port) => port.receive(frames, received, limit),
            Self::Socket(port) => port.receive(frames, received, limit),
            Self::None => {}
        }
    }

    fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        match self {
            Self::Xsk(port) => port.transmit(frames, queue),
            Self::Several(port) => port.transmit(frames, queue),
            Self::Socket(port) => port.transmit(frames, queue),
            // Nothing is switched here: the segment has no wire, and no peer's packets leave by the NIC.
            Self::None => queue.drain(..).for_each(|frame| frames.put(frame)),
        }
    }

    fn wake(&mut self, frames: &mut Frames) {
        match self {
            Self::Xsk(port) => port.wake(frames),
            Self::Several(port) => port.wake(frames),
            Self::Socket(port) => port.wake(frames),
            Self::None => {}
        }
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Xsk(port) => port.readable(),
            Self::Several(port) => port.readable(),
            Self::Socket(port) => port.readable(),
            Self::None => None,
        }
    }

    fn held(&self) -> usize {
        match self {
            Self::Xsk(port) => port.held(),
            Self::Several(port) => port.held(),
            Self::Socket(port) => port.held(),
            Self::None => 0,
        }
    }

    fn has_leftovers(&self) -> bool {
        match self {
            Self::Xsk(port) => port.has_leftovers(),
            Self::Several(port) => port.has_leftovers(),
            Self::Socket(port) => port.has_leftovers(),
            Self::None => false,
        }
    }

    fn missed(&self) -> u64 {
        match self {
            Self::Xsk(port) => port.missed(),
            Self::Several(port) => port.missed(),
            Self::Socket(port) => port.missed(),
            Self::None => 0,
        }
    }

    fn nics(&mut self) -> Option<&mut Nics> {
        match self {
            Self::Several(nics) => Some(nics),
            Self::Xsk(_) | Self::Socket(_) | Self::None => None,
        }
    }
}
