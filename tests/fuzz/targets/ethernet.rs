//! Arbitrary frames against everything that looks into one: at every port of a worker, and from a peer that holds the
//! key. That no frame's memory is lost, the worker asserts itself.
#![no_main]

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use crossbeam::channel;
use libfuzzer_sys::fuzz_target;
use mio::{Poll, Token, Waker};
use openvpn::{
    data::{Cipher, DataChannel, DataKeys, Framing, MAX_OVERHEAD, Profile, Role},
    ids::{KeyId, PeerId},
    server::Path,
};
use trestle::{
    ports::{
        Frames, checksum,
        layers::{self, Version},
        memory::{MemoryPort, wire},
        segment::Cut,
        tunnel::headers,
    },
    switch::{Segment, WireId, Wires},
    worker::{
        Clock, Command, Guards, Handovers, Mailbox, NewPeer, Outer, PeerCounters, Ports, Post, Settings,
        Worker, WorkerCounters,
        outer::{self, OUTER_HEADER},
    },
};

const NIC: [u8; 6] = [2, 0, 0, 0, 0, 5];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 10, 21, 5), 443);
const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 40_000);
const MAX_FRAME: usize = 1518;
/// Room for one chunk's frame: the longest with its headers.
const CAPACITY: usize = 1792;

fuzz_target!(|input: &[u8]| {
    let mut gateway = Gateway::new();
    for (kind, frame) in trestle_fuzz::records(input) {
        look_into(kind, frame);
        gateway.receive(kind, frame);
    }
});

/// The parsers by themselves, with numbers that a hostile vnet header could give them.
fn look_into(kind: u8, frame: &[u8]) {
    if let Some(layers) = layers::layers(frame) {
        assert!(layers.network < layers.transport);
        assert!(layers.transport <= layers.end && layers.end <= frame.len());
    }
    outer::parse(frame).inspect(|arrived| assert!(arrived.payload.end <= frame.len()));
    headers::read(frame).inspect(|(datagram, payload)| assert_eq!(datagram.len, payload.len()));
    let mut finished = frame.to_vec();
    if checksum::finish(&mut finished) {
        assert!(!checksum::finish(&mut finished), "a finished checksum is not finished again");
    }
    let (start, offset) = (usize::from(kind), frame.len() % 40);
    assert_eq!(checksum::complete(&mut finished, start, offset).is_ok(), start + offset + 2 <= frame.len());
    cut(frame, usize::from(kind) % 128, frame.len() % 97);
}

fn cut(packet: &[u8], transport: usize, size: usize) {
    for version in [Version::V4, Version::V6] {
        let Ok(cut) = Cut::new(packet, version, transport, size) else { continue };
        let mut out = vec![0; cut.frame_len()];
        for number in 0..cut.count() {
            let len = cut.write(packet, number, &mut out).expect("there is room for the longest");
            assert!(len <= cut.frame_len());
        }
        assert_eq!(cut.write(packet, cut.count(), &mut out), None);
    }
}

/// A worker with one peer, and the far ends of its ports.
struct Gateway {
    worker: Worker<MemoryPort, MemoryPort, MemoryPort>,
    nic: MemoryPort,
    tunnel: MemoryPort,
    host: MemoryPort,
    client: DataChannel,
    now: Instant,
    _post: Post,
}

impl Gateway {
    fn new() -> Self {
        let now = Instant::now();
        let counters = Arc::new(WorkerCounters::default());
        let wire = || wire(8, &Arc::new(trestle::drops::DropCounters::default()));
        let ((nic, far_nic), (tunnel, far_tunnel), (host, far_host)) = (wire(), wire(), wire());
        let (notices, _) = channel::bounded(8);
        let (post, mailbox) = Mailbox::new(notices, Arc::clone(&WAKER.1)).expect("eventfd");
        let handovers = Handovers::between(&[Arc::clone(mailbox.bell())]).remove(0);
        let settings = Settings {
            index: 0,
            segment: Segment { wires: Wires::Uplink, peer_to_peer: true },
            nic_mac: NIC,
            max_frame: MAX_FRAME,
            report_interval: Duration::from_secs(30),
            // Probes are looked for in whatever comes.
            guards: Guards { probe_source: Some([2, 0, 0, 0, 0, 0x77]), ..Guards::default() },
        };
        let ports = Ports { nic, tunnel, host: Some(host) };
        let frames = Frames::in_memory(32, CAPACITY);
        let worker = Worker::new(settings, ports, frames, mailbox, handovers, counters, Clock::new(now));
        let client = connect(&post);
        Self { worker, nic: far_nic, tunnel: far_tunnel, host: far_host, client, now, _post: post }
    }

    /// `frame` comes in where `kind` says. What goes out must be whole.
    fn receive(&mut self, kind: u8, frame: &[u8]) {
        match kind % 5 {
            0 => self.nic.send(frame),
            1 => self.tunnel.send(frame),
            2 => self.host.send(frame),
            3 => {
                let packet = self.seal(frame);
                self.nic.send(&packet)
            }
            _ => self.nic.send(&[&NIC, &frame[..]].concat()),
        };
        self.worker.turn(self.now);
        for port in [&self.nic, &self.tunnel, &self.host] {
            while let Some(out) = port.next() {
                assert!((14..=CAPACITY).contains(&out.len()));
            }
        }
    }

    /// The tunnel packet in which the client sends `frame`.
    fn seal(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; OUTER_HEADER + frame.len() + MAX_OVERHEAD];
        let len = self.client.seal(frame, &mut packet[OUTER_HEADER..]).expect("the key is fresh");
        packet.truncate(OUTER_HEADER + len);
        Outer::by_nic(WireId::UPLINK, CLIENT, GATEWAY, ROUTER, NIC, 9000).write(&mut packet, 0);
        packet
    }
}

/// The control thread's bell, which nobody hears.
static WAKER: LazyLock<(Poll, Arc<Waker>)> = LazyLock::new(|| {
    let poll = Poll::new().expect("epoll");
    let waker = Waker::new(poll.registry(), Token(0)).expect("eventfd");
    (poll, Arc::new(waker))
});

/// Connects a client and returns its end of the data channel.
fn connect(post: &Post) -> DataChannel {
    let peer_id = PeerId::new(0).expect("it fits 24 bits");
    let profile = Profile::new(Cipher::Aes256Gcm, Framing::V2);
    let keys = |role| DataKeys::new(profile, role, &[7; 256]);
    let channel = || DataChannel::new(peer_id, profile, MAX_FRAME);
    let path = Path::udp(CLIENT.into(), GATEWAY.into());
    let counters = Arc::new(PeerCounters::default());
    let peer = NewPeer { peer_id, channel: channel(), path, counters, mac_limit: 4 };
    let outer = Outer::by_nic(WireId::UPLINK, GATEWAY, CLIENT, NIC, ROUTER, 1500);
    for command in [
        Command::AddPeer(Box::new(peer)),
        Command::InstallKey(peer_id, KeyId::FIRST, Box::new(keys(Role::Server))),
        Command::SendWith(peer_id, KeyId::FIRST),
        Command::SetOuter(peer_id, path, Some(Box::new(outer))),
    ] {
        post.send(command);
    }
    let mut client = channel();
    client.install(KeyId::FIRST, keys(Role::Client));
    client.send_with(KeyId::FIRST);
    client
}
