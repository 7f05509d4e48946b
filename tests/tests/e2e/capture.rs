//! `trestle capture`: what tcpdump does not see, read by somebody else's program.

use std::{path::PathBuf, time::Duration};

use trestle_tests::frame::{BROADCAST, show_mac};
use trestle_tests::gateway::{Mode, binary};
use trestle_tests::process::{Process, run, wait_until};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Result, scenarios};

use crate::stations::{self, SOON, Station};

pub const SUITE: Suite = Suite {
    name: "capture",
    modes: &[Mode::Native],
    site: stations::reference,
    fresh: false,
    scenarios: scenarios![
        a_peers_frames_are_read_by_tshark,
        frames_that_are_lost_say_why,
        lines_are_shown_and_counted,
        who_is_not_there_is_told_who_is,
    ],
};

/// Starts `trestle capture` with `words`, and waits until the gateway has begun.
pub fn capture(site: &mut Site, words: &[&str]) -> Result<Process> {
    let before = site.gateway()?.log().matches("a capture begins").count();
    let log = site.folder().join(format!("capture-{before}.log"));
    let control = site.gateway()?.control().to_owned();
    let mut command = site.network.gateway.command(&binary()?.display().to_string());
    command.arg("capture").args(words).arg("--control").arg(control);
    let process = Process::spawn("trestle capture", &mut command, &log)?;
    wait_until(
        "the capture to begin",
        Duration::from_secs(5),
        || {
            let log = site.gateway().ok()?.log();
            (log.matches("a capture begins").count() > before).then_some(())
        },
        String::new,
    )?;
    Ok(process)
}

/// What tshark reads: a line a frame, of interface, direction, source and comment.
pub fn read(file: &PathBuf) -> Result<Vec<String>> {
    let mut command = std::process::Command::new("tshark");
    let fields = ["frame.interface_name", "frame.packet_flags_direction", "eth.src", "frame.comment"];
    command.arg("-r").arg(file).args(["-T", "fields", "-E", "separator=|"]);
    fields.iter().for_each(|field| _ = command.args(["-e", field]));
    Ok(run(&mut command, 30)?.lines().map(str::to_owned).collect())
}

fn a_peers_frames_are_read_by_tshark(site: &mut Site) -> Result<()> {
    let file = site.folder().join("agent1.pcapng");
    let mut process = capture(site, &["agent1", "-w", &file.display().to_string()])?;
    let (one, two) = (Station::agent(site, 0)?, Station::agent(site, 1)?);
    two.announce(two.mac)?;
    one.send_as(one.mac, two.mac, b"to the other agent")?;
    assert!(two.hears(b"to the other agent"));
    two.send_as(two.mac, one.mac, b"and back")?;
    assert!(one.hears(b"and back"));
    let (from_one, from_two) = (
        format!("agent1|0x00000001|{}|", show_mac(one.mac)),
        format!("agent1|0x00000002|{}|", show_mac(two.mac)),
    );
    let lines = wait_until(
        "both frames in the file",
        SOON,
        || {
            let lines = read(&file).ok()?;
            (lines.contains(&from_one) && lines.contains(&from_two)).then_some(lines)
        },
        String::new,
    )?;
    assert!(lines.iter().all(|line| line.starts_with("agent1|")), "{lines:?}");
    process.terminate(Duration::from_secs(5))?;
    Ok(())
}

fn frames_that_are_lost_say_why(site: &mut Site) -> Result<()> {
    let file = site.folder().join("lost.pcapng");
    let mut process = capture(site, &["agent1", "-w", &file.display().to_string()])?;
    let one = Station::agent(site, 0)?;
    one.send_as([0; 6], BROADCAST, b"from nobody")?;
    let lost = "agent1|0x00000001|00:00:00:00:00:00|lost: source_invalid";
    wait_until(
        "the lost frame in the file",
        SOON,
        || read(&file).ok()?.iter().any(|line| line == lost).then_some(()),
        String::new,
    )?;
    process.terminate(Duration::from_secs(5))?;
    Ok(())
}

fn lines_are_shown_and_counted(site: &mut Site) -> Result<()> {
    let mut process = capture(site, &["tap0", "-c", "3", "-s", "60"])?;
    let one = Station::agent(site, 0)?;
    for _ in 0..4 {
        one.announce(one.mac)?;
    }
    let ended = process.wait(Duration::from_secs(5))?;
    assert!(ended.success(), "{}", process.log());
    let lines: Vec<String> = process.log().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let expected = format!("tap0 Out {} > ff:ff:ff:ff:ff:ff, ethertype 0x88b5, length 60", show_mac(one.mac));
    assert!(lines.iter().any(|line| line.ends_with(&expected)), "{lines:?}");
    Ok(())
}

fn who_is_not_there_is_told_who_is(site: &mut Site) -> Result<()> {
    let log = site.folder().join("nobody.log");
    let control = site.gateway()?.control().to_owned();
    let mut command = site.network.gateway.command(&binary()?.display().to_string());
    command.args(["capture", "nobody", "--control"]).arg(control);
    let mut process = Process::spawn("trestle capture", &mut command, &log)?;
    assert_eq!(process.wait(Duration::from_secs(5))?.code(), Some(1));
    let said = process.log();
    assert!(
        said.contains("no port or peer nobody") && said.contains("agent2") && said.contains("ens5"),
        "{said}"
    );
    Ok(())
}
