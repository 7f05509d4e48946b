use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::setup;
use crate::stage::{announce, cargo, must, target};

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Also other people's tunnels and switches, which are installed if they are missing.
    #[arg(long)]
    peers: bool,
    /// Also frames of 256 bytes and of mixed lengths, all lengths every way, and a distributed build's pattern.
    #[arg(long)]
    full: bool,
    /// Only these measures, such as `capacity,round-trip`.
    #[arg(long, value_name = "MEASURES")]
    cells: Option<String>,
    /// Seconds a measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How often the systems take turns.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Where report.json and report.html go.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Prefer the measurement to everything else on the machine.
    #[arg(long)]
    prefer: bool,
}

/// The systems that are always measured, and those of `--peers`.
const SYSTEMS: &str = "openvpn,trestle-af-xdp,trestle-socket,null";
const PEERS: &str = "softether,tinc,fastd,ovs-af-packet,ovs-af-xdp";

/// Builds everything with the release profile, and measures Trestle side by side with others.
pub fn run(options: &Options) -> Result<(), String> {
    if options.peers {
        setup::peers()?;
    }
    announce("building with the release profile");
    must(&mut cargo(&[
        "build",
        "--release",
        "--quiet",
        "--package",
        "trestle",
        "--package",
        "trestle-bench",
    ]))?;
    let mut bench = Command::new(target()?.join("release/trestle-bench"));
    let systems = if options.peers { format!("{SYSTEMS},{PEERS}") } else { SYSTEMS.to_owned() };
    bench.args(["all", "--systems", &systems, "--seconds", &options.seconds.to_string()]);
    bench.args(["--rounds", &options.rounds.to_string(), "--out"]).arg(&options.out);
    if options.full {
        bench.arg("--full");
    }
    if let Some(cells) = &options.cells {
        bench.args(["--cells", cells]);
    }
    if options.prefer {
        bench.arg("--prefer");
    }
    must(&mut bench)
}
