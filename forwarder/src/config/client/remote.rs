//! `remote HOST [PORT] [PROTO]`, and the same within `<connection>`.

use std::{fmt, net::IpAddr};

use crate::config::{
    apply::Done,
    error::Error,
    lexer,
    words::{Directive, shown},
};

/// Where a server may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// A name or an address, as it stands in the file.
    pub host: String,
    /// The server's port.
    pub port: u16,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A `remote` line as it stands, before the whole file is known.
#[derive(Debug)]
pub(super) struct Line {
    host: String,
    port: Option<u16>,
}

impl Line {
    /// The line where `port` is the one of lines without their own.
    pub(super) fn with_port(self, port: u16) -> Remote {
        Remote { host: self.host, port: self.port.unwrap_or(port) }
    }
}

/// Most `remote` lines taken: upstream's CONNECTION_LIST_SIZE.
const MAX_REMOTES: usize = 64;

pub(super) fn remote(d: Directive<'_>) -> Done {
    let line = read(&d)?;
    add(d, line)
}

fn read(d: &Directive<'_>) -> Result<Line, Error> {
    let host = d.word(0)?.to_owned();
    let possible = host.len() <= 253 && host.bytes().all(|byte| byte.is_ascii_graphic());
    if !possible {
        return Err(d.error(
            format!("`{}` cannot be a host's name", shown(&host)),
            "write `remote vpn.example.com 1194`",
        ));
    }
    let port = d.optional(1).map(|_| d.number(1, 1..=u16::MAX)).transpose()?;
    if d.optional(2).is_some() {
        check_proto(d, 2)?;
    }
    Ok(Line { host, port })
}

fn add(d: Directive<'_>, line: Line) -> Done {
    if d.draft.client.remotes.len() == MAX_REMOTES {
        return Err(d.error("there are more than 64 remotes", "keep those that are in use"));
    }
    d.draft.client.remotes.push(line);
    Ok(())
}

/// What the tunnel is carried by.
pub(super) fn check_proto(d: &Directive<'_>, index: usize) -> Done {
    match d.word(index)? {
        "udp" | "udp4" => Ok(()),
        "udp6" => Err(d.error("IPv6 outside comes later for clients", "write `proto udp` for now")),
        "tcp" | "tcp4" | "tcp6" | "tcp-client" | "tcp4-client" | "tcp6-client" => {
            Err(d.error("TCP comes later for clients", "write `proto udp`, if the server listens there too"))
        }
        _ => Err(d.not_among(index, "`udp`")),
    }
}

/// `<connection>`: one `remote`, and what concerns it alone.
pub(super) fn connection(d: Directive<'_>) -> Done {
    let Some(block) = &d.line.block else {
        return Err(d.error("`connection` is a block", "write <connection>, one `remote`, </connection>"));
    };
    let mut remote = None;
    let mut port = None;
    // Errors name the block's own line: its lines are counted from there.
    let lines = lexer::lines(block.as_bytes(), &d.draft.server.file).map_err(|mut error| {
        let place = error.place.as_mut().and_then(|place| place.line.as_mut());
        place.into_iter().for_each(|number| *number = number.saturating_add(d.line.number));
        error
    })?;
    for mut line in lines {
        line.number = line.number.saturating_add(d.line.number);
        let inner = Directive { draft: &mut *d.draft, line: &line };
        match line.name.as_str() {
            "remote" => remote = Some(read(&inner)?),
            "proto" => check_proto(&inner, 0)?,
            "port" | "rport" => port = Some(inner.number(0, 1..=u16::MAX)?),
            "nobind"
            | "bind"
            | "float"
            | "tun-mtu"
            | "mssfix"
            | "connect-timeout"
            | "server-poll-timeout"
            | "connect-retry"
            | "connect-retry-max"
            | "explicit-exit-notify" => {
                return Err(inner.error(
                    format!("`{}` of one remote alone comes later", line.name),
                    "write it outside of the block, for all remotes",
                ));
            }
            name => {
                return Err(inner.error(
                    format!("`{}` is not known within <connection>", shown(name)),
                    "write `remote`, `proto` and `port` there, and the rest outside",
                ));
            }
        }
    }
    let Some(mut remote) = remote else {
        return Err(d.error("the block <connection> names no `remote`", "add `remote HOST PORT` to it"));
    };
    remote.port = remote.port.or(port);
    add(d, remote)
}
