//! Workers whose ports are rings in memory.

use std::{
    io,
    net::SocketAddrV4,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{FdbKey, Mac};
use crossbeam::channel::Receiver;
use mio::{Poll, Token, Waker};
use openvpn::{
    data::{DataChannel, Role},
    ids::{KeyId, PeerId},
};
use trestle::{
    drops::Drop,
    ports::{
        BATCH, Frame, Frames, Port,
        memory::{MemoryPort, wire},
    },
    switch::{Change, Port as Place, Segment, Station, WireId, Wires},
    worker::{
        Clock, Command, Guards, Handovers, Mailbox, NewPeer, Notice, Outer, PeerCounters, Ports, Post,
        Settings, Worker, WorkerCounters,
    },
};

use super::client::{Client, PROFILE, keys};

/// The NIC's address.
pub const NIC: Mac = [2, 0, 0, 0, 0, 5];
/// The next hop's address.
pub const ROUTER: Mac = [2, 0, 0, 0, 0, 1];
/// Where clients send to.
pub const GATEWAY: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(10, 10, 21, 5), 443);
/// MTU of the route to every client, in bytes.
pub const MTU: u16 = 1500;
/// Longest frame of the segment, in bytes.
const MAX_FRAME: usize = 1518;
/// As many chunks as a worker has over AF_XDP, and as large.
const FRAMES: usize = 6144;
/// See [`FRAMES`].
const CAPACITY: usize = 1792;
/// Frames a wire holds: more than any turn sends.
const DEPTH: usize = 8192;
/// Notices nobody has read yet; more are said again.
const NOTICES: usize = 4096;

/// Stations behind a peer, at most, where that is not what is measured.
const MAC_LIMIT: usize = 4;

/// Several workers that hand over to each other.
#[derive(Debug)]
pub struct Gateway {
    stands: Vec<Stand>,
    notices: Receiver<Notice>,
    _poll: Poll,
}

/// One worker and the far ends of its ports. It can work on a thread of its own beside the others'.
#[derive(Debug)]
pub struct Stand {
    now: Instant,
    sink: Sink,
    worker: Worker<MemoryPort, MemoryPort, MemoryPort>,
    nic: MemoryPort,
    tunnel: MemoryPort,
    host: MemoryPort,
    post: Post,
    counters: Arc<WorkerCounters>,
}

/// Takes frames off far ends without keeping their buffers: those go back on the wire.
#[derive(Debug)]
struct Sink {
    frames: Frames,
    received: Vec<Frame>,
}

impl Gateway {
    /// A bridge gateway without peers.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn new(workers: usize) -> io::Result<Self> {
        Self::joining(Wires::Uplink, workers)
    }

    /// A gateway without peers whose segment has those wires.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn joining(wires: Wires, workers: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Token(0))?);
        let (sender, notices) = crossbeam::channel::bounded(NOTICES);
        let mailboxes = (0..workers)
            .map(|_| Mailbox::new(sender.clone(), Arc::clone(&waker)).map_err(io::Error::from))
            .collect::<io::Result<Vec<_>>>()?;
        let bells: Vec<_> = mailboxes.iter().map(|(_, mailbox)| Arc::clone(mailbox.bell())).collect();
        let now = Instant::now();
        let parts = mailboxes.into_iter().zip(Handovers::between(&bells)).enumerate();
        let stands = parts
            .map(|(index, ((post, mailbox), handovers))| {
                Stand::new(index, wires, post, mailbox, handovers, now)
            })
            .collect();
        Ok(Self { stands, notices, _poll: poll })
    }

    /// Connects a client whose packets leave by the NIC, and lets the gateway know the station behind it.
    ///
    /// # Errors
    /// `number` is no peer id.
    pub fn connect(&mut self, number: u32) -> io::Result<Client> {
        self.connect_with(number, MAC_LIMIT)
    }

    /// The same, with at most `mac_limit` stations behind it.
    ///
    /// # Errors
    /// `number` is no peer id.
    pub fn connect_with(&mut self, number: u32, mac_limit: usize) -> io::Result<Client> {
        let client = Client::new(number)?;
        let peer_id = client.peer_id();
        let new = NewPeer {
            peer_id,
            channel: DataChannel::new(peer_id, PROFILE, MAX_FRAME),
            path: client.path(),
            counters: Arc::new(PeerCounters::default()),
            mac_limit,
        };
        let outer = Outer::by_nic(WireId::UPLINK, GATEWAY, client.remote(), NIC, ROUTER, MTU);
        let commands = [
            Command::AddPeer(Box::new(new)),
            Command::InstallKey(peer_id, KeyId::FIRST, Box::new(keys(Role::Server))),
            Command::SendWith(peer_id, KeyId::FIRST),
            Command::SetOuter(peer_id, client.path(), Some(Box::new(outer))),
        ];
        let owner = self.owner(peer_id);
        commands.into_iter().for_each(|command| self.stands[owner].post.send(command));
        self.station(client.mac(), Place::Peer(peer_id));
        Ok(client)
    }

    /// Enters a station into every worker's copy of the MAC table.
    pub fn station(&self, mac: Mac, port: Place) {
        let station = Some(Station { port, fixed: false });
        self.tell(Change { key: FdbKey::new(0, mac), station });
    }

    /// The control thread's word on a station, to every worker.
    pub fn tell(&self, change: Change) {
        self.stands.iter().for_each(|stand| stand.post.send(Command::Station(change)));
    }

    /// What the workers have to say to the control thread.
    pub fn notices(&self) -> impl Iterator<Item = Notice> {
        self.notices.try_iter()
    }

    /// The worker that owns a peer.
    pub fn owner(&self, peer_id: PeerId) -> usize {
        peer_id.index() % self.stands.len()
    }

    /// Puts a frame on the wire to that worker's NIC; false when the wire is full.
    #[must_use]
    pub fn arrive(&self, worker: usize, frame: &[u8]) -> bool {
        self.stands[worker].nic.send(frame)
    }

    /// Puts a frame on the wire to the host port; false when the wire is full.
    #[must_use]
    pub fn arrive_from_host(&self, frame: &[u8]) -> bool {
        self.stands.first().is_some_and(|stand| stand.host.send(frame))
    }

    /// Frames lost so far for that reason.
    pub fn lost_by(&self, reason: Drop) -> u64 {
        self.stands.iter().map(|stand| stand.counters.drops.get(reason)).sum()
    }

    /// One turn of each worker, in order.
    pub fn turn(&mut self) {
        self.stands.iter_mut().for_each(Stand::turn);
    }

    /// The workers one by one.
    pub fn stands(&mut self) -> &mut [Stand] {
        &mut self.stands
    }

    /// Takes everything that left by any port. Returns how many frames that were.
    pub fn collect(&mut self) -> usize {
        self.stands.iter_mut().map(Stand::collect).sum()
    }

    /// Frames lost so far, for whatever reason.
    pub fn lost(&self) -> u64 {
        Drop::ALL.iter().map(|reason| self.lost_by(*reason)).sum()
    }
}

impl Stand {
    fn new(
        index: usize,
        wires: Wires,
        post: Post,
        mailbox: Mailbox,
        handovers: Handovers,
        now: Instant,
    ) -> Self {
        let counters = Arc::new(WorkerCounters::default());
        let [(nic, far_nic), (tunnel, far_tunnel), (host, far_host)] =
            std::array::from_fn(|_| wire(DEPTH, &counters.drops));
        let settings = Settings {
            index,
            segment: Segment { wires, peer_to_peer: true },
            nic_mac: NIC,
            max_frame: MAX_FRAME,
            report_interval: Duration::from_secs(30),
            guards: Guards::default(),
        };
        let ports = Ports { nic, tunnel, host: (index == 0).then_some(host) };
        let frames = Frames::in_memory(FRAMES, CAPACITY);
        let clock = Clock::new(now);
        let worker = Worker::new(settings, ports, frames, mailbox, handovers, Arc::clone(&counters), clock);
        let (nic, tunnel, host) = (far_nic, far_tunnel, far_host);
        Self { now, sink: Sink::default(), worker, nic, tunnel, host, post, counters }
    }

    /// Puts a frame on the wire to the NIC; false when the wire is full.
    #[must_use]
    pub fn arrive(&self, frame: &[u8]) -> bool {
        self.nic.send(frame)
    }

    /// One turn of the worker.
    pub fn turn(&mut self) {
        self.worker.turn(self.now);
    }

    /// Takes everything that left by any port. Returns how many frames that were.
    pub fn collect(&mut self) -> usize {
        let Self { sink, nic, tunnel, host, .. } = self;
        [nic, tunnel, host].into_iter().map(|wire| sink.empty(wire)).sum()
    }
}

impl Default for Sink {
    fn default() -> Self {
        Self { frames: Frames::in_memory(BATCH, CAPACITY), received: Vec::with_capacity(BATCH) }
    }
}

impl Sink {
    fn empty(&mut self, wire: &mut MemoryPort) -> usize {
        let mut taken = 0;
        loop {
            wire.receive(&mut self.frames, &mut self.received, BATCH);
            if self.received.is_empty() {
                return taken;
            }
            taken += self.received.len();
            self.received.drain(..).for_each(|frame| self.frames.put(frame));
        }
    }
}
