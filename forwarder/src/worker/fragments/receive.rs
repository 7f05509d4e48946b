//! Fragments from the NIC: put together where they arrive or, where a NIC spreads them over its queues, at the worker
//! that all of them can name.

use std::time::Instant;

use openvpn::data::peer_id_of;

use super::{
    super::{Handovers, Worker, outer},
    header::{self, Fragment, Key},
    reassembly::Arrival,
};
use crate::{
    drops::Drop,
    ports::{Frame, Port},
};

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    /// Takes a fragment in that came from the NIC or, if it `was_handed_on`, from another worker; the packet, if it is
    /// whole with that.
    pub(in crate::worker) fn gather(
        &mut self,
        frame: Frame,
        was_handed_on: bool,
        now: Instant,
    ) -> Option<Frame> {
        let Some(fragment) = header::parse(self.frames.bytes(&frame)) else {
            self.drop_frame(frame, Drop::FragmentMalformed);
            return None;
        };
        let meeting_place = self.handovers.meeting_place(fragment.key.hash(0));
        let is_scattered = self.handovers.are_fragments_scattered();
        if is_scattered && !was_handed_on && !self.handovers.is_me(meeting_place) {
            self.hand_on(meeting_place, frame);
            return None;
        }
        let is_trusted = fragment.offset == 0 && self.is_from_a_peer(&frame, &fragment);
        let arrival = Arrival { is_trusted, was_handed_on, now_ms: self.clock.millis(now) };
        let whole = self.reassembly.add(&mut self.frames, frame, fragment, arrival)?;
        if whole.came_by_several {
            self.handovers.scatter_fragments();
        }
        Some(whole.packet)
    }

    /// Once a turn: gives up what has waited too long, and hands on what may have its other half at another worker.
    pub(in crate::worker) fn sweep_fragments(&mut self, now: Instant) {
        let now_ms = self.clock.millis(now);
        if !self.reassembly.is_sweep_due(now_ms) {
            return;
        }
        self.reassembly.sweep(&mut self.frames, now_ms);
        if self.handovers.workers() > 1 {
            self.hand_on_lone(now_ms);
        }
    }

    fn hand_on_lone(&mut self, now_ms: u64) {
        let place = |handovers: &Handovers, key: &Key| handovers.meeting_place(key.hash(0));
        loop {
            let Self { reassembly, handovers, .. } = self;
            let meets_here = |key: &Key| handovers.is_me(place(handovers, key));
            let Some((key, frame)) = reassembly.next_lone(now_ms, meets_here) else { break };
            self.hand_on(place(&self.handovers, &key), frame);
        }
    }

    fn hand_on(&mut self, worker: usize, frame: Frame) {
        if !self.handovers.push_fragment(worker, self.frames.bytes(&frame)) {
            self.counters.drops.count(Drop::HandoverFull);
        }
        self.frames.put(frame);
    }

    /// Whether a first fragment says it is a peer's, and comes from where that peer is. It may be forged all the same,
    /// but only by those who know both.
    fn is_from_a_peer(&self, frame: &Frame, fragment: &Fragment) -> bool {
        let bytes = self.frames.bytes(frame);
        let Some((remote, payload)) = outer::parse_first(bytes, fragment.begin) else { return false };
        peer_id_of(payload).is_some_and(|peer_id| self.handovers.is_located(peer_id, remote))
    }
}
