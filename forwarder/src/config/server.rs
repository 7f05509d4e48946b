//! What `server.conf` says, typed: the result of [`super::parse`].

use std::{
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use openvpn::{
    data::{Cipher, Digest},
    server::{AllowCompression, Compress, ExitNotify, Pool, Sizes},
    tls::Versions,
};

use super::{
    client::ClientDraft,
    compression::Compressing,
    error::{Error, Level, Note, Place},
    fallback::Old,
    listeners::{Listener, Listening},
    sizes::Sizing,
    tls_version::Bounds,
};
use crate::management::status_file::Version;

/// A server's configuration as its file has it, with upstream's defaults for what it leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// `cd`: where relative paths begin; `None`: the current directory.
    pub directory: Option<PathBuf>,
    /// Where clients reach the gateway: `local`, `port` and `proto`; at least one.
    pub listeners: Vec<Listener>,
    /// `tcp-queue-limit`: packets that may wait to be sent to one client over TCP.
    pub tcp_queue_limit: usize,
    /// `dev`: the host port's name; `None` for bare `dev tap`, where the kernel chooses.
    pub device: Option<String>,
    /// `tun-mtu`: the segment's largest frame without its Ethernet header, in bytes.
    pub tun_mtu: u16,
    /// `fragment` and `mssfix`.
    pub sizes: Sizes,
    /// `ca`.
    pub ca: Source,
    /// `cert`.
    pub cert: Source,
    /// `key`.
    pub key: Source,
    /// `crl-verify`.
    pub crl: Option<Source>,
    /// `dh`: only looked for, since keys are agreed over elliptic curves.
    pub dh: Option<Source>,
    /// `tls-version-min` and `tls-version-max`.
    pub tls_versions: Versions,
    /// `tls-auth`, `tls-crypt`, `tls-crypt-v2`.
    pub wrapping: super::wrapping::Files,
    /// `remote-cert-tls client`: a client's certificate must say that it is for clients.
    pub require_client_usage: bool,
    /// Addresses to lease, from `server-bridge`.
    pub pool: Option<Pool>,
    /// `ifconfig-pool-persist`.
    pub pool_file: Option<PoolFile>,
    /// `client-config-dir`.
    pub client_files: Option<ClientFiles>,
    /// The host's own address on the segment, from `server` or `ifconfig`.
    pub host_address: Option<HostAddress>,
    /// `client-to-client`: without it peers reach the wire and the host, not one another.
    pub client_to_client: bool,
    /// The server pings after this much silence of its own.
    pub ping: Option<Duration>,
    /// A peer not heard for this long is dropped; twice what clients are told, as upstream.
    pub ping_restart: Option<Duration>,
    /// `data-ciphers`, in order of preference.
    pub data_ciphers: Vec<Cipher>,
    /// `data-ciphers-fallback`: for clients that name no cipher.
    pub fallback_cipher: Option<Cipher>,
    /// `force-tls-key-material-export`.
    pub exporter_only: bool,
    /// `auth`: what authenticates packets whose cipher does not.
    pub digest: Digest,
    /// `compress`, also where it is only pushed.
    pub compress: Compress,
    /// `allow-compression`.
    pub allow_compression: AllowCompression,
    /// Options pushed to every client, in upstream's order; `compress` does not stand here.
    pub push: Vec<String>,
    /// `max-clients`.
    pub max_clients: usize,
    /// `max-routes-per-client`: most stations behind a peer.
    pub max_macs_per_peer: usize,
    /// `stale-routes-check`: after how long without a frame a station is forgotten.
    pub ageing: Option<Duration>,
    /// `duplicate-cn`.
    pub duplicate_cn: bool,
    /// `reneg-sec`; `None`: the server never begins a rekey by time.
    pub reneg: Option<Duration>,
    /// `hand-window`.
    pub hand_window: Duration,
    /// `tran-window`.
    pub tran_window: Duration,
    /// `connect-freq-initial`: stateless answers per period; `None`: as `max-clients` needs.
    pub connect_freq_initial: Option<(u32, Duration)>,
    /// `explicit-exit-notify`.
    pub exit_notify: Option<ExitNotify>,
    /// `sndbuf` of the tunnel's socket, in bytes.
    pub sndbuf_bytes: Option<usize>,
    /// `rcvbuf` of the tunnel's socket, in bytes.
    pub rcvbuf_bytes: Option<usize>,
    /// `user`, by name: looked up when privileges are given up.
    pub user: Option<String>,
    /// `group`, by name.
    pub group: Option<String>,
    /// `status`.
    pub status: Option<StatusFile>,
    /// `log` or `log-append`, whichever stands first.
    pub log: Option<LogFile>,
    /// `writepid`.
    pub pid_file: Option<PathBuf>,
    /// `verb`, 0..=11; 3 is an ordinary log.
    pub verb: u8,
    /// What the operator should read although the gateway starts.
    pub notes: Vec<Note>,
}

/// A file named by a directive, or the text in its place.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A path, as it stands in the directive on `line`.
    File {
        /// The path.
        path: PathBuf,
        /// The directive's line.
        line: u32,
    },
    /// An inline block that begins on `line`.
    Inline {
        /// What it holds.
        text: String,
        /// The block's first line.
        line: u32,
    },
}

/// Without an inline block's text, which may be a private key.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => {
                f.debug_struct("File").field("path", path).field("line", line).finish()
            }
            Self::Inline { line, .. } => f.debug_struct("Inline").field("line", line).finish_non_exhaustive(),
        }
    }
}

/// The address that the host's interface on the segment gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// Its subnet.
    pub netmask: Ipv4Addr,
    /// The line that says so.
    pub line: u32,
}

/// `status FILE [SECONDS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusFile {
    /// The file.
    pub path: PathBuf,
    /// How often it is written.
    pub interval: Duration,
    /// In which form.
    pub version: Version,
}

/// `ifconfig-pool-persist FILE [SECONDS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolFile {
    /// The file.
    pub path: PathBuf,
    /// How often it is written; `None`: it is only read, and its addresses are for nobody else.
    pub interval: Option<Duration>,
}

/// `client-config-dir DIR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// Where the files are.
    pub directory: PathBuf,
    /// `ccd-exclusive`: who has no file may not in.
    pub exclusive: bool,
}

/// `log FILE` or `log-append FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The file.
    pub path: PathBuf,
    /// True for `log-append`; `log` empties the file at the start.
    pub append: bool,
}

impl Server {
    /// Of a gateway without tunnels, where no file says anything: nobody is listened to.
    pub fn none() -> Self {
        Self { verb: 3, ..defaults(Path::new("")) }
    }
}

/// What has been read so far: every directive writes its part, [`Draft::finish`] checks the whole.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) server: Server,
    pub(super) listening: Listening,
    pub(super) compressing: Compressing,
    pub(super) sizing: Sizing,
    pub(super) ca: Option<Source>,
    pub(super) cert: Option<Source>,
    pub(super) key: Option<Source>,
    pub(super) status_version: Version,
    pub(super) keepalive: Option<(u32, u32)>,
    /// `ping` and `ping-restart` stood on this line.
    pub(super) own_ping: Option<u32>,
    pub(super) dev: Option<(String, u32)>,
    pub(super) dev_type_tap: bool,
    pub(super) mode_server: bool,
    pub(super) tls_bounds: Bounds,
    pub(super) old: Old,
    /// The line of `ccd-exclusive`.
    pub(super) ccd_exclusive: Option<u32>,
    /// The line of `ifconfig-pool-persist`.
    pub(super) pool_file_line: u32,
    pub(super) bridge: Option<Bridge>,
    /// What only a client's file says.
    pub(super) client: ClientDraft,
    /// `ifconfig-pool`: first and last address, mask, line.
    pub(super) ifconfig_pool: Option<(Ipv4Addr, Ipv4Addr, Option<Ipv4Addr>, u32)>,
    /// `ignore-unknown-option`.
    pub(super) may_be_unknown: Vec<String>,
}

/// What `server-bridge` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bridge {
    /// `server-bridge GATEWAY NETMASK FIRST LAST`.
    Pool { pool: Pool, line: u32 },
    /// `server-bridge`: clients ask the LAN's DHCP, and take their route from it.
    Dhcp,
    /// `server-bridge nogw`.
    NoGateway,
    /// `server NETWORK NETMASK nopool`: clients have addresses of their own, and this gateway.
    Gateway(Ipv4Addr),
}

impl Draft {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            server: defaults(file),
            listening: Listening::default(),
            compressing: Compressing::default(),
            sizing: Sizing::default(),
            ca: None,
            cert: None,
            key: None,
            status_version: Version::One,
            keepalive: None,
            own_ping: None,
            dev: None,
            dev_type_tap: false,
            mode_server: false,
            tls_bounds: Bounds::default(),
            old: Old::default(),
            ccd_exclusive: None,
            pool_file_line: 0,
            bridge: None,
            client: ClientDraft::default(),
            ifconfig_pool: None,
            may_be_unknown: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, level: Level, line: u32, text: impl Into<String>) {
        let place = Place::line(&self.server.file, line);
        self.server.notes.push(Note { level, place, text: text.into() });
    }

    /// Checks what no directive can check alone, and adds what follows from several.
    pub(super) fn finish(mut self) -> Result<Server, Error> {
        self.server.listeners = self.listening.finish(|line| Place::line(&self.server.file, line))?;
        self.compressing.check(|line| Place::line(&self.server.file, line))?;
        let file = self.server.file.clone();
        self.sizing.finish(&mut self.server, |line| Place::line(&file, line))?;
        self.apply_device()?;
        self.apply_bridge()?;
        self.apply_ifconfig_pool()?;
        self.apply_keepalive()?;
        self.apply_per_client()?;
        self.apply_compat();
        self.apply_certificates("the certificate that signed the clients' ones", "the server's")?;
        self.apply_process();
        Ok(self.server)
    }

    /// What the process is told in several directives.
    pub(super) fn apply_process(&mut self) {
        if let Some(status) = &mut self.server.status {
            status.version = self.status_version;
        }
    }

    /// Both roles need certificates: `signer` is their authority's, `ours` says whose the others are.
    pub(super) fn apply_certificates(&mut self, signer: &str, ours: &str) -> Result<(), Error> {
        let file = self.server.file.clone();
        let missing = |name: &str, what: &str| {
            Error::at(Place::file(&file), format!("`{name}` is missing"), format!("name {what}"))
        };
        self.server.ca = self.ca.take().ok_or_else(|| missing("ca", signer))?;
        self.server.cert = self.cert.take().ok_or_else(|| missing("cert", &format!("{ours} certificate")))?;
        self.server.key = self.key.take().ok_or_else(|| missing("key", &format!("{ours} private key")))?;
        Ok(())
    }

    pub(super) fn apply_device(&mut self) -> Result<(), Error> {
        let Some((name, line)) = self.dev.take() else {
            return Err(Error::at(
                Place::file(&self.server.file),
                "`dev` is missing",
                "write `dev tap0`: the host's interface on the segment",
            ));
        };
        let place = Place::line(&self.server.file, line);
        if name == "tap" {
            return Ok(());
        }
        if name.starts_with("tun") && !self.dev_type_tap {
            return Err(Error::at(
                place,
                "`dev tun` carries IP packets, and this gateway Ethernet frames",
                "write `dev tap0` here and in the clients' files, or keep OpenVPN for this network",
            ));
        }
        if !name.starts_with("tap") && !self.dev_type_tap {
            return Err(Error::at(
                place,
                format!("`dev {name}` does not say what kind of device it is"),
                "add `dev-type tap`",
            ));
        }
        self.server.device = Some(name);
        Ok(())
    }

    fn apply_bridge(&mut self) -> Result<(), Error> {
        match self.bridge {
            Some(Bridge::Pool { pool, line }) => {
                self.note_unleased(pool, line);
                self.server.pool = Some(pool);
                self.server.push.push(format!("route-gateway {}", pool.gateway));
            }
            Some(Bridge::Dhcp) => self.server.push.push("route-gateway dhcp".into()),
            Some(Bridge::Gateway(gateway)) => self.server.push.push(format!("route-gateway {gateway}")),
            Some(Bridge::NoGateway) => {}
            None if self.mode_server => {}
            None => {
                return Err(Error::at(
                    Place::file(&self.server.file),
                    "the file is not a server's: it has neither `server-bridge` nor `mode server`",
                    "add `server-bridge GATEWAY NETMASK FIRST LAST`",
                ));
            }
        }
        Ok(())
    }

    /// `ifconfig-pool` without a helper: the mask is its own or `ifconfig`'s.
    fn apply_ifconfig_pool(&mut self) -> Result<(), Error> {
        let Some((first, last, mask, line)) = self.ifconfig_pool else { return Ok(()) };
        let host = self.server.host_address;
        let Some(netmask) = mask.or_else(|| host.map(|host| host.netmask)) else {
            return Err(Error::at(
                Place::line(&self.server.file, line),
                "`ifconfig-pool` has no mask",
                "write it behind the last address: `ifconfig-pool 10.8.0.2 10.8.0.254 255.255.255.0`",
            ));
        };
        // Without an address of the host's own there is none to leave out.
        let gateway = host.map_or(Ipv4Addr::UNSPECIFIED, |host| host.address);
        if first.to_bits() & netmask.to_bits() != last.to_bits() & netmask.to_bits()
            || last < first
            || last.to_bits() - first.to_bits() >= super::apply::POOL_MAX
        {
            return Err(Error::at(
                Place::line(&self.server.file, line),
                format!("{first} to {last} is no pool of one subnet"),
                "name its first address before its last, at most 65536 in all",
            ));
        }
        let pool = Pool { gateway, netmask, first, last };
        self.note_unleased(pool, line);
        self.server.pool = Some(pool);
        Ok(())
    }

    /// The first to say it counts, as in upstream's helpers.
    pub(super) fn host_address(&mut self, address: HostAddress) {
        self.server.host_address.get_or_insert(address);
    }

    fn note_unleased(&mut self, pool: Pool, line: u32) {
        let mask = pool.netmask.to_bits();
        let network = pool.gateway.to_bits() & mask;
        let special = [
            (Ipv4Addr::from_bits(network), "the subnet itself"),
            (Ipv4Addr::from_bits(network | !mask), "the subnet's broadcast address"),
            (pool.gateway, "the gateway's own address"),
        ];
        for (address, what) in special {
            if (pool.first..=pool.last).contains(&address) {
                let text = format!("the pool includes {address}, {what}: it is never leased");
                self.note(Level::Warning, line, text);
            }
        }
    }

    /// Source: helper.c `helper_keepalive`: the server waits twice as long as it tells its clients to.
    fn apply_keepalive(&mut self) -> Result<(), Error> {
        let Some((interval, timeout)) = self.keepalive else { return Ok(()) };
        if let Some(line) = self.own_ping {
            return Err(Error::at(
                Place::line(&self.server.file, line),
                "`keepalive` says this already",
                "keep `keepalive` and take this line out",
            ));
        }
        self.server.ping = Some(Duration::from_secs(interval.into()));
        self.server.ping_restart = Some(Duration::from_secs(u64::from(timeout) * 2));
        self.server.push.push(format!("ping {interval}"));
        self.server.push.push(format!("ping-restart {timeout}"));
        Ok(())
    }
}

/// Source: `init_options` of options.c (brief, section 0).
fn defaults(file: &Path) -> Server {
    let nothing = Source::Inline { text: String::new(), line: 0 };
    Server {
        file: file.to_owned(),
        directory: None,
        listeners: Vec::new(),
        tcp_queue_limit: 64,
        device: None,
        tun_mtu: 1500,
        sizes: Sizes::default(),
        ca: nothing.clone(),
        cert: nothing.clone(),
        key: nothing,
        crl: None,
        dh: None,
        tls_versions: Versions::All,
        wrapping: super::wrapping::Files::default(),
        require_client_usage: false,
        pool: None,
        pool_file: None,
        client_files: None,
        host_address: None,
        client_to_client: false,
        ping: None,
        ping_restart: None,
        data_ciphers: Cipher::DEFAULT.to_vec(),
        digest: Digest::default(),
        fallback_cipher: None,
        exporter_only: false,
        compress: Compress::Off,
        allow_compression: AllowCompression::default(),
        push: Vec::new(),
        max_clients: 1024,
        max_macs_per_peer: 256,
        ageing: None,
        duplicate_cn: false,
        reneg: Some(Duration::from_secs(3600)),
        hand_window: Duration::from_secs(60),
        tran_window: Duration::from_secs(3600),
        connect_freq_initial: None,
        exit_notify: None,
        sndbuf_bytes: None,
        rcvbuf_bytes: None,
        user: None,
        group: None,
        status: None,
        log: None,
        pid_file: None,
        verb: 1,
        notes: Vec::new(),
    }
}
