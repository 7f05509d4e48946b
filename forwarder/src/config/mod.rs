//! `server.conf` and the command line into one typed [`Config`].
//!
//! Three steps, each its own module: [`lexer`] splits the file into directives, the table names what becomes of each
//! and writes it into a [`Server`], [`tls`] reads the certificates it names. Only the last does IO; [`parse`] alone
//! is what the fuzzer calls.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

mod apply;
mod ciphers;
/// What a client's file says, typed.
pub mod client;
/// Files of `client-config-dir`.
pub mod clients;
mod compression;
/// What is wrong with a configuration, with file and line.
pub mod error;
mod fallback;
/// Several servers in one segment.
pub mod further;
/// What guards a segment against its own members.
pub mod guards;
/// The file's text into directives.
pub mod lexer;
/// Where the gateway listens.
pub mod listeners;
mod nearest;
mod negotiate;
mod per_client;
/// What of the configuration the OpenVPN protocol needs.
pub mod protocol;
mod routed;
/// What `trestle.toml` says, typed.
pub mod segments;
/// What `server.conf` says, typed.
pub mod server;
mod sizes;
mod table;
/// Certificates, keys and revocation lists.
pub mod tls;
mod tls_version;
mod words;
/// How control packets are wrapped.
pub mod wrapping;

pub use error::{Error, Level, Note, Place};
pub use further::Further;
pub use guards::Guards;
pub use listeners::{Family, Listener};
pub use server::{ClientFiles, HostAddress, LogFile, PoolFile, Server, Source, StatusFile};

use server::Draft;
use table::Class;
use words::Directive;

/// Everything `trestle run` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the file says in the words of both roles. Of a client's file `server` are what it has in common with a
    /// server's.
    pub server: Server,
    /// What the gateway is to the other end of its tunnels.
    pub role: Role,
    /// `--uplink`: the NIC on the wire and how to stand beside the host; `None`: peers and the host only.
    pub uplink: Option<Uplink>,
    /// `--bridge`: the kernel bridge whose ports are accelerated.
    pub bridge: Option<String>,
    /// `--workers`; `None`: one a receive queue.
    pub workers: Option<NonZeroUsize>,
    /// `--cpus`: where workers are pinned, in their order; empty: any.
    pub cpus: Vec<usize>,
    /// `--datapath`.
    pub datapath: Datapath,
    /// `--xdp`.
    pub xdp: XdpMode,
    /// Where the control socket is made.
    pub control: PathBuf,
    /// A station not heard for this long is forgotten.
    pub ageing: Duration,
    /// `--confirm`: everything is taken back unless somebody confirms within this time.
    pub confirm: Option<Duration>,
    /// What guards the segment against its own members.
    pub guards: Guards,
    /// The process that watches this one, which ends with it.
    pub supervisor: Option<u32>,
}

/// What the gateway is to the other end of its tunnels, with what only that role needs.
#[derive(Clone, Debug)]
pub enum Role {
    /// The server that clients call.
    Server {
        /// Its certificates, ready for use.
        tls: Arc<rustls::ServerConfig>,
        /// How control packets are wrapped, with the keys.
        wrappings: openvpn::server::Wrappings,
        /// Further servers of the same segment, each with clients of its own.
        further: Vec<Further>,
    },
    /// A client of one server.
    Client {
        /// Its file.
        file: Box<client::Client>,
        /// Its certificates, ready for use.
        tls: Arc<rustls::ClientConfig>,
        /// How control packets are wrapped, with the key.
        wrapping: wrapping::OfClient,
    },
    /// There are no tunnels: the ports of a kernel bridge are made faster, nothing else.
    Accelerator,
}

/// `--uplink NIC[:MODE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The NIC's name.
    pub nic: String,
    /// How the gateway stands beside the host.
    pub mode: UplinkMode,
}

/// How the gateway stands beside the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UplinkMode {
    /// The wire is a port of the segment; the host keeps its address on the NIC.
    Bridge,
    /// The wire carries only the tunnel; the host is on the segment through its own interface.
    Underlay,
}

/// `--datapath`: how frames come to the workers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
pub enum Datapath {
    /// AF_XDP where it can be had, else sockets.
    #[default]
    Auto,
    /// AF_XDP or nothing.
    AfXdp,
    /// The kernel's sockets only.
    Socket,
}

/// `--xdp`: where in the kernel XDP runs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
pub enum XdpMode {
    /// In the driver where it can, else behind it.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// Behind the driver.
    Generic,
}

/// Reads a server's file. Does no IO: `file` only names it in errors, and paths in it stay as they are.
///
/// # Errors
/// The first thing that is wrong, with file and line.
pub fn parse(bytes: &[u8], file: &Path) -> Result<Server, Error> {
    let mut draft = Draft::new(file);
    for line in lexer::lines(bytes, file)? {
        apply_line(&mut draft, &line, table::DIRECTIVES)?;
    }
    draft.finish()
}

/// Reads the server's file at `path`.
///
/// # Errors
/// The file cannot be read, or what [`parse`] finds.
pub fn read(path: &Path) -> Result<Server, Error> {
    let bytes = tls::read_bounded(path).map_err(|error| {
        Error::at(
            Place::file(path),
            format!("the configuration cannot be read: {}", tls::reason(&error)),
            "name an OpenVPN server configuration: `trestle run server.conf`",
        )
    })?;
    parse(&bytes, path)
}

fn apply_line(draft: &mut Draft, line: &lexer::Line, table: table::Table) -> Result<(), Error> {
    let directive = Directive { draft, line };
    let name = words::shown(&line.name);
    match table::class(table, &line.name) {
        Some(Class::Done(least, most, apply)) => {
            check_words(&directive, least, most)?;
            apply(directive)
        }
        Some(Class::Accepted(because)) => {
            let text = format!("`{name}` has no effect: {because}");
            draft.note(Level::Info, line.number, text);
            Ok(())
        }
        Some(Class::NotYet(cure)) => Err(directive.error(format!("`{name}` comes later"), cure)),
        Some(Class::Refused(because, cure)) => {
            Err(directive.error(format!("`{name}` is refused: {because}"), cure))
        }
        None => unknown(directive, &name, table),
    }
}

fn check_words(directive: &Directive<'_>, least: usize, most: usize) -> Result<(), Error> {
    let line = directive.line;
    let takes_block = matches!(
        line.name.as_str(),
        "ca" | "cert"
            | "key"
            | "dh"
            | "crl-verify"
            | "tls-auth"
            | "tls-crypt"
            | "tls-crypt-v2"
            | "connection"
    );
    if line.block.is_some() {
        return if takes_block {
            Ok(())
        } else {
            Err(directive.error(format!("`{}` takes no block", line.name), "write it in one line"))
        };
    }
    let least = if takes_block { 1 } else { least };
    if (least..=most).contains(&line.words.len()) {
        return Ok(());
    }
    let takes = match (least, most) {
        (0, 0) => "nothing behind it".to_owned(),
        (least, most) if least == most => format!("{least} behind it"),
        (least, most) => format!("{least} to {most} behind it"),
    };
    Err(directive.error(
        format!("`{}` has {} words behind it", line.name, line.words.len()),
        format!("it takes {takes}; quote what holds white space"),
    ))
}

fn unknown(directive: Directive<'_>, name: &str, table: table::Table) -> Result<(), Error> {
    let line = directive.line;
    if directive.draft.may_be_unknown.contains(&line.name) {
        let text = format!("`{name}` is unknown, as `ignore-unknown-option` allows");
        directive.draft.note(Level::Info, line.number, text);
        return Ok(());
    }
    let cure = match table::suggested(table, &line.name) {
        Some(known) => format!("perhaps `{known}` is meant"),
        None => "correct it or take the line out".to_owned(),
    };
    Err(directive.error(format!("`{name}` is not a directive of OpenVPN"), cure))
}

#[cfg(test)]
mod tests;
