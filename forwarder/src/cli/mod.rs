//! The command line, one file a subcommand.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

mod ask;
mod brctl;
mod capture;
mod confirm;
mod doctor;
mod drops;
mod fdb;
/// `trestle join`.
pub mod join;
/// A log as the configuration wants it.
pub mod log;
mod peers;
mod ports;
mod reload;
/// `trestle run`.
pub mod run;
mod segments;
mod status;
mod table;

use crate::{config, control, management::socket::SocketError};

/// Where the control socket is when nothing else is said.
pub const CONTROL: &str = "/run/trestle/control.sock";

/// An Ethernet gateway: remote machines join a LAN as if plugged into it.
#[derive(Debug, Parser)]
#[command(
    name = "trestle",
    version,
    after_help = "Also: trestle brctl ..., which is bridge-utils' tool; see trestle brctl -h"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Run(run::RunArgs),
    /// Join a server's network: this site's segment becomes a part of it
    Join(join::JoinArgs),
    /// Show how the gateway is
    Status(AskArgs),
    /// Show the clients connected
    Peers(AskArgs),
    /// Show which station stands behind which port
    Fdb(AskArgs),
    /// Show the ports of the segment
    Ports(AskArgs),
    /// Show what was lost, and why
    Drops(DropsArgs),
    /// Show or write down the frames of a peer or a port, which tcpdump does not see
    Capture(capture::CaptureArgs),
    /// Have a supervisor read its file of segments again, and wait for what comes of it
    Reload(AskArgs),
    /// Confirm a gateway that was started with --confirm: it stays
    Confirm(AskArgs),
    /// Look at this host: what it can do, what is wrong, how to mend it
    Doctor(doctor::DoctorArgs),
}

/// What every question to a running gateway takes.
#[derive(Debug, Args)]
struct AskArgs {
    /// Print one JSON object
    #[arg(short, long)]
    json: bool,
    /// Of a supervisor's segments, the one that is meant
    #[arg(long, value_name = "NAME")]
    segment: Option<String>,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Args)]
struct DropsArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// Show also what never happened
    #[arg(short, long)]
    all: bool,
}

/// Which gateway is meant.
#[derive(Clone, Debug, Args)]
pub struct ControlArgs {
    /// The gateway's control socket
    #[arg(long, value_name = "SOCKET", env = "TRESTLE_CONTROL", default_value = CONTROL)]
    pub control: PathBuf,
}

/// Why a command failed: one line for stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// From a sentence with cause and cure.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<control::Error> for Error {
    fn from(error: control::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<SocketError> for Error {
    fn from(error: SocketError) -> Self {
        Self(error.to_string())
    }
}

/// Runs the command line of this process: exit code 1 for an error, 2 for wrong usage.
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if let Some((program, arguments)) = brctl::called(&words) {
        return brctl::main(program, arguments);
    }
    match Cli::parse_from(words).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The terminal may be gone; `eprintln` would panic.
            let _ = writeln!(io::stderr(), "trestle: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Run(args) => run::run(args),
            Command::Join(args) => join::run(args),
            Command::Status(args) => status::run(&args),
            Command::Peers(args) => peers::run(&args),
            Command::Fdb(args) => fdb::run(&args),
            Command::Ports(args) => ports::run(&args),
            Command::Reload(args) => reload::run(&args),
            Command::Drops(args) => drops::run(&args),
            Command::Capture(args) => capture::run(&args),
            Command::Confirm(args) => confirm::run(&args),
            Command::Doctor(args) => doctor::run(args),
        }
    }
}

#[cfg(test)]
mod tests;
