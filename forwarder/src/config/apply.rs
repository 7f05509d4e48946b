//! What each directive does to the draft: one function each, named in the [table](super::table).

use std::{net::Ipv4Addr, time::Duration};

use openvpn::server::{ExitNotify, Pool};

use super::{
    error::{Error, Level},
    server::{Bridge, LogFile, StatusFile},
    words::{Directive, shown},
};
use crate::management::status_file::Version;

/// What applying a directive gives.
pub(super) type Done = Result<(), Error>;

// Where the gateway listens: besides, `listeners`.

pub(super) fn sndbuf(d: Directive<'_>) -> Done {
    d.draft.server.sndbuf_bytes = buffer(&d)?;
    Ok(())
}

pub(super) fn rcvbuf(d: Directive<'_>) -> Done {
    d.draft.server.rcvbuf_bytes = buffer(&d)?;
    Ok(())
}

/// Bytes of a socket's buffer; 0 leaves the kernel's default.
fn buffer(d: &Directive<'_>) -> Result<Option<usize>, Error> {
    Ok(Some(d.number(0, 0..=1_usize << 30)?).filter(|&bytes| bytes > 0))
}

// The segment and the device on it.

pub(super) fn dev(d: Directive<'_>) -> Done {
    let name = d.word(0)?.to_owned();
    // IFNAMSIZ - 1 bytes; the kernel takes neither a slash nor white space.
    let possible = name.len() <= 15
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'))
        && !matches!(name.as_str(), "." | "..");
    if !possible {
        return Err(d.error(
            format!("`{}` cannot be an interface's name", shown(&name)),
            "write `dev tap0`: at most 15 letters and digits",
        ));
    }
    d.draft.dev = Some((name, d.line.number));
    Ok(())
}

pub(super) fn dev_type(d: Directive<'_>) -> Done {
    match d.word(0)? {
        "tap" => d.draft.dev_type_tap = true,
        "tun" => {
            return Err(d.error(
                "`dev-type tun` carries IP packets, and this gateway Ethernet frames",
                "write `dev-type tap` here and in the clients' files, or keep OpenVPN for this network",
            ));
        }
        _ => return Err(d.not_among(0, "`dev-type tap`")),
    }
    Ok(())
}

pub(super) fn mode(d: Directive<'_>) -> Done {
    match d.word(0)? {
        "server" => d.draft.mode_server = true,
        "p2p" => {
            return Err(d.error(
                "`mode p2p` joins two machines only",
                "write `mode server`, and in the other's file `client`",
            ));
        }
        _ => return Err(d.not_among(0, "`mode server`")),
    }
    Ok(())
}

/// Source: options.c, helper.c `helper_server`: `nogw`, nothing (the LAN's DHCP), or four addresses.
pub(super) fn server_bridge(d: Directive<'_>) -> Done {
    d.draft.bridge = Some(match d.line.words.len() {
        0 => Bridge::Dhcp,
        1 if d.word(0)? == "nogw" => Bridge::NoGateway,
        4 => Bridge::Pool { pool: pool(&d)?, line: d.line.number },
        _ => {
            return Err(d.error(
                "`server-bridge` takes four addresses, `nogw` or nothing",
                "write `server-bridge GATEWAY NETMASK FIRST LAST`",
            ));
        }
    });
    Ok(())
}

/// Largest pool upstream takes (`IFCONFIG_POOL_MAX`).
pub(super) const POOL_MAX: u32 = 65_536;

fn pool(d: &Directive<'_>) -> Result<Pool, Error> {
    let pool =
        Pool { gateway: d.address(0)?, netmask: d.address(1)?, first: d.address(2)?, last: d.address(3)? };
    let mask = pool.netmask.to_bits();
    if mask.leading_ones() + mask.trailing_zeros() != 32 || mask.leading_ones() > 30 || mask == 0 {
        return Err(d.error(format!("{} is not a subnet's mask", pool.netmask), "write one as 255.255.255.0"));
    }
    let outside = |address: Ipv4Addr| address.to_bits() & mask != pool.gateway.to_bits() & mask;
    if let Some(address) = [pool.first, pool.last].into_iter().find(|&address| outside(address)) {
        return Err(d.error(
            format!("{address} is not in the subnet of {}", pool.gateway),
            "name a pool within the gateway's subnet, or a wider mask",
        ));
    }
    if pool.last < pool.first || pool.last.to_bits() - pool.first.to_bits() >= POOL_MAX {
        return Err(d.error(
            format!("{} to {} is no pool", pool.first, pool.last),
            "name its first address before its last, at most 65536 in all",
        ));
    }
    Ok(pool)
}

pub(super) fn client_to_client(d: Directive<'_>) -> Done {
    d.draft.server.client_to_client = true;
    Ok(())
}

// Certificates: only named here, read by `tls`.

pub(super) fn ca(d: Directive<'_>) -> Done {
    d.draft.ca = Some(d.source()?);
    Ok(())
}

pub(super) fn cert(d: Directive<'_>) -> Done {
    d.draft.cert = Some(d.source()?);
    Ok(())
}

pub(super) fn key(d: Directive<'_>) -> Done {
    d.draft.key = Some(d.source()?);
    Ok(())
}

pub(super) fn dh(d: Directive<'_>) -> Done {
    d.draft.server.dh = if d.optional(0) == Some("none") { None } else { Some(d.source()?) };
    Ok(())
}

pub(super) fn crl_verify(d: Directive<'_>) -> Done {
    if d.optional(1).is_some() {
        return Err(d.error(
            "a directory of revoked serial numbers comes later",
            "name a file with a CRL in PEM form",
        ));
    }
    d.draft.server.crl = Some(d.source()?);
    d.draft.note(
        Level::Info,
        d.line.number,
        "`crl-verify` is read at the start only: restart the gateway after revoking a certificate",
    );
    Ok(())
}

pub(super) fn remote_cert_tls(d: Directive<'_>) -> Done {
    if d.word(0)? != "client" {
        return Err(d.not_among(0, "`remote-cert-tls client` in a server's file"));
    }
    d.draft.server.require_client_usage = true;
    Ok(())
}

pub(super) fn verify_client_cert(d: Directive<'_>) -> Done {
    match d.optional(0) {
        Some("require") => Ok(()),
        Some("none" | "optional") | None => Err(d.error(
            "clients without a certificate come later",
            "write `verify-client-cert require`, and give each client a certificate",
        )),
        Some(_) => Err(d.not_among(0, "`verify-client-cert require`")),
    }
}

// Sessions.

pub(super) fn keepalive(d: Directive<'_>) -> Done {
    let interval: u32 = d.number(0, 1..=86_400)?;
    let timeout: u32 = d.number(1, 1..=86_400)?;
    if timeout < interval * 2 {
        return Err(d.error(
            "the second number of `keepalive` must be at least twice the first",
            "write for instance `keepalive 10 120`",
        ));
    }
    d.draft.keepalive = Some((interval, timeout));
    Ok(())
}

pub(super) fn ping(d: Directive<'_>) -> Done {
    d.draft.server.ping = Some(d.seconds(0, 0)?).filter(|time| !time.is_zero());
    d.draft.own_ping = Some(d.line.number);
    Ok(())
}

pub(super) fn ping_restart(d: Directive<'_>) -> Done {
    d.draft.server.ping_restart = Some(d.seconds(0, 0)?).filter(|time| !time.is_zero());
    d.draft.own_ping = Some(d.line.number);
    Ok(())
}

pub(super) fn max_clients(d: Directive<'_>) -> Done {
    // A peer_id has 24 bits, and the highest value means none.
    d.draft.server.max_clients = d.number(0, 1..=0x00ff_fffe)?;
    Ok(())
}

pub(super) fn max_routes_per_client(d: Directive<'_>) -> Done {
    d.draft.server.max_macs_per_peer = d.number(0, 1..=usize::from(u16::MAX))?;
    Ok(())
}

/// `stale-routes-check AGE [INTERVAL]`. Ours is checked all the time, so the interval says nothing.
pub(super) fn stale_routes_check(d: Directive<'_>) -> Done {
    d.number_or(1, 1..=86_400_u32, 1)?;
    d.draft.server.ageing = Some(d.seconds(0, 1)?);
    Ok(())
}

pub(super) fn duplicate_cn(d: Directive<'_>) -> Done {
    d.draft.server.duplicate_cn = true;
    Ok(())
}

/// `reneg-sec MAX [MIN]`: upstream picks a time between; we the longest.
pub(super) fn reneg_sec(d: Directive<'_>) -> Done {
    d.number_or(1, 0..=u32::MAX, 0)?;
    d.draft.server.reneg = Some(d.seconds(0, 0)?).filter(|time| !time.is_zero());
    Ok(())
}

pub(super) fn hand_window(d: Directive<'_>) -> Done {
    d.draft.server.hand_window = d.seconds(0, 1)?;
    Ok(())
}

pub(super) fn tran_window(d: Directive<'_>) -> Done {
    d.draft.server.tran_window = d.seconds(0, 1)?;
    Ok(())
}

pub(super) fn tls_timeout(d: Directive<'_>) -> Done {
    if d.number::<u32>(0, 1..=3600)? != 2 {
        d.draft.note(
            Level::Warning,
            d.line.number,
            "control packets are repeated after 2 seconds, then ever more slowly: `tls-timeout` is not followed",
        );
    }
    Ok(())
}

pub(super) fn connect_freq_initial(d: Directive<'_>) -> Done {
    d.draft.server.connect_freq_initial = Some((d.number(0, 1..=u32::MAX)?, d.seconds(1, 1)?));
    Ok(())
}

pub(super) fn explicit_exit_notify(d: Directive<'_>) -> Done {
    d.draft.server.exit_notify = match d.number_or(0, 0..=2_u8, 1)? {
        0 => None,
        1 => Some(ExitNotify::Restart),
        _ => Some(ExitNotify::NextRemote),
    };
    Ok(())
}

// The process and its files.

pub(super) fn cd(d: Directive<'_>) -> Done {
    d.draft.server.directory = Some(d.path()?);
    Ok(())
}

pub(super) fn user(d: Directive<'_>) -> Done {
    d.draft.server.user = Some(d.word(0)?.to_owned());
    Ok(())
}

pub(super) fn group(d: Directive<'_>) -> Done {
    d.draft.server.group = Some(d.word(0)?.to_owned());
    Ok(())
}

pub(super) fn writepid(d: Directive<'_>) -> Done {
    d.draft.server.pid_file = Some(d.path()?);
    Ok(())
}

pub(super) fn status(d: Directive<'_>) -> Done {
    let interval = Duration::from_secs(d.number_or(1, 1..=86_400_u32, 60)?.into());
    d.draft.server.status = Some(StatusFile { path: d.path()?, interval, version: Version::One });
    Ok(())
}

pub(super) fn status_version(d: Directive<'_>) -> Done {
    d.draft.status_version = match d.number_or(0, 1..=3_u8, 1)? {
        1 => Version::One,
        2 => Version::Two,
        _ => Version::Three,
    };
    Ok(())
}

pub(super) fn log(d: Directive<'_>) -> Done {
    log_file(d, false)
}

pub(super) fn log_append(d: Directive<'_>) -> Done {
    log_file(d, true)
}

/// The first of `log` and `log-append` in the file wins. Source: error.c `redirect_stdout_stderr`.
fn log_file(d: Directive<'_>, append: bool) -> Done {
    let path = d.path()?;
    match &d.draft.server.log {
        None => d.draft.server.log = Some(LogFile { path, append }),
        Some(_) => {
            let text = format!("`{}` has no effect: the first `log` or `log-append` counts", d.line.name);
            d.draft.note(Level::Info, d.line.number, text);
        }
    }
    Ok(())
}

pub(super) fn verb(d: Directive<'_>) -> Done {
    d.draft.server.verb = d.number(0, 0..=11)?;
    Ok(())
}

pub(super) fn ignore_unknown_option(d: Directive<'_>) -> Done {
    d.draft.may_be_unknown.extend(d.line.words.iter().cloned());
    Ok(())
}
