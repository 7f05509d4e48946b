//! A NIC's queue over memory of its own: frames are copied from and to the worker's.
//!
//! The copy costs some 30 ns a frame and buys that the NIC can go at any time: closing its socket returns its chunks to
//! memory that goes with it, and none of the worker's was ever lent.

use std::{os::fd::BorrowedFd, sync::Arc};

use super::{Frame, Frames, Port};
use crate::drops::{Drop, DropCounters};

/// A port over memory of its own, which the worker's frames are copied from and to.
#[derive(Debug)]
pub struct OwnMemory<P> {
    port: P,
    frames: Frames,
    drops: Arc<DropCounters>,
    /// Empty between calls, kept for its memory.
    batch: Vec<Frame>,
}

impl<P: Port> OwnMemory<P> {
    /// `port` was opened over `frames`.
    pub fn new(port: P, frames: Frames, drops: Arc<DropCounters>) -> Self {
        Self { port, frames, drops, batch: Vec::new() }
    }
}

impl<P: Port> Port for OwnMemory<P> {
    fn receive(&mut self, frames: &mut Frames, received: &mut Vec<Frame>, limit: usize) {
        let Self { port, frames: own, batch, drops } = self;
        // What finds no memory is left where it is, and waits.
        port.receive(own, batch, limit.min(frames.free()));
        for frame in batch.drain(..) {
            match frames.take_with(own.bytes(&frame)) {
                Some(copy) => received.push(copy),
                // The worker's memory holds the longest of the segment's.
                None => drops.count(Drop::FrameMalformed),
            }
            own.put(frame);
        }
    }

    fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        let Self { port, frames: own, batch, drops } = self;
        while !queue.is_empty() {
            if own.free() == 0 {
                // Takes back what has been sent.
                port.wake(own);
            }
            let fits = own.free().min(queue.len());
            if fits == 0 {
                break;
            }
            for frame in queue.drain(..fits) {
                batch.extend(own.take_with(frames.bytes(&frame)));
                frames.put(frame);
            }
            port.transmit(own, batch);
        }
        drops.add(Drop::TransmitQueueFull, queue.len() as u64);
        queue.drain(..).for_each(|frame| frames.put(frame));
    }

    fn wake(&mut self, _frames: &mut Frames) {
        self.port.wake(&mut self.frames);
        debug_assert_eq!(
            self.frames.free() + self.port.held(),
            self.frames.total(),
            "a frame was lost or doubled"
        );
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.port.readable()
    }

    /// None of the worker's frames.
    fn held(&self) -> usize {
        0
    }

    fn has_leftovers(&self) -> bool {
        self.port.has_leftovers()
    }

    fn missed(&self) -> u64 {
        self.port.missed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{memory::wire, testing::frames_of};

    #[test]
    fn frames_are_copied_both_ways_and_none_of_the_workers_is_held() {
        let drops = Arc::new(DropCounters::default());
        let (near, far) = wire(8, &drops);
        let mut port = OwnMemory::new(near, Frames::in_memory(2, 64), Arc::clone(&drops));
        let mut frames = Frames::in_memory(4, 64);
        let mut queue = frames_of(&mut frames, &[b"one", b"two", b"three"]);
        port.transmit(&mut frames, &mut queue);
        assert_eq!(std::iter::from_fn(|| far.next()).collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
        assert!(far.send(b"four") && far.send(&[5; 64]));
        let mut received = Vec::new();
        port.receive(&mut frames, &mut received, 64);
        assert_eq!(
            received.iter().map(|frame| frames.bytes(frame)).collect::<Vec<_>>(),
            [&b"four"[..], &[5; 64]]
        );
        port.wake(&mut frames);
        assert_eq!(frames.free() + received.len() + port.held(), frames.total());
    }

    #[test]
    fn a_worker_without_memory_leaves_frames_where_they_wait() {
        let drops = Arc::new(DropCounters::default());
        let (near, far) = wire(8, &drops);
        let mut port = OwnMemory::new(near, Frames::in_memory(4, 64), Arc::clone(&drops));
        let mut frames = Frames::in_memory(1, 64);
        assert!(far.send(b"one") && far.send(b"two"));
        let mut received = Vec::new();
        port.receive(&mut frames, &mut received, 64);
        assert_eq!(received.len(), 1);
        frames.put(received.remove(0));
        port.receive(&mut frames, &mut received, 64);
        assert_eq!(frames.bytes(&received[0]), b"two");
    }
}
