//! Bridges and their members: `addbr`, `delbr`, `addif`, `delif`.

use std::{ffi::OsString, os::unix::ffi::OsStrExt};

use nix::{errno::Errno, net::if_::if_nametoindex};

use super::{Done, Session, reason};
use crate::xdp::bridge::{Bridge, Port};

pub(super) fn addbr(session: &mut Session<'_>, words: &[OsString]) -> Done {
    let name = &words[0];
    let shown = name.as_bytes();
    session.kernel.bridge(Bridge::Add, name).map_err(|errno| match errno {
        Errno::EEXIST => {
            session.fail(&[b"device ", shown, b" already exists; can't create bridge with the same name"])
        }
        other => session.fail(&[b"add bridge failed: ", reason(other).as_bytes()]),
    })
}

pub(super) fn delbr(session: &mut Session<'_>, words: &[OsString]) -> Done {
    let name = &words[0];
    let shown = name.as_bytes();
    session.kernel.bridge(Bridge::Delete, name).map_err(|errno| match errno {
        Errno::ENXIO => session.fail(&[b"bridge ", shown, b" doesn't exist; can't delete it"]),
        Errno::EBUSY => session.fail(&[b"bridge ", shown, b" is still up; can't delete it"]),
        other => session.fail(&[b"can't delete bridge ", shown, b": ", reason(other).as_bytes()]),
    })
}

pub(super) fn addif(session: &mut Session<'_>, words: &[OsString]) -> Done {
    each(session, words, Port::Add, |errno, bridge, device| match errno {
        Errno::EBUSY => parts(&[
            b"device ",
            device,
            b" is already a member of a bridge; can't add it to bridge ",
            bridge,
            b".",
        ]),
        Errno::ELOOP => parts(&[
            b"device ",
            device,
            b" is a bridge device itself; can't add a bridge device to a bridge device.",
        ]),
        other => parts(&[b"can't add ", device, b" to bridge ", bridge, b": ", reason(other).as_bytes()]),
    })
}

pub(super) fn delif(session: &mut Session<'_>, words: &[OsString]) -> Done {
    each(session, words, Port::Delete, |errno, bridge, device| match errno {
        Errno::EINVAL => parts(&[b"device ", device, b" is not a port of ", bridge]),
        other => parts(&[b"can't delete ", device, b" from ", bridge, b": ", reason(other).as_bytes()]),
    })
}

/// Says `request` for one device after another, up to the first that fails; `sentence` says why.
fn each(
    session: &mut Session<'_>,
    words: &[OsString],
    request: Port,
    sentence: impl Fn(Errno, &[u8], &[u8]) -> Vec<u8>,
) -> Done {
    let (bridge, devices) = (&words[0], &words[1..]);
    for device in devices {
        session.kernel.port(request, bridge, device).map_err(|errno| {
            let (bridge, shown) = (bridge.as_bytes(), device.as_bytes());
            session.fail(&[&match errno {
                Errno::ENODEV if if_nametoindex(device.as_os_str()).is_err() => {
                    parts(&[b"interface ", shown, b" does not exist!"])
                }
                Errno::ENODEV => parts(&[b"bridge ", bridge, b" does not exist!"]),
                other => sentence(other, bridge, shown),
            }])
        })?;
    }
    Ok(())
}

fn parts(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}
