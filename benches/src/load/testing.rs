//! A server for tests: the protocol's server role on a thread, with a hub that hands every frame to all others.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use openvpn::{
    data::{Cipher, DataChannel, MAX_OVERHEAD, Opened},
    ids::PeerId,
    server::{Compress, Config, Event, Path, Server},
    tls,
};
use trestle_tests::pki::{Identity, Keys, Pki, Purpose};

use super::Plan;

/// Longest frame.
const MAX_FRAME: usize = 1522;

/// A hub that ends when it is dropped.
pub(super) struct Hub {
    pub address: SocketAddrV4,
    pki: Pki,
    client: Identity,
    stop: Arc<AtomicBool>,
    peers: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    /// On the loopback; `change` changes its settings.
    pub fn start(change: impl FnOnce(&mut Config)) -> Self {
        let pki = Pki::new(Keys::Ecdsa).unwrap();
        let server = pki.issue("server", Purpose::Server).unwrap();
        let client = pki.issue("load", Purpose::Client).unwrap();
        let mut config = config(&pki, &server);
        change(&mut config);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else {
            unreachable!("it was bound to IPv4")
        };
        let stop = Arc::new(AtomicBool::new(false));
        let peers = Arc::new(AtomicUsize::new(0));
        let ends = (Arc::clone(&stop), Arc::clone(&peers));
        let thread = std::thread::spawn(move || Switch::new(socket, config).run(&ends.0, &ends.1));
        Self { address, pki, client, stop, peers, thread: Some(thread) }
    }

    /// A plan for `sessions` sessions with it.
    pub fn plan(&self, sessions: usize) -> Plan {
        let Identity { certificate, key } = &self.client;
        let ca = self.pki.ca().as_bytes();
        let tls = tls::client_config(ca, certificate.as_bytes(), key.as_bytes()).unwrap();
        Plan::new(self.address, tls, sessions)
    }

    /// Peers it has.
    pub fn peers(&self) -> usize {
        self.peers.load(Ordering::Relaxed)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn config(pki: &Pki, server: &Identity) -> Config {
    let tls = tls::server_config(pki.ca().as_bytes(), server.certificate.as_bytes(), server.key.as_bytes())
        .unwrap();
    Config {
        data_ciphers: vec![Cipher::Aes256Gcm],
        compress: Compress::Lz4V2,
        duplicate_cn: true,
        reneg: None,
        connect_freq_initial: (10_000, Duration::from_secs(1)),
        ..Config::new(tls)
    }
}

struct Switch {
    socket: UdpSocket,
    local: SocketAddr,
    server: Server,
    channels: BTreeMap<PeerId, (SocketAddr, DataChannel)>,
}

impl Switch {
    fn new(socket: UdpSocket, config: Config) -> Self {
        let local = socket.local_addr().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        Self {
            socket,
            local,
            server: Server::new(config, [7; 32], Instant::now()),
            channels: BTreeMap::new(),
        }
    }

    fn run(mut self, stop: &AtomicBool, peers: &AtomicUsize) {
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((len, remote)) = self.socket.recv_from(&mut buffer) {
                self.take(remote, &buffer[..len]);
            }
            self.server.handle_timeout(Instant::now());
            while let Some(event) = self.server.poll_event() {
                self.handle(event);
            }
            while let Some(transmit) = self.server.poll_transmit() {
                self.socket.send_to(&transmit.payload, transmit.path.remote).unwrap();
            }
            peers.store(self.channels.len(), Ordering::Relaxed);
        }
    }

    fn take(&mut self, remote: SocketAddr, packet: &[u8]) {
        if packet.first().is_some_and(|first| first >> 3 == 9) {
            return self.switch(packet);
        }
        let path = Path::udp(remote, self.local);
        let _ = self.server.handle_datagram(Instant::now(), path, packet);
    }

    fn switch(&mut self, packet: &[u8]) {
        let peer_id = PeerId::new(u32::from_be_bytes([0, packet[1], packet[2], packet[3]])).unwrap();
        let mut frame = [0; MAX_FRAME];
        let Some((_, channel)) = self.channels.get_mut(&peer_id) else { return };
        let now = Instant::now();
        match channel.open(packet, &mut frame) {
            Ok(Opened::Frame { len }) => self.flood(peer_id, &frame[..len]),
            Ok(Opened::Exit) => self.server.handle_exit(now, peer_id),
            Ok(_) => self.server.handle_activity(peer_id, now, now),
            Err(_) => {}
        }
    }

    fn flood(&mut self, from: PeerId, frame: &[u8]) {
        let mut packet = [0; MAX_FRAME + MAX_OVERHEAD];
        for (remote, channel) in self.channels.iter_mut().filter(|(id, _)| **id != from).map(|(_, to)| to) {
            let len = channel.seal(frame, &mut packet).unwrap();
            self.socket.send_to(&packet[..len], *remote).unwrap();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Connected(peer) => {
                let channel = DataChannel::new(peer.peer_id, peer.profile, MAX_FRAME);
                self.channels.insert(peer.peer_id, (peer.path.remote, channel));
            }
            Event::KeyInstalled { peer_id, key_id, keys } => {
                self.channels.entry(peer_id).and_modify(|(_, channel)| channel.install(key_id, *keys));
            }
            Event::SendWith { peer_id, key_id } => {
                self.channels.entry(peer_id).and_modify(|(_, channel)| channel.send_with(key_id));
            }
            Event::Gone { peer_id, .. } => drop(self.channels.remove(&peer_id)),
            _ => {}
        }
    }
}
