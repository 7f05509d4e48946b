//! Whether a frame really comes through an AF_XDP socket: on a veth of its own, in a network namespace of its own, with the
//! program and the rings of the gateway. It proves what the kernel can do, not what a NIC's driver can.
//!
//! (A probe frame into a NIC's own socket is not to be had from inside: the kernel refuses to redirect frames of
//! `BPF_PROG_RUN` to AF_XDP sockets. Kernel: `xdp_do_redirect_frame`, net/core/filter.c.)

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    thread,
    time::{Duration, Instant},
};

use common::Settings;
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socket},
};

use super::facts::{Attempt, Proof};
use crate::{
    host::{
        links::{self, Link, LinkChange},
        netlink::Requests,
    },
    switch::WireId,
    xdp::{
        attach::{Uplink, XdpChoice},
        frames::{Frames, SMALL_CHUNK_BYTES},
        programs::Programs,
        sys,
        xsk::Rings,
    },
};

/// The near end, with the program; the kernel names the far end, where the frame is sent.
const NEAR: &str = "probe0";
/// A frame takes microseconds. So long for one, on a machine that is busy otherwise.
const PATIENCE: Duration = Duration::from_millis(500);
/// Together two seconds, as a gateway waits at its start.
const BUSY_ATTEMPTS: u32 = 40;
const BUSY_INTERVAL: Duration = Duration::from_millis(50);
const CHUNKS: u32 = 64;
/// To nobody, from nobody, of the EtherType for experiments: XDP floods it.
const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    frame[0] = 0x02;
    frame[5] = 0x01;
    frame[6] = 0x02;
    frame[11] = 0x02;
    frame[12] = 0x88;
    frame[13] = 0xb5;
    frame[14] = b'?';
    frame
};

/// Sends a frame, by native and by generic XDP.
pub fn prove() -> Proof {
    let proved =
        thread::Builder::new().name("probe".into()).spawn(prove_inside).map(thread::JoinHandle::join);
    proved.ok().and_then(Result::ok).unwrap_or_default()
}

fn prove_inside() -> Proof {
    let made = unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("no network namespace can be made: {error}"));
    let pair = made.and_then(|()| pair().map_err(|error| error.to_string()));
    match pair {
        Ok((near, far)) => Proof {
            native: attempt(&near, &far, XdpChoice::Native),
            generic: attempt(&near, &far, XdpChoice::Generic),
        },
        Err(why) => Proof { native: Attempt::NotTried(why.clone()), generic: Attempt::NotTried(why) },
    }
}

/// A veth, up. Nothing else is in the namespace but the loopback.
fn pair() -> crate::host::Result<(Link, Link)> {
    let mut requests = Requests::routing().map_err(crate::host::Error::os("talk to netlink"))?;
    links::create_veth(&mut requests, NEAR)?;
    let ends: Vec<Link> = links::all(&mut requests)?.into_values().filter(|link| link.ethernet).collect();
    for end in &ends {
        LinkChange::of(end.index).up().apply(&mut requests)?;
    }
    let (near, far): (Vec<Link>, Vec<Link>) = ends.into_iter().partition(|link| link.name == NEAR);
    let both = near.into_iter().next().zip(far.into_iter().next());
    both.ok_or_else(|| crate::host::Error::Unfit("the kernel made no veth".into()))
}

fn attempt(near: &Link, far: &Link, choice: XdpChoice) -> Attempt<()> {
    match send_one(near, far, choice) {
        Ok(true) => Attempt::Works(()),
        Ok(false) => Attempt::Fails(format!("it did not come within {} ms", PATIENCE.as_millis())),
        Err(why) => Attempt::Fails(why),
    }
}

fn send_one(near: &Link, far: &Link, choice: XdpChoice) -> Result<bool, String> {
    let mut programs = Programs::load().map_err(text)?;
    let (mut frames, mut rings) = open_rings()?;
    rings.fill(&mut frames, CHUNKS as usize);
    let settings = Settings {
        nic: near.index,
        bridge: 1,
        max_frame: SMALL_CHUNK_BYTES,
        mac: near.mac.unwrap_or_default(),
        ..Settings::default()
    };
    programs.settings.set(settings).map_err(text)?;
    programs.sockets.insert(WireId::UPLINK, 0, rings.fd()).map_err(text)?;
    let _attached =
        programs.attach(&Uplink { nic: NEAR, xdp: Some(choice), host_port: None }).map_err(text)?;
    send_from(far).map_err(text)?;
    Ok(arrives(&mut rings, &mut frames))
}

/// The socket of the attempt before holds its queue until the kernel lets go of it, in its own time.
fn open_rings() -> Result<(Frames, Rings), String> {
    for _ in 0..BUSY_ATTEMPTS {
        let frames = Frames::for_nic(CHUNKS, SMALL_CHUNK_BYTES, false).map_err(text)?;
        match Rings::open(&frames, NEAR, 0, true) {
            Err(error) if error.is_busy() => thread::sleep(BUSY_INTERVAL),
            opened => return opened.map(|rings| (frames, rings)).map_err(text),
        }
    }
    Err(format!("the kernel has held the queue of {NEAR} for two seconds"))
}

fn send_from(far: &Link) -> io::Result<()> {
    let sender = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    sys::bind_packet_socket(sender.as_fd(), far.index, 0)?;
    send(sender.as_raw_fd(), &FRAME, MsgFlags::empty())?;
    Ok(())
}

/// Others may come, too: the host's own neighbour discovery.
fn arrives(rings: &mut Rings, frames: &mut Frames) -> bool {
    #[expect(clippy::disallowed_methods, reason = "a process of its own, with no other clock")]
    let deadline = Instant::now() + PATIENCE;
    let mut received = Vec::new();
    loop {
        rings.receive(frames, &mut received, CHUNKS as usize);
        let found = received.iter().any(|frame| frames.bytes(frame) == FRAME);
        received.drain(..).for_each(|frame| frames.put(frame));
        #[expect(clippy::disallowed_methods, reason = "as above")]
        let late = Instant::now() >= deadline;
        if found || late {
            return found;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::skip;

    #[test]
    fn a_probe_frame_comes_through_both_ways() {
        if !nix::unistd::geteuid().is_root() {
            skip("it makes a network namespace, which needs root");
            return;
        }
        assert_eq!(prove(), Proof { native: Attempt::Works(()), generic: Attempt::Works(()) });
    }
}
