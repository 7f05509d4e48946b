//! Round trips of small frames: from a host on the LAN to a peer and back, beside a load or none.
//!
//! Both ends are one thread of ours, an AF_PACKET socket on the wire and a session of the protocol crate, the same for
//! every system; it is preferred to the load by SCHED_FIFO, so that what is measured is the gateway and not who waits
//! for the load's processor.

use std::process::Command;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use openvpn::data::Opened;
use trestle_tests::frame::{self, Mac};
use trestle_tests::netns::Namespace;
use trestle_tests::process::run;
use trestle_tests::raw::RawPort;
use trestle_tests::{Fault, Result};

use crate::load::Session;
use crate::results::{RoundTrip, Sample};
use crate::rig::pump::Pump;
use crate::rig::site::{ETHERTYPE_PROBE, PROBE_MAC, Site, WIRE};
use crate::rig::traffic::Traffic;

/// Length of requests and answers in bytes: as a build agent's small messages.
const LENGTH: usize = 100;
/// Time between two requests: few beside any load, many for a percentile.
const INTERVAL: Duration = Duration::from_millis(1);
/// An answer that takes longer is lost.
const PATIENCE: Duration = Duration::from_millis(50);
/// Longest packet read.
const PACKET: usize = 2048;

/// Makes round trips for `time` beside `traffic` of `rate` frames a second. The last of the site's clients answers.
pub fn beside(site: &mut Site, traffic: Traffic, rate: f64, time: Duration) -> Result<Sample> {
    try_beside(site, traffic, rate, time).or_else(|_| try_beside(site, traffic, rate, time))
}

fn try_beside(site: &mut Site, traffic: Traffic, rate: f64, time: Duration) -> Result<Sample> {
    let source = traffic.source(site, rate, time)?;
    let mut pump = Pump::new(&site.world, source.generator);
    let (world, nobody) = (&site.world, || Fault::other("nobody is connected"));
    let sessions = site.fleet.as_mut().ok_or_else(nobody)?.sessions_mut();
    let number = sessions.len().saturating_sub(1) as u32;
    let session = sessions.last_mut().ok_or_else(nobody)?;
    let rate = rate * source.packets_per_frame;
    let round_trip = pump.during(rate, time, |_| measure(world, session, Site::peer_mac(number), time))?;
    Ok(Sample { seconds: time.as_secs_f64(), round_trip: Some(round_trip), ..Sample::default() })
}

/// Makes round trips through `session` for `time`.
fn measure(world: &Namespace, session: &mut Session, peer: Mac, time: Duration) -> Result<RoundTrip> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut prober = Prober::new(world, session, peer)?;
            prefer_this_thread()?;
            prober.probe(time)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

struct Prober<'a> {
    lan: RawPort,
    session: &'a mut Session,
    peer: Mac,
}

impl<'a> Prober<'a> {
    fn new(world: &Namespace, session: &'a mut Session, peer: Mac) -> Result<Self> {
        session.socket().set_nonblocking(false).map_err(Fault::io("waiting at a session's socket"))?;
        session
            .socket()
            .set_read_timeout(Some(PATIENCE))
            .map_err(Fault::io("limiting the wait at a session's socket"))?;
        Ok(Self { lan: RawPort::open(world, WIRE)?, session, peer })
    }

    fn probe(&mut self, time: Duration) -> Result<RoundTrip> {
        let mut times = Histogram::<u64>::new_with_max(1_000_000_000, 3)
            .map_err(|error| Fault::other(format!("a histogram: {error}")))?;
        let (end, mut sent) = (Instant::now() + time, 0);
        while Instant::now() < end {
            let began = Instant::now();
            sent += 1;
            if self.exchange(sent)? {
                times.saturating_record(began.elapsed().as_nanos() as u64);
            }
            std::thread::sleep((began + INTERVAL).saturating_duration_since(Instant::now()));
        }
        Ok(RoundTrip {
            sent,
            answered: times.len(),
            p50_ns: times.value_at_quantile(0.5),
            p99_ns: times.value_at_quantile(0.99),
            p999_ns: times.value_at_quantile(0.999),
        })
    }

    /// One request and its answer; false if either is lost.
    fn exchange(&mut self, number: u64) -> Result<bool> {
        let numbered = |destination, source| {
            let frame = frame::frame(destination, source, ETHERTYPE_PROBE, &number.to_be_bytes());
            frame::padded(frame, LENGTH)
        };
        let (request, answer) = (numbered(self.peer, PROBE_MAC), numbered(PROBE_MAC, self.peer));
        self.lan.send(&request)?;
        if !self.arrives(&request) {
            return Ok(false);
        }
        self.session
            .send(Instant::now(), &answer)
            .map_err(|error| Fault::other(format!("sealing an answer: {error}")))?;
        Ok(self.lan.expect(PATIENCE, |seen| seen == answer).is_some())
    }

    /// Whether the peer receives the request.
    fn arrives(&mut self, request: &[u8]) -> bool {
        let (mut packet, mut opened) = ([0; PACKET], [0; PACKET]);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let Ok(length) = self.session.socket().recv(&mut packet) else { continue };
            if let Ok(Opened::Frame { len }) = self.session.channel_mut().open(&packet[..length], &mut opened)
                && opened[..len] == *request
            {
                return true;
            }
        }
        false
    }
}

/// Runs ahead of everything else on its processor.
pub(super) fn prefer_this_thread() -> Result<()> {
    let thread = nix::unistd::gettid().to_string();
    run(Command::new("chrt").args(["--fifo", "--pid", "1", &thread]), 5).map(drop)
}
