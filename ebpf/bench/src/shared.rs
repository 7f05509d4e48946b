//! What the programs and the ruler must agree on; both compile this file.

/// EtherType of the load's plain frames (IEEE 802, for experiments): counted, and never passed on.
pub const ETHERTYPE_LOAD: u16 = 0x88b5;
/// UDP port of the server: what comes from there to a port of the load is a tunnel packet.
pub const SERVER_PORT: u16 = 443;
/// What comes from the server to a port of the load, and belongs to it: OpenVPN's data packets.
pub const PORT_OPENVPN: u32 = 1;
/// The same: every datagram that is longer than a keepalive, for protocols that are not looked into.
pub const PORT_ANY: u32 = 2;
/// Bytes of the length that stands ahead of each packet in the recording.
pub const SLOT_HEADER: usize = 8;

/// Names of maps.
pub mod maps {
    /// One [`super::Orders`].
    pub const ORDERS: &str = "ORDERS";
    /// One [`super::Progress`].
    pub const PROGRESS: &str = "PROGRESS";
    /// Packets to send once each, in order: length (u64), then bytes.
    pub const RECORDING: &str = "RECORDING";
    /// By UDP port: [`super::PORT_OPENVPN`] or [`super::PORT_ANY`] for a client that belongs to the load.
    pub const PORTS: &str = "PORTS";
    /// Per CPU, by [`super::Class`]: frames counted.
    pub const COUNTS: &str = "COUNTS";
    /// By receive queue: who gets what `steer` takes.
    pub const XSKS: &str = "XSKS";
}

/// Names of programs.
pub mod programs {
    /// Sends the frame it is run on, again and again.
    pub const GENERATE: &str = "generate";
    /// Sends the packets of the recording.
    pub const REPLAY: &str = "replay";
    /// Counts and drops what belongs to the load.
    pub const COUNT: &str = "count";
    /// Gives plain frames of the load to an AF_XDP socket.
    pub const STEER: &str = "steer";
}

/// What a counted frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Class {
    /// A plain frame.
    Plain = 0,
    /// A whole tunnel packet.
    Tunnel = 1,
    /// The first fragment of a tunnel packet: stands for the packet.
    FirstFragment = 2,
    /// A later fragment: stands for nothing.
    LaterFragment = 3,
}

/// Number of classes.
pub const CLASSES: usize = 4;

/// What is to be sent: the ruler writes it, also while it is being sent; the programs read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Orders {
    /// Not 0: frames are sent. The programs go on running without, and send nothing.
    pub sending: u64,
    /// Time between two frames in nanoseconds; 0: as fast as it goes.
    pub gap_ns: u64,
    /// At most so many frames are sent since the start.
    pub limit: u64,
    /// Index of the interface they leave by.
    pub interface: u64,
    /// Destinations: the last four bytes of the destination address, from those of the frame on; 0 as 1.
    pub destinations: u64,
    /// The last four bytes of the first destination's address, as a number.
    pub first_destination: u64,
}

impl Orders {
    /// As they stand in the map.
    pub const fn to_words(self) -> [u64; 6] {
        let Self { sending, gap_ns, limit, interface, destinations, first_destination } = self;
        [sending, gap_ns, limit, interface, destinations, first_destination]
    }
}

/// How far it is: the programs write it, the ruler reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Progress {
    /// Frames sent so far, those included that the interface had no room for.
    pub sent: u64,
    /// How often the programs have run with orders to send.
    pub runs: u64,
    /// When the next frame is due (CLOCK_MONOTONIC, nanoseconds).
    pub next_ns: u64,
}

impl Progress {
    /// From what stands in the map.
    pub const fn from_words(words: [u64; 3]) -> Self {
        let [sent, runs, next_ns] = words;
        Self { sent, runs, next_ns }
    }
}
