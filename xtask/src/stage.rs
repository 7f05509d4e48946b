use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What ran, what failed, what was left out, over all stages of a command.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Tests, and stages that are one test, that passed.
    pub passed: u64,
    /// Those that failed.
    pub failed: u64,
    /// Names of stages that failed.
    pub failures: Vec<String>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

impl Ledger {
    /// Runs `command` as the stage `name`, its output shown as it comes. Test summaries in it are counted; a command
    /// without any counts as one.
    pub fn run(&mut self, name: &str, command: &mut Command) {
        announce(name);
        match counted(command) {
            Ok(ran) => self.enter(name, ran),
            Err(why) => {
                eprintln!("{why}");
                self.enter(name, Ran { ok: false, ..Ran::default() });
            }
        }
    }

    /// Runs another command of this program as the stage `name`.
    pub fn run_self(&mut self, name: &str, arguments: &[&str]) {
        match std::env::current_exe() {
            Ok(exe) => self.run(name, Command::new(exe).args(arguments)),
            Err(why) => self.enter_result(name, Err(format!("finding this program: {why}"))),
        }
    }

    /// Enters a stage that was not a command of its own.
    pub fn enter_result(&mut self, name: &str, result: Result<(), String>) {
        if let Err(why) = &result {
            eprintln!("{why}");
        }
        self.enter(name, Ran { ok: result.is_ok(), ..Ran::default() });
    }

    /// Notes a stage that is left out.
    pub fn skip(&mut self, what: impl Into<String>) {
        let line = format!("SKIPPED: {}", what.into());
        println!("\n{line}");
        if root_required() {
            self.failed += 1;
            self.failures.push(line.clone());
        }
        self.skipped.push(line);
    }

    /// Says what became of all stages; the last line stands alone.
    pub fn close(&self) -> Result<(), String> {
        println!();
        for what in &self.skipped {
            println!("{what}");
        }
        for name in &self.failures {
            println!("FAILED: {name}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failures.is_empty() { Ok(()) } else { Err(format!("{} failed", self.failures.join(", "))) }
    }

    fn enter(&mut self, name: &str, ran: Ran) {
        let counted = ran.passed + ran.failed > 0;
        self.passed += if counted { ran.passed } else { u64::from(ran.ok) };
        // A crash or a compile error fails without a test that did.
        self.failed += if ran.ok { ran.failed } else { ran.failed.max(1) };
        if !ran.ok {
            self.failures.push(name.to_owned());
        } else if !ran.skipped.is_empty() && root_required() {
            self.failed += 1;
            self.failures.push(format!("{name}: tests were skipped where none may be"));
        }
        self.skipped.extend(ran.skipped);
    }
}

/// Whether skipping for want of root is a failure (TRESTLE_REQUIRE_ROOT=1, as in CI).
pub fn root_required() -> bool {
    std::env::var("TRESTLE_REQUIRE_ROOT").is_ok_and(|value| value == "1")
}

/// Tells which stage begins.
pub fn announce(name: &str) {
    println!("\n=== {name} ===");
}

/// A `cargo` command at the top of the source tree.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Top of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Where cargo puts what it builds: this program stands in `TARGET/PROFILE`.
pub fn target() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| format!("finding this program: {e}"))?;
    exe.ancestors()
        .nth(2)
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} is in no target folder", exe.display()))
}

/// Runs `command` to its end with its output shown; an error if it fails.
pub fn must(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{command:?} did not start: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}")) }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Ran {
    ok: bool,
    passed: u64,
    failed: u64,
    skipped: Vec<String>,
}

impl Ran {
    fn read(&mut self, line: &str) {
        let (passed, failed) = summary(line).unwrap_or_default();
        self.passed += passed;
        self.failed += failed;
        // Tests that cannot run without root write such a line past libtest's capture.
        if line.starts_with("SKIPPED") {
            self.skipped.push(line.to_owned());
        }
    }
}

fn counted(command: &mut Command) -> Result<Ran, String> {
    let failed = |e: std::io::Error| format!("a stage did not run: {e}");
    let (output, input) = std::io::pipe().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(input.try_clone().map_err(failed)?).stderr(input);
    let mut child = command.spawn().map_err(|e| format!("{command:?} did not start: {e}"))?;
    // The command holds the pipe's other end; the last line comes when nobody does any more.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut ran = Ran::default();
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        println!("{line}");
        ran.read(&line);
    }
    ran.ok = child.wait().map_err(failed)?.success();
    Ok(ran)
}

/// Passed and failed out of libtest's `test result: ok. 3 passed; 0 failed; ...`.
///
/// Of a run of everything: one with tests filtered out is a test that runs itself again, and counts there.
fn summary(line: &str) -> Option<(u64, u64)> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    if counts.contains("filtered out") && !counts.contains(" 0 filtered out") {
        return None;
    }
    let number = |of: &str| {
        let part = counts.split(';').find(|part| part.trim().ends_with(of))?;
        part.split_whitespace().next()?.parse().ok()
    };
    Some((number("passed")?, number("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_libtest_is_read() {
        let line =
            "test result: FAILED. 40 passed; 2 failed; 3 ignored; 0 measured; 0 filtered out; finished in 1s";
        assert_eq!(summary(line), Some((40, 2)));
        assert_eq!(summary("test result: ok. 5 passed; 0 failed; 0 ignored"), Some((5, 0)));
        assert_eq!(summary("40 passed, 2 failed"), None);
        let nested =
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 16 filtered out; finished in 0.47s";
        assert_eq!(summary(nested), None);
    }

    #[test]
    fn a_stage_without_tests_counts_as_one() {
        let mut ledger = Ledger::default();
        ledger.enter_result("format", Ok(()));
        ledger.enter_result("clippy", Err("it complains".to_owned()));
        ledger.enter("units", Ran { ok: true, passed: 7, ..Ran::default() });
        ledger.enter("crash", Ran { ok: false, passed: 3, ..Ran::default() });
        assert_eq!((ledger.passed, ledger.failed), (11, 2));
        assert_eq!(ledger.failures, ["clippy", "crash"]);
        assert!(ledger.close().is_err());
    }
}
