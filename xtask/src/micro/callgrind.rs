//! What callgrind writes: functions, and below each its own lines and its calls with what they cost in all.
//!
//! ```text
//! fn=(12) trestle::worker::Worker<N,T,H>::turn     a function; later only fn=(12)
//! 141 8                                            a line of it, and its instructions
//! cfn=(14) trestle::worker::...::open              it calls
//! calls=24 +16                                     so often
//! * 126480                                         and this is what the calls cost, all below them included
//! ```
//! Source: "Callgrind Format Specification" in valgrind's manual.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

/// What allocating costs goes by this name.
pub const MALLOC: &str = "malloc";

/// Instructions a frame, in tenths: of the whole turn, of each step that `Worker::turn` calls, and, as parts of these,
/// of the AEAD and of allocating, by C libraries too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts(BTreeMap<String, f64>);

/// One call of the profile: who calls whom, and what that costs in all. (How often is of no use: callgrind counts calls
/// while it does not collect, too.)
struct Call<'a> {
    caller: &'a str,
    callee: &'a str,
    cost: f64,
}

impl Counts {
    /// Counts out of a profile in which `frames` were delivered.
    ///
    /// # Errors
    /// It is no profile of a worker's turns.
    pub fn read(profile: &str, frames: f64) -> Result<Self, String> {
        let mut sums = BTreeMap::from([("aead", 0.0), (MALLOC, 0.0)]);
        for call in calls(profile) {
            if let Some(name) = call.counts_for() {
                *sums.entry(name).or_insert(0.0) += call.cost;
            }
        }
        if !sums.contains_key("turn") || sums.len() < 4 {
            return Err("no calls of Worker::turn and of its steps in it".to_owned());
        }
        let tenths = |sum: f64| (sum / frames * 10.0).round() / 10.0;
        Ok(Self(sums.into_iter().map(|(name, sum)| (name.to_owned(), tenths(sum))).collect()))
    }

    /// Of the step so named, if there is one.
    pub fn of(&self, step: &str) -> Option<f64> {
        self.0.get(step).copied()
    }

    /// Names of all that is counted.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Of each step what is fewer; a step that only one of them has is as it is there.
    pub fn or_fewer(mut self, other: &Self) -> Self {
        for (step, count) in &other.0 {
            self.0.entry(step.clone()).and_modify(|fewest| *fewest = fewest.min(*count)).or_insert(*count);
        }
        self
    }

    /// As an object of numbers.
    pub fn to_json(&self) -> Value {
        json!(self.0)
    }

    /// From an object of numbers.
    pub fn from_json(value: &Value) -> Option<Self> {
        let steps = value.as_object()?.iter();
        steps.map(|(name, count)| Some((name.clone(), count.as_f64()?))).collect::<Option<_>>().map(Self)
    }
}

impl<'a> Call<'a> {
    /// The name under which its cost is counted.
    fn counts_for(&self) -> Option<&'a str> {
        if is_turn(self.callee) {
            Some("turn")
        } else if is_turn(self.caller) {
            self.callee.contains("Worker<").then(|| self.callee.rsplit("::").next()).flatten()
        } else if is_aead(self.callee) {
            Some("aead")
        } else if is_allocation(self.callee) && !is_allocation(self.caller) {
            Some(MALLOC)
        } else {
            None
        }
    }
}

fn is_turn(name: &str) -> bool {
    name.contains("Worker<") && name.ends_with("::turn")
}

/// The one call into AWS-LC for each packet: `EVP_AEAD_CTX_open_gather`, `EVP_AEAD_CTX_seal_scatter`.
fn is_aead(name: &str) -> bool {
    name.contains("EVP_AEAD_CTX_open") || name.contains("EVP_AEAD_CTX_seal")
}

fn is_allocation(name: &str) -> bool {
    matches!(name, "malloc" | "calloc" | "realloc" | "posix_memalign")
}

/// All calls in a profile. A name is written once, with a number that stands for it from then on.
fn calls(profile: &str) -> Vec<Call<'_>> {
    let mut names = HashMap::new();
    let (mut caller, mut callee, mut is_cost) = ("", "", false);
    let mut calls = Vec::new();
    for line in profile.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            caller = named(&mut names, name);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = named(&mut names, name);
        } else if line.starts_with("calls=") {
            is_cost = true;
        } else if std::mem::take(&mut is_cost) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse().ok()).unwrap_or_default();
            calls.push(Call { caller, callee, cost });
        }
    }
    calls
}

/// `(12) name` is a name and its number, `(12)` the number alone.
fn named<'a>(names: &mut HashMap<&'a str, &'a str>, text: &'a str) -> &'a str {
    match text.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(text).copied().unwrap_or(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
fn=(1) micro::counted
73 8
cfn=(2) trestle::worker::Worker<N,T,H>::turn
calls=8 -13
* 1280
fn=(2)
142 160
cfn=(3) trestle::worker::open::<impl trestle::worker::Worker<N,T,H>>::open
calls=8 16
* 640
cfn=(4) trestle::worker::mailbox::Mailbox::take
calls=8 116
* 80
fn=(3)
24 160
cfn=(5) aws_lc_0_47_0_EVP_AEAD_CTX_open_gather
calls=64 3
+10 480
cfn=(6) malloc
calls=32 3
* 64
";

    #[test]
    fn steps_of_the_turn_the_aead_and_allocations_are_counted_a_frame() {
        let counts = Counts::read(PROFILE, 64.0).unwrap();
        let seen: Vec<_> = counts.steps().map(|step| (step, counts.of(step).unwrap())).collect();
        assert_eq!(seen, [("aead", 7.5), ("malloc", 1.0), ("open", 10.0), ("turn", 20.0)]);
        assert_eq!(Counts::from_json(&counts.to_json()), Some(counts));
    }

    #[test]
    fn of_two_starts_the_fewer_count() {
        let of = |open, seal| Counts::from_json(&json!({ "open": open, "seal": seal })).unwrap();
        assert_eq!(of(9.0, 5.5).or_fewer(&of(8.0, 6.0)), of(8.0, 5.5));
    }

    #[test]
    fn a_profile_of_something_else_is_refused() {
        assert!(Counts::read("fn=(1) main\n1 8\ncfn=(2) malloc\ncalls=1 2\n* 9\n", 64.0).is_err());
    }
}
