//! What stands around the gateway on this host.
//!
//! Nothing here moves frames. It tells the rest what the kernel knows (interfaces, the outer path of a peer), prepares
//! what frames pass through, and gives up privileges. All of it speaks to the kernel itself: no `ip`, no `ethtool`.
//!
//! ```text
//!   preflight ──► nic ──► (XDP attached, sockets bound) ──► privileges ──► threads
//!                  │                                                         │
//!                netlink ◄──── links, routes, bridge ◄────────── control loop: Outside::handle_netlink
//! ```

use std::io;

/// A kernel bridge: its ports, its stations, and what XDP would bypass there.
pub mod bridge;
/// Huge pages: whether there are any to be had.
pub mod huge_pages;
/// Interfaces: what they are, and changing them.
pub mod links;
/// Messages to and from the kernel.
pub mod netlink;
/// The NIC: its features, its cloud, its limits.
pub mod nic;
/// Whether this host can do what is asked of it.
pub mod preflight;
/// Giving up privileges.
pub mod privileges;
/// The outer path of a peer, and the surroundings it depends on.
pub mod routes;

#[cfg(test)]
pub(crate) mod testing;

/// Why the host could not be asked or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused, or did not answer.
    #[error("cannot {doing}: {source}")]
    Os {
        /// What was tried, after "cannot".
        doing: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The host is not fit for what is asked of it; the sentence says why and what to do.
    #[error("{0}")]
    Unfit(String),
}

impl Error {
    /// `map_err(Error::os("read the routes"))`.
    pub(crate) fn os<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::Os { doing, source: source.into() }
    }

    /// The kernel's error number, if it is one of its errors.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Os { source, .. } => source.raw_os_error(),
            Self::Unfit(_) => None,
        }
    }
}

/// What can go wrong here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
