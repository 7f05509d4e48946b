//! One negotiation of one data key: resets, TLS handshake, key-method messages. Source: brief A.3, A.6, ssl.c.
//!
//! ```text
//!   Opening ────────► Handshaking ────► AwaitingKeyMethod ────► Judging ────► Confirming ────► Active
//!     both resets       TLS done;         the peer's message      the owner      all we sent
//!     are through       client: says      is whole                said yes       is acknowledged
//!                       its message
//!                                  any ────► Failed: TLS alert, nonsense, too late
//! ```
//! Data under the key is accepted from `Confirming` on.
//!
//! While a job has the TLS connection, packets wait in the receive window, which bounds them: they are acknowledged, and
//! what lies beyond the window comes again.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use super::{
    Envelope, blame,
    job::{Job, JobDone},
    prf::Source,
    reliable::{Received, Reliable},
    tls::{Engine, Tls},
};
use crate::{
    ids::KeyId,
    wire::{Opcode, command, key_method::KeyMethod},
};

/// Largest payload of a control packet we send, without wrapping: IPv6 and UDP headers (48) and the largest control
/// header beside data (1 + 8 + 1 + 4 * 4 + 8 + 4) leave this of 1250 bytes, upstream's limit for any on the wire.
const MAX_PAYLOAD: usize = 1250 - 48 - 38;

/// Where a negotiation stands: see the drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Opening,
    Handshaking,
    AwaitingKeyMethod,
    Judging,
    Confirming,
    Active,
    Failed,
}

impl State {
    /// Every transition there is. Staying is not a transition.
    pub(super) fn may_become(self, next: Self) -> bool {
        use State::{Active, AwaitingKeyMethod, Confirming, Failed, Handshaking, Judging, Opening};
        matches!(
            (self, next),
            (Opening, Handshaking)
                | (Handshaking, AwaitingKeyMethod)
                | (AwaitingKeyMethod, Judging)
                | (Judging, Confirming)
                | (Confirming, Active)
                | (Opening | Handshaking | AwaitingKeyMethod | Judging | Confirming | Active, Failed)
        )
    }
}

/// What a negotiation has come to.
#[derive(Debug)]
pub(super) enum Step {
    /// TLS is up: the client says its key-method message now.
    TlsDone,
    /// The peer's key-method message: judge it, then [`Negotiation::confirm`].
    KeyMethod(Box<KeyMethod>),
    /// The peer has everything: the key is safe to send with.
    Active,
    /// The peer said something after the key exchange.
    Command(String),
    /// It is over, for this reason.
    Failed(String),
}

pub(super) struct Negotiation {
    pub(super) key_id: KeyId,
    pub(super) begun: Instant,
    pub(super) reliable: Reliable,
    /// `None` while a job has it: `job` until it is fetched, and then who carries it out.
    tls: Option<Box<Tls>>,
    job: Option<Job>,
    /// Known to the job, which is worth nothing when this is gone.
    alive: Arc<()>,
    offloads: bool,
    /// What this end's and the peer's key-method messages give to the keys, until they are made.
    said: Option<Source>,
    heard: Option<Source>,
    state: State,
    /// The first packet behind the reset tells the wrapped client key.
    pub(super) tell_wrapped_key: bool,
    /// It had come to `Active` when it failed.
    was_active: bool,
    is_client: bool,
}

impl Negotiation {
    /// Begins by sending `reset`, packet id 0.
    pub(super) fn open(
        now: Instant,
        key_id: KeyId,
        engine: &Engine,
        reset: Opcode,
    ) -> Result<Self, rustls::Error> {
        let mut negotiation = Self::new(now, key_id, engine, 0, State::Opening)?;
        negotiation.reliable.send(now, reset, Vec::new());
        Ok(negotiation)
    }

    /// Continues after a stateless exchange of resets used packet id 0.
    pub(super) fn resume(now: Instant, engine: &Engine) -> Result<Self, rustls::Error> {
        Self::new(now, KeyId::FIRST, engine, 1, State::Handshaking)
    }

    fn new(
        now: Instant,
        key_id: KeyId,
        engine: &Engine,
        first_id: u32,
        state: State,
    ) -> Result<Self, rustls::Error> {
        Ok(Self {
            key_id,
            begun: now,
            reliable: Reliable::new(first_id),
            tls: Some(Box::new(Tls::new(engine)?)),
            job: None,
            alive: Arc::new(()),
            offloads: engine.offloads(),
            said: None,
            heard: None,
            state,
            tell_wrapped_key: false,
            was_active: false,
            is_client: engine.is_client(),
        })
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// True once data under the key may be accepted.
    pub(super) fn has_keys(&self) -> bool {
        matches!(self.state, State::Confirming | State::Active)
    }

    /// True if it failed after it had succeeded: the peer broke the stream.
    pub(super) fn was_active(&self) -> bool {
        self.was_active
    }

    /// True when nothing waits to be sent or acknowledged.
    pub(super) fn is_quiet(&self) -> bool {
        let has_said_all = |tls: &Tls| !tls.has_output();
        self.reliable.is_drained() && self.tls().map_or(self.state == State::Failed, has_said_all)
    }

    /// The TLS connection, unless a job has it.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }

    /// Encrypts `message`. Only once [`Self::tls`] is up, which no job takes any more.
    pub(super) fn write(&mut self, message: &[u8]) {
        debug_assert!(self.tls.is_some(), "after the handshake no job has the connection");
        self.tls.iter_mut().for_each(|tls| tls.write(message));
    }

    /// Says this end's key-method message.
    pub(super) fn say(&mut self, message: &KeyMethod) {
        self.said = Some(Source::of(message));
        self.write(&message.emit());
    }

    /// What both ends gave to the keys, ours first; once.
    pub(super) fn take_sources(&mut self) -> Option<(Source, Source)> {
        self.said.take().zip(self.heard.take())
    }

    /// What another thread may do.
    pub(super) fn poll_job(&mut self) -> Option<Job> {
        self.job.take()
    }

    /// True if the job was taken from here.
    pub(super) fn has_lent(&self, done: &JobDone) -> bool {
        self.tls.is_none() && Weak::ptr_eq(&done.wanted, &Arc::downgrade(&self.alive))
    }

    /// Takes back what [`Self::has_lent`], and goes on with what has come meanwhile.
    pub(super) fn handle_job(&mut self, done: JobDone) -> Option<Step> {
        self.tls = Some(done.tls);
        match done.outcome {
            Ok(()) => self.digest(),
            Err(error) => Some(self.fail(blame::explain(&error))),
        }
    }

    /// Takes a packet in; [`Self::step`] says what it led to.
    pub(super) fn handle_packet(&mut self, packet_id: u32, payload: &[u8]) -> (Received, Option<Step>) {
        let received = self.reliable.handle_packet(packet_id, payload);
        (received, self.digest())
    }

    /// Feeds TLS what has come in order: at once, or, while it shakes hands and jobs are wanted, by a job.
    fn digest(&mut self) -> Option<Step> {
        let mut tls = self.tls.take()?;
        let by_job = self.offloads && tls.is_handshaking();
        let mut input = Vec::new();
        while let Some(bytes) = self.reliable.next_payload() {
            // A failed connection is only kept to deliver its alert.
            if self.state == State::Failed {
                continue;
            }
            if by_job {
                input.extend_from_slice(&bytes);
            } else if let Err(error) = tls.read(&bytes) {
                self.tls = Some(tls);
                return Some(self.fail(blame::explain(&error)));
            }
        }
        if input.is_empty() {
            self.tls = Some(tls);
        } else {
            self.job = Some(Job { tls, input, wanted: Arc::downgrade(&self.alive) });
        }
        None
    }

    /// The next thing that has happened; `None` when all is waiting for the peer or the owner.
    pub(super) fn step(&mut self) -> Option<Step> {
        match self.state {
            State::Opening if self.reliable.has_received() && self.reliable.is_drained() => {
                self.become_state(State::Handshaking);
                self.step()
            }
            State::Handshaking if self.tls().is_some_and(|tls| !tls.is_handshaking()) => {
                self.become_state(State::AwaitingKeyMethod);
                Some(Step::TlsDone)
            }
            State::AwaitingKeyMethod => self.read_key_method(),
            State::Confirming if self.is_quiet() => {
                self.become_state(State::Active);
                Some(Step::Active)
            }
            State::Confirming | State::Active => self.read_command(),
            State::Opening | State::Handshaking | State::Judging | State::Failed => None,
        }
    }

    /// The owner accepts the peer's message.
    pub(super) fn confirm(&mut self) {
        self.become_state(State::Confirming);
    }

    /// It is over; an alert may still be under way.
    pub(super) fn fail(&mut self, reason: String) -> Step {
        self.was_active |= self.state == State::Active;
        // What a job has lent is not wanted back.
        self.alive = Arc::new(());
        self.job = None;
        self.become_state(State::Failed);
        Step::Failed(reason)
    }

    /// Moves what TLS has to say into packets, as far as the window allows.
    pub(super) fn pump(&mut self, now: Instant, envelope: &Envelope) {
        let Some(tls) = self.tls.as_mut().filter(|_| self.state != State::Opening) else { return };
        while self.reliable.has_room() && tls.has_output() {
            let tell = std::mem::take(&mut self.tell_wrapped_key);
            let opcode = if tell { Opcode::ControlWrappedKey } else { Opcode::Control };
            // A wrapped key has 1024 bytes at most.
            let most = MAX_PAYLOAD.saturating_sub(envelope.overhead(opcode, self.key_id));
            let payload = tls.take_output(most);
            if payload.is_empty() {
                return;
            }
            self.reliable.send(now, opcode, payload);
        }
    }

    fn read_key_method(&mut self) -> Option<Step> {
        let tls = self.tls.as_mut().filter(|tls| !tls.plaintext.is_empty())?;
        match KeyMethod::parse(&tls.plaintext, !self.is_client) {
            Ok((message, len)) => {
                tls.plaintext.drain(..len);
                tls.shrink();
                self.heard = Some(Source::of(&message));
                self.become_state(State::Judging);
                Some(Step::KeyMethod(Box::new(message)))
            }
            Err(_) => Some(self.fail("the key-method 2 message is malformed".into())),
        }
    }

    fn read_command(&mut self) -> Option<Step> {
        match command::take(&mut self.tls.as_mut()?.plaintext) {
            Ok(text) => text.map(Step::Command),
            Err(_) => Some(self.fail("the peer sends a message without end".into())),
        }
    }

    fn become_state(&mut self, next: State) {
        debug_assert!(self.state.may_become(next) || self.state == next, "{:?} to {next:?}", self.state);
        self.state = next;
    }
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn the_transitions_are_those_of_the_drawing() {
        use State::{Active, AwaitingKeyMethod, Confirming, Failed, Handshaking, Judging, Opening};
        let all = [Opening, Handshaking, AwaitingKeyMethod, Judging, Confirming, Active, Failed];
        let table: Vec<String> = all
            .into_iter()
            .map(|from| {
                let to: Vec<String> =
                    all.into_iter().filter(|to| from.may_become(*to)).map(|to| format!("{to:?}")).collect();
                format!("{from:?} -> {}", to.join(", "))
            })
            .collect();
        assert_eq!(
            table,
            [
                "Opening -> Handshaking, Failed",
                "Handshaking -> AwaitingKeyMethod, Failed",
                "AwaitingKeyMethod -> Judging, Failed",
                "Judging -> Confirming, Failed",
                "Confirming -> Active, Failed",
                "Active -> Failed",
                "Failed -> ",
            ]
        );
    }
}
