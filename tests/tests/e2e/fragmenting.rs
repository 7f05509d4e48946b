//! Long frames in short packets: `fragment`, and `mssfix` on what TCP asks for.

use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::time::Duration;

use trestle_tests::echo::ping;
use trestle_tests::frame::{self, ETHERTYPE_VLAN, FULL_SIZE, Mac};
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::network::{LAN_HOST, Layout};
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Fault, Result, scenarios};

use crate::sessions::relaunch;
use crate::stations::{A_WHILE, SOON, Station, config_with};

/// `fragment`, each scenario with clients of its own.
pub const SUITE: Suite = Suite {
    name: "fragmenting",
    modes: &[Mode::Native],
    site: |mode| {
        let mut site = Site::prepare(
            Layout::default(),
            Start { config: config_with("fragment 1200"), ..Start::reference(mode) },
        )?;
        site.start_gateway()?;
        Ok(site)
    },
    fresh: false,
    scenarios: scenarios![long_frames_cross_in_packets_no_longer_than_fragment_says,],
};

/// `mssfix` as it is by default.
pub const MSSFIX: Suite = Suite {
    name: "mssfix",
    modes: &[Mode::Native, Mode::Socket],
    site: |mode| {
        let mut site = Site::prepare(Layout::default(), Start::reference(mode))?;
        site.start_gateway()?;
        // What is lowered is lowered by the gateway.
        site.connect_agents(&["--mssfix", "0"])?;
        Ok(site)
    },
    fresh: false,
    scenarios: scenarios![tcp_asks_for_segments_that_fit_both_ways_tagged_or_not,],
};

/// One client has `fragment` and one has not: each is served as its file says.
fn long_frames_cross_in_packets_no_longer_than_fragment_says(site: &mut Site) -> Result<()> {
    let agents = [relaunch(site, 0, &["--fragment", "1200"])?, relaunch(site, 1, &[])?];
    site.agents.extend(agents);
    site.wait_connected()?;
    let outside = RawPort::open(site.agent(0), "eth0")?;
    let [one, two, lan] = [Station::agent(site, 0)?, Station::agent(site, 1)?, Station::lan(site)?];
    for (from, to) in [(&one, &two), (&two, &one), (&one, &lan), (&lan, &one), (&lan, &two)] {
        for volley in [
            Volley::new(to.mac, from.mac),
            Volley::new(to.mac, from.mac).of_length(1150),
            Volley::new(to.mac, from.mac).of_length(FULL_SIZE).of_count(100).in_vlan(7),
        ] {
            let tally = volley.fly(&from.port, &to.port)?;
            assert!(tally.complete(), "{} to {}: {tally:?}", from.name, to.name);
        }
    }
    let echoes = ping(site.agent(0), LAN_HOST, 20, 4000)?;
    assert!(echoes.complete(), "{echoes:?}");
    // Ethernet, IPv4 and UDP around 1200 bytes.
    let packets = outside.collect(A_WHILE, |frame| frame::ethertype(frame) == 0x0800);
    let longest = packets.iter().map(Vec::len).max();
    assert!(longest.is_some_and(|longest| longest <= 1242), "{longest:?}");
    assert!(longest.is_some_and(|longest| longest > 700), "{longest:?}");
    site.agents.clear();
    Ok(())
}

fn tcp_asks_for_segments_that_fit_both_ways_tagged_or_not(site: &mut Site) -> Result<()> {
    site.agent(0).ip_batch("address add fd55::1/64 dev tap0 nodad")?;
    site.network.lan.ip_batch("address add fd55::2/64 dev eth0 nodad")?;
    let [four, six] = [1368, 1348];
    let (agent, lan) = (site.agent(0), &site.network.lan);
    let inside = Station::agent(site, 0)?;
    let outside = Station::lan(site)?;
    for (from, to, address, expected) in [
        (agent, lan, IpAddr::from(LAN_HOST), four),
        (lan, agent, site.address(0).into(), four),
        (agent, lan, Ipv6Addr::new(0xfd55, 0, 0, 0, 0, 0, 0, 2).into(), six),
        (lan, agent, Ipv6Addr::new(0xfd55, 0, 0, 0, 0, 0, 0, 1).into(), six),
    ] {
        let listener = to.within(|| TcpListener::bind((address, 0)))?.map_err(Fault::io("listening"))?;
        let port = listener.local_addr().map_err(Fault::io("listening"))?;
        let connected = from.within(|| TcpStream::connect_timeout(&port, Duration::from_secs(5)))?;
        assert!(connected.is_ok(), "{address} is not reached: {connected:?}");
        for end in [&inside, &outside] {
            let asked = end.port.expect(SOON, |frame| asked_for(frame).is_some());
            assert_eq!(asked.as_deref().and_then(asked_for), Some(expected), "to {address} at {}", end.name);
        }
    }
    for (from, to) in [(&inside, &outside), (&outside, &inside)] {
        from.port.send(&frame::tagged(&syn(to.mac, from.mac), 5))?;
        let asked = to.port.expect(SOON, |frame| asked_for(frame).is_some());
        assert_eq!(asked.as_deref().and_then(asked_for), Some(four), "tagged, to {}", to.name);
    }
    Ok(())
}

/// A SYN that asks for 1460 bytes, without right checksums: for packet sockets.
fn syn(destination: Mac, source: Mac) -> Vec<u8> {
    let ip = [0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 55, 0, 1, 10, 55, 0, 2];
    let tcp = [0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 0x05, 0xb4];
    frame::padded(frame::frame(destination, source, 0x0800, &[&ip[..], &tcp].concat()), frame::MIN_SIZE)
}

/// The segment size that a SYN asks for: Linux has the option first.
fn asked_for(frame: &[u8]) -> Option<u16> {
    let ip = if frame::ethertype(frame) == ETHERTYPE_VLAN { 18 } else { 14 };
    let (protocol, tcp) = match frame.get(ip)? >> 4 {
        4 => (*frame.get(ip + 9)?, ip + 20),
        _ => (*frame.get(ip + 6)?, ip + 40),
    };
    let is_syn = protocol == 6 && frame.get(tcp + 13)? & 2 != 0;
    match frame.get(tcp + 20..tcp + 24)? {
        [2, 4, high, low] if is_syn => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}
