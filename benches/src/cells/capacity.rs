use std::thread::sleep;
use std::time::{Duration, Instant};

use trestle_tests::{Fault, Result};

use crate::results::Sample;
use crate::rig::counter::Counter;
use crate::rig::cpu::Spent;
use crate::rig::generator::Valve;
use crate::rig::pump::Pump;
use crate::rig::site::Site;
use crate::rig::traffic::Traffic;

/// What a first look at a system offers, in frames a second: more than any takes here.
const FIRST_OFFER: f64 = 900_000.0;
/// How long the first look is.
const FIRST_LOOK: Duration = Duration::from_millis(200);
/// Overload is at least so many times what is delivered.
const OVERLOAD: f64 = 2.0;
/// How often a measurement is tried: another program may keep the load from its processor.
const TRIES: u32 = 3;

/// Overloads a system for `time`.
///
/// Frames that can be repeated without end are offered as fast as the load's processor makes them. Sealed packets are
/// recorded ahead, so there are only so many: a first look tells what twice the capacity is.
pub fn overload(site: &mut Site, traffic: Traffic, time: Duration) -> Result<Sample> {
    if !traffic.is_recorded(site) {
        return at_rate(site, traffic, 0.0, time);
    }
    let look = at_rate(site, traffic, FIRST_OFFER, FIRST_LOOK)?;
    at_rate(site, traffic, OVERLOAD * look.delivered_per_second(), time)
}

/// Offers `rate` frames a second (0: as fast as it goes) for `time`, and measures what arrives and what it costs.
pub fn at_rate(site: &mut Site, traffic: Traffic, rate: f64, time: Duration) -> Result<Sample> {
    let mut tried = try_rate(site, traffic, rate, time);
    for _ in 1..TRIES {
        if tried.is_err() {
            tried = try_rate(site, traffic, rate, time);
        }
    }
    tried
}

fn try_rate(site: &mut Site, traffic: Traffic, rate: f64, time: Duration) -> Result<Sample> {
    let time = if traffic.is_recorded(site) { time.min(traffic.longest(rate)) } else { time };
    let source = traffic.source(site, rate, time)?;
    let packets_per_frame = source.packets_per_frame;
    let pids = site.system.pids();
    // Such a client shares its processor with the load: it may be slower than the gateway.
    let remark = "at least this: the system's own client seals, on the load's processor";
    let notes = traffic.is_sealed_live(site).then(|| remark.to_owned()).into_iter().collect();
    let mut pump = Pump::new(&site.world, source.generator);
    pump.during(rate * packets_per_frame, time, |valve| {
        let begin = Reading::take(&site.counter, valve, &pids)?;
        sleep(time);
        let end = Reading::take(&site.counter, valve, &pids)?;
        match source.recorded {
            Some(recorded) if end.sent >= recorded => Err(exhausted()),
            _ => Ok(Sample { notes, ..end.since(&begin, packets_per_frame) }),
        }
    })
}

/// All counters at one moment.
struct Reading {
    at: Instant,
    sent: u64,
    delivered: u64,
    spent: Spent,
}

impl Reading {
    fn take(counter: &Counter, valve: &Valve, pids: &[u32]) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            sent: valve.progress()?.sent,
            delivered: counter.read()?.frames(),
            spent: Spent::read(pids)?,
        })
    }

    fn since(&self, before: &Self, packets_per_frame: f64) -> Sample {
        let spent = self.spent.since(before.spent);
        Sample {
            seconds: (self.at - before.at).as_secs_f64(),
            offered_frames: ((self.sent - before.sent) as f64 / packets_per_frame) as u64,
            delivered_frames: self.delivered - before.delivered,
            gateway_cpu_ns: spent.processes_ns,
            gateway_core_ns: spent.gateway_core_ns,
            load_core_ns: spent.load_core_ns,
            ..Sample::default()
        }
    }
}

fn exhausted() -> Fault {
    Fault::other(
        "the recording ended before the measurement did: the machine is too busy to measure anything",
    )
}
