//! A distributed build's pattern: small non-IP messages fan out from a station on the LAN to several workers, large
//! answers come back from all of them at once; timed from the first message to the last frame of the last answer.
//!
//! Workers are sessions of the protocol crate. Requests leave by an AF_PACKET socket; answers are counted by XDP at the
//! first hop, as the load is. All ends are one thread of ours, preferred as that of round trips is, so that its own work
//! is in every figure, the same for all systems.

use std::thread::sleep;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use trestle_tests::frame;
use trestle_tests::raw::RawPort;
use trestle_tests::{Fault, Result};

use super::round_trip::prefer_this_thread;
use crate::load::Fleet;
use crate::results::{RoundTrip, Sample};
use crate::rig::counter::Counter;
use crate::rig::shared::{Class, ETHERTYPE_LOAD};
use crate::rig::site::{ETHERTYPE_PROBE, LAN_MAC, PROBE_MAC, Site, WIRE};

/// Workers a flow fans out to.
pub const WORKERS: u32 = 8;
/// Messages to each worker.
const MESSAGES: u32 = 4;
/// Length of a message in bytes.
const MESSAGE: usize = 120;
/// Frames of a worker's answer: 16 KiB. All answers together still fit a UDP socket of the usual size.
const ANSWER: u32 = 12;
/// Length of each in bytes.
const ANSWER_FRAME: usize = 1414;
/// Rest between two flows.
const REST: Duration = Duration::from_millis(1);
/// A flow that takes longer has lost a frame.
const PATIENCE: Duration = Duration::from_millis(50);

/// Makes flows for `time`. The site has [`WORKERS`] clients, none of them counted.
pub fn measure(site: &mut Site, time: Duration) -> Result<Sample> {
    let fleet = site.fleet.as_mut().ok_or_else(|| Fault::other("nobody is connected"))?;
    let (world, counter) = (&site.world, &site.counter);
    let round_trip = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let lan = RawPort::open(world, WIRE)?;
            prefer_this_thread()?;
            Flows { lan, fleet, counter }.run(time)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(Sample { seconds: time.as_secs_f64(), round_trip: Some(round_trip), ..Sample::default() })
}

struct Flows<'a> {
    lan: RawPort,
    fleet: &'a mut Fleet,
    counter: &'a Counter,
}

impl Flows<'_> {
    fn run(&mut self, time: Duration) -> Result<RoundTrip> {
        let mut times = Histogram::<u64>::new_with_max(1_000_000_000, 3)
            .map_err(|error| Fault::other(format!("a histogram: {error}")))?;
        let (end, mut sent) = (Instant::now() + time, 0);
        while Instant::now() < end {
            sent += 1;
            let began = Instant::now();
            if self.flow(sent, began + PATIENCE)? {
                times.saturating_record(began.elapsed().as_nanos() as u64);
            }
            sleep(REST);
        }
        Ok(RoundTrip {
            sent,
            answered: times.len(),
            p50_ns: times.value_at_quantile(0.5),
            p99_ns: times.value_at_quantile(0.99),
            p999_ns: times.value_at_quantile(0.999),
        })
    }

    /// One flow; false if a part of it is lost, whose rest is over by then.
    fn flow(&mut self, number: u64, deadline: Instant) -> Result<bool> {
        let before = self.arrived()?;
        self.ask_all(number)?;
        let mut awaited = [MESSAGES; WORKERS as usize];
        let mut answered = 0;
        while answered < WORKERS && Instant::now() < deadline {
            for worker in self.asked(number, &mut awaited) {
                self.answer(worker)?;
                answered += 1;
            }
        }
        let all = before + u64::from(WORKERS * ANSWER);
        while self.arrived()? < all {
            if Instant::now() >= deadline {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Frames of answers that have crossed the wire.
    fn arrived(&self) -> Result<u64> {
        Ok(self.counter.read()?.of(Class::Plain))
    }

    /// A message to each worker, and another to each.
    fn ask_all(&self, number: u64) -> Result<()> {
        for worker in (0..MESSAGES).flat_map(|_| 0..WORKERS) {
            let message =
                frame::frame(Site::peer_mac(worker), PROBE_MAC, ETHERTYPE_PROBE, &number.to_be_bytes());
            self.lan.send(&frame::padded(message, MESSAGE))?;
        }
        Ok(())
    }

    /// The workers that have got the last of their messages just now.
    fn asked(&mut self, number: u64, awaited: &mut [u32; WORKERS as usize]) -> Vec<usize> {
        let mut asked = Vec::new();
        let number = number.to_be_bytes();
        self.fleet.turn(Duration::ZERO, |worker, message| {
            let Some(left) = awaited.get_mut(worker).filter(|left| **left > 0) else { return };
            if message.get(frame::HEADER..frame::HEADER + number.len()) == Some(&number) {
                *left -= 1;
                if *left == 0 {
                    asked.push(worker);
                }
            }
        });
        asked
    }

    fn answer(&mut self, worker: usize) -> Result<()> {
        let answer = frame::frame(LAN_MAC, Site::peer_mac(worker as u32), ETHERTYPE_LOAD, &[]);
        let answer = frame::padded(answer, ANSWER_FRAME);
        let session = self.fleet.session_mut(worker).ok_or_else(|| Fault::other("a worker has left"))?;
        for _ in 0..ANSWER {
            session
                .send(Instant::now(), &answer)
                .map_err(|error| Fault::other(format!("sealing an answer: {error}")))?;
        }
        Ok(())
    }
}
