//! How sessions begin.

use std::{collections::VecDeque, time::Instant};

use super::{Engine, Envelope, Greeting, Session, Times, negotiation::Negotiation};
use crate::{
    ids::KeyId,
    random::Random,
    wire::{Opcode, SessionId},
};

impl Session {
    /// The client's end: sends a hard reset.
    ///
    /// # Errors
    /// TLS cannot begin with this configuration.
    pub(crate) fn connect(
        now: Instant,
        (engine, envelope): (Engine, Envelope),
        times: Times,
        greeting: Greeting,
        mut random: Random,
    ) -> Result<Self, rustls::Error> {
        let newest = Negotiation::open(now, KeyId::FIRST, &engine, envelope.reset())?;
        let local = random.session_id();
        Ok(Self::new((engine, envelope), (local, None), times, greeting, random, newest))
    }

    /// The server's end, after the stateless exchange of resets between `local` and `remote`.
    ///
    /// # Errors
    /// TLS cannot begin with this configuration.
    pub(crate) fn resume(
        now: Instant,
        (engine, envelope): (Engine, Envelope),
        ids: (SessionId, SessionId),
        times: Times,
        random: Random,
    ) -> Result<Self, rustls::Error> {
        let newest = Negotiation::resume(now, &engine)?;
        let ids = (ids.0, Some(ids.1));
        Ok(Self::new((engine, envelope), ids, times, Greeting::default(), random, newest))
    }

    /// The server's end, for a client whose reset is not yet answered and comes next.
    ///
    /// # Errors
    /// TLS cannot begin with this configuration.
    pub(crate) fn answer(
        now: Instant,
        (engine, envelope): (Engine, Envelope),
        ids: (SessionId, SessionId),
        times: Times,
        random: Random,
    ) -> Result<Self, rustls::Error> {
        let newest = Negotiation::open(now, KeyId::FIRST, &engine, Opcode::HardResetServer)?;
        let ids = (ids.0, Some(ids.1));
        Ok(Self::new((engine, envelope), ids, times, Greeting::default(), random, newest))
    }

    fn new(
        (engine, envelope): (Engine, Envelope),
        (local, remote): (SessionId, Option<SessionId>),
        times: Times,
        greeting: Greeting,
        random: Random,
        newest: Negotiation,
    ) -> Self {
        Self {
            engine,
            envelope,
            local,
            remote,
            times,
            greeting,
            random,
            newest,
            old: None,
            superseded: Vec::new(),
            retiring: VecDeque::new(),
            sending: None,
            switch_at: None,
            expires: None,
            rekey_at: None,
            commands: VecDeque::new(),
            events: VecDeque::new(),
        }
    }
}
