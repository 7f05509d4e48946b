//! Packets of nobody we know: answered without state, or, with a valid cookie, the beginning of a session.
//! Source: brief A.4.

use std::time::Instant;

use super::{
    ControlError, Event, InstanceId, Path, Server, Transmit,
    instance::{Instance, Stage},
};
use crate::{
    ids::KeyId,
    session::{Engine, Session, Times},
    wire::{Acks, Body, ControlPacket, Head, Opcode, SessionId},
};

/// Most sessions that are no peers. Beyond it the oldest gives way: an honest handshake is done in a second.
const MAX_HALF_OPEN: usize = 1024;
/// Shortest reset that tls-auth or tls-crypt has wrapped: the bare 14 bytes, an HMAC of 20, replay id and time.
const WRAPPED_RESET: usize = 14 + 20 + 8;
/// A server's rekeys come up to a tenth early, so that clients do not all rekey at once. Source: brief A.9.
const JITTER_PARTS: u32 = 10;

impl Server {
    pub(super) fn handle_unknown(
        &mut self,
        now: Instant,
        path: Path,
        packet: &ControlPacket<'_>,
    ) -> Result<(), ControlError> {
        let ControlPacket { head, body } = packet;
        if self.stop_at.is_some() {
            return Err(ControlError::Refused);
        }
        if head.key_id != KeyId::FIRST {
            return Err(ControlError::UnknownPeer);
        }
        match head.opcode {
            Opcode::HardResetClient if is_plain_reset(body) => self.answer_reset(now, path, head),
            Opcode::HardResetClient | Opcode::HardResetClientV3 => {
                let length = 14 + body.payload.len();
                if self.looks_wrapped(head, length) {
                    self.refuse_wrapped(now, path)
                } else {
                    Err(ControlError::Malformed)
                }
            }
            Opcode::Control | Opcode::Ack => self.handle_second(now, path, packet),
            Opcode::SoftReset => Err(ControlError::UnknownPeer),
            _ => Err(ControlError::Malformed),
        }
    }

    /// The reply to a reset, remembered nowhere.
    fn answer_reset(&mut self, now: Instant, path: Path, client: &Head) -> Result<(), ControlError> {
        if !self.first_packets.allow(now) {
            return Err(ControlError::RateLimited);
        }
        let session_id = self.cookie.make(now, &path, client.session_id).ok_or(ControlError::Malformed)?;
        let head = Head { opcode: Opcode::HardResetServer, key_id: KeyId::FIRST, session_id };
        let body = Body {
            acks: Acks::from_iter([0]),
            remote_session_id: Some(client.session_id),
            packet_id: Some(0),
            payload: &[],
        };
        self.transmits.push_back(Transmit { path, payload: ControlPacket { head, body }.emit() });
        Ok(())
    }

    /// The packet after the resets: it must bring our cookie back.
    fn handle_second(
        &mut self,
        now: Instant,
        path: Path,
        packet: &ControlPacket<'_>,
    ) -> Result<(), ControlError> {
        let ControlPacket { head, body } = packet;
        let early = body.packet_id.is_none_or(|id| id <= 1) && body.acks.as_slice().iter().all(|id| *id <= 1);
        match body.remote_session_id {
            Some(ours) if early && self.cookie.verify(now, &path, head.session_id, ours) => {
                self.allow_second(now, ours)?;
                self.begin(now, path, (ours, head.session_id))?;
                self.handle_packet(now, path, packet)
            }
            // The client acknowledged our reset in a packet of its own, which was lost, and this ClientHello brings no
            // cookie: answered once more, it acknowledges once more.
            None if body.packet_id == Some(1) && !body.payload.is_empty() => {
                self.answer_reset(now, path, head)
            }
            _ => Err(ControlError::UnknownPeer),
        }
    }

    /// Whoever comes back with a cookie was reached at its address: `connect-freq-initial`, which bounds answers to
    /// addresses that may be made up, does not concern it. A cookie is good for one session.
    fn allow_second(&mut self, now: Instant, cookie: SessionId) -> Result<(), ControlError> {
        if !self.jobs.has_room() {
            return Err(ControlError::RateLimited);
        }
        if self.used_cookies.is_first_use(now, cookie) {
            self.first_packets.give_back();
        } else if !self.repeated_cookies.allow(now) {
            return Err(ControlError::RateLimited);
        }
        Ok(())
    }

    fn begin(&mut self, now: Instant, path: Path, ids: (SessionId, SessionId)) -> Result<(), ControlError> {
        self.make_room(&path);
        let times = Times {
            hand_window: self.config.hand_window,
            tran_window: self.config.tran_window,
            reneg: self
                .config
                .reneg
                .map(|reneg| reneg - reneg / JITTER_PARTS * self.random.below(1000) / 1000),
        };
        let engine = Engine::Server { config: self.config.tls.clone(), offload: self.jobs.wanted };
        let session = Session::resume(now, engine, ids, times, self.random.fork());
        let session = session.map_err(|_| ControlError::Refused)?;
        let id = self.next_instance;
        self.next_instance += 1;
        self.instances.insert(id, Instance { path, session, stage: Stage::HalfOpen });
        self.by_path.entry(path).or_default().push(id);
        Ok(())
    }

    /// A new attempt from an address takes the place of an unfinished one; a full house gives up its oldest.
    fn make_room(&mut self, path: &Path) {
        let is_peer = |instance: &Instance| instance.peer().is_some();
        let ids = self.by_path.get(path).cloned().unwrap_or_default();
        let unfinished = |id: &InstanceId| self.instances.get(id).is_some_and(|instance| !is_peer(instance));
        let here: Vec<InstanceId> = ids.into_iter().filter(unfinished).collect();
        for id in here {
            self.forget(id);
        }
        if self.half_open() >= MAX_HALF_OPEN {
            let oldest = self.instances.iter().find(|(_, instance)| !is_peer(instance)).map(|(id, _)| *id);
            oldest.into_iter().for_each(|id| self.forget(id));
        }
    }

    pub(super) fn forget(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.remove(&id) {
            self.unlink(id, &instance.path);
        }
    }

    /// True for a first packet that only a client with tls-auth, tls-crypt or tls-crypt-v2 sends.
    pub(super) fn looks_wrapped(&self, head: &Head, length: usize) -> bool {
        match head.opcode {
            Opcode::HardResetClient => length >= WRAPPED_RESET,
            Opcode::HardResetClientV3 => true,
            _ => false,
        }
    }

    /// Says so in the log, as seldom as first packets are answered at all; the client could not read an answer.
    pub(super) fn refuse_wrapped(&mut self, now: Instant, path: Path) -> Result<(), ControlError> {
        if !self.first_packets.allow(now) {
            return Err(ControlError::RateLimited);
        }
        let reason = "its control packets are wrapped: this server has no key for that; take `tls-auth`, `tls-crypt` \
                      or `tls-crypt-v2` out of the client's profile";
        self.events.push_back(Event::Refused { path, name: None, reason: reason.into() });
        Err(ControlError::Refused)
    }
}

fn is_plain_reset(body: &Body<'_>) -> bool {
    body.acks.as_slice().is_empty() && body.packet_id == Some(0) && body.payload.is_empty()
}
