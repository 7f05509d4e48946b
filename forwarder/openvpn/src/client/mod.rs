//! The client role: one session with one server.
//!
//! ```text
//!   Connecting ──── push reply ────► Connected ──── exit, RESTART, silence ────► Closing ────► Closed
//!       └──────────────── refused, handshake failed ──────────────────────────────▲
//! ```
//! A client does not reconnect: its owner makes a new one.

mod event;
mod options;
mod pull;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub use event::{CloseReason, Config, Connected, Event};
use options::Pushed;
pub use pull::{PullAction, PullFilter};

use crate::{
    data::{Cipher, DataKeys, Role},
    ids::KeyId,
    random::Random,
    session::{self, Engine, Envelope, Greeting, Ignored, KeyMaterial, Session, Times},
    wire::{Head, command::Command, occ, push::Assembly, wrapping::WallClock},
};

/// How long after the first key, and then how often, the push reply is asked for. Source: brief A.8.
const PUSH_REQUEST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// How long last words are repeated.
const LINGER: Duration = Duration::from_secs(5);

/// When something must happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// To see to the control channel.
    Session(session::Timer),
    /// To ask for the push reply.
    PushRequest,
    /// To give up a server that agrees on keys and then pushes nothing.
    PushWindow,
    /// To send a keepalive.
    Ping,
    /// To give the server up.
    PingRestart,
    /// To stop repeating last words.
    Linger,
}

enum Stage {
    /// Keys wait for the cipher that the push reply names.
    Connecting { keys: Vec<(KeyId, KeyMaterial)>, ask_at: Option<Instant>, give_up_at: Option<Instant> },
    /// Up.
    Connected(Box<Pushed>),
    /// Over; until then last words are repeated.
    Closing(Instant),
    /// Over.
    Closed,
}

/// One session with one server.
pub struct Client {
    config: Config,
    session: Session,
    stage: Stage,
    reply: Assembly,
    /// The cipher that the server's options string names.
    its_cipher: Option<Cipher>,
    last_received: Instant,
    last_sent: Instant,
    transmits: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

impl Client {
    /// Begins to connect. `seed` is secret randomness, used once.
    ///
    /// # Errors
    /// TLS cannot begin with this configuration.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Result<Self, rustls::Error> {
        let times =
            Times { hand_window: config.hand_window, tran_window: config.tran_window, reneg: config.reneg };
        let cipher = config.data_ciphers.first().copied().unwrap_or(Cipher::Aes256Gcm);
        let occ = occ::Options {
            tun_mtu: config.tun_mtu,
            cipher,
            framing: config.framing,
            fragments: false,
            stream: false,
            server: false,
        };
        let greeting = Greeting { options: occ.to_text(), peer_info: options::peer_info(&config) };
        let engine = Engine::Client(config.tls.clone());
        let clock = WallClock::new(now, config.unix_s);
        let envelope = Envelope::of_client(now, clock, config.wrapping.clone(), config.wrapped_key.clone());
        let session = Session::connect(now, (engine, envelope), times, greeting, Random::new(seed))?;
        let mut client = Self {
            config,
            session,
            stage: Stage::Connecting { keys: Vec::new(), ask_at: None, give_up_at: None },
            reply: Assembly::default(),
            its_cipher: None,
            last_received: now,
            last_sent: now,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        client.drain(now);
        Ok(client)
    }

    /// True once nothing more will come: the client can be dropped.
    pub fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }

    /// True while the session is up.
    pub fn is_connected(&self) -> bool {
        matches!(self.stage, Stage::Connected(_))
    }

    /// True where the server wants to hear on the data channel that we leave ([`crate::data::DataChannel::seal_exit`]),
    /// since it did not ask for the message that [`Self::exit`] sends.
    pub fn exits_by_data(&self) -> bool {
        matches!(&self.stage, Stage::Connected(pushed) if !pushed.exit_notify)
    }

    /// The name in the server's certificate, once it was shown.
    pub fn server_name(&self) -> Option<String> {
        crate::server::common_name(self.session.peer_certificate()?)
    }
}

/// What comes in.
impl Client {
    /// A control packet (any opcode but data) arrived from the server.
    ///
    /// # Errors
    /// The packet came to nothing.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Ignored> {
        let (head, rest) = Head::parse(datagram).map_err(|_| Ignored::Malformed)?;
        self.session.handle_datagram(now, head, rest)?;
        self.last_received = self.last_received.max(now);
        self.drain(now);
        Ok(())
    }

    /// What the data path last saw: feeds ping and ping-restart.
    pub fn handle_activity(&mut self, last_received: Instant, last_sent: Instant) {
        self.last_received = self.last_received.max(last_received);
        self.last_sent = self.last_sent.max(last_sent);
    }

    /// The data key nears its limit: begin a rekey.
    pub fn handle_rekey_request(&mut self, now: Instant) {
        self.session.begin_rekey(now);
        self.drain(now);
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        self.drain(now);
        while let Some((at, timer)) = self.timeout()
            && at <= now
        {
            match timer {
                Timer::Session(_) => break,
                Timer::PushRequest => self.ask(now),
                Timer::PushWindow => {
                    let reason = "the server pushed nothing within hand-window";
                    self.close(now, CloseReason::HandshakeFailed(reason.into()));
                }
                Timer::Ping => {
                    self.last_sent = now;
                    self.events.push_back(Event::PingDue);
                }
                Timer::PingRestart => {
                    self.close(now, CloseReason::PingTimeout);
                    self.stage = Stage::Closed;
                }
                Timer::Linger => self.stage = Stage::Closed,
            }
        }
        self.drain(now);
    }

    /// Leaves: the server is told, if it wants to be.
    pub fn exit(&mut self, now: Instant) {
        if let Stage::Connected(pushed) = &self.stage
            && pushed.exit_notify
        {
            self.session.send_command(now, "EXIT".into());
        }
        self.close(now, CloseReason::Exit);
        self.drain(now);
    }
}

/// What goes out.
impl Client {
    /// The next control packet to send to the server.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` must be called, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timeout().map(|(at, timer)| (at, timer.reason()))
    }

    fn timeout(&self) -> Option<(Instant, Timer)> {
        let session = self.session.poll_timeout().map(|(at, timer)| (at, Timer::Session(timer)));
        let own = match &self.stage {
            Stage::Connecting { ask_at, give_up_at, .. } => {
                [give_up_at.map(|at| (at, Timer::PushWindow)), ask_at.map(|at| (at, Timer::PushRequest))]
            }
            Stage::Connected(pushed) => [
                pushed.ping.map(|ping| (self.last_sent + ping, Timer::Ping)),
                pushed.ping_restart.map(|restart| (self.last_received + restart, Timer::PingRestart)),
            ],
            Stage::Closing(until) => [Some((*until, Timer::Linger)), None],
            Stage::Closed => return None,
        };
        own.into_iter().flatten().chain(session).min_by_key(|(at, _)| *at)
    }
}

/// What happens in between.
impl Client {
    /// Handles what the session says, then takes what it sends.
    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            self.handle_event(now, event);
        }
        if self.is_closed() {
            return;
        }
        while let Some(datagram) = self.session.poll_transmit(now) {
            self.transmits.push_back(datagram);
            self.last_sent = now;
        }
        if matches!(self.stage, Stage::Closing(_)) && self.session.is_quiet() {
            self.stage = Stage::Closed;
        }
    }

    fn handle_event(&mut self, now: Instant, event: session::Event) {
        match event {
            session::Event::KeyMethod(_, message) => {
                self.its_cipher = occ::cipher_name(&message.options).and_then(Cipher::from_name);
                self.session.accept(now, None);
            }
            session::Event::Keys(key_id, material) => self.take_keys(now, key_id, material),
            session::Event::SendWith(key_id) if self.is_connected() => {
                self.events.push_back(Event::SendWith { key_id });
            }
            session::Event::Retired(key_id) if self.is_connected() => {
                self.events.push_back(Event::KeyRetired { key_id });
            }
            session::Event::SendWith(_) | session::Event::Retired(_) | session::Event::RekeyFailed(_) => {}
            session::Event::Command(text) => self.handle_command(now, &text),
            session::Event::Failed(reason) => self.close(now, CloseReason::HandshakeFailed(reason)),
            session::Event::Expired => self.close(now, CloseReason::RekeyFailed),
        }
    }

    fn take_keys(&mut self, now: Instant, key_id: KeyId, material: KeyMaterial) {
        match &mut self.stage {
            Stage::Connecting { keys, ask_at, give_up_at } => {
                keys.push((key_id, material));
                ask_at.get_or_insert(now + PUSH_REQUEST[0]);
                // Source: forward.c `check_push_request`.
                give_up_at.get_or_insert(now + self.config.hand_window);
            }
            Stage::Connected(pushed) => {
                let block = material.block(pushed.derivation);
                let keys = Box::new(DataKeys::new(pushed.connected.profile, Role::Client, block.bytes()));
                self.events.push_back(Event::KeyInstalled { key_id, keys });
            }
            Stage::Closing(_) | Stage::Closed => {}
        }
    }

    fn handle_command(&mut self, now: Instant, text: &str) {
        match Command::parse(text) {
            Command::PushReply(part) => self.handle_push_reply(now, part),
            Command::AuthFailed(why) => self.close(now, CloseReason::Refused(why.into())),
            Command::Restart(how) => self.close(now, CloseReason::Restart(how.into())),
            Command::Halt(how) => self.close(now, CloseReason::Halted(how.into())),
            Command::PushRequest | Command::Exit | Command::Other(_) => {}
        }
    }

    /// Replies after the first are repetitions.
    fn handle_push_reply(&mut self, now: Instant, part: &str) {
        let Some(options) = self.reply.add(part) else { return };
        let Stage::Connecting { keys, .. } = &mut self.stage else { return };
        let keys = std::mem::take(keys);
        let pushed = pull::filter(&self.config.pull_filters, options)
            .and_then(|options| Pushed::parse(&self.config, self.its_cipher, options));
        match pushed.map(|pushed| pushed.or_config(&self.config)) {
            Ok(pushed) => self.connected(now, pushed, keys),
            Err(reason) => self.close(now, reason),
        }
    }

    fn connected(&mut self, now: Instant, pushed: Pushed, keys: Vec<(KeyId, KeyMaterial)>) {
        if pushed.dynamic_wrapping && !self.session.wrap_rekeys(now) {
            let reason = "`dyn-tls-crypt` after a rekey has begun".to_owned();
            return self.close(now, CloseReason::Incompatible(reason));
        }
        self.events.push_back(Event::Connected(pushed.connected.clone()));
        let newest = keys.last().map(|(key_id, _)| *key_id);
        self.stage = Stage::Connected(Box::new(pushed));
        for (key_id, material) in keys {
            self.take_keys(now, key_id, material);
        }
        self.events.extend(newest.map(|key_id| Event::SendWith { key_id }));
    }

    fn ask(&mut self, now: Instant) {
        if let Stage::Connecting { ask_at, .. } = &mut self.stage {
            *ask_at = Some(now + PUSH_REQUEST[1]);
            self.session.send_command(now, "PUSH_REQUEST".into());
        }
    }

    fn close(&mut self, now: Instant, reason: CloseReason) {
        if matches!(self.stage, Stage::Connecting { .. } | Stage::Connected(_)) {
            self.stage = Stage::Closing(now + LINGER);
            self.events.push_back(Event::Closed(reason));
        }
    }
}

impl Timer {
    const fn reason(self) -> &'static str {
        match self {
            Self::Session(timer) => timer.reason(),
            Self::PushRequest => "ask for the push reply",
            Self::PushWindow => "give up a server that pushes nothing",
            Self::Ping => "send a keepalive",
            Self::PingRestart => "give up a silent server",
            Self::Linger => "stop repeating last words",
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("is_connected", &self.is_connected()).finish_non_exhaustive()
    }
}
