//! Several NICs' queues of one worker, as one port: the ports of a kernel bridge, which come and go.
//!
//! Frames say by which wire they came and leave by which they are to. Each NIC keeps memory of its own
//! ([`super::own_memory`]), so
//! that a NIC that goes takes nothing along, and one that takes frames without a copy is not held back by one that cannot.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use crossbeam::channel::Sender;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::{Frame, Frames, Port};
use crate::{
    drops::{Drop, DropCounters},
    switch::WireId,
};

/// Wires that none of the NICs serves.
const NOWHERE: u8 = u8::MAX;

/// A queue of a NIC on its way from the control thread to a worker, or back.
pub struct NewNic {
    /// Which NIC.
    pub wire: WireId,
    /// The queue.
    pub port: Box<dyn Port + Send>,
}

impl fmt::Debug for NewNic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewNic").field("wire", &self.wire).finish_non_exhaustive()
    }
}

/// The NICs of one worker.
pub struct Nics {
    nics: Vec<Nic>,
    /// By wire: which of `nics` sends its frames, or [`NOWHERE`].
    senders: [u8; WireId::COUNT],
    /// Readable when one of them is.
    any: Epoll,
    /// What is closed elsewhere: closing an AF_XDP socket waits for the kernel longer than a turn may take.
    removed: Sender<NewNic>,
    /// The one that is asked first.
    turn: usize,
    /// What those that are gone had missed.
    missed_before: u64,
    drops: Arc<DropCounters>,
}

struct Nic {
    wire: WireId,
    port: Box<dyn Port + Send>,
    /// What leaves by it; empty between calls, kept for its memory.
    queue: Vec<Frame>,
}

impl fmt::Debug for Nics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nics.iter().map(|nic| nic.wire)).finish()
    }
}

impl Nics {
    /// None yet. Those taken out go to `removed`, to be closed there.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn new(removed: Sender<NewNic>, drops: Arc<DropCounters>) -> io::Result<Self> {
        let any = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let senders = [NOWHERE; WireId::COUNT];
        Ok(Self { nics: Vec::new(), senders, any, removed, turn: 0, missed_before: 0, drops })
    }

    /// Takes one more queue in. At most 254; beyond that, or where it cannot be waited for, it is given back.
    pub fn add(&mut self, new: NewNic) {
        let watched = new.port.readable().map_or(Ok(()), |fd| self.any.add(fd, readable_event()));
        if watched.is_err() || self.nics.len() >= usize::from(NOWHERE) - 1 {
            tracing::warn!(wire = new.wire.number(), "a port cannot be served: too many are open");
            return self.give_back(new);
        }
        let NewNic { wire, port } = new;
        self.nics.push(Nic { wire, port, queue: Vec::new() });
        self.index();
    }

    /// Gives all queues of a wire back to the control thread, with what is in them.
    pub fn remove(&mut self, wire: WireId) {
        while let Some(at) = self.nics.iter().position(|nic| nic.wire == wire) {
            let Nic { wire, port, .. } = self.nics.swap_remove(at);
            if let Some(fd) = port.readable() {
                // One that is broken has left by itself.
                let _ = self.any.delete(fd);
            }
            self.missed_before += port.missed();
            self.give_back(NewNic { wire, port });
        }
        self.index();
    }

    /// Whether one of them sends the wire's frames.
    pub fn serves(&self, wire: WireId) -> bool {
        self.senders[wire.index()] != NOWHERE
    }

    fn give_back(&self, nic: NewNic) {
        // Nobody takes it at the end of the process: it is closed here then.
        let _ = self.removed.send(nic);
    }

    fn index(&mut self) {
        self.senders = [NOWHERE; WireId::COUNT];
        self.turn = 0;
        // The first of several queues sends.
        for (at, nic) in (0..NOWHERE).zip(&self.nics).rev() {
            self.senders[nic.wire.index()] = at;
        }
    }
}

fn readable_event() -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, 0)
}

impl Port for Nics {
    fn receive(&mut self, frames: &mut Frames, received: &mut Vec<Frame>, limit: usize) {
        let count = self.nics.len();
        let first = self.turn;
        // The next one first next time: none is starved by another that always fills the batch.
        self.turn = (first + 1).checked_rem(count).unwrap_or(0);
        let before = received.len();
        for index in (0..count).map(|ahead| (first + ahead) % count) {
            let begin = received.len();
            let left = limit.saturating_sub(begin - before);
            if left == 0 {
                return;
            }
            let Nic { wire, port, .. } = &mut self.nics[index];
            port.receive(frames, received, left);
            received[begin..].iter_mut().for_each(|frame| frame.set_wire(*wire));
        }
    }

    /// What is for a wire that has gone was decided upon before that was known: it is lost with the wire.
    fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        for frame in queue.drain(..) {
            match self.nics.get_mut(usize::from(self.senders[frame.wire().index()])) {
                Some(nic) => nic.queue.push(frame),
                None => {
                    self.drops.count(Drop::WireGone);
                    frames.put(frame);
                }
            }
        }
        for Nic { port, queue, .. } in self.nics.iter_mut().filter(|nic| !nic.queue.is_empty()) {
            port.transmit(frames, queue);
        }
    }

    fn wake(&mut self, frames: &mut Frames) {
        self.nics.iter_mut().for_each(|nic| nic.port.wake(frames));
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.any.0.as_fd())
    }

    fn held(&self) -> usize {
        self.nics.iter().map(|nic| nic.port.held()).sum()
    }

    fn has_leftovers(&self) -> bool {
        self.nics.iter().any(|nic| nic.port.has_leftovers())
    }

    fn missed(&self) -> u64 {
        self.missed_before + self.nics.iter().map(|nic| nic.port.missed()).sum::<u64>()
    }

    fn nics(&mut self) -> Option<&mut Nics> {
        Some(self)
    }
}

#[cfg(test)]
mod tests;
