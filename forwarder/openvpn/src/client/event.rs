//! What the client is told to do, and what comes out of it.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use crate::{
    data::{Cipher, DataKeys, Digest, Framing, Layout, Profile},
    ids::{KeyId, PeerId},
    wire::wrapping::Wrapping,
};

use super::PullFilter;

/// What the client does. Times have upstream's defaults in [`Config::new`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificates; see [`crate::tls::client_config`].
    pub tls: Arc<rustls::ClientConfig>,
    /// How control packets are wrapped: `tls-auth`, `tls-crypt`, or by the client's own key with tls-crypt-v2.
    pub wrapping: Wrapping,
    /// tls-crypt-v2: what of the client's key file is told to the server.
    pub wrapped_key: Option<Vec<u8>>,
    /// Seconds since 1970 at the moment that [`super::Client::new`] is given: replay protection counts from there.
    pub unix_s: u64,
    /// Data ciphers offered, in order of preference.
    pub data_ciphers: Vec<Cipher>,
    /// `reneg-sec`; `None`: the client never begins a rekey by time.
    pub reneg: Option<Duration>,
    /// `hand-window`: a negotiation not done by then fails.
    pub hand_window: Duration,
    /// `tran-window`: an old key is accepted for this long.
    pub tran_window: Duration,
    /// `tun-mtu`.
    pub tun_mtu: u16,
    /// Whether v2 compression framing is offered.
    pub compression: bool,
    /// The file's compression framing, where the server pushes none.
    pub framing: Framing,
    /// `ping`, where the server pushes none.
    pub ping: Option<Duration>,
    /// `ping-restart`, where the server pushes none.
    pub ping_restart: Option<Duration>,
    /// `pull-filter`.
    pub pull_filters: Vec<PullFilter>,
    /// Whether data keys from the TLS exporter are offered; without it they come from the PRF, as in OpenVPN 2.5.
    pub exporter: bool,
    /// The newest layout of data packets that is offered; the server chooses it or an older one.
    pub layout: Layout,
    /// `auth`: what authenticates data packets whose cipher does not.
    pub digest: Digest,
}

impl Config {
    /// Upstream's defaults.
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        Self {
            tls,
            wrapping: Wrapping::None,
            wrapped_key: None,
            unix_s: 0,
            data_ciphers: Cipher::DEFAULT.to_vec(),
            reneg: Some(Duration::from_secs(3600)),
            hand_window: Duration::from_secs(60),
            tran_window: Duration::from_secs(3600),
            tun_mtu: 1500,
            compression: true,
            framing: Framing::None,
            ping: None,
            ping_restart: None,
            pull_filters: Vec::new(),
            exporter: true,
            layout: Layout::Epoch,
            digest: Digest::default(),
        }
    }
}

/// What the data path and the operator must know.
#[derive(Debug)]
pub enum Event {
    /// The server has pushed its options; `KeyInstalled` and `SendWith` for the first key follow at once.
    Connected(Connected),
    /// Packets under `key_id` can be opened from now on.
    KeyInstalled {
        /// Under which key.
        key_id: KeyId,
        /// The keys.
        keys: Box<DataKeys>,
    },
    /// Packets are sealed under `key_id` from now on.
    SendWith {
        /// Under which key.
        key_id: KeyId,
    },
    /// The key is no longer accepted.
    KeyRetired {
        /// Which key.
        key_id: KeyId,
    },
    /// A keepalive is due on the data channel.
    PingDue,
    /// The session is over. Nothing follows but what is still to be acknowledged.
    Closed(CloseReason),
}

/// The terms on which the server let us in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The number to put into data packets; 0 where they name no peer ([`Layout::V1`]).
    pub peer_id: PeerId,
    /// The leased address and its netmask.
    pub address: Option<(Ipv4Addr, Ipv4Addr)>,
    /// What data packets look like.
    pub profile: Profile,
    /// All that was pushed, in order.
    pub options: Vec<String>,
}

/// Why the session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// We left.
    #[error("we left")]
    Exit,
    /// The server asks us to connect anew; the text says where.
    #[error("the server asks to connect anew: {0}")]
    Restart(String),
    /// The server tells us to go.
    #[error("the server tells us to go: {0}")]
    Halted(String),
    /// The server does not let us in.
    #[error("the server refuses us: {0}")]
    Refused(String),
    /// The server was not heard for `ping-restart`.
    #[error("the server has not been heard for ping-restart")]
    PingTimeout,
    /// The handshake failed.
    #[error("the handshake failed: {0}")]
    HandshakeFailed(String),
    /// A rekey failed and the old key ran out.
    #[error("a rekey failed and the old key ran out")]
    RekeyFailed,
    /// What the server pushed cannot be done.
    #[error("the server pushed what this client cannot do: {0}")]
    Incompatible(String),
}
