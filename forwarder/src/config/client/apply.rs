//! What each of a client's own directives does to the draft: one function each, named in the [table](super::table).

use std::time::Duration;

use openvpn::client::{PullAction, PullFilter};

use super::{remote, tls_rules::NameRule};
use crate::config::{
    apply::Done,
    error::Level,
    words::{Directive, shown},
};

pub(super) fn port(d: Directive<'_>) -> Done {
    d.draft.client.port = Some(d.number(0, 1..=u16::MAX)?);
    Ok(())
}

pub(super) fn rport(d: Directive<'_>) -> Done {
    d.draft.client.remote_port = Some(d.number(0, 1..=u16::MAX)?);
    Ok(())
}

/// 0: any port.
pub(super) fn lport(d: Directive<'_>) -> Done {
    d.draft.client.local_port = Some(d.number(0, 0..=u16::MAX)?);
    Ok(())
}

pub(super) fn nobind(d: Directive<'_>) -> Done {
    d.draft.client.nobind = true;
    Ok(())
}

pub(super) fn local(d: Directive<'_>) -> Done {
    if d.word(0)? != "*" {
        d.draft.client.local = Some(d.address(0)?).filter(|address| !address.is_unspecified());
    }
    if d.optional(1).is_some() {
        d.draft.client.local_port = Some(d.number(1, 0..=u16::MAX)?);
    }
    Ok(())
}

pub(super) fn proto(d: Directive<'_>) -> Done {
    remote::check_proto(&d, 0)
}

pub(super) fn float(d: Directive<'_>) -> Done {
    d.draft.client.float = true;
    Ok(())
}

pub(super) fn remote_random(d: Directive<'_>) -> Done {
    d.draft.client.remote_random = true;
    Ok(())
}

/// `connect-retry SECONDS [MOST]`.
pub(super) fn connect_retry(d: Directive<'_>) -> Done {
    let first: u32 = d.number(0, 1..=65_535)?;
    let most: u32 = d.number_or(1, 1..=86_400, 300)?;
    let seconds = |number: u32| Duration::from_secs(number.into());
    d.draft.client.retry = Some((seconds(first), seconds(most.max(first))));
    Ok(())
}

/// `connect-retry-max ROUNDS`, 0: without end. Source: options.c.
pub(super) fn connect_retry_max(d: Directive<'_>) -> Done {
    d.draft.client.attempts = match d.optional(0) {
        None | Some("unlimited") => None,
        Some(_) => Some(d.number(0, 0..=u32::MAX)?).filter(|&rounds| rounds > 0),
    };
    Ok(())
}

pub(super) fn connect_timeout(d: Directive<'_>) -> Done {
    d.draft.client.answer_timeout = Some(d.seconds(0, 1)?);
    Ok(())
}

pub(super) fn remote_cert_tls(d: Directive<'_>) -> Done {
    if d.word(0)? != "server" {
        return Err(d.not_among(0, "`remote-cert-tls server` in a client's file"));
    }
    d.draft.client.require_server_usage = true;
    Ok(())
}

/// `verify-x509-name NAME [subject|name|name-prefix]`.
pub(super) fn verify_x509_name(d: Directive<'_>) -> Done {
    let wanted = d.word(0)?.to_owned();
    d.draft.client.server_name = Some(match d.optional(1) {
        None | Some("subject") => NameRule::Subject(wanted),
        Some("name") => NameRule::CommonName(wanted),
        Some("name-prefix") => NameRule::Prefix(wanted),
        Some(_) => return Err(d.not_among(1, "`subject`, `name` or `name-prefix`")),
    });
    Ok(())
}

pub(super) fn ping(d: Directive<'_>) -> Done {
    d.draft.client.ping = Some(d.seconds(0, 0)?).filter(|time| !time.is_zero());
    Ok(())
}

pub(super) fn ping_restart(d: Directive<'_>) -> Done {
    d.draft.client.ping_restart = Some(Some(d.seconds(0, 0)?).filter(|time| !time.is_zero()));
    d.draft.client.exit_on_silence = false;
    Ok(())
}

pub(super) fn ping_exit(d: Directive<'_>) -> Done {
    d.draft.client.ping_restart = Some(Some(d.seconds(0, 0)?).filter(|time| !time.is_zero()));
    d.draft.client.exit_on_silence = true;
    Ok(())
}

pub(super) fn explicit_exit_notify(d: Directive<'_>) -> Done {
    d.draft.client.exit_notify = d.number_or(0, 0..=u32::MAX, 1)? > 0;
    Ok(())
}

pub(super) fn mode(d: Directive<'_>) -> Done {
    if d.word(0)? == "p2p" { Ok(()) } else { Err(d.error("the file is a server's", SERVERS_CURE)) }
}

/// What to do with a server's file.
const SERVERS_CURE: &str = "start it with `trestle run`, or name a client's profile";

/// `setenv opt NAME ...`: the directive behind it may be unknown, and then nothing happens.
pub(super) fn setenv(d: Directive<'_>) -> Done {
    if d.optional(0) == Some("opt") {
        let name = shown(d.optional(1).unwrap_or_default());
        let text = format!("`setenv opt {name}` has no effect: what is optional is left out");
        d.draft.note(Level::Info, d.line.number, text);
    }
    Ok(())
}

/// `auth-retry`: without passwords only what is said to be `none` differs from the others, and it is the default.
pub(super) fn auth_retry(d: Directive<'_>) -> Done {
    match d.word(0)? {
        "none" | "nointeract" | "interact" => Ok(()),
        _ => Err(d.not_among(0, "`auth-retry none`")),
    }
}

/// `pull-filter accept|ignore|reject TEXT`: the first whose text begins a pushed option decides. Source: options.c
/// `apply_pull_filter`.
pub(super) fn pull_filter(d: Directive<'_>) -> Done {
    let action = match d.word(0)? {
        "accept" => PullAction::Accept,
        "ignore" => PullAction::Ignore,
        "reject" => PullAction::Reject,
        _ => return Err(d.not_among(0, "`accept`, `ignore` or `reject`")),
    };
    let begins = d.optional(1).unwrap_or_default().to_owned();
    d.draft.client.pull_filters.push(PullFilter { action, begins });
    Ok(())
}
