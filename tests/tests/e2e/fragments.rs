//! Tunnel packets in IP fragments: made and put together in the gateway, while the host's own stay the kernel's.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use trestle_tests::echo::ping;
use trestle_tests::frame::FULL_SIZE;
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::network::{GATEWAY, Layout, NIC, PUBLIC};
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::{Scenario, Suite};
use trestle_tests::site::Site;
use trestle_tests::{Fault, Result, scenarios};

use crate::stations::{self, SOON, Station};

const SCENARIOS: &[Scenario] = scenarios![
    full_size_frames_need_no_fragments_of_the_kernel,
    fragments_in_any_order_are_one_frame,
    a_fragment_alone_is_given_up,
    the_hosts_own_fragments_stay_its_own,
    echoes_in_fragments_reach_the_host_itself,
];

pub const SUITE: Suite = Suite {
    name: "fragments",
    modes: Mode::TRESTLE,
    site: stations::reference,
    fresh: false,
    scenarios: SCENARIOS,
};

/// The same where the NIC has two queues.
pub const QUEUES: Suite = Suite {
    name: "fragments_on_two_queues",
    modes: &[Mode::Native, Mode::Generic],
    site: |mode| Site::open(Layout { queues: 2, ..Layout::default() }, Start::reference(mode)),
    fresh: false,
    scenarios: SCENARIOS,
};

/// Where a queue has no worker: nothing is faster, and nothing is lost.
pub const UNSERVED: Suite = Suite {
    name: "fragments_with_a_queue_unserved",
    modes: &[Mode::Native],
    site: |mode| {
        let arguments = vec!["--workers".to_owned(), "1".to_owned()];
        Site::open(Layout { queues: 2, ..Layout::default() }, Start { arguments, ..Start::reference(mode) })
    },
    fresh: false,
    scenarios: scenarios![fragments_in_any_order_are_one_frame, the_hosts_own_fragments_stay_its_own],
};

/// Lets no long tunnel packet through the router.
const HOLD: &str = "table ip hold {
    chain hold {
      type filter hook forward priority -10
      udp dport 443 ip length > 1400 drop
    }
  }";

/// First agent's address outside.
const AGENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);

fn full_size_frames_need_no_fragments_of_the_kernel(site: &mut Site) -> Result<()> {
    const COUNT: u32 = 100;
    let [one, two, lan, _] = stations::all(site)?;
    let before = (kernel_fragments(site)?, by_way(site)?);
    for (from, to) in [(&one, &lan), (&lan, &one), (&one, &two)] {
        let tally =
            Volley::new(to.mac, from.mac).of_length(FULL_SIZE).of_count(COUNT).fly(&from.port, &to.port)?;
        assert!(tally.complete(), "{} to {}: {tally:?}", from.name, to.name);
    }
    let after = (kernel_fragments(site)?, by_way(site)?);
    let (made, joined) = (after.0.0 - before.0.0, after.0.1 - before.0.1);
    let (xdp, socket) = (after.1.0 - before.1.0, after.1.1 - before.1.1);
    if site.gateway()?.mode().has_xdp() {
        assert!(made == 0 && joined < 20, "the kernel made {made} fragments and joined {joined}");
        assert!(xdp >= 200 && socket < 20, "{xdp} by XDP, {socket} by the socket");
    } else {
        assert!(made >= 400 && joined >= 200, "the kernel made {made} fragments and joined {joined}");
        assert!(xdp == 0 && socket >= 200, "{xdp} by XDP, {socket} by the socket");
    }
    Ok(())
}

/// Fragments the gateway's kernel made, and packets it joined.
fn kernel_fragments(site: &Site) -> Result<(u64, u64)> {
    let table = site.network.gateway.run("cat", "/proc/net/snmp")?;
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let value = |wanted: &str| {
        let mut pairs = names.split(' ').zip(values.split(' '));
        let found = pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.parse().ok());
        found.ok_or_else(|| Fault::other(format!("/proc/net/snmp has no {wanted}")))
    };
    Ok((value("FragCreates")?, value("ReasmOKs")?))
}

/// Data packets received by XDP and by the socket.
fn by_way(site: &mut Site) -> Result<(u64, u64)> {
    let gateway = site.gateway()?;
    Ok((gateway.sum_of_peers("rx_frames_xdp")?, gateway.sum_of_peers("rx_frames_socket")?))
}

fn fragments_in_any_order_are_one_frame(site: &mut Site) -> Result<()> {
    let two = Station::agent(site, 1)?;
    let router = RawPort::open(&site.network.router, "lan0")?;
    let lost = |site: &mut Site| -> Result<u64> {
        let gateway = site.gateway()?;
        Ok(gateway.drops("fragments_incomplete")? + gateway.drops("fragment_malformed")?)
    };
    let before = lost(site)?;
    for order in [[0, 1], [1, 0], [0, 1], [1, 0]] {
        let words = format!("in the order {order:?}, {before}");
        let pair = intercepted(site, &two, words.as_bytes())?;
        for at in order {
            router.send(&pair[at])?;
        }
        assert!(two.hears(words.as_bytes()), "fragments {order:?} are lost");
    }
    // Two packets' fragments among one another, and one twice.
    let (a, b) = (intercepted(site, &two, b"one of two")?, intercepted(site, &two, b"the other")?);
    for fragment in [&a[0], &b[0], &b[0], &b[1], &a[1]] {
        router.send(fragment)?;
    }
    assert!(two.port.expect(SOON, |frame| stations::carries(frame, b"the other")).is_some());
    let again = intercepted(site, &two, b"afterwards")?;
    again.iter().try_for_each(|fragment| router.send(fragment))?;
    assert!(two.hears(b"afterwards"));
    assert_eq!(lost(site)?, before);
    Ok(())
}

fn a_fragment_alone_is_given_up(site: &mut Site) -> Result<()> {
    let two = Station::agent(site, 1)?;
    let router = RawPort::open(&site.network.router, "lan0")?;
    let before = site.gateway()?.drops("fragments_incomplete")?;
    let pair = intercepted(site, &two, b"half of it")?;
    router.send(&pair[0])?;
    // Half a second, and the worker's longest sleep.
    std::thread::sleep(Duration::from_millis(1800));
    let given_up = site.gateway()?.drops("fragments_incomplete")? - before;
    assert_eq!(given_up, u64::from(site.gateway()?.mode().has_xdp()));
    router.send(&pair[1])?;
    assert!(two.hears_nothing_of(b"half of it") || !site.gateway()?.mode().has_xdp());
    Ok(())
}

fn the_hosts_own_fragments_stay_its_own(site: &mut Site) -> Result<()> {
    const PORT: u16 = 7007;
    let open = || UdpSocket::bind((GATEWAY, PORT));
    let socket = site.network.gateway.within(open)?.map_err(Fault::io("binding on the gateway"))?;
    socket.set_read_timeout(Some(SOON)).map_err(Fault::io("setting a time-out"))?;
    let two = Station::agent(site, 1)?;
    let router = RawPort::open(&site.network.router, "lan0")?;
    let stranger = Ipv4Addr::new(192, 0, 2, 99);
    for (round, source) in [AGENT, stranger, AGENT, stranger].into_iter().enumerate() {
        // The peer's own packet of the same number goes ahead: what is the host's must not follow it.
        let tunnel = intercepted(site, &two, b"ahead")?;
        tunnel.iter().try_for_each(|fragment| router.send(fragment))?;
        assert!(two.hears(b"ahead"));
        let payload: Vec<u8> = (0..3000_u32).map(|at| (at * 7 + round as u32) as u8).collect();
        let mut fragments = datagram(&tunnel[0], source, PORT, &payload);
        // The first one first: where a later one with the number of a tunnel packet comes first, it follows that.
        if round >= 2 && source == stranger {
            fragments.reverse();
        }
        fragments.iter().try_for_each(|fragment| router.send(fragment))?;
        let mut received = [0; 4000];
        let (len, from) = socket.recv_from(&mut received).map_err(Fault::io("the host's own datagram"))?;
        assert_eq!((&received[..len], from.ip()), (&payload[..], source.into()), "round {round}");
    }
    Ok(())
}

fn echoes_in_fragments_reach_the_host_itself(site: &mut Site) -> Result<()> {
    for from in [&site.network.lan, &site.network.router] {
        let echoes = ping(from, GATEWAY, 10, 4000)?;
        assert!(echoes.complete(), "{} to the host: {echoes:?}", from.name());
    }
    let big = |from: &str| -> Result<()> {
        let open = || UdpSocket::bind((GATEWAY, 7008));
        let socket = site.network.gateway.within(open)?.map_err(Fault::io("binding on the gateway"))?;
        socket.set_read_timeout(Some(SOON)).map_err(Fault::io("setting a time-out"))?;
        let send = || UdpSocket::bind("0.0.0.0:0").and_then(|out| out.send_to(&[5; 8000], (GATEWAY, 7008)));
        let sender = if from == "lan" { &site.network.lan } else { &site.network.agents[0] };
        sender.within(send)?.map_err(Fault::io("sending a long datagram"))?;
        let mut received = [0; 9000];
        let len = socket.recv(&mut received).map_err(Fault::io(format!("a long datagram from {from}")))?;
        assert_eq!(len, 8000, "from {from}");
        Ok(())
    };
    // From an agent it comes through the tunnel, in frames for the host.
    big("lan")?;
    big("agent")
}

/// The two fragments of a full-size frame from agent 1 that begins with `words`, caught on their way and made what the
/// router would make of them. Nobody has received them.
fn intercepted(site: &Site, to: &Station, words: &[u8]) -> Result<[Vec<u8>; 2]> {
    let one = Station::agent(site, 0)?;
    let outside = RawPort::open(&site.network.internet, "i-agent1")?;
    site.network.router.nft(HOLD)?;
    let mut payload = [words, &[0x5a; FULL_SIZE]].concat();
    payload.truncate(FULL_SIZE - 14);
    one.send_as(one.mac, to.mac, &payload)?;
    let is_part = |offset: u16| {
        move |frame: &[u8]| {
            frame.len() > 34
                && frame[30..34] == PUBLIC.octets()
                && u16::from_be_bytes([frame[20], frame[21]]) & 0x3fff == offset
        }
    };
    let lost = || Fault::other("agent 1 sends no fragments");
    let first = outside.expect(SOON, is_part(0x2000)).ok_or_else(lost)?;
    let second = outside.expect(SOON, is_part(185)).ok_or_else(lost)?;
    std::thread::sleep(Duration::from_millis(20));
    site.network.router.nft("delete table ip hold")?;
    let (gateway, router) = (site.network.gateway.mac(NIC)?, site.network.router.mac("lan0")?);
    Ok([first, second].map(|mut frame| {
        frame[..6].copy_from_slice(&gateway);
        frame[6..12].copy_from_slice(&router);
        frame[30..34].copy_from_slice(&GATEWAY.octets());
        if frame[21] == 0 {
            frame[40..42].fill(0);
        }
        finish(&mut frame);
        frame
    }))
}

/// A datagram to `port` of the gateway host in fragments, with the numbers of `like`, without a UDP checksum.
fn datagram(like: &[u8], source: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    const PART: usize = 1480;
    let length = u16::try_from(8 + payload.len()).expect("it is short");
    let [ports, rest] = [[9000_u16.to_be_bytes(), port.to_be_bytes()], [length.to_be_bytes(), [0, 0]]];
    let udp = [ports.concat(), rest.concat(), payload.to_vec()].concat();
    let count = udp.len().div_ceil(PART);
    let fragment = |(at, part): (usize, &[u8])| {
        let mut frame = [&like[..34], part].concat();
        let more = if at + 1 < count { 0x2000 } else { 0 };
        let bits = u16::try_from(at * PART / 8).expect("it is short") | more;
        frame[16..18].copy_from_slice(&u16::try_from(20 + part.len()).expect("it is short").to_be_bytes());
        frame[20..22].copy_from_slice(&bits.to_be_bytes());
        frame[26..30].copy_from_slice(&source.octets());
        finish(&mut frame);
        frame
    };
    udp.chunks(PART).enumerate().map(fragment).collect()
}

/// Writes the IPv4 header's checksum.
fn finish(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).expect("it folds twice");
    frame[24..26].copy_from_slice(&(!folded).to_be_bytes());
}
