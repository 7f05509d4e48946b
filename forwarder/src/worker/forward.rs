//! Frames to ports: learn where the source stands, decide where the frame goes, sort it into the list for that.

use std::time::Instant;

use openvpn::ids::PeerId;

use super::{Errand, Notice, Worker};
use crate::{
    drops::Drop,
    ports::{BATCH, Frame, Port},
    switch::{Decision, Flood, Header, Ingress, Lookup, Port as Place, WireId},
};

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    #[inline(never)]
    pub(super) fn switch(&mut self, now: Instant) {
        let mut inner = std::mem::take(&mut self.batch.inner);
        for (ingress, frame) in inner.drain(..) {
            self.switch_one(ingress, frame, now);
        }
        self.batch.inner = inner;
    }

    fn switch_one(&mut self, ingress: Ingress, frame: Frame, now: Instant) {
        let decision = self.admit(ingress, &frame, now).and_then(|header| {
            if let Some(reason) = self.settings.segment.withheld(ingress, &header) {
                self.counters.drops.count(reason);
            }
            let decision = self.settings.segment.decide(&self.fdb, ingress, &header);
            self.limit_storm(ingress, &header, decision, now)
        });
        let decision = decision.unwrap_or_else(Decision::Drop);
        if !self.captures.is_empty() {
            self.capture(ingress, decision, &frame, now);
        }
        match decision {
            Decision::To(Place::Peer(peer_id)) => self.queue_for_peer(peer_id, frame),
            Decision::To(Place::Wire(wire)) => self.queue_for_wire(wire, frame),
            Decision::To(Place::Host) => self.queue_for_host(frame),
            Decision::Flood(flood) => {
                self.share_flood(ingress, flood, &frame);
                self.batch.flooded.push((ingress, flood, frame));
            }
            Decision::Drop(reason) => self.drop_frame(frame, reason),
        }
    }

    /// The frame's header, if it may pass. Learns its source.
    fn admit(&mut self, ingress: Ingress, frame: &Frame, now: Instant) -> Result<Header, Drop> {
        if frame.len() > self.settings.max_frame {
            return Err(Drop::FrameMalformed);
        }
        let header = Header::parse(self.frames.bytes(frame)).ok_or(Drop::FrameMalformed)?;
        if !header.has_valid_source() {
            return Err(Drop::SourceInvalid);
        }
        if header.is_group() && self.take_probe(ingress, frame, now) {
            return Err(Drop::LoopGuard);
        }
        let segment = &self.settings.segment;
        let header = segment.known_by(header);
        match ingress {
            Ingress::Peer(peer_id) => self.learn(Place::Peer(peer_id), &header, now)?,
            // A wire frame with the host's or a next hop's source is a loop or a twin on the LAN, not ours to judge.
            Ingress::Wire(wire) if segment.learns_from_wires() => {
                _ = self.learn(Place::Wire(wire), &header, now);
            }
            // Whoever stands behind the host's own interface: a bridge, containers.
            Ingress::Host if segment.learns_from_host() => _ = self.learn(Place::Host, &header, now),
            Ingress::Wire(_) | Ingress::Host => {}
        }
        Ok(header)
    }

    fn learn(&mut self, port: Place, header: &Header, now: Instant) -> Result<(), Drop> {
        let key = header.source_key();
        let stale_before = now.checked_sub(self.settings.report_interval);
        match self.fdb.hear(key, port, stale_before) {
            Lookup::Agrees => Ok(()),
            Lookup::Protected => Err(Drop::SourceIsGateway),
            Lookup::AgreesUnreported => {
                if self.mailbox.tell(Notice::Heard(key, port)) {
                    self.fdb.reported(key, now);
                }
                Ok(())
            }
            Lookup::Differs => {
                self.within_mac_limit(port)?;
                if self.mailbox.tell(Notice::Heard(key, port)) {
                    let former = self.fdb.get(key).map(|station| station.port);
                    self.fdb.anticipate(key, port, now);
                    self.count_station(former, Some(port));
                }
                Ok(())
            }
        }
    }

    fn within_mac_limit(&mut self, port: Place) -> Result<(), Drop> {
        let Place::Peer(peer_id) = port else { return Ok(()) };
        match self.peers.get_mut(peer_id) {
            Some(peer) if peer.macs >= peer.mac_limit => Err(Drop::MacLimit),
            _ => Ok(()),
        }
    }

    fn queue_for_peer(&mut self, peer_id: PeerId, frame: Frame) {
        if self.handovers.is_mine(peer_id) {
            self.batch.to_peer.push((peer_id, frame));
            return;
        }
        let owner = self.handovers.owner(peer_id);
        self.hand_over(owner, Errand::ToPeer(peer_id), &frame);
        self.frames.put(frame);
    }

    fn queue_for_wire(&mut self, wire: WireId, mut frame: Frame) {
        frame.set_wire(wire);
        self.batch.to_nic.push(frame);
    }

    pub(super) fn queue_for_host(&mut self, frame: Frame) {
        if self.ports.host.is_some() {
            self.batch.to_host.push(frame);
            return;
        }
        self.hand_over(HOST_PORT_OWNER, Errand::ToHost, &frame);
        self.frames.put(frame);
    }

    pub(super) fn hand_over(&mut self, worker: usize, errand: Errand, frame: &Frame) {
        if !self.handovers.push(worker, errand, self.frames.bytes(frame)) {
            self.counters.drops.count(Drop::HandoverFull);
        }
    }

    pub(super) fn drop_frame(&mut self, frame: Frame, reason: Drop) {
        self.counters.drops.count(reason);
        self.frames.put(frame);
    }

    /// Takes what other workers handed over into this turn's lists. Returns how many.
    #[inline(never)]
    pub(super) fn accept_handovers(&mut self) -> usize {
        let mut accepted = 0;
        while accepted < BATCH {
            let Self { handovers, frames, .. } = self;
            let mut taken = None;
            if !handovers.pop(|errand, bytes| taken = Some((errand, frames.take_with(bytes)))) {
                break;
            }
            accepted += 1;
            match taken {
                Some((errand, Some(frame))) => self.accept(errand, frame),
                _ => self.counters.drops.count(Drop::NoFreeFrame),
            }
        }
        accepted
    }

    fn accept(&mut self, errand: Errand, frame: Frame) {
        match errand {
            Errand::Packet => self.batch.handed_over.push(frame),
            Errand::ToPeer(peer_id) => self.batch.to_peer.push((peer_id, frame)),
            Errand::Flooded(ingress, flood) => self.batch.flooded.push((ingress, flood, frame)),
            Errand::ToHost => self.queue_for_host(frame),
            Errand::ToWire(wire) => self.accept_for_wire(wire, frame),
            Errand::FromStream(peer_id) => self.batch.streamed.push((peer_id, frame)),
            // Nobody hands a worker what another thread is to send.
            Errand::ToStream(_) => self.drop_frame(frame, Drop::PeerNoPath),
        }
    }

    /// Gives the other workers a flooded frame for their peers, and the host port's owner the host's copy.
    pub(super) fn share_flood(&mut self, ingress: Ingress, flood: Flood, frame: &Frame) {
        let others = Flood { peers: flood.peers, wire: false, host: false };
        for other in self.handovers.others() {
            let host = flood.host && other == HOST_PORT_OWNER;
            let share = Flood { host, ..others };
            if share.peers || share.host {
                self.hand_over(other, Errand::Flooded(ingress, share), frame);
            }
        }
    }
}

/// Worker 0 has the host port.
const HOST_PORT_OWNER: usize = 0;
