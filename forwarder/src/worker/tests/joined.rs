//! Workers whose wires are ports of a kernel bridge.

use super::*;
use crate::{
    ports::nics::{NewNic, Nics},
    switch::{Joined, WireId, Wires},
};

type JoinedWorker = Worker<Nics, MemoryPort, MemoryPort>;

/// Several workers, and the bridge they are a port of.
struct Joint {
    workers: Vec<JoinedWorker>,
    posts: Vec<Post>,
    /// The bridge: the far end of worker 0's host port.
    bridge: MemoryPort,
    counters: Vec<Arc<WorkerCounters>>,
    notices: Receiver<Notice>,
    removed: Receiver<NewNic>,
    now: Instant,
    _poll: Poll,
}

const LAN: WireId = WireId::UPLINK;

fn other_wire() -> WireId {
    WireId::new(3).unwrap()
}

impl Joint {
    fn new(count: usize) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (sender, notices) = crossbeam::channel::bounded(64);
        let (remover, removed) = crossbeam::channel::unbounded();
        let (posts, mailboxes): (Vec<_>, Vec<_>) =
            (0..count).map(|_| Mailbox::new(sender.clone(), Arc::clone(&waker)).unwrap()).unzip();
        let bells: Vec<_> = mailboxes.iter().map(|mailbox| Arc::clone(mailbox.bell())).collect();
        let now = Instant::now();
        let counters: Vec<_> = (0..count).map(|_| Arc::new(WorkerCounters::default())).collect();
        let (host, bridge) = wire(256, &counters[0].drops);
        let mut host = Some(host);
        let workers = mailboxes.into_iter().zip(Handovers::between(&bells)).enumerate();
        let workers = workers.map(|(index, (mailbox, handovers))| {
            let counters = Arc::clone(&counters[index]);
            let drops = &counters.drops;
            let settings = Settings {
                index,
                segment: Segment { wires: Wires::Joined(Joined::default()), peer_to_peer: true },
                nic_mac: NIC,
                max_frame: 1518,
                report_interval: Duration::from_secs(30),
                guards: Guards::default(),
            };
            let ports = Ports {
                nic: Nics::new(remover.clone(), Arc::clone(drops)).unwrap(),
                tunnel: wire(8, drops).0,
                host: host.take(),
            };
            let frames = Frames::in_memory(FRAMES, CAPACITY);
            Worker::new(settings, ports, frames, mailbox, handovers, counters, Clock::new(now))
        });
        let workers = workers.collect();
        Self { workers, posts, bridge, counters, notices, removed, now, _poll: poll }
    }

    /// Gives `worker` a queue of the wire, opens the wire for peers everywhere, and returns the other end.
    fn open(&self, worker: usize, id: WireId) -> MemoryPort {
        let (near, far) = wire(256, &self.counters[worker].drops);
        self.posts[worker].send(Command::AddNic(NewNic { wire: id, port: Box::new(near) }));
        self.posts.iter().for_each(|post| post.send(Command::OpenWire(id, worker)));
        far
    }

    fn connect(&self, peer_id: u32) -> Client {
        let id = PeerId::new(peer_id).unwrap();
        let keys = |role| DataKeys::new(PROFILE, role, &[7; 256]);
        let path = path(id);
        let counters = Arc::new(PeerCounters::default());
        let channel = || DataChannel::new(id, PROFILE, CAPACITY);
        let new =
            NewPeer { peer_id: id, channel: channel(), path, counters: Arc::clone(&counters), mac_limit: 4 };
        let outer = Outer::by_nic(LAN, path.local, path.remote, NIC, ROUTER, 1500);
        for command in [
            Command::AddPeer(Box::new(new)),
            Command::InstallKey(id, KeyId::FIRST, Box::new(keys(Role::Server))),
            Command::SendWith(id, KeyId::FIRST),
            Command::SetOuter(id, path, Some(Box::new(outer))),
        ] {
            self.posts[id.index() % self.posts.len()].send(command);
        }
        let mut channel = channel();
        channel.install(KeyId::FIRST, keys(Role::Client));
        channel.send_with(KeyId::FIRST);
        Client { peer_id: id, channel, counters, mac: [2, 0, 0, 0, 1, id.value() as u8], path }
    }

    fn station(&self, mac: Mac, port: Place) {
        let station = Some(Station { port, fixed: false });
        let change = Change { key: FdbKey::new(0, mac), station };
        self.posts.iter().for_each(|post| post.send(Command::Station(change)));
    }

    fn turn(&mut self) {
        // Twice, so that what was handed over is done as well.
        for _ in 0..2 {
            self.workers.iter_mut().for_each(|worker| _ = worker.turn(self.now));
        }
    }

    fn drops(&self, reason: Drop) -> u64 {
        self.counters.iter().map(|counters| counters.drops.get(reason)).sum()
    }
}

#[test]
fn a_peers_frame_leaves_by_the_wire_its_destination_stands_on() {
    let mut joint = Joint::new(1);
    let (lan, other) = (joint.open(0, LAN), joint.open(0, other_wire()));
    let mut a = joint.connect(0);
    joint.station(ON_WIRE, Place::Wire(other_wire()));
    let sent = frame(ON_WIRE, a.mac, b"hello");
    assert!(lan.send(&a.seal(&sent)));
    joint.turn();
    assert_eq!((other.next(), lan.next(), joint.bridge.next()), (Some(sent), None, None));
}

#[test]
fn a_frame_from_any_wire_reaches_the_peer_and_its_source_is_not_learnt() {
    let mut joint = Joint::new(1);
    let (lan, other) = (joint.open(0, LAN), joint.open(0, other_wire()));
    let mut a = joint.connect(0);
    joint.station(a.mac, Place::Peer(a.peer_id));
    for port in [&lan, &other] {
        let sent = frame(a.mac, ON_WIRE, b"hello");
        assert!(port.send(&sent));
        joint.turn();
        let packet = lan.next().expect("peers are reached by the wire of their path");
        assert_eq!(a.open(&packet), Some(sent));
    }
    assert!(joint.notices.try_iter().all(|notice| !matches!(notice, Notice::Heard(..))));
    assert_eq!(joint.bridge.next(), None, "nothing of a wire goes back into the bridge");
}

#[test]
fn what_the_bridge_must_flood_or_learn_goes_by_it() {
    let mut joint = Joint::new(1);
    let lan = joint.open(0, LAN);
    let mut a = joint.connect(0);
    let shut = WireId::new(9).unwrap();
    joint.station(ON_WIRE, Place::Wire(shut));
    for destination in [ON_WIRE, NOBODY, BROADCAST] {
        let sent = frame(destination, a.mac, b"hello");
        assert!(lan.send(&a.seal(&sent)));
        joint.turn();
        assert_eq!((joint.bridge.next(), lan.next()), (Some(sent), None));
    }
}

#[test]
fn a_worker_without_a_queue_of_the_wire_has_another_send_by_it() {
    let mut joint = Joint::new(2);
    let lan = joint.open(0, LAN);
    let (mut a, mut b) = (joint.connect(0), joint.connect(1));
    joint.station(b.mac, Place::Peer(b.peer_id));
    joint.station(ON_WIRE, Place::Wire(LAN));
    let (to_peer, to_wire) = (frame(b.mac, a.mac, b"to a peer"), frame(ON_WIRE, b.mac, b"to the wire"));
    assert!(lan.send(&a.seal(&to_peer)) && lan.send(&b.seal(&to_wire)));
    joint.turn();
    joint.turn();
    let left: Vec<_> = std::iter::from_fn(|| lan.next()).collect();
    assert!(left.contains(&to_wire), "{left:?}");
    assert!(left.iter().any(|packet| b.open(packet) == Some(to_peer.clone())), "{left:?}");
    assert_eq!(joint.drops(Drop::WireGone), 0);
}

#[test]
fn a_wire_that_goes_takes_no_memory_along_and_its_frames_go_by_the_bridge() {
    let mut joint = Joint::new(1);
    let (lan, other) = (joint.open(0, LAN), joint.open(0, other_wire()));
    let mut a = joint.connect(0);
    joint.station(ON_WIRE, Place::Wire(other_wire()));
    for _ in 0..20 {
        assert!(other.send(&frame(a.mac, ON_WIRE, b"under way")));
    }
    joint.posts[0].send(Command::ShutWire(other_wire()));
    joint.posts[0].send(Command::RemoveNic(other_wire()));
    // The worker asserts after each turn that no frame is lost.
    joint.turn();
    assert_eq!(joint.removed.try_recv().map(|nic| nic.wire), Ok(other_wire()));
    let sent = frame(ON_WIRE, a.mac, b"hello");
    assert!(lan.send(&a.seal(&sent)));
    joint.turn();
    assert_eq!((joint.bridge.next(), other.next()), (Some(sent), None));
}

#[test]
fn what_was_decided_for_a_wire_that_has_gone_is_counted() {
    let mut joint = Joint::new(1);
    let lan = joint.open(0, LAN);
    let mut a = joint.connect(0);
    joint.station(ON_WIRE, Place::Wire(other_wire()));
    joint.posts[0].send(Command::OpenWire(other_wire(), 0));
    assert!(lan.send(&a.seal(&frame(ON_WIRE, a.mac, b"hello"))));
    joint.turn();
    assert_eq!(joint.drops(Drop::WireGone), 1);
}
