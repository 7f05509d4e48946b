//! With the kernel: one namespace is the gateway's host, another its router.

use std::net::Ipv4Addr;

use super::*;
use crate::host::links::{self, LinkChange};
use crate::host::netlink::Requests;
use crate::host::testing::{Namespace, eventually};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

/// A host with `uplink` and a default route through a router at its other end, `wire`.
fn host_and_router() -> Option<(Namespace, Namespace)> {
    let (host, router) = (Namespace::new()?, Namespace::new()?);
    host.join("uplink", &router, "wire");
    host.ip("addr add 192.0.2.1/24 dev uplink");
    router.ip("addr add 192.0.2.254/24 dev wire");
    router.ip("link set wire address 02:00:00:00:00:fe");
    host.ip("route add default via 192.0.2.254");
    Some((host, router))
}

fn outside() -> (Outside, u32) {
    let uplink = links::by_name(&mut Requests::routing().unwrap(), "uplink").unwrap().index;
    (Outside::open(&[uplink]).unwrap(), uplink)
}

/// Until the path is direct and `holds`; the changes on the way.
fn until(outside: &mut Outside, what: &str, holds: impl Fn(&NextHop) -> bool) -> Vec<Change> {
    let mut changes = Vec::new();
    eventually(what, || {
        changes.extend(outside.handle_netlink().unwrap());
        matches!(outside.resolve(PEER, HOST).unwrap(), OuterPath::Direct(hop) if holds(&hop))
    });
    changes
}

#[test]
fn a_path_becomes_direct_once_the_router_is_known() {
    let Some((host, _router)) = host_and_router() else { return };
    host.run(|| {
        let (mut outside, uplink) = outside();
        assert_eq!(outside.resolve(PEER, HOST).unwrap(), OuterPath::BySocket(Detour::NoNeighbour(ROUTER)));
        outside.keep_alive(uplink, ROUTER).unwrap();
        let changes = until(&mut outside, "the router answers", |_| true);
        let router = [2, 0, 0, 0, 0, 0xfe];
        assert!(changes.contains(&Change::Neighbour { nic: uplink, address: ROUTER, mac: Some(router) }));
        let OuterPath::Direct(hop) = outside.resolve(PEER, Ipv4Addr::UNSPECIFIED.into()).unwrap() else {
            panic!()
        };
        let source = outside.known().links()[&uplink].mac.unwrap();
        let expected = NextHop {
            nic: uplink,
            address: ROUTER,
            destination: router,
            source,
            source_address: HOST,
            mtu: 1500,
        };
        assert_eq!(hop, expected);
        assert_eq!(outside.known().gateways(uplink).collect::<Vec<_>>(), [(ROUTER, Some(router))]);
        assert!(outside.known().router_macs(uplink).contains(&router));
        assert!(outside.known().host_macs(uplink).contains(&source));
    });
}

#[test]
fn a_router_that_changes_its_address_is_followed() {
    let Some((host, router)) = host_and_router() else { return };
    host.run(move || {
        let (mut outside, uplink) = outside();
        outside.keep_alive(uplink, ROUTER).unwrap();
        until(&mut outside, "the router answers", |hop| hop.destination == [2, 0, 0, 0, 0, 0xfe]);
        // A router that takes over says so: gratuitous ARP.
        router.command("sysctl", "-qw net.ipv4.conf.wire.arp_notify=1");
        router.ip("link set wire address 02:00:00:00:00:fd");
        until(&mut outside, "the new address", |hop| hop.destination == [2, 0, 0, 0, 0, 0xfd]);
        assert!(!outside.known().router_macs(uplink).contains(&[2, 0, 0, 0, 0, 0xfe]));
    });
}

#[test]
fn a_router_that_says_nothing_is_found_again_by_keeping_it_alive() {
    let Some((host, router)) = host_and_router() else { return };
    host.run(move || {
        for setting in ["base_reachable_time_ms=100", "retrans_time_ms=50", "delay_first_probe_time=0"] {
            let path = format!("/proc/sys/net/ipv4/neigh/uplink/{}", setting.split('=').next().unwrap());
            std::fs::write(path, setting.split('=').nth(1).unwrap()).unwrap();
        }
        let (mut outside, uplink) = outside();
        outside.keep_alive(uplink, ROUTER).unwrap();
        until(&mut outside, "the router answers", |hop| hop.destination == [2, 0, 0, 0, 0, 0xfe]);
        router.ip("link set wire address 02:00:00:00:00:fd");
        eventually("the silent change is noticed", || {
            outside.refresh().unwrap();
            outside.handle_netlink().unwrap();
            let path = outside.resolve(PEER, HOST).unwrap();
            matches!(path, OuterPath::Direct(hop) if hop.destination == [2, 0, 0, 0, 0, 0xfd])
        });
    });
}

#[test]
fn a_second_address_on_the_host_is_told_and_used() {
    let Some((host, _router)) = host_and_router() else { return };
    host.run(|| {
        let (mut outside, uplink) = outside();
        let second = IpAddr::from([192, 0, 2, 77]);
        assert_eq!(outside.resolve(PEER, second).unwrap(), OuterPath::BySocket(Detour::NoRoute));
        let output = std::process::Command::new("ip").args(["addr", "add", "192.0.2.77/24", "dev", "uplink"]).status();
        assert!(output.unwrap().success());
        let mut changes = Vec::new();
        eventually("the address is told", || {
            changes.extend(outside.handle_netlink().unwrap());
            changes.contains(&Change::Address)
        });
        assert!(changes.contains(&Change::Route), "the answer 'no route' no longer holds");
        assert!(outside.known().addresses().any(|address| address.address == second));
        outside.keep_alive(uplink, ROUTER).unwrap();
        eventually("the path from it", || {
            outside.handle_netlink().unwrap();
            matches!(outside.resolve(PEER, second).unwrap(), OuterPath::Direct(hop) if hop.source_address == second)
        });
    });
}

#[test]
fn a_route_by_another_interface_goes_by_the_socket_and_comes_back() {
    let Some((host, router)) = host_and_router() else { return };
    host.join("other", &router, "other-wire");
    host.ip("addr add 198.51.100.1/24 dev other");
    let turn = |host: &Namespace, arguments: &str| host.ip(arguments);
    let mut outside = host.run(|| outside().0);
    let mut path = host.run(move || {
        outside.keep_alive(*outside.known().uplinks.first().unwrap(), ROUTER).unwrap();
        until(&mut outside, "the router answers", |_| true);
        outside
    });
    turn(&host, "route add 203.0.113.0/24 via 198.51.100.254");
    path = host.run(move || {
        assert!(path.handle_netlink().unwrap().contains(&Change::Route));
        let resolved = path.resolve(PEER, HOST).unwrap();
        assert!(matches!(resolved, OuterPath::BySocket(Detour::OtherInterface(_))), "{resolved:?}");
        path
    });
    turn(&host, "route replace 203.0.113.0/24 via 192.0.2.254 mtu 1400");
    path = host.run(move || {
        until(&mut path, "the smaller MTU of the route", |hop| hop.mtu == 1400);
        path
    });
    turn(&host, "route add unreachable 203.0.113.9");
    path = host.run(move || {
        path.handle_netlink().unwrap();
        assert_eq!(path.resolve(PEER, HOST).unwrap(), OuterPath::BySocket(Detour::NoRoute));
        assert_eq!(path.resolve(HOST, HOST).unwrap(), OuterPath::BySocket(Detour::ThisHost));
        path
    });
    turn(&host, "link set uplink down");
    host.run(move || {
        let changes = path.handle_netlink().unwrap();
        assert!(changes.iter().any(|change| matches!(change, Change::Link(_))), "{changes:?}");
        let resolved = path.resolve(PEER, Ipv4Addr::UNSPECIFIED.into()).unwrap();
        assert_eq!(resolved, OuterPath::BySocket(Detour::NoRoute));
        assert_eq!(path.known().gateways(1).count(), 0);
    });
}

#[test]
fn news_that_is_lost_is_read_anew() {
    let Some((host, _router)) = host_and_router() else { return };
    let mut outside = host.run(|| outside().0);
    // More than the subscription has room for.
    let batch = std::env::temp_dir().join(format!("trestle-test-{}", std::process::id()));
    let lines: String = (0..20_000u32)
        .map(|n| {
            format!(
                "neigh replace 192.0.2.{} lladdr 02:00:00:00:{:02x}:{:02x} dev uplink nud permanent\n",
                2 + n % 200,
                n >> 8 & 0xff,
                n & 0xff
            )
        })
        .collect();
    std::fs::write(&batch, lines).unwrap();
    host.ip(&format!("-batch {}", batch.display()));
    std::fs::remove_file(&batch).unwrap();
    host.run(move || {
        let mut changes = outside.handle_netlink().unwrap();
        assert!(changes.contains(&Change::Resync), "{} changes", changes.len());
        changes = outside.handle_netlink().unwrap();
        assert!(!changes.contains(&Change::Resync));
        let uplink = *outside.known().uplinks.first().unwrap();
        assert_eq!(
            outside.known().neighbour(uplink, Ipv4Addr::new(192, 0, 2, 2).into()),
            Some([2, 0, 0, 0, 0x4d, 0x58])
        );
    });
}

#[test]
fn addresses_of_macvlans_are_the_host_s_even_in_a_container() {
    let Some((host, container)) = host_and_router() else { return };
    let mut outside = host.run(|| outside().0);
    host.ip("link add near address 02:00:00:00:01:01 link uplink type macvlan mode bridge");
    host.ip("link add moved address 02:00:00:00:01:02 link uplink type macvlan mode bridge");
    container.take(&host, "moved");
    container.ip("link set moved up");
    let uplink = host.run(move || {
        let changes = outside.handle_netlink().unwrap();
        assert!(changes.iter().any(|change| matches!(change, Change::Link(_))));
        let uplink = *outside.known().uplinks.first().unwrap();
        assert!(outside.known().host_macs(uplink).contains(&[2, 0, 0, 0, 1, 1]));
        assert!(outside.refresh().unwrap().contains(&Change::HostMacs(uplink)));
        assert!(outside.known().host_macs(uplink).contains(&[2, 0, 0, 0, 1, 2]));
        uplink
    });
    host.run(move || {
        let mut requests = Requests::routing().unwrap();
        let change = LinkChange::of(uplink).mac([2, 0, 0, 0, 9, 9]).mtu(1400).transmit_queue(77).arp(false);
        change.without_ipv6_addresses().apply(&mut requests).unwrap();
        let link = links::by_name(&mut requests, "uplink").unwrap();
        assert_eq!((link.mac, link.mtu, link.no_arp), (Some([2, 0, 0, 0, 9, 9]), 1400, true));
        assert!(std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap().contains("uplink"));
        links::disable_ipv6(&link).unwrap();
        assert!(!std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap().contains("uplink"));
        links::disable_ipv6(&links::sample(9, [2; 6])).unwrap();
    });
    let shown = host.command("ip", "-d link show uplink");
    assert!(shown.contains("qlen 77") && shown.contains("addrgenmode none"), "{shown}");
}

#[test]
fn routers_of_every_default_route_are_protected() {
    let Some((host, _router)) = host_and_router() else { return };
    host.ip("neigh add 192.0.2.250 lladdr 02:00:00:00:00:fa dev uplink nud permanent");
    host.ip(
        "route add default table 100 nexthop via 192.0.2.250 dev uplink nexthop via 192.0.2.251 dev uplink",
    );
    host.ip("-6 route add default via fe80::1 dev uplink");
    host.ip("-6 neigh add fe80::1 lladdr 02:00:00:00:00:06 dev uplink nud permanent");
    host.ip("route add 198.51.100.0/24 via 192.0.2.252");
    let (mut outside, uplink) = host.run(outside);
    let mut gateways: Vec<_> =
        outside.known().gateways(uplink).map(|(address, _)| address.to_string()).collect();
    gateways.sort();
    assert_eq!(gateways, ["192.0.2.250", "192.0.2.251", "192.0.2.254", "fe80::1"]);
    let macs: Vec<_> = outside.known().router_macs(uplink).into_iter().map(|mac| mac[5]).collect();
    assert_eq!(macs, [0x06, 0xfa]);
    host.ip("route flush table 100");
    host.ip("-6 route del default");
    host.ip("route add default via 192.0.2.253 metric 7");
    host.run(move || {
        assert!(outside.handle_netlink().unwrap().contains(&Change::Route));
        let left: Vec<_> = outside.known().gateways(uplink).map(|(address, _)| address.to_string()).collect();
        assert_eq!(left, ["192.0.2.253", "192.0.2.254"]);
    });
}

#[test]
fn a_path_by_ipv6_goes_through_a_link_local_router() {
    let Some((host, router)) = host_and_router() else { return };
    host.ip("-6 addr add 2001:db8:21::5/64 dev uplink nodad");
    router.ip("-6 addr add fe80::1/64 dev wire nodad");
    host.ip("-6 route add default via fe80::1 dev uplink");
    let six = |text: &str| text.parse::<IpAddr>().unwrap();
    let (peer, local, next) = (six("2001:db8:51::11"), six("2001:db8:21::5"), six("fe80::1"));
    let (mut outside, uplink) = host.run(outside);
    outside = host.run(move || {
        assert!(outside.known().addresses().any(|address| address.address == local));
        assert_eq!(outside.resolve(peer, local).unwrap(), OuterPath::BySocket(Detour::NoNeighbour(next)));
        outside.keep_alive(uplink, next).unwrap();
        eventually("the router answers", || {
            outside.handle_netlink().unwrap();
            matches!(outside.resolve(peer, local).unwrap(), OuterPath::Direct(hop)
                if (hop.address, hop.destination[5], hop.source_address, hop.mtu) == (next, 0xfe, local, 1500))
        });
        assert!(outside.known().router_macs(uplink).contains(&[2, 0, 0, 0, 0, 0xfe]));
        // Where the kernel chooses, it says what.
        let any = outside.resolve(peer, six("::")).unwrap();
        assert!(matches!(any, OuterPath::Direct(hop) if hop.source_address == local), "{any:?}");
        assert_eq!(outside.resolve(local, local).unwrap(), OuterPath::BySocket(Detour::ThisHost));
        std::fs::write("/proc/sys/net/ipv6/conf/uplink/mtu", "1450").unwrap();
        assert!(outside.refresh().unwrap().contains(&Change::Route), "as a router may advertise");
        let path = outside.resolve(peer, local).unwrap();
        assert!(matches!(path, OuterPath::Direct(hop) if hop.mtu == 1450), "{path:?}");
        outside
    });
    host.ip("-6 route add 2001:db8:51::/64 via fe80::1 dev uplink mtu 1400");
    outside = host.run(move || {
        assert!(outside.handle_netlink().unwrap().contains(&Change::Route));
        let path = outside.resolve(peer, local).unwrap();
        assert!(matches!(path, OuterPath::Direct(hop) if hop.mtu == 1400), "{path:?}");
        outside
    });
    host.ip("-6 route add unreachable 2001:db8:51::11");
    host.run(move || {
        outside.handle_netlink().unwrap();
        assert_eq!(outside.resolve(peer, local).unwrap(), OuterPath::BySocket(Detour::NoRoute));
    });
}

#[test]
fn a_path_by_ipv4_goes_through_a_router_of_ipv6() {
    let Some((host, router)) = host_and_router() else { return };
    router.ip("-6 addr add fe80::1/64 dev wire nodad");
    host.ip("route replace 203.0.113.0/24 via inet6 fe80::1 dev uplink");
    let (mut outside, uplink) = host.run(outside);
    host.run(move || {
        let next = "fe80::1".parse().unwrap();
        assert_eq!(outside.resolve(PEER, HOST).unwrap(), OuterPath::BySocket(Detour::NoNeighbour(next)));
        outside.keep_alive(uplink, next).unwrap();
        until(&mut outside, "the router answers", |hop| hop.address == next && hop.destination[5] == 0xfe);
    });
}
