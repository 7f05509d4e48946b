//! `cargo xtask fuzz [--seconds N] [TARGET]`: runs the fuzz targets of tests/fuzz, one after another.
//!
//! What a run finds is kept in tests/fuzz/corpus, outside version control; the seeds in tests/fuzz/seeds are only read.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Longest input in bytes: more than the longest packet or frame, and than any `server.conf` needs to show a fault.
/// Too low hides faults of long inputs, too high makes each run slow.
const MAX_INPUT: usize = 4096;
/// Seconds after which a single input counts as a hang.
const HANG_SECONDS: u32 = 10;

/// Runs `target`, or every target in alphabetical order, for `seconds` each.
///
/// # Errors
/// A sentence with cause and cure: nightly or cargo-fuzz is missing, the target is unknown, or an input made a target
/// fail; cargo-fuzz has then printed where that input is and how to run it again.
pub fn run(seconds: u64, target: Option<&str>) -> Result<(), String> {
    check_tools()?;
    let fuzz = folder();
    let mut known = targets(&fuzz)?;
    if let Some(target) = target {
        if !known.iter().any(|name| name == target) {
            return Err(format!("there is no fuzz target {target}; there are: {}", known.join(", ")));
        }
        known = vec![target.to_owned()];
    }
    known.iter().try_for_each(|target| run_one(&fuzz, target, seconds))
}

fn run_one(fuzz: &Path, target: &str, seconds: u64) -> Result<(), String> {
    println!("fuzz {target}: {seconds} s");
    let corpus = fuzz.join("corpus").join(target);
    fs::create_dir_all(&corpus).map_err(|error| format!("cannot create {}: {error}", corpus.display()))?;
    let mut command = cargo_fuzz("run");
    command.arg("--fuzz-dir").arg(fuzz).arg(target);
    // libFuzzer writes what it finds to the first folder and only reads the others.
    command.arg(corpus).arg(fuzz.join("seeds").join(target)).arg("--");
    command.arg(format!("-max_total_time={seconds}"));
    command.args([format!("-max_len={MAX_INPUT}"), format!("-timeout={HANG_SECONDS}")]);
    // Findings are worth a line, its progress is not.
    command.arg("-verbosity=0");
    let status = command.status().map_err(|error| format!("cannot start cargo fuzz: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("fuzz target {target} failed ({status}): the input and how to repeat it are printed above"))
}

/// The targets there are: a file each.
fn targets(fuzz: &Path) -> Result<Vec<String>, String> {
    let folder = fuzz.join("targets");
    let cannot_read = |error| format!("cannot read {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(cannot_read)? {
        let path = entry.map_err(cannot_read)?.path();
        if path.extension() == Some(OsStr::new("rs")) {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Whether what fuzzing needs is there; if not, what to install.
pub fn check_tools() -> Result<(), String> {
    match cargo_fuzz("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(
            "fuzzing needs a nightly toolchain and cargo-fuzz: run `rustup toolchain install nightly` and \
                  `cargo install cargo-fuzz`"
                .to_owned(),
        ),
    }
}

/// `cargo +nightly fuzz`, through rustup, since the cargo that runs us is a toolchain's own.
fn cargo_fuzz(subcommand: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "fuzz", subcommand]);
    command
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_declared_and_has_seeds() {
        let fuzz = folder();
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        let targets = targets(&fuzz).unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            assert!(
                manifest.contains(&format!("path = \"targets/{target}.rs\"")),
                "{target} is not in Cargo.toml"
            );
            assert!(
                fs::read_dir(fuzz.join("seeds").join(&target)).unwrap().count() > 0,
                "{target} has no seeds"
            );
        }
    }
}
