//! Reliable, ordered delivery for one key id over a datagram path. Source: brief A.3.
//!
//! Packet ids start at 0 and never skip. The sender keeps at most [`SEND_WINDOW`] packets in the air and sends them
//! again until acknowledged; the receiver holds up to [`RECEIVE_WINDOW`] of them back until those before them have
//! come. Both sides are bounded, whatever the peer does.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::wire::{Acks, Opcode, control::MAX_ACKS};

/// Most packets in the air. Upstream 2.4 and 2.5 receive no further ahead than 8 and send 4; 2.6 sends 6.
const SEND_WINDOW: u32 = 4;
/// How far ahead of the next expected id a packet is kept. Upstream 2.6: 12.
const RECEIVE_WINDOW: u32 = 12;
/// First retransmission; doubles each time, up to [`MAX_RETRANSMIT`]. `tls-timeout`.
const RETRANSMIT: Duration = Duration::from_secs(2);
/// Doubling ends here. Upstream doubles for ever, which is five attempts in hand-window; with a fifth of all packets
/// lost one handshake in twenty would fail.
const MAX_RETRANSMIT: Duration = Duration::from_secs(8);
/// A packet is taken for lost once this many later ones are acknowledged.
const LATER_ACKS: u8 = 3;
/// Most acknowledgements in a packet that carries something else: SoftEther drops packets with more.
const ACKS_BESIDE_DATA: usize = 4;
/// Acknowledgements remembered; older ones are dropped, the peer will ask again.
const PENDING_ACKS: usize = 2 * MAX_ACKS;

/// What became of a received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// It is kept until its turn comes.
    New,
    /// It came before; it is acknowledged again.
    Duplicate,
    /// It is too far ahead; it is not acknowledged and will come again.
    BeyondWindow,
}

/// A packet to send now; its acknowledgements are chosen at that moment.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) opcode: Opcode,
    pub(super) packet_id: Option<u32>,
    pub(super) acks: Acks,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug)]
struct InAir {
    id: u32,
    opcode: Opcode,
    payload: Vec<u8>,
    due: Instant,
    /// Until the send after next.
    backoff: Duration,
    later_acks: u8,
}

/// Both directions of one key id.
#[derive(Debug)]
pub(super) struct Reliable {
    /// Unacknowledged, by rising id: `in_air.len() <= SEND_WINDOW`, last id - first id < SEND_WINDOW.
    in_air: VecDeque<InAir>,
    next_id: u32,
    /// Received ahead of their turn: slot i holds id `expected + i`. `held.len() == RECEIVE_WINDOW`.
    held: VecDeque<Option<Vec<u8>>>,
    /// The id whose turn it is.
    expected: u32,
    /// Ids to acknowledge, oldest first.
    acks: VecDeque<u32>,
}

impl Reliable {
    /// Both directions begin at packet id `first`: 0, or 1 where a stateless reset exchange used 0.
    pub(super) fn new(first: u32) -> Self {
        let held = (0..RECEIVE_WINDOW).map(|_| None).collect();
        Self { in_air: VecDeque::new(), next_id: first, held, expected: first, acks: VecDeque::new() }
    }

    /// True if [`Self::send`] may be called.
    pub(super) fn has_room(&self) -> bool {
        match self.in_air.front() {
            Some(oldest) => self.next_id - oldest.id < SEND_WINDOW && self.next_id < u32::MAX,
            None => self.next_id < u32::MAX,
        }
    }

    /// True when everything sent is acknowledged.
    pub(super) fn is_drained(&self) -> bool {
        self.in_air.is_empty()
    }

    /// True once the peer's first packet (its reset) has come.
    pub(super) fn has_received(&self) -> bool {
        self.expected > 0
    }

    /// Queues a packet; it is due at once. Only when [`Self::has_room`].
    pub(super) fn send(&mut self, now: Instant, opcode: Opcode, payload: Vec<u8>) {
        let packet =
            InAir { id: self.next_id, opcode, payload, due: now, backoff: RETRANSMIT, later_acks: 0 };
        self.next_id += 1;
        self.in_air.push_back(packet);
    }

    /// The peer acknowledged these ids.
    pub(super) fn handle_acks(&mut self, now: Instant, acks: &[u32]) {
        for &id in acks {
            let Some(at) = self.in_air.iter().position(|packet| packet.id == id) else { continue };
            self.in_air.remove(at);
            for earlier in self.in_air.iter_mut().take(at) {
                earlier.later_acks = earlier.later_acks.saturating_add(1);
                if earlier.later_acks == LATER_ACKS {
                    earlier.due = now;
                }
            }
        }
    }

    /// A packet with an id of its own arrived.
    pub(super) fn handle_packet(&mut self, id: u32, payload: &[u8]) -> Received {
        let Some(ahead) = id.checked_sub(self.expected) else {
            self.acknowledge(id);
            return Received::Duplicate;
        };
        let Some(slot) = usize::try_from(ahead).ok().and_then(|at| self.held.get_mut(at)) else {
            return Received::BeyondWindow;
        };
        let received = if slot.is_some() { Received::Duplicate } else { Received::New };
        slot.get_or_insert_with(|| payload.to_vec());
        self.acknowledge(id);
        received
    }

    /// The payload whose turn it is, if it has come.
    pub(super) fn next_payload(&mut self) -> Option<Vec<u8>> {
        self.held.front()?.as_ref()?;
        self.held.push_back(None);
        self.expected = self.expected.saturating_add(1);
        self.held.pop_front().flatten()
    }

    /// The next packet to send at `now`: data that is due, else bare acknowledgements.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Outgoing> {
        if let Some(at) = self.in_air.iter().position(|packet| packet.due <= now) {
            let acks = self.acks_beside_data();
            let packet = self.in_air.get_mut(at)?;
            packet.due = now + packet.backoff;
            packet.backoff = (packet.backoff * 2).min(MAX_RETRANSMIT);
            let (opcode, payload) = (packet.opcode, packet.payload.clone());
            return Some(Outgoing { opcode, packet_id: Some(packet.id), acks, payload });
        }
        if self.acks.is_empty() {
            return None;
        }
        let acks = self.take_acks(MAX_ACKS);
        Some(Outgoing { opcode: Opcode::Ack, packet_id: None, acks, payload: Vec::new() })
    }

    /// When the next retransmission is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.in_air.iter().map(|packet| packet.due).min()
    }

    /// Sends nothing again from now on: the peer has shown that it needs none of it.
    pub(super) fn abandon(&mut self) {
        self.in_air.clear();
    }

    fn acknowledge(&mut self, id: u32) {
        if self.acks.contains(&id) {
            return;
        }
        if self.acks.len() == PENDING_ACKS {
            self.acks.pop_front();
        }
        self.acks.push_back(id);
    }

    /// Until the peer has said more than its reset, every packet acknowledges that one: a server that keeps no state yet
    /// knows its client by nothing else.
    fn acks_beside_data(&mut self) -> Acks {
        match self.take_acks(ACKS_BESIDE_DATA) {
            acks if acks.as_slice().is_empty() && self.expected == 1 => Acks::from_iter([0]),
            acks => acks,
        }
    }

    fn take_acks(&mut self, most: usize) -> Acks {
        let count = most.min(self.acks.len());
        self.acks.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sent(reliable: &mut Reliable, now: Instant) -> Vec<Option<u32>> {
        std::iter::from_fn(|| reliable.poll(now)).map(|packet| packet.packet_id).collect()
    }

    fn full(now: Instant) -> Reliable {
        let mut reliable = Reliable::new(0);
        while reliable.has_room() {
            reliable.send(now, Opcode::Control, vec![1]);
        }
        reliable
    }

    #[test]
    fn no_more_than_four_packets_are_in_the_air() {
        let now = Instant::now();
        let mut reliable = full(now);
        assert_eq!(sent(&mut reliable, now), [Some(0), Some(1), Some(2), Some(3)]);
        // A hole at the front keeps the window shut.
        reliable.handle_acks(now, &[1, 2, 3]);
        assert!(!reliable.has_room());
        reliable.handle_acks(now, &[0]);
        assert!(reliable.has_room() && reliable.is_drained());
    }

    #[test]
    fn unacknowledged_packets_are_sent_again_after_2_4_8_and_8_seconds() {
        let start = Instant::now();
        let mut reliable = Reliable::new(1);
        reliable.send(start, Opcode::Control, vec![1]);
        let mut times = Vec::new();
        while let Some(at) = reliable.deadline().filter(|at| *at < start + 30 * SECOND) {
            assert_eq!(sent(&mut reliable, at), [Some(1)]);
            times.push((at - start).as_secs());
        }
        assert_eq!(times, [0, 2, 6, 14, 22]);
    }

    #[test]
    fn a_packet_is_sent_early_once_three_later_ones_are_acknowledged() {
        let now = Instant::now();
        let mut reliable = full(now);
        sent(&mut reliable, now);
        reliable.handle_acks(now, &[1, 2]);
        assert_eq!(sent(&mut reliable, now), []);
        reliable.handle_acks(now, &[3]);
        assert_eq!(sent(&mut reliable, now), [Some(0)]);
    }

    #[test]
    fn payloads_come_out_in_order_whatever_order_they_came_in() {
        let mut reliable = Reliable::new(0);
        for id in [2_u8, 0, 3, 1] {
            assert_eq!(reliable.handle_packet(id.into(), &[id]), Received::New);
        }
        let payloads: Vec<_> = std::iter::from_fn(|| reliable.next_payload()).collect();
        assert_eq!(payloads, [[0], [1], [2], [3]]);
    }

    #[test]
    fn duplicates_are_acknowledged_again_and_packets_beyond_the_window_are_not() {
        let now = Instant::now();
        let mut reliable = Reliable::new(0);
        assert_eq!(reliable.handle_packet(0, &[]), Received::New);
        assert_eq!(reliable.handle_packet(0, &[]), Received::Duplicate);
        reliable.next_payload();
        assert_eq!(reliable.poll(now).unwrap().acks.as_slice(), [0]);
        assert_eq!(reliable.handle_packet(0, &[]), Received::Duplicate);
        assert_eq!(reliable.handle_packet(13, &[]), Received::BeyondWindow);
        assert_eq!(reliable.handle_packet(u32::MAX, &[]), Received::BeyondWindow);
        assert_eq!(reliable.handle_packet(12, &[]), Received::New);
        assert_eq!(reliable.poll(now).unwrap().acks.as_slice(), [0, 12]);
        assert!(reliable.poll(now).is_none());
    }

    #[test]
    fn at_most_four_acknowledgements_ride_with_data_and_eight_alone() {
        let now = Instant::now();
        let mut reliable = Reliable::new(0);
        for id in 0..12 {
            reliable.handle_packet(id, &[]);
        }
        reliable.send(now, Opcode::Control, vec![1]);
        let first = reliable.poll(now).unwrap();
        assert_eq!((first.packet_id, first.acks.as_slice()), (Some(0), &[0, 1, 2, 3][..]));
        let second = reliable.poll(now).unwrap();
        assert_eq!((second.opcode, second.acks.as_slice()), (Opcode::Ack, &[4, 5, 6, 7, 8, 9, 10, 11][..]));
        assert!(reliable.poll(now).is_none());
    }

    #[test]
    fn acknowledgements_of_a_flood_of_duplicates_are_bounded() {
        let mut reliable = Reliable::new(0);
        for id in 0..1000 {
            reliable.handle_packet(id, &[]);
            reliable.next_payload();
        }
        assert!(reliable.acks.len() <= PENDING_ACKS);
    }
}
