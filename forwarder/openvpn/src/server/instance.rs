//! One client as the server sees it.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use rustls::pki_types::CertificateDer;

use super::{Config, Path, Reason, admission::Terms};
use crate::{
    ids::PeerId,
    session::{self, Session},
};

/// How long a session is kept after its last word, so that the word can be acknowledged. Source: brief A.8.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// Push requests are not answered again for this long. Source: brief A.8.
const PUSH_INTERVAL: Duration = Duration::from_secs(30);

/// A session and where it is.
pub(super) struct Instance {
    pub(super) path: Path,
    pub(super) session: Session,
    pub(super) stage: Stage,
}

/// How far a client has come.
///
/// ```text
///   HalfOpen ───► Connected ───► Lingering ───► gone
///       └──────── refused ───────────▲
/// ```
pub(super) enum Stage {
    /// Its address is verified, its certificate is not.
    HalfOpen,
    /// It is a peer.
    Connected(Box<Peer>),
    /// It has left or been refused; only what was said last is still repeated, until then.
    Lingering(Instant),
}

/// A peer.
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) terms: Terms,
    pub(super) address: Option<Address>,
    /// What it showed first; a rekey must show the same.
    pub(super) certificate: CertificateDer<'static>,
    pub(super) last_received: Instant,
    pub(super) last_sent: Instant,
    /// When a reset from its address was last answered.
    pub(super) reset_answered: Option<Instant>,
    /// When its options were last pushed.
    pub(super) pushed: Option<Instant>,
}

/// What a peer is told to call itself on the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) address: Ipv4Addr,
    pub(super) netmask: Ipv4Addr,
    /// It goes back to the pool.
    pub(super) pooled: bool,
}

/// When something must happen to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// To see to the control channel.
    Session(session::Timer),
    /// To send a keepalive.
    Ping,
    /// To give up a peer that is not heard.
    PingRestart,
    /// To forget a client that has left.
    Linger,
}

impl Timer {
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::Session(timer) => timer.reason(),
            Self::Ping => "send a keepalive",
            Self::PingRestart => "give up a silent peer",
            Self::Linger => "forget a client that has left",
        }
    }
}

impl Instance {
    pub(super) fn peer(&self) -> Option<&Peer> {
        match &self.stage {
            Stage::Connected(peer) => Some(peer),
            Stage::HalfOpen | Stage::Lingering(_) => None,
        }
    }

    pub(super) fn peer_mut(&mut self) -> Option<&mut Peer> {
        match &mut self.stage {
            Stage::Connected(peer) => Some(peer),
            Stage::HalfOpen | Stage::Lingering(_) => None,
        }
    }

    /// The next timer.
    pub(super) fn timeout(&self, config: &Config) -> Option<(Instant, Timer)> {
        let session = self.session.poll_timeout().map(|(at, timer)| (at, Timer::Session(timer)));
        let own = match &self.stage {
            Stage::HalfOpen => [None, None],
            Stage::Connected(peer) => [
                config.ping.map(|ping| (peer.last_sent + ping, Timer::Ping)),
                config.ping_restart.map(|restart| (peer.last_received + restart, Timer::PingRestart)),
            ],
            Stage::Lingering(until) => [Some((*until, Timer::Linger)), None],
        };
        own.into_iter().flatten().chain(session).min_by_key(|(at, _)| *at)
    }
}

impl Peer {
    /// True if a push request is to be answered now; it is taken as answered.
    pub(super) fn take_push(&mut self, now: Instant) -> bool {
        let due = self.pushed.is_none_or(|last| now.saturating_duration_since(last) >= PUSH_INTERVAL);
        if due {
            self.pushed = Some(now);
        }
        due
    }
}
