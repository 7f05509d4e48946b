//! Frames to tunnel packets, and what is left of the lists to the ports.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use openvpn::{
    data::{DataChannel, SealError},
    ids::PeerId,
};

use super::{
    AHEAD, Way, Worker,
    counters::add,
    fragments::Identifications,
    outer::{self, OUTER_HEADER},
    peers::Peer,
};
use crate::{
    drops::Drop,
    ports::{BATCH, Frame, Port},
    switch::{Flood, Ingress},
};

/// What seals a message that is no frame.
type SealMessage = fn(&mut DataChannel, &mut [u8]) -> Result<usize, SealError>;

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    #[inline(never)]
    pub(super) fn seal_unicast(&mut self, now: Instant) {
        let mut to_peer = std::mem::take(&mut self.batch.to_peer);
        let mut waiting = to_peer.drain(..);
        while let Some((peer_id, frame)) = waiting.next() {
            if let Some((_, ahead)) = waiting.as_slice().get(AHEAD) {
                self.frames.prefetch_all(ahead);
            }
            self.seal_for(peer_id, &frame, now);
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

    fn flood(&mut self, ingress: Ingress, flood: Flood, frame: Frame, now: Instant) {
        if flood.peers {
            self.flood_to_peers(ingress, &frame, now);
        }
        if flood.host && self.ports.host.is_some() {
            match self.copy_in_frame(&frame) {
                Some(copy) => self.batch.to_host.push(copy),
                None => self.counters.drops.count(Drop::NoFreeFrame),
            }
        }
        if flood.wire {
            self.batch.to_nic.push(frame);
        } else {
            self.frames.put(frame);
        }
    }

    fn flood_to_peers(&mut self, ingress: Ingress, frame: &Frame, now: Instant) {
        for at in 0..self.peers.len() {
            let Some(peer_id) = self.peers.nth(at) else { break };
            if ingress != Ingress::Peer(peer_id) {
                self.seal_for(peer_id, frame, now);
            }
            if self.batch.to_nic.len() + self.batch.to_tunnel.len() >= BATCH {
                self.flush();
            }
        }
    }

    fn copy_in_frame(&mut self, frame: &Frame) -> Option<Frame> {
        let mut copy = self.frames.take()?;
        let len = frame.len();
        self.frames.room(&mut copy)[..len].copy_from_slice(self.frames.bytes(frame));
        self.frames.set_len(&mut copy, len);
        Some(copy)
    }

    fn seal_for(&mut self, peer_id: PeerId, frame: &Frame, now: Instant) {
        let Some(mut packet) = self.frames.take() else {
            self.counters.drops.count(Drop::NoFreeFrame);
            return;
        };
        let ids = &mut self.identifications;
        let sealed = match self.peers.get_mut(peer_id) {
            Some(peer) => peer.seal(self.frames.bytes(frame), self.frames.room(&mut packet), ids),
            None => Err(Drop::PeerUnknown),
        };
        self.send_sealed(peer_id, packet, sealed, 1, now);
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
        sealed: Result<(usize, Way), Drop>,
        frames: usize,
        now: Instant,
    ) {
        let (len, way) = match sealed {
            Ok(sealed) => sealed,
            Err(reason) => return self.drop_frame(packet, reason),
        };
        self.frames.set_len(&mut packet, len);
        if let Err(reason) = self.queue_packet(packet, way) {
            return self.counters.drops.count(reason);
        }
        if let Some(peer) = self.peers.get_mut(peer_id) {
            peer.count_sent(frames, len - OUTER_HEADER, self.clock.millis(now));
            peer.tell_rekey(peer_id, &mut self.mailbox);
        }
    }

    fn queue_packet(&mut self, packet: Frame, way: Way) -> Result<(), Drop> {
        match way {
            Way::Nic { mtu } if outer::is_too_long(packet.len(), mtu) => {
                return self.queue_fragments(packet, mtu);
            }
            Way::Nic { .. } => self.batch.to_nic.push(packet),
            Way::Socket => self.batch.to_tunnel.push(packet),
        }
        Ok(())
    }
}

impl Peer {
    /// Seals `frame` into `packet` with its outer headers; the packet's length and way.
    fn seal(
        &mut self,
        frame: &[u8],
        packet: &mut [u8],
        ids: &mut Identifications,
    ) -> Result<(usize, Way), Drop> {
        let room = packet.get_mut(OUTER_HEADER..).ok_or(Drop::FrameMalformed)?;
        let sealed = self.channel.seal(frame, room).map_err(reason)?;
        self.address(packet, sealed, ids)
    }

    fn seal_message(
        &mut self,
        message: SealMessage,
        packet: &mut [u8],
        ids: &mut Identifications,
    ) -> Result<(usize, Way), Drop> {
        let room = packet.get_mut(OUTER_HEADER..).ok_or(Drop::FrameMalformed)?;
        let sealed = message(&mut self.channel, room).map_err(reason)?;
        self.address(packet, sealed, ids)
    }

    fn address(
        &self,
        packet: &mut [u8],
        sealed: usize,
        ids: &mut Identifications,
    ) -> Result<(usize, Way), Drop> {
        let outer = self.outer.as_deref().ok_or(Drop::PeerNoPath)?;
        let len = OUTER_HEADER + sealed;
        Ok((len, outer.write(&mut packet[..len], ids.next(outer.destination()))))
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
