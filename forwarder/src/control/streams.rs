//! The control thread's end of the TCP connections: which connection stands for which path.

use std::{
    collections::{HashMap, VecDeque},
    net::TcpListener,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use mio::Waker;
use nix::sys::eventfd::EventFd;
use openvpn::{data::MAX_OVERHEAD, ids::PeerId, server::Path};

use super::{Error, gateway::DATAGRAM, plan::Plan};
use crate::{
    config::Server,
    drops::Drop,
    streams::{Counter, Desk, MAX_UNCLAIMED, Order, Report, Settings, StreamId, Streams},
    worker::{Handovers, Outer},
};

/// The TCP connections, and the thread that owns them.
#[derive(Debug)]
pub(super) struct Connections {
    desk: Desk,
    thread: Option<JoinHandle<()>>,
    /// Those by which a control packet came.
    by_path: HashMap<Path, StreamId>,
    /// Taken from the desk, and not yet by the loop.
    waiting: VecDeque<Arrived>,
}

/// What came over TCP.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// A control packet.
    Packet(Path, Vec<u8>),
    /// The end of a connection.
    Closed(Path),
}

/// What the thread needs, before it begins.
#[derive(Debug)]
pub(super) struct Prepared {
    listeners: Vec<TcpListener>,
    desk: Desk,
    counter: Counter,
}

impl Prepared {
    /// What workers wake the thread with.
    pub fn bell(&self) -> &Arc<EventFd> {
        self.counter.bell()
    }
}

/// Prepares for `listeners`; `None` where there are none. `control` is woken when something came.
pub(super) fn prepare(listeners: Vec<TcpListener>, control: &Arc<Waker>) -> Result<Option<Prepared>, Error> {
    if listeners.is_empty() {
        return Ok(None);
    }
    let ends = Desk::new(Arc::clone(control));
    let (desk, counter) = ends.map_err(|error| Error::os("wake its threads", error))?;
    Ok(Some(Prepared { listeners, desk, counter }))
}

impl Connections {
    /// Starts the thread over `prepared`, with its end of the lanes.
    pub fn start(
        prepared: Prepared,
        handovers: Handovers,
        plan: &Plan,
        server: &Server,
        now: Instant,
    ) -> Result<Self, Error> {
        let Prepared { listeners, desk, counter } = prepared;
        let settings = Settings {
            longest: DATAGRAM.max(plan.max_frame + MAX_OVERHEAD),
            queue_limit: server.tcp_queue_limit,
            hand_window: server.hand_window,
            unclaimed_limit: MAX_UNCLAIMED,
        };
        let listeners = listeners.into_iter().map(mio::net::TcpListener::from_std).collect();
        let streams = Streams::new(settings, listeners, counter, handovers, now)
            .map_err(|error| Error::os("wait for connections", error))?;
        let thread = thread::Builder::new().name("streams".into()).spawn(move || streams.run());
        let thread = thread.map_err(|error| Error::os("start a thread for connections", error))?;
        Ok(Self::new(desk, Some(thread)))
    }

    fn new(desk: Desk, thread: Option<JoinHandle<()>>) -> Self {
        Self { desk, thread, by_path: HashMap::new(), waiting: VecDeque::new() }
    }

    /// What came next.
    pub fn take(&mut self) -> Option<Arrived> {
        while self.waiting.is_empty() {
            let report = self.desk.take()?;
            self.translate(report);
        }
        self.waiting.pop_front()
    }

    fn translate(&mut self, report: Report) {
        match report {
            Report::Packet(stream, path, packet) => {
                // The client came back on the same port before the end of its former connection was noticed.
                if self.by_path.insert(path, stream).is_some_and(|former| former != stream) {
                    self.waiting.push_back(Arrived::Closed(path));
                }
                self.waiting.push_back(Arrived::Packet(path, packet));
            }
            Report::Closed(stream, path) => {
                if self.by_path.get(&path) == Some(&stream) {
                    self.by_path.remove(&path);
                    self.waiting.push_back(Arrived::Closed(path));
                }
            }
        }
    }

    /// Sends a control packet; one for a connection that is closed goes nowhere.
    pub fn send(&self, path: Path, packet: Vec<u8>) {
        if let Some(stream) = self.by_path.get(&path) {
            self.desk.send(Order::Send(*stream, packet));
        }
    }

    /// A peer is behind the connection at `path` from now on. How packets to it leave; `None` if the connection is closed.
    pub fn claim(&self, path: Path, peer_id: PeerId) -> Option<Outer> {
        let stream = *self.by_path.get(&path)?;
        self.desk.send(Order::Claim(stream, peer_id));
        Some(Outer::by_stream(stream))
    }

    /// Nobody is behind the connection at `path` any more.
    pub fn close(&mut self, path: Path) {
        if let Some(stream) = self.by_path.remove(&path) {
            self.desk.send(Order::Close(stream));
        }
    }

    /// The thread has ended although nobody told it to.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Packets lost for `reason`.
    pub fn lost(&self, reason: Drop) -> u64 {
        self.desk.drops().get(reason)
    }
}

/// Ends the thread, and with it the connections: their clients notice at once.
impl std::ops::Drop for Connections {
    fn drop(&mut self) {
        self.desk.send(Order::Stop);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the connections had panicked: please report the lines above");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        Path::tcp(([198, 51, 100, 11], port).into(), ([10, 10, 21, 5], 443).into())
    }

    fn connections() -> Connections {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        Connections::new(Desk::new(waker).unwrap().0, None)
    }

    fn translated(connections: &mut Connections, reports: impl IntoIterator<Item = Report>) -> Vec<Arrived> {
        reports.into_iter().for_each(|report| connections.translate(report));
        connections.waiting.drain(..).collect()
    }

    #[test]
    fn a_path_that_another_connection_takes_is_closed_before_and_once() {
        let (old, new) = (StreamId(1), StreamId(2));
        let mut connections = connections();
        let packet = |stream| Report::Packet(stream, path(9), vec![7]);
        let arrived = translated(
            &mut connections,
            [
                packet(old),
                packet(new),
                Report::Closed(old, path(9)),
                packet(new),
                Report::Closed(new, path(9)),
            ],
        );
        let packet = || Arrived::Packet(path(9), vec![7]);
        let closed = || Arrived::Closed(path(9));
        assert_eq!(arrived, [packet(), closed(), packet(), packet(), closed()]);
    }

    #[test]
    fn the_end_of_a_connection_that_said_nothing_or_was_given_up_is_no_news() {
        let mut connections = connections();
        assert_eq!(translated(&mut connections, [Report::Closed(StreamId(1), path(9))]), []);
        translated(&mut connections, [Report::Packet(StreamId(2), path(9), vec![7])]);
        let peer_id = PeerId::new(4).unwrap();
        assert_eq!(connections.claim(path(9), peer_id), Some(Outer::by_stream(StreamId(2))));
        connections.close(path(9));
        assert_eq!(connections.claim(path(9), peer_id), None);
        assert_eq!(translated(&mut connections, [Report::Closed(StreamId(2), path(9))]), []);
    }
}
