//! The host never depends on the gateway: its flows survive start, load, stop and kill -9, and nothing is left.

use std::path::Path;
use std::time::Duration;

use trestle_tests::echo::{ping, reachable};
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::netns::Namespace;
use trestle_tests::network::{GATEWAY, LAN_HOST, Layout, NIC, ROUTER};
use trestle_tests::process::read_lossy;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Flow, Stream, iperf3};
use trestle_tests::{Fault, Result, scenarios};

pub const SUITE: Suite = Suite {
    name: "host_safety",
    modes: Mode::TRESTLE,
    site: |mode| Site::prepare(Layout::default(), Start::reference(mode)),
    fresh: true,
    scenarios: scenarios![
        a_flow_of_the_host_loses_nothing_through_start_load_stop_and_kill,
        nothing_is_left_after_kill_and_a_new_start_works_at_once,
        a_router_that_changes_its_mac_is_followed,
        a_second_address_of_the_host_is_reachable,
    ],
};

const SOON: Duration = Duration::from_secs(10);

fn a_flow_of_the_host_loses_nothing_through_start_load_stop_and_kill(site: &mut Site) -> Result<()> {
    let every = Duration::from_millis(2);
    assert!(reachable(&site.network.lan, GATEWAY, SOON));
    let flow = Flow::start(&site.network.lan, &site.network.gateway, GATEWAY, every)?;
    std::thread::sleep(Duration::from_millis(300));
    site.start_gateway()?;
    site.connect_agents(&[])?;
    let address = site.address(1);
    iperf3(site.agent(0), site.agent(1), address, Stream::Udp(50), Extent::Seconds(1))?;
    iperf3(site.agent(0), &site.network.lan, LAN_HOST, Stream::Tcp, Extent::Seconds(1))?;
    site.gateway()?.stop()?;
    std::thread::sleep(Duration::from_millis(300));
    site.start_gateway()?;
    std::thread::sleep(Duration::from_millis(300));
    site.gateway()?.kill()?;
    std::thread::sleep(Duration::from_millis(500));
    let report = flow.stop()?;
    assert!(report.lost.is_empty(), "{} of {} lost: {:?}", report.lost.len(), report.sent, report.lost);
    assert_eq!(report.duplicates, 0, "the host's frames are doubled");
    Ok(())
}

fn nothing_is_left_after_kill_and_a_new_start_works_at_once(site: &mut Site) -> Result<()> {
    let untouched = without("", &traces(&site.network.gateway)?);
    site.start_gateway()?;
    assert_ne!(
        without("", &traces(&site.network.gateway)?),
        untouched,
        "a running gateway leaves no trace: the test is blind"
    );
    site.gateway()?.kill()?;
    // Before TC links netlink's filters outlive us, and pass everything once nobody's heart beats.
    let left = if has_tcx()? { "" } else { "clsact" };
    assert_eq!(without(left, &traces(&site.network.gateway)?), untouched, "after kill -9");
    assert!(reachable(&site.network.lan, GATEWAY, SOON), "what was left behind stops the host's frames");
    site.start_gateway()?;
    site.connect_agents(&[])?;
    assert!(reachable(site.agent(0), LAN_HOST, SOON));
    site.gateway()?.stop()?;
    // The filters go now. Their empty queueing discipline was there at the start, and may be anybody's.
    let left = if has_tcx()? { "" } else { "qdisc clsact" };
    assert_eq!(without(left, &traces(&site.network.gateway)?), untouched, "after a stop");
    Ok(())
}

/// Whether this kernel has TC links (6.6), which go with the process that holds them.
fn has_tcx() -> Result<bool> {
    let release = read_lossy(Path::new("/proc/sys/kernel/osrelease"));
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok((major, minor) >= (6, 6)),
        _ => Err(Fault::other(format!("this kernel calls itself {release:?}"))),
    }
}

/// Traces without the lines that hold `allowed`, if anything is.
fn without(allowed: &str, traces: &str) -> String {
    let kept = |line: &&str| allowed.is_empty() || !line.contains(allowed);
    traces.lines().filter(kept).collect::<Vec<_>>().join("\n")
}

/// All that a gateway may have put on its host: programs, devices, addresses, promiscuity, queueing disciplines.
pub fn traces(host: &Namespace) -> Result<String> {
    let links = host.ip_json("-details link show")?;
    let mut lines: Vec<String> = links
        .iter()
        .map(|link| format!("{} xdp {} promiscuity {}", link["ifname"], link["xdp"], link["promiscuity"]))
        .collect();
    lines.push(host.ip("-brief address show")?);
    lines.push(host.run("tc", "qdisc show")?);
    lines.push(host.run("bpftool", "net show")?);
    Ok(lines.join("\n"))
}

fn a_router_that_changes_its_mac_is_followed(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    site.connect_agents(&[])?;
    assert!(reachable(site.agent(0), GATEWAY, SOON));
    let router = &site.network.router;
    router.ip("link set dev lan0 address 02:00:5e:00:01:77")?;
    // As VRRP does it: the new master announces itself with its first frame.
    assert!(reachable(router, GATEWAY, SOON), "the router does not reach the gateway host");
    assert!(reachable(&site.network.gateway, ROUTER, SOON), "the host does not reach its router");
    assert!(
        reachable(site.agent(0), site.address(1), SOON),
        "the tunnel does not survive the router's new MAC"
    );
    let echoes = ping(site.agent(0), LAN_HOST, 20, 1000)?;
    assert!(echoes.complete(), "{echoes:?}");
    Ok(())
}

fn a_second_address_of_the_host_is_reachable(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    site.connect_agents(&[])?;
    let second = "10.10.21.6".parse::<std::net::Ipv4Addr>().expect("an address");
    site.network.gateway.ip(&format!("address add {second}/24 dev {NIC}"))?;
    for from in [&site.network.lan, site.agent(0)] {
        assert!(reachable(from, second, SOON), "{} does not reach the second address", from.name());
        let echoes = ping(from, second, 10, 56)?;
        assert!(echoes.complete(), "{}: {echoes:?}", from.name());
    }
    let echoes = ping(site.agent(0), site.address(1), 10, 56)?;
    assert!(echoes.complete(), "the tunnel: {echoes:?}");
    Ok(())
}
