//! Clients over TCP beside clients over UDP, and several listeners.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use trestle_tests::agent::Agent;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::{ETHERTYPE_EXPERIMENT, frame};
use trestle_tests::gateway::{Gateway, Mode, Start};
use trestle_tests::network::{GATEWAY, LAN_HOST, Layout, PUBLIC};
use trestle_tests::process::{patient, wait_until};
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Flow, Stream, iperf3};
use trestle_tests::{Fault, Result, scenarios};

use crate::stations::config_with;

const BRIEFLY: Duration = Duration::from_secs(20);
/// A full frame.
const FULL: usize = 1514;
/// One port for both, and another for UDP.
const LISTENERS: &str = "local * 443 udp\nlocal * 443 tcp-server\nlocal 10.10.21.5 1195";

/// Two workers, so that half of the peers are another's than the first; agent1 comes over TCP, agent2 over UDP.
pub const SUITE: Suite = Suite {
    name: "tcp",
    modes: &[Mode::Native],
    site: |mode| {
        let start = Start { config: config_with(LISTENERS), ..Start::reference(mode) };
        let mut site = Site::prepare(Layout { queues: 2, ..Layout::default() }, start)?;
        site.start_gateway()?;
        connect(&mut site)?;
        Ok(site)
    },
    fresh: false,
    scenarios: scenarios![
        a_client_over_tcp_and_one_over_udp_reach_each_other_and_the_lan,
        full_frames_cross_tcp_in_both_directions,
        load_crosses_tcp_in_both_directions,
        rekeying_over_tcp_loses_no_frame,
        a_client_over_tcp_that_is_killed_is_gone_at_once,
        a_client_over_tcp_comes_back_when_the_gateway_starts_again,
        a_client_over_tcp_that_does_not_read_disturbs_nobody,
        connections_that_do_not_speak_openvpn_are_closed_and_let_clients_in,
        a_listener_on_another_port_answers_from_there,
    ],
};

/// Connects agent1 over TCP and agent2 over UDP.
fn connect(site: &mut Site) -> Result<()> {
    site.agents.clear();
    for (number, arguments) in [(0, &["--proto", "tcp-client"][..]), (1, &[])] {
        let name = format!("agent{}", number + 1);
        let agent = Agent::launch(site.agent(number), site.folder(), &site.pki, &name, arguments)?;
        site.agents.push(agent);
    }
    site.wait_connected()?;
    // A tap has a new address each time: whoever remembers the former one hears of it.
    let [first, second] = [0, 1].map(|number| reachable(site.agent(number), LAN_HOST, BRIEFLY));
    assert!(first && second && reachable(site.agent(0), site.address(1), BRIEFLY));
    Ok(())
}

/// The address in `status -j` of the peer called `name`; `None` if there is none.
fn peer(gateway: &Gateway, name: &str) -> Option<serde_json::Value> {
    let status = gateway.status().ok()?;
    status["peers"].as_array()?.iter().find(|peer| peer["name"] == name).cloned()
}

fn wait_gone(site: &mut Site, name: &str) -> Result<()> {
    let gateway = site.gateway()?;
    let gone = || peer(gateway, name).is_none().then_some(());
    wait_until("a client that is gone", Duration::from_secs(5), gone, || gateway.log_tail())
}

fn a_client_over_tcp_and_one_over_udp_reach_each_other_and_the_lan(site: &mut Site) -> Result<()> {
    assert!(site.agents[0].log().contains("TCPv4_CLIENT link remote"), "{}", site.agents[0].log());
    assert!(site.agents[1].log().contains("UDPv4 link remote"), "{}", site.agents[1].log());
    for (from, to) in [(0, site.address(1)), (1, site.address(0)), (0, LAN_HOST), (0, GATEWAY)] {
        let echoes = ping(site.agent(from), to, 20, 1400)?;
        assert!(echoes.complete(), "agent{} to {to}: {echoes:?}", from + 1);
    }
    let listen = site.gateway()?.status()?["listen"].to_string();
    for address in ["10.10.21.5:443", "tcp 10.10.21.5:443", "10.10.21.5:1195"] {
        assert!(listen.contains(&format!("\"{address}\"")), "{listen}");
    }
    Ok(())
}

fn full_frames_cross_tcp_in_both_directions(site: &mut Site) -> Result<()> {
    let agents = [0, 1].map(|number| RawPort::open(site.agent(number), "tap0"));
    let [Ok(tcp), Ok(udp)] = agents else { return Err(Fault::other("a tap cannot be opened")) };
    let lan = RawPort::open(&site.network.lan, "eth0")?;
    let (tcp_mac, udp_mac, lan_mac) = (site.mac(0)?, site.mac(1)?, site.network.lan.mac("eth0")?);
    let ways = [
        (&tcp, tcp_mac, &udp, udp_mac),
        (&udp, udp_mac, &tcp, tcp_mac),
        (&tcp, tcp_mac, &lan, lan_mac),
        (&lan, lan_mac, &tcp, tcp_mac),
    ];
    for (from, source, to, destination) in ways {
        for length in [60, 61, FULL] {
            let volley = Volley::new(destination, source).of_length(length).of_count(60);
            let tally = volley.fly(from, to)?;
            assert!(tally.complete() && tally.disordered == 0, "{length} bytes: {tally:?}");
        }
    }
    Ok(())
}

fn load_crosses_tcp_in_both_directions(site: &mut Site) -> Result<()> {
    let (agent, lan) = (site.agent(0), &site.network.lan);
    for (from, to, address) in [(agent, lan, LAN_HOST), (lan, agent, site.address(0))] {
        let got = iperf3(from, to, address, Stream::Tcp, Extent::Seconds(1))?;
        assert!(got.bits_per_second > 0.0, "{got:?}");
    }
    Ok(())
}

fn rekeying_over_tcp_loses_no_frame(site: &mut Site) -> Result<()> {
    site.agents.clear();
    let arguments = ["--proto", "tcp-client", "--reneg-sec", "2"];
    let mut agent = Agent::launch(site.agent(0), site.folder(), &site.pki, "agent1", &arguments)?;
    let address = agent.wait_connected(site.agent(0))?;
    assert!(reachable(site.agent(0), LAN_HOST, BRIEFLY));
    let flow = Flow::start(&site.network.lan, site.agent(0), address, Duration::from_millis(2))?;
    let rekeyed = |log: &str| (log.matches("Control Channel: TLS").count() >= 3).then_some(());
    let rekeyed = agent.process().wait_log("a second rekey", BRIEFLY, rekeyed);
    let report = flow.stop()?;
    rekeyed?;
    assert_eq!(agent.times("Initialization Sequence Completed"), 1, "{}", agent.log());
    assert!(report.lost.is_empty(), "{} of {} lost: {:?}", report.lost.len(), report.sent, report.lost);
    drop(agent);
    connect(site)
}

fn a_client_over_tcp_that_is_killed_is_gone_at_once(site: &mut Site) -> Result<()> {
    site.agents[0].process().kill()?;
    wait_gone(site, "agent1")?;
    connect(site)?;
    site.agents[0].process().terminate(BRIEFLY)?;
    wait_gone(site, "agent1")?;
    connect(site)
}

fn a_client_over_tcp_comes_back_when_the_gateway_starts_again(site: &mut Site) -> Result<()> {
    for kill in [false, true] {
        let seen = site.agents.iter().map(|agent| agent.times("Initialization Sequence Completed"));
        let seen: Vec<usize> = seen.collect();
        let gateway = site.gateway()?;
        let ended = if kill { gateway.kill()? } else { gateway.stop()? };
        assert!(kill || ended.success(), "it ends with {ended}");
        site.start_gateway()?;
        let times = |log: &str| log.matches("Initialization Sequence Completed").count();
        let again = |log: &str| (times(log) > seen[0]).then_some(());
        site.agents[0].process().wait_log("a connection anew", BRIEFLY, again)?;
    }
    // Nobody tells a client over UDP that the gateway was killed.
    connect(site)?;
    assert!(reachable(site.agent(0), LAN_HOST, BRIEFLY));
    Ok(())
}

fn a_client_over_tcp_that_does_not_read_disturbs_nobody(site: &mut Site) -> Result<()> {
    let lan = RawPort::open(&site.network.lan, "eth0")?;
    let (source, destination) = (site.network.lan.mac("eth0")?, site.mac(0)?);
    let before = site.gateway()?.drops("stream_queue_full")?;
    site.agents[0].process().signal(Signal::SIGSTOP)?;
    let flow = Flow::start(&site.network.lan, site.agent(1), site.address(1), Duration::from_millis(2))?;
    let filler = frame(destination, source, ETHERTYPE_EXPERIMENT, &[0x5a; 1500]);
    let deadline = Instant::now() + patient(BRIEFLY);
    // Whatever the kernel buffers for one connection is full in the end.
    while site.gateway()?.drops("stream_queue_full")? == before && Instant::now() < deadline {
        for _ in 0..500 {
            lan.send(&filler)?;
        }
    }
    let report = flow.stop()?;
    site.agents[0].process().signal(Signal::SIGCONT)?;
    assert!(site.gateway()?.drops("stream_queue_full")? > before, "nothing was ever full");
    assert!(report.lost.is_empty(), "{} of {} lost: {:?}", report.lost.len(), report.sent, report.lost);
    assert!(reachable(site.agent(0), LAN_HOST, BRIEFLY), "it is not served when it reads again");
    Ok(())
}

/// What a stranger says, and whether it is still heard after that.
const NONSENSE: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"\0\0\0\0",
    b"\xff\xff\x38",
    b"\0\x0e\x20hello, world!",
    b"\0\x05\x48\0\0\0\0",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
];

fn connections_that_do_not_speak_openvpn_are_closed_and_let_clients_in(site: &mut Site) -> Result<()> {
    let to = SocketAddr::from((PUBLIC, 443));
    let dial = || TcpStream::connect_timeout(&to, Duration::from_secs(5));
    let stranger = site.agent(1);
    for said in NONSENSE {
        let mut stream = stranger.within(dial)?.map_err(Fault::io("dialling"))?;
        stream.write_all(said).map_err(Fault::io("talking"))?;
        assert!(is_closed(&mut stream), "{said:?} is listened to");
    }
    // Silent or stuck within a packet.
    let mut streams = Vec::new();
    for number in 0..400 {
        let mut stream = stranger.within(dial)?.map_err(Fault::io("dialling"))?;
        let said: &[u8] = if number % 2 == 0 { &[] } else { b"\0\x0e\x38abc" };
        stream.write_all(said).map_err(Fault::io("talking"))?;
        streams.push(stream);
    }
    site.agents.remove(0);
    let arguments = ["--proto", "tcp-client"];
    let mut agent = Agent::launch(site.agent(0), site.folder(), &site.pki, "agent1", &arguments)?;
    agent.wait_connected(site.agent(0))?;
    assert!(streams.iter_mut().all(is_closed), "a stranger who says nothing is waited for");
    let pid = site.gateway()?.process().pid();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(Fault::io("listing files"))?.count();
    assert!(files < 100, "{files} files are open: what is closed is not given back");
    assert!(reachable(site.agent(0), LAN_HOST, BRIEFLY));
    drop(agent);
    connect(site)
}

/// Whether the other end closes the connection before long.
fn is_closed(stream: &mut TcpStream) -> bool {
    let timed = stream.set_read_timeout(Some(patient(BRIEFLY)));
    let read = timed.and_then(|()| stream.read(&mut [0; 64]));
    let _ = stream.shutdown(Shutdown::Both);
    match read {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn a_listener_on_another_port_answers_from_there(site: &mut Site) -> Result<()> {
    site.agents.clear();
    site.network.router.nft(&format!(
        "table ip detour {{ chain in {{ type nat hook prerouting priority -110
           ip saddr 198.51.100.12 udp dport 443 dnat to {GATEWAY}:1195
         }}
         }}"
    ))?;
    let connected = connect(site);
    let reached = connected.and_then(|()| ping(site.agent(1), site.address(0), 20, 1400));
    let session = peer(site.gateway()?, "agent2");
    site.network.router.run("nft", "delete table ip detour")?;
    let echoes = reached?;
    assert!(echoes.complete(), "{echoes:?}");
    let frames = session.map(|peer| peer["rx_frames_xdp"].as_u64().unwrap_or(0));
    assert!(frames > Some(20), "packets to the other port do not come by XDP: {frames:?}");
    connect(site)
}
