//! The side-by-side runner.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a ruler reads the clock")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use trestle_bench::cells::capacity;
use trestle_bench::peers::PEERS;
use trestle_bench::results::{Cell, Direction, Measure, Report, Sample};
use trestle_bench::rig::cpu::{self, LOAD_CORE};
use trestle_bench::rig::site::Site;
use trestle_bench::rig::system::Starter;
use trestle_bench::rig::systems::BUILT_IN;
use trestle_bench::rig::traffic::Traffic;
use trestle_tests::site::is_root;
use trestle_tests::{Fault, Result, interrupt, netns};

/// Trestle side by side with others.
#[derive(Debug, Parser)]
#[command(name = "trestle-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Frames delivered under overload, and what they cost
    Capacity(Capacity),
}

#[derive(Args, Debug)]
struct Capacity {
    /// Which systems, in turn
    #[arg(long, value_delimiter = ',', default_value = "trestle-af-xdp,openvpn,null")]
    systems: Vec<String>,
    /// Which way
    #[arg(long, value_delimiter = ',', default_value = "lan-to-peer", value_parser = direction)]
    direction: Vec<Direction>,
    /// Lengths of inner frames in bytes
    #[arg(long, value_delimiter = ',', default_value = "60,1414,1514")]
    size: Vec<u32>,
    /// Seconds a measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often the systems take turns
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Folder of the programs under test, if not this program's own
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// Frames a second to offer instead of as many as can be
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let Command::Capacity(options) = Arguments::parse().command;
    if !is_root() || !cpu::enough() {
        return Err(Fault::other(
            "the ruler makes network namespaces and pins to processors 0 and 1: it needs both, and root",
        ));
    }
    let interrupted = interrupt::watch()?;
    netns::sweep();
    cpu::stay_on(LOAD_CORE)?;
    let mut report = Report::default();
    for round in 1..=options.rounds {
        for name in &options.systems {
            measure(&options, name, round, &mut report, &interrupted)?;
        }
    }
    for cell in &report.cells {
        let figure = |figure: fn(&Sample) -> f64| cell.median(figure).unwrap_or(0.0);
        println!(
            "{:<16} {:<13} {:>5} B {:>9.0} frames/s  {:>7.3} us process  {:>7.3} us core",
            cell.system,
            cell.direction.name(),
            cell.frame_bytes,
            figure(Sample::delivered_per_second),
            figure(Sample::gateway_cpu_us_per_frame),
            figure(Sample::gateway_core_us_per_frame)
        );
    }
    Ok(())
}

fn measure(options: &Capacity, name: &str, round: u32, report: &mut Report, stop: &AtomicBool) -> Result<()> {
    let starter = starter(name)?;
    let exe = std::env::current_exe().map_err(Fault::io("finding this program"))?;
    let beside = exe.parent().ok_or_else(|| Fault::other("this program is nowhere"))?;
    let binaries = options.binaries.as_deref().unwrap_or(beside);
    let mut site = Site::open(starter, binaries, 2, stop)?;
    for &direction in &options.direction {
        for &frame_bytes in &options.size {
            if stop.load(Ordering::Relaxed) {
                return Err(Fault::other("interrupted"));
            }
            let traffic = Traffic { direction, frame_bytes };
            let time = Duration::from_secs_f64(options.seconds);
            let measured = match options.rate {
                0.0 => capacity::overload(&mut site, traffic, time)?,
                rate => capacity::at_rate(&mut site, traffic, rate, time)?,
            };
            let sample = Sample { round, ..measured };
            println!(
                "{round} {name} {} {frame_bytes} {:.0} of {:.0}",
                direction.name(),
                sample.delivered_per_second(),
                sample.offered_frames as f64 / sample.seconds
            );
            let cell = Cell {
                measure: Measure::Capacity,
                system: name.to_owned(),
                direction,
                frame_bytes,
                peers: 2,
                offered_per_second: None,
                load_share: None,
                samples: Vec::new(),
            };
            report.add(cell, sample);
        }
    }
    site.close()
}

fn starter(name: &str) -> Result<Starter> {
    let known = BUILT_IN.iter().chain(PEERS).find(|(known, _)| *known == name);
    known.map(|(_, starter)| *starter).ok_or_else(|| {
        let names: Vec<_> = BUILT_IN.iter().chain(PEERS).map(|(name, _)| *name).collect();
        Fault::other(format!("there is no system `{name}`; there are {}", names.join(", ")))
    })
}

fn direction(name: &str) -> Result<Direction, String> {
    let all = [Direction::LanToPeer, Direction::PeerToLan, Direction::PeerToPeer];
    all.into_iter().find(|direction| direction.name() == name).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|direction| direction.name()).collect();
        format!("one of {}", names.join(", "))
    })
}
