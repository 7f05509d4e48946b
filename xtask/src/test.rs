use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use trestle_tests::site::is_root;

use crate::guest::{self, Guest};
use crate::stage::{Ledger, announce, cargo, must, target};
use crate::{build_ebpf, check, fuzz, micro};

/// What of the tests to run.
#[derive(Args, Debug)]
pub struct Options {
    /// Build and test the gateway with the release profile.
    #[arg(long)]
    release: bool,
    /// Instead, run the host-safety tests under Debian's kernels 6.1 and 6.12, in emulated machines.
    #[arg(long)]
    kernels: bool,
    /// With --kernels: what to run there, as the tests' filter.
    #[arg(long, default_value = "host_safety", value_name = "NAMES")]
    only: String,
}

/// Kernels of --kernels: the oldest supported, which has no TCX, and one between it and today's.
const KERNELS: &[&str] = &["6.1", "6.12"];

/// Runs everything that can be run here, and says loudly what was skipped.
pub fn run(options: &Options) -> Result<(), String> {
    let mut ledger = Ledger::default();
    if options.kernels {
        KERNELS.iter().for_each(|series| under_kernel(&mut ledger, options, series));
    } else {
        check::stages(&mut ledger);
        end_to_end(&mut ledger, options);
        object(&mut ledger);
        if options.release {
            counts(&mut ledger);
        }
        fuzzing(&mut ledger);
    }
    ledger.close()
}

fn object(ledger: &mut Ledger) {
    match build_ebpf::pinned() {
        Ok(()) => ledger.run_self("the BPF object is what its source gives", &["build-ebpf", "--check"]),
        Err(missing) => ledger.skip(format!("build-ebpf --check: {missing} (cargo xtask setup)")),
    }
}

/// Only with the release profile: building everything once more with it takes longer than all there is to count. And
/// where a step ends is the compiler's choice, which differs between two checkouts.
fn counts(ledger: &mut Ledger) {
    match micro::check_tools() {
        Ok(()) => ledger.run_self("instructions a frame", &["micro"]),
        Err(missing) => ledger.skip(format!("micro: {missing} (cargo xtask setup)")),
    }
}

fn fuzzing(ledger: &mut Ledger) {
    match fuzz::check_tools() {
        Ok(()) => ledger.run_self("fuzz, 10 s each", &["fuzz", "--seconds", "10"]),
        Err(missing) => ledger.skip(format!("fuzz: {missing} (cargo xtask setup)")),
    }
}

fn under_kernel(ledger: &mut Ledger, options: &Options, series: &str) {
    let name = format!("{} under kernel {series}", options.only);
    match guest_command(options, series) {
        Ok(mut command) => ledger.run(&name, &mut command),
        Err(why) => ledger.enter_result(&name, Err(why)),
    }
}

fn guest_command(options: &Options, series: &str) -> Result<Command, String> {
    let gateway = build(options.release)?;
    let tests = e2e_binary()?;
    let guest = Guest::prepare(series)?;
    let gateway = gateway.to_string_lossy();
    let environment =
        [guest::ENVIRONMENT, &[("TRESTLE_BIN", &*gateway), ("TRESTLE_REQUIRE_ROOT", "1")]].concat();
    guest.command(&tests, &[&options.only], &environment)
}

/// Builds the end-to-end tests and returns the program's path, which only cargo knows.
fn e2e_binary() -> Result<PathBuf, String> {
    let mut build =
        cargo(&["test", "--package", "trestle-tests", "--test", "e2e", "--no-run", "--message-format=json"]);
    let told = build.output().map_err(|e| format!("cargo: {e}"))?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let messages = told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == "e2e");
    let program = programs.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program
        .ok_or_else(|| "the end-to-end tests do not build: `cargo test -p trestle-tests --no-run`".to_owned())
}

fn end_to_end(ledger: &mut Ledger, options: &Options) {
    if !is_root() {
        return ledger.skip("everything end to end: network namespaces need root (sudo -E cargo xtask test)");
    }
    let binary = match build(options.release) {
        Ok(binary) => binary,
        Err(why) => return ledger.enter_result("building the gateway", Err(why)),
    };
    if let Err(why) = build_load(options.release) {
        return ledger.enter_result("building the load generator", Err(why));
    }
    let mut tests = cargo(&["test", "--package", "trestle-tests", "--test", "e2e", "--quiet"]);
    ledger.run("end to end", tests.env("TRESTLE_BIN", &binary));
    ledger.run_self("demo", &["demo", "--once", "--gateway", &binary.to_string_lossy()]);
}

/// Builds the load generator, which stands beside the gateway then.
fn build_load(release: bool) -> Result<(), String> {
    announce("building the load generator");
    must(
        cargo(&["build", "--package", "trestle-bench", "--bin", "trestle-load", "--quiet"])
            .args(profile(release)),
    )
}

fn profile(release: bool) -> &'static [&'static str] {
    if release { &["--release"] } else { &[] }
}

/// Builds the gateway and returns its path.
pub fn build(release: bool) -> Result<PathBuf, String> {
    announce("building the gateway");
    must(cargo(&["build", "--package", "trestle", "--quiet"]).args(profile(release)))?;
    Ok(target()?.join(if release { "release" } else { "debug" }).join("trestle"))
}
