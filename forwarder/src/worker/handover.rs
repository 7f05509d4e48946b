//! Between workers: a frame that arrives at one and belongs to a peer of another is handed over, so that a peer's
//! packets are opened and sealed in one place, in order.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crossbeam::queue::ArrayQueue;
use nix::sys::eventfd::EventFd;
use openvpn::ids::PeerId;

use super::mailbox::ring;
use crate::switch::{Flood, Ingress};

/// Frames one worker may have waiting at another. More would only add delay.
const CAPACITY: usize = 512;
/// How many of them may be tunnel packets from where their peer is not known to be. Nothing of a packet is authentic
/// before its owner opens it: without this share, forged ones of a stranger fill the lane. Peers that move or have just
/// come need few.
const STRANGERS: usize = 64;
/// How many of them may be there when a fragment is handed on: the peer of a later one is not known.
const FRAGMENTS: usize = CAPACITY / 2;
/// Peers whose whereabouts are known; those with higher numbers are strangers.
const KNOWN_PEERS: usize = 4096;

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

/// No peer has port 0.
const NOWHERE: u64 = 0;

/// Address and port in one number; tunnel packets are IPv4.
fn packed(remote: SocketAddr) -> u64 {
    match remote {
        SocketAddr::V4(remote) => u64::from(remote.ip().to_bits()) << 16 | u64::from(remote.port()),
        SocketAddr::V6(_) => NOWHERE,
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
    /// Where each peer is, by number: written by its owner, read by those that have a packet in its name.
    whereabouts: Arc<[AtomicU64]>,
    /// The NIC spreads the fragments of one packet over its queues.
    scattered: Arc<AtomicBool>,
    /// The lane to look at first: after each frame the next one, so that none waits for another to be empty.
    turn: usize,
}

impl Handovers {
    /// The lanes of as many workers as there are `bells`, in their order.
    pub fn between(bells: &[Arc<EventFd>]) -> Vec<Self> {
        let count = bells.len();
        let lanes: Vec<Vec<Lane>> =
            (0..count).map(|_| (0..count).map(|_| Arc::new(ArrayQueue::new(CAPACITY))).collect()).collect();
        let whereabouts: Arc<[AtomicU64]> = (0..KNOWN_PEERS).map(|_| AtomicU64::new(NOWHERE)).collect();
        let scattered = Arc::<AtomicBool>::default();
        (0..count)
            .map(|index| Self {
                scattered: Arc::clone(&scattered),
                whereabouts: Arc::clone(&whereabouts),
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

    /// Notes where a peer of this worker is; `None`: it is gone.
    pub fn locate(&self, peer_id: PeerId, remote: Option<SocketAddr>) {
        if let Some(place) = self.whereabouts.get(peer_id.index()) {
            place.store(remote.map_or(NOWHERE, packed), Relaxed);
        }
    }

    /// Hands a tunnel packet of `peer_id` that came from `remote` over to its owner; false when that is behind.
    pub fn push_packet(&mut self, peer_id: PeerId, remote: SocketAddr, packet: &[u8]) -> bool {
        let owner = self.owner(peer_id);
        let room = if self.is_located(peer_id, remote) { CAPACITY } else { STRANGERS };
        self.to[owner].len() < room && self.push(owner, Handover::Packet(Box::from(packet)))
    }

    /// Whether the peer is known to be at `remote`.
    pub fn is_located(&self, peer_id: PeerId, remote: SocketAddr) -> bool {
        let place = self.whereabouts.get(peer_id.index()).map_or(NOWHERE, |place| place.load(Relaxed));
        place != NOWHERE && place == packed(remote)
    }

    /// The worker where fragments of one packet meet that came by several queues, by a hash of what they share.
    pub fn meeting_place(&self, hash: usize) -> usize {
        hash % self.workers()
    }

    /// True when `worker` is this one.
    pub fn is_me(&self, worker: usize) -> bool {
        worker == self.index
    }

    /// Whether fragments are to be handed on to their meeting place at once.
    pub fn are_fragments_scattered(&self) -> bool {
        self.scattered.load(Relaxed)
    }

    /// Tells all workers that the NIC spreads fragments of one packet over its queues.
    pub fn scatter_fragments(&self) {
        self.scattered.store(true, Relaxed);
    }

    /// Hands a fragment on to where the others of its packet come; false when that is behind.
    pub fn push_fragment(&mut self, worker: usize, fragment: &[u8]) -> bool {
        self.to[worker].len() < FRAGMENTS && self.push(worker, Handover::Packet(Box::from(fragment)))
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
