//! What comes out of the server, and what goes wrong with what goes in.

use std::net::{Ipv4Addr, SocketAddr};

use crate::{
    data::{DataKeys, Profile},
    ids::{KeyId, PeerId},
};

/// What carries packets outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// One datagram, one packet.
    Udp,
    /// A stream, each packet behind its length.
    Tcp,
}

/// Where a client is: its address, and the one of ours that it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// What carries its packets.
    pub transport: Transport,
    /// The client's address and port as they arrive here. An IPv4 address is never written as an IPv6 one.
    pub remote: SocketAddr,
    /// Our address and port that it sent to; answers leave from there.
    pub local: SocketAddr,
}

impl Path {
    /// Over UDP.
    pub const fn udp(remote: SocketAddr, local: SocketAddr) -> Self {
        Self { transport: Transport::Udp, remote, local }
    }

    /// Over a TCP connection.
    pub const fn tcp(remote: SocketAddr, local: SocketAddr) -> Self {
        Self { transport: Transport::Tcp, remote, local }
    }

    /// True over UDP.
    pub const fn is_udp(&self) -> bool {
        matches!(self.transport, Transport::Udp)
    }
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
    /// No session is at this end of a TCP connection any more: it can be closed.
    PathUnused {
        /// Where.
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
    /// Its address: leased, or from its own file.
    pub address: Option<Ipv4Addr>,
    /// Most stations behind it, where its own file says.
    pub max_stations: Option<usize>,
    /// What its data packets look like.
    pub profile: Profile,
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
    /// A rekey failed and the old key ran out, or the control channel broke.
    RekeyFailed,
    /// The server disconnected it.
    Disconnected,
    /// Its TCP connection was closed.
    ConnectionClosed,
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
    /// Not wrapped, or not with our key.
    #[error("the control packet is not wrapped with the server's key")]
    Unauthentic,
    /// It came before.
    #[error("the control packet is a repetition")]
    Replayed,
    /// No room, or the session is being refused.
    #[error("the client is refused")]
    Refused,
}
