//! IPv6 outside: one listener for both families, AF_XDP for either, and a router that is known by a link-local address.

use std::net::Ipv6Addr;
use std::time::Duration;

use trestle_tests::agent::Agent;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::FULL_SIZE;
use trestle_tests::gateway::{Mode, SERVER_CONF, Start};
use trestle_tests::network::{GATEWAY_V6, LAN_HOST, LINK_LOCAL, Layout, SECOND_V6, agent_v6};
use trestle_tests::process::wait_until;
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::{Scenario, Suite};
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Stream, iperf3};
use trestle_tests::{Fault, Result, scenarios};

use crate::stations;

const SCENARIOS: &[Scenario] = scenarios![
    a_client_of_ipv6_and_one_of_ipv4_share_the_segment,
    full_size_frames_of_both_need_no_fragments_of_the_kernel,
    tcp_and_udp_cross,
    a_client_that_moves_to_another_ipv6_address_is_followed,
];

pub const SUITE: Suite = Suite {
    name: "ipv6",
    modes: Mode::TRESTLE,
    site: |mode| site(Layout::default(), Start::reference(mode)),
    fresh: false,
    scenarios: SCENARIOS,
};

/// The same where the NIC has two queues, and carries the tunnel alone.
pub const UNDERLAY: Suite = Suite {
    name: "ipv6_underlay",
    modes: &[Mode::Native],
    site: |mode| {
        let start = Start { uplink: "ens5:underlay".to_owned(), ..Start::reference(mode) };
        site(Layout { queues: 2, ..Layout::default() }, start)
    },
    fresh: false,
    scenarios: scenarios![full_size_frames_between_the_clients_cross],
};

/// Only IPv6, and two addresses of the gateway.
pub const ALONE: Suite = Suite {
    name: "ipv6_alone",
    modes: &[Mode::Native],
    site: |mode| {
        site_of("proto udp6\nbind ipv6only", Layout::default(), Start::reference(mode), &[V6, SECOND])
    },
    fresh: false,
    scenarios: scenarios![
        ipv4s_port_is_left_to_others,
        answers_leave_from_the_address_a_client_used,
        a_client_at_a_link_local_address_is_served,
    ],
};

/// Routers of IPv6 cut nothing: they say what is too long.
pub const NARROW: Suite = Suite {
    name: "ipv6_narrow",
    modes: &[Mode::Native],
    site: |mode| site(Layout::default(), Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![a_path_that_becomes_narrow_is_learnt_from_its_router],
};

const V4: &[&str] = &[];
const V6: &[&str] = &["--remote", "2001:db8:21::5", "443", "udp6"];

const SECOND: &[&str] = &["--remote", "2001:db8:21::6", "443", "udp6"];

/// Both families by one socket: the first agent comes by IPv6, the second by IPv4.
fn site(layout: Layout, start: Start) -> Result<Site> {
    site_of("proto udp6", layout, start, &[V6, V4])
}

fn site_of(proto: &str, layout: Layout, start: Start, agents: &[&[&str]]) -> Result<Site> {
    let config = SERVER_CONF.replace("proto udp", proto);
    let mut site = Site::prepare(Layout { ipv6: true, ..layout }, Start { config, ..start })?;
    site.start_gateway()?;
    for (number, arguments) in agents.iter().enumerate() {
        let name = format!("agent{}", number + 1);
        let agent = Agent::launch(site.agent(number), site.folder(), &site.pki, &name, arguments)?;
        site.agents.push(agent);
    }
    site.wait_connected()?;
    Ok(site)
}

fn a_client_of_ipv6_and_one_of_ipv4_share_the_segment(site: &mut Site) -> Result<()> {
    let [one, two, lan, _] = stations::all(site)?;
    for (from, to) in [(&one, &two), (&two, &one), (&one, &lan), (&lan, &one), (&lan, &two)] {
        for length in [60, 1000] {
            let tally = Volley::new(to.mac, from.mac).of_length(length).fly(&from.port, &to.port)?;
            assert!(tally.complete(), "{} to {}, {length} bytes: {tally:?}", from.name, to.name);
        }
    }
    let status = site.gateway()?.status()?;
    let peers = status["peers"].as_array().cloned().unwrap_or_default();
    let address = |name: &str| {
        let peer = peers.iter().find(|peer| peer["name"] == name);
        peer.and_then(|peer| peer["address"].as_str()).unwrap_or_default().to_owned()
    };
    assert!(address("agent1").starts_with(&format!("[{}]:", agent_v6(0))), "{peers:?}");
    assert!(address("agent2").starts_with("203.0.113.1:") || address("agent2").starts_with("198.51.100.12:"));
    let listen = status["listen"].to_string();
    assert!(listen.contains("\"10.10.21.5:443\"") && listen.contains("\"[2001:db8:21::5]:443\""), "{listen}");
    let by_xdp = site.gateway()?.mode().has_xdp();
    for peer in &peers {
        let (xdp, socket) = (count(peer, "rx_frames_xdp"), count(peer, "rx_frames_socket"));
        let right = if by_xdp { xdp >= 40 && socket < 20 } else { xdp == 0 && socket >= 40 };
        assert!(right, "{}: {xdp} by XDP, {socket} by the socket", peer["name"]);
    }
    // Neither peer is detoured for want of a next hop: IPv6's is link-local.
    assert!(!status["health"].to_string().contains("leave by the kernel's socket"), "{}", status["health"]);
    Ok(())
}

fn count(peer: &serde_json::Value, key: &str) -> u64 {
    peer[key].as_u64().unwrap_or_default()
}

fn full_size_frames_of_both_need_no_fragments_of_the_kernel(site: &mut Site) -> Result<()> {
    const COUNT: u32 = 100;
    let [one, two, lan, _] = stations::all(site)?;
    let before = kernel_fragments(site)?;
    for (from, to) in [(&one, &lan), (&lan, &one), (&one, &two), (&two, &one)] {
        let tally =
            Volley::new(to.mac, from.mac).of_length(FULL_SIZE).of_count(COUNT).fly(&from.port, &to.port)?;
        assert!(tally.complete(), "{} to {}: {tally:?}", from.name, to.name);
    }
    let after = kernel_fragments(site)?;
    let (made, joined) = (after.0 - before.0, after.1 - before.1);
    if site.gateway()?.mode().has_xdp() {
        assert!(made == 0 && joined < 20, "the kernel made {made} fragments and joined {joined}");
    } else {
        assert!(made >= 400 && joined >= 200, "the kernel made {made} fragments and joined {joined}");
    }
    Ok(())
}

/// IPv6 fragments the gateway's kernel made, and packets it joined.
fn kernel_fragments(site: &Site) -> Result<(u64, u64)> {
    let table = site.network.gateway.run("cat", "/proc/net/snmp6")?;
    let value = |wanted: &str| {
        let mut lines = table.lines().filter_map(|line| line.split_once(char::is_whitespace));
        let found = lines.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.trim().parse().ok());
        found.ok_or_else(|| Fault::other(format!("/proc/net/snmp6 has no {wanted}")))
    };
    Ok((value("Ip6FragCreates")?, value("Ip6ReasmOKs")?))
}

fn full_size_frames_between_the_clients_cross(site: &mut Site) -> Result<()> {
    let (one, two) = (stations::Station::agent(site, 0)?, stations::Station::agent(site, 1)?);
    let before = site.gateway()?.sum_of_peers("rx_frames_xdp")?;
    for (from, to) in [(&one, &two), (&two, &one)] {
        let tally = Volley::new(to.mac, from.mac).of_length(FULL_SIZE).fly(&from.port, &to.port)?;
        assert!(tally.complete(), "{} to {}: {tally:?}", from.name, to.name);
    }
    let by_xdp = site.gateway()?.sum_of_peers("rx_frames_xdp")? - before;
    assert!(by_xdp >= 40, "{by_xdp} came by XDP");
    Ok(())
}

fn tcp_and_udp_cross(site: &mut Site) -> Result<()> {
    let network = &site.network;
    let (one, two, lan) = (&network.agents[0], &network.agents[1], &network.lan);
    let ways = [
        (one, two, site.address(1)),
        (two, one, site.address(0)),
        (one, lan, LAN_HOST),
        (lan, one, site.address(0)),
    ];
    for (from, to, address) in ways {
        let got = iperf3(from, to, address, Stream::Tcp, Extent::Megabytes(4))?;
        assert!(got.bits_per_second > 1e6, "TCP {} to {address}: {got:?}", from.name());
        let got = iperf3(from, to, address, Stream::Udp(20), Extent::Megabytes(1))?;
        assert!(got.bits_per_second > 1e6 && got.loss < 0.5, "UDP {} to {address}: {got:?}", from.name());
    }
    Ok(())
}

fn a_client_that_moves_to_another_ipv6_address_is_followed(site: &mut Site) -> Result<()> {
    let moved: Ipv6Addr = "2001:db8:51::99".parse().map_err(|_| Fault::other("an address"))?;
    let one = site.agent(0);
    let turn = |from, to| {
        one.ip_batch(&format!("address add {to}/64 dev eth0 nodad\naddress del {from}/64 dev eth0"))
    };
    for (from, to) in [(agent_v6(0), moved), (moved, agent_v6(0))] {
        turn(from, to)?;
        assert!(reachable(site.agent(0), LAN_HOST, Duration::from_secs(10)), "{from} to {to}");
        assert!(ping(&site.network.lan, site.address(0), 10, 1400)?.complete());
        let gateway = site.gateway.as_ref().ok_or_else(|| Fault::other("no gateway"))?;
        let known =
            || gateway.table("peers").is_ok_and(|table| table.contains(&format!("[{to}]:"))).then_some(());
        wait_until("the peer at its new address", Duration::from_secs(5), known, || {
            gateway.table("peers").unwrap_or_default()
        })?;
    }
    assert_eq!(site.agents[0].times("Initialization Sequence Completed"), 1, "it never connected anew");
    Ok(())
}

fn ipv4s_port_is_left_to_others(site: &mut Site) -> Result<()> {
    let open = || std::net::UdpSocket::bind("0.0.0.0:443");
    site.network.gateway.within(open)?.map_err(Fault::io("binding IPv4's port"))?;
    let listen = site.gateway()?.status()?["listen"].clone();
    assert_eq!(listen, serde_json::json!([format!("[{GATEWAY_V6}]:443"), format!("[{SECOND_V6}]:443")]));
    Ok(())
}

fn answers_leave_from_the_address_a_client_used(site: &mut Site) -> Result<()> {
    // Each agent knows one of the addresses, and drops what comes from the other.
    let before = site.gateway()?.sum_of_peers("rx_frames_xdp")?;
    assert!(ping(site.agent(0), site.address(1), 10, 1472)?.complete());
    assert!(ping(site.agent(1), LAN_HOST, 10, 56)?.complete());
    assert!(site.gateway()?.sum_of_peers("rx_frames_xdp")? >= before + 30);
    Ok(())
}

fn a_client_at_a_link_local_address_is_served(site: &mut Site) -> Result<()> {
    let lan = &site.network.lan;
    let remote = format!("{LINK_LOCAL}%eth0");
    let arguments = ["--remote", &remote, "443", "udp6"];
    let mut near = Agent::launch(lan, site.folder(), &site.pki, "near", &arguments)?;
    near.wait_connected(lan)?;
    let (inside, mac) = (RawPort::open(lan, "tap0")?, lan.mac("tap0")?);
    let one = stations::Station::agent(site, 0)?;
    for (from, to, port, other) in [(mac, one.mac, &inside, &one.port), (one.mac, mac, &one.port, &inside)] {
        let tally = Volley::new(to, from).of_length(FULL_SIZE).fly(port, other)?;
        assert!(tally.complete(), "{tally:?}");
    }
    let peers = site.gateway()?.table("peers")?;
    assert!(peers.contains("[fe80::"), "{peers}");
    Ok(())
}

fn a_path_that_becomes_narrow_is_learnt_from_its_router(site: &mut Site) -> Result<()> {
    let (one, lan) = (stations::Station::agent(site, 0)?, stations::Station::lan(site)?);
    let fly = || Volley::new(one.mac, lan.mac).of_length(FULL_SIZE).fly(&lan.port, &one.port);
    assert!(fly()?.complete(), "before");
    site.network.router.ip("-6 route add 2001:db8:51::/64 dev out0 metric 10 mtu 1300")?;
    let crosses = || fly().is_ok_and(|tally| tally.complete()).then_some(());
    wait_until("full-size frames on the narrow path", Duration::from_secs(20), crosses, || {
        site.network.gateway.ip("-6 route get 2001:db8:51::11").unwrap_or_default()
    })?;
    let health = site.gateway()?.status()?["health"].to_string();
    assert!(!health.contains("leave by the kernel's socket"), "{health}");
    Ok(())
}
