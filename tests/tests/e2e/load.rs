//! The load generator against trestle and against the stock server: it is the same client to both.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use trestle_tests::gateway::{Mode, SERVER_CONF, Start, load_binary};
use trestle_tests::network::{Layout, PUBLIC};
use trestle_tests::pki::Purpose;
use trestle_tests::process::{Output, Process, output};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Fault, Result, scenarios};

pub const SUITE: Suite = Suite {
    name: "load",
    modes: &[Mode::Native, Mode::Stock],
    site: |mode| open(mode, format!("{SERVER_CONF}duplicate-cn\n")),
    fresh: false,
    scenarios: scenarios![
        a_frame_file_or_address_that_is_no_good_is_said_so;
        stock: frames_between_sessions_arrive_in_order_by_either_datapath,
        frames_to_all_arrive_at_all_others,
        full_size_frames_arrive,
        ctrl_c_ends_it_with_its_report,
    ],
};

/// Where a certificate is good for one session only.
pub const ONE_CERTIFICATE: Suite = Suite {
    name: "load_one_certificate",
    modes: &[Mode::Native, Mode::Stock],
    site: |mode| open(mode, SERVER_CONF.to_owned()),
    fresh: false,
    scenarios: scenarios![; stock: sessions_that_share_a_certificate_where_they_must_not_are_told],
};

pub(crate) fn open(mode: Mode, config: String) -> Result<Site> {
    let mut site =
        Site::prepare(Layout { agents: 1, ..Layout::default() }, Start { config, ..Start::reference(mode) })?;
    site.pki.issue("load", Purpose::Client)?.write(site.folder(), "load")?;
    site.start_gateway()?;
    Ok(site)
}

fn frames_between_sessions_arrive_in_order_by_either_datapath(site: &mut Site) -> Result<()> {
    for datapath in ["af-xdp", "socket"] {
        let report = load(site, 200, &["--to", "session", "--datapath", datapath])?;
        assert_eq!(report["datapath"], *datapath);
        assert_all_arrived(&report);
        let delay = &report["total"]["delay_us"];
        assert!(
            delay["p50"].as_f64() > Some(0.0) && delay["p50"].as_f64() <= delay["p99.9"].as_f64(),
            "{delay}"
        );
        let sessions = report["sessions"].as_array().cloned().unwrap_or_default();
        assert_eq!(sessions.len(), 3);
        assert!(sessions.iter().all(|session| session["sent"].as_u64() > Some(0)), "{sessions:#?}");
    }
    Ok(())
}

fn frames_to_all_arrive_at_all_others(site: &mut Site) -> Result<()> {
    let report = load(site, 200, &["--to", "broadcast"])?;
    assert_all_arrived(&report);
    assert_eq!(report["total"]["expected"].as_u64(), report["total"]["sent"].as_u64().map(|sent| 2 * sent));
    Ok(())
}

fn full_size_frames_arrive(site: &mut Site) -> Result<()> {
    assert_all_arrived(&load(site, 1514, &["--to", "session"])?);
    Ok(())
}

fn ctrl_c_ends_it_with_its_report(site: &mut Site) -> Result<()> {
    let mut command = command(site, 60, &["--to", "session", "--seconds", "600"])?;
    let mut load = Process::spawn("load", &mut command, &site.folder().join("load.log"))?;
    load.wait_for("sending by", Duration::from_secs(20))?;
    load.signal(Signal::SIGINT)?;
    let ended = load.wait(Duration::from_secs(20))?;
    assert!(ended.success() && load.log().contains("\"sessions_connected\": 3"), "{}", load.log());
    Ok(())
}

fn sessions_that_share_a_certificate_where_they_must_not_are_told(site: &mut Site) -> Result<()> {
    let done = run(site, 60, &["--to", "broadcast"])?;
    assert!(done.stderr.contains("duplicate-cn"), "{}", done.stderr);
    let failures = report(&done)?["failures"].as_array().map(Vec::len);
    assert_eq!(failures, Some(2), "{}{}", done.stderr, done.stdout);
    Ok(())
}

fn a_frame_file_or_address_that_is_no_good_is_said_so(site: &mut Site) -> Result<()> {
    for (bytes, words) in
        [(0, "holds 0 bytes"), (13, "holds 13 bytes"), (10_000, "holds more than 9022 bytes")]
    {
        let done = run(site, bytes, &[])?;
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
    let cases: [(&[&str], &str); 4] = [
        (&["--remote", "127.0.0.1:9"], "nobody listens at 127.0.0.1:9"),
        (&["--remote", "192.0.2.1"], "must be ADDRESS:PORT"),
        (&["--ca", "load.key"], "load.key"),
        (&["--sessions", "1", "--to", "session"], "needs two sessions"),
    ];
    for (arguments, words) in cases {
        let done = run(site, 60, arguments)?;
        assert_eq!(done.code, Some(1), "{arguments:?}: {done:?}");
        assert!(done.stderr.contains(words), "{arguments:?}: {}", done.stderr);
    }
    Ok(())
}

/// All three sessions were connected, and what they sent came, once and in order.
pub(crate) fn assert_all_arrived(report: &Value) {
    let total = &report["total"];
    assert_eq!(report["sessions_connected"], 3, "{report:#}");
    assert!(total["sent"].as_u64() > Some(0), "{report:#}");
    assert_eq!(total["received"], total["expected"], "{report:#}");
    for none in ["lost", "reordered", "duplicates", "unsent"] {
        assert_eq!(total[none], 0, "{none}: {report:#}");
    }
}

/// The report of a run with a frame of `bytes`.
pub(crate) fn load(site: &Site, bytes: usize, arguments: &[&str]) -> Result<Value> {
    let done = run(site, bytes, arguments)?;
    assert_eq!(done.code, Some(0), "{}{}", done.stderr, done.stdout);
    report(&done)
}

fn report(done: &Output) -> Result<Value> {
    serde_json::from_str(&done.stdout)
        .map_err(|error| Fault::other(format!("no JSON: {error}: {}", done.stdout)))
}

fn run(site: &Site, bytes: usize, arguments: &[&str]) -> Result<Output> {
    output(&mut command(site, bytes, arguments)?, 60)
}

/// The load generator with three sessions for half a second; `arguments` take the place of these.
fn command(site: &Site, bytes: usize, arguments: &[&str]) -> Result<Command> {
    let frame = frame_file(site, bytes)?;
    let remote = format!("{PUBLIC}:443");
    let defaults = [
        ("--remote", &*remote),
        ("--ca", "ca.crt"),
        ("--cert", "load.crt"),
        ("--key", "load.key"),
        ("--sessions", "3"),
        ("--rate", "300"),
        ("--seconds", "0.5"),
    ];
    let mut command = site.agent(0).command(&load_binary()?.to_string_lossy());
    command.current_dir(site.folder()).arg("--json").arg("--frame-file").arg(frame).args(arguments);
    for (name, value) in defaults.iter().filter(|(name, _)| !arguments.contains(name)) {
        command.args([name, value]);
    }
    Ok(command)
}

/// A file with a frame of `bytes` to a station nobody has, of an EtherType for experiments.
fn frame_file(site: &Site, bytes: usize) -> Result<PathBuf> {
    let mut frame = vec![0xa5; bytes];
    for (to, from) in frame.iter_mut().zip([2, 0x5e, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0x88, 0xb5]) {
        *to = from;
    }
    let path = site.folder().join(format!("frame-{bytes}"));
    std::fs::write(&path, frame).map_err(Fault::io("writing a frame"))?;
    Ok(path)
}
