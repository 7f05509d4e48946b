//! One control channel: a pair of session ids, and the negotiations of its data keys one after another.
//!
//! ```text
//!   key 0 negotiated ──► in use ──────────────► old ──────────► retired
//!                            │ soft reset         ▲ accepted for tran-window
//!                            ▼                    │
//!                        key 1 negotiated ──► in use ...          (a new TLS connection each)
//! ```
//! No frame is lost over a rekey because both ends *accept* under the new key before either *sends* with it: the
//! sender waits for the peer's acknowledgement of its last key-method packet, and some time more. A rekey that fails
//! leaves the old key in use until tran-window is over.

mod begin;
mod blame;
mod envelope;
mod event;
mod job;
mod negotiation;
mod prf;
mod rekey;
mod reliable;
mod tls;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use negotiation::{Negotiation, State, Step};
use rustls::pki_types::CertificateDer;

pub(crate) use envelope::{Envelope, carries_wrapped_key};
pub use event::{Derivation, Event, Greeting, Ignored, KeyBlock, KeyMaterial, Timer, Times};
pub(crate) use job::{Job, JobDone};
pub use tls::Engine;
use tls::Tls;

use crate::{
    data::Role,
    ids::KeyId,
    random::Random,
    wire::{Body, ControlPacket, Head, Opcode, SessionId, early, key_method::KeyMethod},
};

/// Longest payload of a control packet that is looked at: stock clients keep whole packets below 1250 bytes.
const MAX_PAYLOAD: usize = 2048;
/// Most of our own messages that wait for a negotiation.
const MAX_COMMANDS: usize = 64;

/// Least time between the beginnings of two negotiations that the peer begins. Too low lets one client keep the server
/// at handshakes, too high delays those who rekey by volume.
const REKEY_PAUSE: Duration = Duration::from_millis(500);

/// One control channel with one peer.
pub struct Session {
    engine: Engine,
    envelope: Envelope,
    local: SessionId,
    /// `None` until the server's reset has come to a client.
    remote: Option<SessionId>,
    times: Times,
    greeting: Greeting,
    random: Random,
    /// The negotiation under way, or the last one done.
    newest: Negotiation,
    /// The key before it, and when it dies.
    old: Option<(Negotiation, Instant)>,
    /// Keys before those, accepted until the newest negotiation has keys. One is added only where one is done.
    superseded: Vec<KeyId>,
    /// Keys accepted for a moment more.
    retiring: VecDeque<(Instant, KeyId)>,
    /// The key data is sent with.
    sending: Option<KeyId>,
    /// When to send with the newest key, once it is active.
    switch_at: Option<Instant>,
    /// When the newest key dies, if the attempt to replace it failed.
    expires: Option<Instant>,
    rekey_at: Option<Instant>,
    /// Messages that wait for the negotiation under way.
    commands: VecDeque<String>,
    events: VecDeque<Event>,
}

/// What it is, and what comes in.
impl Session {
    /// A server's certificates for rekeys that begin from now on.
    pub fn set_tls(&mut self, tls: &std::sync::Arc<rustls::ServerConfig>) {
        self.engine.set_server(tls);
    }

    /// The peer's session id.
    pub fn remote_id(&self) -> Option<SessionId> {
        self.remote
    }

    /// The certificate that the peer showed in the newest negotiation.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.newest.tls()?.peer_certificate()
    }

    /// True when nothing waits to be sent or acknowledged.
    pub fn is_quiet(&self) -> bool {
        self.newest.is_quiet() && self.commands.is_empty()
    }

    /// A control packet arrived: `head`, and what follows it in the datagram.
    ///
    /// # Errors
    /// The packet came to nothing.
    pub fn handle_datagram(&mut self, now: Instant, head: Head, rest: &[u8]) -> Result<(), Ignored> {
        let bytes = self.envelope.unwrap(&head, rest)?;
        let body = Body::parse(head.opcode, &bytes).map_err(|_| Ignored::Malformed)?;
        self.handle_packet(now, &ControlPacket { head, body })
    }

    /// A control packet arrived and is unwrapped.
    ///
    /// # Errors
    /// The packet came to nothing.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: &ControlPacket<'_>) -> Result<(), Ignored> {
        let ControlPacket { head, body } = packet;
        if body.payload.len() > MAX_PAYLOAD {
            return Err(Ignored::Malformed);
        }
        self.check_ids(head, body)?;
        if self.is_rekey(now, head, body) {
            self.begin_negotiation(now);
        }
        let negotiation = match &mut self.old {
            _ if self.newest.key_id == head.key_id => &mut self.newest,
            Some((old, _)) if old.key_id == head.key_id => old,
            _ => return Err(Ignored::OutOfSync),
        };
        negotiation.reliable.handle_acks(now, body.acks.as_slice());
        let mut outcome = Ok(());
        let mut failure = None;
        if let Some(id) = body.packet_id {
            let (received, failed) = negotiation.handle_packet(id, tls_bytes(head, body));
            failure = failed;
            if received == reliable::Received::BeyondWindow {
                outcome = Err(Ignored::OutOfSync);
            }
        }
        if let Some(Step::Failed(reason)) = failure {
            self.negotiation_failed(now, head.key_id, reason);
        }
        self.advance(now);
        outcome
    }

    /// A job is done. One whose negotiation is gone comes to nothing.
    pub(crate) fn handle_job(&mut self, now: Instant, done: JobDone) {
        if !self.newest.has_lent(&done) {
            return;
        }
        if let Some(Step::Failed(reason)) = self.newest.handle_job(done) {
            self.negotiation_failed(now, self.newest.key_id, reason);
        }
        self.advance(now);
    }

    /// Checks whose packet it is; a client learns the server's session id from the answer to its reset.
    fn check_ids(&mut self, head: &Head, body: &Body<'_>) -> Result<(), Ignored> {
        if body.remote_session_id.is_some_and(|id| id != self.local) {
            return Err(Ignored::OutOfSync);
        }
        match self.remote {
            Some(remote) if remote == head.session_id => Ok(()),
            None if head.opcode == Opcode::HardResetServer && body.remote_session_id.is_some() => {
                let wants = early::wants_wrapped_key(body.payload).map_err(|_| Ignored::Malformed)?;
                self.newest.tell_wrapped_key = wants && self.envelope.has_wrapped_key();
                self.remote = Some(head.session_id);
                Ok(())
            }
            _ => Err(Ignored::OutOfSync),
        }
    }

    /// True if the packet begins a rekey. What comes too early is not acknowledged, and comes again.
    fn is_rekey(&self, now: Instant, head: &Head, body: &Body<'_>) -> bool {
        head.opcode == Opcode::SoftReset
            && body.packet_id == Some(0)
            && head.key_id == self.newest.key_id.next()
            && self.newest.has_keys()
            && now.saturating_duration_since(self.newest.begun) >= REKEY_PAUSE
    }
}

/// What of a packet belongs to the TLS stream: resets carry other things, if any.
fn tls_bytes<'a>(head: &Head, body: &Body<'a>) -> &'a [u8] {
    if head.opcode.is_reset() { &[] } else { body.payload }
}

/// What the owner decides.
impl Session {
    /// Both ends have agreed on dynamic tls-crypt: packets of all keys but the first are wrapped with a key of TLS's
    /// from now on. Only while the first key is the newest: true if so.
    pub fn wrap_rekeys(&mut self, now: Instant) -> bool {
        let first = Some(&self.newest).filter(|newest| newest.key_id == KeyId::FIRST && newest.has_keys());
        let exported = first.and_then(Negotiation::tls).map(Tls::export_wrapping_key);
        let Some(Ok(exported)) = exported else { return false };
        let role = if self.engine.is_client() { Role::Client } else { Role::Server };
        self.envelope.wrap_rekeys(now, &exported, role);
        true
    }

    /// The peer's key-method message is accepted. The server answers it with its own; keys exist from now on.
    pub fn accept(&mut self, now: Instant, greeting: Option<Greeting>) {
        if self.newest.state() != State::Judging {
            return;
        }
        if let Some(greeting) = greeting {
            self.greeting = greeting;
            self.say_key_method();
        }
        let key_id = self.newest.key_id;
        let material = match self.key_material() {
            Ok(material) => material,
            Err(reason) => return self.fail(now, reason),
        };
        self.newest.confirm();
        self.retire_superseded_soon(now);
        // There are eight ids: a key of the same one is replaced, and must not take this one with it when its time ends.
        self.retiring.retain(|(_, retiring)| *retiring != key_id);
        self.events.push_back(Event::Keys(key_id, material));
        if self.sending.is_none() {
            self.send_with(key_id);
        }
        self.advance(now);
    }

    fn key_material(&mut self) -> Result<KeyMaterial, String> {
        let exported = self.newest.tls().map(Tls::export_data_keys);
        // Only handshakes are lent, and this one is over.
        let exported = exported.ok_or_else(|| "TLS is not there".to_owned())?;
        let exporter = exported.map_err(|error| format!("TLS cannot derive data keys: {error}"))?;
        let prf = self.prf_keys().ok_or_else(|| "a key-method 2 message lacks its secrets".to_owned())?;
        Ok(KeyMaterial { exporter, prf })
    }

    /// The session ids are the same in all negotiations.
    fn prf_keys(&mut self) -> Option<KeyBlock> {
        let (said, heard) = self.newest.take_sources()?;
        let (ours, theirs) = ((&said, self.local), (&heard, self.remote?));
        if self.engine.is_client() { prf::data_keys(ours, theirs) } else { prf::data_keys(theirs, ours) }
    }

    /// The newest negotiation is given up.
    pub fn fail(&mut self, now: Instant, reason: String) {
        self.newest.fail(String::new());
        self.negotiation_failed(now, self.newest.key_id, reason);
        self.advance(now);
    }

    /// Sends `text` (without NUL) as soon as the newest negotiation has keys.
    pub fn send_command(&mut self, now: Instant, text: String) {
        if self.commands.len() < MAX_COMMANDS {
            self.commands.push_back(text);
        }
        self.advance(now);
    }

    /// Begins a rekey, unless one is under way.
    pub fn begin_rekey(&mut self, now: Instant) {
        if self.newest.state() == State::Active {
            self.begin_negotiation(now);
            self.advance(now);
        }
    }
}

/// What follows.
impl Session {
    /// The next datagram to send at `now`.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        let old = self.old.as_mut().map(|(old, _)| old);
        for negotiation in std::iter::once(&mut self.newest).chain(old) {
            let Some(packet) = negotiation.reliable.poll(now) else { continue };
            let head = Head { opcode: packet.opcode, key_id: negotiation.key_id, session_id: self.local };
            // Acknowledgements exist only once the peer was heard.
            let remote_session_id = self.remote.filter(|_| !packet.acks.as_slice().is_empty());
            let body = Body {
                acks: packet.acks,
                remote_session_id,
                packet_id: packet.packet_id,
                payload: &packet.payload,
            };
            return Some(self.envelope.wrap(now, &ControlPacket { head, body }));
        }
        None
    }

    /// The expensive step that waits to be done, where the engine offloads: [`Job::run`] it wherever, and bring the
    /// result to [`Self::handle_job`].
    #[must_use]
    pub(crate) fn poll_job(&mut self) -> Option<Job> {
        self.newest.poll_job()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next timer.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let active = self.newest.state() == State::Active;
        let negotiating = !active && self.newest.state() != State::Failed;
        let old = self.old.as_ref();
        [
            (self.newest.reliable.deadline(), Timer::Retransmit),
            (old.and_then(|(old, _)| old.reliable.deadline()), Timer::Retransmit),
            (negotiating.then(|| self.newest.begun + self.times.hand_window), Timer::HandWindow),
            (self.switch_at.filter(|_| active), Timer::SwitchKey),
            (self.retiring.front().map(|(at, _)| *at), Timer::RetireKey),
            (old.map(|(_, dies)| *dies).filter(|_| active), Timer::TranWindow),
            (self.expires, Timer::TranWindow),
            (self.rekey_at.filter(|_| active), Timer::Rekey),
        ]
        .into_iter()
        .filter_map(|(at, timer)| at.map(|at| (at, timer)))
        .min_by_key(|(at, _)| *at)
    }

    /// Time has come. Retransmissions come from [`Self::poll_transmit`] alone.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, timer)) = self.poll_timeout()
            && at <= now
        {
            match timer {
                Timer::Retransmit => break,
                Timer::HandWindow => self.fail(now, "the negotiation took longer than hand-window".into()),
                Timer::SwitchKey => self.send_with(self.newest.key_id),
                Timer::RetireKey => self.retire_superseded(),
                Timer::TranWindow => self.old_key_died(),
                Timer::Rekey => self.begin_rekey(now),
            }
        }
    }

    /// Follows the negotiations as far as they go, then fills the send windows.
    fn advance(&mut self, now: Instant) {
        while let Some(step) = self.newest.step() {
            self.follow(now, step);
        }
        if let Some((old, _)) = &mut self.old {
            while let Some(step) = old.step() {
                if let Step::Command(text) = step {
                    self.events.push_back(Event::Command(text));
                }
            }
            old.pump(now, &self.envelope);
        }
        if self.newest.has_keys() {
            for text in self.commands.drain(..) {
                let mut message = text.into_bytes();
                message.push(0);
                self.newest.write(&message);
            }
        }
        self.newest.pump(now, &self.envelope);
    }

    fn follow(&mut self, now: Instant, step: Step) {
        match step {
            Step::TlsDone if self.engine.is_client() => self.say_key_method(),
            Step::TlsDone => {}
            Step::KeyMethod(message) => {
                self.events.push_back(Event::KeyMethod(self.newest.key_id, message));
            }
            Step::Active => self.negotiation_done(now),
            Step::Command(text) => self.events.push_back(Event::Command(text)),
            Step::Failed(reason) => self.negotiation_failed(now, self.newest.key_id, reason),
        }
    }

    fn say_key_method(&mut self) {
        let client = self.engine.is_client();
        let message = KeyMethod {
            pre_master: client.then(|| self.pre_master()),
            random1: self.random.block(),
            random2: self.random.block(),
            options: self.greeting.options.clone().into_bytes(),
            username: Vec::new(),
            password: Vec::new(),
            peer_info: self.greeting.peer_info.clone().into_bytes(),
        };
        self.newest.say(&message);
    }

    fn pre_master(&mut self) -> [u8; 48] {
        let mut secret = [0; 48];
        for part in secret.chunks_mut(16) {
            part.copy_from_slice(&self.random.block()[..16]);
        }
        secret
    }
}
