use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use trestle_tests::{Fault, Result};

/// Where everything but the gateway runs.
pub const LOAD_CORE: usize = 0;
/// Where the gateway runs.
pub const GATEWAY_CORE: usize = 1;

/// Keeps the calling thread, and what it starts from now on, on one processor.
///
/// # Errors
/// There is no such processor, or this process may not use it.
pub fn stay_on(core: usize) -> Result<()> {
    let failed = || format!("staying on processor {core} (the ruler needs two, 0 and 1)");
    let mut set = CpuSet::new();
    set.set(core).map_err(Fault::os(failed()))?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(Fault::os(failed()))
}

/// Does `work` on a thread on that processor; what it starts stays there.
pub fn on_core<T: Send>(core: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            stay_on(core)?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Prefers this process, and what it starts, to everything else on the machine: it gets a session of its own, and the
/// scheduler's group of that session (sched(7), "The autogroup feature") all but the whole processor.
///
/// Figures of a machine that others use are worthless without. The terminal's Ctrl-C does not reach another session:
/// SIGTERM does.
///
/// # Errors
/// The kernel has no autogroups, or does not allow it.
pub fn prefer() -> Result<()> {
    // Refused to the leader of a process group, which then shares the group of whoever started it.
    let _ = nix::unistd::setsid();
    let path = "/proc/self/autogroup";
    fs::write(path, "-19").map_err(Fault::io(format!("writing {path}: leave out --prefer")))
}

/// Whether both processors that are needed are there and may be used.
pub fn enough() -> bool {
    let allowed = sched_getaffinity(Pid::from_raw(0));
    allowed.is_ok_and(|set| [LOAD_CORE, GATEWAY_CORE].iter().all(|&core| set.is_set(core).unwrap_or(false)))
}

/// CPU time spent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// By some processes, all their threads, in nanoseconds.
    pub processes_ns: u64,
    /// By every task on the gateway's processor, in nanoseconds.
    pub gateway_core_ns: u64,
    /// By every task on the load's processor, in nanoseconds.
    pub load_core_ns: u64,
}

impl Spent {
    /// By the processes `pids`, and on both processors.
    pub fn read(pids: &[u32]) -> Result<Self> {
        let cores = of_cores()?;
        let of_core = |core: usize| cores.get(core).copied().unwrap_or(0);
        Ok(Self {
            processes_ns: pids.iter().map(|&pid| of_process(pid)).sum::<Result<u64>>()?,
            gateway_core_ns: of_core(GATEWAY_CORE),
            load_core_ns: of_core(LOAD_CORE),
        })
    }

    /// What was spent since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            processes_ns: self.processes_ns.saturating_sub(before.processes_ns),
            gateway_core_ns: self.gateway_core_ns.saturating_sub(before.gateway_core_ns),
            load_core_ns: self.load_core_ns.saturating_sub(before.load_core_ns),
        }
    }
}

/// Resident memory of a process in bytes.
pub fn memory_of(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(Fault::io(format!("reading {path}")))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| Fault::other(format!("{path} has no VmRSS")))
}

/// Nanoseconds all threads of a process have run (Documentation/scheduler/sched-stats.rst).
fn of_process(pid: u32) -> Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&tasks).map_err(Fault::io(format!("reading {tasks}")))?;
    let first = |text: String| text.split_whitespace().next()?.parse::<u64>().ok();
    let times =
        entries.flatten().filter_map(|task| first(fs::read_to_string(task.path().join("schedstat")).ok()?));
    Ok(times.sum())
}

/// Nanoseconds tasks have run on each processor: cgroup v1's accounting of its root, in nanoseconds
/// (Documentation/admin-guide/cgroup-v1/cpuacct.rst), else what /proc/stat says, in ticks.
fn of_cores() -> Result<Vec<u64>> {
    if let Ok(text) = fs::read_to_string("/sys/fs/cgroup/cpuacct/cpuacct.usage_percpu") {
        return Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect());
    }
    let text = fs::read_to_string("/proc/stat").map_err(Fault::io("reading /proc/stat"))?;
    Ok(busy_of_cores(&text))
}

/// All but idle and iowait (proc_stat(5)), a tick being 10 ms.
fn busy_of_cores(text: &str) -> Vec<u64> {
    const TICK_NS: u64 = 10_000_000;
    let busy = |line: &str| -> Option<u64> {
        let (name, times) = line.split_once(' ')?;
        name.strip_prefix("cpu")?.parse::<usize>().ok()?;
        let times: Vec<u64> = times.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, ..] = *times else { return None };
        Some((user + nice + system + irq + softirq) * TICK_NS)
    };
    text.lines().filter_map(busy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_spent() {
        let text =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 1000 1000 4 5 9 0 0\ncpu1 0 0 1 7 7 0 0 0 0 0\nintr 5\n";
        assert_eq!(busy_of_cores(text), [150_000_000, 10_000_000]);
    }

    #[test]
    fn time_that_passes_at_work_is_seen() {
        let own = [std::process::id()];
        let before = Spent::read(&own).unwrap();
        let mut sum = 0_u64;
        while Spent::read(&own).unwrap().since(before).processes_ns < 1_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(memory_of(own[0]).unwrap() > 0);
    }

    #[test]
    fn a_processor_that_is_not_there_is_an_error() {
        assert!(on_core(1023, || Ok(())).is_err());
    }
}
