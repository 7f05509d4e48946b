use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};

use crate::process::{nix_pid, run, wait_until};
use crate::{Fault, Result};

/// First part of every namespace's name; then the owner's pid, a number, and what it stands for.
const PREFIX: &str = "trestle";
/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
/// Seconds any configuration command may take.
const PATIENCE: u32 = 30;

/// A network namespace, removed with everything in it when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates a namespace that stands for `role`, with its loopback up.
    pub fn create(role: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("{PREFIX}-{}-{number}-{role}", std::process::id()) };
        run(Command::new("ip").args(["netns", "add", &namespace.name]), PATIENCE)?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }

    /// `program`, to be run inside. The process id stays that of the program: nsenter executes it.
    ///
    /// Not `ip netns exec`: that one mounts another /sys and hides what is pinned in bpffs.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `program` with `arguments`, separated by spaces, to its end inside.
    pub fn run(&self, program: &str, arguments: &str) -> Result<String> {
        run(self.command(program).args(arguments.split_whitespace()), PATIENCE)
    }

    /// Runs `ip` with `arguments`.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(Command::new("ip").args(["-netns", &self.name]).args(arguments.split_whitespace()), PATIENCE)
    }

    /// Runs `ip` once for every line of `script`, in one process.
    pub fn ip_batch(&self, script: &str) -> Result<()> {
        let lines: String = script.lines().map(|line| format!("{}\n", line.trim())).collect();
        let shell = "printf %s \"$1\" | ip -batch -";
        run(self.command("sh").args(["-c", shell, "sh", &lines]), PATIENCE).map(drop)
    }

    /// Runs a shell script inside, as an admin would.
    pub fn script(&self, text: &str) -> Result<String> {
        run(self.command("sh").args(["-e", "-c", text]), PATIENCE)
    }

    /// Loads an nftables rule set.
    pub fn nft(&self, rules: &str) -> Result<()> {
        run(self.command("sh").args(["-c", "printf %s \"$1\" | nft -f -", "sh", rules]), PATIENCE).map(drop)
    }

    /// Sets a value under /proc/sys; `key` with slashes.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        let write = self.within(|| std::fs::write(&path, value))?;
        write.map_err(Fault::io(format!("setting {path} to {value}")))
    }

    /// What `ip -json` says, as a list.
    pub fn ip_json(&self, arguments: &str) -> Result<Vec<serde_json::Value>> {
        let text = self.ip(&format!("-json {arguments}"))?;
        let text = if text.trim().is_empty() { "[]" } else { text.trim() };
        serde_json::from_str(text).map_err(|e| Fault::other(format!("ip {arguments} wrote no JSON: {e}")))
    }

    /// Hardware address of `device`.
    pub fn mac(&self, device: &str) -> Result<[u8; 6]> {
        let links = self.ip_json(&format!("link show dev {device}"))?;
        let text = links.first().and_then(|link| link["address"].as_str()).unwrap_or_default();
        crate::frame::parse_mac(text)
            .ok_or_else(|| Fault::other(format!("{device} has no address: {text:?}")))
    }

    /// First IPv4 address of `device`, if it has one.
    pub fn ipv4(&self, device: &str) -> Option<std::net::Ipv4Addr> {
        let links = self.ip_json(&format!("-4 address show dev {device}")).ok()?;
        let addresses = links.first()?["addr_info"].as_array()?.clone();
        addresses.first()?["local"].as_str()?.parse().ok()
    }

    /// Whether a device of that name exists inside.
    pub fn has_device(&self, device: &str) -> bool {
        self.ip(&format!("link show dev {device}")).is_ok()
    }

    /// Does `work` on a thread inside; sockets it opens stay inside wherever they are used later.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file =
            File::open(self.path()).map_err(Fault::io(format!("opening {}", self.path().display())))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).map_err(Fault::os("entering a network namespace"))?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes what earlier processes left behind when they were killed; their namespaces carry their pids.
pub fn sweep() {
    for name in left_behind() {
        eprintln!("removing the network namespace {name} of a process that is gone");
        remove(&name);
    }
}

/// Network namespaces whose owner no longer runs.
pub fn left_behind() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(NAMES) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| owner(name).is_some_and(|pid| !alive(pid))).collect()
}

/// Network namespaces of this process that still exist.
pub fn own() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(NAMES) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| owner(name) == Some(std::process::id())).collect()
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-').next()?.parse().ok()
}

fn alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Ends every process in namespace `name`, then removes it: a namespace lives as long as a process in it.
fn remove(name: &str) {
    let inside = || -> Vec<u32> {
        let listed = run(Command::new("ip").args(["netns", "pids", name]), PATIENCE).unwrap_or_default();
        listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    for pid in inside() {
        let _ = kill(nix_pid(pid), Signal::SIGKILL);
    }
    let gone = || inside().is_empty().then_some(());
    let _ = wait_until("the end of a namespace's processes", Duration::from_secs(5), gone, String::new);
    let _ = run(Command::new("ip").args(["netns", "delete", name]), PATIENCE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        assert_eq!(owner("trestle-4711-0-gw"), Some(4711));
        assert_eq!(owner("trestle-x-0-gw"), None);
        assert_eq!(owner("another-4711-0-gw"), None);
    }

    #[test]
    fn a_process_that_runs_is_alive() {
        assert!(alive(std::process::id()));
        assert!(!alive(u32::MAX));
    }
}
