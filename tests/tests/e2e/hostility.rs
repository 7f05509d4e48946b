//! What hostile clients, neighbours and strangers do at full speed, and what the others notice of it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use trestle_tests::agent::Agent;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::frame::{BROADCAST, Mac, local_mac};
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::netns::Namespace;
use trestle_tests::network::{GATEWAY, LAN_HOST, Layout, NIC, PUBLIC};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::Flow;
use trestle_tests::{Fault, Result, scenarios};

use crate::stations::Station;

const SOON: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(2);

/// Scenarios that share a site of three agents, the third of which is the hostile one.
pub const SUITE: Suite = Suite {
    name: "hostility",
    modes: &[Mode::Native],
    site: |mode| Site::open(Layout { agents: 3, queues: 2, ..Layout::default() }, Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![
        a_flood_of_invented_sources_from_a_peer_disturbs_nobody,
        a_flood_of_invented_sources_on_the_wire_disturbs_nobody,
        a_station_that_two_ports_claim_disturbs_nobody_else,
        forged_packets_at_full_speed_disturb_nobody,
        resets_at_full_speed_disturb_no_peer,
        two_clients_with_one_certificate_disturb_nobody_else,
    ],
};

/// Interfaces removed beneath a running gateway.
pub const RUINS: Suite = Suite {
    name: "ruins",
    fresh: true,
    modes: &[Mode::Native, Mode::Socket],
    scenarios: scenarios![a_gateway_whose_host_port_is_removed_ends, a_gateway_whose_nic_is_removed_ends],
    ..SUITE
};

/// Does `mischief` again and again while frames cross between two honest agents and the LAN.
fn while_others_work(site: &Site, seconds: u64, mischief: impl Fn(u32) + Send + Sync) -> Result<()> {
    let across = Flow::start(site.agent(0), site.agent(1), site.address(1), EVERY)?;
    let to_lan = Flow::start(&site.network.lan, site.agent(0), site.address(0), EVERY)?;
    let over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                mischief(count);
                count += 1;
                if count % 32 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            count
        });
        std::thread::sleep(Duration::from_secs(seconds));
        over.store(true, Ordering::Relaxed);
        work.join().unwrap_or(0)
    });
    let reports = [across.stop()?, to_lan.stop()?];
    let lost: usize = reports.iter().map(|report| report.lost.len()).sum();
    let sent: u32 = reports.iter().map(|report| report.sent).sum();
    assert!(done > 1000, "hardly any mischief was done: {done}");
    // None on a machine that has nothing else to do; what must not be is that they have to share.
    assert!(lost <= sent as usize / 50, "{lost} of {sent} lost beside {done} acts of mischief");
    Ok(())
}

fn hostile(site: &Site) -> Result<Station> {
    let mac = site.mac(2)?;
    Ok(Station { port: trestle_tests::raw::RawPort::open(site.agent(2), "tap0")?, mac, name: "agent3" })
}

fn a_flood_of_invented_sources_from_a_peer_disturbs_nobody(site: &mut Site) -> Result<()> {
    let hostile = hostile(site)?;
    while_others_work(site, 3, |count| {
        let _ = hostile.send_as(local_mac(0x10_0000 + count), local_mac(0xdead), b"who am I");
    })?;
    let limited = site.gateway()?.drops("mac_limit")?;
    assert!(limited > 100, "{limited} frames met the limit of stations");
    settled(site)
}

fn a_flood_of_invented_sources_on_the_wire_disturbs_nobody(site: &mut Site) -> Result<()> {
    let lan = Station::lan(site)?;
    while_others_work(site, 3, |count| {
        let _ = lan.send_as(local_mac(0x20_0000 + count), BROADCAST, b"who am I");
    })?;
    settled(site)
}

fn a_station_that_two_ports_claim_disturbs_nobody_else(site: &mut Site) -> Result<()> {
    const CONTESTED: Mac = [2, 0, 0, 0, 0x77, 0x77];
    let (hostile, lan) = (hostile(site)?, Station::lan(site)?);
    while_others_work(site, 3, |count| {
        let claimant = if count % 2 == 0 { &hostile } else { &lan };
        let _ = claimant.send_as(CONTESTED, local_mac(0xdead), b"mine");
    })?;
    settled(site)
}

/// Everybody reaches everybody, and the gateway answers its operator.
fn settled(site: &mut Site) -> Result<()> {
    for to in [site.address(1), LAN_HOST, GATEWAY] {
        assert!(reachable(site.agent(0), to, SOON), "agent1 does not reach {to} any more");
    }
    let echoes = ping(site.agent(0), site.address(1), 20, 500)?;
    assert!(echoes.complete(), "{echoes:?}");
    site.gateway()?.status().map(drop)
}

fn outside(namespace: &Namespace) -> Result<UdpSocket> {
    let socket = namespace.within(|| UdpSocket::bind("0.0.0.0:0"))?.map_err(Fault::io("binding"))?;
    socket.connect(SocketAddr::from((PUBLIC, 443))).map_err(Fault::io("connecting"))?;
    Ok(socket)
}

fn forged_packets_at_full_speed_disturb_nobody(site: &mut Site) -> Result<()> {
    let stranger = outside(site.agent(2))?;
    while_others_work(site, 3, |count| {
        let [_, _, b, c] = count.to_be_bytes();
        let mut packet = [0x48, 0, 0, (count % 4) as u8, b, c, 1, 1, 9, 9, 9, 9].to_vec();
        packet.resize(1200, c);
        let _ = stranger.send(&packet);
    })?;
    assert!(site.gateway()?.drops("authentication_failed")? > 1000);
    settled(site)
}

fn resets_at_full_speed_disturb_no_peer(site: &mut Site) -> Result<()> {
    let stranger = outside(site.agent(2))?;
    while_others_work(site, 3, |count| {
        let mut packet = vec![0x38];
        packet.extend([count.to_be_bytes(), [1, 2, 3, 4]].concat());
        packet.extend([0; 5]);
        let _ = stranger.send(&packet);
    })?;
    assert!(site.gateway()?.drops("control_rate_limited")? > 1000);
    settled(site)
}

fn two_clients_with_one_certificate_disturb_nobody_else(site: &mut Site) -> Result<()> {
    let flow = Flow::start(site.agent(0), site.agent(1), site.address(1), EVERY)?;
    let mut twin = Agent::launch(site.agent(2), site.folder(), &site.pki, "agent3", &["--dev", "tap1"])?;
    twin.process().wait_for("Initialization Sequence Completed", SOON)?;
    std::thread::sleep(Duration::from_secs(3));
    drop(twin);
    let report = flow.stop()?;
    assert!(report.lost.is_empty(), "{} of {} lost", report.lost.len(), report.sent);
    settled(site)
}

fn a_gateway_whose_host_port_is_removed_ends(site: &mut Site) -> Result<()> {
    site.network.gateway.ip("link del tap0")?;
    ends_for(site, "tap0")
}

fn a_gateway_whose_nic_is_removed_ends(site: &mut Site) -> Result<()> {
    site.network.gateway.ip(&format!("link del {NIC}"))?;
    ends_for(site, NIC)
}

/// It says what is gone and ends, for whoever watches it to start it anew.
fn ends_for(site: &mut Site, interface: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline && site.gateway()?.process().ended().is_none() {
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended = site.gateway()?.process().ended();
    assert_eq!(ended.and_then(|status| status.code()), Some(1), "{ended:?}");
    let log = site.gateway()?.log();
    assert!(log.contains(&format!("{interface} is gone")), "{log}");
    Ok(())
}
