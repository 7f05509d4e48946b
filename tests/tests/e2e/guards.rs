//! What no peer may do to the others.

use std::time::{Duration, Instant};

use trestle_tests::echo::ping;
use trestle_tests::frame::{self, BPDU_GROUP, BROADCAST, local_mac};
use trestle_tests::gateway::Mode;
use trestle_tests::network::{GATEWAY, LAN_HOST, ROUTER};
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::Flow;
use trestle_tests::{Result, scenarios};

use crate::stations::{self, A_WHILE, Station};

pub const SUITE: Suite = Suite {
    name: "guards",
    modes: Mode::TRESTLE,
    site: stations::reference,
    fresh: false,
    scenarios: scenarios![
        a_peer_that_sends_as_the_router_disturbs_nobody,
        a_peer_that_sends_as_the_host_disturbs_nobody,
        link_local_groups_do_not_cross_to_the_wire,
        frames_from_impossible_sources_are_dropped,
        a_peer_may_have_many_macs_up_to_the_limit,
    ],
};

fn a_peer_that_sends_as_the_router_disturbs_nobody(site: &mut Site) -> Result<()> {
    let router = site.network.router.mac("lan0")?;
    undisturbed_by(site, router)
}

fn a_peer_that_sends_as_the_host_disturbs_nobody(site: &mut Site) -> Result<()> {
    let host = site.network.gateway.mac("ens5")?;
    undisturbed_by(site, host)
}

/// Agent 2 sends with the source `claimed` while the host, the LAN and agent 1 talk.
fn undisturbed_by(site: &mut Site, claimed: frame::Mac) -> Result<()> {
    let before = site.gateway()?.drops("source_is_gateway")?;
    let two = Station::agent(site, 1)?;
    let lan = Station::lan(site)?;
    let every = Duration::from_millis(5);
    let flow = Flow::start(&site.network.lan, &site.network.gateway, GATEWAY, every)?;
    for round in 0..50_u32 {
        let to = if round % 2 == 0 { BROADCAST } else { lan.mac };
        two.send_as(claimed, to, b"I am somebody else")?;
        std::thread::sleep(Duration::from_millis(10));
    }
    for to in [GATEWAY, LAN_HOST, ROUTER] {
        let echoes = ping(site.agent(0), to, 20, 56)?;
        assert!(echoes.complete(), "agent1 to {to}: {echoes:?}");
    }
    let outside = ping(&site.network.gateway, ROUTER, 20, 56)?;
    assert!(outside.complete(), "the host to its router: {outside:?}");
    let report = flow.stop()?;
    assert!(report.lost.is_empty(), "LAN to host lost {} of {}", report.lost.len(), report.sent);
    assert!(lan.hears_nothing_of(b"I am somebody else"), "the spoofed frame reaches the LAN");
    let counted = site.gateway()?.drops("source_is_gateway")? - before;
    assert!(counted >= 50, "only {counted} of 50 spoofed frames are counted");
    Ok(())
}

fn link_local_groups_do_not_cross_to_the_wire(site: &mut Site) -> Result<()> {
    let one = Station::agent(site, 0)?;
    let wire = RawPort::open(&site.network.wire, "w-gw")?;
    let before = site.gateway()?.drops("link_local_group")?;
    for last in 0..16 {
        let mut group = BPDU_GROUP;
        group[5] = last;
        one.send_as(one.mac, group, b"I am a bridge")?;
    }
    // The same road, right behind: proves that the road is open and that the groups would have come by now.
    one.send_as(one.mac, BROADCAST, b"I am a station")?;
    assert!(wire.expect(stations::SOON, |frame| stations::carries(frame, b"I am a station")).is_some());
    let crossed = wire.expect(A_WHILE, |frame| stations::carries(frame, b"I am a bridge"));
    assert!(crossed.is_none(), "a peer's frame to a link-local group reaches the wire");
    let counted = site.gateway()?.drops("link_local_group")? - before;
    assert_eq!(counted, 16, "link-local frames counted");
    Ok(())
}

fn frames_from_impossible_sources_are_dropped(site: &mut Site) -> Result<()> {
    let one = Station::agent(site, 0)?;
    let lan = Station::lan(site)?;
    let before = site.gateway()?.drops("source_invalid")?;
    for source in [[0; 6], BROADCAST, [0x01, 0, 0x5e, 0, 0, 1]] {
        one.send_as(source, lan.mac, b"from nowhere")?;
    }
    assert!(lan.hears_nothing_of(b"from nowhere"), "a frame from an impossible source reaches the LAN");
    assert_eq!(site.gateway()?.drops("source_invalid")? - before, 3);
    Ok(())
}

fn a_peer_may_have_many_macs_up_to_the_limit(site: &mut Site) -> Result<()> {
    /// OpenVPN's default of max-routes-per-client.
    const LIMIT: u32 = 256;
    let two = Station::agent(site, 1)?;
    let lan = Station::lan(site)?;
    let before = site.gateway()?.drops("mac_limit")?;
    for number in 0..LIMIT + 20 {
        two.send_as(local_mac(0x10_0000 + number), lan.mac, b"one of many")?;
        std::thread::sleep(Duration::from_millis(1));
    }
    // The last of them may still be on its way through a client that waits for a processor.
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut dropped = 0;
    while dropped < 20 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        dropped = site.gateway()?.drops("mac_limit")? - before;
    }
    // The agent itself, and what earlier scenarios made known behind it, count too.
    assert!((20..40).contains(&dropped), "{dropped} frames are dropped for the limit");
    let early = Volley::new(local_mac(0x10_0000 + 100), lan.mac).fly(&lan.port, &two.port)?;
    assert!(early.complete(), "a MAC within the limit is not reached: {early:?}");
    let echoes = ping(site.agent(0), LAN_HOST, 10, 56)?;
    assert!(echoes.complete(), "another peer suffers: {echoes:?}");
    Ok(())
}
