//! A segment joined to itself through its peers, and floods: the others go on, and all heals by itself.

use std::time::{Duration, Instant};

use serde_json::Value;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::{BROADCAST, local_mac};
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::netns::Namespace;
use trestle_tests::network::{BRIDGE, GATEWAY, LAN_HOST, Layout, NIC};
use trestle_tests::process::{patient, wait_until};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Fault, Result, scenarios};

use crate::stations::{self, Station};

/// Where two clients are bridged with each other, or one with the LAN.
pub const SUITE: Suite = Suite {
    name: "loops",
    modes: &[Mode::Native],
    site: |mode| Site::open(Layout { agents: 3, ..Layout::default() }, Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![
        two_clients_that_are_bridged_are_cut_apart_and_let_back,
        a_client_that_is_bridged_with_the_lan_is_cut_off_and_let_back,
        a_client_that_moves_the_others_stations_has_nobody_held,
    ],
};

/// With the gateway's peers behind a port of a kernel bridge, through which the loop closes.
pub const JOINED: Suite = Suite {
    name: "loops_joined",
    site: |mode| {
        let start = Start { bridge: Some(BRIDGE.to_owned()), ..Start::reference(mode) };
        let mut site = Site::prepare(Layout { agents: 3, ..Layout::default() }, start)?;
        site.network.bridge_up()?;
        site.start_gateway()?;
        site.connect_agents(&[])?;
        Ok(site)
    },
    scenarios: scenarios![
        a_client_that_is_bridged_with_the_lan_is_cut_off_and_let_back,
        a_client_that_is_bridged_with_another_port_of_the_bridge_is_cut_off_and_let_back,
        a_station_that_roams_between_lan_and_peer_has_nobody_held,
    ],
    ..SUITE
};

/// With limits for floods.
pub const STORMS: Suite = Suite {
    name: "storms",
    modes: &[Mode::Native],
    site: |mode| {
        let limits = ["--storm-limit", "broadcast=50", "--storm-limit", "unknown=20", "--mac-limit", "64"];
        let arguments = limits.map(String::from).to_vec();
        Site::open(Layout::default(), Start { arguments, ..Start::reference(mode) })
    },
    fresh: false,
    scenarios: scenarios![
        a_flood_reaches_others_at_its_limit_and_no_faster,
        invented_addresses_do_not_make_the_gateway_grow,
    ],
};

/// What a loop may take until it is cut.
const CUT: Duration = Duration::from_secs(2);
/// The first hold ends three seconds after the last probe came back; the next are longer.
const HEALED: Duration = Duration::from_secs(15);
/// The port of the bridge that the peers are behind, by server.conf.
const HOST_PORT: &str = "tap0";
const STORM: &[u8] = b"round and round";

/// Puts a bridge around a client's tap device, with `cable` as its second port.
fn bridge(agent: &Namespace, cable: &str) -> Result<()> {
    agent.ip_batch(&format!(
        "link add loop0 type bridge mcast_snooping 0 forward_delay 0
         link set tap0 master loop0
         link set {cable} master loop0 up
         link set loop0 up"
    ))
}

/// Joins the devices of two namespaces, or of one of them with a switch's.
fn cable(one: &Namespace, other: &Namespace) -> Result<()> {
    one.ip(&format!("link add cable0 type veth peer name cable1 netns {}", other.name()))?;
    Ok(())
}

fn held(site: &mut Site, number: usize) -> Result<Option<Value>> {
    let status = site.gateway()?.status()?;
    let name = format!("agent{}", number + 1);
    let peers = status["peers"].as_array().cloned().unwrap_or_default();
    let peer = peers.into_iter().find(|peer| peer["name"] == name.as_str());
    Ok(peer.map(|peer| peer["held"].clone()).filter(|held| !held.is_null()))
}

/// Waits until one of the agents is held; says which, with what, and after how long.
fn wait_held(site: &mut Site, since: Instant) -> Result<(usize, String, Duration)> {
    let found = || {
        (0..3).find_map(|number| {
            let held = held(site, number).ok().flatten()?;
            let with = held["joined_with"].as_str().unwrap_or_default().to_owned();
            Some((number, with, since.elapsed()))
        })
    };
    wait_until("a peer to be held", Duration::from_secs(10), found, String::new)
}

fn wait_free(site: &mut Site, number: usize) -> Result<()> {
    let free = || held(site, number).ok().filter(Option::is_none).map(|_| ());
    wait_until("the peer to be let back", HEALED, free, String::new)
}

/// Frames that the gateway got of all its peers.
fn received(site: &mut Site) -> Result<u64> {
    site.gateway()?.sum_of_peers("rx_frames")
}

fn assert_calm(site: &mut Site) -> Result<()> {
    let before = received(site)?;
    std::thread::sleep(Duration::from_secs(1));
    let frames = received(site)? - before;
    assert!(frames < 200, "{frames} frames of peers in a second: the storm goes on");
    Ok(())
}

fn two_clients_that_are_bridged_are_cut_apart_and_let_back(site: &mut Site) -> Result<()> {
    let lan = Station::lan(site)?;
    cable(site.agent(0), site.agent(1))?;
    bridge(site.agent(0), "cable0")?;
    bridge(site.agent(1), "cable1")?;
    let made = Instant::now();
    for number in 0..20 {
        lan.send_as(local_mac(0x20_0000 + number), BROADCAST, STORM)?;
    }
    let (held, with, took) = wait_held(site, made)?;
    assert!(took < patient(CUT), "cut after {took:?}");
    assert!(held < 2 && with.starts_with(if held == 0 { "agent2" } else { "agent1" }), "{held} with {with}");
    assert_calm(site)?;
    let log = site.gateway()?.log();
    let warning = log.lines().find(|line| line.contains("joined to itself")).unwrap_or_default().to_owned();
    assert!(warning.contains("agent1") && warning.contains("agent2"), "{warning}");
    assert!(site.gateway()?.drops("loop_guard")? > 0);
    let health = site.gateway()?.status()?["health"].to_string();
    assert!(health.contains("a loop"), "{health}");
    let bystander = ping(site.agent(2), LAN_HOST, 10, 56)?;
    assert!(bystander.complete(), "a peer beside the loop suffers: {bystander:?}");

    site.agent(0).ip("link del cable0")?;
    wait_free(site, held)?;
    for number in 0..2 {
        site.agent(number).ip("link set tap0 nomaster")?;
        site.agent(number).ip("link del loop0")?;
        assert!(reachable(site.agent(number), GATEWAY, Duration::from_secs(5)), "agent{}", number + 1);
    }
    Ok(())
}

fn a_client_that_is_bridged_with_the_lan_is_cut_off_and_let_back(site: &mut Site) -> Result<()> {
    cable(site.agent(2), &site.network.wire)?;
    site.network.wire.ip("link set cable1 master sw up")?;
    third_client_is_cut_off_and_let_back(site)
}

fn a_client_that_is_bridged_with_another_port_of_the_bridge_is_cut_off_and_let_back(
    site: &mut Site,
) -> Result<()> {
    cable(site.agent(2), &site.network.gateway)?;
    site.network.gateway.ip(&format!("link set cable1 master {BRIDGE} up"))?;
    third_client_is_cut_off_and_let_back(site)
}

/// Closes the loop through the third client, whose cable lies, and opens it again.
fn third_client_is_cut_off_and_let_back(site: &mut Site) -> Result<()> {
    bridge(site.agent(2), "cable0")?;
    let made = Instant::now();
    let lan = Station::lan(site)?;
    for number in 0..20 {
        lan.send_as(local_mac(0x21_0000 + number), BROADCAST, STORM)?;
    }
    let (held, with, took) = wait_held(site, made)?;
    // Into a bridge that is joined there is one way, whatever port of it the loop closes through.
    let way = if site.start().bridge.is_some() { HOST_PORT } else { NIC };
    assert_eq!((held, &*with), (2, way));
    assert!(took < patient(CUT), "cut after {took:?}");
    assert_calm(site)?;
    for other in 0..2 {
        assert!(ping(site.agent(other), LAN_HOST, 10, 56)?.complete(), "agent{} suffers", other + 1);
    }
    site.agent(2).ip("link del cable0")?;
    wait_free(site, 2)?;
    site.agent(2).ip("link set tap0 nomaster")?;
    site.agent(2).ip("link del loop0")?;
    assert!(reachable(site.agent(2), GATEWAY, Duration::from_secs(5)));
    Ok(())
}

fn a_station_that_roams_between_lan_and_peer_has_nobody_held(site: &mut Site) -> Result<()> {
    let stations = [Station::lan(site)?, Station::agent(site, 0)?];
    has_nobody_held(site, &stations)
}

fn a_client_that_moves_the_others_stations_has_nobody_held(site: &mut Site) -> Result<()> {
    let stations = [Station::agent(site, 0)?, Station::agent(site, 1)?];
    has_nobody_held(site, &stations)
}

/// One station is heard at all of these in turn.
fn has_nobody_held(site: &mut Site, stations: &[Station]) -> Result<()> {
    let before = site.gateway()?.log().matches("joined to itself").count();
    // Long enough for the probes of suspicion to come and go.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        for station in stations {
            station.send_as(local_mac(0x22_0000), BROADCAST, b"I am here")?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for number in 0..3 {
        assert_eq!(held(site, number)?, None, "agent{}", number + 1);
    }
    assert_eq!(site.gateway()?.log().matches("joined to itself").count(), before);
    Ok(())
}

fn a_flood_reaches_others_at_its_limit_and_no_faster(site: &mut Site) -> Result<()> {
    for (destination, limit, reason) in
        [(BROADCAST, 50, "storm_broadcast"), (local_mac(0x23_0000), 20, "storm_unknown")]
    {
        let [one, two] = [Station::agent(site, 0)?, Station::agent(site, 1)?];
        let begun = Instant::now();
        for _ in 0..1000 {
            one.send_as(one.mac, destination, STORM)?;
            std::thread::sleep(Duration::from_micros(500));
        }
        let passed = two.port.collect(Duration::from_secs(1), |frame| stations::carries(frame, STORM)).len();
        let seconds = begun.elapsed().as_secs_f64();
        let most = (f64::from(limit) * (seconds + 1.0)).ceil();
        assert!(passed >= limit as usize, "{reason}: {passed} passed");
        assert!((passed as f64) <= most, "{reason}: {passed} passed, more than {most}");
        let dropped = site.gateway()?.drops(reason)?;
        assert!(dropped >= 300, "{reason}: {dropped}");
        assert!(ping(site.agent(1), LAN_HOST, 10, 56)?.complete(), "another peer suffers");
    }
    Ok(())
}

/// Memory in use, in KiB.
fn resident(site: &mut Site) -> Result<u64> {
    let status = format!("/proc/{}/status", site.gateway()?.process().pid());
    let text = std::fs::read_to_string(&status).map_err(Fault::io("reading a process's memory"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().map_err(|_| Fault::other(format!("no VmRSS in {status}")))
}

fn invented_addresses_do_not_make_the_gateway_grow(site: &mut Site) -> Result<()> {
    const FRAMES: u32 = 20_000;
    let [peer, lan] = [Station::agent(site, 1)?, Station::lan(site)?];
    let flood = |from: u32| -> Result<()> {
        for number in 0..FRAMES {
            peer.send_as(local_mac(0x40_0000 + from + number), lan.mac, b"one of many")?;
            lan.send_as(local_mac(0x80_0000 + from + number), BROADCAST, b"one of many")?;
        }
        Ok(())
    };
    // What fills the table for the first time may take room, at most 256 bytes a station here.
    let before = resident(site)?;
    flood(0)?;
    flood(FRAMES)?;
    std::thread::sleep(Duration::from_secs(1));
    let full = resident(site)?;
    let fdb = site.gateway()?.ask("fdb")?;
    let entries = fdb["entries"].as_array().cloned().unwrap_or_default();
    let behind = entries.iter().filter(|entry| entry["port"] == "agent2").count();
    assert!(behind <= 64, "{behind} stations behind a peer that may have 64");
    let grown = full.saturating_sub(before);
    assert!(grown < 40_000, "grown by {grown} KiB for {} stations", entries.len());
    assert!(site.gateway()?.drops("mac_limit")? > 1000);
    assert!(ping(site.agent(0), LAN_HOST, 10, 56)?.complete(), "another peer suffers");
    Ok(())
}
