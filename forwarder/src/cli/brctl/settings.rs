//! Settings of a bridge and of its ports: `set...`, `stp`, `hairpin`.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use nix::{errno::Errno, net::if_::if_nametoindex};

use super::{Done, Failed, Session, reason, timers::Ticks};
use crate::xdp::{bridge::Number, sys};

pub(super) fn ageing(session: &mut Session<'_>, words: &[OsString]) -> Done {
    time(session, words, "ageing time", "ageing_time", Number::AgeingTime)
}

pub(super) fn forward_delay(session: &mut Session<'_>, words: &[OsString]) -> Done {
    time(session, words, "forward delay", "forward_delay", Number::ForwardDelay)
}

pub(super) fn hello(session: &mut Session<'_>, words: &[OsString]) -> Done {
    time(session, words, "hello timer", "hello_time", Number::HelloTime)
}

pub(super) fn max_age(session: &mut Session<'_>, words: &[OsString]) -> Done {
    time(session, words, "max age", "max_age", Number::MaxAge)
}

/// Sets a time of a bridge: `name` in errors, `file` in /sys, `number` in the old way.
fn time(session: &mut Session<'_>, words: &[OsString], name: &str, file: &str, number: Number) -> Done {
    let Some(ticks) = Ticks::from_seconds(words[1].as_bytes()) else {
        return Err(session.fail(&[b"bad ", name.as_bytes(), b" value"]));
    };
    let set = session.kernel.set_bridge(&words[0], file, ticks.0, number);
    set.map_err(|errno| refused(session, name, errno))
}

pub(super) fn bridge_priority(session: &mut Session<'_>, words: &[OsString]) -> Done {
    let value = integer(session, &words[1], b"bad priority")?;
    let set = session.kernel.set_bridge(&words[0], "priority", value, Number::Priority);
    set.map_err(|errno| refused(session, "bridge priority", errno))
}

pub(super) fn path_cost(session: &mut Session<'_>, words: &[OsString]) -> Done {
    let value = integer(session, &words[2], b"bad path cost value")?;
    let set = session.kernel.set_port(&words[0], &words[1], "path_cost", value, Number::PathCost);
    set.map_err(|errno| refused(session, "path cost", errno))
}

pub(super) fn port_priority(session: &mut Session<'_>, words: &[OsString]) -> Done {
    let value = integer(session, &words[2], b"bad path priority value")?;
    let set = session.kernel.set_port(&words[0], &words[1], "priority", value, Number::PortPriority);
    set.map_err(|errno| refused(session, "port priority", errno))
}

pub(super) fn stp(session: &mut Session<'_>, words: &[OsString]) -> Done {
    let on = switch(session, &words[1])?;
    let set = session.kernel.set_bridge(&words[0], "stp_state", on, Number::StpState);
    set.map_err(|errno| refused(session, "stp status", errno))
}

pub(super) fn hairpin(session: &mut Session<'_>, words: &[OsString]) -> Done {
    let (bridge, port) = (&words[0], &words[1]);
    let on = switch(session, &words[2])?;
    for (what, name) in [(&b"interface "[..], port), (b"bridge ", bridge)] {
        if if_nametoindex(name.as_os_str()).is_err() {
            return Err(session.fail(&[what, name.as_bytes(), b" does not exist!"]));
        }
    }
    // The old way does not know hairpin: there the request changes nothing, and no error is seen.
    session.kernel.set_port(bridge, port, "hairpin_mode", on, Number::Version).map_err(|errno| {
        let why = reason(errno);
        let (port, bridge) = (port.as_bytes(), bridge.as_bytes());
        session.fail(&[b"can't set ", port, b" to hairpin on bridge ", bridge, b": ", why.as_bytes()])
    })
}

/// The number in `word`, widened with its sign as the real one does: -1 is written as 18446744073709551615.
fn integer(session: &mut Session<'_>, word: &OsStr, otherwise: &[u8]) -> Result<u64, Failed> {
    let value = sys::scan_integer(word.as_bytes()).ok_or_else(|| session.fail(&[otherwise]))?;
    Ok(i64::from(value).cast_unsigned())
}

fn switch(session: &mut Session<'_>, word: &OsStr) -> Result<u64, Failed> {
    match word.as_bytes() {
        b"on" | b"yes" | b"1" => Ok(1),
        b"off" | b"no" | b"0" => Ok(0),
        _ => Err(session.fail(&[b"expect on/off for argument"])),
    }
}

fn refused(session: &mut Session<'_>, what: &str, errno: Errno) -> Failed {
    session.fail(&[b"set ", what.as_bytes(), b" failed: ", reason(errno).as_bytes()])
}
