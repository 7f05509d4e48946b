//! The side-by-side runner: Trestle and others in turn on the same work. Needs root and two processors.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a ruler reads the clock")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, Parser, Subcommand};
use trestle_bench::cells::{capacity, run};
use trestle_bench::report::{self, figure::Figure, grid::MEASURES, show};
use trestle_bench::results::{Cell, Direction, Measure, Report, SCHEMA_VERSION, Sample};
use trestle_bench::rig::cpu::{self, LOAD_CORE};
use trestle_bench::rig::machine;
use trestle_bench::rig::site::Site;
use trestle_bench::rig::system::Starter;
use trestle_bench::rig::systems::BUILT_IN;
use trestle_bench::rig::traffic::{MIXED, Traffic};
use trestle_bench::{aead, peers};
use trestle_tests::site::is_root;
use trestle_tests::{Fault, Result, interrupt, netns};

/// Trestle side by side with others, in network namespaces: gateway on processor 1, everything else on processor 0.
#[derive(Debug, Parser)]
#[command(name = "trestle-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Prefer the measurement to everything else on a machine that others use too
    #[arg(long, global = true)]
    prefer: bool,
    /// Folder of the programs under test, if not this program's own
    #[arg(long, global = true, value_name = "DIR")]
    binaries: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every cell, with a report
    All(Cells),
    /// Frames delivered under overload, and what they cost
    Capacity(Cells),
    /// Keep one system under load, and say its process id, for a profiler
    Hold(Cells),
}

#[derive(Args, Debug)]
struct Cells {
    /// Which systems, in turn
    #[arg(long, value_delimiter = ',', default_value = "openvpn,trestle-af-xdp,trestle-socket,null")]
    systems: Vec<String>,
    /// Which way
    #[arg(long, value_delimiter = ',', default_value = "lan-to-peer,peer-to-lan,peer-to-peer", value_parser = direction)]
    direction: Vec<Direction>,
    /// Lengths of inner frames in bytes, 0 for a mixture [default: 60,1414,1514; 1414 from peer to peer]
    #[arg(long, value_delimiter = ',')]
    size: Vec<u32>,
    /// Seconds a measurement, at most 60
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How often the systems take turns
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Frames a second to offer instead of overload; 0 for overload
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Which measures; what they are shares of is measured as well [default: all, `build` with --full]
    #[arg(long, value_delimiter = ',', value_parser = measure_named)]
    cells: Vec<Measure>,
    /// Also frames of 256 bytes and of mixed lengths, all lengths every way, and a distributed build's pattern
    #[arg(long)]
    full: bool,
    /// Where to write report.json and report.html
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Lengths of frames unless told otherwise, in bytes: the shortest, the longest that stays one packet, the longest.
const SIZES: [u32; 3] = [60, 1414, 1514];
/// The same with `--full`.
const FULL_SIZES: [u32; 5] = [60, 256, 1414, 1514, MIXED];
/// Length of the frames that openvpn's capacity is halved for, and that peers send to each other.
const USUAL_SIZE: u32 = 1414;
/// How long one load of `hold` is: a recording has an end.
const HOLD: Duration = Duration::from_secs(2);
/// Longest measurement in seconds.
const LONGEST: f64 = 60.0;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if !is_root() || !cpu::enough() {
        return Err(Fault::other(
            "the ruler makes network namespaces and keeps to processors 0 and 1: run it as root, allowed both",
        ));
    }
    if arguments.prefer {
        cpu::prefer()?;
    }
    let interrupted = interrupt::watch()?;
    netns::sweep();
    let machine = machine::machine();
    cpu::stay_on(LOAD_CORE)?;
    let exe = std::env::current_exe().map_err(Fault::io("finding this program"))?;
    let binaries = arguments.binaries.clone().or_else(|| exe.parent().map(PathBuf::from)).unwrap_or_default();
    let mut report = Report {
        schema_version: SCHEMA_VERSION,
        machine,
        versions: machine::versions(&binaries),
        started_unix_s: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
        arguments: std::env::args().skip(1).collect(),
        ..Report::default()
    };
    match &arguments.command {
        Command::Hold(cells) => hold(cells, &binaries, &interrupted),
        Command::All(cells) => measure(cells, &cells.measures(), &binaries, &mut report, &interrupted),
        Command::Capacity(cells) => {
            measure(cells, &[Measure::Capacity], &binaries, &mut report, &interrupted)
        }
    }
}

fn measure(
    cells: &Cells,
    measures: &[Measure],
    binaries: &std::path::Path,
    report: &mut Report,
    stop: &AtomicBool,
) -> Result<()> {
    let plan = run::Plan {
        systems: cells
            .systems
            .iter()
            .map(|name| Ok((name.clone(), starter(name)?)))
            .collect::<Result<_>>()?,
        traffic: cells.traffic(),
        measures: measures.to_vec(),
        rounds: cells.rounds,
        time: Duration::from_secs_f64(cells.seconds.clamp(0.1, LONGEST)),
        rate: cells.rate,
    };
    let began = Instant::now();
    let done = run::run(&plan, binaries, report, stop, &mut tell);
    for frame_bytes in cells.lengths() {
        report.add(aead::cell(frame_bytes), aead::measure(1, frame_bytes)?);
    }
    report.took_s = began.elapsed().as_secs_f64();
    // What was measured before a failure is worth reading.
    println!("\n{}", report::table::table(report));
    if let Some(folder) = &cells.out {
        report::write(report, folder)?;
        println!("written: {}", folder.join(report::PAGE).display());
    }
    done
}

/// Keeps one system under load and says which process it is.
fn hold(cells: &Cells, binaries: &std::path::Path, stop: &AtomicBool) -> Result<()> {
    let name = cells.systems.first().map_or("trestle-af-xdp", String::as_str);
    let traffic = cells.traffic().into_iter().next().ok_or_else(|| Fault::other("name one --direction"))?;
    let mut site = Site::open(starter(name)?, binaries, 2, stop)?;
    println!("{name} is process {:?}", site.system.pids());
    let end = Instant::now() + Duration::from_secs_f64(cells.seconds.clamp(0.1, LONGEST));
    while Instant::now() < end && !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let sample = match cells.rate {
            0.0 => capacity::overload(&mut site, traffic, HOLD)?,
            rate => capacity::at_rate(&mut site, traffic, rate, HOLD)?,
        };
        println!("{:.0} frames/s", sample.delivered_per_second());
    }
    site.close()
}

/// A sample's figures in one line.
fn tell(cell: &Cell, sample: &Sample) {
    let figure = |figure: &Figure| {
        let value = show::number(figure.read(sample)?, *figure);
        Some(format!("{} {value} {}", figure.name(), figure.unit()))
    };
    let figures: Vec<_> = Figure::of(cell.measure).iter().filter_map(figure).collect();
    let Sample { round, .. } = sample;
    let (measure, work) = (show::measure(cell.measure), show::work(cell));
    println!("{round} {:<15} {measure}, {work}: {}", cell.system, figures.join(", "));
}

impl Cells {
    /// What is named, else all but the pattern of `--full`.
    fn measures(&self) -> Vec<Measure> {
        let all = MEASURES.into_iter().filter(|&measure| self.full || measure != Measure::Build);
        if self.cells.is_empty() { all.collect() } else { self.cells.clone() }
    }

    /// Lengths of all frames that are of one length.
    fn lengths(&self) -> Vec<u32> {
        let mut lengths: Vec<u32> = self.traffic().iter().map(|traffic| traffic.frame_bytes).collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths.retain(|&length| length != MIXED);
        lengths
    }

    /// The sizes of every direction; from peer to peer the usual one alone, unless sizes are named or all is wanted.
    fn traffic(&self) -> Vec<Traffic> {
        let sizes = |direction| match (self.size.as_slice(), direction) {
            ([], _) if self.full => FULL_SIZES.to_vec(),
            ([], Direction::PeerToPeer) => vec![USUAL_SIZE],
            ([], _) => SIZES.to_vec(),
            (named, _) => named.to_vec(),
        };
        let of = |&direction| {
            sizes(direction).into_iter().map(move |frame_bytes| Traffic::new(direction, frame_bytes))
        };
        self.direction.iter().flat_map(of).collect()
    }
}

fn starter(name: &str) -> Result<Starter> {
    let all = || BUILT_IN.iter().chain(peers::PEERS);
    all().find(|(known, _)| *known == name).map(|(_, starter)| *starter).ok_or_else(|| {
        let names: Vec<_> = all().map(|(name, _)| *name).collect();
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

fn measure_named(name: &str) -> Result<Measure, String> {
    let named = |measure: &Measure| serde_json::to_value(measure).is_ok_and(|known| known == name);
    MEASURES.into_iter().find(named).ok_or_else(|| {
        let names: Vec<_> =
            MEASURES.iter().filter_map(|measure| serde_json::to_value(measure).ok()).collect();
        let names: Vec<_> = names.iter().filter_map(|name| name.as_str()).collect();
        format!("one of {}", names.join(", "))
    })
}
