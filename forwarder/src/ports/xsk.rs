//! A NIC's queue as a port, over AF_XDP.

use std::{os::fd::BorrowedFd, sync::Arc};

use super::{Frame, Frames, Port};
use crate::{
    drops::{Drop, DropCounters},
    xdp::xsk::{Kick, RING, Rings, XskError, XskMode},
};

/// Shortest Ethernet frame without its checksum: not every driver pads what comes over AF_XDP.
const MIN_FRAME: usize = 60;
/// An Ethernet header: less is no frame.
const MIN_HEADER: usize = 14;
/// Chunks are lent to receive into only when this many are due, to touch the ring seldom.
const FILL_BATCH: usize = 32;
/// In copy mode one kick sends 32 frames (`TX_BATCH_SIZE` in net/xdp/xsk.c): this many send a full ring.
const MAX_KICKS: usize = RING as usize / 32;

/// An AF_XDP socket on one receive queue of a NIC.
#[derive(Debug)]
pub struct XskPort {
    rings: Rings,
    drops: Arc<DropCounters>,
    /// Chunks to keep lent to receive into.
    fill_target: usize,
    /// The kernel has not sent all, and wants to be asked again soon.
    unsent: bool,
    kicks: u64,
}

impl XskPort {
    /// Binds to `queue` of the NIC, with zero-copy where the driver has it unless `copy_only`, and lends memory to
    /// receive into. An XDP program has to steer frames here: put [`XskPort::fd`] into its map.
    ///
    /// `frames` should count at least 3 × [`RING`] for one port, 2 × [`RING`] more for each further one: a full ring
    /// each way, and the worker's own.
    ///
    /// # Errors
    /// See [`XskError`].
    pub fn open(
        frames: &mut Frames,
        nic: &str,
        queue: u32,
        copy_only: bool,
        drops: Arc<DropCounters>,
    ) -> Result<Self, XskError> {
        let rings = Rings::open(frames, nic, queue, copy_only)?;
        // Never all of the memory: the worker could not send an answer then.
        let fill_target = (RING as usize).min(frames.free() / 2);
        let mut port = Self { rings, drops, fill_target, unsent: false, kicks: 0 };
        port.rings.fill(frames, port.fill_target);
        Ok(port)
    }

    /// What to put into the XSKMAP.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.rings.fd()
    }

    /// Whether zero-copy was got.
    pub fn mode(&self) -> XskMode {
        self.rings.mode()
    }

    /// System calls made so far to send and to receive: what else goes over the rings costs none.
    pub fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Gives the frames to the ring, those of no use back to their memory.
    fn enqueue(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        self.rings.transmit(frames, queue);
        if !queue.is_empty() {
            self.rings.complete(frames);
            self.send(frames);
            self.rings.transmit(frames, queue);
        }
    }

    /// Kicks until the kernel has taken the whole ring, as long as that makes progress.
    fn send(&mut self, frames: &mut Frames) {
        self.unsent = false;
        if !self.rings.transmit_needs_kick() {
            return;
        }
        for _ in 0..MAX_KICKS {
            let before = self.rings.unsent();
            let kick = self.rings.kick();
            self.kicks += 1;
            self.rings.complete(frames);
            let progress = self.rings.unsent() < before;
            match kick {
                Kick::Done | Kick::Down => return,
                Kick::Lost => self.drops.count(Drop::TransmitQueueFull),
                Kick::Again => {}
            }
            if !progress {
                break;
            }
        }
        self.unsent = self.rings.unsent() > 0;
    }
}

/// Lengthens a short frame with zeros.
fn pad(frames: &Frames, frame: &mut Frame) {
    let len = frame.len();
    if len >= MIN_FRAME {
        return;
    }
    if let Some(padding) = frames.room(frame).get_mut(len..MIN_FRAME) {
        padding.fill(0);
        frames.set_len(frame, MIN_FRAME);
    }
}

impl Port for XskPort {
    /// Frames the kernel could not hand over since the start: no memory to receive into, or the ring was full.
    fn missed(&self) -> u64 {
        self.rings.statistics().map_or(0, |seen| seen.rx_dropped() + seen.rx_ring_full())
    }

    fn receive(&mut self, frames: &mut Frames, received: &mut Vec<Frame>, limit: usize) {
        self.rings.receive(frames, received, limit);
    }

    fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        for frame in queue.extract_if(.., |frame| frame.len() < MIN_HEADER) {
            frames.put(frame);
            self.drops.count(Drop::FrameMalformed);
        }
        queue.iter_mut().for_each(|frame| pad(frames, frame));
        self.enqueue(frames, queue);
        self.drops.add(Drop::TransmitQueueFull, queue.len() as u64);
        for frame in queue.drain(..) {
            frames.put(frame);
        }
    }

    fn wake(&mut self, frames: &mut Frames) {
        self.rings.complete(frames);
        self.send(frames);
        if self.rings.receiving() + FILL_BATCH <= self.fill_target {
            self.rings.fill(frames, self.fill_target);
        }
        self.kicks += u64::from(self.rings.kick_fill());
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.rings.fd())
    }

    fn held(&self) -> usize {
        self.rings.receiving() + self.rings.sending()
    }

    fn has_leftovers(&self) -> bool {
        self.unsent
    }
}

#[cfg(test)]
mod tests;
