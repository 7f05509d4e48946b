//! What one frame costs the worker, over rings in memory: no NIC, no kernel, no privileges.
//!
//! - `cargo bench --package trestle-bench --bench micro [-- WORK]`: nanoseconds a frame by the clock, each way through
//!   the gateway with each length of frames.
//! - `micro --rounds N WORK BYTES`: N rounds of one of them and nothing said. `cargo xtask micro` runs it under
//!   callgrind, which counts what happens inside [`counted`].
//! - `micro --list`: what there is, a line each: way, bytes, frames a round delivers.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a ruler reads the clock")]

mod clock;
mod scaling;

use std::{io, process::ExitCode};

use clap::Parser;
use trestle_bench::memory::{Round, Work};

/// What one frame costs the worker, over rings in memory.
#[derive(Parser)]
struct Arguments {
    /// Only this way: see the table for names.
    work: Option<String>,
    /// Frames of this length only, in bytes.
    bytes: Option<usize>,
    /// Run so many rounds of one way and length, and say nothing: for a profiler.
    #[arg(long, requires = "work", requires = "bytes")]
    rounds: Option<usize>,
    /// Say what there is to measure, and how many frames a round of it delivers.
    #[arg(long)]
    list: bool,
    /// Instead: how much more two workers on two CPUs do than one.
    #[arg(long, conflicts_with = "rounds")]
    scaling: bool,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn names(&self, work: Work, bytes: usize) -> bool {
        self.work.as_deref().is_none_or(|name| name == work.name())
            && self.bytes.is_none_or(|only| only == bytes)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen: Vec<_> = Work::matrix().filter(|(work, bytes)| arguments.names(*work, *bytes)).collect();
    let outcome = match (arguments.rounds, chosen.as_slice()) {
        _ if arguments.scaling => scaling::table(),
        _ if arguments.list => {
            chosen.iter().for_each(|(work, bytes)| println!("{work} {bytes} {}", work.delivered(*bytes)));
            Ok(())
        }
        (_, []) => Err(io::Error::other(format!("there is no such work; there are {}", known()))),
        (Some(rounds), chosen) => chosen.iter().try_for_each(|(work, bytes)| run(*work, *bytes, rounds)),
        (None, chosen) => clock::table(chosen),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn known() -> String {
    Work::matrix().map(|(work, bytes)| format!("{work} {bytes}")).collect::<Vec<_>>().join(", ")
}

fn run(work: Work, bytes: usize, rounds: usize) -> io::Result<()> {
    let mut round = Round::new(work, bytes)?;
    (0..rounds).try_for_each(|_| {
        round.offer()?;
        counted(&mut round);
        round.collect()
    })
}

/// What callgrind counts: it begins and ends with this function, which it knows by name.
#[inline(never)]
fn counted(round: &mut Round) {
    round.turn();
}
