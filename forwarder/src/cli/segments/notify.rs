//! Telling systemd how far the supervisor is. Source: sd_notify(3).

use std::os::{
    linux::net::SocketAddrExt,
    unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
};

use nix::time::{ClockId, clock_gettime};

/// Started, or done with reloading.
pub(super) fn ready() {
    tell("READY=1");
}

/// Reloading: `Type=notify-reload` waits for [`ready`].
pub(super) fn reloading() {
    if let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) {
        let microseconds = i128::from(time.tv_sec()) * 1_000_000 + i128::from(time.tv_nsec()) / 1000;
        tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }
}

/// Stopping.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let told = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = told {
        tracing::debug!(%error, "systemd was not told");
    }
}
