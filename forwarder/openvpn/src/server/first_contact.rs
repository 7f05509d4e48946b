//! Packets of nobody we know: answered without state, or, with a valid cookie, the beginning of a session.
//! Source: brief A.4.

use std::time::{Duration, Instant};

use super::{
    ControlError, Event, InstanceId, Path, Server, Transmit, Transport,
    instance::{Instance, Stage},
    wrappings::First,
};
use crate::{
    ids::KeyId,
    random::Random,
    session::{Engine, Envelope, Session, Times, carries_wrapped_key},
    wire::{
        Acks, Body, ControlPacket, Head, Opcode, SessionId,
        control::HEAD_LEN,
        early,
        wrapping::{Stamp, Wrapping},
    },
};

/// Most sessions that are no peers. Beyond it the oldest gives way: an honest handshake is done in a second.
const MAX_HALF_OPEN: usize = 1024;
/// Shortest reset that tls-auth or tls-crypt has wrapped: the bare 14 bytes, an HMAC of 20, replay id and time.
const WRAPPED_RESET: usize = 14 + 20 + 8;
/// A server's rekeys come up to a tenth early, so that clients do not all rekey at once. Source: brief A.9.
const JITTER_PARTS: u32 = 10;

/// How long a peer must have been silent for a reset from its address to be answered, and how long until the next is. Too
/// low lets made-up resets disturb a peer that has little to say; clients repeat theirs after 2 s, and later.
const RESET_PAUSE: Duration = Duration::from_millis(1500);

/// How a packet of nobody we know is wrapped.
struct Wrapped<'a> {
    wrapping: &'a Wrapping,
    stamp: Option<Stamp>,
}

impl Server {
    pub(super) fn handle_unknown(
        &mut self,
        now: Instant,
        path: Path,
        head: Head,
        rest: &[u8],
    ) -> Result<(), ControlError> {
        if self.stop_at.is_some() {
            return Err(ControlError::Refused);
        }
        if head.key_id != KeyId::FIRST || head.opcode == Opcode::SoftReset {
            return Err(ControlError::UnknownPeer);
        }
        if !self.config.wrappings.are_wanted() && looks_wrapped(&head, rest) {
            return self.refuse_wrapped(now, path);
        }
        let First { body, stamp, wrapping, expired } =
            self.config.wrappings.unwrap(&head, rest, self.clock.unix_s(now))?;
        if expired {
            return self.refuse_expired(now, path);
        }
        let body = Body::parse(head.opcode, &body).map_err(|_| ControlError::Malformed)?;
        let wrapped = Wrapped { wrapping: &wrapping, stamp };
        let packet = ControlPacket { head, body };
        match head.opcode {
            Opcode::HardResetClient if is_plain_reset(&body) => self.answer_reset(now, path, &head, &wrapped),
            Opcode::HardResetClientV3 if is_plain_reset(&body) => {
                self.answer_reset_with_key(now, path, &packet, &wrapped)
            }
            Opcode::Control | Opcode::Ack | Opcode::ControlWrappedKey => {
                self.handle_second(now, path, &packet, &wrapped)
            }
            _ => Err(ControlError::Malformed),
        }
    }

    /// Judges whether to answer from no state: not if a peer at `path` was heard lately, or somebody there answered.
    /// Our answer to a reset, or to a ClientHello without cookie, that somebody made up reaches the peer itself, and a
    /// stock client takes it for a call to a new session (ssl.c `tls_pre_decrypt`): a few of them a second, and both
    /// ends lose count of which keys are good. A client that really begins anew from there has fallen silent, and
    /// repeats its reset; or a rekey has failed, and the old key still carries its data. Over TCP nobody can make one up.
    fn check_silence(&mut self, now: Instant, path: &Path) -> Result<(), ControlError> {
        if path.transport == Transport::Tcp {
            return Ok(());
        }
        let ids = self.by_path.get(path).cloned().unwrap_or_default();
        let lately = |at: Instant| now.saturating_duration_since(at) < RESET_PAUSE;
        let is_peer = |id: &InstanceId| self.instances.get(id).is_some_and(|it| it.peer().is_some());
        let id = ids.into_iter().find(is_peer);
        let Some(instance) = id.and_then(|id| self.instances.get_mut(&id)) else { return Ok(()) };
        let speaks_on = !instance.session.has_lost_rekey();
        let Some(peer) = instance.peer_mut() else { return Ok(()) };
        if speaks_on && lately(peer.last_received) || peer.reset_answered.is_some_and(lately) {
            return Err(ControlError::OutOfSync);
        }
        peer.reset_answered = Some(now);
        Ok(())
    }

    /// The reply to a reset, remembered nowhere but with a peer at the same address.
    fn answer_reset(
        &mut self,
        now: Instant,
        path: Path,
        client: &Head,
        wrapped: &Wrapped<'_>,
    ) -> Result<(), ControlError> {
        self.check_silence(now, &path)?;
        if !self.first_packets.allow(now) {
            return Err(ControlError::RateLimited);
        }
        let session_id = self.cookie.make(now, &path, client.session_id).ok_or(ControlError::Malformed)?;
        let head = Head { opcode: Opcode::HardResetServer, key_id: KeyId::FIRST, session_id };
        let body = Body {
            acks: Acks::from_iter([0]),
            remote_session_id: Some(client.session_id),
            packet_id: Some(0),
            // Without state the client's key must come once more.
            payload: if carries_wrapped_key(client.opcode) { &early::RESEND } else { &[] },
        };
        let payload = wrapped.wrapping.wrap(self.stamp_of_answer(now, &path), &ControlPacket { head, body });
        self.transmits.push_back(Transmit { path, payload });
        Ok(())
    }

    /// Answers are not counted, since nothing is remembered of them: the thousandths of a second tell those within a
    /// second apart. A stream is read in order by clients that want the first stamp to be 1, and needs no second answer.
    fn stamp_of_answer(&self, now: Instant, path: &Path) -> Stamp {
        let id = match path.transport {
            Transport::Udp => 1 + self.clock.millis(now),
            Transport::Tcp => 1,
        };
        Stamp { id, time: self.clock.stamp_time(now) }
    }

    /// A client with a key of its own: of one that cannot tell it twice, the session must begin here and now.
    fn answer_reset_with_key(
        &mut self,
        now: Instant,
        path: Path,
        packet: &ControlPacket<'_>,
        wrapped: &Wrapped<'_>,
    ) -> Result<(), ControlError> {
        if wrapped.stamp.is_some_and(Stamp::is_early) {
            return self.answer_reset(now, path, &packet.head, wrapped);
        }
        if self.config.wrappings.own.as_ref().is_some_and(|own| own.force_cookie) {
            return Err(ControlError::Refused);
        }
        self.check_silence(now, &path)?;
        if !self.first_packets.allow(now) || !self.jobs.has_room() {
            return Err(ControlError::RateLimited);
        }
        let ours = self.random.session_id();
        self.begin(now, path, (ours, packet.head.session_id), wrapped, Session::answer)?;
        self.hear(now, &path, packet)
    }

    /// The packet after the resets: it must bring our cookie back.
    fn handle_second(
        &mut self,
        now: Instant,
        path: Path,
        packet: &ControlPacket<'_>,
        wrapped: &Wrapped<'_>,
    ) -> Result<(), ControlError> {
        let ControlPacket { head, body } = packet;
        let early = body.packet_id.is_none_or(|id| id <= 1) && body.acks.as_slice().iter().all(|id| *id <= 1);
        match body.remote_session_id {
            Some(ours) if early && self.cookie.verify(now, &path, head.session_id, ours) => {
                self.allow_second(now, ours)?;
                self.begin(now, path, (ours, head.session_id), wrapped, Session::resume)?;
                self.hear(now, &path, packet)
            }
            // The client acknowledged our reset in a packet of its own, which was lost, and this ClientHello brings no
            // cookie: answered once more, it acknowledges once more.
            None if body.packet_id == Some(1) && !body.payload.is_empty() => {
                self.answer_reset(now, path, head, wrapped)
            }
            _ => Err(ControlError::UnknownPeer),
        }
    }

    /// The packet that began a session is its first.
    fn hear(&mut self, now: Instant, path: &Path, packet: &ControlPacket<'_>) -> Result<(), ControlError> {
        let id = self.instance_of(path, &packet.head).ok_or(ControlError::UnknownPeer)?;
        let heard = self.visit(now, id, |_, instance| instance.session.handle_packet(now, packet));
        heard.unwrap_or(Ok(())).map_err(ControlError::from)
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

    fn begin(
        &mut self,
        now: Instant,
        path: Path,
        ids: (SessionId, SessionId),
        wrapped: &Wrapped<'_>,
        session: Begin,
    ) -> Result<(), ControlError> {
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
        let envelope = Envelope::of_server(now, self.clock, wrapped.wrapping.clone(), wrapped.stamp);
        let session = session(now, (engine, envelope), ids, times, self.random.fork());
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

    /// Says so in the log, as seldom as first packets are answered at all; the client could not read an answer.
    fn refuse_wrapped(&mut self, now: Instant, path: Path) -> Result<(), ControlError> {
        let reason = "its control packets are wrapped: this server has no key for that; take `tls-auth`, `tls-crypt` \
                      or `tls-crypt-v2` out of the client's profile";
        self.refuse_silently(now, path, reason)
    }

    fn refuse_expired(&mut self, now: Instant, path: Path) -> Result<(), ControlError> {
        let reason = "its tls-crypt-v2 key is older than `tls-crypt-v2-max-age` allows, or does not say how old it is: \
                      make it a new one";
        self.refuse_silently(now, path, reason)
    }

    fn refuse_silently(&mut self, now: Instant, path: Path, reason: &str) -> Result<(), ControlError> {
        if !self.first_packets.allow(now) {
            return Err(ControlError::RateLimited);
        }
        self.events.push_back(Event::Refused { path, name: None, reason: reason.into() });
        Err(ControlError::Refused)
    }
}

/// [`Session::resume`] or [`Session::answer`].
type Begin =
    fn(Instant, (Engine, Envelope), (SessionId, SessionId), Times, Random) -> Result<Session, rustls::Error>;

/// True for a first packet that only a client with tls-auth, tls-crypt or tls-crypt-v2 sends.
fn looks_wrapped(head: &Head, rest: &[u8]) -> bool {
    match head.opcode {
        Opcode::HardResetClient => HEAD_LEN + rest.len() >= WRAPPED_RESET,
        Opcode::HardResetClientV3 => true,
        _ => false,
    }
}

fn is_plain_reset(body: &Body<'_>) -> bool {
    body.acks.as_slice().is_empty() && body.packet_id == Some(0) && body.payload.is_empty()
}

/// True for packets that may be answered with a reset where they belong to no session.
pub(super) fn may_begin(head: &Head) -> bool {
    use Opcode::{Control, ControlWrappedKey, HardResetClient, HardResetClientV3};
    matches!(head.opcode, HardResetClient | HardResetClientV3 | Control | ControlWrappedKey)
}
