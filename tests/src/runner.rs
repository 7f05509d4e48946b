//! Runs scenarios one after another and counts them.
//!
//! Not libtest: a network with a gateway and connected agents takes seconds to set up, many scenarios share one, and
//! it must be gone at the end whatever happened. Output and summary line are those of libtest.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::gateway::Mode;
use crate::site::{Site, is_root, missing_programs};
use crate::{interrupt, netns};

/// What one scenario does: an assertion that fails is the gateway's fault, an error mostly the harness's.
pub type Run = fn(&mut Site) -> Result<()>;

/// One proof.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// A sentence, as a function's name.
    pub name: &'static str,
    /// Proves it.
    pub run: Run,
    /// Whether the stock server does it too; if not, only trestle is asked.
    pub stock: bool,
}

/// Scenarios that share a site, as long as they leave it as they found it.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// What it is about, in a word or two.
    pub name: &'static str,
    /// The modes it makes sense in.
    pub modes: &'static [Mode],
    /// Makes the site.
    pub site: fn(Mode) -> Result<Site>,
    /// A fresh site for every scenario, for those that leave ruins.
    pub fresh: bool,
    /// In this order.
    pub scenarios: &'static [Scenario],
}

/// Lists functions as scenarios: `scenarios![a, b; stock: c]`. Those after `stock:` hold for the stock server too.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),* $(,)? $(; stock: $($both:ident),* $(,)?)?) => {
        &[
            $($($crate::runner::Scenario { name: stringify!($both), run: $both, stock: true },)*)?
            $($crate::runner::Scenario { name: stringify!($name), run: $name, stock: false },)*
        ]
    };
}

/// What became of all scenarios.
#[derive(Clone, Debug, Default)]
struct Totals {
    passed: usize,
    failed: Vec<String>,
}

/// Runs every scenario of `suites` that the command line asks for, and returns the exit code.
///
/// Arguments are parts of names, as with libtest; `--list` only lists; its other options are ignored.
/// `TRESTLE_GATEWAY=stock` tests the stock server instead of trestle. `TRESTLE_REQUIRE_ROOT=1` makes it an error
/// that scenarios are skipped for want of privileges or programs.
pub fn main(suites: &[Suite]) -> u8 {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let jobs = jobs(suites, &wanted);
    if arguments.iter().any(|word| word == "--list") {
        jobs.iter().for_each(|job| println!("{}: test", job.title()));
        return 0;
    }
    if let Some(reason) = obstacle() {
        return skip_all(&reason, jobs.len());
    }
    netns::sweep();
    remember_panics();
    println!("\nrunning {} tests", jobs.len());
    let began = Instant::now();
    let mut totals = match interrupt::watch() {
        Ok(interrupted) => run_all(&jobs, &interrupted),
        Err(why) => Totals { failed: vec![why.to_string()], ..Totals::default() },
    };
    let left = netns::own();
    if !left.is_empty() {
        totals.failed.push(format!("network namespaces are left behind: {}", left.join(", ")));
    }
    summary(&totals, began.elapsed())
}

/// One scenario in one mode.
struct Job {
    suite: Suite,
    mode: Mode,
    scenario: Scenario,
}

impl Job {
    fn title(&self) -> String {
        format!("{}::{} [{}]", self.suite.name, self.scenario.name, self.mode.name())
    }

    /// Whether this job can go on with the site of `other`.
    fn shares_site_with(&self, other: &Self) -> bool {
        self.suite.name == other.suite.name && self.mode == other.mode && !self.suite.fresh
    }
}

fn jobs(suites: &[Suite], wanted: &[&str]) -> Vec<Job> {
    let stock = std::env::var("TRESTLE_GATEWAY").is_ok_and(|name| name == Mode::Stock.name());
    let mut jobs = Vec::new();
    for &suite in suites {
        let modes: &[Mode] = if stock { &[Mode::Stock] } else { suite.modes };
        for &mode in modes {
            let held = suite.scenarios.iter().copied().filter(|scenario| scenario.stock || mode.is_trestle());
            jobs.extend(held.map(|scenario| Job { suite, mode, scenario }));
        }
    }
    jobs.retain(|job| wanted.is_empty() || wanted.iter().any(|part| job.title().contains(part)));
    jobs
}

/// Why nothing can be run here.
fn obstacle() -> Option<String> {
    let missing = missing_programs();
    if !is_root() {
        return Some("network namespaces need root".to_owned());
    }
    (!missing.is_empty())
        .then(|| format!("these programs are missing: {} (cargo xtask setup)", missing.join(", ")))
}

fn skip_all(reason: &str, count: usize) -> u8 {
    println!("SKIPPED: all {count} end-to-end tests, because {reason}.");
    println!("\ntest result: ok. 0 passed; 0 failed; {count} ignored; 0 measured; 0 filtered out");
    let required = std::env::var("TRESTLE_REQUIRE_ROOT").is_ok_and(|value| value == "1");
    if required {
        println!("TRESTLE_REQUIRE_ROOT is set: skipping is a failure.");
    }
    u8::from(required)
}

fn run_all(jobs: &[Job], interrupted: &AtomicBool) -> Totals {
    let mut totals = Totals::default();
    let mut site: Option<Result<Site, String>> = None;
    let mut previous: Option<&Job> = None;
    for job in jobs {
        if interrupted.load(Ordering::Relaxed) {
            totals.failed.push("interrupted: the rest was not run".to_owned());
            break;
        }
        if !previous.is_some_and(|previous| job.shares_site_with(previous)) {
            site = None;
        }
        previous = Some(job);
        let began = Instant::now();
        let site = site.get_or_insert_with(|| guarded(|| (job.suite.site)(job.mode)));
        let outcome = match site {
            Ok(site) => {
                guarded(|| (job.scenario.run)(site)).map_err(|why| format!("{why}\n{}", site.evidence()))
            }
            Err(why) => Err(format!("its site could not be set up: {why}")),
        };
        report(&mut totals, job, outcome, began.elapsed());
    }
    totals
}

fn report(totals: &mut Totals, job: &Job, outcome: Result<(), String>, took: Duration) {
    let title = job.title();
    match outcome {
        Ok(()) => {
            println!("test {title} ... ok ({:.1} s)", took.as_secs_f32());
            totals.passed += 1;
        }
        Err(why) => {
            println!("test {title} ... FAILED ({:.1} s)\n{why}\n", took.as_secs_f32());
            totals.failed.push(title);
        }
    }
}

/// Runs `work`; an error or a panic becomes its sentence.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(String::from),
        Err(_) => Err(LAST_PANIC.lock().map(|mut last| std::mem::take(&mut *last)).unwrap_or_default()),
    }
}

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Keeps what a failed assertion says for the report, with its place.
fn remember_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = panic.to_string();
        }
    }));
}

fn summary(totals: &Totals, took: Duration) -> u8 {
    if !totals.failed.is_empty() {
        println!("\nfailures:");
        totals.failed.iter().for_each(|title| println!("    {title}"));
    }
    let verdict = if totals.failed.is_empty() { "ok" } else { "FAILED" };
    let (passed, failed) = (totals.passed, totals.failed.len());
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; \
         finished in {:.2}s",
        took.as_secs_f32()
    );
    u8::from(!totals.failed.is_empty())
}
