//! A real bridge, made and changed by the tools that admins use.

use common::FdbKey;

use super::*;
use crate::host::testing::{Namespace, eventually};

/// A bridge br0 with the ports p1 and p2, whose far ends are f1 and f2; all up.
fn bridge() -> Option<Namespace> {
    let host = Namespace::new()?;
    host.ip("link add br0 type bridge");
    for (port, far) in [("p1", "f1"), ("p2", "f2")] {
        host.ip(&format!("link add {port} type veth peer name {far}"));
        host.ip(&format!("link set {port} master br0 up"));
        host.ip(&format!("link set {far} up"));
    }
    host.ip("link set br0 up");
    // Until then no learnt station can be entered: EPERM of fdb_add_entry in net/bridge/br_fdb.c.
    eventually("both ports forward", || {
        host.command("bridge", "link show").matches("state forwarding").count() == 2
    });
    Some(host)
}

/// A mirror in its namespace, and the events it has told.
struct Followed<'a> {
    host: &'a Namespace,
    mirror: Option<Mirror>,
    events: Vec<Event>,
}

impl<'a> Followed<'a> {
    fn new(host: &'a Namespace) -> Self {
        let mirror = Some(host.run(|| Mirror::open("br0").unwrap()));
        Self { host, mirror, events: Vec::new() }
    }

    fn look(&mut self) {
        let mut mirror = self.mirror.take().unwrap();
        let (mirror, events) = self.host.run(move || {
            let events = mirror.handle_netlink().unwrap();
            (mirror, events)
        });
        self.mirror = Some(mirror);
        self.events.extend(events);
    }

    fn touch(&mut self, stations: &[Station]) -> usize {
        let (mut mirror, stations) = (self.mirror.take().unwrap(), stations.to_vec());
        let (mirror, count) = self.host.run(move || {
            let count = mirror.touch(&stations).unwrap();
            (mirror, count)
        });
        self.mirror = Some(mirror);
        count
    }

    fn known(&self) -> &Known {
        self.mirror.as_ref().unwrap().known()
    }

    /// Looks until `holds`.
    fn until(&mut self, what: &str, holds: impl Fn(&Known) -> bool) {
        eventually(what, || {
            self.look();
            holds(self.known())
        });
    }

    fn port(&self, name: &str) -> Option<&Port> {
        self.known().ports().values().find(|port| port.link.name == name)
    }

    /// What is known is what one sees who looks for the first time.
    fn assert_true(&mut self) {
        // The ends of the veths speak IPv6 now and then.
        eventually("what is known is what is there", || {
            self.look();
            let fresh = self.host.run(|| Mirror::open("br0").unwrap());
            let (known, fresh) = (self.known(), fresh.known());
            known.bridge() == fresh.bridge()
                && known.ports() == fresh.ports()
                && known.stations().eq(fresh.stations())
        });
    }
}

fn named<'a>(known: &'a Known, name: &str) -> Option<&'a Port> {
    known.ports().values().find(|port| port.link.name == name)
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
const KEY: FdbKey = FdbKey::new(0, MAC);

#[test]
fn a_bridge_is_read_with_its_ports_and_their_addresses() {
    let Some(host) = bridge() else { return };
    host.ip("link set br0 type bridge ageing_time 12000 stp_state 1 nf_call_iptables 1");
    let followed = Followed::new(&host);
    let known = followed.known();
    let found = known.bridge().unwrap();
    assert_eq!((found.ageing_ms, found.stp, found.vlan_filtering), (120_000, true, false));
    assert!(found.calls_iptables && !found.calls_ip6tables && found.multicast_snooping);
    assert!(found.link.up && found.link.mtu == 1500 && found.vlan_protocol == 0x8100);
    let names: Vec<_> = known.ports().values().map(|port| port.link.name.as_str()).collect();
    assert_eq!(names, ["p1", "p2"]);
    let port = followed.port("p1").unwrap();
    assert_eq!(port.link.kind.as_deref(), Some("veth"));
    assert!(port.far_end.is_some_and(|far| far.namespace.is_none()));
    assert!(port.settings.learning && port.settings.unicast_flood && !port.settings.isolated);
    let local: Vec<_> = known
        .stations()
        .filter(|station| station.kind == StationKind::Local)
        .map(|station| station.key.mac)
        .collect();
    for mac in [found.link.mac, port.link.mac] {
        assert!(local.contains(&mac.unwrap()), "{local:?}");
    }
}

#[test]
fn no_such_bridge_is_an_error_that_names_those_there_are() {
    let Some(host) = bridge() else { return };
    let error = |name: &'static str| host.run(move || Mirror::open(name).unwrap_err().to_string());
    assert_eq!(error("br1"), "there is no bridge br1; this host has br0: name one of them with --bridge");
    assert!(error("p1").starts_with("p1 is no bridge; this host has br0"));
}

#[test]
fn stations_entered_moved_and_removed_by_hand_are_followed() {
    let Some(host) = bridge() else { return };
    let mut followed = Followed::new(&host);
    host.command("bridge", "fdb add 02:00:00:00:00:77 dev p1 master static");
    followed.until("entered", |known| known.station(&KEY).is_some());
    let station = *followed.known().station(&KEY).unwrap();
    assert_eq!((station.kind, station.sticky), (StationKind::Static, false));
    assert_eq!(station.port, followed.port("p1").unwrap().link.index);
    host.command("bridge", "fdb replace 02:00:00:00:00:77 dev p2 master dynamic");
    followed.until("moved", |known| {
        let station = known.station(&KEY).unwrap();
        station.kind == StationKind::Learned && named(known, "p2").unwrap().link.index == station.port
    });
    host.command("bridge", "fdb replace 02:00:00:00:00:77 dev p1 master static sticky");
    followed.until("sticky", |known| known.station(&KEY).is_some_and(|station| station.sticky));
    host.command("bridge", "fdb del 02:00:00:00:00:77 dev p1 master");
    followed.until("removed", |known| known.station(&KEY).is_none());
    assert!(matches!(followed.events.last(), Some(Event::StationGone(station)) if station.key == KEY));
    followed.assert_true();
}

#[test]
fn a_station_that_speaks_is_learnt_and_flushed() {
    let Some(host) = bridge() else { return };
    let mut followed = Followed::new(&host);
    host.ip("link set f1 address 02:00:00:00:00:77");
    host.ip("address add 10.0.0.1/24 dev f1");
    host.ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:78 dev f1");
    host.run(|| {
        let socket = std::net::UdpSocket::bind("10.0.0.1:0").unwrap();
        socket.send_to(b"heard", "10.0.0.2:9").unwrap();
    });
    followed.until("learnt", |known| {
        known.station(&KEY).is_some_and(|station| station.kind == StationKind::Learned)
    });
    host.command("bridge", "fdb flush dev br0 dynamic");
    followed.until("flushed", |known| known.station(&KEY).is_none());
    followed.assert_true();
}

#[test]
fn settings_of_ports_and_bridge_are_followed() {
    let Some(host) = bridge() else { return };
    let mut followed = Followed::new(&host);
    host.command("bridge", "link set dev p1 isolated on learning off hairpin on flood off");
    followed.until("set", |known| {
        let settings = named(known, "p1").unwrap().settings;
        settings.isolated && !settings.learning && settings.hairpin && !settings.unicast_flood
    });
    host.command("bridge", "link set dev p1 neigh_suppress on");
    followed.until("answers", |known| named(known, "p1").unwrap().settings.answers_neighbours);
    host.command("bridge", "link set dev p1 locked on");
    followed.until("locked", |known| named(known, "p1").unwrap().settings.locked);
    host.ip("link set br0 type bridge stp_state 1");
    host.ip("link set p2 down");
    host.ip("link set p2 up");
    followed.until("spanning tree", |known| {
        let state = named(known, "p2").unwrap().settings.state;
        known.bridge().unwrap().stp && matches!(state, PortState::Blocking | PortState::Listening)
    });
    host.ip("link set br0 type bridge stp_state 0");
    host.command("bridge", "link set dev p2 state 3");
    followed.until("by hand", |known| named(known, "p2").unwrap().settings.state == PortState::Forwarding);
    host.ip("link set f2 down");
    followed.until("no carrier", |known| {
        let port = named(known, "p2").unwrap();
        !port.link.running && port.settings.state == PortState::Disabled
    });
    followed.assert_true();
}

#[test]
fn what_changes_without_news_is_found_by_reading_anew() {
    let Some(host) = bridge() else { return };
    let mut followed = Followed::new(&host);
    // Where /sys is another namespace's, brctl takes the old ioctl, of which the kernel tells nobody.
    host.command("brctl", "setageing br0 60");
    let mut mirror = followed.mirror.take().unwrap();
    followed.mirror = Some(host.run(move || {
        mirror.reread().unwrap();
        mirror
    }));
    followed.look();
    assert_eq!(followed.known().bridge().unwrap().ageing_ms, 60_000);
    assert!(followed.events.contains(&Event::BridgeChanged));
    followed.assert_true();
}

#[test]
fn ports_come_go_are_renamed_and_move_to_another_bridge() {
    let Some(host) = bridge() else { return };
    let mut followed = Followed::new(&host);
    host.command("bridge", "fdb add 02:00:00:00:00:77 dev p1 master static");
    followed.until("entered", |known| known.station(&KEY).is_some());
    host.ip("link set p1 down");
    host.ip("link set p1 name lan1");
    host.ip("link set lan1 up");
    followed.until("renamed", |known| named(known, "lan1").is_some() && known.ports().len() == 2);
    let index = followed.port("lan1").unwrap().link.index;
    assert!(!followed.events.contains(&Event::PortGone(index)), "{:?}", followed.events);
    host.ip("link add br1 type bridge");
    host.ip("link set lan1 master br1");
    followed.until("moved", |known| named(known, "lan1").is_none());
    assert!(followed.known().station(&KEY).is_none());
    assert!(followed.events.contains(&Event::PortGone(index)));
    host.command("bridge", "fdb add 02:00:00:00:00:77 dev lan1 master static");
    host.command("brctl", "delif br1 lan1");
    host.command("brctl", "addif br0 lan1");
    followed.until("back", |known| named(known, "lan1").is_some());
    assert!(followed.known().station(&KEY).is_none(), "what another bridge knew is not ours");
    assert!(followed.events.contains(&Event::PortAdded(index)));
    host.ip("link del lan1");
    followed.until("deleted", |known| known.ports().len() == 1);
    followed.assert_true();
}

#[test]
fn a_bridge_deleted_and_made_anew_under_its_name_is_another() {
    let Some(host) = bridge() else { return };
    let mut followed = Followed::new(&host);
    let first = followed.known().bridge().unwrap().link.index;
    host.ip("link del br0");
    followed.until("gone", |known| known.bridge().is_none());
    assert_eq!(followed.events.last(), Some(&Event::BridgeGone));
    assert!(followed.known().ports().is_empty() && followed.known().stations().len() == 0);
    host.ip("link add br0 type bridge");
    host.ip("link set p1 master br0");
    followed.until("again", |known| known.ports().len() == 1);
    assert_ne!(followed.known().bridge().unwrap().link.index, first);
    followed.assert_true();
    // Both at once, before anybody looks.
    host.ip("link del br0");
    host.ip("link add br0 type bridge");
    host.ip("link set p2 master br0");
    followed.until("again at once", |known| named(known, "p2").is_some() && known.ports().len() == 1);
    followed.assert_true();
}

#[test]
fn a_storm_of_stations_is_caught_up_with() {
    let Some(host) = bridge() else { return };
    let mut followed = Followed::new(&host);
    // More news than the socket has room for.
    let stations: String = (0..20_000u32)
        .map(|number| {
            let [_, a, b, c] = number.to_be_bytes();
            format!("fdb add 02:00:01:{a:02x}:{b:02x}:{c:02x} dev p1 master static\n")
        })
        .collect();
    let file = crate::host::testing::Folder::new();
    file.write("stations", &stations);
    host.command("bridge", &format!("-batch {}", file.path().join("stations").display()));
    followed.until("all there", |known| known.stations().len() >= 20_000);
    followed.assert_true();
    let told = followed.events.iter().filter(|event| matches!(event, Event::Station(_))).count();
    assert!(told >= 20_000, "{told}");
    host.ip("link set p1 nomaster");
    followed.until("all gone", |known| known.stations().len() < 100);
    let gone = followed.events.iter().filter(|event| matches!(event, Event::StationGone(_))).count();
    assert!(gone >= 20_000, "{gone}");
    followed.assert_true();
}

#[test]
fn touched_stations_do_not_age_and_others_do() {
    let Some(host) = bridge() else { return };
    let mut followed = Followed::new(&host);
    let other = FdbKey::new(0, [2, 0, 0, 0, 0, 0x78]);
    host.command("bridge", "fdb add 02:00:00:00:00:77 dev p1 master dynamic");
    host.command("bridge", "fdb add 02:00:00:00:00:78 dev p1 master dynamic");
    followed.until("entered", |known| known.station(&other).is_some());
    let station = *followed.known().station(&KEY).unwrap();
    // In hundredths of a second: the shorter, the sooner this is over, and the worse it bears a busy machine.
    host.ip("link set br0 type bridge ageing_time 200");
    eventually("the other ages", || {
        assert_eq!(followed.touch(&[station]), 1, "{:?}", followed.events);
        followed.look();
        followed.known().station(&other).is_none()
    });
    assert!(host.command("bridge", "fdb show br br0").contains("02:00:00:00:00:77 dev p1"));
}

#[test]
fn a_station_that_moved_meanwhile_is_not_touched_back_nor_a_forgotten_one_revived() {
    let Some(host) = bridge() else { return };
    let mut followed = Followed::new(&host);
    host.command("bridge", "fdb add 02:00:00:00:00:77 dev p1 master dynamic");
    followed.until("entered", |known| known.station(&KEY).is_some());
    let station = *followed.known().station(&KEY).unwrap();
    host.command("bridge", "fdb replace 02:00:00:00:00:77 dev p2 master dynamic");
    assert_eq!(followed.touch(&[station]), 0);
    assert!(host.command("bridge", "fdb show br br0").contains("02:00:00:00:00:77 dev p2"));
    followed.look();
    let moved = *followed.known().station(&KEY).unwrap();
    assert!(followed.events.contains(&Event::Station(moved)), "what was read while touching is told");
    host.command("bridge", "fdb del 02:00:00:00:00:77 dev p2 master");
    assert_eq!(followed.touch(&[moved]), 0);
    assert!(!host.command("bridge", "fdb show br br0").contains("00:77"));
}

#[test]
fn many_stations_are_entered_and_removed_in_one_go() {
    let Some(host) = bridge() else { return };
    let mut followed = Followed::new(&host);
    let index = followed.port("p1").unwrap().link.index;
    let keys: Vec<_> = (0..1000u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            FdbKey::new(0, [2, 0, 0, 1, high, low])
        })
        .collect();
    let entered = keys.clone();
    let count = host.run(move || {
        enter_stations(&mut crate::host::netlink::Requests::routing().unwrap(), index, &entered).unwrap()
    });
    assert_eq!(count, keys.len());
    followed.until("all there", |known| {
        let ours = known.stations().filter(|station| station.kind == StationKind::ExternLearned);
        ours.filter(|station| station.port == index).count() == 1000
    });
    host.command("bridge", "fdb del 02:00:00:01:00:00 dev p1 master");
    let count = host.run(move || {
        remove_stations(&mut crate::host::netlink::Requests::routing().unwrap(), index, &keys).unwrap()
    });
    assert_eq!(count, 999);
    followed.until("all gone", |known| {
        known.stations().all(|station| station.kind != StationKind::ExternLearned)
    });
    followed.assert_true();
}

#[test]
fn stations_beyond_those_kept_stay_with_the_bridge_and_are_told_nobody() {
    let Some(host) = bridge() else { return };
    let mut followed = Followed::new(&host);
    let index = followed.port("p1").unwrap().link.index;
    let keys: Vec<_> = (0..STATIONS as u32 + 2000)
        .map(|number| {
            let [_, a, b, c] = number.to_be_bytes();
            FdbKey::new(0, [2, 0, 1, a, b, c])
        })
        .collect();
    let orders = keys.clone();
    let entered = host.run(move || {
        enter_stations(&mut crate::host::netlink::Requests::routing().unwrap(), index, &orders).unwrap()
    });
    assert_eq!(entered, keys.len());
    // More news than there is room for: the bridge is read anew.
    followed.until("as many as are kept", |known| known.stations().len() == STATIONS);
    let told = followed.events.iter().filter(|event| matches!(event, Event::Station(_))).count();
    assert!(told <= STATIONS && followed.known().unkept() > 0, "{told} were told");
    // Who is not kept may move: nobody is told, and nothing grows.
    let strangers: Vec<_> =
        keys.iter().copied().filter(|key| followed.known().station(key).is_none()).take(1000).collect();
    assert_eq!(strangers.len(), 1000);
    let (other, moved) = (followed.port("p2").unwrap().link.index, strangers.clone());
    host.run(move || {
        enter_stations(&mut crate::host::netlink::Requests::routing().unwrap(), other, &moved).unwrap()
    });
    followed.events.clear();
    let before = followed.known().unkept();
    followed.until("the moves to be heard", |known| known.unkept() > before);
    let told = followed.events.iter().filter_map(|event| match event {
        Event::Station(station) | Event::StationGone(station) => Some(station.key),
        _ => None,
    });
    assert!(told.into_iter().all(|key| !strangers.contains(&key)));
    assert_eq!(followed.known().stations().len(), STATIONS);
}

#[test]
fn vlans_of_ports_are_followed_where_the_kernel_filters() {
    let Some(host) = bridge() else { return };
    if !host.ip_takes("link set br0 type bridge vlan_filtering 1") {
        // Not every kernel has it; what its messages mean is tested beside their parser.
        return;
    }
    let mut followed = Followed::new(&host);
    let bridge = followed.known().bridge().unwrap();
    assert!(bridge.vlan_filtering && bridge.default_pvid == 1);
    let untagged = |first, last| VlanRange { first, last, untagged: true };
    let vlans = &followed.port("p1").unwrap().vlans;
    assert_eq!((vlans.pvid, &vlans.ranges[..]), (Some(1), &[untagged(1, 1)][..]));
    host.command("bridge", "vlan add dev p1 vid 100-200");
    host.command("bridge", "vlan add dev p1 vid 5 pvid untagged");
    followed.until("added", |known| {
        let vlans = &named(known, "p1").unwrap().vlans;
        let tagged = VlanRange { first: 100, last: 200, untagged: false };
        vlans.pvid == Some(5) && vlans.ranges == [untagged(1, 1), untagged(5, 5), tagged]
    });
    assert_eq!(followed.port("p1").unwrap().vlans.untagged(150), Some(false));
    host.command("bridge", "fdb add 02:00:00:00:00:77 dev p1 master static vlan 150");
    followed.until("entered", |known| known.station(&FdbKey::new(150, MAC)).is_some());
    host.command("bridge", "vlan del dev p1 vid 100-200");
    followed.until("removed", |known| named(known, "p1").unwrap().vlans.untagged(150).is_none());
    followed.until("gone with its VLAN", |known| known.station(&FdbKey::new(150, MAC)).is_none());
    host.ip("link set br0 type bridge vlan_filtering 0");
    followed.until("off", |known| !known.bridge().unwrap().vlan_filtering);
    followed.assert_true();
}
