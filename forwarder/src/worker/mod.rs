//! The data path. One worker, pinned to a CPU, owns one queue of the NIC, its share of the peers and all memory their
//! frames pass through. It shares nothing that is written with another thread but counters.
//!
//! [`Worker::turn`] is the whole way of a frame, in order:
//!
//! ```text
//!  NIC queue ─┐            ┌ tunnel packets ─ open ─┐                 ┌ a peer's ─── seal ─┐┌─ NIC queue
//!  tunnel UDP ┼─ classify ─┤                        ├─ frames ─ switch┤ flooded ── × n ────┼┼─ tunnel UDP
//!  host port ─┘            └ the LAN's frames ──────┘                 └ wire's, host's ────┘└─ host port
//! ```
//!
//! Each step works through the whole batch before the next begins. (None is inlined, which costs a call a batch: profiles,
//! and the counts that `cargo xtask micro` keeps, name steps by their functions.)
//! A frame is a token: it is taken from [`Frames`], moved from list to list, and given back exactly once.

/// Copies of frames, for whoever looks.
pub mod capture;
mod classify;
mod counters;
mod forward;
pub mod fragments;
mod guards;
mod handover;
mod mailbox;
mod mss;
mod obey;
mod open;
pub mod outer;
mod peers;
mod run;
mod seal;
#[cfg(test)]
mod tests;
mod unnamed;
mod waking;
mod wires;

use std::{sync::Arc, time::Instant};

pub use capture::{Capture, Captured, Direction};
pub use counters::{Clock, PeerCounters, PortCounters, WorkerCounters};
use fragments::{Identifications, Reassembly};
use guards::Bucket;
pub use guards::Guards;
pub use handover::{Errand, Handovers};
pub(crate) use mailbox::ring;
pub use mailbox::{Command, Mailbox, NewPeer, Notice, Post};
use openvpn::ids::PeerId;
pub use outer::{Outer, Way};
pub use peers::Peers;
use unnamed::Unnamed;
use wires::Elsewhere;

use crate::{
    ports::{BATCH, Frame, Frames, Port},
    switch::{Fdb, Flood, Ingress, Segment},
};

/// What a worker is told at birth.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which of the workers it is, from 0. Worker 0 owns the host port.
    pub index: usize,
    /// The segment's ports and filters.
    pub segment: Segment,
    /// The NIC's address: what comes to it by XDP is a tunnel packet.
    pub nic_mac: common::Mac,
    /// Longest frame of the segment, in bytes with header and tags.
    pub max_frame: usize,
    /// A station that is still heard is reported this often.
    pub report_interval: std::time::Duration,
    /// What it watches for.
    pub guards: Guards,
}

/// The ports of one worker.
#[derive(Debug)]
pub struct Ports<N, T, H> {
    /// The NIC: tunnel packets and the wire's frames.
    pub nic: N,
    /// The tunnel's UDP socket: tunnel packets that XDP let pass, and those too long for one packet on the way out.
    pub tunnel: T,
    /// The host port; worker 0 has it.
    pub host: Option<H>,
}

/// The data path of one NIC queue.
#[derive(Debug)]
pub struct Worker<N, T, H> {
    settings: Settings,
    ports: Ports<N, T, H>,
    frames: Frames,
    peers: Peers,
    unnamed: Unnamed,
    fdb: Fdb,
    mailbox: Mailbox,
    handovers: Handovers,
    counters: Arc<WorkerCounters>,
    clock: Clock,
    batch: Batch,
    expected: Expected,
    /// Who wants copies of frames; empty but for moments.
    captures: Vec<Capture>,
    elsewhere: Elsewhere,
    /// Probes that came back, but by a peer.
    probes: Bucket,
    reassembly: Reassembly,
    /// With DF 0 fragments must be told apart, also those made on the way.
    identifications: Identifications,
    stopped: bool,
}

/// The lists frames move through within a turn; all are empty between turns, and keep their memory.
#[derive(Debug, Default)]
struct Batch {
    /// Just received, by port.
    from_nic: Vec<Frame>,
    from_tunnel: Vec<Frame>,
    from_host: Vec<Frame>,
    /// Tunnel packets and fragments of them, from other workers.
    handed_over: Vec<Frame>,
    /// Classified.
    packets: Vec<(Arrival, Frame)>,
    /// Tunnel packets without headers, of peers that come over TCP.
    streamed: Vec<(PeerId, Frame)>,
    inner: Vec<(Ingress, Frame)>,
    /// Switched.
    to_peer: Vec<(PeerId, Frame)>,
    flooded: Vec<(Ingress, Flood, Frame)>,
    /// Ready to leave.
    to_nic: Vec<Frame>,
    to_tunnel: Vec<Frame>,
    to_host: Vec<Frame>,
}

/// Which of the ports that cost a system call to look at may have something. The others are not looked at: the kernel is
/// asked about all of them at once, before each sleep and now and then ([`waking`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    tunnel: bool,
    host: bool,
}

impl Default for Expected {
    fn default() -> Self {
        Self { tunnel: true, host: true }
    }
}

/// While one frame is sealed or opened, the one so many places behind the next is fetched from memory. Too near comes too late,
/// too far is evicted again before its turn.
const AHEAD: usize = 1;

/// By which way a tunnel packet arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    Xdp,
    Socket,
}

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    /// A worker without peers. All of `frames`' memory stays with it and its ports.
    pub fn new(
        settings: Settings,
        ports: Ports<N, T, H>,
        frames: Frames,
        mailbox: Mailbox,
        handovers: Handovers,
        counters: Arc<WorkerCounters>,
        clock: Clock,
    ) -> Self {
        let drops = Arc::clone(&counters.drops);
        Self {
            reassembly: Reassembly::new(frames.total(), fragments::random_seed(), drops),
            identifications: Identifications::new(settings.index, handovers.workers(), handovers.secret()),
            settings,
            ports,
            frames,
            peers: Peers::default(),
            unnamed: Unnamed::default(),
            fdb: Fdb::default(),
            mailbox,
            handovers,
            counters,
            clock,
            batch: Batch::default(),
            expected: Expected::default(),
            captures: Vec::new(),
            elsewhere: Elsewhere::default(),
            probes: Bucket::default(),
            stopped: false,
        }
    }

    /// One batch through the whole data path. Returns how many frames came in; never waits.
    #[inline(never)]
    pub fn turn(&mut self, now: Instant) -> usize {
        let received = self.receive() + self.accept_handovers();
        // After receiving: what a packet answers, a new key for instance, was commanded before it could come.
        self.obey(now);
        self.classify(now);
        self.open(now);
        self.sweep_fragments(now);
        self.switch(now);
        self.seal_unicast(now);
        self.seal_flooded(now);
        self.transmit();
        self.handovers.wake_others();
        self.mailbox.wake_control();
        self.assert_conservation();
        received
    }

    #[inline(never)]
    fn receive(&mut self) -> usize {
        let Self { ports, frames, batch, expected, .. } = self;
        ports.nic.receive(frames, &mut batch.from_nic, BATCH);
        if expected.tunnel {
            ports.tunnel.receive(frames, &mut batch.from_tunnel, BATCH);
            expected.tunnel = may_have_more(&ports.tunnel, batch.from_tunnel.len());
        }
        if let Some(host) = ports.host.as_mut().filter(|_| expected.host) {
            host.receive(frames, &mut batch.from_host, BATCH);
            expected.host = may_have_more(host, batch.from_host.len());
        }
        self.counters.nic.rx(batch.from_nic.len());
        self.counters.host.rx(batch.from_host.len());
        batch.from_nic.len() + batch.from_tunnel.len() + batch.from_host.len()
    }

    #[inline(never)]
    fn transmit(&mut self) {
        self.flush();
        let Self { ports, frames, .. } = self;
        ports.nic.wake(frames);
        ports.tunnel.wake(frames);
        if let Some(host) = &mut ports.host {
            host.wake(frames);
        }
    }

    /// Sends what is ready; a flood to many peers does so several times a turn, to need no more memory than a batch.
    fn flush(&mut self) {
        if !self.elsewhere.is_empty() {
            self.hand_over_for_wires();
        }
        let Self { ports, frames, batch, counters, .. } = self;
        counters.nic.tx(batch.to_nic.len());
        ports.nic.transmit(frames, &mut batch.to_nic);
        ports.tunnel.transmit(frames, &mut batch.to_tunnel);
        if let Some(host) = &mut ports.host {
            counters.host.tx(batch.to_host.len());
            host.transmit(frames, &mut batch.to_host);
        }
    }

    /// Free, held in ports and under reassembly is all there is: between turns no list holds a frame.
    fn assert_conservation(&self) {
        debug_assert_eq!(
            self.frames.free()
                + self.reassembly.held()
                + self.ports.nic.held()
                + self.ports.tunnel.held()
                + self.ports.host.as_ref().map_or(0, Port::held),
            self.frames.total(),
            "a frame was lost or doubled"
        );
    }
}

/// Whether a port that gave `received` frames is looked at in the next turn, too. One whose readiness nobody tells always
/// is.
fn may_have_more(port: &impl Port, received: usize) -> bool {
    received >= BATCH || port.has_leftovers() || port.readable().is_none()
}
