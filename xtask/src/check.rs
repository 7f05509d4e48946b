use crate::stage::{Ledger, cargo};

/// Runs the inner loop and says what failed.
pub fn run() -> Result<(), String> {
    let mut ledger = Ledger::default();
    stages(&mut ledger);
    ledger.close()
}

/// Format, clippy with warnings denied, and every test that needs neither root nor a network.
pub fn stages(ledger: &mut Ledger) {
    ledger.run("format", &mut cargo(&["fmt", "--all", "--check"]));
    // Workspaces of their own: other targets, other compilers.
    for manifest in ["ebpf/Cargo.toml", "tests/fuzz/Cargo.toml"] {
        let name = format!("format of {manifest}");
        ledger.run(&name, &mut cargo(&["fmt", "--all", "--check", "--manifest-path", manifest]));
    }
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    ledger.run("clippy", &mut cargo(&clippy));
    let units = ["test", "--workspace", "--exclude", "trestle-tests", "--quiet", "--no-fail-fast"];
    ledger.run("unit tests and simulation", &mut cargo(&units));
    ledger.run(
        "unit tests of the harness",
        &mut cargo(&["test", "--package", "trestle-tests", "--lib", "--quiet"]),
    );
}
