//! Why there is no load.

use std::{io, net::SocketAddrV4, time::Duration};

use openvpn::client::CloseReason;

/// Why nothing can be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refuses what every session needs.
    #[error("cannot {doing}: {source}")]
    Os {
        /// What was tried, after "cannot".
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// TLS cannot begin with these certificates.
    #[error("TLS cannot begin with this certificate and key: {0}")]
    Tls(#[from] rustls::Error),
    /// There is nobody to send with.
    #[error("no session with {remote} was connected: {why}")]
    NotConnected {
        /// The server.
        remote: SocketAddrV4,
        /// What the first session met.
        why: Reason,
    },
}

impl LoadError {
    /// `map_err(LoadError::os("open a socket"))`.
    pub(super) fn os<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Os { doing, source: source.into() }
    }
}

/// A session that did not come to be, or did not last.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("session {number}: {reason}")]
pub struct Failure {
    /// Which session, from 0.
    pub number: usize,
    /// Why.
    pub reason: Reason,
}

/// Why a session is not up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// An ICMP message said that nobody listens.
    #[error("nobody listens at {0}: check that the server runs and that address and port are its own")]
    Unreachable(SocketAddrV4),
    /// Not a single packet came back.
    #[error(
        "no answer from {remote} within {} s: check address and port, and that no firewall is in the way",
        waited.as_secs()
    )]
    Silent {
        /// The server.
        remote: SocketAddrV4,
        /// For how long.
        waited: Duration,
    },
    /// The server answered, but was not done in time.
    #[error(
        "the server had not let it in after {} s: allow more time with --connect-timeout, and on the server more \
         connections at a time with `connect-freq-initial`",
        waited.as_secs()
    )]
    Late {
        /// For how long.
        waited: Duration,
    },
    /// The protocol says so.
    #[error("{0}")]
    Closed(CloseReason),
    /// The server does not let two sessions use one certificate.
    #[error(
        "the server keeps one session only of those with the same certificate: put `duplicate-cn` into its \
         configuration"
    )]
    Replaced,
    /// The server said that it leaves.
    #[error("the server says that it leaves")]
    ServerLeft,
    /// The socket does not work.
    #[error(
        "its socket fails: {0}; `ulimit -n` says how many there may be, `ip route get` whether there is a way"
    )]
    Socket(String),
    /// Somebody pressed Ctrl-C.
    #[error("interrupted before it was connected")]
    Interrupted,
}
