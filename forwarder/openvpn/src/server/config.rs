//! What the server is told to do.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use super::{Directory, Share, Sizes, Wrappings};
use crate::data::{Cipher, Digest};

/// What the server does, from `server.conf`. Times not in the file have upstream's defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificates and protocol versions.
    pub tls: Arc<rustls::ServerConfig>,
    /// How clients' control packets are wrapped.
    pub wrappings: Wrappings,
    /// Seconds since 1970 at the moment that [`super::Server::new`] is given: replay protection counts from there.
    pub unix_s: u64,
    /// Data ciphers in order of preference.
    pub data_ciphers: Vec<Cipher>,
    /// `data-ciphers-fallback`: for clients that name no cipher at all.
    pub fallback_cipher: Option<Cipher>,
    /// `force-tls-key-material-export`: data keys come from the TLS exporter or not at all.
    pub exporter_only: bool,
    /// `auth`: what authenticates data packets whose cipher does not.
    pub digest: Digest,
    /// `keepalive`: the server pings after this much silence of its own; `None`: never.
    pub ping: Option<Duration>,
    /// The server drops a peer not heard for this long; `None`: never.
    pub ping_restart: Option<Duration>,
    /// Options pushed to every client, in order, before those the server adds (`ifconfig`, `peer-id`, ...).
    /// `compress` does not stand here.
    pub push: Vec<String>,
    /// Which compression framing clients are to use; each gets what it survives.
    pub compress: Compress,
    /// `allow-compression`.
    pub allow_compression: AllowCompression,
    /// Addresses to lease; `None`: no `ifconfig` is pushed.
    pub pool: Option<Pool>,
    /// Who had which address before the server was there (`ifconfig-pool-persist`).
    pub former: Former,
    /// `client-config-dir`.
    pub directory: Option<Arc<dyn Directory>>,
    /// Most peers at once.
    pub max_clients: usize,
    /// The peer ids it gives.
    pub share: Share,
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
    /// `fragment` and `mssfix`.
    pub sizes: Sizes,
}

impl Config {
    /// Upstream's defaults; nothing is pushed and no address leased.
    pub fn new(tls: Arc<rustls::ServerConfig>) -> Self {
        Self {
            tls,
            wrappings: Wrappings::default(),
            unix_s: 0,
            data_ciphers: Cipher::DEFAULT.to_vec(),
            digest: Digest::default(),
            fallback_cipher: None,
            exporter_only: false,
            ping: None,
            ping_restart: None,
            push: Vec::new(),
            compress: Compress::Off,
            allow_compression: AllowCompression::default(),
            pool: None,
            former: Former::default(),
            directory: None,
            max_clients: 1024,
            share: Share::default(),
            duplicate_cn: false,
            reneg: Some(Duration::from_secs(3600)),
            hand_window: Duration::from_secs(60),
            tran_window: Duration::from_secs(3600),
            connect_freq_initial: (100, Duration::from_secs(10)),
            exit_notify: None,
            tun_mtu: 1500,
            sizes: Sizes::default(),
        }
    }
}

/// Addresses of the pool and who had them last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Former {
    /// Names and addresses.
    pub holders: Vec<(String, Ipv4Addr)>,
    /// These addresses are for nobody else.
    pub fixed: bool,
}

/// `compress` and `comp-lzo` of the server's file, set or pushed. Source: brief A.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// None, or `compress migrate`: clients that have some in their own files are led away from it.
    Off,
    /// `compress lz4-v2`.
    Lz4V2,
    /// `compress stub-v2`.
    StubV2,
    /// `compress`, `compress stub`.
    Stub,
    /// `compress lz4`.
    Lz4,
    /// `compress lzo`, `comp-lzo`, `comp-lzo yes`, `comp-lzo adaptive`.
    Lzo,
    /// `comp-lzo no`.
    LzoNo,
}

/// `allow-compression`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllowCompression {
    /// What clients compress is decompressed; nothing is compressed here.
    #[default]
    Asym,
    /// Frames are compressed, where the framing agreed has LZ4.
    Yes,
    /// Clients are offered framings without compression only.
    No,
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
