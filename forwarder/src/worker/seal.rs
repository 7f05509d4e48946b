//! Frames to tunnel packets, and what is left of the lists to the ports.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use openvpn::{
    data::{DataChannel, SealError},
    ids::PeerId,
};

use super::{AHEAD, Outer, Way, Worker, counters::add, fragments::Identifications, mss, outer, peers::Peer};
use crate::{
    drops::Drop,
    ports::{BATCH, Frame, Port},
    streams::StreamId,
    switch::{Flood, Ingress, Port as Place, WireId},
};

/// What seals a message that is no frame.
type SealMessage = fn(&mut DataChannel, &mut [u8]) -> Result<usize, SealError>;

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    #[inline(never)]
    pub(super) fn seal_unicast(&mut self, now: Instant) {
        let mut to_peer = std::mem::take(&mut self.batch.to_peer);
        let mut waiting = to_peer.drain(..);
        while let Some((peer_id, mut frame)) = waiting.next() {
            if let Some((_, ahead)) = waiting.as_slice().get(AHEAD) {
                self.frames.prefetch_all(ahead);
            }
            self.seal_for(peer_id, &mut frame, now);
            self.frames.put(frame);
        }
        drop(waiting);
        self.batch.to_peer = to_peer;
    }

    #[inline(never)]
    pub(super) fn seal_flooded(&mut self, now: Instant) {
        let mut flooded = std::mem::take(&mut self.batch.flooded);
        for (ingress, flood, frame) in flooded.drain(..) {
            self.flood(ingress, flood, frame, now);
        }
        self.batch.flooded = flooded;
    }

    fn flood(&mut self, ingress: Ingress, flood: Flood, mut frame: Frame, now: Instant) {
        if flood.peers {
            self.flood_to_peers(ingress, &mut frame, now);
        }
        if flood.host && self.ports.host.is_some() {
            match self.copy_in_frame(&frame) {
                Some(copy) => self.batch.to_host.push(copy),
                None => self.counters.drops.count(Drop::NoFreeFrame),
            }
        }
        if flood.wire {
            frame.set_wire(WireId::UPLINK);
            self.batch.to_nic.push(frame);
        } else {
            self.frames.put(frame);
        }
    }

    fn flood_to_peers(&mut self, ingress: Ingress, frame: &mut Frame, now: Instant) {
        for at in 0..self.peers.len() {
            let Some(peer_id) = self.peers.nth(at) else { break };
            if ingress != Ingress::Peer(peer_id) {
                self.seal_for(peer_id, frame, now);
            }
            self.flush_if_full();
        }
    }

    fn flush_if_full(&mut self) {
        if self.batch.to_nic.len() + self.batch.to_tunnel.len() >= BATCH {
            self.flush();
        }
    }

    fn copy_in_frame(&mut self, frame: &Frame) -> Option<Frame> {
        let mut copy = self.frames.take()?;
        let len = frame.len();
        self.frames.room(&mut copy)[..len].copy_from_slice(self.frames.bytes(frame));
        self.frames.set_len(&mut copy, len);
        Some(copy)
    }

    /// A flooded SYN is lowered for one peer after the other, and then for the wire and the host: less is never wrong.
    pub(super) fn seal_for(&mut self, peer_id: PeerId, frame: &mut Frame, now: Instant) {
        let Some(mut packet) = self.frames.take() else {
            self.counters.drops.count(Drop::NoFreeFrame);
            return;
        };
        let ids = &mut self.identifications;
        let len = frame.len();
        let bytes = self.frames.room(frame).get_mut(..len).unwrap_or_default();
        let sealed = match self.peers.get_mut(peer_id) {
            Some(peer) if peer.held && !self.settings.guards.is_probe(bytes) => Err(Drop::LoopGuard),
            Some(peer) => peer.seal(bytes, self.frames.room(&mut packet), ids),
            None => Err(Drop::PeerUnknown),
        };
        if let Err(reason) = sealed
            && !self.captures.is_empty()
        {
            self.capture_unsent(Place::Peer(peer_id), reason, frame, now);
        }
        let has_rest = sealed.as_ref().is_ok_and(|sealed| sealed.has_rest);
        self.send_sealed(peer_id, packet, sealed, 1, now);
        if has_rest {
            self.seal_rest(peer_id, now);
        }
    }

    /// With `fragment`: what is left of a frame, packet by packet.
    #[cold]
    fn seal_rest(&mut self, peer_id: PeerId, now: Instant) {
        while let Some(peer) = self.peers.get_mut(peer_id).filter(|peer| peer.channel.has_rest()) {
            let Some(mut packet) = self.frames.take() else {
                self.counters.drops.count(Drop::NoFreeFrame);
                return;
            };
            let sealed = peer.seal_rest(self.frames.room(&mut packet), &mut self.identifications);
            let failed = sealed.is_err();
            self.send_sealed(peer_id, packet, sealed, 0, now);
            if failed {
                return;
            }
            self.flush_if_full();
        }
    }

    /// Sends the peer what `message` seals: a keepalive, or that we leave.
    pub(super) fn seal_message(&mut self, peer_id: PeerId, message: SealMessage, now: Instant) {
        let Some(mut packet) = self.frames.take() else { return };
        let ids = &mut self.identifications;
        let sealed = match self.peers.get_mut(peer_id) {
            Some(peer) => peer.seal_message(message, self.frames.room(&mut packet), ids),
            None => Err(Drop::PeerUnknown),
        };
        self.send_sealed(peer_id, packet, sealed, 0, now);
    }

    fn send_sealed(
        &mut self,
        peer_id: PeerId,
        mut packet: Frame,
        sealed: Result<Sealed, Drop>,
        frames: usize,
        now: Instant,
    ) {
        let Sealed { header, payload, way, .. } = match sealed {
            Ok(sealed) => sealed,
            Err(reason) => return self.drop_frame(packet, reason),
        };
        self.frames.set_len(&mut packet, header + payload);
        if let Err(reason) = self.queue_packet(packet, way) {
            return self.counters.drops.count(reason);
        }
        if let Some(peer) = self.peers.get_mut(peer_id) {
            peer.count_sent(frames, payload, self.clock.millis(now));
            peer.tell_rekey(peer_id, &mut self.mailbox);
        }
    }

    fn queue_packet(&mut self, mut packet: Frame, way: Way) -> Result<(), Drop> {
        match way {
            Way::Nic { wire, mtu } => {
                packet.set_wire(wire);
                if outer::is_too_long(packet.len(), mtu) {
                    return self.queue_fragments(packet, mtu);
                }
                self.batch.to_nic.push(packet);
            }
            Way::Socket => self.batch.to_tunnel.push(packet),
            Way::Stream(stream) => return self.send_by_stream(stream, packet),
        }
        Ok(())
    }

    fn send_by_stream(&mut self, stream: StreamId, packet: Frame) -> Result<(), Drop> {
        let pushed = self.handovers.push_stream(stream, self.frames.bytes(&packet));
        self.frames.put(packet);
        if pushed { Ok(()) } else { Err(Drop::HandoverFull) }
    }
}

/// A packet that can leave: `header` bytes, then `payload`.
struct Sealed {
    header: usize,
    payload: usize,
    way: Way,
    /// There is more of the frame in it: [`Peer::seal_rest`].
    has_rest: bool,
}

impl Peer {
    /// Seals `frame` into `packet` with its outer headers. A SYN is lowered first.
    fn seal(
        &mut self,
        frame: &mut [u8],
        packet: &mut [u8],
        ids: &mut Identifications,
    ) -> Result<Sealed, Drop> {
        if let Some(most) = self.channel.mssfix() {
            mss::limit(frame, most);
        }
        let header = self.header_len()?;
        let room = packet.get_mut(header..).ok_or(Drop::FrameMalformed)?;
        let payload = self.channel.seal(frame, room).map_err(reason)?;
        self.address(packet, header, payload, ids)
    }

    /// Seals what is next of the frame sealed last; the caller has seen that there is more.
    fn seal_rest(&mut self, packet: &mut [u8], ids: &mut Identifications) -> Result<Sealed, Drop> {
        let header = self.header_len()?;
        let room = packet.get_mut(header..).ok_or(Drop::FrameMalformed)?;
        let payload = self.channel.seal_rest(room).unwrap_or(Err(SealError::NoKey)).map_err(reason)?;
        self.address(packet, header, payload, ids)
    }

    fn seal_message(
        &mut self,
        message: SealMessage,
        packet: &mut [u8],
        ids: &mut Identifications,
    ) -> Result<Sealed, Drop> {
        let header = self.header_len()?;
        let room = packet.get_mut(header..).ok_or(Drop::FrameMalformed)?;
        let payload = message(&mut self.channel, room).map_err(reason)?;
        self.address(packet, header, payload, ids)
    }

    fn header_len(&self) -> Result<usize, Drop> {
        self.outer.as_deref().map(Outer::header_len).ok_or(Drop::PeerNoPath)
    }

    fn address(
        &self,
        packet: &mut [u8],
        header: usize,
        payload: usize,
        ids: &mut Identifications,
    ) -> Result<Sealed, Drop> {
        let outer = self.outer.as_deref().ok_or(Drop::PeerNoPath)?;
        let identification = outer.destination_v4().map_or(0, |destination| ids.next(destination));
        let way = outer.write(&mut packet[..header + payload], identification);
        Ok(Sealed { header, payload, way, has_rest: self.channel.has_rest() })
    }

    fn count_sent(&self, frames: usize, bytes: usize, now_ms: u64) {
        add(&self.counters.tx_frames, frames);
        add(&self.counters.tx_bytes, bytes);
        self.counters.last_tx_ms.store(now_ms, Relaxed);
    }
}

fn reason(error: SealError) -> Drop {
    match error {
        SealError::NoKey => Drop::PeerNoKey,
        SealError::KeyExhausted => Drop::KeyExhausted,
        SealError::TooLong => Drop::FrameMalformed,
    }
}
