use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use trestle_tests::site::is_root;

use crate::check;
use crate::stage::{Ledger, announce, cargo, must, target};

/// What of the tests to run.
#[derive(Args, Debug)]
pub struct Options {
    /// Build and test the gateway with the release profile.
    #[arg(long)]
    release: bool,
}

/// Runs everything that can be run here, and says loudly what was skipped.
pub fn run(options: &Options) -> Result<(), String> {
    let mut ledger = Ledger::default();
    check::stages(&mut ledger);
    end_to_end(&mut ledger, options);
    ledger.close()
}

fn end_to_end(ledger: &mut Ledger, options: &Options) {
    if !is_root() {
        return ledger.skip("everything end to end: network namespaces need root (sudo -E cargo xtask test)");
    }
    let binary = match build(options.release) {
        Ok(binary) => binary,
        Err(why) => return ledger.enter_result("building the gateway", Err(why)),
    };
    let mut tests = cargo(&["test", "--package", "trestle-tests", "--test", "e2e", "--quiet"]);
    ledger.run("end to end", tests.env("TRESTLE_BIN", &binary));
    let demo = std::env::current_exe().map(Command::new);
    match demo {
        Ok(mut demo) => ledger.run("demo", demo.args(["demo", "--once", "--gateway"]).arg(&binary)),
        Err(why) => ledger.enter_result("demo", Err(format!("finding this program: {why}"))),
    }
}

/// Builds the gateway and returns its path.
pub fn build(release: bool) -> Result<PathBuf, String> {
    announce("building the gateway");
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    must(cargo(&["build", "--package", "trestle", "--quiet"]).args(profile))?;
    Ok(target()?.join(if release { "release" } else { "debug" }).join("trestle"))
}
