use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::interrupt::unblocked;
use crate::{Fault, Result};

/// How often a condition is looked at while waiting for it.
const TICK: Duration = Duration::from_millis(10);

/// `limit`, stretched by the factor in `TRESTLE_PATIENCE`: tests in an emulated machine are slow.
pub fn patient(limit: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let named = || std::env::var("TRESTLE_PATIENCE").ok()?.parse().ok();
    limit * *FACTOR.get_or_init(|| named().unwrap_or(1))
}

/// Runs `command` to its end and returns what it wrote to standard output.
///
/// It gets SIGKILL after `seconds`. An exit code other than 0 is an error that carries what it wrote.
pub fn run(command: &mut Command, seconds: u32) -> Result<String> {
    let output = output(command, seconds)?;
    if output.code == Some(0) {
        return Ok(output.stdout);
    }
    let said = format!("exit code {:?}: {}{}", output.code, output.stdout, output.stderr);
    Err(Fault::Command { command: words(command), output: said })
}

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; `None` when a signal ended it, also that of the deadline.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs `command` to its end, whatever its exit code; SIGKILL after `seconds`.
pub fn output(command: &mut Command, seconds: u32) -> Result<Output> {
    let seconds = patient(Duration::from_secs(seconds.into())).as_secs();
    let mut limited = Command::new("timeout");
    limited.args(["--signal=KILL", &seconds.to_string()]).arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        limited.current_dir(dir);
    }
    for (key, value) in command.get_envs() {
        limited.env(key, value.unwrap_or_default());
    }
    let done = limited.stdin(Stdio::null()).output().map_err(|e| not_started(command, &e))?;
    Ok(Output {
        code: done.status.code(),
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    })
}

/// Waits until `condition` gives a value, at most `limit`; `what` and `evidence` make the error.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
    evidence: impl Fn() -> String,
) -> Result<T> {
    let deadline = Instant::now() + patient(limit);
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(Fault::Late { what: what.to_owned(), waited: limit, evidence: evidence() });
        }
        sleep(TICK);
    }
}

/// A running child process: its output in a file, killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; standard output and error go to `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).map_err(Fault::io(format!("creating {}", log.display())))?;
        let errors = file.try_clone().map_err(Fault::io("duplicating a file descriptor"))?;
        // A group of its own: Ctrl-C is for whoever started us, who then ends this in good order.
        command.process_group(0).stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = unblocked(|| command.spawn()).map_err(|e| not_started(command, &e))?;
        Ok(Self { child, name: name.to_owned(), log: log.to_owned(), ended: None })
    }

    /// Process id: nsenter and unshare execute what they are given, so it is that of the program itself.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has written so far.
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// The last lines it wrote, headed by its name: for error messages.
    pub fn log_tail(&self) -> String {
        tail(&self.name, &self.log())
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits until a line of its log contains `text`; an early end is an error at once.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("{}: {text:?} in its log", self.name);
        self.wait_log(&what, limit, |log| log.contains(text).then_some(()))
    }

    /// Waits until `found` sees what it looks for in the log; an early end is an error at once.
    pub fn wait_log<T>(
        &mut self,
        what: &str,
        limit: Duration,
        found: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patient(limit);
        loop {
            let ended = self.ended();
            if let Some(value) = found(&self.log()) {
                return Ok(value);
            }
            if let Some(status) = ended {
                return Err(Fault::other(format!(
                    "{} ended early: {status}\n{}",
                    self.name,
                    self.log_tail()
                )));
            }
            if Instant::now() >= deadline {
                return Err(Fault::Late { what: what.to_owned(), waited: limit, evidence: self.log_tail() });
            }
            sleep(TICK);
        }
    }

    /// Sends `signal`.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        kill(nix_pid(self.pid()), signal).map_err(Fault::os(format!("sending {signal} to {}", self.name)))
    }

    /// Waits for its end, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patient(limit);
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            sleep(TICK);
        }
        let what = format!("the end of {}", self.name);
        Err(Fault::Late { what, waited: limit, evidence: self.log_tail() })
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(10))
    }

    /// CPU time it has used, all threads, user and system.
    pub fn cpu_time(&self) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.pid());
        let entries = std::fs::read_dir(&tasks).map_err(Fault::io(format!("reading {tasks}")))?;
        let on_cpu_ns = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        };
        Ok(Duration::from_nanos(entries.flatten().filter_map(on_cpu_ns).sum()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Describes an exit for a message: code or signal.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    }
}

/// The last lines of `log`, headed by `name`.
pub fn tail(name: &str, log: &str) -> String {
    const LINES: usize = 25;
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    format!("--- {name}, last lines ---\n{}", lines[from..].join("\n"))
}

/// The text of a file that may not exist (yet) and may hold anything.
pub fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

pub(crate) fn nix_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

fn not_started(command: &Command, error: &std::io::Error) -> Fault {
    Fault::Command { command: words(command), output: format!("it did not start: {error}") }
}

fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_hears_sigterm_though_its_parent_blocks_it() {
        let log = std::env::temp_dir().join(format!("trestle-{}.child", std::process::id()));
        let ended = std::thread::spawn({
            let log = log.clone();
            move || {
                nix::sys::signal::SigSet::all().thread_block().unwrap();
                let mut child = Process::spawn("child", Command::new("sleep").arg("60"), &log).unwrap();
                child.terminate(Duration::from_secs(5)).unwrap()
            }
        });
        assert_eq!(describe(ended.join().unwrap()), "signal 15");
        std::fs::remove_file(log).unwrap();
    }
}
