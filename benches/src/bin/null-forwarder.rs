//! The floor: an AF_XDP socket whose every frame is copied into a fresh one and sent back out. `null-forwarder NIC`
//!
//! It stands on the product's own memory and rings, so that what the gateway costs above it is the gateway's.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trestle::drops::DropCounters;
use trestle::ports::xsk::XskPort;
use trestle::ports::{BATCH, Frame, Frames, Port};
use trestle::xdp::frames::SMALL_CHUNK_BYTES;
use trestle::xdp::xsk::RING;
use trestle_bench::rig::steering::Steering;
use trestle_tests::{Fault, Result, interrupt};

/// How soon it hears that it is to end.
const LONGEST_SLEEP_MS: u16 = 100;

fn main() -> ExitCode {
    match std::env::args()
        .nth(1)
        .ok_or_else(|| Fault::other("usage: null-forwarder NIC"))
        .and_then(|nic| run(&nic))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(nic: &str) -> Result<()> {
    let interrupted = interrupt::watch()?;
    let other = |error: &dyn std::error::Error| Fault::other(error.to_string());
    let mut frames = Frames::for_nic(4 * RING, SMALL_CHUNK_BYTES, false).map_err(|error| other(&error))?;
    let mut port = XskPort::open(&mut frames, nic, 0, false, Arc::new(DropCounters::default()))
        .map_err(|error| other(&error))?;
    let _steering = Steering::attach(nic, 0, port.fd())?;
    println!("forwarding");
    let (mut received, mut sending) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    while !interrupted.load(Ordering::Relaxed) {
        port.receive(&mut frames, &mut received, BATCH);
        let idle = received.is_empty();
        sending.extend(received.drain(..).filter_map(|frame| copy(&mut frames, frame)));
        port.transmit(&mut frames, &mut sending);
        port.wake(&mut frames);
        if idle && !port.has_leftovers() {
            sleep(&port);
        }
    }
    Ok(())
}

/// The frame's copy in a fresh chunk; its own goes back.
fn copy(frames: &mut Frames, frame: Frame) -> Option<Frame> {
    let mut fresh = frames.take();
    if let Some(fresh) = &mut fresh {
        let len = frame.len();
        frames.room(fresh)[..len].copy_from_slice(frames.bytes(&frame));
        frames.set_len(fresh, len);
    }
    frames.put(frame);
    fresh
}

fn sleep(port: &XskPort) {
    let mut watched: Vec<PollFd<'_>> =
        port.readable().into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    // An interrupted poll is a short sleep.
    let _ = poll(&mut watched, PollTimeout::from(LONGEST_SLEEP_MS));
}
