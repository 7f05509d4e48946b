//! What a switch does: forward, flood, learn; any EtherType, tagged and full-size frames, every direction.

use std::time::Duration;

use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::{self, BROADCAST, FULL_SIZE, Mac, local_mac};
use trestle_tests::gateway::Mode;
use trestle_tests::network::{GATEWAY, LAN_HOST, ROUTER};
use trestle_tests::raw::Volley;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Result, scenarios};

use crate::stations::{self, SOON};

pub const SUITE: Suite = Suite {
    name: "switching",
    modes: Mode::TRESTLE,
    site: stations::reference,
    fresh: false,
    scenarios: scenarios![
        frames_to_a_mac_that_begins_with_50_arrive,
        unicast_to_an_unknown_mac_is_flooded,
        a_mac_that_moves_is_followed_at_once;
        stock:
        agents_lan_host_and_gateway_host_ping_each_other,
        an_agent_reaches_the_router,
        non_ip_frames_cross_in_every_direction,
        full_size_frames_cross_in_every_direction,
        frames_longer_than_a_fragment_cross_as_pings,
        tagged_frames_cross_unchanged,
        broadcast_and_multicast_reach_every_other_port_once,
        known_unicast_goes_to_its_port_alone,
        ipv6_neighbours_find_each_other,
        dhcp_crosses,
        a_thousand_frames_in_bursts_cross_in_order,
    ],
};

fn agents_lan_host_and_gateway_host_ping_each_other(site: &mut Site) -> Result<()> {
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
    ];
    for (from, to) in ways {
        assert!(reachable(from, to, Duration::from_secs(5)), "{} does not reach {to}", from.name());
        let echoes = ping(from, to, 20, 56)?;
        assert!(echoes.complete(), "{} to {to}: {echoes:?}", from.name());
    }
    Ok(())
}

fn an_agent_reaches_the_router(site: &mut Site) -> Result<()> {
    assert!(reachable(site.agent(0), ROUTER, Duration::from_secs(5)));
    Ok(())
}

fn non_ip_frames_cross_in_every_direction(site: &mut Site) -> Result<()> {
    every_direction(site, |volley| volley)
}

fn full_size_frames_cross_in_every_direction(site: &mut Site) -> Result<()> {
    every_direction(site, |volley| volley.of_length(FULL_SIZE))
}

pub fn tagged_frames_cross_unchanged(site: &mut Site) -> Result<()> {
    every_direction(site, |volley| volley.in_vlan(5).of_length(300))?;
    every_direction(site, |volley| volley.in_vlan(4094).of_length(FULL_SIZE).of_count(5))
}

/// Sends a volley between any two stations: all of it arrives, once and unaltered.
fn every_direction(site: &mut Site, shape: impl Fn(Volley) -> Volley) -> Result<()> {
    let stations = stations::all(site)?;
    for from in &stations {
        for to in stations.iter().filter(|to| to.mac != from.mac) {
            let tally = shape(Volley::new(to.mac, from.mac)).fly(&from.port, &to.port)?;
            assert!(tally.complete(), "{} to {}: {tally:?}", from.name, to.name);
        }
    }
    Ok(())
}

fn frames_longer_than_a_fragment_cross_as_pings(site: &mut Site) -> Result<()> {
    for to in [site.address(1), LAN_HOST, GATEWAY] {
        let echoes = ping(site.agent(0), to, 10, 1472)?;
        assert!(echoes.complete(), "full-size echo to {to}: {echoes:?}");
        let echoes = ping(site.agent(0), to, 10, 4000)?;
        assert!(echoes.complete(), "fragmented echo to {to}: {echoes:?}");
    }
    Ok(())
}

fn broadcast_and_multicast_reach_every_other_port_once(site: &mut Site) -> Result<()> {
    const MULTICAST: Mac = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];
    let stations = stations::all(site)?;
    for group in [BROADCAST, MULTICAST] {
        for from in &stations {
            for to in stations.iter().filter(|to| to.mac != from.mac) {
                let tally = Volley::new(group, from.mac).of_count(5).fly(&from.port, &to.port)?;
                assert!(tally.complete(), "{group:02x?} from {} to {}: {tally:?}", from.name, to.name);
            }
        }
    }
    Ok(())
}

fn known_unicast_goes_to_its_port_alone(site: &mut Site) -> Result<()> {
    let [one, two, lan, _] = stations::all(site)?;
    let (behind_one, behind_lan) = (local_mac(1), local_mac(2));
    one.announce(behind_one)?;
    lan.announce(behind_lan)?;
    one.send_as(behind_one, behind_lan, b"for the lan alone")?;
    assert!(lan.hears(b"for the lan alone"));
    assert!(two.hears_nothing_of(b"for the lan alone"), "agent2 hears what is for the LAN");
    lan.send_as(behind_lan, behind_one, b"for agent1 alone")?;
    assert!(one.hears(b"for agent1 alone"));
    assert!(two.hears_nothing_of(b"for agent1 alone"), "agent2 hears what is for agent1");
    Ok(())
}

fn unicast_to_an_unknown_mac_is_flooded(site: &mut Site) -> Result<()> {
    let [one, two, lan, host] = stations::all(site)?;
    one.send_as(one.mac, local_mac(0xdead), b"from agent1 to nobody")?;
    assert!(two.hears(b"from agent1 to nobody"), "a peer's unknown unicast does not reach the other peer");
    assert!(lan.hears(b"from agent1 to nobody"), "a peer's unknown unicast does not reach the wire");
    assert!(host.hears_nothing_of(b"from agent1 to nobody"), "unknown unicast is injected into the host");
    lan.send_as(lan.mac, local_mac(0xdeae), b"from lan to nobody")?;
    assert!(
        one.hears(b"from lan to nobody") && two.hears(b"from lan to nobody"),
        "the wire's does not reach peers"
    );
    host.send_as(host.mac, local_mac(0xdeaf), b"from host to nobody")?;
    assert!(
        one.hears(b"from host to nobody") && two.hears(b"from host to nobody"),
        "the host's does not reach peers"
    );
    assert!(lan.hears(b"from host to nobody"), "the host's unknown unicast does not reach the wire");
    Ok(())
}

fn a_mac_that_moves_is_followed_at_once(site: &mut Site) -> Result<()> {
    let [one, two, lan, _] = stations::all(site)?;
    let wanderer = local_mac(0x77);
    for (now_at, elsewhere) in [(&one, &two), (&two, &one), (&lan, &one), (&one, &lan)] {
        now_at.announce(wanderer)?;
        let sender = if now_at.name == "lan" || elsewhere.name == "lan" { &two } else { &lan };
        let words = format!("to the wanderer at {}, not at {}", now_at.name, elsewhere.name);
        sender.send_as(sender.mac, wanderer, words.as_bytes())?;
        assert!(now_at.hears(words.as_bytes()), "lost: {words}");
        assert!(elsewhere.hears_nothing_of(words.as_bytes()), "sent astray: {words}");
    }
    Ok(())
}

fn frames_to_a_mac_that_begins_with_50_arrive(site: &mut Site) -> Result<()> {
    const HERS: Mac = [0x50, 0x00, 0x0a, 0x01, 0x02, 0x03];
    let [one, two, lan, host] = stations::all(site)?;
    one.announce(HERS)?;
    for from in [&two, &lan, &host] {
        for length in [60, 300, FULL_SIZE] {
            let tally =
                Volley::new(HERS, from.mac).of_length(length).of_count(5).fly(&from.port, &one.port)?;
            assert!(tally.complete(), "{} to a peer's 0x50, {length} bytes: {tally:?}", from.name);
        }
    }
    lan.announce(HERS)?;
    let tally = Volley::new(HERS, one.mac).fly(&one.port, &lan.port)?;
    assert!(tally.complete(), "a peer to 0x50 on the wire: {tally:?}");
    Ok(())
}

fn ipv6_neighbours_find_each_other(site: &mut Site) -> Result<()> {
    let host_device = if site.gateway()?.mode() == Mode::Stock { "br0" } else { "ens5" };
    let network = &site.network;
    let ends = [
        (&network.agents[0], "tap0", "fd21::101"),
        (&network.agents[1], "tap0", "fd21::102"),
        (&network.lan, "eth0", "fd21::20"),
        (&network.gateway, host_device, "fd21::5"),
    ];
    for (namespace, device, address) in ends {
        namespace.ip(&format!("-6 address replace {address}/64 dev {device} nodad"))?;
    }
    for (from, _, mine) in ends {
        for (_, _, to) in ends.into_iter().filter(|(_, _, to)| *to != mine) {
            let to: std::net::Ipv6Addr = to.parse().expect("an address");
            assert!(reachable(from, to, Duration::from_secs(5)), "{} does not reach {to}", from.name());
        }
    }
    Ok(())
}

/// DHCP: an address-less client's broadcast reaches a server on the LAN, and the server's broadcast answer comes back.
fn dhcp_crosses(site: &mut Site) -> Result<()> {
    let [one, _, lan, _] = stations::all(site)?;
    for (from, to, ports) in [(&one, &lan, (68, 67)), (&lan, &one, (67, 68))] {
        let message = dhcp_frame(from.mac, ports);
        from.port.send(&message)?;
        let arrived = to.port.expect(SOON, |frame| frame == message);
        assert!(arrived.is_some(), "a DHCP message from {} does not reach {}", from.name, to.name);
    }
    Ok(())
}

/// A broadcast UDP datagram between the DHCP `ports` with 300 bytes, without a UDP checksum.
fn dhcp_frame(source: Mac, ports: (u16, u16)) -> Vec<u8> {
    let (udp_length, ip_length) = (308_u16, 328_u16);
    let mut packet = vec![0x45, 0x00];
    packet.extend(ip_length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).expect("a header's sum folds once");
    packet[10..12].copy_from_slice(&(!folded).to_be_bytes());
    packet.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes(), udp_length.to_be_bytes(), [0, 0]].concat());
    packet.extend([1, 1, 6, 0, 0xca, 0xfe]);
    packet.resize(usize::from(ip_length), 0);
    frame::frame(BROADCAST, source, 0x0800, &packet)
}

fn a_thousand_frames_in_bursts_cross_in_order(site: &mut Site) -> Result<()> {
    let [one, two, lan, _] = stations::all(site)?;
    for (from, to) in [(&one, &two), (&one, &lan), (&lan, &one)] {
        let tally = Volley::new(to.mac, from.mac).of_length(800).of_count(1000).fly(&from.port, &to.port)?;
        assert!(tally.complete(), "{} to {}: {tally:?}", from.name, to.name);
        assert!(tally.disordered < 32, "{} to {}: {tally:?}", from.name, to.name);
    }
    Ok(())
}
