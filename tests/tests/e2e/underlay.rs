//! Underlay mode: the NIC carries the tunnel alone; the host is on the segment through its own interface.

use std::net::Ipv4Addr;
use std::time::Duration;

use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::{ETHERTYPE_EXPERIMENT, FULL_SIZE, ethertype};
use trestle_tests::gateway::{Mode, SERVER_CONF, Start};
use trestle_tests::network::Layout;
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Stream, iperf3};
use trestle_tests::{Result, scenarios};

/// The host's address on the segment.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 5);

const SCENARIOS: &[trestle_tests::runner::Scenario] = scenarios![
    agents_and_the_host_are_on_one_segment,
    non_ip_and_full_size_frames_cross,
    tcp_and_udp_cross,
    the_wire_carries_nothing_but_the_tunnel,
];

pub const SUITE: Suite = Suite {
    name: "underlay",
    modes: Mode::TRESTLE,
    site: |mode| site(mode, false),
    fresh: false,
    scenarios: SCENARIOS,
};

/// The same on a wire that drops what EC2, Azure and GCE drop.
pub const CLOUD: Suite = Suite {
    name: "underlay_in_a_cloud",
    modes: &[Mode::Native, Mode::Socket],
    site: |mode| site(mode, true),
    fresh: false,
    scenarios: SCENARIOS,
};

/// `server` with `dev tap`: a network of its own, the host's address given by the gateway.
pub const ROUTED: Suite = Suite {
    name: "routed",
    modes: &[Mode::Native],
    site: |mode| {
        let config = SERVER_CONF.replace(BRIDGED, "server 10.30.0.0 255.255.255.0");
        assert_ne!(config, SERVER_CONF);
        let start = Start { uplink: "ens5:underlay".to_owned(), config, ..Start::reference(mode) };
        Site::open(Layout::default(), start)
    },
    fresh: false,
    scenarios: scenarios![a_network_of_its_own_has_the_host_first],
};

/// The line of the reference file that a network of its own replaces.
const BRIDGED: &str = "server-bridge 10.10.21.5 255.255.255.0 10.10.21.100 10.10.21.255";

fn a_network_of_its_own_has_the_host_first(site: &mut Site) -> Result<()> {
    let host = Ipv4Addr::new(10, 30, 0, 1);
    let mut given = [site.address(0), site.address(1)];
    given.sort();
    assert_eq!(given, [Ipv4Addr::new(10, 30, 0, 2), Ipv4Addr::new(10, 30, 0, 3)]);
    assert_eq!(site.network.gateway.ipv4("tap0"), Some(host));
    assert!(reachable(site.agent(0), host, Duration::from_secs(20)));
    assert!(ping(site.agent(0), host, 50, 1472)?.complete());
    assert!(ping(site.agent(0), site.address(1), 50, 1472)?.complete());
    Ok(())
}

fn site(mode: Mode, cloud: bool) -> Result<Site> {
    let config = SERVER_CONF.replace("10.10.21.", "10.20.0.");
    let start = Start { uplink: "ens5:underlay".to_owned(), config, ..Start::reference(mode) };
    let site = Site::open(Layout { cloud, ..Layout::default() }, start)?;
    // The host's own interface is the administrator's to configure, like any other.
    site.network.gateway.ip_batch(&format!("address add {HOST}/24 dev tap0\nlink set tap0 up"))?;
    Ok(site)
}

fn agents_and_the_host_are_on_one_segment(site: &mut Site) -> Result<()> {
    let network = &site.network;
    let ways = [
        (&network.agents[0], site.address(1)),
        (&network.agents[1], site.address(0)),
        (&network.agents[0], HOST),
        (&network.gateway, site.address(1)),
    ];
    for (from, to) in ways {
        assert!(reachable(from, to, Duration::from_secs(5)), "{} does not reach {to}", from.name());
        for size in [56, 1472] {
            let echoes = ping(from, to, 10, size)?;
            assert!(echoes.complete(), "{} to {to}, {size} bytes: {echoes:?}", from.name());
        }
    }
    Ok(())
}

fn non_ip_and_full_size_frames_cross(site: &mut Site) -> Result<()> {
    let host = (RawPort::open(&site.network.gateway, "tap0")?, site.network.gateway.mac("tap0")?);
    let one = (RawPort::open(site.agent(0), "tap0")?, site.mac(0)?);
    let two = (RawPort::open(site.agent(1), "tap0")?, site.mac(1)?);
    for (from, to) in [(&one, &two), (&two, &one), (&one, &host), (&host, &one)] {
        for length in [60, FULL_SIZE] {
            let tally = Volley::new(to.1, from.1).of_length(length).fly(&from.0, &to.0)?;
            assert!(tally.complete(), "{length} bytes: {tally:?}");
        }
    }
    Ok(())
}

fn tcp_and_udp_cross(site: &mut Site) -> Result<()> {
    let network = &site.network;
    let (one, two, host) = (&network.agents[0], &network.agents[1], &network.gateway);
    let ways = [
        (one, two, site.address(1)),
        (two, one, site.address(0)),
        (one, host, HOST),
        (host, one, site.address(0)),
    ];
    for (from, to, address) in ways {
        let got = iperf3(from, to, address, Stream::Tcp, Extent::Megabytes(8))?;
        assert!(got.bits_per_second > 1e6, "TCP {} to {address}: {got:?}", from.name());
        let got = iperf3(from, to, address, Stream::Udp(20), Extent::Megabytes(1))?;
        assert!(got.bits_per_second > 1e6 && got.loss < 0.5, "UDP {} to {address}: {got:?}", from.name());
    }
    Ok(())
}

fn the_wire_carries_nothing_but_the_tunnel(site: &mut Site) -> Result<()> {
    let wire = RawPort::open(&site.network.wire, "w-gw")?;
    let one = (RawPort::open(site.agent(0), "tap0")?, site.mac(0)?);
    let two = (RawPort::open(site.agent(1), "tap0")?, site.mac(1)?);
    wire.drain();
    for destination in [[0xff; 6], [0x02, 0x5e, 0, 0, 0, 9], two.1] {
        Volley::new(destination, one.1).fly(&one.0, &two.0)?;
    }
    let strange = |frame: &[u8]| ethertype(frame) == ETHERTYPE_EXPERIMENT || frame[6..12] == one.1;
    let leaked = wire.collect(Duration::from_millis(200), strange);
    assert!(leaked.is_empty(), "{} frames of the segment reach the wire", leaked.len());
    Ok(())
}
