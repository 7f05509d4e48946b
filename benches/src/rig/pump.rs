use std::thread::{self, sleep};
use std::time::Duration;

use trestle::xdp::maps::monotonic_ns;
use trestle_tests::netns::Namespace;
use trestle_tests::{Fault, Result};

use super::cpu::{LOAD_CORE, on_core};
use super::generator::{Generator, Pace};

/// How long a load runs before anything is measured: queues fill, caches warm up.
pub const WARM_UP: Duration = Duration::from_millis(300);
/// How long it goes on afterwards, so that the end of the measurement is still under load.
const OVERHANG: Duration = Duration::from_millis(500);
/// Runs a second that are allowed for while none are known: more than this machine makes.
const RUNS_AT_FIRST: f64 = 10e6;
/// How much more runs are allowed than the last time: should there be fewer, the load ends early.
const RESERVE: f64 = 1.5;
/// How long a load is tried, to know how many runs it makes.
const TRIAL: Duration = Duration::from_millis(100);

/// A generator and what it is capable of here.
#[derive(Debug)]
pub struct Pump<'a> {
    world: &'a Namespace,
    generator: Generator,
    /// How often its program runs a second; it differs with what the frames set off.
    runs_per_second: f64,
}

impl<'a> Pump<'a> {
    /// Sends by `generator` from within `world`.
    pub fn new(world: &'a Namespace, generator: Generator) -> Self {
        Self { world, generator, runs_per_second: RUNS_AT_FIRST }
    }

    /// Does `work` while frames are sent at `rate` a second (0: as fast as it goes), for [`WARM_UP`] and then `time`.
    /// `work` is begun at once, and gets the frames sent so far by calling what it is given.
    pub fn during<T>(
        &mut self,
        rate: f64,
        time: Duration,
        work: impl FnOnce(&dyn Fn() -> Result<u64>) -> Result<T>,
    ) -> Result<T> {
        if self.runs_per_second == RUNS_AT_FIRST {
            self.send(rate, TRIAL)?;
        }
        let gauge = self.generator.gauge()?;
        let total = WARM_UP + time + OVERHANG;
        let (pace, before) = (self.pace(rate, total), gauge.read()?);
        let (world, generator) = (self.world, &mut self.generator);
        let done = thread::scope(|scope| {
            let sender = scope.spawn(move || send_from(world, generator, pace));
            sleep(WARM_UP);
            let done = work(&|| gauge.read().map(|progress| progress.sent));
            let early = monotonic_ns() > pace.until_ns;
            let ended = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended.and(done).map(|done| (done, early))
        });
        let runs = gauge.read()?.runs - before.runs;
        let (done, late) = done?;
        if late || runs >= u64::from(pace.runs) {
            return Err(Fault::other("the load ended before the measurement: the machine was too busy"));
        }
        self.runs_per_second = runs as f64 / total.as_secs_f64();
        Ok(done)
    }

    /// Sends for `time`, and learns how fast that goes.
    fn send(&mut self, rate: f64, time: Duration) -> Result<()> {
        let gauge = self.generator.gauge()?;
        let (pace, before) = (self.pace(rate, time), gauge.read()?);
        send_from(self.world, &mut self.generator, pace)?;
        let runs = gauge.read()?.runs - before.runs;
        self.runs_per_second = runs as f64 / time.as_secs_f64();
        Ok(())
    }

    fn pace(&self, rate: f64, time: Duration) -> Pace {
        let gap_ns = if rate > 0.0 { (1e9 / rate) as u64 } else { 0 };
        let until_ns = monotonic_ns() + time.as_nanos() as u64;
        let runs = self.runs_per_second * RESERVE * time.as_secs_f64();
        Pace { gap_ns, until_ns, runs: runs as u32 }
    }
}

fn send_from(world: &Namespace, generator: &mut Generator, pace: Pace) -> Result<()> {
    on_core(LOAD_CORE, || world.within(|| generator.run(pace))?)
}
