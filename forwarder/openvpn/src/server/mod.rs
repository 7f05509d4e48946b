//! The server role: all sessions of one server.
//!
//! ```text
//!   datagram ─► whose? ─┬─ a session of this address ─► Session ─► events ─► admission, push, exit
//!                       └─ nobody's ─► cookie: answer without state, or begin a session (half open)
//! ```
//! A client is half open until its certificate and key-method message are accepted; only then does it cost a peer id,
//! an address, or the session of another client.

mod admission;
mod compression;
mod config;
mod cookie;
mod directory;
mod event;
mod first_contact;
mod instance;
mod jobs;
mod leases;
mod lifecycle;
mod name;
mod numbers;
mod sizes;
mod tables;
mod wrappings;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

pub use config::{AllowCompression, Compress, Config, ExitNotify, Former, Pool};
pub use directory::{Barred, Directory, Particulars, PushEdit};
pub use event::{Connected, ControlError, Event, GoneReason, Path, Transmit, Transport};
pub use jobs::{Job, JobDone};
pub use name::common_name;
pub use numbers::Share;
pub use sizes::{Limit, Mssfix, Sizes};
pub use wrappings::{OwnKeys, Wrappings};

use self::{
    cookie::{Cookie, RateLimit, UsedCookies},
    instance::Instance,
    jobs::Jobs,
    leases::Leases,
    numbers::Numbers,
};
use crate::{
    ids::PeerId,
    random::Random,
    session::Ignored,
    wire::{Head, wrapping::WallClock},
};

/// Why `poll_timeout` wants to be called again.
pub type Reason = &'static str;

/// Order of birth; never used twice.
type InstanceId = u64;

/// How long a stopping server waits for its notices to be acknowledged.
const STOP_LINGER: Duration = Duration::from_secs(2);

/// All sessions of one server.
pub struct Server {
    config: Config,
    clock: WallClock,
    random: Random,
    cookie: Cookie,
    /// First packets answered, less those whose sender came back with the answer's cookie: only those who do not count
    /// against the limit, as upstream has it.
    first_packets: RateLimit,
    used_cookies: UsedCookies,
    /// A cookie can be used again until it is too old: without this limit two of them begin sessions without end, each
    /// of which costs a handshake.
    repeated_cookies: RateLimit,
    leases: Leases,
    instances: BTreeMap<InstanceId, Instance>,
    next_instance: InstanceId,
    /// Sessions at an address: a live one, one that may replace it, some that linger.
    by_path: HashMap<Path, Vec<InstanceId>>,
    /// Connected sessions by peer id.
    numbers: Numbers,
    /// Who has a name, unless `duplicate-cn`.
    by_name: HashMap<String, PeerId>,
    /// Each instance's next timer, as of its last visit; a timer that has moved later since is found out then.
    timers: BTreeMap<(Instant, InstanceId), Reason>,
    timer_of: HashMap<InstanceId, Instant>,
    /// Set once stopping: when waiting ends.
    stop_at: Option<Instant>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    jobs: Jobs,
}

/// What is and what was.
impl Server {
    /// A server without sessions. `seed` is secret randomness: the cookie key and session ids come from it.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let mut random = Random::new(seed);
        let numbers = Numbers::of(config.share);
        Self {
            cookie: Cookie::new(&mut random, now),
            first_packets: RateLimit::new(config.connect_freq_initial, now),
            used_cookies: UsedCookies::new(now),
            repeated_cookies: RateLimit::new(config.connect_freq_initial, now),
            leases: Leases::new(config.pool.as_ref(), &config.former, config.duplicate_cn),
            clock: WallClock::new(now, config.unix_s),
            random,
            config,
            instances: BTreeMap::new(),
            next_instance: 0,
            by_path: HashMap::new(),
            numbers,
            by_name: HashMap::new(),
            timers: BTreeMap::new(),
            timer_of: HashMap::new(),
            stop_at: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            jobs: Jobs::default(),
        }
    }

    /// Number of peers connected.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// True without peers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Who has or last had which address of the pool, by address: what `ifconfig-pool-persist` keeps.
    pub fn holders(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.leases.holders()
    }

    /// Sessions that are no peers: half open, or lingering after their end.
    pub fn half_open(&self) -> usize {
        self.instances.len().saturating_sub(self.len())
    }

    /// After `stop`: every notice is acknowledged, or 2 s have passed.
    pub fn is_stopped(&self) -> bool {
        self.stop_at.is_some() && self.instances.is_empty()
    }
}

/// What comes in.
impl Server {
    /// A control packet (any opcode but data) arrived.
    ///
    /// # Errors
    /// The packet came to nothing: count it.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) -> Result<(), ControlError> {
        let (head, rest) = Head::parse(datagram).map_err(|_| ControlError::Malformed)?;
        let Some(id) = self.instance_of(&path, &head) else {
            return self.handle_unknown(now, path, head, rest);
        };
        self.visit(now, id, |_, instance| {
            instance.session.handle_datagram(now, head, rest)?;
            if let Some(peer) = instance.peer_mut() {
                peer.last_received = peer.last_received.max(now);
            }
            Ok(())
        })
        .unwrap_or(Err(ControlError::UnknownPeer))
    }

    fn instance_of(&self, path: &Path, head: &Head) -> Option<InstanceId> {
        let ids = self.by_path.get(path)?;
        let is_sender = |id: &&InstanceId| {
            let session = self.instances.get(id).map(|instance| &instance.session);
            session.is_some_and(|session| session.remote_id() == Some(head.session_id))
        };
        ids.iter().find(is_sender).copied()
    }

    /// The peers that [`Self::handle_timeout`] will judge at `now`: [`Self::handle_activity`] is of use for them alone.
    pub fn due_peers(&self, now: Instant) -> Vec<PeerId> {
        let due = self.timers.range(..=(now, InstanceId::MAX));
        due.filter_map(|((_, id), _)| Some(self.instances.get(id)?.peer()?.id)).collect()
    }

    /// The peer at `path`, if an answer to this packet from there would depend on when it was last heard: tell it by
    /// [`Self::handle_activity`] before such a packet is handed over.
    pub fn peer_to_judge(&self, path: &Path, datagram: &[u8]) -> Option<PeerId> {
        let (head, _) = Head::parse(datagram).ok()?;
        let is_stranger = first_contact::may_begin(&head) && self.instance_of(path, &head).is_none();
        let ids = self.by_path.get(path).filter(|_| is_stranger)?;
        ids.iter().find_map(|id| Some(self.instances.get(id)?.peer()?.id))
    }

    /// What the data path last saw of a peer: feeds ping and ping-restart.
    pub fn handle_activity(&mut self, peer_id: PeerId, last_received: Instant, last_sent: Instant) {
        let instance = self.id_of(peer_id).and_then(|id| self.instances.get_mut(&id));
        // Both only move timers later, so the timer on record may stand.
        if let Some(peer) = instance.and_then(Instance::peer_mut) {
            peer.last_received = peer.last_received.max(last_received);
            peer.last_sent = peer.last_sent.max(last_sent);
        }
    }

    /// The peer said on the data channel that it leaves.
    pub fn handle_exit(&mut self, now: Instant, peer_id: PeerId) {
        self.part(now, peer_id, GoneReason::Exit, None);
    }

    /// The TCP connection at `path` was closed: what was spoken over it is over.
    pub fn handle_closed(&mut self, now: Instant, path: Path) {
        for id in self.by_path.get(&path).cloned().unwrap_or_default() {
            self.end_at_once(now, id, GoneReason::ConnectionClosed);
        }
        // Whoever says so knows, and by the time it asks for events the path may be that of the next connection.
        self.events.retain(|event| !matches!(event, Event::PathUnused { path: unused } if *unused == path));
    }

    /// An authentic, fresh data packet of the peer came from another address. A session over TCP is bound to its
    /// connection, and none moves to one.
    pub fn handle_float(&mut self, now: Instant, peer_id: PeerId, path: Path) {
        let may_move = |from: Path| from != path && [from, path].iter().all(Path::is_udp);
        if let Some(id) = self.id_of(peer_id)
            && self.instances.get(&id).is_some_and(|instance| may_move(instance.path))
            && self.clear_way_for_float(now, id, &path)
        {
            self.move_instance(id, path);
            self.events.push_back(Event::PathChanged { peer_id, path });
        }
    }

    /// The peer's data key nears its limit: begin a rekey.
    pub fn handle_rekey_request(&mut self, now: Instant, peer_id: PeerId) {
        if let Some(id) = self.id_of(peer_id) {
            self.visit(now, id, |_, instance| instance.session.begin_rekey(now));
        }
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.stop_at.is_some_and(|at| at <= now) {
            self.forget_all();
        }
        let due: Vec<InstanceId> =
            self.timers.range(..=(now, InstanceId::MAX)).map(|((_, id), _)| *id).collect();
        for id in due {
            self.visit(now, id, |server, instance| server.run_timers(now, instance));
        }
    }

    /// Certificates and revocations from now on: of clients that come, and of connected ones at their next rekey.
    pub fn set_tls(&mut self, tls: &Arc<rustls::ServerConfig>) {
        self.config.tls = Arc::clone(tls);
        self.instances.values_mut().for_each(|instance| instance.session.set_tls(tls));
    }

    /// Ends one peer's session: it is told to restart.
    pub fn disconnect(&mut self, now: Instant, peer_id: PeerId) {
        self.part(now, peer_id, GoneReason::Disconnected, Some("RESTART"));
    }

    /// Tells every peer over UDP that the server stops (`explicit-exit-notify`; over TCP the end of the connection says
    /// so, as with upstream's `multi_push_restart_schedule_exit`) and takes no new ones. Returns when it is
    /// polite to leave: once everything is acknowledged, `poll_timeout` is `None` and `is_stopped`.
    pub fn stop(&mut self, now: Instant) {
        if self.stop_at.is_some() {
            return;
        }
        self.stop_at = Some(now + STOP_LINGER);
        let notice = self.config.exit_notify.map(|notify| match notify {
            ExitNotify::Restart => "RESTART",
            ExitNotify::NextRemote => "RESTART,[N]",
        });
        let peers = self.instances.values().filter_map(|instance| Some((instance.peer()?.id, instance.path)));
        let peers: Vec<(PeerId, Path)> = peers.collect();
        for (peer_id, path) in peers {
            self.part(now, peer_id, GoneReason::Disconnected, notice.filter(|_| path.is_udp()));
        }
        // What is not connected, or has nothing to hear, need not be waited for.
        let ids: Vec<InstanceId> = self.instances.keys().copied().collect();
        for id in ids {
            self.visit(now, id, |_, _| ());
        }
    }
}

/// What goes out.
impl Server {
    /// The next control packet to send. Fetch and act on all events first: a client may use a key as soon as it hears
    /// our answer.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            match self.events.pop_front()? {
                // One session has made room for the next at its end of the connection.
                Event::PathUnused { path } if self.by_path.contains_key(&path) => {}
                event => return Some(event),
            }
        }
    }

    /// When `handle_timeout` must be called, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let timer = self.timers.first_key_value().map(|((at, _), reason)| (*at, *reason));
        let stop =
            self.stop_at.filter(|_| !self.instances.is_empty()).map(|at| (at, "stop waiting for clients"));
        timer.into_iter().chain(stop).min_by_key(|(at, _)| *at)
    }
}

impl From<Ignored> for ControlError {
    fn from(ignored: Ignored) -> Self {
        match ignored {
            Ignored::Malformed => Self::Malformed,
            Ignored::OutOfSync => Self::OutOfSync,
            Ignored::Unauthentic => Self::Unauthentic,
            Ignored::Replayed => Self::Replayed,
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("peers", &self.len())
            .field("half_open", &self.half_open())
            .finish_non_exhaustive()
    }
}
