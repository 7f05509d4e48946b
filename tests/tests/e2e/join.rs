//! A site that joins: to a Trestle, and to a stock OpenVPN server with its kernel bridge.

use std::time::Duration;

use trestle_tests::branch::BRANCH_HOST;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::{FULL_SIZE, local_mac};
use trestle_tests::gateway::{Gateway, Mode, SERVER_CONF, Start};
use trestle_tests::network::{GATEWAY, LAN_HOST, Layout};
use trestle_tests::pki::{Keys, Pki};
use trestle_tests::process::{read_lossy, wait_until};
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::{Scenario, Suite};
use trestle_tests::site::Site;
use trestle_tests::traffic::Flow;
use trestle_tests::{Fault, Result, scenarios};

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

/// The life of a session with a stock server, a site for each.
pub const LIFE: Suite = Suite {
    name: "join_life",
    modes: &[Mode::Native],
    site: |mode| prepared(Mode::Stock, mode),
    fresh: true,
    scenarios: scenarios![
        rekeying_by_either_side_keeps_the_sites_joined,
        a_site_comes_back_when_its_server_starts_anew,
        a_dead_remote_is_left_for_the_next,
        a_server_of_another_authority_is_refused_in_words,
        a_site_that_the_server_refuses_ends_with_its_words,
        control_packets_are_wrapped_as_the_profile_says,
        a_site_that_stops_tells_the_server,
    ],
};

/// The same with a Trestle.
pub const LIFE_OF_TRESTLES: Suite = Suite {
    name: "join_life_of_trestles",
    site: |mode| prepared(mode, mode),
    scenarios: scenarios![
        rekeying_by_either_side_keeps_the_sites_joined,
        a_site_comes_back_when_its_server_starts_anew,
        a_site_that_stops_tells_the_server,
    ],
    ..LIFE
};

/// A site whose server is `server`, joined by another in `mode`.
fn joined(server: Mode, mode: Mode) -> Result<Site> {
    let mut site = prepared(server, mode)?;
    site.start_gateway()?;
    join(&mut site)?;
    Ok(site)
}

/// The same, nothing started.
fn prepared(server: Mode, mode: Mode) -> Result<Site> {
    let layout = Layout { agents: 1, ..Layout::default() };
    let mut site =
        Site::prepare(layout, Start { config: SERVER_CONF.to_owned(), ..Start::reference(server) })?;
    site.prepare_branch(mode)?;
    Ok(site)
}

/// Starts the other site's gateway and waits until it is connected.
fn join(site: &mut Site) -> Result<()> {
    site.branch()?.start()?;
    wait_joined(site)
}

/// Adds lines to the other site's profile.
fn add(site: &mut Site, lines: &str) -> Result<()> {
    let branch = site.branch()?;
    branch.profile = format!("{}\n{lines}\n", branch.profile);
    Ok(())
}

/// Waits until the other site's log says `text`.
fn wait_said(site: &mut Site, text: &str) -> Result<()> {
    match &mut site.branch()?.gateway {
        Some(gateway) => gateway.process().wait_for(text, SOON),
        None => Err(Fault::other("the other site is not started")),
    }
}

/// Waits until the other site is connected.
fn wait_joined(site: &mut Site) -> Result<()> {
    let evidence = site.evidence();
    let branch = site.branch()?.gateway.as_ref();
    let connected = || branch.filter(|gateway| peers(gateway) == Some(1)).map(drop);
    wait_until("a site that has joined", SOON, connected, || {
        format!("{}\n{evidence}", branch.map(Gateway::log_tail).unwrap_or_default())
    })
}

/// How many peers a Trestle has, if it answers.
fn peers(gateway: &Gateway) -> Option<usize> {
    gateway.status().ok()?["peers"].as_array().map(Vec::len)
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
    let gateway = site.branch()?.gateway.as_ref().expect("a gateway");
    let arrived = |way: &str| gateway.sum_of_peers(way);
    let by_xdp = gateway.mode().has_xdp();
    assert_eq!(arrived("rx_frames_xdp")? > 0, by_xdp, "by XDP");
    assert!(by_xdp || arrived("rx_frames_socket")? > 0, "by the socket");
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

fn rekeying_by_either_side_keeps_the_sites_joined(site: &mut Site) -> Result<()> {
    // The server's turn comes first, then ours: the shorter of two times begins, and is counted from the last rekey.
    site.start().config = format!("{SERVER_CONF}\nreneg-sec 2\n");
    site.start_gateway()?;
    for ours in ["reneg-sec 0", "reneg-sec 1"] {
        add(site, ours)?;
        join(site)?;
        assert!(reachable(&site.network.lan, BRANCH_HOST, SOON), "the sites do not reach each other");
        let branch = &site.branch.as_ref().expect("a branch").host;
        let flow = Flow::start(branch, &site.network.lan, LAN_HOST, Duration::from_millis(5))?;
        std::thread::sleep(Duration::from_secs(3));
        let report = flow.stop()?;
        assert!(report.lost.is_empty(), "{ours}: lost {:?} of {}", report.lost, report.sent);
        let log = site.branch()?.gateway.as_ref().map(Gateway::log).unwrap_or_default();
        assert_eq!(log.matches("peer connected").count(), 1, "{log}");
    }
    Ok(())
}

fn a_site_comes_back_when_its_server_starts_anew(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    join(site)?;
    site.gateway()?.stop()?;
    // Stock servers and Trestles say RESTART; the site must notice, forget, and come back.
    let branch = site.branch()?.gateway.as_ref().expect("a gateway");
    let gone = || (peers(branch) == Some(0)).then_some(());
    wait_until("a site without its server", SOON, gone, || branch.log_tail())?;
    let health = branch.status()?["health"].to_string();
    assert!(health.contains("not connected"), "{health}");
    site.start_gateway()?;
    wait_joined(site)?;
    let branch = &site.branch.as_ref().expect("a branch").host;
    assert!(reachable(branch, LAN_HOST, SOON), "the sites do not reach each other again");
    Ok(())
}

fn a_dead_remote_is_left_for_the_next(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    let branch = site.branch()?;
    // Nobody has the first one's address, nobody listens at the second one's port.
    let remotes = "remote 203.0.113.77 443\nremote 198.51.100.1 4433\nremote 203.0.113.1";
    branch.profile = branch.profile.replace("remote 203.0.113.1", remotes);
    add(site, "server-poll-timeout 2")?;
    join(site)?;
    let log = site.branch()?.gateway.as_ref().map(Gateway::log).unwrap_or_default();
    assert!(log.contains("no answer"), "{log}");
    Ok(())
}

fn a_server_of_another_authority_is_refused_in_words(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    let other = Pki::new(Keys::Ecdsa)?;
    let ca = site.pki.ca().to_owned();
    let branch = site.branch()?;
    branch.profile = branch.profile.replace(&ca, other.ca());
    branch.start()?;
    wait_said(site, "the peer's certificate is not signed by an authority in `ca`")?;
    // It goes on trying: the operator may mend the server meanwhile.
    wait_said(site, "in_s=1")?;
    site.branch()?.gateway.as_mut().expect("a gateway").stop()?;
    Ok(())
}

fn a_site_that_the_server_refuses_ends_with_its_words(site: &mut Site) -> Result<()> {
    let clients = site.folder().join("clients");
    std::fs::create_dir_all(&clients).map_err(Fault::io("making a folder"))?;
    site.start().config = format!("{SERVER_CONF}\nclient-config-dir {}\nccd-exclusive\n", clients.display());
    site.start_gateway()?;
    let gateway = site.branch()?.start()?;
    let ended = gateway.process().wait(SOON)?;
    assert_eq!(ended.code(), Some(1), "{}", gateway.log());
    assert!(gateway.log().contains("203.0.113.1:443: the server refuses this client"), "{}", gateway.log());
    Ok(())
}

fn control_packets_are_wrapped_as_the_profile_says(site: &mut Site) -> Result<()> {
    let file = site.folder().join("shared.key");
    site.network.gateway.run("openvpn", &format!("--genkey secret {}", file.display()))?;
    let key = read_lossy(&file);
    site.start().config = format!("{SERVER_CONF}\ntls-crypt shared.key\n");
    site.start_gateway()?;
    add(site, &format!("<tls-crypt>\n{key}</tls-crypt>"))?;
    join(site)?;
    assert!(reachable(&site.network.lan, BRANCH_HOST, SOON), "the sites do not reach each other");
    Ok(())
}

fn a_site_that_stops_tells_the_server(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    join(site)?;
    let ended = site.branch()?.gateway.as_mut().expect("a gateway").stop()?;
    assert_eq!(ended.code(), Some(0));
    let server = site.gateway()?;
    let told = || match server.mode() {
        Mode::Stock => server.log().contains("exit message received").then_some(()),
        _ => (peers(server) == Some(0)).then_some(()),
    };
    wait_until("a server that was told", SOON, told, || server.log_tail())
}
