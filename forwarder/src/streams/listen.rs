//! Opening a TCP port.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use nix::{
    libc,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel completes ahead of us: all clients may come back at once, after a restart. It allows itself at
/// most `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// Why a TCP port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The port is taken.
    #[error(
        "TCP port {} of {} is in use: stop the other server (`ss -ltnp` names it), or choose another with `port`",
        .0.port(), .0.ip()
    )]
    InUse(SocketAddr),
    /// The address is not ours.
    #[error("{} is no address of this host: correct `local`, or leave it out to listen on every address", .0.ip())]
    NotOurs(SocketAddr),
    /// A privileged port.
    #[error("TCP port {} may not be opened: ports below 1024 need root or CAP_NET_BIND_SERVICE", .0.port())]
    Forbidden(SocketAddr),
    /// IPv6 is wanted of a kernel that has none.
    #[error(
        "this kernel has no IPv6: write `proto tcp-server` and IPv4 addresses behind `local`, or turn IPv6 on"
    )]
    NoIpv6,
    /// Anything else.
    #[error("TCP port {} cannot be opened on {} ({source}): see the system's log", .address.port(), .address.ip())]
    Other {
        /// What was to be opened.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Listens on `address`, without blocking. `prepare` is given the socket before it listens: accepted connections inherit
/// its buffers. `only_v6`: an IPv6 address takes no IPv4 connections.
///
/// # Errors
/// See [`OpenError`].
pub fn open(
    address: SocketAddr,
    only_v6: bool,
    prepare: impl FnOnce(&Socket),
) -> Result<TcpListener, OpenError> {
    bind(address, only_v6, prepare).map_err(|source| refused(address, source))
}

fn refused(address: SocketAddr, source: io::Error) -> OpenError {
    if source.raw_os_error() == Some(libc::EAFNOSUPPORT) && address.is_ipv6() {
        return OpenError::NoIpv6;
    }
    match source.kind() {
        io::ErrorKind::AddrInUse => OpenError::InUse(address),
        io::ErrorKind::AddrNotAvailable => OpenError::NotOurs(address),
        io::ErrorKind::PermissionDenied => OpenError::Forbidden(address),
        _ => OpenError::Other { address, source },
    }
}

fn bind(address: SocketAddr, only_v6: bool, prepare: impl FnOnce(&Socket)) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Connections of the gateway that ran before do not keep the port; another listener does.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    prepare(&socket);
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Every connection is an open file, and the usual limit is made for programs that have few.
pub fn allow_many_files() {
    let limits = getrlimit(Resource::RLIMIT_NOFILE);
    if let Err(error) = limits.and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard)) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_an_error_that_names_it() {
        let first = open("127.0.0.1:0".parse().unwrap(), false, |_| ()).unwrap();
        let address = first.local_addr().unwrap();
        let error = open(address, false, |_| ()).unwrap_err();
        assert!(matches!(error, OpenError::InUse(_)));
        assert!(
            error.to_string().starts_with(&format!("TCP port {} of 127.0.0.1 is in use", address.port()))
        );
    }

    #[test]
    fn a_kernel_without_ipv6_is_an_error_that_says_what_to_write() {
        let of = |address: &str| {
            refused(address.parse().unwrap(), io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
        };
        assert!(of("[::]:443").to_string().starts_with("this kernel has no IPv6: write `proto tcp-server`"));
        assert!(matches!(of("0.0.0.0:443"), OpenError::Other { .. }));
    }

    #[test]
    fn an_address_of_another_host_is_an_error_that_names_it() {
        let error = open("192.0.2.7:1194".parse().unwrap(), false, |_| ()).unwrap_err();
        assert!(error.to_string().starts_with("192.0.2.7 is no address of this host"), "{error}");
    }
}
