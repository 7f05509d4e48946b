//! A server and its clients in virtual time, over a network that delays, loses, repeats and reorders; all of it from
//! one seed, so a failure repeats.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use trestle_openvpn::{
    client::{self, Client},
    data::{DataChannel, Layout, OpenError, Opened},
    ids::PeerId,
    server::{
        AllowCompression, Compress, Config, Event, ExitNotify, GoneReason, Job, Path, Pool, Server, Transport,
    },
    tls,
    wire::{ControlPacket, Opcode},
};

pub const MAX_FRAME: usize = 1518;
pub const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443);

/// How the network behaves. Rates are in parts per hundred.
#[derive(Clone, Copy)]
pub struct Weather {
    pub latency: Duration,
    /// Added to the latency at random: more than the distance between packets reorders them.
    pub jitter: Duration,
    pub loss: u64,
    pub duplication: u64,
}

pub const FINE: Weather =
    Weather { latency: Duration::from_millis(20), jitter: Duration::ZERO, loss: 0, duplication: 0 };
pub const STORM: Weather = Weather {
    latency: Duration::from_millis(20),
    jitter: Duration::from_millis(80),
    loss: 20,
    duplication: 10,
};

/// A seeded generator (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, below: u64) -> u64 {
        self.roll() % below
    }

    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed.chunks_mut(8).for_each(|part| part.copy_from_slice(&self.roll().to_be_bytes()));
        seed
    }
}

/// Certificates of one small world.
pub struct Pki {
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

pub static PKI: LazyLock<Pki> = LazyLock::new(Pki::new);

impl Pki {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test ca");
        let ca = params.self_signed(&key).unwrap().pem();
        Self { ca, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![purpose];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub fn server(&self) -> Arc<rustls::ServerConfig> {
        let (certificate, key) = self.issue("server", ExtendedKeyUsagePurpose::ServerAuth);
        tls::server_config(self.ca.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    pub fn client(&self, name: &str) -> Arc<rustls::ClientConfig> {
        let (certificate, key) = self.issue(name, ExtendedKeyUsagePurpose::ClientAuth);
        tls::client_config(self.ca.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    /// A client that speaks these versions of TLS alone.
    pub fn client_speaking(&self, versions: tls::Versions, name: &str) -> Arc<rustls::ClientConfig> {
        let (certificate, key) = self.issue(name, ExtendedKeyUsagePurpose::ClientAuth);
        let (ca, certificate, key) = (self.ca.as_bytes(), certificate.as_bytes(), key.as_bytes());
        tls::client_config_with(versions, ca, certificate, key).unwrap()
    }

    /// A client that trusts `other`'s servers but shows a certificate of ours.
    pub fn client_of(&self, other: &Self, name: &str) -> Arc<rustls::ClientConfig> {
        let (certificate, key) = self.issue(name, ExtendedKeyUsagePurpose::ClientAuth);
        tls::client_config(other.ca.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }
}

pub fn server_config() -> Config {
    Config {
        ping: Some(Duration::from_secs(10)),
        ping_restart: Some(Duration::from_secs(240)),
        push: vec!["route-gateway 10.10.21.5".into(), "ping 10".into(), "ping-restart 120".into()],
        compress: Compress::Lz4V2,
        allow_compression: AllowCompression::Asym,
        pool: Some(Pool {
            gateway: Ipv4Addr::new(10, 10, 21, 5),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            first: Ipv4Addr::new(10, 10, 21, 100),
            last: Ipv4Addr::new(10, 10, 21, 255),
        }),
        max_clients: 8,
        exit_notify: Some(ExitNotify::Restart),
        ..Config::new(PKI.server())
    }
}

/// A data channel, and what has come out of it.
pub struct Tunnel {
    pub channel: DataChannel,
    pub sent: u64,
    pub opened: u64,
    pub replayed: u64,
    /// Frames that the network delivered and nobody could open.
    pub lost: Vec<OpenError>,
}

impl Tunnel {
    fn new(channel: DataChannel) -> Self {
        Self { channel, sent: 0, opened: 0, replayed: 0, lost: Vec::new() }
    }

    fn seal(&mut self) -> Option<Vec<u8>> {
        let mut packet = [0; 256];
        let len = self.channel.seal(&[0x42; 60], &mut packet).ok()?;
        self.sent += 1;
        Some(packet[..len].to_vec())
    }

    fn ping(&mut self) -> Option<Vec<u8>> {
        let mut packet = [0; 256];
        let len = self.channel.seal_ping(&mut packet).ok()?;
        Some(packet[..len].to_vec())
    }

    /// True if the packet was authentic.
    fn open(&mut self, packet: &[u8]) -> bool {
        match self.channel.open(packet, &mut [0; MAX_FRAME]) {
            Ok(Opened::Frame { .. }) => self.opened += 1,
            Ok(_) => {}
            Err(OpenError::Replayed) => self.replayed += 1,
            Err(error) => self.lost.push(error),
        }
        self.lost.is_empty()
    }
}

/// A client and its side of the tunnel.
pub struct Agent {
    pub client: Client,
    pub address: SocketAddr,
    pub tunnel: Option<Tunnel>,
    /// All but `KeyInstalled`, which are counted.
    pub events: Vec<client::Event>,
    pub keys_installed: usize,
    /// False: it has crashed, or its network is down.
    pub alive: bool,
}

impl Agent {
    pub fn connected(&self) -> Option<&client::Connected> {
        self.events.iter().find_map(|event| match event {
            client::Event::Connected(connected) => Some(connected),
            _ => None,
        })
    }

    pub fn terms(&self) -> &client::Connected {
        self.connected().unwrap()
    }

    pub fn closed(&self) -> Option<&client::CloseReason> {
        self.events.iter().find_map(|event| match event {
            client::Event::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    pub fn tunnel(&self) -> &Tunnel {
        self.tunnel.as_ref().unwrap()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Server,
    Agent(usize),
}

struct Flying {
    to: To,
    address: SocketAddr,
    payload: Vec<u8>,
}

pub struct Pair {
    pub start: Instant,
    pub now: Instant,
    pub server: Server,
    /// Control packets cannot be read on their way.
    wrapped: bool,
    pub agents: Vec<Agent>,
    pub weather: Weather,
    /// What the server is told carries packets; the weather does not ask.
    pub transport: Transport,
    pub dice: Dice,
    /// Between two frames of each agent to the server and of the server to each peer; `None`: no data.
    pub traffic: Option<Duration>,
    next_traffic: Instant,
    /// The packet, counted from the beginning, that is lost whatever the weather.
    pub lose: Option<u64>,
    flying: BTreeMap<(Instant, u64), Flying>,
    flown: u64,
    /// Jobs of the server with the time they are done.
    in_pool: BTreeMap<(Instant, u64), Job>,
    /// Chooses those times; a die of its own, so that a seed's weather is the same with a pool.
    pool: Dice,
    /// Jobs are kept here instead.
    pub held: Option<Vec<Job>>,
    pub peers: HashMap<PeerId, (Path, Tunnel)>,
    /// Tunnels of peers that are gone.
    pub gone: Vec<(PeerId, GoneReason, Tunnel)>,
    /// All but `KeyInstalled`, which are counted.
    pub events: Vec<Event>,
    pub keys_installed: usize,
    /// Control packets that came to the server, if they are wanted.
    pub record: Option<Vec<Vec<u8>>>,
}

/// Longest time a job takes.
const JOB: Duration = Duration::from_millis(30);

impl Pair {
    /// With an odd seed handshakes are done by a pool, which ends jobs in any order.
    pub fn new(config: Config, weather: Weather, seed: u64) -> Self {
        let mut pair = Self::inline(config, weather, seed);
        if seed % 2 == 1 {
            pair.server.offload_handshakes();
        }
        pair
    }

    fn inline(config: Config, weather: Weather, seed: u64) -> Self {
        let mut dice = Dice(seed);
        #[expect(clippy::disallowed_methods, reason = "the simulation begins at some moment")]
        let start = Instant::now();
        Self {
            start,
            now: start,
            wrapped: config.wrappings.are_wanted(),
            server: Server::new(config, dice.seed(), start),
            agents: Vec::new(),
            weather,
            transport: Transport::Udp,
            dice,
            traffic: None,
            next_traffic: start,
            lose: None,
            flying: BTreeMap::new(),
            flown: 0,
            in_pool: BTreeMap::new(),
            pool: Dice(seed),
            held: None,
            peers: HashMap::new(),
            gone: Vec::new(),
            events: Vec::new(),
            keys_installed: 0,
            record: None,
        }
    }

    /// A client begins to connect from a port of its own.
    pub fn connect(&mut self, config: client::Config) -> usize {
        let port = 40_000 + u16::try_from(self.agents.len()).unwrap();
        self.connect_from(config, SocketAddr::from(([198, 51, 100, 7], port)))
    }

    pub fn connect_from(&mut self, config: client::Config, address: SocketAddr) -> usize {
        self.wrapped |= !config.wrapping.is_none();
        let client = Client::new(config, self.dice.seed(), self.now).unwrap();
        self.agents.push(Agent {
            client,
            address,
            tunnel: None,
            events: Vec::new(),
            keys_installed: 0,
            alive: true,
        });
        self.drain_agent(self.agents.len() - 1);
        self.agents.len() - 1
    }

    /// A client as OpenVPN 2.6 begins to connect.
    pub fn named(&mut self, name: &str) -> usize {
        self.connect(client::Config { layout: Layout::V2, ..client::Config::new(PKI.client(name)) })
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next_time().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn next_time(&self) -> Option<Instant> {
        let agents = self.agents.iter().filter(|agent| agent.alive);
        let clients = agents.filter_map(|agent| agent.client.poll_timeout()).map(|(at, _)| at);
        let server = self.server.poll_timeout().map(|(at, _)| at);
        let flying = self.flying.first_key_value().map(|((at, _), _)| *at);
        let traffic = self.traffic.map(|_| self.next_traffic);
        let jobs = self.in_pool.first_key_value().map(|((at, _), _)| *at);
        clients.chain(server).chain(flying).chain(jobs).chain(traffic).min()
    }

    fn step(&mut self) {
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let packet = entry.remove();
            self.deliver(&packet);
        }
        while let Some(entry) = self.in_pool.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let done = entry.remove().run();
            self.server.handle_job(self.now, done);
            self.drain_server();
        }
        self.server.handle_timeout(self.now);
        self.drain_server();
        for at in 0..self.agents.len() {
            if self.agents[at].alive {
                self.agents[at].client.handle_timeout(self.now);
                self.drain_agent(at);
            }
        }
        if let Some(pause) = self.traffic.filter(|_| self.next_traffic <= self.now) {
            self.next_traffic = self.now + pause;
            self.send_frames();
        }
    }

    fn deliver(&mut self, packet: &Flying) {
        match packet.to {
            To::Server => self.deliver_to_server(packet.address, &packet.payload),
            To::Agent(at) => self.deliver_to_agent(at, &packet.payload),
        }
    }

    pub fn deliver_to_server(&mut self, remote: SocketAddr, payload: &[u8]) {
        let path = Path { transport: self.transport, remote, local: GATEWAY };
        if is_data(payload) {
            let peer = self.peers.iter_mut().find(|(_, (there, _))| *there == path);
            if let Some((peer_id, (_, tunnel))) = peer
                && tunnel.open(payload)
            {
                self.server.handle_activity(*peer_id, self.now, self.start);
            }
        } else {
            if let Some(record) = &mut self.record {
                record.push(payload.to_vec());
            }
            let _ = self.server.handle_datagram(self.now, path, payload);
            self.drain_server();
        }
    }

    fn deliver_to_agent(&mut self, at: usize, payload: &[u8]) {
        let agent = &mut self.agents[at];
        if !agent.alive {
            return;
        }
        if is_data(payload) {
            if let Some(tunnel) = &mut agent.tunnel
                && tunnel.open(payload)
            {
                agent.client.handle_activity(self.now, self.start);
            }
        } else {
            let _ = agent.client.handle_datagram(self.now, payload);
            self.drain_agent(at);
        }
    }

    /// Events before packets: whoever hears our answer may use the key at once.
    pub fn drain_server(&mut self) {
        while let Some(job) = self.server.poll_job() {
            match &mut self.held {
                Some(held) => held.push(job),
                None => self.begin_job(job),
            }
        }
        while let Some(event) = self.server.poll_event() {
            self.handle_event(event);
        }
        while let Some(transmit) = self.server.poll_transmit() {
            self.fly_to(transmit.path.remote, transmit.payload);
        }
    }

    fn begin_job(&mut self, job: Job) {
        let micros = u64::try_from(JOB.as_micros()).unwrap();
        let at = self.now + Duration::from_micros(self.pool.below(micros));
        self.in_pool.insert((at, self.pool.roll()), job);
    }

    fn handle_event(&mut self, event: Event) {
        match &event {
            Event::Connected(peer) => {
                let channel = DataChannel::new(peer.peer_id, peer.profile, MAX_FRAME);
                self.peers.insert(peer.peer_id, (peer.path, Tunnel::new(channel)));
            }
            Event::SendWith { peer_id, key_id } => {
                self.peers.get_mut(peer_id).unwrap().1.channel.send_with(*key_id);
            }
            Event::KeyRetired { peer_id, key_id } => {
                self.peers.get_mut(peer_id).unwrap().1.channel.retire(*key_id);
            }
            Event::PingDue { peer_id } => {
                let (path, tunnel) = self.peers.get_mut(peer_id).unwrap();
                let (path, ping) = (*path, tunnel.ping());
                ping.into_iter().for_each(|ping| self.fly_to(path.remote, ping));
            }
            Event::PathChanged { peer_id, path } => self.peers.get_mut(peer_id).unwrap().0 = *path,
            Event::Gone { peer_id, reason } => {
                let (_, tunnel) = self.peers.remove(peer_id).unwrap();
                self.gone.push((*peer_id, *reason, tunnel));
            }
            Event::KeyInstalled { .. } | Event::Refused { .. } | Event::PathUnused { .. } => {}
        }
        match event {
            Event::KeyInstalled { peer_id, key_id, keys } => {
                self.keys_installed += 1;
                self.peers.get_mut(&peer_id).unwrap().1.channel.install(key_id, *keys);
            }
            other => self.events.push(other),
        }
    }

    pub fn drain_agent(&mut self, at: usize) {
        while let Some(event) = self.agents[at].client.poll_event() {
            self.handle_agent_event(at, event);
        }
        while let Some(payload) = self.agents[at].client.poll_transmit() {
            self.fly(To::Server, self.agents[at].address, payload);
        }
    }

    fn handle_agent_event(&mut self, at: usize, event: client::Event) {
        let agent = &mut self.agents[at];
        let mut ping = None;
        match &event {
            client::Event::Connected(terms) => {
                let channel = DataChannel::new(terms.peer_id, terms.profile, MAX_FRAME);
                agent.tunnel = Some(Tunnel::new(channel));
            }
            client::Event::SendWith { key_id } => agent.tunnel.as_mut().unwrap().channel.send_with(*key_id),
            client::Event::KeyRetired { key_id } => agent.tunnel.as_mut().unwrap().channel.retire(*key_id),
            client::Event::PingDue => ping = agent.tunnel.as_mut().and_then(Tunnel::ping),
            client::Event::KeyInstalled { .. } | client::Event::Closed(_) => {}
        }
        let address = agent.address;
        if let client::Event::KeyInstalled { key_id, keys } = event {
            agent.tunnel.as_mut().unwrap().channel.install(key_id, *keys);
            agent.keys_installed += 1;
        } else {
            agent.events.push(event);
        }
        ping.into_iter().for_each(|ping| self.fly(To::Server, address, ping));
    }

    fn send_frames(&mut self) {
        for at in 0..self.agents.len() {
            let agent = &mut self.agents[at];
            let address = agent.address;
            let up = agent.alive && agent.closed().is_none();
            let packet = agent.tunnel.as_mut().filter(|_| up).and_then(Tunnel::seal);
            packet.into_iter().for_each(|packet| self.fly(To::Server, address, packet));
        }
        let mut packets: Vec<_> = self
            .peers
            .values_mut()
            .filter_map(|(path, tunnel)| Some((path.remote, tunnel.seal()?)))
            .collect();
        // The order of a map would make a run unrepeatable.
        packets.sort_by_key(|(remote, _)| *remote);
        packets.into_iter().for_each(|(remote, packet)| self.fly_to(remote, packet));
    }

    /// To the last agent at that address.
    fn fly_to(&mut self, remote: SocketAddr, payload: Vec<u8>) {
        if let Some(at) = self.agents.iter().rposition(|agent| agent.address == remote) {
            self.fly(To::Agent(at), remote, payload);
        }
    }

    fn fly(&mut self, to: To, address: SocketAddr, payload: Vec<u8>) {
        assert_sendable(&payload, self.wrapped);
        if self.dice.below(100) < self.weather.loss || self.lose == Some(self.flown) {
            self.flown += 1;
            return;
        }
        let copies = if self.dice.below(100) < self.weather.duplication { 2 } else { 1 };
        for _ in 0..copies {
            let jitter = self.weather.jitter.as_micros() as u64;
            let jitter = Duration::from_micros(if jitter == 0 { 0 } else { self.dice.below(jitter) });
            self.flown += 1;
            let at = self.now + self.weather.latency + jitter;
            self.flying.insert((at, self.flown), Flying { to, address, payload: payload.clone() });
        }
    }

    pub fn gone_reasons(&self) -> Vec<GoneReason> {
        self.gone.iter().map(|(_, reason, _)| *reason).collect()
    }
}

/// By its opcode, with a peer id or without.
fn is_data(payload: &[u8]) -> bool {
    payload.first().is_some_and(|first| matches!(first >> 3, 6 | 9))
}

/// What every control packet we send keeps to, whatever happens (brief A.3).
fn assert_sendable(payload: &[u8], wrapped: bool) {
    let opcode = Opcode::from_first_byte(payload[0]).expect("a kind of packet that exists");
    if opcode.is_data() {
        return;
    }
    assert!(payload.len() + 48 <= 1250, "{} bytes", payload.len());
    // Later negotiations are wrapped everywhere.
    if wrapped || payload[0] & 7 != 0 {
        return;
    }
    let packet = ControlPacket::parse(payload).expect("a control packet");
    let acks = packet.body.acks.as_slice().len();
    assert!(packet.head.opcode == Opcode::Ack || acks <= 4, "{acks} acknowledgements");
}
