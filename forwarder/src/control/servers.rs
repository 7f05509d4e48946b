//! The OpenVPN servers of a segment, mostly one: what comes is given to the one it is for, what they want is taken from
//! all.
//!
//! ```text
//!   control packets ── by the listener they came to ──┐            ┌─ events
//!   workers' news ──── by the peer's number ──────────┼─ servers ──┼─ packets
//!   handshakes done ── by the server that asked ──────┘            └─ jobs, for one pool of threads
//! ```

use std::{sync::Arc, time::Instant};

use openvpn::{
    ids::PeerId,
    server::{ControlError, Event, Job, JobDone, Path, Server, Share, Transmit},
};

use super::{pool::Pool, pool_schedule::PoolSchedule, sessions::Sessions};
use crate::config::Listener;

/// Results taken in one go, so that none keeps the others waiting.
const BATCH: usize = 256;

/// A job and the server, by its place, that it is for.
pub(super) type Handshakes = Pool<(usize, Job), (usize, JobDone)>;

/// Does a job of one of the servers.
pub(super) fn run((server, job): (usize, Job)) -> (usize, JobDone) {
    (server, job.run())
}

/// One server.
pub(super) struct Listening {
    pub server: Server,
    /// Where its clients call.
    pub listeners: Vec<Listener>,
    /// Who had which address.
    pub pool_file: Option<PoolSchedule>,
}

/// All of a segment's, and the threads that do their handshakes.
pub(super) struct Servers {
    /// At least one; the server at `n` has the peer ids of share `n`.
    all: Vec<Listening>,
    pool: Handshakes,
}

impl Servers {
    pub fn new(mut all: Vec<Listening>, pool: Handshakes) -> Self {
        all.iter_mut().for_each(|one| one.server.offload_handshakes());
        Self { all, pool }
    }

    pub fn is_stopped(&self) -> bool {
        self.all.iter().all(|one| one.server.is_stopped())
    }

    pub fn has_lost_a_thread(&self) -> bool {
        self.pool.has_lost_a_thread()
    }

    /// The place of the server that is called at `path`.
    fn at(&self, path: &Path) -> Option<usize> {
        let takes = |listener: &Listener| listener.takes(path.transport, path.local);
        self.all.iter().position(|one| one.listeners.iter().any(takes))
    }

    fn place_of(&self, peer_id: PeerId) -> usize {
        Share::index_of(peer_id, self.all.len())
    }

    fn of(&mut self, peer_id: PeerId) -> Option<&mut Server> {
        let place = self.place_of(peer_id);
        self.all.get_mut(place).map(|one| &mut one.server)
    }
}

/// What comes in.
impl Servers {
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        sessions: &Sessions,
    ) -> Result<(), ControlError> {
        let place = self.at(&path);
        let one = place.and_then(|place| self.all.get_mut(place)).ok_or(ControlError::UnknownPeer)?;
        if let Some(peer_id) = one.server.peer_to_judge(&path, datagram) {
            sessions.report_one(&mut one.server, peer_id);
        }
        one.server.handle_datagram(now, path, datagram)
    }

    pub fn handle_closed(&mut self, now: Instant, path: Path) {
        let place = self.at(&path);
        if let Some(one) = place.and_then(|place| self.all.get_mut(place)) {
            one.server.handle_closed(now, path);
        }
    }

    /// A peer stays with the server it called: where another listens it would not be understood.
    pub fn handle_float(&mut self, now: Instant, peer_id: PeerId, path: Path) {
        if self.at(&path) == Some(self.place_of(peer_id))
            && let Some(server) = self.of(peer_id)
        {
            server.handle_float(now, peer_id, path);
        }
    }

    pub fn handle_exit(&mut self, now: Instant, peer_id: PeerId) {
        if let Some(server) = self.of(peer_id) {
            server.handle_exit(now, peer_id);
        }
    }

    pub fn handle_rekey_request(&mut self, now: Instant, peer_id: PeerId) {
        if let Some(server) = self.of(peer_id) {
            server.handle_rekey_request(now, peer_id);
        }
    }

    /// Takes what other threads have done; true when all is taken.
    pub fn handle_jobs(&mut self, now: Instant) -> bool {
        for _ in 0..BATCH {
            let Some((place, done)) = self.pool.take_done() else { return true };
            if let Some(one) = self.all.get_mut(place) {
                one.server.handle_job(now, done);
            }
        }
        false
    }

    pub fn handle_time(&mut self, now: Instant, sessions: &Sessions) {
        for Listening { server, .. } in &mut self.all {
            if server.poll_timeout().is_some_and(|(at, _)| at <= now) {
                sessions.report_activity(server, now);
                server.handle_timeout(now);
            }
        }
    }

    /// Certificates from now on, of each.
    pub fn set_tls(&mut self, tls: &[Arc<rustls::ServerConfig>]) {
        self.all.iter_mut().zip(tls).for_each(|(one, tls)| one.server.set_tls(tls));
    }

    pub fn keep_files(&mut self, now: Instant) {
        for Listening { server, pool_file, .. } in &mut self.all {
            pool_file.iter_mut().for_each(|file| file.keep(server, now));
        }
    }

    pub fn close_files(&mut self) {
        for Listening { server, pool_file, .. } in &mut self.all {
            pool_file.iter_mut().for_each(|file| file.write(server));
        }
    }

    pub fn stop(&mut self, now: Instant) {
        self.all.iter_mut().for_each(|one| one.server.stop(now));
    }
}

/// What goes out.
impl Servers {
    pub fn give_jobs(&mut self) {
        for (place, one) in self.all.iter_mut().enumerate() {
            while let Some(job) = one.server.poll_job() {
                self.pool.give((place, job));
            }
        }
    }

    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.all.iter_mut().find_map(|one| one.server.poll_event())
    }

    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.all.iter_mut().find_map(|one| one.server.poll_transmit())
    }

    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.all.iter().filter_map(|one| one.server.poll_timeout()).map(|(at, _)| at).min()
    }
}
