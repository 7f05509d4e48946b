//! The loop.

use std::{
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use crossbeam::channel::Receiver;
use mio::{Events, Interest, Poll, Registry, Token, unix::SourceFd};
use openvpn::{
    ids::PeerId,
    server::{ControlError, Path, Transmit},
};

use super::{
    Error,
    borrowed::Borrowed,
    bridge::Bridge,
    capture::Captures,
    confirm::Confirmation,
    datapath::Datapath,
    guarding::Guarding,
    listeners::ControlSockets,
    plan::Plan,
    report::{About, StatusSchedule},
    reread::Reread,
    role::Role,
    sessions::{Consequence, Sessions},
    signals::{Signals, Wish},
    stations::Stations,
    streams::{Arrived, Connections},
    surroundings::Surroundings,
};
use crate::{
    drops::Drop,
    management::{
        socket::{Asked, ControlSocket as ManagementSocket},
        status::{Request, Snapshot},
    },
    switch::{Port, WireId, Wires},
    worker::Notice,
    xdp::{attach::XdpGot, xsk::XskMode},
};

/// What the loop waits for.
pub(super) mod token {
    use mio::Token;

    pub const NETLINK: Token = Token(1);
    pub const SOURCES: Token = Token(2);
    pub const SIGNALS: Token = Token(3);
    pub const NOTICES: Token = Token(4);
    pub const BRIDGE: Token = Token(5);
    pub const CAPTURES: Token = Token(6);
    /// The UDP listeners have this one and those above, up to the next.
    pub const TUNNEL: Token = Token(16);
    /// The control socket and its clients have this one and all above.
    pub const MANAGEMENT: usize = 1024;
}

/// How often the slow chores are done: ageing, heartbeat, keeping neighbours alive, the status file.
const CHORES: Duration = Duration::from_millis(500);
/// Most datagrams, notices or sources taken in one go, so that none keeps the others waiting.
const BATCH: usize = 256;
/// Longest control packet: `mtu.h:94` says 1250 with IP and UDP headers; clients with larger link MTUs send more.
pub(super) const DATAGRAM: usize = 2048;

/// A running gateway.
pub(super) struct Gateway {
    pub poll: Poll,
    pub signals: Signals,
    pub sockets: ControlSockets,
    /// `None` without TCP listeners.
    pub connections: Option<Connections>,
    pub role: Role,
    pub sessions: Sessions,
    pub stations: Stations,
    pub surroundings: Surroundings,
    pub notices: Receiver<Notice>,
    pub management: ManagementSocket,
    pub reread: Reread,
    pub about: About,
    pub status_file: Option<StatusSchedule>,
    /// The kernel bridge that is accelerated; dropped before what it uses.
    pub bridge: Option<Bridge>,
    pub datapath: Datapath,
    pub captures: Captures,
    pub next_chores: Instant,
    pub confirmation: Confirmation,
    pub guarding: Guarding,
    pub stopping: bool,
    /// Dropped last: the operator's own TAP is given back when nobody uses it any more.
    pub _borrowed: Option<Borrowed>,
}

impl Gateway {
    /// Turns until it is told to stop and has told its peers.
    #[expect(clippy::disallowed_methods, reason = "the control thread's clock is read here, once a turn")]
    pub fn run(mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(128);
        while !self.role.is_stopped() {
            let timeout = self.next_deadline().saturating_duration_since(Instant::now());
            self.wait(&mut events, timeout)?;
            let now = Instant::now();
            for event in &events {
                self.handle_ready(event.token(), now);
            }
            self.handle_notices(now);
            self.handle_connections(now);
            self.handle_jobs(now);
            self.handle_captures(now);
            self.handle_time(now)?;
            self.drain_role(now);
        }
        self.role.close_files();
        if let Some(bridge) = &mut self.bridge {
            bridge.end(&mut self.datapath);
        }
        tracing::info!("stopped");
        self.confirmation.outcome()?;
        self.role.take_failure().map_or(Ok(()), Err)
    }

    /// Has the loop woken by all there is to wait for.
    pub fn watch(&self) -> Result<(), Error> {
        let registry = self.poll.registry();
        let fds = [
            (Some(self.surroundings.readable()), token::NETLINK),
            (self.bridge.as_ref().map(AsFd::as_fd), token::BRIDGE),
            (self.bridge.as_ref().and_then(Bridge::devices), token::BRIDGE),
            (self.datapath.sources(), token::SOURCES),
            (self.datapath.captured(), token::CAPTURES),
            (Some(self.signals.as_fd()), token::SIGNALS),
        ];
        for (fd, token) in fds {
            let Some(fd) = fd else { continue };
            register(registry, fd.as_raw_fd(), token).map_err(|error| Error::os("wait for events", error))?;
        }
        Ok(())
    }

    /// Says how it stands, once, at the start.
    pub fn announce(&self, plan: &Plan) {
        let bridge = self.bridge.as_ref().and_then(Bridge::xdp);
        let xdp = self.datapath.xdp().or(bridge).map_or("none", XdpGot::name);
        let xsk = self.datapath.xsk().map_or("none", XskMode::name);
        let nic = plan.outer().map_or("none", |nic| &nic.name);
        let mode = mode(plan);
        tracing::info!(nic, mode, xdp, xsk, workers = plan.workers, host_port = %plan.host_port, "gateway started");
    }

    fn wait(&mut self, events: &mut Events, timeout: Duration) -> Result<(), Error> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                Err(Error::os("wait for events", error))
            }
            _ => Ok(()),
        }
    }

    /// The admin's time to confirm begins.
    #[expect(clippy::disallowed_methods, reason = "a start may take seconds, where the NIC is set up anew")]
    pub fn begin_confirmation(&mut self) {
        self.confirmation.begin(Instant::now());
    }

    fn next_deadline(&self) -> Instant {
        let others = [self.role.poll_timeout(), self.confirmation.due(), self.guard_timeout()];
        others.into_iter().flatten().fold(self.next_chores, Instant::min)
    }

    fn handle_ready(&mut self, token: Token, now: Instant) {
        match token {
            token::NETLINK => self.handle_surroundings(now),
            token::SOURCES => self.handle_sources(now),
            token::SIGNALS => self.handle_signals(now),
            // Looked at in every turn.
            token::NOTICES | token::CAPTURES => {}
            token::BRIDGE => self.handle_bridge(now),
            tunnel if tunnel.0 < token::MANAGEMENT => self.handle_datagrams(tunnel, now),
            other => self.handle_management(other, now),
        }
    }

    fn handle_datagrams(&mut self, token: Token, now: Instant) {
        let mut buffer = [0; DATAGRAM];
        let Some(socket) = self.sockets.of(token) else { return };
        for _ in 0..BATCH {
            let (len, remote, local) = match socket.recv(&mut buffer) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // An error an earlier packet left on the socket: the next look goes on.
                    tracing::debug!(%error, "a control packet was not received");
                    continue;
                }
            };
            let datagram = buffer.get(..len).unwrap_or(&buffer);
            if let Err(error) =
                self.role.handle_datagram(now, Path::udp(remote, local), datagram, &self.sessions)
            {
                self.datapath.drops().count(reason(error));
            }
        }
        if let Err(error) = self.sockets.rearm(self.poll.registry(), token) {
            tracing::warn!(%error, "the tunnel's socket cannot be waited for");
        }
    }

    fn handle_notices(&mut self, now: Instant) {
        for _ in 0..BATCH * 16 {
            let Ok(notice) = self.notices.try_recv() else { return };
            match notice {
                Notice::Heard(key, port) => self.hear(key, port, now),
                Notice::Floated(peer_id, path) => self.role.handle_float(now, peer_id, path),
                Notice::Exit(peer_id) => self.role.handle_exit(now, peer_id),
                Notice::ProbeReturned(nonce, ingress) => self.handle_probe(nonce, ingress, now),
                Notice::RekeyDue(peer_id) => self.role.handle_rekey_request(now, peer_id),
            }
        }
        self.next_chores = now;
    }

    /// What came over TCP.
    fn handle_connections(&mut self, now: Instant) {
        for _ in 0..BATCH {
            let Some(arrived) = self.connections.as_mut().and_then(Connections::take) else { return };
            match arrived {
                Arrived::Packet(path, packet) => {
                    if let Err(error) = self.role.handle_datagram(now, path, &packet, &self.sessions) {
                        self.datapath.drops().count(reason(error));
                    }
                }
                Arrived::Closed(path) => self.role.handle_closed(now, path),
            }
        }
        // Nothing wakes us for what is left.
        self.next_chores = now;
    }

    /// Handshakes that have come further.
    fn handle_jobs(&mut self, now: Instant) {
        if !self.role.handle_jobs(now) {
            // Nothing wakes us for what is left.
            self.next_chores = now;
        }
    }

    fn handle_sources(&mut self, now: Instant) {
        for _ in 0..BATCH * 16 {
            let Some(key) = self.datapath.next_source() else { return };
            self.hear(key, Port::Wire(WireId::UPLINK), now);
        }
    }

    fn hear(&mut self, key: common::FdbKey, port: Port, now: Instant) {
        if let Port::Peer(peer_id) = port
            && (!self.sessions.peers.contains_key(&peer_id) || self.held(peer_id).is_some())
        {
            return self.stations.disown(&self.datapath.copies(), key);
        }
        let drops = self.datapath.drops();
        let mut copies = self.datapath.copies();
        self.stations.hear(&mut copies, &drops, key, port, now);
        self.handle_moves(now);
    }

    /// What the kernel's bridge tells of its ports and stations.
    fn handle_bridge(&mut self, now: Instant) {
        if let Some(bridge) = &mut self.bridge {
            bridge.handle_netlink(&mut self.datapath, &mut self.stations, now);
            let news = bridge.take_news();
            self.handle_moves(now);
            // At most times stations that are nobody's next hop.
            if news.ports || news.nailed || self.surroundings.has_next_hop_among(&news.macs) {
                self.find_paths(now);
            }
        }
    }

    fn handle_surroundings(&mut self, now: Instant) {
        if self.surroundings.handle_netlink() {
            self.apply_surroundings(now);
        }
    }

    /// Accelerates the bridge as it stands.
    pub fn begin_bridge(&mut self, now: Instant) {
        if let Some(bridge) = &mut self.bridge {
            bridge.begin(&mut self.datapath, &mut self.stations, now);
        }
        self.fix_stations(now);
    }

    /// What is around the gateway may have changed: who is protected, where tunnel packets are addressed to, how
    /// each peer is reached.
    pub fn apply_surroundings(&mut self, now: Instant) {
        self.role.handle_surroundings();
        self.datapath.set_listeners(self.surroundings.listeners());
        if let Some(mac) = self.surroundings.nic_mac() {
            self.datapath.set_nic_mac(mac);
        }
        self.find_paths(now);
    }

    /// How each peer is reached may have changed.
    fn find_paths(&mut self, now: Instant) {
        let peers: Vec<PeerId> = self.sessions.peers.keys().copied().collect();
        for peer_id in peers {
            self.find_path(peer_id);
        }
        self.fix_stations(now);
    }

    fn find_path(&mut self, peer_id: PeerId) {
        let Some(peer) = self.sessions.peers.get(&peer_id) else { return };
        let path = peer.path;
        // Asked for over TCP, too: the next hop is one of the protected.
        let (datapath, stations) = (&self.datapath, &self.stations);
        let packets = self.surroundings.outer(path, |hop| datapath.wire_towards(stations.stands(hop)));
        let outer = match &self.connections {
            Some(connections) if !path.is_udp() => connections.claim(path, peer_id),
            _ => packets,
        };
        self.sessions.set_outer(&self.datapath.posts, peer_id, outer);
    }

    /// To be called after paths were looked up: one that was asked for the first time has a next hop that nobody may
    /// imitate from now on.
    fn fix_stations(&mut self, now: Instant) {
        let mut fixed = self.surroundings.fixed_stations(|mac| self.stations.stands(mac));
        let own = self.bridge.iter().flat_map(Bridge::nailed);
        fixed.extend(own);
        fixed.sort_unstable_by_key(|(mac, _)| *mac);
        fixed.dedup_by_key(|(mac, _)| *mac);
        self.stations.fix(&mut self.datapath.copies(), &fixed, now);
    }

    /// Unless another peer is at the same address, as behind a translating router.
    fn forget_path(&mut self, path: Path) {
        let same =
            |other: &Path| other.remote.ip() == path.remote.ip() && other.local.ip() == path.local.ip();
        if !self.sessions.peers.values().any(|peer| same(&peer.path)) {
            self.surroundings.forget(path);
        }
    }

    fn handle_signals(&mut self, now: Instant) {
        while let Some(wish) = self.signals.next() {
            match wish {
                Wish::Stop => self.begin_stop(now),
                Wish::LogStatus => tracing::info!("{}", self.status_line()),
                Wish::Reload => {
                    if self.reread().is_none() {
                        tracing::warn!("there is no server's file to be read again: restart the gateway");
                    }
                }
            }
        }
    }

    fn status_line(&self) -> String {
        format!("{} peers, {} stations", self.sessions.peers.len(), self.stations.table().len())
    }

    fn begin_stop(&mut self, now: Instant) {
        if !self.stopping {
            self.stopping = true;
            tracing::info!(peers = self.sessions.peers.len(), "stopping");
            if let Some(peer_id) = self.role.exits_by_data() {
                self.sessions.say_exit(&self.datapath.posts, peer_id);
            }
            self.role.stop(now);
        }
    }

    fn handle_management(&mut self, token: Token, now: Instant) {
        for (client, asked) in self.management.handle_ready(token) {
            let request = match asked {
                Asked::Question(request) => request,
                Asked::Capture(ask) => {
                    self.begin_capture(client, &ask);
                    continue;
                }
                Asked::Guards(guards) => {
                    let answer = self.change_guards(guards, now);
                    self.management.reply(client, &answer);
                    continue;
                }
            };
            if request == Request::Reload
                && let Some(answer) = self.reread()
            {
                self.management.reply(client, &answer);
                continue;
            }
            let confirmed = (request == Request::Confirm).then(|| self.confirmation.confirm());
            let snapshot = Snapshot { confirmed, ..self.snapshot(now) };
            self.management.reply(client, &snapshot.answer(request));
        }
    }

    fn handle_time(&mut self, now: Instant) -> Result<(), Error> {
        self.role.handle_time(now, &self.sessions);
        self.handle_guard_time(now);
        if self.confirmation.is_over(now) {
            self.begin_stop(now);
        }
        if now >= self.next_chores {
            self.next_chores = now + CHORES;
            self.check_alive()?;
            self.chores(now);
        }
        Ok(())
    }

    /// A gateway that cannot carry frames any more ends, so that whoever watches it can start it anew.
    fn check_alive(&self) -> Result<(), Error> {
        if let Some(name) = [self.about.nic(), self.about.host_port()]
            .into_iter()
            .flatten()
            .find(|name| !self.surroundings.has_interface(name))
        {
            return Err(Error::InterfaceGone(name.to_owned()));
        }
        if !self.surroundings.has_nic() {
            return Err(Error::InterfaceGone(self.about.bridge().to_owned()));
        }
        let lost = self.datapath.has_lost_a_worker()
            || self.role.has_lost_a_thread()
            || self.connections.as_ref().is_some_and(Connections::has_ended);
        if lost { Err(Error::WorkerDied) } else { Ok(()) }
    }

    fn chores(&mut self, now: Instant) {
        self.datapath.beat();
        self.datapath.close_removed();
        // Sources that TC reported without waking us, as a ring buffer may.
        self.handle_sources(now);
        self.stations.age(&mut self.datapath.copies(), now);
        if self.surroundings.refresh(now) {
            self.apply_surroundings(now);
        }
        if let Some(bridge) = &mut self.bridge {
            bridge.chores(&mut self.datapath, &mut self.stations, now);
        }
        self.handle_bridge(now);
        self.write_status_file(now);
        self.role.keep_files(now);
    }

    /// Events before packets: a client may use a key as soon as it hears our answer.
    fn drain_role(&mut self, now: Instant) {
        self.role.give_jobs();
        let (mut paths_changed, mut closing) = (false, Vec::new());
        while let Some(event) = self.role.poll_event() {
            match self.sessions.handle(&self.datapath.posts, event, now) {
                Some(Consequence::FindPath(peer_id)) => {
                    self.stations.limit_peer(peer_id, self.sessions.mac_limit(peer_id));
                    self.find_path(peer_id);
                    self.guard_peer(peer_id, now);
                    paths_changed = true;
                }
                Some(Consequence::Moved(peer_id, former)) => {
                    self.forget_path(former);
                    self.find_path(peer_id);
                    paths_changed = true;
                }
                Some(Consequence::ForgetPeer(peer_id, path)) => {
                    self.unguard_peer(peer_id);
                    self.stations.forget_peer(&mut self.datapath.copies(), peer_id);
                    self.forget_path(path);
                }
                Some(Consequence::Close(path)) => closing.push(path),
                None => {}
            }
        }
        if paths_changed {
            self.fix_stations(now);
        }
        while let Some(transmit) = self.role.poll_transmit() {
            self.transmit(transmit);
        }
        if let Some(connections) = &mut self.connections {
            closing.into_iter().for_each(|path| connections.close(path));
        }
    }

    fn transmit(&self, transmit: Transmit) {
        let Transmit { path, payload } = transmit;
        if let Some(connections) = self.connections.as_ref().filter(|_| !path.is_udp()) {
            return connections.send(path, payload);
        }
        if let Err(error) = self.sockets.send(&payload, path) {
            // It is sent again if it is not acknowledged.
            tracing::debug!(%error, to = %path.remote, "a control packet was not sent");
            self.datapath.drops().count(Drop::SocketSendFailed);
        }
    }
}

fn mode(plan: &Plan) -> &'static str {
    match plan.segment.wires {
        Wires::Joined(_) => "joined",
        Wires::Uplink => "bridge",
        Wires::None => "underlay",
    }
}

fn reason(error: ControlError) -> Drop {
    match error {
        ControlError::Malformed => Drop::ControlMalformed,
        ControlError::UnknownPeer => Drop::ControlUnknownPeer,
        ControlError::OutOfSync => Drop::ControlOutOfSync,
        ControlError::Unauthentic => Drop::ControlUnauthentic,
        ControlError::Replayed => Drop::ControlReplayed,
        ControlError::RateLimited => Drop::ControlRateLimited,
        ControlError::Refused => Drop::ControlRefused,
    }
}

/// Has the loop woken when `fd` can be read.
pub(super) fn register(registry: &Registry, fd: i32, token: Token) -> std::io::Result<()> {
    registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
}
