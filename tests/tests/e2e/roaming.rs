//! Clients that move, clients that come again, gateways that come again; and those who only pretend to.

use std::net::Ipv4Addr;
use std::time::Duration;

use trestle_tests::echo::reachable;
use trestle_tests::gateway::{Mode, SERVER_CONF, Start};
use trestle_tests::netns::Namespace;
use trestle_tests::network::{GATEWAY, LAN_HOST, Layout};
use trestle_tests::process::wait_until;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::Flow;
use trestle_tests::{Fault, Result, scenarios};

use crate::sessions::{gone, peers};
use crate::stations::config_with;

const BRIEFLY: Duration = Duration::from_secs(20);
/// From one datagram of a flow to the next.
const PACE: Duration = Duration::from_millis(5);
/// Where agent 1 goes, outside.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);

/// Each scenario leaves the site as it found it, all agents connected.
pub const SUITE: Suite = Suite {
    name: "roaming",
    modes: &[Mode::Native, Mode::Socket],
    site: |mode| Site::open(Layout::default(), Start { config: config_with(""), ..Start::reference(mode) }),
    fresh: false,
    scenarios: scenarios![
        a_forged_packet_moves_nobody;
        stock:
        a_client_that_moves_is_followed_under_traffic,
        resets_from_a_clients_own_address_lose_it_nothing,
        clients_leave_by_their_exit_notice,
    ],
};

/// With three clients and a gateway that stops and comes again.
pub const RESTARTS: Suite = Suite {
    name: "restarts",
    modes: &[Mode::Native],
    site: |mode| {
        Site::open(
            Layout { agents: 3, ..Layout::default() },
            Start { config: config_with(""), ..Start::reference(mode) },
        )
    },
    fresh: false,
    scenarios: scenarios![
        all_clients_come_back_within_5_s_of_a_stop;
        stock:
        with_exit_notify_2_clients_are_sent_to_their_next_remote,
    ],
};

fn a_client_that_moves_is_followed_under_traffic(site: &mut Site) -> Result<()> {
    let flow = Flow::start(site.agent(1), site.agent(0), site.address(0), PACE)?;
    let back = Flow::start(site.agent(0), site.agent(1), site.address(1), PACE)?;
    std::thread::sleep(Duration::from_millis(500));
    move_outside(site.agent(0), Ipv4Addr::new(198, 51, 100, 11), ELSEWHERE)?;
    let arrived = reachable(site.agent(0), LAN_HOST, BRIEFLY);
    move_outside(site.agent(0), ELSEWHERE, Ipv4Addr::new(198, 51, 100, 11))?;
    let returned = reachable(site.agent(0), LAN_HOST, BRIEFLY);
    std::thread::sleep(Duration::from_millis(500));
    let (there, back) = (flow.stop()?, back.stop()?);
    assert!(arrived && returned, "there {arrived}, back {returned}");
    assert_eq!(site.agents[0].times("Initialization Sequence Completed"), 1, "{}", site.agents[0].log());
    // What was under way to the former address is lost, and what the client could not send while it had none.
    for (way, report) in [("to it", there), ("from it", back)] {
        let lost = report.lost.len();
        assert!(lost < report.sent as usize / 2, "{way}: {lost} of {} lost", report.sent);
    }
    if site.gateway()?.mode() != Mode::Stock {
        assert!(site.gateway()?.log().matches("peer moved").count() >= 2, "{}", site.gateway()?.log_tail());
    }
    Ok(())
}

/// Data packets with the client's peer id and key id from elsewhere, whole but for the key.
fn a_forged_packet_moves_nobody(site: &mut Site) -> Result<()> {
    let before = addresses(site)?;
    let failed = site.gateway()?.drops("authentication_failed")?;
    let from = udp_socket(&site.network.lan, 0)?;
    for peer_id in 0..4_u8 {
        for packet_id in 1..50_u32 {
            let mut packet = vec![0x48, 0, 0, peer_id];
            packet.extend((1_000_000 + packet_id).to_be_bytes());
            packet.extend([0x5a; 100]);
            from.send_to(&packet, (GATEWAY, 443)).map_err(Fault::io("sending a forged packet"))?;
        }
    }
    let gateway = site.gateway()?;
    let counted = || gateway.drops("authentication_failed").is_ok_and(|now| now > failed).then_some(());
    wait_until("that forged packets are counted", BRIEFLY, counted, || gateway.log_tail())?;
    assert_eq!(addresses(site)?, before);
    assert!(reachable(site.agent(0), site.address(1), BRIEFLY));
    Ok(())
}

/// Hard resets with ever new session ids, as anybody can send them who spoofs the client's address: here the client's
/// own host does, from the very port of the tunnel.
fn resets_from_a_clients_own_address_lose_it_nothing(site: &mut Site) -> Result<()> {
    let port = tunnel_port(site.agent(0))?;
    let flow = Flow::start(site.agent(1), site.agent(0), site.address(0), PACE)?;
    let back = Flow::start(site.agent(0), site.agent(1), site.address(1), PACE)?;
    let spoofer = site.agent(0).within(spoofer)?.map_err(Fault::io("opening a raw socket"))?;
    let to = std::net::SocketAddrV4::new(trestle_tests::network::PUBLIC, 0);
    for number in 0..200_u8 {
        let reset = [0x38, 1, 2, 3, 4, 5, 6, 7, number.max(1), 0, 0, 0, 0, 0];
        let mut datagram = [port, 443, 8 + 14, 0].map(u16::to_be_bytes).concat();
        datagram.extend(reset);
        spoofer.send_to(&datagram, &to.into()).map_err(Fault::io("sending a reset"))?;
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(500));
    let (there, back) = (flow.stop()?, back.stop()?);
    for (way, report) in [("to it", there), ("from it", back)] {
        assert!(report.lost.is_empty(), "{way}: {:?} of {} lost", report.lost, report.sent);
    }
    assert_eq!(site.agents[0].times("Initialization Sequence Completed"), 1, "{}", site.agents[0].log());
    Ok(())
}

fn clients_leave_by_their_exit_notice(site: &mut Site) -> Result<()> {
    // 1 and 2 say the same to a server: 2 is for the server's own notice.
    for notices in ["1", "2"] {
        site.connect_agents(&["--explicit-exit-notify", notices])?;
        let since = site.gateway()?.log().len();
        site.agents[0].process().terminate(BRIEFLY)?;
        gone(site, "agent1", since, Duration::from_secs(8))?;
    }
    site.connect_agents(&[])
}

fn all_clients_come_back_within_5_s_of_a_stop(site: &mut Site) -> Result<()> {
    let before: Vec<usize> = completions(site);
    assert!(site.gateway()?.stop()?.success());
    site.start_gateway()?;
    let all = || completions(site).iter().zip(&before).all(|(now, before)| now > before).then_some(());
    let evidence = || site.agents.iter().map(|agent| agent.log()).collect::<Vec<_>>().join("\n");
    wait_until("all clients again", Duration::from_secs(5), all, evidence)?;
    assert!(reachable(site.agent(0), LAN_HOST, BRIEFLY));
    Ok(())
}

fn with_exit_notify_2_clients_are_sent_to_their_next_remote(site: &mut Site) -> Result<()> {
    site.start().config = SERVER_CONF.replace("explicit-exit-notify 1", "explicit-exit-notify 2");
    site.start_gateway()?;
    site.connect_agents(&[])?;
    site.gateway()?.stop()?;
    for agent in &mut site.agents {
        agent.process().wait_log("a RESTART", BRIEFLY, |log| {
            log.contains("'[N]'").then_some(()).or_else(|| log.contains("RESTART,[N]").then_some(()))
        })?;
    }
    site.start().config = config_with("");
    site.start_gateway()?;
    site.connect_agents(&[])
}

fn completions(site: &Site) -> Vec<usize> {
    site.agents.iter().map(|agent| agent.times("Initialization Sequence Completed")).collect()
}

/// Where the gateway says its peers are.
fn addresses(site: &mut Site) -> Result<Vec<String>> {
    let status = site.gateway()?.status()?;
    Ok(peers(&status).iter().map(|peer| peer["address"].to_string()).collect())
}

/// Takes an outside address away and gives another.
fn move_outside(agent: &Namespace, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
    agent.ip_batch(&format!(
        "address del {from}/24 dev eth0
         address add {to}/24 dev eth0
         route replace default via 198.51.100.1"
    ))
}

/// The port that the client's socket is bound to.
fn tunnel_port(agent: &Namespace) -> Result<u16> {
    let table = agent.within(|| std::fs::read_to_string("/proc/thread-self/net/udp"))?;
    let table = table.map_err(Fault::io("reading the table of sockets"))?;
    let local =
        |line: &str| u16::from_str_radix(line.split_whitespace().nth(1)?.rsplit(':').next()?, 16).ok();
    table.lines().skip(1).find_map(local).ok_or_else(|| Fault::other(format!("no UDP socket in {table}")))
}

fn udp_socket(namespace: &Namespace, port: u16) -> Result<std::net::UdpSocket> {
    namespace
        .within(|| std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?
        .map_err(Fault::io("opening a UDP socket"))
}

/// A raw socket that sends UDP datagrams whose header is its user's.
fn spoofer() -> std::io::Result<socket2::Socket> {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::UDP))
}
