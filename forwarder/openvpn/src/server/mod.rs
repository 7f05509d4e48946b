//! The server role. (Signatures agreed; bodies to come.)

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    data::{Cipher, DataKeys, Framing},
    ids::{KeyId, PeerId},
};

/// What the server does, from `server.conf`. Times not in the file have upstream's defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificates and protocol versions.
    pub tls: Arc<rustls::ServerConfig>,
    /// Data ciphers in order of preference.
    pub data_ciphers: Vec<Cipher>,
    /// `keepalive`: the server pings after this much silence of its own; `None`: never.
    pub ping: Option<Duration>,
    /// The server drops a peer not heard for this long; `None`: never.
    pub ping_restart: Option<Duration>,
    /// Options pushed to every client, in order, before those the server adds (`ifconfig`, `peer-id`, ...).
    /// `compress` does not stand here.
    pub push: Vec<String>,
    /// What `compress` becomes per client.
    pub compress: Compress,
    /// Addresses to lease; `None`: no `ifconfig` is pushed.
    pub pool: Option<Pool>,
    /// Most peers at once.
    pub max_clients: usize,
    /// Without it a new login closes the older session of the same name.
    pub duplicate_cn: bool,
    /// `reneg-sec`; `None`: the server never begins a rekey by time.
    pub reneg: Option<Duration>,
    /// `hand-window`: a negotiation not done by then fails.
    pub hand_window: Duration,
    /// `tran-window`: an old key is accepted for this long.
    pub tran_window: Duration,
    /// `connect-freq-initial`: stateless answers per period.
    pub connect_freq_initial: (u32, Duration),
    /// `explicit-exit-notify`: what clients are told at the stop.
    pub exit_notify: Option<ExitNotify>,
    /// `tun-mtu`.
    pub tun_mtu: u16,
    /// The OCC string we would send is not sent by servers; this is the client's expectation for logs. Reserved.
    pub port: u16,
}

/// `compress` and `push "compress ..."` of the server's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// Nothing is pushed; no framing.
    Off,
    /// `lz4-v2` to clients that survive it, `stub-v2` to the others that know it, else nothing (brief A.11).
    PerClient,
}

/// The addresses of `server-bridge GATEWAY NETMASK FIRST LAST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The gateway's own address, never leased.
    pub gateway: Ipv4Addr,
    /// Netmask pushed with a lease; the subnet's broadcast and network addresses are never leased.
    pub netmask: Ipv4Addr,
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, included.
    pub last: Ipv4Addr,
}

/// `explicit-exit-notify 1` or `2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitNotify {
    /// `RESTART`: come back here.
    Restart,
    /// `RESTART,[N]`: try the next remote.
    NextRemote,
}

/// Where a client is: its address, and the one of ours that it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The client's address and port as they arrive here.
    pub remote: SocketAddr,
    /// Our address that it sent to; answers leave from it.
    pub local: IpAddr,
}

/// A control packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To whom, from which of our addresses.
    pub path: Path,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// What the data path and the operator must know.
#[derive(Debug)]
pub enum Event {
    /// A peer has authenticated and is set up; `KeyInstalled` and `SendWith` for its first key follow at once.
    Connected(Connected),
    /// Packets of `peer_id` under `key_id` can be opened from now on.
    KeyInstalled {
        /// Whose.
        peer_id: PeerId,
        /// Under which key.
        key_id: KeyId,
        /// The keys.
        keys: Box<DataKeys>,
    },
    /// Packets to `peer_id` are sealed under `key_id` from now on.
    SendWith {
        /// Whose.
        peer_id: PeerId,
        /// Under which key.
        key_id: KeyId,
    },
    /// The key is no longer accepted.
    KeyRetired {
        /// Whose.
        peer_id: PeerId,
        /// Which key.
        key_id: KeyId,
    },
    /// A keepalive is due on the data channel.
    PingDue {
        /// To whom.
        peer_id: PeerId,
    },
    /// The peer's address changed (a reset from a known address that authenticated, or a float we were told of).
    PathChanged {
        /// Whose.
        peer_id: PeerId,
        /// Where it is now.
        path: Path,
    },
    /// The session is over; its `peer_id` may be used again.
    Gone {
        /// Whose.
        peer_id: PeerId,
        /// Why, as a sentence for the log.
        reason: GoneReason,
    },
    /// A client was refused, with the sentence for the log; it has been told where it can be.
    Refused {
        /// Where it is.
        path: Path,
        /// Its certificate's name where it got that far.
        name: Option<String>,
        /// Cause and cure.
        reason: String,
    },
}

/// A peer that has just connected.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Its number.
    pub peer_id: PeerId,
    /// Its certificate's common name, non-printing characters replaced by `_`.
    pub name: String,
    /// Where it is.
    pub path: Path,
    /// The leased address.
    pub address: Option<Ipv4Addr>,
    /// The data cipher agreed.
    pub cipher: Cipher,
    /// The framing agreed.
    pub framing: Framing,
    /// `IV_VER` and `IV_PLAT`, for the log; attacker-controlled, printable characters only, bounded.
    pub software: String,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoneReason {
    /// It said so (EXIT or OCC exit).
    Exit,
    /// Not heard for `ping-restart`.
    PingTimeout,
    /// The same name logged in again.
    Replaced,
    /// The same client started anew from the same address.
    Restarted,
    /// A rekey failed and the old key ran out.
    RekeyFailed,
    /// The server disconnected it.
    Disconnected,
}

/// Why a control packet came to nothing; each maps to one drop reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Cannot be parsed.
    #[error("the control packet cannot be parsed")]
    Malformed,
    /// No session, no valid cookie.
    #[error("the control packet belongs to no session")]
    UnknownPeer,
    /// Wrong key, or outside the window.
    #[error("the control packet is out of sync")]
    OutOfSync,
    /// Too many first packets.
    #[error("too many first packets")]
    RateLimited,
    /// No room, or the session is being refused.
    #[error("the client is refused")]
    Refused,
}

/// Why `poll_timeout` wants to be called again.
pub type Reason = &'static str;

/// All sessions of one server.
pub struct Server;

impl Server {
    /// A server without sessions. `seed` is secret randomness: the cookie key and session ids come from it.
    pub fn new(_config: Config, _seed: [u8; 32], _now: Instant) -> Self {
        todo!()
    }

    /// Number of peers connected.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// True without peers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A control packet (any opcode but data) arrived.
    ///
    /// # Errors
    /// The packet came to nothing: count it.
    pub fn handle_datagram(
        &mut self,
        _now: Instant,
        _path: Path,
        _datagram: &[u8],
    ) -> Result<(), ControlError> {
        todo!()
    }

    /// What the data path last saw of a peer: feeds ping and ping-restart.
    pub fn handle_activity(&mut self, _peer_id: PeerId, _last_received: Instant, _last_sent: Instant) {
        todo!()
    }

    /// The peer said on the data channel that it leaves.
    pub fn handle_exit(&mut self, _now: Instant, _peer_id: PeerId) {
        todo!()
    }

    /// An authentic, fresh data packet of the peer came from another address.
    pub fn handle_float(&mut self, _now: Instant, _peer_id: PeerId, _path: Path) {
        todo!()
    }

    /// The peer's data key nears its limit: begin a rekey.
    pub fn handle_rekey_request(&mut self, _now: Instant, _peer_id: PeerId) {
        todo!()
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, _now: Instant) {
        todo!()
    }

    /// Ends one peer's session: it is told to restart.
    pub fn disconnect(&mut self, _now: Instant, _peer_id: PeerId) {
        todo!()
    }

    /// Tells every peer that the server stops (`explicit-exit-notify`) and takes no new ones. Returns when it is
    /// polite to leave: once everything is acknowledged, `poll_timeout` is `None` and `is_stopped`.
    pub fn stop(&mut self, _now: Instant) {
        todo!()
    }

    /// After `stop`: every notice is acknowledged, or 2 s have passed.
    pub fn is_stopped(&self) -> bool {
        todo!()
    }

    /// The next control packet to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        todo!()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// When `handle_timeout` must be called, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        todo!()
    }
}
