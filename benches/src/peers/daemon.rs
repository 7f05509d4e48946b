use std::collections::VecDeque;
use std::fs::read_to_string;
use std::time::Duration;

use trestle_tests::Result;
use trestle_tests::process::Process;

use crate::rig::system::{Clients, System};

/// How long a process may take to end.
const END: Duration = Duration::from_secs(5);

/// A system made of processes, all of which must run.
pub struct Daemon {
    /// Its name in reports.
    pub name: &'static str,
    /// What has to be connected to it.
    pub clients: Clients,
    /// Its processes, in the order they were started.
    pub processes: Vec<Process>,
    /// What the log of the last one says when it serves; nothing where whoever started it has seen that.
    pub ready: &'static str,
}

impl System for Daemon {
    fn name(&self) -> &'static str {
        self.name
    }

    fn clients(&self) -> Clients {
        self.clients
    }

    fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        self.processes.last_mut().map_or(Ok(()), |process| process.wait_for(self.ready, limit))
    }

    fn pids(&mut self) -> Vec<u32> {
        self.processes.iter().flat_map(|process| family(process.pid())).collect()
    }

    fn log_tail(&self) -> String {
        self.processes.iter().map(|process| process.log_tail() + "\n").collect()
    }

    fn stop(&mut self) -> Result<()> {
        let ended = self.processes.iter_mut().rev().map(|process| process.terminate(END).map(drop));
        // Children that outlive their parent end with the namespace.
        ended.fold(Ok(()), Result::and)
    }
}

/// A process and its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut waiting = VecDeque::from([pid]);
    while let Some(pid) = waiting.pop_front() {
        found.push(pid);
        // Ends when processes end; a process has one parent, so none is met twice.
        let children = read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        waiting.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_family_has_children() {
        let log = std::env::temp_dir().join(format!("trestle-{}.family", std::process::id()));
        let mut parent =
            Process::spawn("parent", Command::new("sh").args(["-c", "sleep 5 & echo up; wait"]), &log)
                .unwrap();
        parent.wait_for("up", END).unwrap();
        assert_eq!(family(parent.pid()).len(), 2);
        for pid in family(parent.pid()).into_iter().rev() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        std::fs::remove_file(log).unwrap();
    }
}
