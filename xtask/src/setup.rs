use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::stage::must;
use crate::{build_ebpf, fuzz};

/// What building needs, beside a Rust toolchain (libbpf and AWS-LC are C).
const BUILD: &str = include_str!("../packages/build.txt");
/// What the end-to-end tests and the demo need.
const RUN: &str = include_str!("../packages/run.txt");
/// The systems that `bench --peers` measures besides.
const PEERS: &str = include_str!("../packages/peers.txt");
/// Services that those packages start by themselves; the benchmark starts its own, in namespaces.
const PEERS_SERVICES: [(&str, &str); 3] = [
    ("softether-vpnserver", "softether-vpnserver.service"),
    ("tinc", "tinc.service"),
    ("openvswitch-switch", "openvswitch-switch.service"),
];

/// What to install.
#[derive(Args, Clone, Copy, Debug)]
pub struct Options {
    /// Not what only `build-ebpf --check` and `fuzz` need: the BPF toolchain, a nightly Rust, cargo-fuzz.
    #[arg(long)]
    no_toolchains: bool,
    /// Also the systems that `bench --peers` measures: SoftEther, tinc, fastd, Open vSwitch.
    #[arg(long)]
    peers: bool,
}

/// Installs what is missing, and says what.
pub fn run(options: Options) -> Result<(), String> {
    packages()?;
    if options.peers {
        peers()?;
    }
    if options.no_toolchains {
        return Ok(());
    }
    build_ebpf::setup()?;
    fuzzing()
}

/// Installs the packages that building, testing and the demo need.
pub fn packages() -> Result<(), String> {
    install(&BUILD.lines().chain(RUN.lines()).collect::<Vec<_>>())
}

/// Installs the systems that `bench --peers` measures, where they are missing, and stops the services that come with
/// them.
///
/// Where that cannot be done the error says what to do instead.
pub fn peers() -> Result<(), String> {
    let packages: Vec<&str> = PEERS.lines().collect();
    let cure = |why| format!("{why}\nthe systems to compare with are not there: leave out `--peers`");
    let new = missing(&packages).map_err(cure)?;
    install(&packages).map_err(cure)?;
    // Whoever had one of them before may be using it.
    let started = PEERS_SERVICES.iter().filter(|(package, _)| new.contains(package));
    if Path::new("/run/systemd/system").is_dir() {
        for (_, service) in started {
            must(Command::new("systemctl").args(["disable", "--now", "--quiet", service]))?;
        }
    }
    Ok(())
}

/// A nightly Rust and cargo-fuzz.
fn fuzzing() -> Result<(), String> {
    if fuzz::check_tools().is_ok() {
        return Ok(());
    }
    println!("installing a nightly Rust and cargo-fuzz");
    must(Command::new("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"]))?;
    must(Command::new("cargo").args(["install", "--locked", "--quiet", "cargo-fuzz"]))
}

/// Installs those of `packages` that are missing, and says which.
///
/// Without root, or where there is no apt, the error says what to install.
pub fn install(packages: &[&str]) -> Result<(), String> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        println!("all packages are there");
        return Ok(());
    }
    println!("missing packages: {}", missing.join(" "));
    if !trestle_tests::site::is_root() {
        return Err(format!("installing packages needs root: `sudo apt-get install {}`", missing.join(" ")));
    }
    must(apt().arg("update"))?;
    must(apt().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>, String> {
    let list = packages.join(" ");
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${Status}\n"])
        .args(packages)
        .output();
    let known = query
        .map_err(|e| format!("this is no Debian or Ubuntu ({e}); install what corresponds to: {list}"))?;
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    let there = |package: &str| {
        known.lines().any(|line| line.split_once(' ') == Some((package, "install ok installed")))
    };
    Ok(packages.iter().copied().filter(|package| !there(package)).collect())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet");
    command
}
