//! What the report says of the machine and of what was measured on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use trestle_tests::process::output;

use crate::results::Machine;

/// This machine.
pub fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kilobytes = memory.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name"),
        cpus: std::thread::available_parallelism().map_or(1, usize::from).max(2),
        memory_bytes: kilobytes.unwrap_or(0) * 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
    }
}

/// Versions of the programs that take part, as they say themselves.
pub fn versions(binaries: &Path) -> BTreeMap<String, String> {
    let trestle = binaries.join("trestle");
    let asked: [(&str, &Path); 3] =
        [("trestle", &trestle), ("openvpn", Path::new("openvpn")), ("iperf3", Path::new("iperf3"))];
    asked.into_iter().filter_map(|(name, program)| Some((name.to_owned(), version(program)?))).collect()
}

/// The first line that a program says about its version. (openvpn ends with an error code after saying it.)
fn version(program: &Path) -> Option<String> {
    let said = output(Command::new(program).arg("--version"), 5).ok()?;
    said.stdout.lines().next().map(str::to_owned)
}

/// Value of the first `name: value` or `name\t: value`.
fn field(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_however_it_is_spaced() {
        let text = "MemTotal:       24683172 kB\nmodel name\t: A Processor\n";
        assert_eq!(field(text, "MemTotal"), "24683172 kB");
        assert_eq!(field(text, "model name"), "A Processor");
        assert_eq!(field(text, "flags"), "");
    }
}
