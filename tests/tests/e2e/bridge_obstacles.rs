//! What XDP would bypass, put on an accelerated bridge while TCP crosses it: the ports go back to the kernel, say why,
//! and come back when it is gone.

use std::time::{Duration, Instant};

use trestle_tests::bridged::{BRIDGE, Bridged};
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::network::Layout;
use trestle_tests::process::patient;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Stream, iperf3};
use trestle_tests::{Result, scenarios};

use crate::bridge::{BOTH, three_wires};

pub const SUITE: Suite = Suite {
    name: "bridge_obstacles",
    modes: &[Mode::Native],
    site: |mode| Site::prepare(Layout { agents: 0, ..Layout::default() }, Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![tcp_goes_on_while_obstacles_come_and_go],
};

/// A port is looked at every second; a second more for a machine that is busy.
const NOTICED: Duration = Duration::from_millis(2500);

fn tcp_goes_on_while_obstacles_come_and_go(site: &mut Site) -> Result<()> {
    let bridged = three_wires(site)?;
    let (from, to) = (&bridged.stations[0], &bridged.stations[1]);
    std::thread::scope(|scope| {
        let tcp = scope
            .spawn(|| iperf3(&from.namespace, &to.namespace, to.address, Stream::Tcp, Extent::Seconds(16)));
        let came_and_went = come_and_go(&bridged);
        let carried = tcp.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        came_and_went?;
        assert!(carried?.bits_per_second > 1e6, "TCP hardly went on");
        Ok(())
    })?;
    assert!(bridged.by_xdp("w0")? > 0, "the test is blind: all went by the kernel");
    Ok(())
}

fn come_and_go(bridged: &Bridged) -> Result<()> {
    let (host, far) = (&bridged.host, &bridged.stations[0].namespace);
    let firewall =
        "table ip guard { chain across { type filter hook forward priority 0; ip protocol 47 drop; }\n}";
    let on_host = |program: &'static str, words: &'static str| move || host.run(program, words).map(drop);
    noticed(bridged, "w0 has tc filters (ingress)", &["w0"], || {
        host.run("tc", "qdisc add dev w0 clsact")?;
        host.run("tc", "filter add dev w0 ingress protocol all prio 1 u32 match u32 0 0 flowid 1:1").map(drop)
    })?;
    back_again(bridged, &["w0"], on_host("tc", "qdisc del dev w0 clsact"))?;
    noticed(
        bridged,
        "queueing discipline tbf",
        &["w1"],
        on_host("tc", "qdisc add dev w1 root tbf rate 500mbit burst 128k latency 50ms"),
    )?;
    back_again(bridged, &["w1"], on_host("tc", "qdisc del dev w1 root"))?;
    noticed(bridged, "leaves checksums and segments unfinished", &["w0"], || {
        far.run("ethtool", "-K eth0 tx on").map(drop)
    })?;
    back_again(bridged, &["w0"], || far.run("ethtool", "-K eth0 tx off").map(drop))?;
    if host.run("ip", &format!("link set {BRIDGE} type bridge nf_call_iptables 1")).is_err() {
        println!("not tried: this kernel has no br_netfilter");
        return Ok(());
    }
    noticed(bridged, "iptables", &["w0", "w1"], || host.nft(firewall))?;
    back_again(bridged, &["w0", "w1"], || host.nft("delete table ip guard"))
}

/// Puts an obstacle there by `act`, and waits until the ports are left to the kernel and say why.
fn noticed(bridged: &Bridged, why: &str, ports: &[&str], act: impl FnOnce() -> Result<()>) -> Result<()> {
    act()?;
    let since = Instant::now();
    for port in ports {
        bridged.wait_accelerated(port, &[])?;
    }
    let took = since.elapsed();
    assert!(took < patient(NOTICED), "{why:?} was noticed after {took:?}");
    ports.iter().try_for_each(|port| bridged.wait_reason(port, why))
}

/// Takes it away by `act`, and waits until the ports are accelerated again.
fn back_again(bridged: &Bridged, ports: &[&str], act: impl FnOnce() -> Result<()>) -> Result<()> {
    act()?;
    let since = Instant::now();
    for port in ports {
        bridged.wait_accelerated(port, BOTH)?;
    }
    let took = since.elapsed();
    assert!(took < patient(NOTICED), "{ports:?} came back after {took:?}");
    Ok(())
}
