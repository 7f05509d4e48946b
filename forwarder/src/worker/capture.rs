//! Copies of frames for `trestle capture`: what comes in and goes out by one port, and what is lost on the way.
//!
//! A worker without captures looks at an empty list and goes on. Copies go into a bounded channel; what finds it full is
//! counted, and the frame goes its way all the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crossbeam::channel::Sender;

use super::Worker;
use crate::{
    drops::Drop,
    ports::{Frame, Port},
    switch::{Decision, Ingress, Port as Place},
};

/// One capture, as a worker has it.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Its number, to end it by.
    pub id: u64,
    /// The ports that are listened to: all peers of one name, or one port.
    pub places: Vec<Place>,
    /// Bytes kept of each frame.
    pub snap: usize,
    /// Where copies go.
    pub copies: Sender<Captured>,
    /// Copies that found no room.
    pub lost: Arc<AtomicU64>,
}

/// A copy of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When the worker had it.
    pub at: Instant,
    /// At which port.
    pub place: Place,
    /// Which way it went there.
    pub direction: Direction,
    /// Why it went no further.
    pub drop: Option<Drop>,
    /// Length of the frame in bytes.
    pub length: usize,
    /// The first bytes of it.
    pub bytes: Vec<u8>,
}

/// Seen from the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It came by the port.
    In,
    /// It leaves by the port.
    Out,
}

impl Capture {
    /// Shows the capture a frame that came by `ingress`, and what was decided about it. True when it was copied.
    fn look(&self, ingress: Ingress, decision: Decision, frame: &[u8], at: Instant) -> bool {
        let drop = match decision {
            Decision::Drop(reason) => Some(reason),
            Decision::To(_) | Decision::Flood(_) => None,
        };
        let mut copied = false;
        for &place in &self.places {
            let direction = if place == came_by(ingress) {
                Direction::In
            } else if leaves_by(place, ingress, decision) {
                Direction::Out
            } else {
                continue;
            };
            self.copy(place, direction, drop, frame, at);
            copied = true;
        }
        copied
    }

    fn copy(&self, place: Place, direction: Direction, drop: Option<Drop>, frame: &[u8], at: Instant) {
        let bytes = frame.get(..self.snap).unwrap_or(frame).to_vec();
        let copy = Captured { at, place, direction, drop, length: frame.len(), bytes };
        if self.copies.try_send(copy).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

const fn came_by(ingress: Ingress) -> Place {
    match ingress {
        Ingress::Peer(peer_id) => Place::Peer(peer_id),
        Ingress::Wire(wire) => Place::Wire(wire),
        Ingress::Host => Place::Host,
    }
}

fn leaves_by(place: Place, ingress: Ingress, decision: Decision) -> bool {
    match decision {
        Decision::To(to) => to == place,
        Decision::Flood(flood) => match place {
            Place::Peer(peer_id) => flood.peers && ingress != Ingress::Peer(peer_id),
            Place::Wire(_) => flood.wire,
            Place::Host => flood.host,
        },
        Decision::Drop(_) => false,
    }
}

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    /// Shows all captures a frame and what becomes of it.
    #[cold]
    pub(super) fn capture(&mut self, ingress: Ingress, decision: Decision, frame: &Frame, now: Instant) {
        let bytes = self.frames.bytes(frame);
        let mut copied = false;
        for capture in &self.captures {
            copied |= capture.look(ingress, decision, bytes, now);
        }
        if copied {
            self.mailbox.announce();
        }
    }

    /// Shows all captures a frame that was to leave by `place`, and does not.
    #[cold]
    pub(super) fn capture_unsent(&mut self, place: Place, reason: Drop, frame: &Frame, now: Instant) {
        let bytes = self.frames.bytes(frame);
        for capture in self.captures.iter().filter(|capture| capture.places.contains(&place)) {
            capture.copy(place, Direction::Out, Some(reason), bytes, now);
        }
        self.mailbox.announce();
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::bounded;
    use openvpn::ids::PeerId;

    use super::*;
    use crate::switch::{Flood, WireId};

    fn peer(id: u32) -> PeerId {
        PeerId::new(id).unwrap()
    }

    fn capture(places: &[Place], room: usize) -> (Capture, crossbeam::channel::Receiver<Captured>) {
        let (copies, received) = bounded(room);
        (Capture { id: 1, places: places.to_vec(), snap: 4, copies, lost: Arc::default() }, received)
    }

    #[test]
    fn a_peers_frames_are_copied_on_both_ways_and_others_are_not() {
        let (capture, received) = capture(&[Place::Peer(peer(1))], 8);
        let now = Instant::now();
        let (one, two) = (Ingress::Peer(peer(1)), Ingress::Peer(peer(2)));
        let everybody = Decision::Flood(Flood { peers: true, wire: true, host: true });
        assert!(capture.look(one, Decision::To(Place::Host), b"abcdef", now));
        assert!(capture.look(two, Decision::To(Place::Peer(peer(1))), b"ab", now));
        assert!(capture.look(Ingress::Host, everybody, b"ab", now));
        assert!(capture.look(one, everybody, b"ab", now));
        assert!(capture.look(one, Decision::Drop(Drop::MacLimit), b"ab", now));
        assert!(!capture.look(two, Decision::To(Place::Host), b"ab", now));
        assert!(!capture.look(two, Decision::Drop(Drop::MacLimit), b"ab", now));
        let seen: Vec<_> =
            received.try_iter().map(|copy| (copy.direction, copy.drop, copy.length, copy.bytes)).collect();
        assert_eq!(seen[0], (Direction::In, None, 6, b"abcd".to_vec()), "no more than asked for is kept");
        let ways: Vec<_> = seen.iter().map(|(direction, drop, ..)| (*direction, *drop)).collect();
        let (into, out) = ((Direction::In, None), (Direction::Out, None));
        assert_eq!(ways, [into, out, out, into, (Direction::In, Some(Drop::MacLimit))]);
    }

    #[test]
    fn wire_and_host_are_ports_like_others() {
        let wire = Place::Wire(WireId::UPLINK);
        let (capture, received) = capture(&[wire, Place::Host], 8);
        let now = Instant::now();
        let flood = Decision::Flood(Flood { peers: true, wire: true, host: false });
        assert!(capture.look(Ingress::Peer(peer(1)), flood, b"x", now));
        assert!(capture.look(Ingress::Host, Decision::To(Place::Peer(peer(1))), b"x", now));
        let seen: Vec<_> = received.try_iter().map(|copy| (copy.place, copy.direction)).collect();
        assert_eq!(seen, [(wire, Direction::Out), (Place::Host, Direction::In)]);
    }

    #[test]
    fn a_reader_that_does_not_read_costs_copies_not_frames() {
        let (capture, received) = capture(&[Place::Host], 2);
        for _ in 0..5 {
            capture.look(Ingress::Host, Decision::Drop(Drop::SourceInvalid), b"x", Instant::now());
        }
        assert_eq!((received.len(), capture.lost.load(Ordering::Relaxed)), (2, 3));
    }
}
