//! Why a gateway does not start, or cannot go on.

use std::{io, path::PathBuf};

use crate::{
    config, host,
    management::socket::SocketError,
    ports::{host::HostPortError, tunnel, wire::WireError},
    streams,
    xdp::{
        frames::FramesError,
        maps::MapError,
        refusal::{AttachError, LoadError},
        xsk::XskError,
    },
};

/// Cause and cure, as a sentence. Whatever was begun is undone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The host is not fit for what is asked of it.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The tunnel's port.
    #[error(transparent)]
    Tunnel(#[from] tunnel::OpenError),
    /// The tunnel's TCP port.
    #[error(transparent)]
    Stream(#[from] streams::OpenError),
    /// The host port.
    #[error(transparent)]
    HostPort(#[from] HostPortError),
    /// The NIC by packet socket.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Memory for frames.
    #[error(transparent)]
    Frames(#[from] FramesError),
    /// AF_XDP.
    #[error(transparent)]
    Xsk(#[from] XskError),
    /// The eBPF programs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Their places.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Their maps.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The control socket.
    #[error(transparent)]
    ControlSocket(#[from] SocketError),
    /// Deleted, renamed or moved to another namespace while the gateway ran.
    #[error("{0} is gone while the gateway ran: bring it back, and start the gateway anew")]
    InterfaceGone(String),
    /// The client of a server has given up.
    #[error("{0}")]
    Client(String),
    /// `--confirm`.
    #[error(
        "nobody confirmed within {0} s, so everything was taken back: start it again and say `trestle confirm` in time, \
         or leave --confirm away"
    )]
    NotConfirmed(u64),
    /// It ended while we started.
    #[error("the supervisor has ended: start it by `trestle run --config`")]
    SupervisorGone,
    /// A defect of ours.
    #[error("a worker ended by itself: please report the lines above, and start the gateway anew")]
    WorkerDied,
    /// A file the configuration names.
    #[error("`{what}`: {} cannot be written ({source}): correct it, or make its directory", .path.display())]
    File {
        /// The directive.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system refused something it hardly ever refuses.
    #[error("the system does not let the gateway {doing} ({source}): see the system's log")]
    Os {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl Error {
    /// `doing` completes "the system does not let the gateway ...".
    pub(super) fn os(doing: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Os { doing, source: source.into() }
    }
}
