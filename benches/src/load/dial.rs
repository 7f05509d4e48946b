//! What is asked of the server, and one attempt to get it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use openvpn::{
    client::{Client, Config, Event},
    data::{DataChannel, Layout},
};
use rustls::crypto::aws_lc_rs;
use socket2::{Domain, Socket, Type};

use super::{
    error::{LoadError, Reason},
    session::{self, Session},
};

/// What a session's socket holds for us while we are busy sending: a thousand full-size packets, and more of short ones.
const RECEIVE_BUFFER_BYTES: usize = 2 << 20;
/// Sessions that shake hands at a time, unless told otherwise: a server that is shaken by more only answers later.
const AT_ONCE: usize = 32;
/// How long all of them may take.
const TIME_OUT: Duration = Duration::from_secs(30);
/// Longest frame a session opens, in bytes: 1500 and a header with two tags.
const MAX_FRAME: usize = 1522;

/// What to connect.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub remote: SocketAddrV4,
    /// Our address; unspecified: the kernel chooses. Every session has a port of its own.
    pub local: Ipv4Addr,
    /// The interface to go by; `None`: that of the route.
    pub interface: Option<String>,
    /// How many sessions.
    pub sessions: usize,
    /// How many of them shake hands at a time, at least 1.
    pub at_once: usize,
    /// What is not connected by then is a [`super::Failure`].
    pub time_out: Duration,
    /// Whether it must be found out first that the server lets several sessions use one certificate, and how long it may
    /// take to show it: with two sessions and a rekey of the first.
    pub one_certificate: Option<Duration>,
    /// Certificates, ciphers, time between rekeys.
    pub client: Config,
    /// Longest frame a session opens, in bytes.
    pub max_frame: usize,
}

impl Plan {
    /// `sessions` sessions with `remote`, all with the certificate in `tls` (see [`openvpn::tls::client_config`]).
    pub fn new(remote: SocketAddrV4, tls: Arc<rustls::ClientConfig>, sessions: usize) -> Self {
        Self {
            remote,
            local: Ipv4Addr::UNSPECIFIED,
            interface: None,
            sessions,
            at_once: AT_ONCE,
            time_out: TIME_OUT,
            one_certificate: None,
            client: Config { layout: Layout::V2, ..Config::new(tls) },
            max_frame: MAX_FRAME,
        }
    }
}

/// When a session came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The first packet was sent.
    pub began: Instant,
    /// The server's push reply was understood and keys are there.
    pub ended: Instant,
}

impl Handshake {
    /// How long it took.
    pub fn duration(&self) -> Duration {
        self.ended.saturating_duration_since(self.began)
    }
}

/// A session that shakes hands.
pub(super) struct Attempt {
    pub number: usize,
    pub began: Instant,
    client: Client,
    pub socket: UdpSocket,
    local: SocketAddrV4,
    remote: SocketAddrV4,
    max_frame: usize,
    heard: bool,
}

/// What has become of an attempt.
pub(super) enum Progress {
    Pending(Box<Attempt>),
    Up(Box<Session>),
    Failed(Reason),
}

impl Attempt {
    /// Sends the first packet. Without a socket the session fails, and the others go on.
    pub fn begin(plan: &Plan, number: usize, now: Instant) -> Result<Result<Self, Reason>, LoadError> {
        let (socket, local) = match open(plan) {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(Reason::Socket(error.to_string()))),
        };
        let client = Client::new(plan.client.clone(), seed()?, now)?;
        let (remote, max_frame) = (plan.remote, plan.max_frame);
        let mut attempt = Self { number, began: now, client, socket, local, remote, max_frame, heard: false };
        session::flush(&mut attempt.client, &attempt.socket);
        Ok(Ok(attempt))
    }

    /// Sees to what has arrived and what is due.
    pub fn advance(mut self: Box<Self>, now: Instant, buffer: &mut [u8]) -> Progress {
        if let Err(reason) = self.receive(now, buffer) {
            return Progress::Failed(reason);
        }
        self.client.handle_timeout(now);
        session::flush(&mut self.client, &self.socket);
        match self.client.poll_event() {
            Some(Event::Connected(connected)) => {
                let channel = DataChannel::new(connected.peer_id, connected.profile, self.max_frame);
                Progress::Up(self.into_session(connected, channel, now))
            }
            Some(Event::Closed(reason)) => Progress::Failed(Reason::Closed(reason)),
            _ => Progress::Pending(self),
        }
    }

    fn into_session(
        self: Box<Self>,
        connected: openvpn::client::Connected,
        channel: DataChannel,
        now: Instant,
    ) -> Box<Session> {
        let handshake = Handshake { began: self.began, ended: now };
        let path = (self.local, self.remote);
        Box::new(Session::new(self.number, path, handshake, connected, channel, self.client, self.socket))
    }

    fn receive(&mut self, now: Instant, buffer: &mut [u8]) -> Result<(), Reason> {
        loop {
            match self.socket.recv(buffer) {
                Ok(len) => {
                    self.heard = true;
                    // A packet that comes to nothing is as good as lost: retransmission sees to it.
                    let _ = self.client.handle_datagram(now, buffer.get(..len).unwrap_or_default());
                    if self.client.is_connected() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return Err(Reason::Unreachable(self.remote));
                }
                Err(error) => return Err(Reason::Socket(error.to_string())),
            }
        }
    }

    /// Something is to be done at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.client.poll_timeout().is_some_and(|(at, _)| at <= now)
    }

    /// Why it is not up after `waited`.
    pub fn late(&self, waited: Duration) -> Reason {
        if self.heard { Reason::Late { waited } } else { Reason::Silent { remote: self.remote, waited } }
    }
}

fn open(plan: &Plan) -> io::Result<(UdpSocket, SocketAddrV4)> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // Beyond the host's limit with CAP_NET_ADMIN only.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind_device(plan.interface.as_ref().map(String::as_bytes))?;
    socket.bind(&SocketAddrV4::new(plan.local, 0).into())?;
    socket.connect(&plan.remote.into())?;
    let socket = UdpSocket::from(socket);
    match socket.local_addr()? {
        SocketAddr::V4(local) => Ok((socket, local)),
        SocketAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn seed() -> Result<[u8; 32], LoadError> {
    let mut seed = [0; 32];
    let no_randomness = |_| io::Error::other("the random number generator fails");
    aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut seed)
        .map_err(no_randomness)
        .map_err(LoadError::os("get random numbers"))?;
    Ok(seed)
}
