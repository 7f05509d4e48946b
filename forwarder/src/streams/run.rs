//! The streams' thread.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use crossbeam::channel::TrySendError;
use mio::{Events, Interest, Poll, Token, net::TcpListener, unix::SourceFd};
use openvpn::server::Path;

use super::{
    Counter, Order, Report, Settings, StreamId,
    connection::{Connection, Next},
    outbox::Kind,
};
use crate::{
    drops::Drop,
    worker::{Errand, Handovers},
};

/// The bell's; connections have their numbers, listeners those above.
const BELL: Token = Token(usize::MAX);
/// Listeners are few.
pub(super) const LISTENERS: usize = usize::MAX - 1024;

/// Sealed packets taken in a turn, so that they do not keep the others waiting.
const PACKETS: usize = 512;
/// How long a packet waits for room in a lane before the next look.
const SOON: Duration = Duration::from_millis(1);
/// How often connections are looked through for those whose time is over.
const SWEEP: Duration = Duration::from_millis(500);

/// All TCP connections, and the thread's ends of everything.
#[derive(Debug)]
pub struct Streams {
    pub(super) settings: Settings,
    pub(super) poll: Poll,
    pub(super) listeners: Vec<TcpListener>,
    counter: Counter,
    handovers: Handovers,
    pub(super) connections: BTreeMap<StreamId, Connection>,
    pub(super) next_id: u32,
    /// Connections that have something to read, in turn.
    ready: VecDeque<StreamId>,
    /// Connections that have something to write.
    dirty: Vec<StreamId>,
    /// Reports for which the control thread had no room.
    unreported: VecDeque<Report>,
    told: bool,
    /// A listener may have connections.
    pub(super) accepting: bool,
    /// The system had no more file descriptors.
    pub(super) accept_again: Option<Instant>,
    /// Lanes may have more sealed packets.
    more_sealed: bool,
    /// A packet found no room where it goes.
    stalled: bool,
    next_sweep: Instant,
    stopped: bool,
}

impl Streams {
    /// The thread to be, over listeners that are bound and do not block, and its end of the lanes.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn new(
        settings: Settings,
        mut listeners: Vec<TcpListener>,
        counter: Counter,
        handovers: Handovers,
        now: Instant,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&counter.bell.as_raw_fd()), BELL, Interest::READABLE)?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(LISTENERS + index), Interest::READABLE)?;
        }
        Ok(Self {
            settings,
            poll,
            listeners,
            counter,
            handovers,
            connections: BTreeMap::new(),
            next_id: 0,
            ready: VecDeque::new(),
            dirty: Vec::new(),
            unreported: VecDeque::new(),
            told: false,
            accepting: true,
            accept_again: None,
            more_sealed: false,
            stalled: false,
            next_sweep: now,
            stopped: false,
        })
    }

    /// Turns until told to stop.
    #[expect(clippy::disallowed_methods, reason = "the thread's clock is read here, once a turn")]
    pub fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.stopped {
            let timeout = self.timeout(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != io::ErrorKind::Interrupted
            {
                // The control thread finds out that this one has ended.
                tracing::error!(%error, "connections over TCP cannot be waited for");
                return;
            }
            self.turn(&events, Instant::now());
        }
    }

    /// Everything that can be done now.
    fn turn(&mut self, events: &Events, now: Instant) {
        events.iter().for_each(|event| self.note(event));
        self.accept(now);
        self.obey();
        self.take_sealed();
        self.read();
        self.write();
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.sweep(now);
        }
        self.report_left();
        self.handovers.wake_others();
        if std::mem::take(&mut self.told)
            && let Err(error) = self.counter.control.wake()
        {
            tracing::debug!(%error, "the control thread was not woken");
        }
    }

    fn timeout(&self, now: Instant) -> Duration {
        if self.more_sealed || self.accepting || !self.stalled && !self.ready.is_empty() {
            return Duration::ZERO;
        }
        if self.stalled || !self.unreported.is_empty() {
            return SOON;
        }
        // Nobody's time is over where there is nobody.
        let sweep = (!self.connections.is_empty()).then_some(self.next_sweep);
        let next = [sweep, self.accept_again].into_iter().flatten().min();
        next.map_or(Duration::MAX.min(Duration::from_secs(60)), |at| at.saturating_duration_since(now))
    }

    fn note(&mut self, event: &mio::event::Event) {
        match event.token() {
            BELL => _ = self.counter.bell.read(),
            Token(token) if token >= LISTENERS => self.accepting = true,
            Token(token) => {
                let Ok(id) = u32::try_from(token).map(StreamId) else { return };
                let Some(connection) = self.connections.get_mut(&id) else { return };
                connection.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                self.mark_ready(id);
                if event.is_writable() {
                    self.mark_dirty(id);
                }
            }
        }
    }

    pub(super) fn mark_ready(&mut self, id: StreamId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut connection.in_ready, true)
        {
            self.ready.push_back(id);
        }
    }

    fn mark_dirty(&mut self, id: StreamId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut connection.in_dirty, true)
        {
            self.dirty.push(id);
        }
    }
}

/// What the control thread hears.
impl Streams {
    /// Tells the control thread, in order.
    pub(super) fn report(&mut self, report: Report) {
        self.unreported.push_back(report);
        self.report_left();
    }

    fn report_left(&mut self) {
        while let Some(report) = self.unreported.pop_front() {
            match self.counter.reports.try_send(report) {
                Ok(()) => self.told = true,
                Err(TrySendError::Full(report)) => return self.unreported.push_front(report),
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// True if there was room.
    fn report_packet(&mut self, id: StreamId, path: Path, packet: Vec<u8>) -> bool {
        let room = self.unreported.is_empty() && !self.counter.reports.is_full();
        if room {
            self.report(Report::Packet(id, path, packet));
        }
        room
    }
}

/// What comes in.
impl Streams {
    /// Each connection that is ready once.
    fn read(&mut self) {
        self.stalled = false;
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { return };
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.in_ready = false;
                self.read_one(id);
            }
        }
    }

    fn read_one(&mut self, id: StreamId) {
        if !self.pass_on(id) {
            // What it holds already finds no room: nothing is read on top of it.
            self.stalled = true;
            return self.mark_ready(id);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.readable && connection.read().is_err() {
            return self.close(id, "it is broken");
        }
        if !self.pass_on(id) {
            self.stalled = true;
            return self.mark_ready(id);
        }
        match self.connections.get(&id) {
            Some(connection) if connection.ended => self.close(id, "its client closed it"),
            Some(connection) if connection.readable => self.mark_ready(id),
            _ => {}
        }
    }

    /// Passes on all whole packets; false when one finds no room.
    fn pass_on(&mut self, id: StreamId) -> bool {
        loop {
            let Some(connection) = self.connections.get(&id) else { return true };
            let passed = match connection.next() {
                Ok(Next::Nothing) => return true,
                Ok(Next::Control(packet)) => {
                    let (path, packet) = (connection.path, packet.to_vec());
                    self.report_packet(id, path, packet)
                }
                Ok(Next::Data(peer_id, packet)) => {
                    let owner = self.handovers.owner(peer_id);
                    self.handovers.push(owner, Errand::FromStream(peer_id), packet)
                }
                Ok(Next::Stray) => {
                    self.counter.drops.count(Drop::PeerUnknown);
                    true
                }
                Err(_) => {
                    self.counter.drops.count(Drop::TunnelMalformed);
                    self.close(id, "it does not speak OpenVPN");
                    return true;
                }
            };
            if !passed {
                return false;
            }
            self.connections.get_mut(&id).into_iter().for_each(Connection::consume);
        }
    }
}

/// What goes out.
impl Streams {
    fn obey(&mut self) {
        while let Ok(order) = self.counter.orders.try_recv() {
            match order {
                Order::Send(id, packet) => self.enqueue(id, Kind::Control, &packet),
                Order::Claim(id, peer_id) => {
                    let connection = self.connections.get_mut(&id);
                    connection.into_iter().for_each(|connection| connection.peer = Some(peer_id));
                }
                Order::Close(id) => {
                    self.write_one(id);
                    self.close(id, "its session is over");
                }
                Order::Stop => self.stopped = true,
            }
        }
    }

    fn take_sealed(&mut self) {
        self.more_sealed = true;
        for _ in 0..PACKETS {
            let mut taken = None;
            if !self.handovers.pop(|errand, bytes| taken = Some((errand, bytes.to_vec()))) {
                self.more_sealed = false;
                return;
            }
            // Workers hand over nothing else to this thread.
            if let Some((Errand::ToStream(id), packet)) = taken {
                self.enqueue(id, Kind::Data, &packet);
            }
        }
    }

    fn enqueue(&mut self, id: StreamId, kind: Kind, packet: &[u8]) {
        if self.connections.get(&id).is_some_and(|connection| connection.outbox.is_full(kind)) {
            self.write_one(id);
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return self.counter.drops.count(Drop::StreamGone);
        };
        if connection.outbox.push(kind, packet) {
            self.mark_dirty(id);
        } else {
            self.counter.drops.count(Drop::StreamQueueFull);
        }
    }

    fn write(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.in_dirty = false;
                self.write_one(id);
            }
        }
        self.dirty = dirty;
    }

    fn write_one(&mut self, id: StreamId) {
        let Some(Connection { outbox, stream, .. }) = self.connections.get_mut(&id) else { return };
        if outbox.flush(stream).is_err() {
            self.close(id, "it is broken");
        }
    }
}
