//! Ports over plain memory: tests and benchmarks of the data path, without privileges and without a kernel.
//!
//! A [`wire`] has two ends. What one transmits the other receives, in order, up to so many frames under way; more are
//! dropped and counted as a NIC's full ring would be. Bytes are copied into buffers that are used again and again, so
//! that the ends may stand on different [`Frames`], and a turn allocates nothing once it is warm.

use std::{os::fd::BorrowedFd, sync::Arc};

use crossbeam::queue::ArrayQueue;

use super::{Frame, Frames, Port};
use crate::drops::{Drop, DropCounters};

/// Two ends of a wire that holds up to `depth` frames in each direction.
pub fn wire(depth: usize, drops: &Arc<DropCounters>) -> (MemoryPort, MemoryPort) {
    let (there, back) = (Arc::new(Lane::new(depth)), Arc::new(Lane::new(depth)));
    let left =
        MemoryPort { sends: Arc::clone(&there), receives: Arc::clone(&back), drops: Arc::clone(drops) };
    let right = MemoryPort { sends: back, receives: there, drops: Arc::clone(drops) };
    (left, right)
}

/// One end of a [`wire`].
#[derive(Debug)]
pub struct MemoryPort {
    sends: Arc<Lane>,
    receives: Arc<Lane>,
    drops: Arc<DropCounters>,
}

/// One direction of a wire.
#[derive(Debug)]
struct Lane {
    under_way: ArrayQueue<Vec<u8>>,
    empty: ArrayQueue<Vec<u8>>,
}

impl Lane {
    fn new(depth: usize) -> Self {
        let depth = depth.max(1);
        Self { under_way: ArrayQueue::new(depth), empty: ArrayQueue::new(depth) }
    }

    /// False when the lane is full.
    fn send(&self, bytes: &[u8]) -> bool {
        if self.under_way.is_full() {
            return false;
        }
        let mut buffer = self.empty.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.under_way.push(buffer).is_ok()
    }

    fn recycle(&self, buffer: Vec<u8>) {
        // A full store means enough buffers are under way: one fewer is kept.
        let _ = self.empty.push(buffer);
    }
}

impl MemoryPort {
    /// Puts one frame on the wire without [`Frames`]: for the test at the other end. False when the wire is full.
    pub fn send(&self, bytes: &[u8]) -> bool {
        self.sends.send(bytes)
    }

    /// Takes one frame off the wire without [`Frames`].
    pub fn next(&self) -> Option<Vec<u8>> {
        self.receives.under_way.pop()
    }

    /// Frames on the wire towards this end.
    pub fn waiting(&self) -> usize {
        self.receives.under_way.len()
    }

    /// Copies one waiting frame into memory; `None` when none waits or there is no memory.
    #[inline]
    fn receive_one(&self, frames: &mut Frames) -> Option<Frame> {
        while !self.receives.under_way.is_empty() {
            let mut frame = frames.take()?;
            if self.copy_next(frames, &mut frame) {
                return Some(frame);
            }
            frames.put(frame);
        }
        None
    }

    /// False when there is none, or one that does not fit, which is counted.
    fn copy_next(&self, frames: &Frames, frame: &mut Frame) -> bool {
        let Some(buffer) = self.receives.under_way.pop() else { return false };
        let room = frames.room(frame).get_mut(..buffer.len());
        let fits = room.is_some();
        match room {
            Some(room) => room.copy_from_slice(&buffer),
            None => self.drops.count(Drop::FrameMalformed),
        }
        if fits {
            frames.set_len(frame, buffer.len());
        }
        self.receives.recycle(buffer);
        fits
    }
}

impl Port for MemoryPort {
    fn receive(&mut self, frames: &mut Frames, received: &mut Vec<Frame>, limit: usize) {
        received.extend(std::iter::from_fn(|| self.receive_one(frames)).take(limit));
    }

    fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        for frame in queue.drain(..) {
            if !self.sends.send(frames.bytes(&frame)) {
                self.drops.count(Drop::TransmitQueueFull);
            }
            frames.put(frame);
        }
    }

    fn wake(&mut self, _frames: &mut Frames) {}

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn held(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_of(frames: &mut Frames, bytes: &[u8]) -> Frame {
        let mut frame = frames.take().unwrap();
        frames.room(&mut frame)[..bytes.len()].copy_from_slice(bytes);
        frames.set_len(&mut frame, bytes.len());
        frame
    }

    #[test]
    fn frames_arrive_in_order_and_whole_and_their_memory_comes_back() {
        let drops = Arc::default();
        let (mut left, mut right) = wire(8, &drops);
        let (mut here, mut there) = (Frames::in_memory(4, 64), Frames::in_memory(4, 64));
        let mut queue = vec![frame_of(&mut here, b"one"), frame_of(&mut here, b"two")];
        left.transmit(&mut here, &mut queue);
        assert!(queue.is_empty());
        assert_eq!(here.free(), 4);

        let mut received = Vec::new();
        right.receive(&mut there, &mut received, 64);
        let seen: Vec<_> = received.iter().map(|frame| there.bytes(frame)).collect();
        assert_eq!(seen, [b"one", b"two"]);
        assert_eq!(there.free() + received.len(), there.total());
    }

    #[test]
    fn a_full_wire_drops_and_counts() {
        let drops = Arc::new(DropCounters::default());
        let (mut left, right) = wire(2, &drops);
        let mut frames = Frames::in_memory(3, 64);
        let mut queue = (0..3).map(|at| frame_of(&mut frames, &[at])).collect();
        left.transmit(&mut frames, &mut queue);
        assert_eq!((right.waiting(), drops.get(Drop::TransmitQueueFull), frames.free()), (2, 1, 3));
    }

    #[test]
    fn a_frame_that_does_not_fit_is_counted_and_the_next_one_arrives() {
        let drops = Arc::new(DropCounters::default());
        let (left, mut right) = wire(8, &drops);
        assert!(left.send(&[1; 65]) && left.send(&[2; 64]));
        let mut frames = Frames::in_memory(4, 64);
        let mut received = Vec::new();
        right.receive(&mut frames, &mut received, 64);
        assert_eq!(frames.bytes(&received[0]), [2; 64]);
        assert_eq!((drops.get(Drop::FrameMalformed), frames.free()), (1, 3));
    }

    #[test]
    fn no_more_is_received_than_the_limit_or_the_memory_allows() {
        let drops = Arc::default();
        let (left, mut right) = wire(8, &drops);
        for at in 0..8 {
            assert!(left.send(&[at]));
        }
        let mut frames = Frames::in_memory(4, 64);
        let mut received = Vec::new();
        right.receive(&mut frames, &mut received, 3);
        assert_eq!((received.len(), right.waiting()), (3, 5));
        right.receive(&mut frames, &mut received, 3);
        assert_eq!((received.len(), right.waiting(), frames.free()), (4, 4, 0));
    }
}
