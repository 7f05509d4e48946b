use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use crate::stage::{announce, cargo, root, target};

mod callgrind;
mod kept;

use callgrind::Counts;
use kept::{Kept, Machine};

/// What to do with the counts.
#[derive(Args, Debug)]
pub struct Options {
    /// Keep what is counted now: the way to accept a change.
    #[arg(long)]
    update: bool,
}

/// How often the same is counted, to keep the fewest of each step, or until nothing is worse. Keys of hash tables are
/// drawn anew at each start: in one start of ten two stations share a tag, and that adds up to 6 % to the switch.
const STARTS: usize = 5;

/// Rounds that are counted of each way. Counts of one round differ from the next by what a ring's end costs.
const ROUNDS: usize = 8;

/// The counts that are kept, by path from the top of the tree.
const KEPT: &str = "benches/micro/counts.json";

/// One way through the gateway with frames of one length, as the benchmark lists them.
struct Work {
    name: String,
    bytes: String,
    /// Frames that a round delivers.
    delivered: f64,
}

/// Counts, says what differs from what is kept, and fails if something is worse.
pub fn run(options: &Options) -> Result<(), String> {
    let made_with = Machine::here()?;
    let path = root().join(KEPT);
    if options.update {
        Kept { made_with, counts: count(None)? }.write(&path)?;
        println!("kept in {KEPT}");
        return Ok(());
    }
    let kept = Kept::read(&path)?;
    let worse = kept.compare(&count(Some(&kept))?);
    worse.iter().for_each(|line| println!("{line}"));
    if worse.is_empty() {
        println!("no step of {} ways takes more instructions than is kept in {KEPT}", kept.counts.len());
        return Ok(());
    }
    let accept = "to accept them: `cargo xtask micro --update`, and commit the file with the reason";
    if kept.made_with == made_with {
        return Err(format!("{} counts differ from {KEPT}; {accept}", worse.len()));
    }
    println!(
        "warning: not a failure, for the kept counts are of {}, these of {}; {accept}",
        kept.made_with, made_with
    );
    Ok(())
}

/// Whether counting can be done here.
pub fn check_tools() -> Result<(), String> {
    kept::valgrind_version().map(|_| ())
}

/// Counts all there is.
fn count(kept: Option<&Kept>) -> Result<BTreeMap<String, Counts>, String> {
    let program = build()?;
    announce("counting");
    let works = works(&program)?;
    println!("{:22} {:>8} {:>8}   instructions a frame", "", "all", "AEAD");
    works
        .iter()
        .map(|work| {
            let counts = work.fewest(&program, kept)?;
            let [turn, aead] = ["turn", "aead"].map(|step| counts.of(step).unwrap_or_default());
            println!("{:22} {turn:>8.0} {aead:>8.0}", work.key());
            Ok((work.key(), counts))
        })
        .collect()
}

/// Builds the benchmark and returns the program's path, which only cargo knows.
fn build() -> Result<PathBuf, String> {
    announce("building the benchmark");
    let arguments = ["build", "--release", "--package", "trestle-bench", "--bench", "micro", "--quiet"];
    let mut cargo = cargo(&arguments);
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let told = cargo.output().map_err(|e| format!("cargo: {e}"))?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let messages = told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == "micro");
    let program = programs.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.ok_or_else(|| "the benchmark does not build: `cargo bench -p trestle-bench --no-run`".to_owned())
}

fn works(program: &Path) -> Result<Vec<Work>, String> {
    let list =
        Command::new(program).arg("--list").output().map_err(|e| format!("{}: {e}", program.display()))?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    list.lines()
        .map(|line| Work::read(line).ok_or_else(|| format!("`micro --list` says what is no work: {line}")))
        .collect()
}

impl Work {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (name, bytes) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Self { name, bytes, delivered: words.next()?.parse().ok()? })
    }

    fn key(&self) -> String {
        format!("{} {}", self.name, self.bytes)
    }

    fn fewest(&self, program: &Path, kept: Option<&Kept>) -> Result<Counts, String> {
        let mut fewest = self.count(program)?;
        for _ in 1..STARTS {
            if kept.is_some_and(|kept| kept.differences(&self.key(), &fewest).is_empty()) {
                break;
            }
            fewest = fewest.or_fewer(&self.count(program)?);
        }
        Ok(fewest)
    }

    fn count(&self, program: &Path) -> Result<Counts, String> {
        let profile = target()?.join("tmp").join(format!("callgrind-{}-{}.out", self.name, self.bytes));
        std::fs::create_dir_all(profile.parent().unwrap_or(&profile))
            .map_err(|e| format!("a folder for {}: {e}", profile.display()))?;
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--quiet", "--tool=callgrind", "--toggle-collect=micro::counted"])
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(program)
            .args([&self.name, &self.bytes, "--rounds", &ROUNDS.to_string()]);
        let ran = valgrind.output().map_err(|e| format!("valgrind: {e}"))?;
        if !ran.status.success() {
            return Err(format!(
                "{valgrind:?} ended with {}:\n{}",
                ran.status,
                String::from_utf8_lossy(&ran.stderr)
            ));
        }
        let text = std::fs::read_to_string(&profile).map_err(|e| format!("{}: {e}", profile.display()))?;
        Counts::read(&text, self.delivered * ROUNDS as f64).map_err(|why| {
            format!("{}: {why}; has `Worker::turn` or a step of it been renamed?", profile.display())
        })
    }
}
