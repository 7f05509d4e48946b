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
    Counter, MAX_UNCLAIMED, Order, Report, Settings, StreamId,
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
const LISTENERS: usize = usize::MAX - 1024;

/// Connections accepted in a turn, and sealed packets taken: so that neither keeps the others waiting.
const ACCEPTS: usize = 32;
const PACKETS: usize = 512;
/// How long a packet waits for room in a lane, or a connection for a file descriptor, before the next look.
const SOON: Duration = Duration::from_millis(1);
const LATER: Duration = Duration::from_millis(100);
/// How often connections are looked through for those whose time is over.
const SWEEP: Duration = Duration::from_millis(500);

/// All TCP connections, and the thread's ends of everything.
#[derive(Debug)]
pub struct Streams {
    settings: Settings,
    poll: Poll,
    listeners: Vec<TcpListener>,
    counter: Counter,
    handovers: Handovers,
    connections: BTreeMap<StreamId, Connection>,
    next_id: u32,
    /// Connections that have something to read, in turn.
    ready: VecDeque<StreamId>,
    /// Connections that have something to write.
    dirty: Vec<StreamId>,
    /// Reports for which the control thread had no room.
    unreported: VecDeque<Report>,
    told: bool,
    /// A listener may have connections.
    accepting: bool,
    /// The system had no more file descriptors.
    accept_again: Option<Instant>,
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

    fn mark_ready(&mut self, id: StreamId) {
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

/// Coming and going.
impl Streams {
    fn accept(&mut self, now: Instant) {
        if self.accept_again.is_some_and(|at| now >= at) {
            (self.accept_again, self.accepting) = (None, true);
        }
        if !std::mem::take(&mut self.accepting) {
            return;
        }
        for index in 0..self.listeners.len() {
            self.accept_from(index, now);
        }
    }

    fn accept_from(&mut self, index: usize, now: Instant) {
        for _ in 0..ACCEPTS {
            match self.listeners[index].accept() {
                // Whoever is gone already needs no answer.
                Ok((stream, _)) => _ = self.admit(stream, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection over TCP was not accepted: raise the limit of open files");
                    self.accept_again = Some(now + LATER);
                    return;
                }
            }
        }
        self.accepting = true;
    }

    fn admit(&mut self, stream: mio::net::TcpStream, now: Instant) -> io::Result<()> {
        let mut connection = Connection::new(stream, &self.settings, now)?;
        self.make_room();
        let id = self.free_id();
        let token = Token(usize::try_from(id.0).unwrap_or(LISTENERS - 1));
        self.poll.registry().register(
            &mut connection.stream,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        tracing::debug!(remote = %connection.path.remote, stream = id.0, "connection over TCP");
        self.connections.insert(id, connection);
        self.mark_ready(id);
        Ok(())
    }

    /// A full house gives up one that has said nothing, or else the oldest.
    fn make_room(&mut self) {
        let unclaimed = || self.connections.iter().filter(|(_, connection)| connection.peer.is_none());
        if unclaimed().count() < MAX_UNCLAIMED {
            return;
        }
        let silent = unclaimed().find(|(_, connection)| !connection.greeted);
        let chosen = silent.or_else(|| unclaimed().next()).map(|(id, _)| *id);
        chosen.into_iter().for_each(|id| self.close(id, "too many others begin"));
    }

    fn free_id(&mut self) -> StreamId {
        loop {
            let id = StreamId(self.next_id);
            self.next_id = self.next_id.wrapping_add(1);
            if !self.connections.contains_key(&id) {
                return id;
            }
        }
    }

    fn close(&mut self, id: StreamId, why: &str) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        tracing::debug!(remote = %connection.path.remote, stream = id.0, why, "connection over TCP closed");
        // Closing the descriptor is what counts; it takes the registration with it.
        let _ = self.poll.registry().deregister(&mut connection.stream);
        self.report(Report::Closed(id, connection.path));
    }

    fn sweep(&mut self, now: Instant) {
        let late = |connection: &Connection| {
            connection.deadline(&self.settings).is_some_and(|deadline| deadline <= now)
        };
        let late: Vec<StreamId> =
            self.connections.iter().filter(|(_, connection)| late(connection)).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.close(id, "it did not log in"));
    }

    /// Tells the control thread, in order.
    fn report(&mut self, report: Report) {
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

/// Errors that concern the one connection that was to be accepted. Source: accept(2), "Error handling".
fn is_of_the_connection(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    !matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINVAL)
}
