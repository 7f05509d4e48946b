//! Tunnel packets to frames: find the peer, authenticate, decrypt into a fresh frame.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use openvpn::{
    data::{OpenError, Opened, names_no_peer, peer_id_of},
    ids::PeerId,
};

use super::{
    AHEAD, Arrival, Mailbox, Notice, Worker,
    counters::add,
    mss,
    outer::{self, Arrived},
    peers::Peer,
};
use crate::{
    drops::Drop,
    ports::{Frame, Port},
    switch::Ingress,
};

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    #[inline(never)]
    pub(super) fn open(&mut self, now: Instant) {
        let mut packets = std::mem::take(&mut self.batch.packets);
        let mut waiting = packets.drain(..);
        while let Some((arrival, packet)) = waiting.next() {
            if let Some((_, ahead)) = waiting.as_slice().get(AHEAD) {
                self.frames.prefetch_all(ahead);
            }
            if let Err(reason) = self.open_one(arrival, &packet, now) {
                self.counters.drops.count(reason);
            }
            self.frames.put(packet);
        }
        drop(waiting);
        self.batch.packets = packets;
        if !self.batch.streamed.is_empty() {
            self.open_streamed(now);
        }
    }

    #[cold]
    fn open_streamed(&mut self, now: Instant) {
        let mut streamed = std::mem::take(&mut self.batch.streamed);
        for (peer_id, packet) in streamed.drain(..) {
            if let Err(reason) = self.open_one_streamed(peer_id, &packet, now) {
                self.counters.drops.count(reason);
            }
            self.frames.put(packet);
        }
        self.batch.streamed = streamed;
    }

    /// A packet that has no headers: it came from where its peer is, by the peer's own connection.
    fn open_one_streamed(&mut self, peer_id: PeerId, packet: &Frame, now: Instant) -> Result<(), Drop> {
        let path = self.peers.get_mut(peer_id).ok_or(Drop::PeerUnknown)?.path;
        let arrived = Arrived { path, payload: 0..packet.len() };
        self.open_arrived(Arrival::Socket, peer_id, packet, &arrived, now)
    }

    fn open_one(&mut self, arrival: Arrival, packet: &Frame, now: Instant) -> Result<(), Drop> {
        let bytes = self.frames.bytes(packet);
        let arrived = outer::parse(bytes).ok_or(Drop::TunnelMalformed)?;
        let payload = bytes.get(arrived.payload.clone()).ok_or(Drop::TunnelMalformed)?;
        let peer_id = self.sender(payload, &arrived)?;
        if !self.handovers.is_mine(peer_id) {
            let pushed = self.handovers.push_packet(peer_id, arrived.path.remote, bytes);
            return if pushed { Ok(()) } else { Err(Drop::HandoverFull) };
        }
        self.open_arrived(arrival, peer_id, packet, &arrived, now)
    }

    #[inline]
    fn open_arrived(
        &mut self,
        arrival: Arrival,
        peer_id: PeerId,
        packet: &Frame,
        arrived: &Arrived,
        now: Instant,
    ) -> Result<(), Drop> {
        let plain = self.frames.take().ok_or(Drop::NoFreeFrame)?;
        match self.open_into(arrival, peer_id, packet, arrived, plain, now) {
            Ok(()) => Ok(()),
            Err((reason, plain)) => {
                self.frames.put(plain);
                Err(reason)
            }
        }
    }

    /// Whose packet it claims to be.
    #[inline]
    fn sender(&self, payload: &[u8], arrived: &Arrived) -> Result<PeerId, Drop> {
        if names_no_peer(payload) {
            return self.unnamed.at(&arrived.path).ok_or(Drop::PeerUnknown);
        }
        peer_id_of(payload).ok_or(Drop::TunnelMalformed)
    }

    fn open_into(
        &mut self,
        arrival: Arrival,
        peer_id: PeerId,
        packet: &Frame,
        arrived: &Arrived,
        mut plain: Frame,
        now: Instant,
    ) -> Result<(), (Drop, Frame)> {
        let Some(peer) = self.peers.get_mut(peer_id) else { return Err((Drop::PeerUnknown, plain)) };
        let payload = &self.frames.bytes(packet)[arrived.payload.clone()];
        let opened = match peer.channel.open(payload, self.frames.room(&mut plain)) {
            Ok(opened) => opened,
            Err(error) => return Err((reason(error), plain)),
        };
        peer.count_received(arrival, payload.len(), opened, self.clock.millis(now));
        if peer.is_float_due(arrived.path, now) && self.mailbox.tell(Notice::Floated(peer_id, arrived.path)) {
            peer.float_told = Some(now);
        }
        peer.tell_rekey(peer_id, &mut self.mailbox);
        if opened == Opened::Exit {
            self.mailbox.tell(Notice::Exit(peer_id));
        }
        match opened {
            Opened::Frame { len } => {
                if peer.held && !self.settings.guards.is_probe(&self.frames.room(&mut plain)[..len]) {
                    return Err((Drop::LoopGuard, plain));
                }
                if let Some(most) = peer.channel.mssfix() {
                    mss::limit(&mut self.frames.room(&mut plain)[..len], most);
                }
                self.frames.set_len(&mut plain, len);
                self.batch.inner.push((Ingress::Peer(peer_id), plain));
            }
            Opened::Ping | Opened::Exit | Opened::Occ | Opened::Fragment => self.frames.put(plain),
        }
        Ok(())
    }
}

impl Peer {
    /// Tells the control thread that a rekey is due, until it has been told.
    pub(super) fn tell_rekey(&mut self, peer_id: PeerId, mailbox: &mut Mailbox) {
        self.rekey_due |= self.channel.take_rekey_request();
        if self.rekey_due {
            self.rekey_due = !mailbox.tell(Notice::RekeyDue(peer_id));
        }
    }

    fn count_received(&self, arrival: Arrival, bytes: usize, opened: Opened, now_ms: u64) {
        let way = match arrival {
            Arrival::Xdp => &self.counters.rx_frames_xdp,
            Arrival::Socket => &self.counters.rx_frames_socket,
        };
        add(way, 1);
        add(&self.counters.rx_bytes, bytes);
        add(&self.counters.rx_frames, usize::from(matches!(opened, Opened::Frame { .. })));
        self.counters.last_rx_ms.store(now_ms, Relaxed);
    }
}

fn reason(error: OpenError) -> Drop {
    match error {
        OpenError::Malformed => Drop::TunnelMalformed,
        OpenError::KeyUnknown => Drop::KeyUnknown,
        OpenError::AuthenticationFailed => Drop::AuthenticationFailed,
        OpenError::Replayed => Drop::Replayed,
        OpenError::PlaintextMalformed => Drop::PlaintextMalformed,
        OpenError::TooLong => Drop::FrameMalformed,
    }
}
