//! The threads that do handshakes' expensive steps, so that the control thread has time for those that are cheap.
//!
//! ```text
//!   control thread ── jobs (as many as `Server` lets out) ──► handshake-0, handshake-1, ...
//!                  ◄── what came of them, a wake-up each ────
//! ```

use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::Error;
use crate::xdp::sys;

/// Most threads: a gateway with more CPUs has better uses for them than a thousand handshakes half a second earlier.
const MAX_THREADS: usize = 4;
/// How much the threads give way to workers on the same CPU: a tenth of it where both want all. Too low delays frames
/// while many clients connect; too high keeps clients waiting while a worker is busy without end.
const NICENESS: i32 = 10;

/// Threads that make `Done` of `Job`.
#[derive(Debug)]
pub(super) struct Pool<Job, Done> {
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
}

impl<Job: Send + 'static, Done: Send + 'static> Pool<Job, Done> {
    /// Starts a thread for each of `cpus`, at most four, which do jobs by `run` and call `wake` after each.
    pub fn start(
        cpus: usize,
        run: fn(Job) -> Done,
        wake: impl Fn() + Clone + Send + 'static,
    ) -> Result<Self, Error> {
        // Neither can grow beyond what `Server` lets out at once.
        let (jobs, waiting) = unbounded();
        let (finished, done) = unbounded();
        let threads = (0..cpus.clamp(1, MAX_THREADS)).map(|index| {
            let (waiting, finished, wake) = (waiting.clone(), finished.clone(), wake.clone());
            let thread = thread::Builder::new().name(format!("handshake-{index}"));
            thread.spawn(move || work(&waiting, &finished, run, wake))
        });
        let threads = threads.collect::<Result<_, _>>();
        let threads = threads.map_err(|error| Error::os("start a thread for handshakes", error))?;
        Ok(Self { jobs: Some(jobs), done, threads })
    }

    /// Has a job done.
    pub fn give(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // Refused only once all threads have ended, which the loop finds out by itself.
            let _ = jobs.send(job);
        }
    }

    /// What a job came to.
    pub fn take_done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    /// True if a thread has ended, which none does by itself.
    pub fn has_lost_a_thread(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

impl<Job, Done> Drop for Pool<Job, Done> {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread for handshakes has panicked");
            }
        }
    }
}

fn work<Job, Done>(waiting: &Receiver<Job>, finished: &Sender<Done>, run: fn(Job) -> Done, wake: impl Fn()) {
    if let Err(error) = sys::be_nice(NICENESS) {
        tracing::warn!(%error, "handshakes take as much CPU time as frames");
    }
    for job in waiting {
        if finished.send(run(job)).is_err() {
            return;
        }
        wake();
        // A thread that is woken waits for the running one's slice, up to 3 ms, however nice that is: a worker on this
        // CPU waits for one job at most.
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;

    fn name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[test]
    fn jobs_are_done_by_several_threads_at_once() {
        let (woken, wakes) = unbounded();
        // A job ends only when two others are under way.
        let meet = |barrier: Arc<Barrier>| {
            barrier.wait();
            name()
        };
        let pool = Pool::start(3, meet, move || woken.send(()).unwrap()).unwrap();
        let barrier = Arc::new(Barrier::new(3));
        (0..3).for_each(|_| pool.give(Arc::clone(&barrier)));
        (0..3).for_each(|_| wakes.recv().unwrap());
        let mut names: Vec<String> = std::iter::from_fn(|| pool.take_done()).collect();
        names.sort();
        assert_eq!(names, ["handshake-0", "handshake-1", "handshake-2"]);
        assert!(!pool.has_lost_a_thread());
    }

    #[test]
    fn one_cpu_has_one_thread_and_a_hundred_have_four() {
        for (cpus, threads) in [(0, 1), (1, 1), (2, 2), (100, 4)] {
            let pool = Pool::start(cpus, |job: u8| job, || ()).unwrap();
            assert_eq!(pool.threads.len(), threads, "{cpus} CPUs");
        }
    }

    #[test]
    fn threads_give_way_to_others() {
        let (woken, wakes) = unbounded();
        let field = |()| std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let pool = Pool::start(1, field, move || woken.send(()).unwrap()).unwrap();
        pool.give(());
        wakes.recv().unwrap();
        let stat = pool.take_done().unwrap();
        // Behind the name in parentheses, which is field 2: nice is field 19. Source: proc_pid_stat(5).
        let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
        assert_eq!(fields.nth(19 - 3), Some("10"));
    }

    #[test]
    fn a_thread_that_panics_is_noticed() {
        let pool = Pool::start(1, |()| panic!("on purpose"), || ()).unwrap();
        pool.give(());
        while !pool.has_lost_a_thread() {
            thread::yield_now();
        }
    }
}
