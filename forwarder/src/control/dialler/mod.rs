//! The client of one server, for as long as the gateway runs: calls it, and calls again whenever a session ends.
//!
//! ```text
//!   Waiting ──── pause over ────► Resolving ──── addresses ────► Calling ─── told to stop ──► Stopped
//!      ▲                              │ no such name                │                            ▲
//!      └──────────────────────────────┴── session over ─────────────┴──── refused for good ──────┘
//! ```
//! To workers and operator the server is a peer like any client of a server, and is told of in the same words.

mod ending;
mod resolver;
mod targets;

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use openvpn::{
    client::{self, Client, CloseReason, Config},
    ids::PeerId,
    server::{Connected, ControlError, Event, Path, Sizes, Transmit},
};

use self::{
    ending::{Ending, Sequel},
    resolver::Resolver,
    targets::Targets,
};
use super::{Error, sessions::Sessions};
use crate::config;
pub(super) use resolver::Wake;

/// Highest number that a server may give us. Workers keep a table by number: ids beyond the most clients that any
/// server has would only cost memory.
const MAX_PEER_ID: u32 = 1 << 20;

/// Secret randomness, as often as it is wanted.
pub(super) type Seed = fn() -> Result<[u8; 32], Error>;

/// The client of one server.
pub(super) struct Dialler {
    protocol: Config,
    seed: Seed,
    targets: Targets,
    resolver: Resolver,
    rules: Rules,
    /// Our address and port; unspecified address: what the kernel chooses.
    local: SocketAddr,
    stage: Stage,
    events: VecDeque<Event>,
    /// Last words of sessions that are over.
    transmits: VecDeque<Transmit>,
    /// Why there is no session.
    trouble: Option<String>,
    /// Why we have given up.
    failure: Option<Error>,
}

/// What the file says of a session's end.
struct Rules {
    answer_timeout: Duration,
    float: bool,
    exit_on_silence: bool,
    exit_notify: bool,
    sizes: Sizes,
}

enum Stage {
    /// Until then nobody is called.
    Waiting(Instant),
    /// The remote's name is being asked for.
    Resolving,
    /// A session begins or is up.
    Calling(Box<Call>),
    /// Over.
    Stopped,
}

struct Call {
    client: Client,
    path: Path,
    /// The number the server gave us, once the session is up.
    peer_id: Option<PeerId>,
    /// When to give the server up, until it says anything.
    answer_due: Option<Instant>,
    /// We have been told to stop.
    is_leaving: bool,
}

impl Dialler {
    /// The client that `file` describes; it calls from `local` as soon as it is turned.
    pub fn new(
        file: &config::client::Client,
        protocol: Config,
        local: SocketAddr,
        seed: Seed,
        wake: Wake,
        now: Instant,
    ) -> Result<Self, Error> {
        let mut remotes = file.remotes.clone();
        if file.remote_random {
            let keys: Vec<[u8; 32]> = remotes.iter().map(|_| seed()).collect::<Result<_, _>>()?;
            let mut shuffled: Vec<_> = keys.into_iter().zip(remotes).collect();
            shuffled.sort_by_key(|(key, _)| *key);
            remotes = shuffled.into_iter().map(|(_, remote)| remote).collect();
        }
        let rules = Rules {
            answer_timeout: file.answer_timeout,
            float: file.float,
            exit_on_silence: file.exit_on_silence,
            exit_notify: file.exit_notify,
            sizes: file.common.sizes,
        };
        Ok(Self {
            protocol,
            seed,
            targets: Targets::new(remotes, file.retry, file.attempts),
            resolver: Resolver::new(wake),
            rules,
            local,
            stage: Stage::Waiting(now),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            trouble: None,
            failure: None,
        })
    }

    /// Nothing will come any more.
    pub fn is_stopped(&self) -> bool {
        matches!(self.stage, Stage::Stopped)
    }

    /// Why it stopped, unless it was told to.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// What keeps it from being connected, for the operator.
    pub fn trouble(&self) -> Option<String> {
        let remote = self.targets.remote();
        match &self.stage {
            Stage::Calling(call) if call.peer_id.is_some() => None,
            Stage::Calling(call) => Some(format!(
                "not connected: calling {remote} ({}){}",
                call.path.remote,
                self.trouble.as_ref().map_or(String::new(), |trouble| format!("; before that: {trouble}"))
            )),
            _ => Some(format!(
                "not connected: {} is called next; {}",
                remote,
                self.trouble.as_deref().unwrap_or("its name is being asked for")
            )),
        }
    }

    /// The number of our peer, where it must be told on the data channel that we leave.
    pub fn exits_by_data(&self) -> Option<PeerId> {
        match &self.stage {
            Stage::Calling(call) if self.rules.exit_notify && call.client.exits_by_data() => call.peer_id,
            _ => None,
        }
    }
}

/// What comes in.
impl Dialler {
    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) -> Result<(), ControlError> {
        let Stage::Calling(call) = &mut self.stage else { return Err(ControlError::UnknownPeer) };
        if path.remote != call.path.remote {
            return Err(ControlError::UnknownPeer);
        }
        let heard = call.client.handle_datagram(now, datagram);
        if heard.is_ok() {
            call.answer_due = None;
        }
        self.follow(now);
        heard.map_err(ControlError::from)
    }

    /// Authentic data came from elsewhere. Where *we* are is the kernel's to say: [`Self::handle_surroundings`].
    pub fn handle_float(&mut self, peer_id: PeerId, path: Path) {
        let Stage::Calling(call) = &mut self.stage else { return };
        if self.rules.float && call.peer_id == Some(peer_id) && call.path.remote != path.remote {
            call.path.remote = path.remote;
            self.events.push_back(Event::PathChanged { peer_id, path: call.path });
        }
    }

    /// The server said on the data channel that it leaves.
    pub fn handle_exit(&mut self, now: Instant, peer_id: PeerId) {
        if matches!(&self.stage, Stage::Calling(call) if call.peer_id == Some(peer_id)) {
            self.end_call(now, Ending::Left);
        }
    }

    pub fn handle_rekey_request(&mut self, now: Instant) {
        if let Stage::Calling(call) = &mut self.stage {
            call.client.handle_rekey_request(now);
        }
        self.follow(now);
    }

    /// Addresses or routes may have changed: packets leave from where the kernel would send them from now.
    pub fn handle_surroundings(&mut self) {
        let Stage::Calling(call) = &mut self.stage else { return };
        let Some(local) = source(self.local, call.path.remote).filter(|local| *local != call.path.local)
        else {
            return;
        };
        call.path.local = local;
        if let Some(peer_id) = call.peer_id {
            self.events.push_back(Event::PathChanged { peer_id, path: call.path });
        }
    }

    /// Takes what the resolver found.
    pub fn handle_answers(&mut self, now: Instant) {
        let Some(answer) = self.resolver.take() else { return };
        if !matches!(self.stage, Stage::Resolving) {
            return;
        }
        match answer.map(|addresses| addresses.into_iter().filter(SocketAddr::is_ipv4).collect::<Vec<_>>()) {
            Ok(addresses) if !addresses.is_empty() => {
                self.targets.resolved(addresses);
                self.call(now);
            }
            Ok(_) => self.end_call(now, Ending::Unresolved("it has no IPv4 address".into())),
            Err(error) => self.end_call(now, Ending::Unresolved(error.to_string())),
        }
    }

    pub fn handle_time(&mut self, now: Instant, sessions: &Sessions) {
        match &mut self.stage {
            Stage::Waiting(at) if *at <= now => self.call(now),
            Stage::Calling(call) if call.answer_due.is_some_and(|due| due <= now) => {
                self.end_call(now, Ending::NoAnswer);
            }
            Stage::Calling(call) => {
                if let Some((received, sent)) = call.peer_id.and_then(|peer_id| sessions.activity(peer_id)) {
                    call.client.handle_activity(received, sent);
                }
                call.client.handle_timeout(now);
            }
            Stage::Waiting(_) | Stage::Resolving | Stage::Stopped => {}
        }
        self.follow(now);
    }

    /// Leaves: a session that is up is ended in order first.
    pub fn stop(&mut self, now: Instant) {
        match &mut self.stage {
            Stage::Calling(call) if call.peer_id.is_some() => {
                call.is_leaving = true;
                call.client.exit(now);
            }
            _ => self.stage = Stage::Stopped,
        }
        self.follow(now);
    }
}

/// What goes out.
impl Dialler {
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(transmit) = self.transmits.pop_front() {
            return Some(transmit);
        }
        let Stage::Calling(call) = &mut self.stage else { return None };
        let payload = call.client.poll_transmit()?;
        Some(Transmit { path: call.path, payload })
    }

    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Waiting(at) => Some(*at),
            Stage::Calling(call) => {
                call.client.poll_timeout().map(|(at, _)| at).into_iter().chain(call.answer_due).min()
            }
            Stage::Resolving | Stage::Stopped => None,
        }
    }
}

/// What happens in between.
impl Dialler {
    /// Calls whoever is next, as soon as it is known where that is.
    fn call(&mut self, now: Instant) {
        let Some(remote) = self.targets.address() else {
            self.stage = Stage::Resolving;
            match self.resolver.ask(self.targets.remote()) {
                Ok(()) => self.handle_answers(now),
                Err(error) => self.end_call(now, Ending::Unresolved(error.to_string())),
            }
            return;
        };
        match self.dial(now, remote) {
            Ok(call) => {
                tracing::info!(remote = %self.targets.remote(), address = %remote, "calling the server");
                self.stage = Stage::Calling(Box::new(call));
            }
            Err(failure) => self.give_up(failure),
        }
    }

    fn dial(&self, now: Instant, remote: SocketAddr) -> Result<Call, Error> {
        let protocol = Config { unix_s: config::protocol::unix_s(), ..self.protocol.clone() };
        let client = Client::new(protocol, (self.seed)()?, now)
            .map_err(|error| Error::Client(format!("TLS cannot begin: {error}; please report this")))?;
        let path = Path::udp(remote, source(self.local, remote).unwrap_or(self.local));
        let answer_due = Some(now + self.rules.answer_timeout);
        Ok(Call { client, path, peer_id: None, answer_due, is_leaving: false })
    }

    /// Handles what the session says.
    fn follow(&mut self, now: Instant) {
        while let Stage::Calling(call) = &mut self.stage
            && let Some(event) = call.client.poll_event()
        {
            self.handle_event(now, event);
        }
        if matches!(&self.stage, Stage::Calling(call) if call.is_leaving && call.client.is_closed()) {
            self.stage = Stage::Stopped;
        }
    }

    fn handle_event(&mut self, now: Instant, event: client::Event) {
        let Stage::Calling(call) = &mut self.stage else { return };
        let event = match (event, call.peer_id) {
            (client::Event::Connected(connected), _) => return self.connected(now, connected),
            // We leave already, and need no other server.
            (client::Event::Closed(_), _) if call.is_leaving => return,
            (client::Event::Closed(reason), _) => return self.end_call(now, reason.into()),
            (client::Event::KeyInstalled { key_id, keys }, Some(peer_id)) => {
                Event::KeyInstalled { peer_id, key_id, keys }
            }
            (client::Event::SendWith { key_id }, Some(peer_id)) => Event::SendWith { peer_id, key_id },
            (client::Event::KeyRetired { key_id }, Some(peer_id)) => Event::KeyRetired { peer_id, key_id },
            (client::Event::PingDue, Some(peer_id)) => Event::PingDue { peer_id },
            // Before the session is up there is nobody to tell.
            (_, None) => return,
        };
        self.events.push_back(event);
    }

    fn connected(&mut self, now: Instant, connected: client::Connected) {
        let Stage::Calling(call) = &mut self.stage else { return };
        let client::Connected { peer_id, address, profile, options, .. } = connected;
        if peer_id.value() > MAX_PEER_ID {
            let option = format!("peer-id {peer_id}");
            return self.end_call(now, CloseReason::Incompatible(option).into());
        }
        tracing::debug!(?options, "the server pushed");
        if let Some((address, netmask)) = address {
            tracing::info!(%address, %netmask, "the server leases an address: it is not set, for the site is bridged");
        }
        call.peer_id = Some(peer_id);
        let name = call.client.server_name().unwrap_or_else(|| self.targets.remote().host.clone());
        let address = address.map(|(address, _)| address);
        // There may have been no way yet when the call began.
        call.path.local = source(self.local, call.path.remote).unwrap_or(call.path.local);
        let path = call.path;
        // Both ends must have `fragment` or neither: the file's word counts, as upstream.
        let profile = self.rules.sizes.agree(profile, &path, None);
        self.trouble = None;
        self.targets.connected();
        let (max_stations, software) = (None, String::new());
        let peer = Connected { peer_id, name, path, address, max_stations, profile, software };
        self.events.push_back(Event::Connected(peer));
    }

    /// The call is over: somebody is called again, or never.
    fn end_call(&mut self, now: Instant, ending: Ending) {
        let mut peer_id = None;
        if let Stage::Calling(call) = &mut self.stage {
            peer_id = call.peer_id;
            let path = call.path;
            // Acknowledgements of what ended it.
            let last_words = std::iter::from_fn(|| call.client.poll_transmit());
            self.transmits.extend(last_words.map(|payload| Transmit { path, payload }));
        }
        if let Some(peer_id) = peer_id {
            self.events.push_back(Event::Gone { peer_id, reason: ending.gone() });
        }
        let failed = self.targets.remote().to_string();
        match ending.sequel(peer_id.is_some(), self.rules.exit_on_silence) {
            Sequel::GiveUp(sentence) => self.give_up(Error::Client(format!("{failed}: {sentence}"))),
            Sequel::Call(next, least) => {
                self.targets.turn(next);
                if self.targets.are_used_up() {
                    let sentence = format!("{failed}: {ending}; `connect-retry-max` says to end now");
                    return self.give_up(Error::Client(sentence));
                }
                let pause = self.targets.pause().max(least);
                tracing::warn!(remote = %failed, next = %self.targets.remote(), in_s = pause.as_secs(), "no session: {ending}");
                self.trouble = Some(format!("{failed}: {ending}"));
                self.stage = Stage::Waiting(now + pause);
            }
        }
    }

    fn give_up(&mut self, failure: Error) {
        self.failure = Some(failure);
        self.stage = Stage::Stopped;
    }
}

/// Our address for packets to `remote`: that of `local`, or what the kernel chooses now; `None` where it has no way.
fn source(local: SocketAddr, remote: SocketAddr) -> Option<SocketAddr> {
    if !local.ip().is_unspecified() {
        return Some(local);
    }
    // Connecting a UDP socket sends nothing: it asks the kernel for the way.
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { local.ip() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    Some(SocketAddr::new(socket.local_addr().ok()?.ip(), local.port()))
}

#[cfg(test)]
mod tests;
