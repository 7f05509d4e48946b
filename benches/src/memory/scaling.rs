//! One gateway, its workers on CPUs of their own: does a second one double the work?

use std::{
    io, iter, thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use trestle::{
    ports::BATCH,
    switch::{Port as Place, WireId},
};

use super::{
    client::Client,
    gateway::{Gateway, Stand},
};

const ON_WIRE: common::Mac = [2, 0, 0, 0, 0, 0x20];
/// Peers of each worker.
const PEERS: u32 = 4;
/// Rounds between two looks at the clock.
const ROUNDS: usize = 16;

/// A gateway of several workers, and for each the frames of the LAN to its own peers.
#[derive(Debug)]
pub struct Scaling {
    gateway: Gateway,
    /// By worker.
    frames: Vec<Vec<Vec<u8>>>,
}

impl Scaling {
    /// A gateway with `workers` workers, each of which is to seal frames of `frame_bytes`.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn new(workers: u32, frame_bytes: usize) -> io::Result<Self> {
        let mut gateway = Gateway::new(workers as usize)?;
        gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK));
        let frames = (0..workers).map(|worker| {
            let peers = (0..PEERS).map(|peer| gateway.connect(workers * peer + worker));
            Ok(frames_to(&peers.collect::<io::Result<Vec<_>>>()?, frame_bytes))
        });
        let frames = frames.collect::<io::Result<_>>()?;
        Ok(Self { gateway, frames })
    }

    /// Lets the first `at_work` workers work for `time`, worker `n` on CPU `n`, the others sleep. Returns frames sealed a
    /// second, all together.
    ///
    /// # Errors
    /// A frame was lost, or there is no such CPU.
    pub fn frames_per_second(&mut self, at_work: usize, time: Duration) -> io::Result<f64> {
        let stands = self.gateway.stands().iter_mut().zip(&self.frames).take(at_work).enumerate();
        let sealed: io::Result<usize> = thread::scope(|scope| {
            let workers: Vec<_> = stands
                .map(|(cpu, (stand, frames))| scope.spawn(move || work(stand, frames, cpu, time)))
                .collect();
            let ended = |worker: thread::ScopedJoinHandle<'_, io::Result<usize>>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(ended).sum()
        });
        if self.gateway.lost() > 0 {
            return Err(io::Error::other(format!("{} frames were lost", self.gateway.lost())));
        }
        Ok(sealed? as f64 / time.as_secs_f64())
    }
}

fn frames_to(peers: &[Client], frame_bytes: usize) -> Vec<Vec<u8>> {
    let to = |peer: &Client| {
        let mut frame = vec![0x5a; frame_bytes];
        frame[..6].copy_from_slice(&peer.mac());
        frame[6..12].copy_from_slice(&ON_WIRE);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frame
    };
    peers.iter().map(to).collect()
}

fn work(stand: &mut Stand, frames: &[Vec<u8>], cpu: usize, time: Duration) -> io::Result<usize> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))?;
    let end = Instant::now() + time;
    let mut sealed = 0;
    while Instant::now() < end {
        for _ in 0..ROUNDS {
            sealed += round(stand, frames)?;
        }
    }
    Ok(sealed)
}

fn round(stand: &mut Stand, frames: &[Vec<u8>]) -> io::Result<usize> {
    if !iter::repeat(frames).flatten().take(BATCH).all(|frame| stand.arrive(frame)) {
        return Err(io::Error::other("a wire holds less than a batch"));
    }
    stand.turn();
    Ok(stand.collect())
}
