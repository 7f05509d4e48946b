//! A client's file (`client.ovpn`), typed: what `trestle join` needs to know.
//!
//! Read like a server's file, by the same lexer and with the same words for the same things; only the [table] is the
//! client's own.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use openvpn::{client::PullFilter, server::Transport};

use super::{
    Level,
    error::{Error, Place},
    lexer,
    listeners::{Family, Listener},
    server::{Draft, Server},
    tls,
};

mod apply;
/// Where a server may be.
mod remote;
pub(super) mod table;
/// The server's certificate, and our own.
mod tls_rules;

pub use remote::Remote;
pub use tls_rules::NameRule;

/// A client's configuration as its file has it, with upstream's defaults for what it leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// What both roles' files say in the same words. The one listener is where answers come to; port 0: any.
    pub common: Server,
    /// The `remote` lines, at least one.
    pub remotes: Vec<Remote>,
    /// `remote-random`: they are shuffled once, at the start.
    pub remote_random: bool,
    /// `connect-retry`: the pause after a failure, and the longest it grows to.
    pub retry: (Duration, Duration),
    /// `connect-retry-max`: how often each remote is tried before we give up.
    pub attempts: Option<u32>,
    /// `connect-timeout`: a server that says nothing for this long is given up.
    pub answer_timeout: Duration,
    /// `ping`, until the server pushes one.
    pub ping: Option<Duration>,
    /// `ping-restart`, until the server pushes one.
    pub ping_restart: Option<Duration>,
    /// A server that falls silent ends the gateway (`ping-exit`) instead of having it connect anew.
    pub exit_on_silence: bool,
    /// `explicit-exit-notify`: servers that want to hear it on the data channel are told that we leave.
    pub exit_notify: bool,
    /// `float`: the server may move to another address.
    pub float: bool,
    /// `remote-cert-tls server`: its certificate must say that it is a server's.
    pub require_server_usage: bool,
    /// `verify-x509-name`.
    pub server_name: Option<NameRule>,
    /// `pull-filter`, in their order.
    pub pull_filters: Vec<PullFilter>,
}

/// What only a client's file says, so far.
#[derive(Debug, Default)]
pub(super) struct ClientDraft {
    remotes: Vec<remote::Line>,
    remote_random: bool,
    remote_port: Option<u16>,
    /// `port`: both ends', unless one has its own.
    port: Option<u16>,
    local: Option<Ipv4Addr>,
    local_port: Option<u16>,
    nobind: bool,
    retry: Option<(Duration, Duration)>,
    attempts: Option<u32>,
    answer_timeout: Option<Duration>,
    ping: Option<Duration>,
    /// `Some(None)`: switched off.
    ping_restart: Option<Option<Duration>>,
    exit_on_silence: bool,
    exit_notify: bool,
    float: bool,
    require_server_usage: bool,
    server_name: Option<NameRule>,
    pull_filters: Vec<PullFilter>,
}

/// Port of both ends without a word about it. Source: IANA, and upstream's OPENVPN_PORT.
const PORT: u16 = 1194;
/// Source: `init_options` of options.c.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Until the server pushes another. Source: PRE_PULL_INITIAL_PING_RESTART of options.h.
const PING_RESTART: Duration = Duration::from_secs(120);
/// Most stations behind the server's peer: there is a LAN.
const MACS: usize = u16::MAX as usize;

/// Reads a client's file. Does no IO: `file` only names it in errors, and paths in it stay as they are.
///
/// # Errors
/// The first thing that is wrong, with file and line.
pub fn parse(bytes: &[u8], file: &Path) -> Result<Client, Error> {
    let mut draft = Draft::new(file);
    for line in lexer::lines(bytes, file)? {
        super::apply_line(&mut draft, &line, table::DIRECTIVES)?;
    }
    finish(draft)
}

/// Reads the client's file at `path`.
///
/// # Errors
/// The file cannot be read, or what [`parse`] finds.
pub fn read(path: &Path) -> Result<Client, Error> {
    let bytes = tls::read_bounded(path).map_err(|error| {
        Error::at(
            Place::file(path),
            format!("the configuration cannot be read: {}", tls::reason(&error)),
            "name an OpenVPN client profile: `trestle join client.ovpn`",
        )
    })?;
    parse(&bytes, path)
}

/// Checks what no directive can check alone, and adds what follows from several.
fn finish(mut draft: Draft) -> Result<Client, Error> {
    let file = draft.server.file.clone();
    let place = |line| Place::line(&file, line);
    draft.compressing.check(place)?;
    draft.sizing.finish(&mut draft.server, place)?;
    draft.apply_device()?;
    draft.apply_process();
    draft.apply_certificates("the certificate that signed the server's one", "this client's")?;
    let client = std::mem::take(&mut draft.client);
    let keepalive = draft
        .keepalive
        .map(|(ping, restart)| (Duration::from_secs(ping.into()), Some(Duration::from_secs(restart.into()))));
    let port = client.remote_port.or(client.port).unwrap_or(PORT);
    let remotes: Vec<Remote> = client.remotes.into_iter().map(|line| line.with_port(port)).collect();
    if remotes.is_empty() {
        let place = Place::file(&draft.server.file);
        return Err(Error::at(
            place,
            "`remote` is missing",
            "name the server: `remote vpn.example.com 1194`",
        ));
    }
    let mut common = draft.server;
    let port = match (client.nobind, client.local_port.or(client.port)) {
        (false, Some(port)) => port,
        _ => 0,
    };
    let address = client.local.map(IpAddr::V4);
    common.listeners = vec![Listener { transport: Transport::Udp, family: Family::V4, address, port }];
    common.max_macs_per_peer = MACS;
    common.max_clients = 1;
    Ok(Client {
        remotes,
        remote_random: client.remote_random,
        retry: client.retry.unwrap_or(RETRY),
        attempts: client.attempts,
        answer_timeout: client.answer_timeout.unwrap_or(ANSWER_TIMEOUT),
        ping: client.ping.or(keepalive.map(|(ping, _)| ping)),
        ping_restart: client
            .ping_restart
            .or(keepalive.map(|(_, restart)| restart))
            .unwrap_or(Some(PING_RESTART)),
        exit_on_silence: client.exit_on_silence,
        exit_notify: client.exit_notify,
        float: client.float,
        require_server_usage: client.require_server_usage,
        pull_filters: client.pull_filters,
        server_name: note_unverified(&mut common, client.server_name, client.require_server_usage),
        common,
    })
}

/// As upstream warns: any client of the same authority could pass for the server.
fn note_unverified(common: &mut Server, name: Option<NameRule>, usage: bool) -> Option<NameRule> {
    if name.is_none() && !usage {
        common.notes.push(super::Note {
            level: Level::Warning,
            place: Place::file(&common.file),
            text: "neither `remote-cert-tls server` nor `verify-x509-name`: any certificate of `ca` that may be a server's passes for the server".into(),
        });
    }
    name
}

#[cfg(test)]
mod tests;
