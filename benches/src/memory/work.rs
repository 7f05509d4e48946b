//! Rounds of work: a batch of frames on one of the ways through the gateway.

use std::{fmt, io, iter};

use common::Mac;
use trestle::{
    ports::BATCH,
    switch::{Port as Place, WireId},
};

use super::{
    client::Client,
    gateway::{Gateway, MTU},
};

const ON_WIRE: Mac = [2, 0, 0, 0, 0, 0x20];
const BROADCAST: Mac = [0xff; 6];
/// Peers that a batch is spread over.
const PEERS: u32 = 4;
/// Peers that a flood goes to, beside the one it comes from.
const AUDIENCE: u32 = 100;
/// Broadcast frames in one round: each becomes [`AUDIENCE`] packets.
const BROADCASTS: usize = 4;
/// Longest frame whose tunnel packet leaves in one piece, in bytes; that of a longer one leaves in two.
const WHOLE: usize = MTU as usize - IPV4_AND_UDP - openvpn::data::HEADER;
/// Bytes of these headers.
const IPV4_AND_UDP: usize = 28;

/// Which way the frames of a round go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// From the wire to peers: sealed.
    LanToPeer,
    /// From peers to a station on the wire: opened.
    PeerToLan,
    /// From peers to peers: opened and sealed.
    PeerToPeer,
    /// A peer's broadcast to a hundred others, the wire and the host.
    Flood,
    /// From the wire to peers of another worker: handed over as frames.
    FrameHandover,
    /// Tunnel packets that arrive at another worker than their peer's: handed over as packets.
    PacketHandover,
}

impl Work {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::LanToPeer,
        Self::PeerToLan,
        Self::PeerToPeer,
        Self::Flood,
        Self::FrameHandover,
        Self::PacketHandover,
    ];

    /// How it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::LanToPeer => "lan-to-peer",
            Self::PeerToLan => "peer-to-lan",
            Self::PeerToPeer => "peer-to-peer",
            Self::Flood => "flood",
            Self::FrameHandover => "frame-handover",
            Self::PacketHandover => "packet-handover",
        }
    }

    /// Frames of that length that a round puts in: what a worker takes in one turn.
    fn offered(self, frame_bytes: usize) -> usize {
        match self {
            Self::Flood => BROADCASTS,
            Self::PeerToLan | Self::PeerToPeer | Self::PacketHandover => BATCH / pieces(frame_bytes),
            Self::LanToPeer | Self::FrameHandover => BATCH,
        }
    }

    /// Frames of that length that are delivered by a round.
    pub fn delivered(self, frame_bytes: usize) -> usize {
        let audience = if self == Self::Flood { AUDIENCE as usize + 2 } else { 1 };
        self.offered(frame_bytes) * audience
    }

    /// Ethernet frames that leave for those delivered: each fragment is one.
    fn leaving(self, frame_bytes: usize) -> usize {
        let goes_to_peer = matches!(self, Self::LanToPeer | Self::PeerToPeer | Self::FrameHandover);
        self.delivered(frame_bytes) * if goes_to_peer { pieces(frame_bytes) } else { 1 }
    }

    /// Lengths of frames it is measured with, in bytes.
    pub fn lengths(self) -> &'static [usize] {
        match self {
            Self::Flood | Self::FrameHandover | Self::PacketHandover => &[60, 1414],
            Self::LanToPeer | Self::PeerToLan | Self::PeerToPeer => &[60, 1414, 1514],
        }
    }

    /// Everything that is measured: each way with each length.
    pub fn matrix() -> impl Iterator<Item = (Self, usize)> {
        Self::ALL.into_iter().flat_map(|work| work.lengths().iter().map(move |length| (work, *length)))
    }

    fn workers(self) -> usize {
        if matches!(self, Self::FrameHandover | Self::PacketHandover) { 2 } else { 1 }
    }

    /// Numbers of the peers; with two workers all are of the second, and all arrives at the first.
    fn peers(self) -> Vec<u32> {
        match self {
            Self::Flood => (0..=AUDIENCE).collect(),
            Self::FrameHandover | Self::PacketHandover => (0..PEERS).map(|peer| 2 * peer + 1).collect(),
            Self::LanToPeer | Self::PeerToLan | Self::PeerToPeer => (0..PEERS).collect(),
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A gateway, and the frames of one way that go through it round by round.
#[derive(Debug)]
pub struct Round {
    work: Work,
    gateway: Gateway,
    clients: Vec<Client>,
    /// Written anew for each frame that is offered.
    frame: Vec<u8>,
}

impl Round {
    /// A gateway with its peers connected and everything warm: lists, buffers and tables have found their size.
    ///
    /// # Errors
    /// The system has no more file descriptors, or a warm round lost frames.
    pub fn new(work: Work, frame_bytes: usize) -> io::Result<Self> {
        let mut gateway = Gateway::new(work.workers())?;
        let clients = work.peers().into_iter().map(|number| gateway.connect(number));
        let clients = clients.collect::<io::Result<Vec<_>>>()?;
        gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK));
        let mut round = Self { work, gateway, clients, frame: vec![0x5a; frame_bytes] };
        round.frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        iter::repeat_with(|| round.run()).take(4).collect::<io::Result<()>>()?;
        Ok(round)
    }

    /// Offers, turns and collects.
    ///
    /// # Errors
    /// See [`Round::offer`] and [`Round::collect`].
    pub fn run(&mut self) -> io::Result<()> {
        self.offer()?;
        self.turn();
        self.collect()
    }

    /// Puts a batch of frames where they come in.
    ///
    /// # Errors
    /// A wire is full: what was offered before has not been collected.
    pub fn offer(&mut self) -> io::Result<()> {
        (0..self.work.offered(self.frame.len())).try_for_each(|at| match self.work {
            Work::LanToPeer | Work::FrameHandover => self.offer_from_wire(at),
            Work::PeerToLan | Work::PacketHandover => self.offer_from_peer(at, ON_WIRE),
            Work::PeerToPeer => self.offer_from_peer(at, self.client(at + 1).mac()),
            // One peer floods: the others are its audience.
            Work::Flood => self.offer_from_peer(0, BROADCAST),
        })
    }

    /// The part that is measured: one turn of each worker.
    pub fn turn(&mut self) {
        self.gateway.turn();
    }

    /// Takes what came out.
    ///
    /// # Errors
    /// A frame is missing.
    pub fn collect(&mut self) -> io::Result<()> {
        let (came, due) = (self.gateway.collect(), self.work.leaving(self.frame.len()));
        if came == due && self.gateway.lost() == 0 {
            return Ok(());
        }
        let lost = self.gateway.lost();
        Err(io::Error::other(format!(
            "{}: {came} frames came out where {due} were due, {lost} lost",
            self.work
        )))
    }

    fn client(&self, at: usize) -> &Client {
        &self.clients[at % self.clients.len()]
    }

    fn offer_from_wire(&mut self, at: usize) -> io::Result<()> {
        let destination = self.client(at).mac();
        self.address(destination, ON_WIRE);
        taken(self.gateway.arrive(0, &self.frame))
    }

    fn offer_from_peer(&mut self, at: usize, destination: Mac) -> io::Result<()> {
        let source = self.client(at).mac();
        self.address(destination, source);
        let count = self.clients.len();
        let gateway = &self.gateway;
        self.clients[at % count].send(&self.frame, |packet| taken(gateway.arrive(0, packet)))
    }

    fn address(&mut self, destination: Mac, source: Mac) {
        self.frame[..6].copy_from_slice(&destination);
        self.frame[6..12].copy_from_slice(&source);
    }
}

/// Pieces that the tunnel packet of a frame of that length comes and leaves in.
fn pieces(frame_bytes: usize) -> usize {
    if frame_bytes > WHOLE { 2 } else { 1 }
}

fn taken(taken: bool) -> io::Result<()> {
    if taken { Ok(()) } else { Err(io::Error::other("the wire in memory is full: collect before you offer")) }
}
