//! The project's own commands; one file each.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod build_ebpf;
mod check;
mod demo;
mod fuzz;
mod guest;
mod micro;
mod setup;
mod stage;
mod test;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, testing and the demo need: packages, the BPF toolchain, a nightly Rust and cargo-fuzz.
    Setup(setup::Options),
    /// The inner loop: format, clippy, unit tests and simulation; no root, under two minutes.
    Check,
    /// Everything: check, BPF fixtures, namespaces end to end with real OpenVPN, fuzzing, the built BPF object.
    Test(test::Options),
    /// The reference network on this machine, with real clients, and what crosses it.
    Demo(demo::Options),
    /// Measure Trestle side by side with OpenVPN and others, on this machine: about ten minutes, as root.
    Bench(bench::Options),
    /// Build the BPF objects that are kept in the tree.
    BuildEbpf {
        /// Build it with the pinned toolchain and compare it with the kept one, which stays.
        #[arg(long)]
        check: bool,
    },
    /// Run the fuzz targets of tests/fuzz.
    Fuzz {
        /// For how long each.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Only this one.
        target: Option<String>,
    },
    /// Count the instructions of each step of the worker, and compare with those kept in benches/micro/counts.json.
    Micro(micro::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Task::Setup(options) => setup::run(options),
        Task::Check => check::run(),
        Task::Test(options) => test::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::BuildEbpf { check } => build_ebpf::run(check),
        Task::Fuzz { seconds, target } => fuzz::run(seconds, target.as_deref()),
        Task::Micro(options) => micro::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
