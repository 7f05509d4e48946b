use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use trestle_tests::netns::Namespace;
use trestle_tests::{Fault, Result};

use super::cpu::{LOAD_CORE, on_core};
use super::generator::{Generator, Valve};

/// How long a load runs before anything is measured: queues fill, caches warm up.
pub const WARM_UP: Duration = Duration::from_millis(300);
/// How long a busy machine may delay the end of a measurement before the load ends by itself.
const OVERHANG: Duration = Duration::from_millis(300);
/// How often the program is run to learn how fast that goes: some tens of milliseconds.
const TRIAL_RUNS: u32 = 500_000;
/// More runs are allowed than the trial made in the same time: what others take of the processor differs.
const RESERVE: f64 = 2.0;
/// How often the program of a paced load runs a second at most: mostly it does nothing. Too high, and a load outlives its
/// measurement; too low, and it ends early, whereupon this is doubled.
static PACED_RUNS_PER_SECOND: AtomicU32 = AtomicU32::new(12_000_000);

/// A generator that sends from within its namespace, and from the load's processor.
#[derive(Debug)]
pub struct Pump<'a> {
    world: &'a Namespace,
    generator: Generator,
}

impl<'a> Pump<'a> {
    /// Sends by `generator` from within `world`.
    pub fn new(world: &'a Namespace, generator: Generator) -> Self {
        Self { world, generator }
    }

    /// Does `work` while frames are sent at `rate` a second (0: as fast as it goes). It begins after [`WARM_UP`] and is
    /// expected to take `time`; it may read and change the load by the valve.
    pub fn during<T>(
        &mut self,
        rate: f64,
        time: Duration,
        work: impl FnOnce(&Valve) -> Result<T>,
    ) -> Result<T> {
        let valve = self.generator.valve()?;
        let runs = self.runs_for(&valve, rate, WARM_UP + time + OVERHANG)?;
        valve.open(rate)?;
        let (world, generator) = (self.world, &mut self.generator);
        thread::scope(|scope| {
            let sender = scope.spawn(move || run_in(world, generator, runs));
            sleep(WARM_UP);
            let done = work(&valve);
            let early = sender.is_finished();
            let closed = valve.close();
            let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let done = sent.and(closed).and(done)?;
            if early { Err(ended_early()) } else { Ok(done) }
        })
    }

    /// How often the program may run in that time, and more. A load as fast as it goes is tried first: what its frames
    /// set off slows the program down.
    fn runs_for(&mut self, valve: &Valve, rate: f64, time: Duration) -> Result<u32> {
        let runs_per_second = if rate > 0.0 {
            f64::from(PACED_RUNS_PER_SECOND.load(Ordering::Relaxed))
        } else {
            valve.open(rate)?;
            let began = Instant::now();
            run_in(self.world, &mut self.generator, TRIAL_RUNS)?;
            RESERVE * f64::from(TRIAL_RUNS) / began.elapsed().as_secs_f64()
        };
        Ok((runs_per_second * time.as_secs_f64()) as u32)
    }
}

fn run_in(world: &Namespace, generator: &mut Generator, runs: u32) -> Result<()> {
    on_core(LOAD_CORE, || world.within(|| generator.run(runs))?)
}

fn ended_early() -> Fault {
    let most = 200_000_000;
    let doubled = |runs: u32| Some(runs.saturating_mul(2).min(most));
    let _ = PACED_RUNS_PER_SECOND.fetch_update(Ordering::Relaxed, Ordering::Relaxed, doubled);
    Fault::other("the load ended before the measurement did: the machine is too busy to measure anything")
}
