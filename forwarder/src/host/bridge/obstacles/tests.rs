use std::collections::BTreeSet;

use super::*;
use crate::host::bridge::Mirror;
use crate::host::testing::{Folder, Namespace, passing_program};

/// A bridge br0 with the ports p1 and p2.
fn bridge() -> Option<Namespace> {
    let host = Namespace::new()?;
    host.ip("link add br0 type bridge");
    for (port, far) in [("p1", "f1"), ("p2", "f2")] {
        host.ip(&format!("link add {port} type veth peer name {far}"));
        host.ip(&format!("link set {port} master br0 up"));
    }
    Some(host)
}

/// What is in the way now: the port's name, or nothing, and the sentence.
fn found(host: &Namespace) -> Vec<(Option<String>, String)> {
    host.run(|| {
        let mirror = Mirror::open("br0").unwrap();
        let mut obstacles = Obstacles::open().unwrap();
        let found = obstacles.look(mirror.known(), &BTreeSet::new()).unwrap();
        assert_eq!(obstacles.look(mirror.known(), &BTreeSet::new()).unwrap(), found, "looked twice");
        let named = |index| mirror.known().ports()[&index].link.name.clone();
        found.into_iter().map(|obstacle| (obstacle.port.map(named), obstacle.kind.to_string())).collect()
    })
}

fn assert_one(host: &Namespace, port: Option<&str>, beginning: &str) {
    let found = found(host);
    let [(where_, sentence)] = &found[..] else { panic!("{beginning}: {found:?}") };
    assert_eq!(where_.as_deref(), port);
    assert!(sentence.starts_with(beginning), "{sentence}");
}

#[test]
fn rules_and_drops_of_the_bridge_family_count_and_empty_chains_do_not() {
    let Some(host) = bridge() else { return };
    assert_eq!(found(&host), []);
    host.command("nft", "add table bridge t");
    host.command(
        "nft",
        "add chain bridge t forward { type filter hook forward priority 0 ; policy accept ; }",
    );
    host.command("nft", "add chain bridge t input { type filter hook input priority 0 ; policy drop ; }");
    assert_eq!(found(&host), [], "what is for the host never passes XDP by");
    host.command("nft", "add rule bridge t forward ether saddr 02:00:00:00:00:01 drop");
    assert_one(&host, None, "the nftables chain bridge t forward sees");
    host.command("nft", "flush chain bridge t forward");
    assert_eq!(found(&host), []);
    host.command("nft", "add chain bridge t forward { policy drop ; }");
    assert_one(&host, None, "the nftables chain bridge t forward sees");
}

#[test]
fn chains_hooked_on_a_port_count_for_that_port() {
    let Some(host) = bridge() else { return };
    host.command("nft", "add table netdev t");
    host.command("nft", "add chain netdev t in { type filter hook ingress device p2 priority 0 ; }");
    assert_eq!(found(&host), []);
    host.command("nft", "add rule netdev t in counter");
    assert_one(&host, Some("p2"), "the nftables chain netdev t in is hooked on p2");
}

#[test]
fn the_ip_firewall_counts_where_it_has_rules_and_the_bridge_calls_it() {
    let Some(host) = bridge() else { return };
    let set = |value: &'static str| {
        host.run(move || std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", value).is_ok())
    };
    if !set("1") {
        crate::host::testing::skip("this kernel has no br_netfilter");
        return;
    }
    assert_eq!(found(&host), [], "the switch alone does nothing");
    host.command("nft", "add table ip t");
    host.command("nft", "add chain ip t forward { type filter hook forward priority 0 ; policy drop ; }");
    assert_one(
        &host,
        None,
        "the bridge's frames go through iptables (br_netfilter), where ip t forward has rules",
    );
    assert!(set("0"));
    assert_eq!(found(&host), []);
    host.ip("link set br0 type bridge nf_call_iptables 1");
    let [(None, sentence)] = &found(&host)[..] else { panic!() };
    assert!(sentence.contains("`ip link set dev br0 type bridge nf_call_iptables 0`"), "{sentence}");
}

#[test]
fn filters_programs_and_shapers_on_a_port_count_for_that_port() {
    let Some(host) = bridge() else { return };
    host.command("tc", "qdisc add dev p1 clsact");
    assert_eq!(found(&host), [], "a place for filters is no filter");
    host.command("tc", "filter add dev p1 egress protocol all u32 match u32 0 0 flowid 1:1");
    assert_one(&host, Some("p1"), "p1 has tc filters (egress)");
    host.command("tc", "qdisc del dev p1 clsact");
    host.command("tc", "qdisc add dev p2 ingress");
    host.command("tc", "filter add dev p2 parent ffff: protocol all u32 match u32 0 0 flowid 1:1");
    assert_one(&host, Some("p2"), "p2 has tc filters (ingress)");
    host.command("tc", "qdisc del dev p2 ingress");
    host.command("tc", "qdisc add dev p2 root tbf rate 1mbit burst 10kb latency 50ms");
    assert_one(&host, Some("p2"), "p2 has the queueing discipline tbf");
    host.command("tc", "qdisc replace dev p2 root pfifo");
    assert_eq!(found(&host), []);
}

#[test]
fn another_xdp_program_counts_and_our_own_does_not() {
    let folder = Folder::new();
    let (Some(host), Some(program)) = (bridge(), passing_program(&folder)) else { return };
    host.ip(&format!("link set dev p1 xdpgeneric obj {} sec xdp", program.display()));
    assert_one(&host, Some("p1"), "p1 has another XDP program");
    let ours = host.run(|| {
        let mirror = Mirror::open("br0").unwrap();
        let ids = mirror
            .known()
            .ports()
            .values()
            .filter_map(|port| port.link.xdp)
            .map(|xdp| xdp.program_id)
            .collect();
        Obstacles::open().unwrap().look(mirror.known(), &ids).unwrap()
    });
    assert_eq!(ours, []);
}
