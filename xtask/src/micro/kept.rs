//! The counts kept in the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::callgrind::{Counts, MALLOC};

/// A count may grow by so much before it is worse, as a part of what is kept.
const TOLERANCE: f64 = 0.05;

/// And by so much, in instructions a frame: a step that has nothing to do takes a fraction of one, and half as much
/// again of that is nobody's concern.
const SLACK: f64 = 1.0;

/// Counts, and what they were made with.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Counts of others are no measure.
    pub made_with: Machine,
    /// By way and length of frames.
    pub counts: BTreeMap<String, Counts>,
}

/// What instruction counts depend on, beside the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    rustc: String,
    valgrind: String,
    /// Valgrind shows the program a CPU with AES-NI, and with AVX2 where the real one has it; AWS-LC and the C library
    /// choose by that. AVX-512 it never shows, so these are not the instructions a server's CPU is given.
    avx2: bool,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// There is no rustc or no valgrind.
    pub fn here() -> Result<Self, String> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let rustc = word(Command::new(rustc).arg("--version"), 1).ok_or("there is no rustc")?;
        Ok(Self { rustc, valgrind: valgrind_version()?, avx2: has_avx2() })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Some(Self { rustc: text("rustc")?, valgrind: text("valgrind")?, avx2: value["avx2"].as_bool()? })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let avx2 = if self.avx2 { "with" } else { "without" };
        write!(f, "rustc {}, {} and a CPU {avx2} AVX2", self.rustc, self.valgrind)
    }
}

/// What `valgrind --version` says.
///
/// # Errors
/// There is none.
pub fn valgrind_version() -> Result<String, String> {
    word(Command::new("valgrind").arg("--version"), 0).ok_or_else(|| "valgrind is missing".to_owned())
}

fn word(command: &mut Command, at: usize) -> Option<String> {
    let said = command.output().ok()?;
    String::from_utf8(said.stdout).ok()?.split_whitespace().nth(at).map(str::to_owned)
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

impl Kept {
    /// Reads the file.
    ///
    /// # Errors
    /// It is not there, or is not what [`Kept::write`] writes.
    pub fn read(path: &Path) -> Result<Self, String> {
        let cure = "`cargo xtask micro --update` writes it anew";
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}; {cure}", path.display()))?;
        Self::parse(&text).ok_or_else(|| format!("{} is not what it should be; {cure}", path.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let counts = value["instructions_a_frame"].as_object()?.iter();
        let counts = counts.map(|(work, counts)| Some((work.clone(), Counts::from_json(counts)?)));
        Some(Self {
            made_with: Machine::from_json(&value["made_with"])?,
            counts: counts.collect::<Option<_>>()?,
        })
    }

    /// Writes the file, one line for each way and length.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        std::fs::write(path, self.text()).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn text(&self) -> String {
        let Machine { rustc, valgrind, avx2 } = &self.made_with;
        let machine = json!({ "rustc": rustc, "valgrind": valgrind, "avx2": avx2 });
        let rows =
            self.counts.iter().map(|(work, counts)| format!("    {}: {}", json!(work), counts.to_json()));
        let rows = rows.collect::<Vec<_>>().join(",\n");
        format!("{{\n  \"made_with\": {machine},\n  \"instructions_a_frame\": {{\n{rows}\n  }}\n}}\n")
    }

    /// What of `now` is worse than what is kept, or not kept at all: a sentence each.
    pub fn compare(&self, now: &BTreeMap<String, Counts>) -> Vec<String> {
        let nothing = Counts::default();
        let works: BTreeSet<_> = self.counts.keys().chain(now.keys()).collect();
        works.into_iter().flat_map(|work| self.differences(work, now.get(work).unwrap_or(&nothing))).collect()
    }

    /// The same of one way and length.
    pub fn differences(&self, work: &str, now: &Counts) -> Vec<String> {
        let nothing = Counts::default();
        let kept = self.counts.get(work).unwrap_or(&nothing);
        let steps: BTreeSet<_> = kept.steps().chain(now.steps()).collect();
        let what = steps.into_iter().filter_map(|step| difference(step, kept.of(step), now.of(step)));
        what.map(|what| format!("{work}: {what}")).collect()
    }
}

fn difference(step: &str, kept: Option<f64>, now: Option<f64>) -> Option<String> {
    match (kept, now) {
        (Some(kept), Some(now)) => worse(step, kept, now),
        (Some(_), None) => Some(format!("{step} is kept and no longer there")),
        (None, _) => Some(format!("{step} is not kept yet")),
    }
}

fn worse(step: &str, before: f64, after: f64) -> Option<String> {
    // Where no frame allocates, none shall.
    let begins_to_allocate = step == MALLOC && before == 0.0 && after > 0.0;
    if !begins_to_allocate && (after <= before * (1.0 + TOLERANCE) || after <= before + SLACK) {
        return None;
    }
    let percent = (after / before - 1.0) * 100.0;
    Some(format!("{step} takes {after} instructions a frame where {before} are kept: {percent:+.1} %"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(counts: Value) -> Kept {
        let made_with = Machine { rustc: "1.95.0".to_owned(), valgrind: "valgrind-3".to_owned(), avx2: true };
        let counts = Counts::from_json(&counts).unwrap();
        Kept { made_with, counts: BTreeMap::from([("lan-to-peer 60".to_owned(), counts)]) }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let counts = kept(json!({ "turn": 2744.4, "malloc": 0.0 }));
        assert_eq!(Kept::parse(&counts.text()), Some(counts));
        assert_eq!(Kept::parse("{}"), None);
    }

    #[test]
    fn a_step_more_than_5_percent_worse_is_named_with_both_counts() {
        let before = kept(json!({ "open": 1000.0, "seal": 1000.0, "switch": 1000.0 }));
        let after = kept(json!({ "open": 1050.0, "seal": 900.0, "switch": 1051.0 }));
        let worse = "lan-to-peer 60: switch takes 1051 instructions a frame where 1000 are kept: +5.1 %";
        assert_eq!(before.compare(&after.counts), [worse]);
    }

    #[test]
    fn less_than_an_instruction_a_frame_is_nobodys_concern_but_an_allocation_is() {
        let before = kept(json!({ "open": 0.8, "malloc": 0.0 }));
        assert_eq!(before.compare(&kept(json!({ "open": 1.8, "malloc": 0.0 })).counts), Vec::<String>::new());
        assert_eq!(before.compare(&kept(json!({ "open": 0.8, "malloc": 0.2 })).counts).len(), 1);
    }

    #[test]
    fn steps_that_came_or_went_are_to_be_accepted_too() {
        let differences = kept(json!({ "open": 9.0 })).compare(&kept(json!({ "reassemble": 9.0 })).counts);
        let said = [
            "lan-to-peer 60: open is kept and no longer there",
            "lan-to-peer 60: reassemble is not kept yet",
        ];
        assert_eq!(differences, said);
    }
}
