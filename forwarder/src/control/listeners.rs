//! Opening what the gateway listens on, and the control thread's sockets of it.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
};

use mio::{Interest, Registry, Token, event::Source};
use openvpn::server::{Path, Transport};
use socket2::SockRef;

use super::Error;
use crate::{
    config::{Config, Family, Listener, Server},
    ports::{
        tunnel::{self, Bind, ControlSocket},
        tunnels::bound_for,
    },
    streams,
};

/// What was opened, before privileges are dropped.
#[derive(Debug)]
pub(super) struct Opened {
    /// The control thread's UDP sockets, one a listener.
    pub control: Vec<UdpSocket>,
    /// The workers' UDP sockets, in the workers' order, of each one a listener.
    pub tunnels: Vec<Vec<UdpSocket>>,
    /// TCP listeners, which do not block.
    pub streams: Vec<TcpListener>,
}

impl Opened {
    /// `config` with the ports that the kernel chose: a client's is any.
    pub fn bound(&self, config: &Config) -> io::Result<Config> {
        let mut config = config.clone();
        let udp = config.server.listeners.iter_mut().filter(|listener| listener.transport == Transport::Udp);
        for (listener, socket) in udp.zip(&self.control) {
            listener.port = socket.local_addr()?.port();
        }
        Ok(config)
    }
}

/// Opens all listeners of the files for `workers` workers.
pub(super) fn open(config: &Config, workers: usize) -> Result<Opened, Error> {
    let tunnels = (0..workers).map(|_| Vec::new()).collect();
    let mut opened = Opened { control: Vec::new(), tunnels, streams: Vec::new() };
    let listeners = config.servers().flat_map(|server| server.listeners.iter().map(move |one| (server, one)));
    for (server, listener) in listeners {
        match listener.transport {
            Transport::Udp => open_udp(listener, server, &mut opened)?,
            Transport::Tcp => opened.streams.push(open_tcp(listener, server)?),
        }
    }
    if !opened.streams.is_empty() {
        streams::allow_many_files();
    }
    Ok(opened)
}

fn open_udp(listener: &Listener, server: &Server, opened: &mut Opened) -> Result<(), Error> {
    let bind = Bind { address: listener.bind_address(), v6_only: listener.family == Family::V6 };
    let (control, tunnels) = tunnel::open(bind, opened.tunnels.len())?;
    tunnels.iter().chain([&control]).for_each(|socket| size_buffers(server, socket));
    opened.control.push(control);
    for (worker, tunnel) in opened.tunnels.iter_mut().zip(tunnels) {
        worker.push(tunnel);
    }
    Ok(())
}

fn open_tcp(listener: &Listener, server: &Server) -> Result<TcpListener, Error> {
    let only_v6 = listener.family == Family::V6;
    Ok(streams::open(listener.bind_address(), only_v6, |socket| size_buffers(server, socket))?)
}

/// `sndbuf` and `rcvbuf`, where the file has them: what the sockets were opened with is larger than most ask for.
fn size_buffers(server: &Server, socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    let send = server.sndbuf_bytes.map_or(Ok(()), |bytes| socket.set_send_buffer_size(bytes));
    let receive = server.rcvbuf_bytes.map_or(Ok(()), |bytes| socket.set_recv_buffer_size(bytes));
    if let Err(error) = send.and(receive) {
        tracing::warn!(%error, "`sndbuf` or `rcvbuf` was not taken");
    }
}

/// The control thread's UDP sockets, one a listener.
#[derive(Debug)]
pub(super) struct ControlSockets {
    sockets: Vec<ControlSocket>,
    bound: Vec<SocketAddr>,
    /// The first one's token; the others have those above.
    first: Token,
}

impl ControlSockets {
    /// Over sockets that [`open`] opened.
    pub fn new(sockets: Vec<UdpSocket>, first: Token) -> io::Result<Self> {
        let bound = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
        let sockets = sockets.into_iter().map(ControlSocket::new).collect::<io::Result<_>>()?;
        Ok(Self { sockets, bound, first })
    }

    /// Has the loop woken when one can be read.
    pub fn register(&mut self, registry: &Registry) -> io::Result<()> {
        let tokens = (self.first.0..).map(Token);
        let mut all = self.sockets.iter_mut().zip(tokens);
        all.try_for_each(|(socket, token)| socket.register(registry, token, Interest::READABLE))
    }

    /// mio tells of readiness once; what is left for the next turn must be told again.
    pub fn rearm(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let socket = token.0.checked_sub(self.first.0).and_then(|index| self.sockets.get_mut(index));
        socket.map_or(Ok(()), |socket| socket.reregister(registry, token, Interest::READABLE))
    }

    /// The socket that has this token.
    pub fn of(&self, token: Token) -> Option<&ControlSocket> {
        self.sockets.get(token.0.checked_sub(self.first.0)?)
    }

    /// Sends `payload` on `path`, by the socket of the listener that the client used.
    ///
    /// # Errors
    /// See [`ControlSocket::send`]; `NotConnected` where nobody listens there.
    pub fn send(&self, payload: &[u8], path: Path) -> io::Result<()> {
        let index = bound_for(&self.bound, path.local).ok_or(io::ErrorKind::NotConnected)?;
        self.sockets[index].send(payload, path.remote, path.local.ip())
    }

    /// Packets since the start that the kernel dropped because they were not received fast enough.
    pub fn missed(&self) -> u64 {
        self.sockets.iter().map(ControlSocket::missed).sum()
    }
}
