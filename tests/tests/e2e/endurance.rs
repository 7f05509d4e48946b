//! Bad days: crowds, rekeys under load, interfaces and addresses that change beneath a running gateway.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use trestle_tests::agent::Agent;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::FULL_SIZE;
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::network::{GATEWAY, LAN_HOST, Layout, NIC, ROUTER};
use trestle_tests::process::wait_until;
use trestle_tests::raw::Volley;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Flow, FlowReport, Stream, iperf3};
use trestle_tests::{Fault, Result, scenarios};

use crate::stations::{self, config_with};

const SOON: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(2);

/// Scenarios that share a site of two queues, so two workers, and leave it as they found it.
pub const SUITE: Suite = Suite {
    name: "endurance",
    modes: &[Mode::Native, Mode::Socket],
    site: |mode| {
        let arguments = if mode.has_xdp() { vec![] } else { vec!["--workers".into(), "2".into()] };
        Site::open(
            Layout { queues: 2, ..Layout::default() },
            Start { arguments, config: config_with("reneg-sec 5"), ..Start::reference(mode) },
        )
    },
    fresh: false,
    scenarios: scenarios![
        rekeys_every_few_seconds_under_load_lose_no_frame,
        neighbours_flushed_under_load_lose_no_frame,
        a_nic_that_goes_down_and_up_is_used_again,
        a_smaller_mtu_of_the_nic_is_followed,
        a_client_whose_address_changes_is_followed,
        abuse_of_the_control_socket_disturbs_nobody,
        two_clients_behind_one_address_both_work,
        a_stop_under_load_is_quick_and_tidy,
    ],
};

/// Many clients.
pub const CROWD: Suite = Suite {
    name: "crowd",
    modes: &[Mode::Native],
    site: |mode| Site::prepare(Layout { agents: 20, queues: 2, ..Layout::default() }, Start::reference(mode)),
    fresh: true,
    scenarios: scenarios![twenty_clients_that_come_at_once_reach_each_other_and_idle_cheaply],
};

fn assert_nothing_lost(report: &FlowReport) {
    let (lost, sent) = (report.lost.len(), report.sent);
    assert!(report.lost.is_empty(), "{lost} of {sent} lost: {:?}", &report.lost[..lost.min(20)]);
    assert_eq!(report.duplicates, 0, "of {sent}");
}

fn rekeys_every_few_seconds_under_load_lose_no_frame(site: &mut Site) -> Result<()> {
    site.connect_agents(&["--reneg-sec", "5"])?;
    let (one, two) = (site.address(0), site.address(1));
    let across = Flow::start(site.agent(0), site.agent(1), two, EVERY)?;
    let to_lan = Flow::start(&site.network.lan, site.agent(0), one, EVERY)?;
    let load = Extent::Seconds(20);
    iperf3(site.agent(1), &site.network.lan, LAN_HOST, Stream::Udp(20), load)?;
    for report in [across.stop()?, to_lan.stop()?] {
        assert_nothing_lost(&report);
    }
    for agent in &site.agents {
        let keys = agent.times("Control Channel: TLS");
        assert!(keys >= 4, "{} agreed on keys {keys} times only", agent.name());
    }
    Ok(())
}

/// How often the neighbours are flushed.
const FLUSHES: usize = 20;

fn neighbours_flushed_under_load_lose_no_frame(site: &mut Site) -> Result<()> {
    let flow = Flow::start(site.agent(0), site.agent(1), site.address(1), EVERY)?;
    let host = &site.network.gateway;
    let router = format!("neighbour show {ROUTER} dev {NIC}");
    for _ in 0..FLUSHES {
        host.ip(&format!("neighbour flush dev {NIC}"))?;
        std::thread::sleep(Duration::from_millis(100));
        // Flushed again before it is found, an entry takes with it what the kernel holds back for it.
        let found = || host.ip(&router).ok().filter(|entry| entry.contains("lladdr"));
        wait_until("the router is found again", SOON, found, String::new)?;
    }
    let report = flow.stop()?;
    if site.gateway()?.mode().has_xdp() {
        assert_nothing_lost(&report);
    } else {
        // The kernel drops what its own socket sends into an entry that is just dying (__neigh_event_send, out_dead).
        assert!(report.lost.len() <= FLUSHES, "{:?} of {} lost", report.lost, report.sent);
    }
    Ok(())
}

fn a_nic_that_goes_down_and_up_is_used_again(site: &mut Site) -> Result<()> {
    let host = &site.network.gateway;
    host.ip(&format!("link set {NIC} down"))?;
    let busy = cpu_share(site, Duration::from_secs(2))?;
    let host = &site.network.gateway;
    host.ip(&format!("link set {NIC} up"))?;
    host.ip(&format!("route replace default via {ROUTER}"))?;
    assert!(busy < 0.1, "with its NIC down the gateway takes {:.0} % of a core", busy * 100.0);
    assert!(reachable(site.agent(0), site.address(1), SOON), "the tunnel does not come back");
    assert!(reachable(site.agent(0), LAN_HOST, SOON), "the LAN does not come back");
    let before = site.gateway()?.sum_of_peers("rx_frames_xdp")?;
    let echoes = ping(site.agent(0), LAN_HOST, 50, 500)?;
    assert!(echoes.complete(), "{echoes:?}");
    let by_xdp = site.gateway()?.sum_of_peers("rx_frames_xdp")? - before;
    let wanted = if site.gateway()?.mode().has_xdp() { 50 } else { 0 };
    assert!(by_xdp >= wanted, "only {by_xdp} frames came by XDP afterwards");
    Ok(())
}

/// Share of a core that the gateway takes.
fn cpu_share(site: &mut Site, time: Duration) -> Result<f64> {
    let process = site.gateway()?.process();
    let (before, begun) = (process.cpu_time()?, Instant::now());
    std::thread::sleep(time);
    Ok((process.cpu_time()? - before).as_secs_f64() / begun.elapsed().as_secs_f64())
}

/// A veth takes in nothing that is longer than its MTU, so only the way out shows that the new one is known.
fn a_smaller_mtu_of_the_nic_is_followed(site: &mut Site) -> Result<()> {
    for (mtu, lengths) in [(1300, &[60, 1280, 1310][..]), (1500, &[60, 1310, FULL_SIZE])] {
        site.network.gateway.ip(&format!("link set {NIC} mtu {mtu}"))?;
        std::thread::sleep(Duration::from_millis(300));
        let [one, _, lan, _] = stations::all(site)?;
        one.announce(one.mac)?;
        for length in lengths {
            let tally = Volley::new(one.mac, lan.mac).of_length(*length).fly(&lan.port, &one.port)?;
            assert!(tally.complete(), "{length} bytes with an MTU of {mtu}: {tally:?}");
        }
    }
    Ok(())
}

fn a_client_whose_address_changes_is_followed(site: &mut Site) -> Result<()> {
    let agent = site.agent(0);
    agent.sysctl("net/ipv4/conf/eth0/promote_secondaries", "1")?;
    for (old, new) in [(11, 91), (91, 11)] {
        agent.ip_batch(&format!(
            "address add 198.51.100.{new}/24 dev eth0
             address del 198.51.100.{old}/24 dev eth0
             route replace default via 198.51.100.1"
        ))?;
        assert!(reachable(agent, LAN_HOST, SOON), "the client at .{new} does not reach the LAN");
    }
    let agent = site.agent(0);
    let echoes = ping(agent, LAN_HOST, 20, 500)?;
    assert!(echoes.complete(), "{echoes:?}");
    assert_eq!(site.agents[0].times("Initialization Sequence Completed"), 1, "it had to connect anew");
    Ok(())
}

fn abuse_of_the_control_socket_disturbs_nobody(site: &mut Site) -> Result<()> {
    let flow = Flow::start(site.agent(0), site.agent(1), site.address(1), EVERY)?;
    let path = site.gateway()?.control().to_owned();
    let connect = || UnixStream::connect(&path).map_err(Fault::io("connecting to the control socket"));
    for _ in 0..50 {
        // It may hang up on any of these.
        let mut talker = connect()?;
        let _ = talker.write_all(&vec![b'x'; 100_000]);
        let mut asker = connect()?;
        let _ = asker.write_all("status\n".repeat(10_000).as_bytes());
        let mut babbler = connect()?;
        let _ = babbler.write_all(&[0, 0xff, b'\n'].repeat(1000));
    }
    let silent: Vec<_> = (0..200).map_while(|_| connect().ok()).collect();
    assert!(cpu_share(site, Duration::from_secs(1))? < 0.8, "silent clients keep the gateway busy");
    drop(silent);
    let answers = || site.gateway.as_ref()?.status().ok();
    wait_until("an answer after the abuse", SOON, answers, String::new)?;
    assert_nothing_lost(&flow.stop()?);
    Ok(())
}

fn two_clients_behind_one_address_both_work(site: &mut Site) -> Result<()> {
    let second = Agent::launch(site.agent(0), site.folder(), &site.pki, "agent3", &["--dev", "tap1"])?;
    let tap = || site.agent(0).ipv4("tap1");
    let address = wait_until("an address on tap1", SOON, tap, || second.log())?;
    assert!(reachable(&site.network.lan, address, SOON), "the second does not answer");
    assert!(reachable(&site.network.lan, site.address(0), SOON), "the first does not answer");
    let flow = Flow::start(&site.network.lan, site.agent(0), site.address(0), EVERY)?;
    drop(second);
    std::thread::sleep(Duration::from_secs(1));
    assert_nothing_lost(&flow.stop()?);
    Ok(())
}

fn a_stop_under_load_is_quick_and_tidy(site: &mut Site) -> Result<()> {
    let hasty = Duration::from_micros(100);
    let across = Flow::start(site.agent(0), site.agent(1), site.address(1), hasty)?;
    let from_lan = Flow::start(&site.network.lan, site.agent(0), site.address(0), hasty)?;
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    let ended = site.gateway()?.stop()?;
    let took = begun.elapsed();
    // What it loses without a gateway proves nothing.
    across.stop()?;
    from_lan.stop()?;
    assert!(ended.success(), "it ends with {ended}");
    assert!(took < Duration::from_secs(5), "its end took {took:?}");
    for agent in &mut site.agents {
        agent.process().wait_log("a RESTART", SOON, |log| {
            log.contains("server-pushed-connection-reset").then_some(())
        })?;
    }
    assert!(reachable(&site.network.lan, GATEWAY, SOON));
    site.start_gateway()?;
    site.connect_agents(&[])
}

fn twenty_clients_that_come_at_once_reach_each_other_and_idle_cheaply(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    site.connect_agents(&[])?;
    for number in 0..20 {
        let next = site.address((number + 1) % 20);
        assert!(reachable(site.agent(number), next, SOON), "client {number} does not reach {next}");
    }
    let status = site.gateway()?.status()?;
    let mut ids: Vec<_> =
        status["peers"].as_array().into_iter().flatten().map(|p| p["peer_id"].as_u64()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..20).map(Some).collect::<Vec<_>>());
    for agent in &site.network.agents {
        agent.ip("link set tap0 arp off")?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let share = cpu_share(site, Duration::from_secs(5))?;
    assert!(share < 0.02, "idle, it takes {:.1} % of a core", share * 100.0);
    Ok(())
}
