//! Connections come and go.

use std::{
    io,
    time::{Duration, Instant},
};

use mio::{Interest, Token, net::TcpStream};
use nix::errno::Errno;

use super::{Report, StreamId, Streams, connection::Connection, run::LISTENERS};

/// Connections accepted in a turn, so that those that are there are not kept waiting.
const ACCEPTS: usize = 32;
/// How long to wait for a free file descriptor before the next look.
const LATER: Duration = Duration::from_millis(100);

impl Streams {
    pub(super) fn accept(&mut self, now: Instant) {
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

    fn admit(&mut self, stream: TcpStream, now: Instant) -> io::Result<()> {
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
        if unclaimed().count() < self.settings.unclaimed_limit {
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

    pub(super) fn close(&mut self, id: StreamId, why: &str) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        tracing::debug!(remote = %connection.path.remote, stream = id.0, why, "connection over TCP closed");
        // Closing the descriptor is what counts; it takes the registration with it.
        let _ = self.poll.registry().deregister(&mut connection.stream);
        self.report(Report::Closed(id, connection.path));
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        let late = |connection: &Connection| {
            connection.deadline(&self.settings).is_some_and(|deadline| deadline <= now)
        };
        let late: Vec<StreamId> =
            self.connections.iter().filter(|(_, connection)| late(connection)).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.close(id, "it did not log in"));
    }
}

/// Errors that concern the one connection that was to be accepted. Source: accept(2), "Error handling".
fn is_of_the_connection(error: &io::Error) -> bool {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    !matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINVAL)
}
