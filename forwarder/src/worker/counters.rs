//! What is counted on the data path: written by workers, read by anyone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::drops::DropCounters;

/// Instants as milliseconds, so that they fit an atomic. One clock for all threads of a process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins at `start`.
    pub fn new(start: Instant) -> Self {
        Self { start }
    }

    /// Milliseconds since the start.
    pub fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    /// The instant `millis` after the start.
    pub fn instant(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    /// When it began.
    pub fn start(&self) -> Instant {
        self.start
    }
}

/// Frames through one port of one worker.
#[derive(Debug, Default)]
pub struct PortCounters {
    rx_frames: AtomicU64,
    tx_frames: AtomicU64,
}

impl PortCounters {
    pub(super) fn rx(&self, frames: usize) {
        add(&self.rx_frames, frames);
    }

    pub(super) fn tx(&self, frames: usize) {
        add(&self.tx_frames, frames);
    }

    /// Frames received.
    pub fn rx_frames(&self) -> u64 {
        self.rx_frames.load(Relaxed)
    }

    /// Frames offered to the port to send.
    pub fn tx_frames(&self) -> u64 {
        self.tx_frames.load(Relaxed)
    }
}

/// All that one worker counts, on cache lines that no other worker writes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// The NIC's queue, tunnel packets and the wire's frames together.
    pub nic: PortCounters,
    /// The host port.
    pub host: PortCounters,
    /// Frames the kernel lost ahead of the NIC's queue.
    pub missed_by_nic: AtomicU64,
    /// Packets the kernel lost ahead of the tunnel's UDP socket.
    pub missed_by_tunnel: AtomicU64,
    /// What was lost, in the worker and in its ports.
    pub drops: Arc<DropCounters>,
}

/// What is counted of one peer. Written by the worker that owns it, on a cache line of its own: the next peer's worker
/// may be another.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct PeerCounters {
    /// Ethernet frames from the peer.
    pub rx_frames: AtomicU64,
    /// Ethernet frames to the peer.
    pub tx_frames: AtomicU64,
    /// Data packets that came by XDP.
    pub rx_frames_xdp: AtomicU64,
    /// Data packets that came by the kernel's socket.
    pub rx_frames_socket: AtomicU64,
    /// UDP payload bytes of data packets from the peer.
    pub rx_bytes: AtomicU64,
    /// UDP payload bytes of data packets to the peer.
    pub tx_bytes: AtomicU64,
    /// [`Clock::millis`] when an authentic data packet last came.
    pub last_rx_ms: AtomicU64,
    /// [`Clock::millis`] when a data packet was last sent.
    pub last_tx_ms: AtomicU64,
}

/// Adds to a counter that one thread writes: load and store, since an atomic addition would lock the cache line for
/// nothing, three times a frame.
pub(super) fn add(counter: &AtomicU64, amount: usize) {
    counter.store(counter.load(Relaxed).wrapping_add(amount as u64), Relaxed);
}
