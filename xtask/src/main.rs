//! The project's own commands; one file each.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod demo;
mod guest;
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
    /// Install the system packages that building, testing and the demo need.
    Setup(setup::Options),
    /// The inner loop: format, clippy, unit tests and simulation; no root, under two minutes.
    Check,
    /// Everything: check, BPF fixtures, namespaces end to end with real OpenVPN, fuzzing, the built BPF object.
    Test(test::Options),
    /// The reference network on this machine, with real clients, and what crosses it.
    Demo(demo::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Task::Setup(options) => setup::run(options),
        Task::Check => check::run(),
        Task::Test(options) => test::run(&options),
        Task::Demo(options) => demo::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
