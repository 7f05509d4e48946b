//! Peers behind a port of a kernel bridge: the reference deployment as it stands, `server.conf` and `bridge-up.sh` byte for
//! byte, with the real brctl.

use std::thread::sleep;
use std::time::Duration;

use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::{FULL_SIZE, Mac, local_mac, show_mac};
use trestle_tests::gateway::{Mode, SERVER_CONF, Start, refused};
use trestle_tests::netns::Namespace;
use trestle_tests::network::{BRIDGE, GATEWAY, LAN_HOST, Layout, NIC, ROUTER};
use trestle_tests::process::{Process, output, wait_until};
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Flow, Stream, iperf3};
use trestle_tests::{Fault, Result, scenarios};

use crate::capture;
use crate::stations::{self, Station};

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
        dnsmasq_on_the_lan_serves_dhcp_to_an_agent,
    ],
};

/// What XDP and AF_XDP carry past the bridge.
pub const ACCELERATED: Suite = Suite {
    name: "joined_by_xdp",
    modes: &[Mode::Native],
    site,
    fresh: false,
    scenarios: scenarios![
        known_frames_between_lan_and_peer_do_not_pass_the_bridge,
        a_station_that_moves_between_lan_and_peer_is_followed,
        a_rule_on_the_bridge_holds_for_peers_as_well,
        peers_stations_come_back_when_somebody_takes_them_away,
        a_capture_of_the_nic_shows_what_goes_between_lan_and_peers,
    ],
};

/// With a worker for each of two queues, and a port that has one.
pub const QUEUES: Suite = Suite {
    name: "joined_by_two_workers",
    site: |mode| {
        let layout = Layout { queues: 2, ..Layout::default() };
        let mut site = Site::prepare(layout, start(mode))?;
        site.network.bridge_up()?;
        site.network.bridge_add_single_queue_port()?;
        site.start_gateway()?;
        site.connect_agents(&[])?;
        Ok(site)
    },
    scenarios: scenarios![
        everyone_on_the_bridge_reaches_everyone,
        tcp_crosses_in_every_direction,
        known_frames_between_lan_and_peer_do_not_pass_the_bridge,
        a_port_with_fewer_queues_than_workers_is_sent_by_all_of_them,
    ],
    ..ACCELERATED
};

/// Those that leave ruins.
pub const LIFE: Suite = Suite {
    name: "joined_life",
    modes: &[Mode::Native],
    site: |mode| {
        let site = Site::prepare(Layout::default(), start(mode))?;
        site.network.bridge_up()?;
        Ok(site)
    },
    fresh: true,
    scenarios: scenarios![
        the_bridge_goes_on_through_start_stop_and_kill_and_a_restart_takes_over,
        without_the_admins_script_the_gateway_joins_by_a_port_of_its_own,
        what_cannot_be_joined_is_refused_in_one_sentence,
        a_gateway_whose_bridge_is_deleted_ends_and_says_so,
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

fn dnsmasq_on_the_lan_serves_dhcp_to_an_agent(site: &mut Site) -> Result<()> {
    let folder = site.folder().to_owned();
    let mut command = site.network.lan.command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--interface=eth0",
        "--no-ping",
    ]);
    command.args([
        "--user=root",
        "--log-facility=-",
        "--dhcp-range=10.10.21.150,10.10.21.160,2m",
        "--pid-file=",
    ]);
    command.arg(format!("--dhcp-leasefile={}", folder.join("leases").display()));
    let mut server = Process::spawn("dnsmasq", &mut command, &folder.join("dnsmasq.log"))?;
    server.wait_for("DHCP, IP range", SOON)?;
    let client = "udhcpc -f -q -n -t 5 -T 1 -i tap0 -s /bin/true";
    let said = output(site.agent(0).command("busybox").args(client.split(' ')), 20)?;
    server.terminate(SOON)?;
    let said = said.stdout + &said.stderr;
    assert!(said.contains("lease of 10.10.21.15"), "{said}\n{}", server.log());
    Ok(())
}

fn the_bridge_goes_on_through_start_stop_and_kill_and_a_restart_takes_over(site: &mut Site) -> Result<()> {
    assert!(reachable(&site.network.lan, GATEWAY, SOON));
    let (host, every) = (&site.network.gateway, Duration::from_millis(5));
    let address = |site: &Site| site.network.gateway.ipv4(BRIDGE);
    let mac = host.mac(BRIDGE)?;
    let flow = Flow::start(&site.network.lan, host, GATEWAY, every)?;
    site.start_gateway()?;
    site.connect_agents(&[])?;
    assert!(reachable(site.agent(0), LAN_HOST, SOON));
    let entered = format!("{} dev tap0 extern_learn", show_mac(site.mac(0)?));
    let entries = |site: &Site| site.network.gateway.run("bridge", &format!("fdb show br {BRIDGE}"));
    assert!(entries(site)?.contains(&entered));
    site.gateway()?.kill()?;
    assert_eq!(address(site), Some(GATEWAY));
    sleep(Duration::from_millis(300));
    // The TAP is the admin's, and keeps what a killed gateway had entered there.
    site.agents.clear();
    site.start_gateway()?;
    assert!(!entries(site)?.contains(&entered), "what a killed gateway left is still there");
    site.connect_agents(&[])?;
    // The LAN host has the addresses that the agents' interfaces had before: their questions correct them.
    assert!(reachable(site.agent(0), LAN_HOST, SOON) && reachable(site.agent(1), LAN_HOST, SOON));
    assert!(reachable(&site.network.lan, site.address(1), SOON));
    site.gateway()?.stop()?;
    assert!(!entries(site)?.contains("extern_learn"), "what a stopped gateway left is still there");
    sleep(Duration::from_millis(300));
    let report = flow.stop()?;
    assert!(report.lost.is_empty(), "{} of {} lost: {:?}", report.lost.len(), report.sent, report.lost);
    assert_eq!((address(site), site.network.gateway.mac(BRIDGE)?), (Some(GATEWAY), mac));
    Ok(())
}

fn without_the_admins_script_the_gateway_joins_by_a_port_of_its_own(site: &mut Site) -> Result<()> {
    let host = &site.network.gateway;
    host.ip("link delete tap0")?;
    // The lowest of the ports' addresses and MTUs, unless somebody has set others.
    host.ip_batch(&format!("link set {NIC} mtu 1400\nlink set {BRIDGE} mtu 1400"))?;
    let before = (host.mac(BRIDGE)?, mtu(host, BRIDGE)?);
    site.start_gateway()?;
    let host = &site.network.gateway;
    assert_eq!((host.mac(BRIDGE)?, mtu(host, BRIDGE)?), before);
    assert_eq!((host.mac("tap0")?[0], mtu(host, "tap0")?), (0xfe, 1400));
    let shown = host.run("brctl", &format!("show {BRIDGE}"))?;
    assert!(shown.contains("tap0"), "{shown}");
    site.connect_agents(&[])?;
    assert!(reachable(site.agent(0), LAN_HOST, SOON) && reachable(site.agent(0), site.address(1), SOON));
    site.gateway()?.stop()?;
    assert!(!site.network.gateway.has_device("tap0"));
    Ok(())
}

fn mtu(host: &Namespace, device: &str) -> Result<u64> {
    let links = host.ip_json(&format!("link show dev {device}"))?;
    Ok(links.first().and_then(|link| link["mtu"].as_u64()).unwrap_or_default())
}

fn what_cannot_be_joined_is_refused_in_one_sentence(site: &mut Site) -> Result<()> {
    let host = &site.network.gateway;
    let said = |arguments: &[&str]| {
        let arguments = [&["server.conf"], arguments].concat();
        refused(host, site.folder(), &arguments).map(|output| output.stdout + &output.stderr)
    };
    let written = std::fs::write(site.folder().join("server.conf"), SERVER_CONF);
    written.map_err(|error| Fault::other(error.to_string()))?;
    for (arguments, sentence) in [
        (&["--bridge", NIC][..], "ens5 is no bridge: name one for --bridge"),
        (&["--bridge", BRIDGE, "--uplink", NIC], "--bridge and --uplink exclude each other"),
        (&["--bridge", "br9"], "there is no interface br9"),
    ] {
        let said = said(arguments)?;
        assert!(said.contains(sentence), "{arguments:?}: {said}");
    }
    host.ip("link add br1 type bridge")?;
    host.ip("link set tap0 master br1")?;
    let other = said(&["--bridge", BRIDGE])?;
    assert!(other.contains("tap0 is a port of another bridge or bond than br0"), "{other}");
    Ok(())
}

/// Where the bridge and the gateway have `mac`, as often as it takes until both agree.
fn wait_place(site: &Site, mac: Mac, device: &str, place: &str) -> Result<()> {
    let shown = show_mac(mac);
    let fdb = || site.network.gateway.run("bridge", &format!("fdb show br {BRIDGE}"));
    let own = || site.gateway.as_ref().map(|gateway| gateway.ask("fdb"));
    let agree = || {
        let kernel = fdb().ok()?.contains(&format!("{shown} dev {device} "));
        let entries = own()?.ok()?;
        let ours =
            entries["entries"].as_array()?.iter().any(|e| e["mac"] == shown.as_str() && e["place"] == place);
        (kernel && ours).then_some(())
    };
    wait_until(&format!("{shown} on {device}"), SOON, agree, || {
        format!("{}\n{:?}", fdb().unwrap_or_default(), own())
    })
}

fn a_station_that_moves_between_lan_and_peer_is_followed(site: &mut Site) -> Result<()> {
    let mac = local_mac(0x77);
    let [agent1, agent2, lan, _] = stations::all(site)?;
    for _ in 0..2 {
        lan.announce(mac)?;
        wait_place(site, mac, NIC, "wire")?;
        agent1.send_as(agent1.mac, mac, b"to the LAN")?;
        assert!(lan.hears(b"to the LAN") && agent2.hears_nothing_of(b"to the LAN"));
        agent2.announce(mac)?;
        wait_place(site, mac, "tap0", "peer")?;
        agent1.send_as(agent1.mac, mac, b"to the peer")?;
        assert!(agent2.hears(b"to the peer") && lan.hears_nothing_of(b"to the peer"));
        lan.send_as(lan.mac, mac, b"from the LAN")?;
        assert!(agent2.hears(b"from the LAN") && agent1.hears_nothing_of(b"from the LAN"));
    }
    Ok(())
}

/// Frames that the kernel has counted on a device, both ways.
fn passed(host: &Namespace, device: &str) -> Result<u64> {
    let links = host.ip_json(&format!("-statistics link show dev {device}"))?;
    let stats = &links.first().map(|link| link["stats64"].clone()).unwrap_or_default();
    Ok(["rx", "tx"].iter().filter_map(|way| stats[way]["packets"].as_u64()).sum())
}

fn known_frames_between_lan_and_peer_do_not_pass_the_bridge(site: &mut Site) -> Result<()> {
    let [agent, _, lan, _] = stations::all(site)?;
    lan.announce(lan.mac)?;
    agent.announce(agent.mac)?;
    wait_place(site, lan.mac, NIC, "wire")?;
    wait_place(site, agent.mac, "tap0", "peer")?;
    let host = &site.network.gateway;
    let (tap, xdp) = (passed(host, "tap0")?, site.gateway.as_ref().map(|g| g.sum_of_peers("rx_frames_xdp")));
    for (from, to) in [(&lan, &agent), (&agent, &lan)] {
        let tally =
            Volley::new(to.mac, from.mac).of_length(FULL_SIZE).of_count(200).fly(&from.port, &to.port)?;
        assert!(tally.complete(), "{} to {}: {tally:?}", from.name, to.name);
    }
    let by_tap = passed(host, "tap0")? - tap;
    // ARP and neighbour discovery go on meanwhile.
    assert!(by_tap < 20, "{by_tap} frames passed tap0");
    let (before, after) = (xdp.transpose()?.unwrap_or(0), site.gateway()?.sum_of_peers("rx_frames_xdp")?);
    assert!(after >= before + 200, "{before} tunnel packets had come by XDP, and then {after}");
    let health = site.gateway()?.status()?["health"].to_string();
    assert!(!health.contains("leave by the kernel's socket"), "{health}");
    Ok(())
}

fn a_rule_on_the_bridge_holds_for_peers_as_well(site: &mut Site) -> Result<()> {
    let [agent, _, lan, _] = stations::all(site)?;
    lan.announce(lan.mac)?;
    agent.announce(agent.mac)?;
    wait_place(site, lan.mac, NIC, "wire")?;
    wait_place(site, agent.mac, "tap0", "peer")?;
    let crosses = |payload: &'static [u8]| -> Result<[bool; 2]> {
        agent.send_as(agent.mac, lan.mac, payload)?;
        lan.send_as(lan.mac, agent.mac, payload)?;
        Ok([lan.hears(payload), agent.hears(payload)])
    };
    assert_eq!(crosses(b"before the rule")?, [true; 2]);
    let host = &site.network.gateway;
    host.nft(
        "table bridge guard { chain c { type filter hook forward priority 0; ether type 0x88b5 drop; }; }",
    )?;
    wait_ways(site, "[]", "nft")?;
    assert_eq!(crosses(b"under the rule")?, [false; 2]);
    site.network.gateway.nft("delete table bridge guard")?;
    wait_ways(site, "peers", "")?;
    assert_eq!(crosses(b"after the rule")?, [true; 2]);
    Ok(())
}

fn peers_stations_come_back_when_somebody_takes_them_away(site: &mut Site) -> Result<()> {
    let agent = Station::agent(site, 0)?;
    agent.announce(agent.mac)?;
    wait_place(site, agent.mac, "tap0", "peer")?;
    let entered = format!("{} dev tap0 extern_learn", show_mac(agent.mac));
    let host = &site.network.gateway;
    let there = || -> Result<()> {
        let look = || {
            let entries = host.run("bridge", &format!("fdb show br {BRIDGE}")).ok()?;
            entries.contains(&entered).then_some(())
        };
        wait_until("the agent's station on tap0", SOON, look, String::new)
    };
    there()?;
    host.run("bridge", &format!("fdb del {} dev tap0 master", show_mac(agent.mac)))?;
    there()?;
    host.run("brctl", &format!("delif {BRIDGE} tap0"))?;
    sleep(Duration::from_millis(200));
    host.run("brctl", &format!("addif {BRIDGE} tap0"))?;
    there()?;
    assert!(reachable(site.agent(0), LAN_HOST, SOON));
    Ok(())
}

fn a_capture_of_the_nic_shows_what_goes_between_lan_and_peers(site: &mut Site) -> Result<()> {
    let [agent, _, lan, _] = stations::all(site)?;
    lan.announce(lan.mac)?;
    agent.announce(agent.mac)?;
    wait_place(site, lan.mac, NIC, "wire")?;
    wait_place(site, agent.mac, "tap0", "peer")?;
    let file = site.folder().join("nic.pcapng");
    let mut process = capture::capture(site, &[NIC, "-w", &file.display().to_string()])?;
    let [to_lan, to_agent] = [(&agent, &lan), (&lan, &agent)]
        .map(|(from, to)| Volley::new(to.mac, from.mac).of_count(20).fly(&from.port, &to.port));
    assert!(to_lan?.complete() && to_agent?.complete());
    let line = |way: u8, from: Mac| format!("{NIC}|0x0000000{way}|{}|", show_mac(from));
    let seen = || {
        let lines = capture::read(&file).ok()?;
        let count = |line: &str| lines.iter().filter(|found| *found == line).count();
        (count(&line(2, agent.mac)) >= 20 && count(&line(1, lan.mac)) >= 20).then_some(lines)
    };
    let lines = wait_until("all frames in the file", SOON, seen, || format!("{:#?}", capture::read(&file)))?;
    process.terminate(SOON)?;
    // Neighbours are asked for meanwhile; but nothing is there twice.
    let most = |line: &str| lines.iter().filter(|found| *found == line).count() < 30;
    assert!(most(&line(2, agent.mac)) && most(&line(1, lan.mac)), "{lines:#?}");
    Ok(())
}

/// Waits until `trestle ports` says of the NIC that so much of it is accelerated, and why not more.
fn wait_ways(site: &mut Site, ways: &str, reason: &str) -> Result<()> {
    let mut said = String::new();
    let outcome = wait_until(
        "the NIC's port to be judged anew",
        SOON,
        || {
            let status = site.gateway().ok()?.status().ok()?;
            let port = status["ports"].as_array()?.iter().find(|port| port["name"] == NIC)?.clone();
            said = port.to_string();
            let bridge = &port["bridge"];
            (bridge["accelerated"].to_string().contains(ways)
                && bridge["reasons"].to_string().contains(reason))
            .then_some(())
        },
        String::new,
    );
    outcome.map_err(|error| Fault::other(format!("{error}: {said}")))
}

fn a_port_with_fewer_queues_than_workers_is_sent_by_all_of_them(site: &mut Site) -> Result<()> {
    let network = &site.network;
    let (second, mac) = (RawPort::open(&network.router, "lan1")?, network.router.mac("lan1")?);
    for number in 0..2 {
        let agent = Station::agent(site, number)?;
        agent.announce(agent.mac)?;
        let back = Volley::new(agent.mac, mac).of_count(50);
        // Announces the second host, too.
        assert!(back.fly(&second, &agent.port)?.received > 0);
        wait_place(site, mac, "w1", "wire")?;
        let tally = Volley::new(mac, agent.mac).of_count(50).fly(&agent.port, &second)?;
        assert!(tally.complete(), "agent {number} to the port: {tally:?}");
        let tally = back.fly(&second, &agent.port)?;
        assert!(tally.complete(), "the port to agent {number}: {tally:?}");
    }
    Ok(())
}

fn a_gateway_whose_bridge_is_deleted_ends_and_says_so(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    site.network.gateway.ip(&format!("link delete {BRIDGE}"))?;
    let status = site.gateway()?.process().wait(SOON)?;
    let log = site.gateway()?.log();
    assert!(!status.success() && log.contains(&format!("{BRIDGE} is gone")), "{status}: {log}");
    Ok(())
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
