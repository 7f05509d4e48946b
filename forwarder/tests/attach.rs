//! The gateway's own loader on real interfaces, in namespaces of the tests' own: what it attaches, what it refuses and
//! in which words, and that nothing stays behind.
#![allow(clippy::disallowed_methods, reason = "tests begin at some moment")]

mod bench;

use std::{
    net::UdpSocket,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::{Child, Command},
    time::{Duration, Instant},
};

use aya::{
    programs::{SchedClassifier, TcAttachType},
    util::KernelVersion,
};
use bench::*;
use caps::{CapSet, Capability};
use common::{
    FdbKey, FdbValue, Place, QUEUES, Settings, Verdict,
    bridge::{PortCounters, PortValue},
};
use nix::{
    libc,
    sys::socket::{self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike},
};

use trestle::{
    switch::WireId,
    xdp::{
        attach::{Attachment, TcHold, Uplink, XdpChoice, XdpGot},
        maps::{MapError, ports::VlanSet},
        programs::Programs,
        refusal::{AttachError, LoadError},
    },
};

/// A NIC, its far end, a host port, and the gateway's side of that.
const NIC: &str = "nic0";
const FAR: &str = "far0";
const HOST_PORT: &str = "host0";
const WORKER: &str = "work0";

fn lay_out() {
    enter_namespace();
    ip(&format!("link add {NIC} type veth peer name {FAR}"));
    ip(&format!("link add {HOST_PORT} type veth peer name {WORKER}"));
    for interface in [NIC, FAR, HOST_PORT, WORKER] {
        ip(&format!("link set {interface} up"));
    }
}

fn bridge(xdp: XdpChoice) -> Uplink<'static> {
    Uplink { nic: NIC, xdp: Some(xdp), host_port: Some(HOST_PORT) }
}

fn load() -> Programs {
    Programs::load().unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn attach(programs: &mut Programs, uplink: &Uplink<'_>) -> Attachment {
    programs.attach(uplink).unwrap_or_else(|error| panic!("{error}"))
}

/// Everything that hangs on an interface, whoever put it there.
fn hanging_on(interface: &str) -> Vec<String> {
    let mut found = Vec::new();
    let link = printed("ip", &["-d", "link", "show", interface]);
    found.extend(
        link.split_whitespace()
            .filter(|word| word.starts_with("xdp") || *word == "prog/xdp")
            .map(str::to_owned),
    );
    for (direction, name) in [(TcAttachType::Ingress, "ingress"), (TcAttachType::Egress, "egress")] {
        if let Ok((_, programs)) = SchedClassifier::query_tcx(interface, direction) {
            found.extend(programs.iter().filter_map(|one| one.name_as_str().map(str::to_owned)));
        }
        let filters = printed("tc", &["filter", "show", "dev", interface, name]);
        found.extend(filters.split_whitespace().filter(|word| word.starts_with("tc_")).map(str::to_owned));
    }
    found.sort();
    found.dedup();
    found
}

fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("iproute2 is installed");
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn assert_bare() {
    for interface in [NIC, FAR, HOST_PORT] {
        assert_eq!(hanging_on(interface), [""; 0], "{interface}");
    }
}

/// A link goes with its last descriptor: a process that another test is just starting may hold a copy for a moment.
#[track_caller]
fn assert_soon_bare() {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline && [NIC, FAR, HOST_PORT].iter().any(|one| !hanging_on(one).is_empty()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_bare();
}

macro_rules! needs_privileges {
    ($name:literal) => {
        if !privileged($name) {
            return;
        }
    };
}

#[test]
fn native_and_generic_attach_and_leave_nothing() {
    needs_privileges!("native_and_generic_attach_and_leave_nothing");
    lay_out();
    let mut programs = load();
    assert_bare();
    for (choice, got, word) in [
        (XdpChoice::Auto, XdpGot::Native, "xdp"),
        (XdpChoice::Native, XdpGot::Native, "xdp"),
        (XdpChoice::Generic, XdpGot::Generic, "xdpgeneric"),
    ] {
        let attachment = attach(&mut programs, &bridge(choice));
        assert_eq!(attachment.xdp(), Some(got));
        assert!(attachment.native_refused().is_none());
        assert!(hanging_on(NIC).iter().any(|one| one.starts_with(word)), "{:?}", hanging_on(NIC));
        for name in ["tc_nic_in", "tc_nic_out"] {
            assert!(hanging_on(NIC).iter().any(|one| one == name), "{name}: {:?}", hanging_on(NIC));
        }
        assert_eq!(hanging_on(HOST_PORT), ["tc_host_in"]);
        assert_eq!(attachment.needs_heartbeat(), attachment.tc() == Some(TcHold::Filter));
        drop(attachment);
        assert_soon_bare();
    }
}

#[test]
fn underlay_mode_attaches_xdp_only_and_socket_mode_tc_only() {
    needs_privileges!("underlay_mode_attaches_xdp_only_and_socket_mode_tc_only");
    lay_out();
    let mut programs = load();
    let attachment = attach(&mut programs, &Uplink { host_port: None, ..bridge(XdpChoice::Auto) });
    assert!(attachment.tc().is_none() && !attachment.needs_heartbeat());
    assert!(!hanging_on(NIC).is_empty() && hanging_on(HOST_PORT).is_empty());
    drop(attachment);
    let attachment = attach(&mut programs, &Uplink { xdp: None, ..bridge(XdpChoice::Auto) });
    assert!(attachment.xdp().is_none());
    assert!(!hanging_on(NIC).iter().any(|one| one.contains("xdp")));
    drop(attachment);
    assert_soon_bare();
}

#[test]
fn filters_of_old_kernels_work_too_and_leave_nothing() {
    needs_privileges!("filters_of_old_kernels_work_too_and_leave_nothing");
    lay_out();
    let mut programs = load();
    for _ in 0..2 {
        let attachment =
            programs.attach_with_filters(&bridge(XdpChoice::Auto)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(attachment.tc(), Some(TcHold::Filter));
        assert!(attachment.needs_heartbeat());
        assert!(hanging_on(NIC).contains(&"tc_nic_in".to_owned()), "{:?}", hanging_on(NIC));
        drop(attachment);
        assert_soon_bare();
    }
}

#[test]
fn after_sigkill_nothing_is_left_and_a_new_start_works() {
    needs_privileges!("after_sigkill_nothing_is_left_and_a_new_start_works");
    lay_out();
    let mut child = spawn("child_that_holds_links");
    wait_until(|| hanging_on(NIC).contains(&"tc_nic_out".to_owned()));
    let linked =
        SchedClassifier::query_tcx(NIC, TcAttachType::Egress).is_ok_and(|(_, programs)| !programs.is_empty());
    kill(&mut child);
    if linked {
        assert_soon_bare();
    }
    wait_until(|| !hanging_on(NIC).iter().any(|one| one.contains("xdp")));
    drop(attach(&mut load(), &bridge(XdpChoice::Native)));
    assert_soon_bare();
}

#[test]
fn filters_left_by_sigkill_are_removed_at_the_next_start_and_others_stay() {
    needs_privileges!("filters_left_by_sigkill_are_removed_at_the_next_start_and_others_stay");
    lay_out();
    let mut child = spawn("child_that_holds_filters");
    wait_until(|| hanging_on(NIC).contains(&"tc_nic_out".to_owned()));
    kill(&mut child);
    wait_until(|| !hanging_on(NIC).iter().any(|one| one.contains("xdp")));
    let left = hanging_on(NIC);
    assert_eq!(left.iter().filter(|one| one.starts_with("tc_nic_")).count(), 2, "{left:?}");
    // An administrator's own filter, that must survive us.
    let tc = |arguments: &str| {
        assert!(Command::new("tc").args(arguments.split(' ')).status().expect("tc").success())
    };
    tc(&format!("filter add dev {NIC} ingress prio 7 protocol all u32 match u32 0 0 flowid 1:1"));
    drop(programs_with_filters());
    assert_soon_bare();
    assert!(printed("tc", &["filter", "show", "dev", NIC, "ingress"]).contains("u32"));
}

fn programs_with_filters() -> (Attachment, Programs) {
    let mut programs = load();
    let attachment =
        programs.attach_with_filters(&bridge(XdpChoice::Native)).unwrap_or_else(|error| panic!("{error}"));
    (attachment, programs)
}

/// Started by tests above, in their namespace, to be killed.
#[test]
#[ignore = "a child of other tests"]
fn child_that_holds_links() {
    let mut programs = load();
    let _attachment = attach(&mut programs, &bridge(XdpChoice::Native));
    std::thread::sleep(Duration::from_secs(60));
}

/// Started by tests above, in their namespace, to be killed.
#[test]
#[ignore = "a child of other tests"]
fn child_that_holds_filters() {
    let _held = programs_with_filters();
    std::thread::sleep(Duration::from_secs(60));
}

/// Runs a test of this file as a process of its own. It gets the namespace of the calling thread.
fn spawn(test: &str) -> Child {
    let this = std::env::current_exe().expect("it has a path");
    Command::new(this).args(["--exact", test, "--ignored", "--nocapture"]).spawn().expect("it starts")
}

fn kill(child: &mut Child) {
    child.kill().expect("SIGKILL");
    child.wait().expect("it is gone");
}

#[track_caller]
fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come to pass");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn another_owners_program_is_named_and_stays() {
    needs_privileges!("another_owners_program_is_named_and_stays");
    lay_out();
    let mut owner = load();
    let owned = owner.attach_pass(NIC).unwrap_or_else(|error| panic!("{error}"));
    let before = hanging_on(NIC);
    for choice in [XdpChoice::Auto, XdpChoice::Native, XdpChoice::Generic] {
        let error = load().attach(&bridge(choice)).expect_err("it is occupied");
        assert!(matches!(error, AttachError::Occupied { .. }), "{choice:?}: {error}");
        assert!(error.to_string().contains("ip link set nic0 xdp off"), "{error}");
        assert_eq!(hanging_on(NIC), before, "nothing half-attached");
        assert_eq!(hanging_on(HOST_PORT), [""; 0]);
    }
    drop(owned);
    assert_soon_bare();
}

#[test]
fn a_large_mtu_is_named_and_auto_takes_generic() {
    needs_privileges!("a_large_mtu_is_named_and_auto_takes_generic");
    lay_out();
    for interface in [NIC, FAR] {
        ip(&format!("link set {interface} mtu 9001"));
    }
    let mut programs = load();
    let error = programs.attach(&bridge(XdpChoice::Native)).expect_err("veth takes 3506");
    assert!(matches!(error, AttachError::Mtu { mtu: 9001, .. }), "{error}");
    assert!(error.to_string().contains("ip link set nic0 mtu 3498"), "{error}");
    assert_bare();
    let attachment = attach(&mut programs, &bridge(XdpChoice::Auto));
    assert_eq!(attachment.xdp(), Some(XdpGot::Generic));
    assert!(matches!(attachment.native_refused(), Some(AttachError::Mtu { .. })));
}

#[test]
fn a_driver_without_native_xdp_is_named_and_auto_takes_generic() {
    needs_privileges!("a_driver_without_native_xdp_is_named_and_auto_takes_generic");
    lay_out();
    ip("link set lo mtu 1500");
    let mut programs = load();
    let native = Uplink { nic: "lo", xdp: Some(XdpChoice::Native), host_port: None };
    let error = programs.attach(&native).expect_err("the loopback has none");
    assert!(matches!(error, AttachError::NoNative { .. }), "{error}");
    let attachment = attach(&mut programs, &Uplink { xdp: Some(XdpChoice::Auto), ..native });
    assert_eq!(attachment.xdp(), Some(XdpGot::Generic));
    assert!(matches!(attachment.native_refused(), Some(AttachError::NoNative { .. })));
}

#[test]
fn an_interface_that_is_none_is_named_and_nothing_stays() {
    needs_privileges!("an_interface_that_is_none_is_named_and_nothing_stays");
    lay_out();
    let mut programs = load();
    let error =
        programs.attach(&Uplink { nic: "ens99", ..bridge(XdpChoice::Auto) }).expect_err("there is none");
    assert!(error.to_string().contains("there is no interface ens99"), "{error}");
    let uplink = Uplink { host_port: Some("tap99"), ..bridge(XdpChoice::Auto) };
    let error = programs.attach(&uplink).expect_err("there is none");
    assert!(error.to_string().contains("there is no interface tap99"), "{error}");
    assert_soon_bare();
}

#[test]
fn three_capabilities_and_no_root_are_enough_to_load_attach_and_write() {
    needs_privileges!("three_capabilities_and_no_root_are_enough_to_load_attach_and_write");
    lay_out();
    let status = spawn("child_without_root").wait().expect("it ends");
    assert!(status.success(), "its words stand above");
    assert_soon_bare();
}

/// Started by the test above. It gives up its rights for good, hence a process of its own.
#[test]
#[ignore = "a child of another test"]
fn child_without_root() {
    let mut early = load();
    caps::securebits::set_keepcaps(true).expect("keepcaps");
    nix::unistd::setgid(nix::unistd::Gid::from_raw(65_534)).expect("setgid");
    nix::unistd::setuid(nix::unistd::Uid::from_raw(65_534)).expect("setuid");
    let kept =
        [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_BPF].into_iter().collect();
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::set(None, set, &kept).expect("capset");
    }
    exercise(&mut early);
    drop(attach(&mut early, &bridge(XdpChoice::Native)));
    drop(early);
    match Programs::load() {
        Ok(late) => exercise_and_attach(late),
        // Linux 6.1 wants CAP_PERFMON as well for loading, and says so.
        Err(error) => {
            assert!(matches!(error, LoadError::Perfmon { .. }), "{error}");
            let kernel = KernelVersion::current().expect("a version");
            assert!(kernel < KernelVersion::new(6, 18, 0), "{error}");
        }
    }
    caps::clear(None, CapSet::Effective).expect("capset");
    let error = Programs::load().err().expect("without any capability");
    assert!(error.to_string().contains("CAP_BPF"), "{error}");
}

fn exercise_and_attach(mut programs: Programs) {
    exercise(&mut programs);
    drop(attach(&mut programs, &bridge(XdpChoice::Native)));
    drop(programs.attach_with_filters(&bridge(XdpChoice::Generic)).unwrap_or_else(|error| panic!("{error}")));
}

/// Writes and reads every map there is.
fn exercise(programs: &mut Programs) {
    let (key, value) = (
        FdbKey::new(7, PEER),
        FdbValue { place: Place::Peer as u32, fixed: 1, last_seen_ns: 9, ..Default::default() },
    );
    assert!(!programs.fdb.remove(key).expect("fdb"));
    programs.fdb.insert(key, value).expect("fdb");
    assert_eq!(programs.fdb.value(key).expect("fdb"), Some(value));
    assert_eq!(programs.fdb.entries().map(|entry| entry.expect("fdb")).collect::<Vec<_>>(), [(key, value)]);
    assert!(programs.fdb.remove(key).expect("fdb"));
    assert_eq!(programs.fdb.value(key).expect("fdb"), None);
    for address in [std::net::IpAddr::from(ADDRESS), "2001:db8::5".parse().expect("an address")] {
        let at = std::net::SocketAddr::new(address, PORT);
        programs.listeners.insert(at).expect("listeners");
        assert!(programs.listeners.remove(at).expect("listeners"));
        assert!(!programs.listeners.remove(at).expect("listeners"));
    }
    programs.settings.set(default_settings()).expect("settings");
    programs.heartbeat.beat().expect("heartbeat");
    assert_eq!(programs.verdicts.count(Verdict::NoSocket).expect("verdicts"), 0);
    assert_eq!(programs.sources.next_source(), None);
    programs.sockets.remove(WireId::UPLINK, 0).expect("sockets");
    let wire = WireId::new(255).expect("the last");
    programs.sockets.remove(wire, QUEUES - 1).expect("sockets");
    programs.ports.set(wire, PortValue { ifindex: 1, ..Default::default() }).expect("ports");
    programs.ports.clear(wire).expect("ports");
    programs.slots.insert(1, wire).expect("slots");
    assert!(programs.slots.remove(1).expect("slots"));
    assert!(!programs.slots.remove(1).expect("slots"));
    let mut vlans = VlanSet::default();
    vlans.insert(4095, true);
    programs.vlans.set(wire, &vlans).expect("vlans");
    programs.devmap.set(wire, 1).expect("devmap");
    programs.devmap.remove(wire).expect("devmap");
    assert!(programs.devmap.set(wire, u32::MAX).is_err(), "there is no such interface");
    assert_eq!(programs.port_counts.read(wire).expect("counters"), PortCounters::default());
    assert!(programs.captures.next_frame(|_, _| ()).is_none());
}

#[test]
fn a_full_database_and_a_queue_too_many_are_named() {
    needs_privileges!("a_full_database_and_a_queue_too_many_are_named");
    let mut programs = load();
    let value = FdbValue { place: Place::Wire as u32, fixed: 0, last_seen_ns: 0, ..Default::default() };
    let key = |number: u32| {
        let [a, b, c, d] = number.to_be_bytes();
        FdbKey::new(0, [2, 0, a, b, c, d])
    };
    for number in 0..common::FDB_ENTRIES {
        programs.fdb.insert(key(number), value).expect("there is room");
    }
    let error = programs.fdb.insert(key(common::FDB_ENTRIES), value).expect_err("it is full");
    assert!(matches!(error, MapError::Full { .. }), "{error}");
    programs.fdb.insert(key(0), value).expect("what is there can be overwritten");
    let error = programs.sockets.insert(WireId::UPLINK, QUEUES, std::io::stdin().as_fd());
    let error = error.expect_err("one too many");
    assert!(matches!(error, MapError::Queue { queue: QUEUES }), "{error}");
}

/// A packet socket on an interface.
struct Tap(OwnedFd, LinkAddr);

impl Tap {
    fn on(interface: &str) -> Self {
        let flags = SockFlag::SOCK_NONBLOCK;
        let protocol = socket::SockProtocol::EthAll;
        let fd =
            socket::socket(AddressFamily::Packet, SockType::Raw, flags, protocol).expect("a packet socket");
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: index_of(interface).try_into().expect("small"),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the pointer is to a whole sockaddr_ll, which says so in its family.
        let address = unsafe {
            LinkAddr::from_raw((&raw const address).cast(), Some(size_of_val(&address) as libc::socklen_t))
        };
        let address = address.expect("an address");
        socket::bind(fd.as_raw_fd(), &address).expect("bound");
        Self(fd, address)
    }

    fn send(&self, frame: &[u8]) {
        socket::send(self.0.as_raw_fd(), frame, MsgFlags::empty()).expect("sent");
        let _ = self.1;
    }

    /// Whether a frame with this source comes within a second.
    fn hears(&self, source: common::Mac) -> bool {
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut frame = [0; 2048];
        while Instant::now() < deadline {
            match socket::recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) if length >= 12 && frame[6..12] == source => return true,
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        false
    }
}

/// Bridge mode on the laid-out network, with the NIC's true address.
fn switch(programs: &mut Programs) -> common::Mac {
    let address = printed("ip", &["-o", "link", "show", NIC]);
    let text =
        address.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("it has one");
    let bytes: Vec<u8> =
        text.split(':').map(|part| u8::from_str_radix(part, 16).expect("hexadecimal")).collect();
    let mac = bytes.try_into().expect("six bytes");
    let (nic, host_port) = (index_of(NIC), index_of(HOST_PORT));
    programs.settings.set(Settings { nic, host_port, mac, ..default_settings() }).expect("settings");
    for (station, place) in [(mac, Place::Host), (PEER, Place::Peer)] {
        let value = FdbValue { place: place as u32, fixed: 0, last_seen_ns: 0, ..Default::default() };
        programs.fdb.insert(FdbKey::new(0, station), value).expect("fdb");
    }
    mac
}

#[test]
fn broadcast_from_the_wire_reaches_the_host_port_and_its_source_is_reported() {
    needs_privileges!("broadcast_from_the_wire_reaches_the_host_port_and_its_source_is_reported");
    lay_out();
    let mut programs = load();
    switch(&mut programs);
    let (far, worker) = (Tap::on(FAR), Tap::on(WORKER));
    for choice in [XdpChoice::Native, XdpChoice::Generic] {
        let attachment = attach(&mut programs, &bridge(choice));
        far.send(&plain(BROADCAST, STRANGER));
        assert!(worker.hears(STRANGER), "{choice:?}");
        assert_eq!(drain(&mut programs), [FdbKey::new(0, STRANGER)]);
        // The kernel has taken the tag out of the frame when TC sees it.
        far.send(&ethernet(BROADCAST, WIRE, &[(TAG, 0x2007)], 0x88b5, &[0; 46]));
        assert!(worker.hears(WIRE));
        assert_eq!(drain(&mut programs), [FdbKey::new(7, WIRE)]);
        drop(attachment);
        assert_soon_bare();
        far.send(&plain(BROADCAST, STRANGER));
        assert!(!worker.hears(STRANGER), "detached");
        assert_eq!(drain(&mut programs), []);
    }
}

/// What was reported, but for what the far end's own stack says (IPv6).
fn drain(programs: &mut Programs) -> Vec<FdbKey> {
    let keys = std::iter::from_fn(|| programs.sources.next_source());
    keys.filter(|key| [STRANGER, WIRE].contains(&key.mac)).collect()
}

#[test]
fn unicast_for_a_peer_without_a_socket_goes_by_the_host_port_and_not_to_the_host() {
    needs_privileges!("unicast_for_a_peer_without_a_socket_goes_by_the_host_port_and_not_to_the_host");
    lay_out();
    let mut programs = load();
    switch(&mut programs);
    let _attachment = attach(&mut programs, &bridge(XdpChoice::Native));
    let (far, worker) = (Tap::on(FAR), Tap::on(WORKER));
    far.send(&plain(PEER, STRANGER));
    assert!(worker.hears(STRANGER));
    assert!(programs.verdicts.count(Verdict::NoSocket).expect("verdicts") >= 1);
    // And from the host, by its egress: the frame does not reach the wire.
    let nic = Tap::on(NIC);
    nic.send(&plain(PEER, ROUTER));
    assert!(worker.hears(ROUTER));
    assert!(!far.hears(ROUTER));
    nic.send(&plain(BROADCAST, ROUTER));
    assert!(worker.hears(ROUTER) && far.hears(ROUTER));
}

#[test]
fn a_datagram_written_to_the_host_port_reaches_a_socket_of_the_host_once() {
    needs_privileges!("a_datagram_written_to_the_host_port_reaches_a_socket_of_the_host_once");
    lay_out();
    ip(&format!("address add 10.99.0.1/24 dev {NIC}"));
    let mut programs = load();
    let mac = switch(&mut programs);
    let socket = UdpSocket::bind("10.99.0.1:7000").expect("the host's own socket");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let worker = Tap::on(WORKER);
    for choice in [XdpChoice::Native, XdpChoice::Generic] {
        let _attachment = attach(&mut programs, &bridge(choice));
        let datagram = Datagram {
            to: mac,
            from: PEER,
            source: ([10, 99, 0, 3], 7001),
            destination: ([10, 99, 0, 1], 7000),
            payload: b"from a peer".to_vec(),
            ..Default::default()
        };
        worker.send(&datagram.frame());
        let mut buffer = [0; 64];
        let (length, from) =
            socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{choice:?}: {error}"));
        assert_eq!((&buffer[..length], from.to_string().as_str()), (&b"from a peer"[..], "10.99.0.3:7001"));
        // A peer's broadcast does not come back to the worker, nor is its source taken for the wire's.
        worker.send(&plain(BROADCAST, STRANGER));
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        assert!(socket.recv_from(&mut buffer).is_err(), "once");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        assert_eq!(drain(&mut programs), []);
    }
}
