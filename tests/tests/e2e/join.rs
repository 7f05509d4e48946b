//! A site that joins: to a Trestle, and to a stock OpenVPN server with its kernel bridge.

use std::time::Duration;

use trestle_tests::branch::BRANCH_HOST;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::{FULL_SIZE, local_mac};
use trestle_tests::gateway::{Gateway, Mode, Start};
use trestle_tests::network::{GATEWAY, LAN_HOST, Layout};
use trestle_tests::process::wait_until;
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::{Scenario, Suite};
use trestle_tests::site::Site;
use trestle_tests::{Result, scenarios};

const SOON: Duration = Duration::from_secs(15);

const SCENARIOS: &[Scenario] = scenarios![
    hosts_of_both_sites_reach_each_other,
    frames_of_any_kind_and_size_cross_between_sites,
    many_stations_stand_behind_one_site,
];

/// To a Trestle.
pub const TRESTLE: Suite = Suite {
    name: "join_trestle",
    modes: &[Mode::Native, Mode::Socket],
    site: |mode| joined(mode, mode),
    fresh: false,
    scenarios: SCENARIOS,
};

/// To a stock server.
pub const STOCK: Suite = Suite { name: "join_stock", site: |mode| joined(Mode::Stock, mode), ..TRESTLE };

/// A site whose server is `server`, joined by another in `mode`.
fn joined(server: Mode, mode: Mode) -> Result<Site> {
    let mut site = Site::prepare(Layout { agents: 1, ..Layout::default() }, Start::reference(server))?;
    site.start_gateway()?;
    site.prepare_branch(mode)?.start()?;
    wait_joined(&mut site)?;
    Ok(site)
}

/// Waits until the other site is connected.
fn wait_joined(site: &mut Site) -> Result<()> {
    let evidence = site.evidence();
    let branch = site.branch()?.gateway.as_ref();
    let connected = || branch.and_then(|gateway| is_connected(gateway).then_some(()));
    wait_until("a site that has joined", SOON, connected, || {
        format!("{}\n{evidence}", branch.map(Gateway::log_tail).unwrap_or_default())
    })
}

fn is_connected(gateway: &Gateway) -> bool {
    gateway.sum_of_peers("connected_s").is_ok()
        && gateway
            .status()
            .is_ok_and(|status| status["peers"].as_array().is_some_and(|peers| !peers.is_empty()))
}

fn hosts_of_both_sites_reach_each_other(site: &mut Site) -> Result<()> {
    let branch = &site.branch.as_ref().expect("a branch").host;
    let ways = [(branch, LAN_HOST), (branch, GATEWAY), (&site.network.lan, BRANCH_HOST)];
    for (from, to) in ways {
        assert!(reachable(from, to, SOON), "{} does not reach {to}", from.name());
        for size in [56, 1472] {
            let echoes = ping(from, to, 10, size)?;
            assert!(echoes.complete(), "{} to {to}, {size} bytes: {echoes:?}", from.name());
        }
    }
    Ok(())
}

fn frames_of_any_kind_and_size_cross_between_sites(site: &mut Site) -> Result<()> {
    let branch = &site.branch.as_ref().expect("a branch").host;
    let here = (RawPort::open(branch, "eth0")?, branch.mac("eth0")?);
    let there = (RawPort::open(&site.network.lan, "eth0")?, site.network.lan.mac("eth0")?);
    for (from, to) in [(&here, &there), (&there, &here)] {
        for length in [60, FULL_SIZE] {
            let tally = Volley::new(to.1, from.1).of_length(length).fly(&from.0, &to.0)?;
            assert!(tally.complete(), "{length} bytes: {tally:?}");
        }
    }
    Ok(())
}

fn many_stations_stand_behind_one_site(site: &mut Site) -> Result<()> {
    let branch = &site.branch.as_ref().expect("a branch").host;
    let here = RawPort::open(branch, "eth0")?;
    let there = (RawPort::open(&site.network.lan, "eth0")?, site.network.lan.mac("eth0")?);
    branch.ip("link set eth0 promisc on")?;
    for number in 1..=8 {
        let station = local_mac(number);
        let out = Volley::new(there.1, station).of_count(2).fly(&here, &there.0)?;
        let back = Volley::new(station, there.1).of_count(2).fly(&there.0, &here)?;
        assert!(out.complete() && back.complete(), "station {number}: {out:?}, {back:?}");
    }
    branch.ip("link set eth0 promisc off")?;
    Ok(())
}
