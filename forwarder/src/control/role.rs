//! What this gateway is to the other end of its tunnels. The loop does not care: both roles take the same input and say
//! what they want in the same words.

use std::{sync::Arc, time::Instant};

use openvpn::{
    ids::PeerId,
    server::{ControlError, Event, Path, Transmit},
};

use super::{Error, dialler::Dialler, servers::Servers, sessions::Sessions};

/// Who we are.
pub(super) enum Role {
    /// The servers that many clients call.
    Server(Box<Servers>),
    /// The client that calls one server.
    Client(Box<Dialler>),
    /// Nobody: the gateway has no tunnels.
    Accelerator {
        /// It was told to.
        stopped: bool,
    },
}

impl Role {
    /// Everyone has been told that we stop.
    pub fn is_stopped(&self) -> bool {
        match self {
            Self::Server(servers) => servers.is_stopped(),
            Self::Client(dialler) => dialler.is_stopped(),
            Self::Accelerator { stopped } => *stopped,
        }
    }

    /// A thread has ended, which none does by itself.
    pub fn has_lost_a_thread(&self) -> bool {
        match self {
            Self::Server(servers) => servers.has_lost_a_thread(),
            Self::Client(_) | Self::Accelerator { .. } => false,
        }
    }

    /// Why it stopped, unless it was told to.
    pub fn take_failure(&mut self) -> Option<Error> {
        match self {
            Self::Server(_) => None,
            Self::Client(dialler) => dialler.take_failure(),
            Self::Accelerator { .. } => None,
        }
    }

    /// What is wrong with it, for the operator.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Server(_) => None,
            Self::Client(dialler) => dialler.trouble(),
            Self::Accelerator { .. } => None,
        }
    }

    /// The peer that must be told on the data channel that we leave.
    pub fn exits_by_data(&self) -> Option<PeerId> {
        match self {
            Self::Server(_) => None,
            Self::Client(dialler) => dialler.exits_by_data(),
            Self::Accelerator { .. } => None,
        }
    }
}

/// What comes in.
impl Role {
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        sessions: &Sessions,
    ) -> Result<(), ControlError> {
        match self {
            Self::Server(servers) => servers.handle_datagram(now, path, datagram, sessions),
            Self::Client(dialler) => dialler.handle_datagram(now, path, datagram),
            Self::Accelerator { .. } => Err(ControlError::UnknownPeer),
        }
    }

    /// The TCP connection at `path` is closed.
    pub fn handle_closed(&mut self, now: Instant, path: Path) {
        match self {
            Self::Server(servers) => servers.handle_closed(now, path),
            // It calls by UDP only.
            Self::Client(_) | Self::Accelerator { .. } => {}
        }
    }

    pub fn handle_float(&mut self, now: Instant, peer_id: PeerId, path: Path) {
        match self {
            Self::Server(servers) => servers.handle_float(now, peer_id, path),
            Self::Client(dialler) => dialler.handle_float(peer_id, path),
            Self::Accelerator { .. } => {}
        }
    }

    /// Certificates of each server from now on.
    pub fn set_tls(&mut self, tls: &[Arc<rustls::ServerConfig>]) {
        if let Self::Server(servers) = self {
            servers.set_tls(tls);
        }
    }

    pub fn handle_exit(&mut self, now: Instant, peer_id: PeerId) {
        match self {
            Self::Server(servers) => servers.handle_exit(now, peer_id),
            Self::Client(dialler) => dialler.handle_exit(now, peer_id),
            Self::Accelerator { .. } => {}
        }
    }

    pub fn handle_rekey_request(&mut self, now: Instant, peer_id: PeerId) {
        match self {
            Self::Server(servers) => servers.handle_rekey_request(now, peer_id),
            Self::Client(dialler) => dialler.handle_rekey_request(now),
            Self::Accelerator { .. } => {}
        }
    }

    /// Takes what other threads have done for us; true when all is taken.
    pub fn handle_jobs(&mut self, now: Instant) -> bool {
        match self {
            Self::Server(servers) => servers.handle_jobs(now),
            Self::Client(dialler) => {
                dialler.handle_answers(now);
                true
            }
            Self::Accelerator { .. } => true,
        }
    }

    pub fn handle_time(&mut self, now: Instant, sessions: &Sessions) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        match self {
            Self::Server(servers) => servers.handle_time(now, sessions),
            Self::Client(dialler) => dialler.handle_time(now, sessions),
            Self::Accelerator { .. } => {}
        }
    }

    /// Our addresses or routes may have changed.
    pub fn handle_surroundings(&mut self) {
        match self {
            // Clients say by where they send to which of our addresses they want.
            Self::Server(_) => {}
            Self::Client(dialler) => dialler.handle_surroundings(),
            Self::Accelerator { .. } => {}
        }
    }

    /// Once in a while: writes the file of addresses if it is time.
    pub fn keep_files(&mut self, now: Instant) {
        match self {
            Self::Server(servers) => servers.keep_files(now),
            Self::Client(_) | Self::Accelerator { .. } => {}
        }
    }

    /// At the end: writes the file of addresses.
    pub fn close_files(&mut self) {
        match self {
            Self::Server(servers) => servers.close_files(),
            Self::Client(_) | Self::Accelerator { .. } => {}
        }
    }

    pub fn stop(&mut self, now: Instant) {
        match self {
            Self::Server(servers) => servers.stop(now),
            Self::Client(dialler) => dialler.stop(now),
            Self::Accelerator { stopped } => *stopped = true,
        }
    }
}

/// What goes out.
impl Role {
    /// Has other threads do what takes long.
    pub fn give_jobs(&mut self) {
        match self {
            Self::Server(servers) => servers.give_jobs(),
            // One handshake in an hour keeps nobody waiting.
            Self::Client(_) | Self::Accelerator { .. } => {}
        }
    }

    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        match self {
            Self::Server(servers) => servers.poll_event(),
            Self::Client(dialler) => dialler.poll_event(),
            Self::Accelerator { .. } => None,
        }
    }

    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        match self {
            Self::Server(servers) => servers.poll_transmit(),
            Self::Client(dialler) => dialler.poll_transmit(),
            Self::Accelerator { .. } => None,
        }
    }

    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Server(servers) => servers.poll_timeout(),
            Self::Client(dialler) => dialler.poll_timeout(),
            Self::Accelerator { .. } => None,
        }
    }
}
