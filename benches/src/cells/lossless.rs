use std::thread::sleep;
use std::time::{Duration, Instant};

use trestle_tests::{Fault, Result};

use crate::results::Sample;
use crate::rig::pump::Pump;
use crate::rig::site::Site;
use crate::rig::traffic::Traffic;

/// What may be lost of what is offered.
const TOLERATED: f64 = 0.001;
/// Rates tried: each halves what is not known yet, which begins as [`HIGHEST`] times the capacity.
const STEPS: u32 = 5;
/// The highest rate tried, in capacities.
const HIGHEST: f64 = 1.05;
/// How long each rate is offered.
const STEP: Duration = Duration::from_millis(300);
/// How long the last frames may be under way.
const DRAIN: Duration = Duration::from_millis(50);

/// The highest rate of which at most 0.1 % is lost, by halving; `capacity` is what overload delivers, in frames a second.
pub fn search(site: &mut Site, traffic: Traffic, capacity: f64) -> Result<Sample> {
    let (mut low, mut high) = (0.0, HIGHEST * capacity);
    let mut best = Sample::default();
    for _ in 0..STEPS {
        let rate = f64::midpoint(low, high);
        let tried = offer(site, traffic, rate)?;
        if tried.lost() <= TOLERATED {
            (low, best) = (rate, tried);
        } else {
            high = rate;
        }
    }
    Ok(best)
}

/// Offers `rate` frames a second, and waits for the last of them: what is lost is exact.
fn offer(site: &mut Site, traffic: Traffic, rate: f64) -> Result<Sample> {
    let source = traffic.source(site, rate, STEP)?;
    let packets_per_frame = source.packets_per_frame;
    let before = site.counter.read()?.frames();
    let mut pump = Pump::new(&site.world, source.generator);
    let began = Instant::now();
    let (sent, time) = pump.during(rate * packets_per_frame, STEP, |valve| {
        sleep(STEP);
        valve.close()?;
        Ok((valve.progress()?.sent, began.elapsed()))
    })?;
    if source.recorded.is_some_and(|recorded| sent >= recorded) {
        return Err(Fault::other("the recording ended before the measurement did: the machine is too busy"));
    }
    sleep(DRAIN);
    Ok(Sample {
        seconds: time.as_secs_f64(),
        offered_frames: (sent as f64 / packets_per_frame) as u64,
        delivered_frames: site.counter.read()?.frames() - before,
        ..Sample::default()
    })
}
