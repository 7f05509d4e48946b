//! The whole data path over plain memory: what goes in at one port comes out at the right others.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use common::{FdbKey, Mac};
use crossbeam::channel::Receiver;
use mio::{Poll, Token, Waker};
use nix::sys::eventfd::EventFd;
use openvpn::{
    data::{Cipher, DataChannel, DataKeys, Framing, MAX_OVERHEAD, Opened, Profile, Role},
    ids::{KeyId, PeerId},
    server::Path,
};

use super::*;
use crate::{
    drops::Drop,
    ports::memory::{MemoryPort, wire},
    switch::{Change, Port as Place, Station, WireId, Wires},
};

mod by_ipv6;
mod fragmented;
mod guarded;
mod joined;
mod sized;
mod streamed;
mod unnamed;

const NIC: Mac = [2, 0, 0, 0, 0, 5];
const ROUTER: Mac = [2, 0, 0, 0, 0, 1];
const ON_WIRE: Mac = [2, 0, 0, 0, 0, 0x20];
const NOBODY: Mac = [2, 0, 0, 0, 0, 0x99];
const BROADCAST: Mac = [0xff; 6];
const GATEWAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 10, 21, 5), 443);
const FRAMES: usize = 1024;
const CAPACITY: usize = 1792;
const PROFILE: Profile = Profile::new(Cipher::Aes256Gcm, Framing::V2);

type TestWorker = Worker<MemoryPort, MemoryPort, MemoryPort>;

/// One worker with the far ends of its ports.
struct Rig {
    worker: TestWorker,
    nic: MemoryPort,
    tunnel: MemoryPort,
    host: Option<MemoryPort>,
    post: Post,
    counters: Arc<WorkerCounters>,
}

/// Several workers that hand over to each other, and what they tell the control thread.
struct Gateway {
    rigs: Vec<Rig>,
    /// The streams' thread's end of the lanes.
    streams: Handovers,
    notices: Receiver<Notice>,
    now: Instant,
    _poll: Poll,
}

/// A client: the other end of a peer's data channel.
struct Client {
    peer_id: PeerId,
    channel: DataChannel,
    counters: Arc<PeerCounters>,
    mac: Mac,
    path: Path,
}

fn frame(destination: Mac, source: Mac, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &[0x88, 0xb5], payload].concat()
}

impl Gateway {
    fn new(workers: usize) -> Self {
        let segment = Segment { wires: Wires::Uplink, peer_to_peer: true };
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (sender, notices) = crossbeam::channel::bounded(64);
        let mailboxes: Vec<_> =
            (0..workers).map(|_| Mailbox::new(sender.clone(), Arc::clone(&waker)).unwrap()).collect();
        let bells: Vec<_> = mailboxes.iter().map(|(_, mailbox)| Arc::clone(mailbox.bell())).collect();
        let (handovers, streams) = Handovers::with_streams(&bells, &Arc::new(EventFd::new().unwrap()));
        let now = Instant::now();
        let rigs = mailboxes
            .into_iter()
            .zip(handovers)
            .enumerate()
            .map(|(index, ((post, mailbox), handovers))| {
                Rig::new(index, segment, post, mailbox, handovers, now)
            })
            .collect();
        Self { rigs, streams, notices, now, _poll: poll }
    }

    /// Connects a client whose packets leave by the NIC.
    fn connect(&mut self, peer_id: u32) -> Client {
        self.connect_with(PROFILE, peer_id)
    }

    fn connect_with(&mut self, profile: Profile, peer_id: u32) -> Client {
        self.connect_by(profile, peer_id, path(PeerId::new(peer_id).unwrap()))
    }

    fn connect_by(&mut self, profile: Profile, peer_id: u32, path: Path) -> Client {
        let peer_id = PeerId::new(peer_id).unwrap();
        let keys = |role| DataKeys::new(profile, role, &[7; 256]);
        let counters = Arc::new(PeerCounters::default());
        let new = NewPeer {
            peer_id,
            channel: DataChannel::new(peer_id, profile, CAPACITY),
            path,
            counters: Arc::clone(&counters),
            mac_limit: 4,
        };
        let outer = Outer::by_nic(WireId::UPLINK, path.local, path.remote, NIC, ROUTER, 1500);
        let owner = peer_id.index() % self.rigs.len();
        for command in [
            Command::AddPeer(Box::new(new)),
            Command::InstallKey(peer_id, KeyId::FIRST, Box::new(keys(Role::Server))),
            Command::SendWith(peer_id, KeyId::FIRST),
            Command::SetOuter(peer_id, path, Some(Box::new(outer))),
        ] {
            self.rigs[owner].post.send(command);
        }
        let mut channel = DataChannel::new(peer_id, profile, CAPACITY);
        channel.install(KeyId::FIRST, keys(Role::Client));
        channel.send_with(KeyId::FIRST);
        Client { peer_id, channel, counters, mac: [2, 0, 0, 0, 1, peer_id.value() as u8], path }
    }

    fn station(&self, mac: Mac, port: Place, fixed: bool) {
        let station = Some(Station { port, fixed });
        for rig in &self.rigs {
            rig.post.send(Command::Station(Change { key: FdbKey::new(0, mac), station }));
        }
    }

    fn turn(&mut self) {
        // Twice, so that what was handed over is done as well.
        for _ in 0..2 {
            for rig in &mut self.rigs {
                rig.worker.turn(self.now);
            }
        }
    }

    fn drops(&self, reason: Drop) -> u64 {
        self.rigs.iter().map(|rig| rig.counters.drops.get(reason)).sum()
    }

    fn all_drops(&self) -> u64 {
        Drop::ALL.iter().map(|reason| self.drops(*reason)).sum()
    }

    /// Everything that left for the client, opened.
    fn received_by(&self, client: &mut Client) -> Vec<Vec<u8>> {
        let owner = &self.rigs[client.peer_id.index() % self.rigs.len()];
        let packets = std::iter::from_fn(|| owner.nic.next().or_else(|| owner.tunnel.next()));
        fragments::tests::joined(packets).iter().filter_map(|packet| client.open(packet)).collect()
    }
}

impl Rig {
    fn new(
        index: usize,
        segment: Segment,
        post: Post,
        mailbox: Mailbox,
        handovers: Handovers,
        now: Instant,
    ) -> Self {
        let counters = Arc::new(WorkerCounters::default());
        let [(nic, far_nic), (tunnel, far_tunnel), (host, far_host)] =
            std::array::from_fn(|_| wire(256, &counters.drops));
        let owns_host = index == 0;
        let settings = Settings {
            index,
            segment,
            nic_mac: NIC,
            max_frame: 1518,
            report_interval: Duration::from_secs(30),
            guards: Guards::default(),
        };
        let ports = Ports { nic, tunnel, host: owns_host.then_some(host) };
        let frames = Frames::in_memory(FRAMES, CAPACITY);
        let worker =
            Worker::new(settings, ports, frames, mailbox, handovers, Arc::clone(&counters), Clock::new(now));
        Self { worker, nic: far_nic, tunnel: far_tunnel, host: owns_host.then_some(far_host), post, counters }
    }
}

impl Client {
    /// The tunnel packet with `frame` in it, as the NIC receives it.
    fn seal(&mut self, frame: &[u8]) -> Vec<u8> {
        let outer = Outer::by_nic(WireId::UPLINK, self.path.remote, self.path.local, ROUTER, NIC, 9000);
        let header = outer.header_len();
        let mut packet = vec![0; header + frame.len() + MAX_OVERHEAD];
        let sealed = self.channel.seal(frame, &mut packet[header..]).unwrap();
        packet.truncate(header + sealed);
        outer.write(&mut packet, 0);
        packet
    }

    /// The same, in as many packets as it takes.
    fn seal_all(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let mut packets = vec![self.seal(frame)];
        let outer = Outer::by_nic(WireId::UPLINK, self.path.remote, self.path.local, ROUTER, NIC, 9000);
        let mut rest = vec![0; CAPACITY];
        while let Some(sealed) = self.channel.seal_rest(&mut rest) {
            let mut packet = [&vec![0; outer.header_len()], &rest[..sealed.unwrap()]].concat();
            outer.write(&mut packet, 0);
            packets.push(packet);
        }
        packets
    }

    fn open(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let arrived = outer::parse(packet)?;
        (arrived.path.local == self.path.remote).then_some(())?;
        let mut plain = vec![0; CAPACITY];
        match self.channel.open(&packet[arrived.payload], &mut plain) {
            Ok(Opened::Frame { len }) => Some(plain[..len].to_vec()),
            _ => None,
        }
    }
}

fn path(peer_id: PeerId) -> Path {
    let host = u8::try_from(peer_id.value() + 1).unwrap();
    let remote = SocketAddr::from((Ipv4Addr::new(198, 51, 100, host), 40_000));
    Path::udp(remote, GATEWAY.into())
}

#[test]
fn a_frame_for_a_station_on_the_wire_leaves_by_the_nic_alone() {
    let mut gateway = Gateway::new(1);
    let (mut a, mut b) = (gateway.connect(0), gateway.connect(1));
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    let sent = frame(ON_WIRE, a.mac, b"hello");
    gateway.rigs[0].nic.send(&a.seal(&sent));
    gateway.turn();
    assert_eq!(gateway.rigs[0].nic.next(), Some(sent));
    assert_eq!(gateway.received_by(&mut b), Vec::<Vec<u8>>::new());
    assert_eq!(a.counters.rx_frames_xdp.load(Relaxed), 1);
    assert_eq!(gateway.all_drops(), 0);
}

#[test]
fn a_wire_frame_for_a_peer_is_sealed_for_it() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    gateway.station(a.mac, Place::Peer(a.peer_id), false);
    let sent = frame(a.mac, ON_WIRE, &[3; 1000]);
    gateway.rigs[0].nic.send(&sent);
    gateway.turn();
    assert_eq!(gateway.received_by(&mut a), [sent]);
    assert_eq!(
        gateway.notices.try_iter().collect::<Vec<_>>(),
        [Notice::Heard(FdbKey::new(0, ON_WIRE), Place::Wire(WireId::UPLINK))]
    );
}

#[test]
fn the_first_frames_answer_finds_its_way_without_the_control_thread() {
    let mut gateway = Gateway::new(1);
    let (mut a, mut b, mut c) = (gateway.connect(0), gateway.connect(1), gateway.connect(2));
    let question = frame(BROADCAST, a.mac, b"who?");
    gateway.rigs[0].nic.send(&a.seal(&question));
    gateway.turn();
    assert_eq!(gateway.rigs[0].host.as_ref().unwrap().next(), Some(question.clone()));
    // Both peers' packets and the wire's copy left by the same queue.
    let left: Vec<_> = std::iter::from_fn(|| gateway.rigs[0].nic.next()).collect();
    assert!(left.contains(&question));
    assert_eq!(
        left.iter().filter_map(|packet| b.open(packet)).collect::<Vec<_>>(),
        std::slice::from_ref(&question)
    );
    assert_eq!(left.iter().filter_map(|packet| c.open(packet)).collect::<Vec<_>>(), [question]);

    let answer = frame(a.mac, b.mac, b"me!");
    gateway.rigs[0].nic.send(&b.seal(&answer));
    gateway.turn();
    assert_eq!(gateway.received_by(&mut a), [answer]);
    assert_eq!(gateway.received_by(&mut c), Vec::<Vec<u8>>::new());
}

#[test]
fn a_full_size_frame_leaves_in_fragments_and_comes_by_the_socket() {
    let mut gateway = Gateway::new(1);
    let (mut a, mut b) = (gateway.connect(0), gateway.connect(1));
    gateway.station(b.mac, Place::Peer(b.peer_id), false);
    let sent = frame(b.mac, a.mac, &[5; 1500]);
    gateway.rigs[0].tunnel.send(&a.seal(&sent));
    gateway.turn();
    assert_eq!((gateway.rigs[0].nic.waiting(), gateway.rigs[0].tunnel.waiting()), (2, 0));
    assert_eq!(gateway.received_by(&mut b), [sent]);
    assert_eq!(a.counters.rx_frames_socket.load(Relaxed), 1);
}

#[test]
fn a_peer_with_the_routers_address_disturbs_nobody() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    gateway.station(ROUTER, Place::Wire(WireId::UPLINK), true);
    for tag in [&[][..], &[0x81, 0x00, 0x00, 0x07]] {
        let sent = [&BROADCAST[..], &ROUTER, tag, &[0x08, 0x06], &[0; 46]].concat();
        gateway.rigs[0].nic.send(&a.seal(&sent));
    }
    gateway.turn();
    assert_eq!(gateway.rigs[0].nic.next(), None);
    assert_eq!(gateway.drops(Drop::SourceIsGateway), 2);
    assert_eq!(gateway.notices.try_recv().ok(), None);
}

#[test]
fn stations_behind_a_peer_are_limited() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    for last in 0..6 {
        gateway.rigs[0].nic.send(&a.seal(&frame(NOBODY, [2, 0, 0, 0, 9, last], b"x")));
    }
    gateway.turn();
    assert_eq!(gateway.drops(Drop::MacLimit), 2);
    assert_eq!(std::iter::from_fn(|| gateway.rigs[0].nic.next()).count(), 4);
}

#[test]
fn replayed_forged_and_unknown_packets_are_counted_and_lost() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    let packet = a.seal(&frame(BROADCAST, a.mac, b"once"));
    let mut forged = packet.clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut of_nobody = packet.clone();
    of_nobody[outer::OUTER_HEADER + 3] = 77;
    for sent in [&forged, &packet, &packet, &of_nobody, &packet[..50].to_vec()] {
        gateway.rigs[0].nic.send(sent);
    }
    gateway.turn();
    assert_eq!(gateway.rigs[0].host.as_ref().unwrap().waiting(), 1);
    for reason in [Drop::AuthenticationFailed, Drop::Replayed, Drop::PeerUnknown, Drop::TunnelMalformed] {
        assert_eq!(gateway.drops(reason), 1, "{}", reason.name());
    }
}

#[test]
fn a_bpdu_of_a_peer_reaches_peers_and_never_the_wire_or_the_host() {
    let mut gateway = Gateway::new(1);
    let (mut a, mut b) = (gateway.connect(0), gateway.connect(1));
    let sent = frame([0x01, 0x80, 0xc2, 0, 0, 0], a.mac, b"bpdu");
    gateway.rigs[0].nic.send(&a.seal(&sent));
    gateway.turn();
    assert_eq!(gateway.received_by(&mut b), [sent]);
    assert_eq!(gateway.rigs[0].host.as_ref().unwrap().waiting(), 0);
    assert_eq!(gateway.drops(Drop::LinkLocalGroup), 1);
}

#[test]
fn two_workers_hand_over_what_is_the_others() {
    let mut gateway = Gateway::new(2);
    let (mut a, mut b) = (gateway.connect(0), gateway.connect(1));
    gateway.station(b.mac, Place::Peer(b.peer_id), false);
    // A's packet arrives at the queue of the worker that owns B.
    let sent = frame(b.mac, a.mac, b"across");
    gateway.rigs[1].nic.send(&a.seal(&sent));
    gateway.turn();
    assert_eq!(gateway.received_by(&mut b), [sent]);
}

#[test]
fn a_flood_crosses_workers_once() {
    let mut gateway = Gateway::new(2);
    let (mut a, mut b) = (gateway.connect(0), gateway.connect(1));
    let sent = frame(BROADCAST, b.mac, b"all");
    gateway.rigs[1].nic.send(&b.seal(&sent));
    for _ in 0..4 {
        gateway.turn();
    }
    assert_eq!(gateway.received_by(&mut a), std::slice::from_ref(&sent));
    assert_eq!(gateway.rigs[0].host.as_ref().unwrap().next(), Some(sent.clone()));
    assert_eq!(gateway.rigs[0].host.as_ref().unwrap().next(), None);
    assert_eq!(gateway.rigs[1].nic.next(), Some(sent));
    assert_eq!(gateway.rigs[1].nic.next(), None);
}

#[test]
fn a_removed_peer_gets_nothing_more() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    gateway.station(a.mac, Place::Peer(a.peer_id), false);
    gateway.turn();
    gateway.rigs[0].post.send(Command::RemovePeer(a.peer_id));
    gateway.rigs[0].nic.send(&frame(a.mac, ON_WIRE, b"late"));
    gateway.rigs[0].nic.send(&a.seal(&frame(ON_WIRE, a.mac, b"late")));
    gateway.turn();
    assert_eq!(gateway.rigs[0].nic.next(), None);
    assert_eq!(gateway.drops(Drop::PeerUnknown), 2);
}

#[test]
fn overload_loses_frames_by_name_and_never_memory() {
    let mut gateway = Gateway::new(1);
    let mut clients: Vec<_> = (0..200).map(|id| gateway.connect(id)).collect();
    for _ in 0..20 {
        let sent = frame(BROADCAST, clients[0].mac, &[1; 100]);
        gateway.rigs[0].nic.send(&clients[0].seal(&sent));
    }
    gateway.turn();
    let left = std::iter::from_fn(|| gateway.rigs[0].nic.next()).count() as u64;
    assert_eq!(left + gateway.all_drops(), 20 * 200);
    assert_eq!(gateway.rigs[0].worker.frames.free(), FRAMES);
}

#[test]
fn a_peer_that_speaks_from_elsewhere_is_reported_after_it_authenticated() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    let mut moved = a.seal(&frame(BROADCAST, a.mac, b"moved"));
    moved[29] = 200;
    let mut forged = moved.clone();
    *forged.last_mut().unwrap() ^= 1;
    gateway.rigs[0].nic.send(&forged);
    gateway.turn();
    assert_eq!(gateway.notices.try_recv().ok(), None);
    gateway.rigs[0].nic.send(&moved);
    gateway.turn();
    let notices: Vec<_> = gateway.notices.try_iter().collect();
    assert!(
        notices.iter().any(|notice| matches!(notice, Notice::Floated(peer_id, _) if *peer_id == a.peer_id))
    );
}

#[test]
fn a_peer_at_an_address_that_it_may_not_move_to_does_not_crowd_out_other_notices() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    gateway.station(a.mac, Place::Peer(a.peer_id), false);
    for _ in 0..50 {
        let mut moved = a.seal(&frame(ON_WIRE, a.mac, b"moved"));
        moved[29] = 200;
        gateway.rigs[0].nic.send(&moved);
    }
    gateway.turn();
    let floated = |gateway: &Gateway| gateway.notices.try_iter().filter(is_float).count();
    assert_eq!(floated(&gateway), 1);
    gateway.now += Duration::from_secs(1);
    let mut moved = a.seal(&frame(ON_WIRE, a.mac, b"still there"));
    moved[29] = 200;
    gateway.rigs[0].nic.send(&moved);
    gateway.turn();
    assert_eq!(floated(&gateway), 1, "it is said again, in case it was not heard");
}

fn is_float(notice: &Notice) -> bool {
    matches!(notice, Notice::Floated(..))
}

#[test]
fn that_a_rekey_is_due_is_told_when_there_is_room_again() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    gateway.turn();
    gateway.rigs[0].worker.peers.get_mut(a.peer_id).unwrap().rekey_due = true;
    while gateway.rigs[0].worker.mailbox.tell(Notice::Exit(PeerId::new(99).unwrap())) {}
    let mut speak = |gateway: &mut Gateway| {
        let packet = a.seal(&frame(BROADCAST, a.mac, b"x"));
        gateway.rigs[0].nic.send(&packet);
        gateway.turn();
        gateway.notices.try_iter().filter(|notice| matches!(notice, Notice::RekeyDue(_))).count()
    };
    assert_eq!(speak(&mut gateway), 0, "there is no room");
    assert_eq!(speak(&mut gateway), 1);
    assert_eq!(speak(&mut gateway), 0, "once is enough");
}

/// A port where commands of the control thread come while the worker looks for packets.
struct Late {
    port: MemoryPort,
    commands: Vec<Command>,
    post: Post,
    has_leftovers: bool,
}

impl Port for Late {
    fn receive(&mut self, frames: &mut Frames, received: &mut Vec<Frame>, limit: usize) {
        self.commands.drain(..).for_each(|command| self.post.send(command));
        self.port.receive(frames, received, limit);
    }

    fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        self.port.transmit(frames, queue);
    }

    fn wake(&mut self, frames: &mut Frames) {
        self.port.wake(frames);
    }

    fn readable(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }

    fn held(&self) -> usize {
        self.port.held()
    }

    fn has_leftovers(&self) -> bool {
        self.has_leftovers
    }
}

/// A worker whose NIC is `Late`, with the peer's own end of it.
fn late_worker(
    commands: Vec<Command>,
) -> (Worker<Late, MemoryPort, MemoryPort>, MemoryPort, Receiver<Notice>, Poll) {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let (sender, notices) = crossbeam::channel::bounded(64);
    let (post, mailbox) = Mailbox::new(sender, waker).unwrap();
    let counters = Arc::new(WorkerCounters::default());
    let [(nic, far), (tunnel, _)] = std::array::from_fn(|_| wire(256, &counters.drops));
    let settings = Settings {
        index: 0,
        segment: Segment { wires: Wires::Uplink, peer_to_peer: true },
        nic_mac: NIC,
        max_frame: 1518,
        report_interval: Duration::from_secs(30),
        guards: Guards::default(),
    };
    let handovers = Handovers::between(&[Arc::clone(mailbox.bell())]).remove(0);
    let ports = Ports { nic: Late { port: nic, commands, post, has_leftovers: false }, tunnel, host: None };
    let frames = Frames::in_memory(FRAMES, CAPACITY);
    let clock = Clock::new(Instant::now());
    (Worker::new(settings, ports, frames, mailbox, handovers, counters, clock), far, notices, poll)
}

#[test]
fn a_packet_under_a_key_that_came_during_the_turn_is_opened() {
    let peer_id = PeerId::new(0).unwrap();
    let keys = |role| DataKeys::new(PROFILE, role, &[7; 256]);
    let new = NewPeer {
        peer_id,
        channel: DataChannel::new(peer_id, PROFILE, CAPACITY),
        path: path(peer_id),
        counters: Arc::default(),
        mac_limit: 4,
    };
    let install = Command::InstallKey(peer_id, KeyId::FIRST, Box::new(keys(Role::Server)));
    let (mut worker, far, _notices, _poll) = late_worker(vec![Command::AddPeer(Box::new(new)), install]);
    let mut channel = DataChannel::new(peer_id, PROFILE, CAPACITY);
    channel.install(KeyId::FIRST, keys(Role::Client));
    channel.send_with(KeyId::FIRST);
    let mut client =
        Client { peer_id, channel, counters: Arc::default(), mac: [2, 0, 0, 0, 1, 0], path: path(peer_id) };
    let sent = frame(BROADCAST, client.mac, b"at once");
    far.send(&client.seal(&sent));
    worker.turn(Instant::now());
    assert_eq!(worker.counters.drops.get(Drop::PeerUnknown) + worker.counters.drops.get(Drop::KeyUnknown), 0);
    assert_eq!(far.next(), Some(sent));
}

#[test]
fn a_worker_that_hands_over_much_does_not_shut_out_another() {
    let bells: Vec<_> = (0..3).map(|_| Arc::new(EventFd::new().unwrap())).collect();
    let mut handovers = Handovers::between(&bells);
    for number in 0..100 {
        assert!(handovers[0].push(2, Errand::ToHost, &[0, number]));
    }
    assert!(handovers[1].push(2, Errand::ToHost, &[1, 0]));
    let mut arrived = Vec::new();
    while handovers[2].pop(|_, bytes| arrived.push((bytes[0], bytes[1]))) {}
    assert!(arrived[..2].contains(&(1, 0)), "{arrived:?}");
    arrived.retain(|&(from, _)| from == 0);
    assert!(arrived.is_sorted() && arrived.len() == 100, "a lane keeps its order");
}

#[test]
fn forged_packets_do_not_fill_the_lane_of_honest_ones() {
    let mut gateway = Gateway::new(2);
    let mut a = gateway.connect(0);
    gateway.turn();
    let honest = frame(BROADCAST, a.mac, b"honest");
    let honest_packet = a.seal(&honest);
    let mut forged = a.seal(&frame(BROADCAST, a.mac, b"forged"));
    // From another port, with another tag.
    forged[34] ^= 1;
    *forged.last_mut().unwrap() ^= 1;
    // The owner is put off its CPU meanwhile.
    for _ in 0..12 {
        (0..64).for_each(|_| _ = gateway.rigs[1].nic.send(&forged));
        gateway.rigs[1].worker.turn(gateway.now);
    }
    assert!(gateway.drops(Drop::HandoverFull) > 256);
    gateway.rigs[1].nic.send(&honest_packet);
    for _ in 0..20 {
        gateway.turn();
    }
    assert!(gateway.drops(Drop::AuthenticationFailed) > 0, "a few are looked at: a peer may have moved");
    assert_eq!(gateway.rigs[0].host.as_ref().unwrap().next(), Some(honest));
}
