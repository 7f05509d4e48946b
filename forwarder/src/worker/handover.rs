//! Between workers: a frame that arrives at one and belongs to a peer of another is handed over, so that a peer's
//! packets are opened and sealed in one place, in order.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use nix::sys::eventfd::EventFd;
use openvpn::ids::PeerId;

use super::mailbox::ring;
use crate::switch::{Flood, Ingress};

/// Frames one worker may have waiting at another. More would only add delay.
const CAPACITY: usize = 512;

/// What is handed over, with its bytes.
#[derive(Debug)]
pub enum Handover {
    /// A tunnel packet, as it arrived by XDP, to open.
    Packet(Box<[u8]>),
    /// A frame for a peer, to seal.
    ToPeer(PeerId, Box<[u8]>),
    /// A flooded frame, for the other worker's peers, or for the host port it owns.
    Flooded(Ingress, Flood, Box<[u8]>),
    /// A frame for the host port.
    ToHost(Box<[u8]>),
}

impl Handover {
    /// The packet's or frame's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Packet(bytes)
            | Self::ToPeer(_, bytes)
            | Self::Flooded(_, _, bytes)
            | Self::ToHost(bytes) => bytes,
        }
    }
}

type Lane = Arc<ArrayQueue<Handover>>;

/// One worker's lanes to and from each other worker.
#[derive(Debug)]
pub struct Handovers {
    index: usize,
    to: Vec<Lane>,
    from: Vec<Lane>,
    bells: Vec<Arc<EventFd>>,
    rung: Vec<bool>,
    /// The lane to look at first: after each frame the next one, so that none waits for another to be empty.
    turn: usize,
}

impl Handovers {
    /// The lanes of as many workers as there are `bells`, in their order.
    pub fn between(bells: &[Arc<EventFd>]) -> Vec<Self> {
        let count = bells.len();
        let lanes: Vec<Vec<Lane>> =
            (0..count).map(|_| (0..count).map(|_| Arc::new(ArrayQueue::new(CAPACITY))).collect()).collect();
        (0..count)
            .map(|index| Self {
                index,
                to: lanes[index].clone(),
                from: lanes.iter().map(|row| Arc::clone(&row[index])).collect(),
                bells: bells.to_vec(),
                rung: vec![false; count],
                turn: 0,
            })
            .collect()
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.to.len()
    }

    /// The worker that owns `peer_id`. The tunnel's sockets are chosen by the same rule.
    pub fn owner(&self, peer_id: PeerId) -> usize {
        peer_id.index() % self.workers()
    }

    /// True when this worker owns `peer_id`.
    pub fn is_mine(&self, peer_id: PeerId) -> bool {
        self.owner(peer_id) == self.index
    }

    /// The other workers.
    pub fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let index = self.index;
        (0..self.workers()).filter(move |other| *other != index)
    }

    /// Hands over; false when the other is behind.
    pub fn push(&mut self, worker: usize, handover: Handover) -> bool {
        let pushed = self.to[worker].push(handover).is_ok();
        self.rung[worker] |= pushed;
        pushed
    }

    /// The next that was handed over to this worker.
    pub fn pop(&mut self) -> Option<Handover> {
        let count = self.from.len();
        let (lane, handover) = (0..count)
            .map(|ahead| (self.turn + ahead) % count)
            .find_map(|lane| Some((lane, self.from[lane].pop()?)))?;
        self.turn = lane + 1;
        Some(handover)
    }

    /// Once a turn: wakes the workers that were given something.
    pub fn wake_others(&mut self) {
        for (rung, bell) in self.rung.iter_mut().zip(&self.bells) {
            if std::mem::take(rung) {
                ring(bell);
            }
        }
    }
}
