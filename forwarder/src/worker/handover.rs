//! Between workers: a frame that arrives at one and belongs to a peer of another is handed over, so that a peer's
//! packets are opened and sealed in one place, in order. The thread that owns the TCP connections is one more end: packets
//! go through it as if it were a worker, and none waits for the other.

use std::{
    hash::{BuildHasher, RandomState},
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
use crate::{
    streams::StreamId,
    switch::{Flood, Ingress, WireId},
};

/// Frames one worker may have waiting at another. More would only add delay.
const CAPACITY: usize = 512;
/// Packets one worker may have waiting at the streams' thread. A flood is one for each of the peers over TCP, all in one
/// turn: were it less, the last of them would never hear a broadcast. Too high delays all of them when they are behind.
const TO_STREAMS: usize = 4096;
/// How many of them may be tunnel packets from where their peer is not known to be. Nothing of a packet is authentic
/// before its owner opens it: without this share, forged ones of a stranger fill the lane. Peers that move or have just
/// come need few.
const STRANGERS: usize = 64;
/// How many of them may be there when a fragment is handed on: the peer of a later one is not known.
const FRAGMENTS: usize = CAPACITY / 2;
/// Peers whose whereabouts are known; those with higher numbers are strangers.
const KNOWN_PEERS: usize = 4096;

/// Why something is handed over, which says what its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// A tunnel packet, as it arrived by XDP, to open.
    Packet,
    /// A frame for a peer, to seal.
    ToPeer(PeerId),
    /// A flooded frame, for the other worker's peers, or for the host port it owns.
    Flooded(Ingress, Flood),
    /// A frame for the host port.
    ToHost,
    /// A frame for a wire of which the other worker has a queue.
    ToWire(WireId),
    /// An OpenVPN packet of a peer that came over its TCP connection, to open. To workers only.
    FromStream(PeerId),
    /// A sealed OpenVPN packet, to send over this connection. To the streams' thread only.
    ToStream(StreamId),
}

/// What is handed over.
#[derive(Debug)]
struct Handover {
    errand: Errand,
    bytes: Vec<u8>,
}

/// From one worker to another. Bytes are copied into buffers that go back and forth and grow to the longest frame once,
/// so a lane that has been busy allocates nothing.
#[derive(Debug)]
struct Lane {
    under_way: ArrayQueue<Handover>,
    empty: ArrayQueue<Vec<u8>>,
}

impl Lane {
    fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { under_way: ArrayQueue::new(capacity), empty: ArrayQueue::new(capacity) })
    }

    /// False when the lane is full.
    fn push(&self, errand: Errand, bytes: &[u8]) -> bool {
        if self.under_way.is_full() {
            return false;
        }
        let mut buffer = self.empty.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.under_way.push(Handover { errand, bytes: buffer }).is_ok()
    }

    /// Hands the next to `receive`, if there is one, and keeps its buffer.
    fn pop(&self, receive: impl FnOnce(Errand, &[u8])) -> bool {
        let Some(handover) = self.under_way.pop() else { return false };
        receive(handover.errand, &handover.bytes);
        // There are never more buffers than the lane holds, so there is room.
        let _ = self.empty.push(handover.bytes);
        true
    }
}

/// No peer has port 0.
const NOWHERE: u64 = 0;
/// Of a place reached by IPv6; IPv4's have 48 bits.
const BY_IPV6: u64 = 1 << 63;

/// Address and port in one number: of IPv4 themselves, of IPv6 a hash, whose `secret` keeps strangers from finding an
/// address with that of a peer.
fn packed(remote: SocketAddr, secret: &RandomState) -> u64 {
    match remote {
        SocketAddr::V4(remote) => u64::from(remote.ip().to_bits()) << 16 | u64::from(remote.port()),
        SocketAddr::V6(remote) => secret.hash_one((remote.ip(), remote.port())) | BY_IPV6,
    }
}

/// One worker's lanes to and from each other worker, and those of the streams' thread.
#[derive(Debug)]
pub struct Handovers {
    index: usize,
    workers: usize,
    /// By worker; behind them the streams' thread, if there is one.
    to: Vec<Arc<Lane>>,
    from: Vec<Arc<Lane>>,
    bells: Vec<Arc<EventFd>>,
    rung: Vec<bool>,
    /// Where each peer is, by number: written by its owner, read by those that have a packet in its name.
    whereabouts: Arc<[AtomicU64]>,
    /// All workers' the same.
    secret: RandomState,
    /// The NIC spreads the fragments of one packet over its queues.
    scattered: Arc<AtomicBool>,
    /// The lane to look at first: after each frame the next one, so that none waits for another to be empty.
    turn: usize,
}

impl Handovers {
    /// The lanes of as many workers as there are `bells`, in their order.
    pub fn between(bells: &[Arc<EventFd>]) -> Vec<Self> {
        Self::ends(bells, bells.len())
    }

    /// The same, and besides the end of the streams' thread, which is woken by `streams`.
    pub fn with_streams(bells: &[Arc<EventFd>], streams: &Arc<EventFd>) -> (Vec<Self>, Self) {
        let bells = [bells, &[Arc::clone(streams)]].concat();
        let mut ends = Self::ends(&bells, bells.len() - 1);
        let streams = ends.remove(bells.len() - 1);
        (ends, streams)
    }

    /// The first `workers` ends are workers'.
    fn ends(bells: &[Arc<EventFd>], workers: usize) -> Vec<Self> {
        let count = bells.len();
        let lane = |to: usize| Lane::new(if to < workers { CAPACITY } else { TO_STREAMS });
        let lanes: Vec<Vec<Arc<Lane>>> = (0..count).map(|_| (0..count).map(lane).collect()).collect();
        let whereabouts: Arc<[AtomicU64]> = (0..KNOWN_PEERS).map(|_| AtomicU64::new(NOWHERE)).collect();
        let scattered = Arc::<AtomicBool>::default();
        let secret = RandomState::new();
        (0..count)
            .map(|index| Self {
                scattered: Arc::clone(&scattered),
                secret: secret.clone(),
                whereabouts: Arc::clone(&whereabouts),
                index,
                workers,
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
        self.workers
    }

    /// What all workers know and nobody else.
    pub fn secret(&self) -> &RandomState {
        &self.secret
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

    /// Hands `bytes` over; false when the other is behind.
    pub fn push(&mut self, worker: usize, errand: Errand, bytes: &[u8]) -> bool {
        let pushed = self.to[worker].push(errand, bytes);
        self.rung[worker] |= pushed;
        pushed
    }

    /// Hands a sealed packet over to the streams' thread; false when that is behind, or there is none.
    pub fn push_stream(&mut self, stream: StreamId, packet: &[u8]) -> bool {
        self.to.len() > self.workers && self.push(self.workers, Errand::ToStream(stream), packet)
    }

    /// Notes where a peer of this worker is; `None`: it is gone.
    pub fn locate(&self, peer_id: PeerId, remote: Option<SocketAddr>) {
        if let Some(place) = self.whereabouts.get(peer_id.index()) {
            place.store(remote.map_or(NOWHERE, |remote| packed(remote, &self.secret)), Relaxed);
        }
    }

    /// Hands a tunnel packet of `peer_id` that came from `remote` over to its owner; false when that is behind.
    pub fn push_packet(&mut self, peer_id: PeerId, remote: SocketAddr, packet: &[u8]) -> bool {
        let owner = self.owner(peer_id);
        let room = if self.is_located(peer_id, remote) { CAPACITY } else { STRANGERS };
        self.to[owner].under_way.len() < room && self.push(owner, Errand::Packet, packet)
    }

    /// Whether the peer is known to be at `remote`.
    pub fn is_located(&self, peer_id: PeerId, remote: SocketAddr) -> bool {
        let place = self.whereabouts.get(peer_id.index()).map_or(NOWHERE, |place| place.load(Relaxed));
        place != NOWHERE && place == packed(remote, &self.secret)
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
        self.to[worker].under_way.len() < FRAGMENTS && self.push(worker, Errand::Packet, fragment)
    }

    /// Hands the next that was handed over to this worker to `receive`; false when there is nothing.
    pub fn pop(&mut self, mut receive: impl FnMut(Errand, &[u8])) -> bool {
        let count = self.from.len();
        let mut lanes = (0..count).map(|ahead| (self.turn + ahead) % count);
        let Some(lane) = lanes.find(|&lane| self.from[lane].pop(&mut receive)) else { return false };
        self.turn = lane + 1;
        true
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
