//! Peers behind a port of a kernel bridge: the reference deployment as it stands, `server.conf` and `bridge-up.sh` byte for
//! byte, with the real brctl.

use std::time::Duration;

use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::{FULL_SIZE, show_mac};
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::network::{BRIDGE, GATEWAY, LAN_HOST, Layout, ROUTER};
use trestle_tests::process::wait_until;
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Stream, iperf3};
use trestle_tests::{Result, scenarios};

/// How long the gateway and the kernel may take to agree.
const SOON: Duration = Duration::from_secs(5);

pub const SUITE: Suite = Suite {
    name: "joined",
    modes: &[Mode::Native, Mode::Socket],
    site,
    fresh: false,
    scenarios: scenarios![
        everyone_on_the_bridge_reaches_everyone,
        tcp_crosses_in_every_direction,
        non_ip_frames_cross_in_every_direction,
        peers_stations_stand_on_the_host_port_while_they_are_there,
    ],
};

fn site(mode: Mode) -> Result<Site> {
    let mut site = Site::prepare(Layout::default(), start(mode))?;
    site.network.bridge_up()?;
    site.start_gateway()?;
    site.connect_agents(&[])?;
    Ok(site)
}

fn start(mode: Mode) -> Start {
    Start { bridge: Some(BRIDGE.to_owned()), ..Start::reference(mode) }
}

fn everyone_on_the_bridge_reaches_everyone(site: &mut Site) -> Result<()> {
    let (one, two) = (site.address(0), site.address(1));
    let network = &site.network;
    let (agent1, agent2) = (&network.agents[0], &network.agents[1]);
    let ways = [
        (agent1, two),
        (agent2, one),
        (agent1, LAN_HOST),
        (&network.lan, one),
        (agent1, GATEWAY),
        (&network.gateway, one),
        (&network.lan, GATEWAY),
        (agent2, ROUTER),
    ];
    for (from, to) in ways {
        assert!(reachable(from, to, SOON), "{} does not reach {to}", from.name());
        let echoes = ping(from, to, 10, 1400)?;
        assert!(echoes.complete(), "{} to {to}: {echoes:?}", from.name());
    }
    Ok(())
}

fn peers_stations_stand_on_the_host_port_while_they_are_there(site: &mut Site) -> Result<()> {
    site.connect_agents(&["--explicit-exit-notify", "1"])?;
    let shown = show_mac(site.mac(1)?);
    assert!(reachable(site.agent(1), LAN_HOST, SOON));
    let entry = format!("{shown} dev tap0 extern_learn");
    let bridge = |site: &Site| site.network.gateway.run("bridge", &format!("fdb show br {BRIDGE}"));
    let before = bridge(site)?;
    assert!(before.contains(&entry), "{before}");
    let table = site.network.gateway.run("brctl", &format!("showmacs {BRIDGE}"))?;
    let lan = &show_mac(site.network.lan.mac("eth0")?);
    let row = table.lines().find(|line| line.contains(&shown)).unwrap_or_default();
    let port = table.lines().find(|line| line.contains(lan));
    assert!(row.contains("no") && port.is_some(), "{table}");
    assert_ne!(
        row.split_whitespace().next(),
        port.and_then(|line| line.split_whitespace().next()),
        "{table}"
    );
    site.agents[1].process().terminate(SOON)?;
    wait_until(
        "the end of its entry",
        SOON,
        || (!bridge(site).ok()?.contains(&shown)).then_some(()),
        || bridge(site).unwrap_or_default(),
    )?;
    site.connect_agents(&[])
}

fn tcp_crosses_in_every_direction(site: &mut Site) -> Result<()> {
    let (one, two) = (site.address(0), site.address(1));
    let network = &site.network;
    let (agent1, agent2) = (&network.agents[0], &network.agents[1]);
    let ways = [
        (agent1, &network.lan, LAN_HOST),
        (&network.lan, agent1, one),
        (agent1, &network.gateway, GATEWAY),
        (&network.gateway, agent1, one),
        (agent1, agent2, two),
    ];
    for (from, at, to) in ways {
        let got = iperf3(from, at, to, Stream::Tcp, Extent::Megabytes(4))?;
        assert!(got.bits_per_second > 1e6, "{} to {to}: {got:?}", from.name());
    }
    Ok(())
}

fn non_ip_frames_cross_in_every_direction(site: &mut Site) -> Result<()> {
    let ends = [
        (RawPort::open(site.agent(0), "tap0")?, site.mac(0)?),
        (RawPort::open(site.agent(1), "tap0")?, site.mac(1)?),
        (RawPort::open(&site.network.lan, "eth0")?, site.network.lan.mac("eth0")?),
        (RawPort::open(&site.network.gateway, BRIDGE)?, site.network.gateway.mac(BRIDGE)?),
    ];
    for (from, (sender, source)) in ends.iter().enumerate() {
        for (to, (receiver, destination)) in ends.iter().enumerate().filter(|(to, _)| *to != from) {
            for length in [60, FULL_SIZE] {
                let tally = Volley::new(*destination, *source).of_length(length).fly(sender, receiver)?;
                assert!(tally.complete(), "{from} to {to}, {length} bytes: {tally:?}");
            }
        }
    }
    Ok(())
}
