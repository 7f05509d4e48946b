//! A capture of a port of the kernel bridge. Every frame there comes to us by one way:
//!
//! ```text
//!   XDP took it, from the port or to it  ─► ring ──────────┐
//!   the kernel received it or sends it   ─► packet socket ─┼─► one capture
//!   a worker had it in hand, for a peer  ─► its copies ────┘
//! ```

use std::io;

use common::{Verdict, bridge::CaptureHeader};

use super::packet_socket::{Heard, PacketSocket};
use crate::{control::bridge::Standing, management::capture::FrameRecord, switch::WireId, worker::Direction};

/// Frames taken of one packet socket in one go.
const BATCH: usize = 1024;

/// The port, as long as it is captured.
#[derive(Debug)]
pub(super) struct CapturedPort {
    pub name: String,
    /// `None`: it is no port now.
    standing: Option<Standing>,
    socket: Option<PacketSocket>,
    /// Frames since the last turn.
    frames: Vec<FrameRecord>,
    /// Frames that former sockets had no room for.
    missed: u64,
    /// Frames that XDP's ring had no room for: when the capture began, and now.
    uncaptured: (u64, u64),
}

impl CapturedPort {
    /// Begins to listen.
    ///
    /// # Errors
    /// There can be no packet socket on it.
    pub fn open(name: &str, standing: Standing, uncaptured: u64) -> io::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            standing: Some(standing),
            socket: Some(PacketSocket::open(standing.port)?),
            frames: Vec::new(),
            missed: 0,
            uncaptured: (uncaptured, uncaptured),
        })
    }

    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }

    pub fn wire(&self) -> Option<WireId> {
        self.standing?.wire
    }

    pub fn socket(&self) -> Option<&PacketSocket> {
        self.socket.as_ref()
    }

    /// The port has left, or is another: what returns under its name is listened to anew.
    pub fn follow(&mut self, standing: Option<Standing>) {
        self.missed += self.socket.take().map_or(0, |socket| socket.missed());
        self.standing = standing;
        self.socket = standing.and_then(|standing| {
            let opened = PacketSocket::open(standing.port);
            opened.inspect_err(|error| tracing::warn!(port = %self.name, "captured without what the kernel forwards: {error}")).ok()
        });
    }

    /// Takes a frame from the ring, if it is of this port.
    pub fn take(&mut self, header: CaptureHeader, bytes: &[u8], snap: usize, time_ns: u64) {
        let Some(direction) = self.wire().and_then(|wire| direction(header, wire)) else { return };
        let bytes = bytes.get(..snap).unwrap_or(bytes).to_vec();
        self.frames.push(record(time_ns, direction, header.length, bytes));
    }

    /// Takes what the kernel had. False when there is more.
    pub fn listen(&mut self, snap: usize) -> bool {
        let Some(socket) = &mut self.socket else { return true };
        for _ in 0..BATCH {
            let Some(Heard { time_ns, direction, length, bytes }) = socket.hear(snap) else { return true };
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            self.frames.push(record(time_ns, direction, length, bytes));
        }
        false
    }

    pub fn frames(&mut self) -> impl Iterator<Item = FrameRecord> {
        self.frames.drain(..)
    }

    /// What has been counted of frames that XDP's ring had no room for. The ring is one for all ports: of several captures
    /// each is told of all.
    pub fn set_uncaptured(&mut self, uncaptured: u64) {
        self.uncaptured.1 = uncaptured;
    }

    /// Frames that are not in the capture.
    pub fn lost(&self) -> u64 {
        let (before, now) = self.uncaptured;
        let missed = self.socket.as_ref().map_or(0, PacketSocket::missed);
        self.missed + missed + now.saturating_sub(before)
    }
}

fn direction(header: CaptureHeader, wire: WireId) -> Option<Direction> {
    let slot = u32::from(wire.number());
    // A worker shows it, with what became of it.
    let in_hand = header.verdict == Verdict::ToPeer as u32;
    if header.from == slot && !in_hand {
        Some(Direction::In)
    } else if header.to == slot {
        Some(Direction::Out)
    } else {
        None
    }
}

fn record(time_ns: u64, direction: Direction, length: u32, bytes: Vec<u8>) -> FrameRecord {
    FrameRecord { time_ns, interface: 0, direction, drop: 0, length, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_in_the_ring_comes_by_one_port_and_goes_to_another() {
        let wire = |number| WireId::new(number).unwrap();
        let header =
            CaptureHeader { time_ns: 0, from: 3, to: 7, verdict: Verdict::ToPort as u32, length: 60 };
        let ways = [3, 7, 1].map(|number| direction(header, wire(number)));
        assert_eq!(ways, [Some(Direction::In), Some(Direction::Out), None]);
        let none = CaptureHeader::NO_PORT;
        let tunnel = CaptureHeader { to: none, verdict: Verdict::Tunnel as u32, ..header };
        assert_eq!(direction(tunnel, wire(3)), Some(Direction::In));
        let to_peer = CaptureHeader { to: none, verdict: Verdict::ToPeer as u32, ..header };
        assert_eq!(direction(to_peer, wire(3)), None, "the worker shows it");
    }
}
