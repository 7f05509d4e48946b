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

use std::time::Instant;

use super::{
    blame,
    reliable::{Received, Reliable},
    tls::{Engine, Tls},
};
use crate::{
    ids::KeyId,
    wire::{Opcode, command, key_method::KeyMethod},
};

/// Largest payload of a control packet we send: IPv6 and UDP headers (48) and the largest control header beside
/// data (1 + 8 + 1 + 4 * 4 + 8 + 4) leave this of 1250 bytes, upstream's limit for any control packet on the wire.
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
    pub(super) tls: Tls,
    state: State,
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
        let (reliable, tls) = (Reliable::new(first_id), Tls::new(engine)?);
        Ok(Self {
            key_id,
            begun: now,
            reliable,
            tls,
            state,
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
        self.reliable.is_drained() && !self.tls.has_output()
    }

    /// Takes a packet in; [`Self::step`] says what it led to.
    pub(super) fn handle_packet(&mut self, packet_id: u32, payload: &[u8]) -> (Received, Option<Step>) {
        let received = self.reliable.handle_packet(packet_id, payload);
        while let Some(bytes) = self.reliable.next_payload() {
            // A failed connection is only kept to deliver its alert.
            if self.state == State::Failed {
                continue;
            }
            if let Err(error) = self.tls.read(&bytes) {
                return (received, Some(self.fail(blame::explain(&error))));
            }
        }
        (received, None)
    }

    /// The next thing that has happened; `None` when all is waiting for the peer or the owner.
    pub(super) fn step(&mut self) -> Option<Step> {
        match self.state {
            State::Opening if self.reliable.has_received() && self.reliable.is_drained() => {
                self.become_state(State::Handshaking);
                self.step()
            }
            State::Handshaking if !self.tls.is_handshaking() => {
                self.become_state(State::AwaitingKeyMethod);
                Some(Step::TlsDone)
            }
            State::AwaitingKeyMethod if !self.tls.plaintext.is_empty() => Some(self.read_key_method()),
            State::Confirming if self.is_quiet() => {
                self.become_state(State::Active);
                Some(Step::Active)
            }
            State::Confirming | State::Active => self.read_command(),
            State::Opening
            | State::Handshaking
            | State::AwaitingKeyMethod
            | State::Judging
            | State::Failed => None,
        }
    }

    /// The owner accepts the peer's message.
    pub(super) fn confirm(&mut self) {
        self.become_state(State::Confirming);
    }

    /// It is over; an alert may still be under way.
    pub(super) fn fail(&mut self, reason: String) -> Step {
        self.was_active |= self.state == State::Active;
        self.become_state(State::Failed);
        Step::Failed(reason)
    }

    /// Moves what TLS has to say into packets, as far as the window allows.
    pub(super) fn pump(&mut self, now: Instant) {
        while self.state != State::Opening && self.reliable.has_room() && self.tls.has_output() {
            let payload = self.tls.take_output(MAX_PAYLOAD);
            if payload.is_empty() {
                return;
            }
            self.reliable.send(now, Opcode::Control, payload);
        }
    }

    fn read_key_method(&mut self) -> Step {
        match KeyMethod::parse(&self.tls.plaintext, !self.is_client) {
            Ok((message, len)) => {
                self.tls.plaintext.drain(..len);
                self.become_state(State::Judging);
                Step::KeyMethod(Box::new(message))
            }
            Err(_) => self.fail("the key-method 2 message is malformed".into()),
        }
    }

    fn read_command(&mut self) -> Option<Step> {
        match command::take(&mut self.tls.plaintext) {
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
