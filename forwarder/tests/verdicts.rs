//! Every verdict of the XDP program and every decision of the TC programs, frame by frame, by BPF_PROG_TEST_RUN. The
//! object is loaded by libbpf, not by the gateway's own loader: both must find the same in it.

mod bench;

use std::os::fd::{AsRawFd, OwnedFd};

use bench::*;
use common::{FdbKey, MARK_INJECTED, Place, QUEUES, Settings, Verdict, names};

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
const TC_PASS: i32 = -1;
const TC_REDIRECT: i32 = 7;

/// A bench with a socket on the queue that test runs come from.
fn bench_with_socket() -> (Bench, OwnedFd) {
    let (mut bench, socket) = (Bench::new(), xsk());
    bench.put(names::XSKS, &0u32.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes());
    (bench, socket)
}

/// Runs `xdp_nic`, and asserts what it returns and that exactly one counter moved, by one.
#[track_caller]
fn judge(bench: &mut Bench, frame: &[u8], expected: Verdict) {
    let counts = |bench: &mut Bench| ALL.map(|verdict| bench.verdicts(verdict));
    let before = counts(bench);
    let returned = bench.xdp(names::XDP_NIC, frame).expect("the kernel takes the frame");
    let after = counts(bench);
    let moved: Vec<_> = ALL.into_iter().zip(after.iter().zip(before)).filter(|(_, (a, b))| *a != b).collect();
    assert_eq!(moved.iter().map(|(verdict, _)| *verdict).collect::<Vec<_>>(), [expected]);
    assert_eq!(after.iter().sum::<u64>(), before.iter().sum::<u64>() + 1);
    let redirects = matches!(expected, Verdict::Tunnel | Verdict::ToPeer | Verdict::Flood);
    assert_eq!(returned, if redirects { XDP_REDIRECT } else { XDP_PASS });
}

const ALL: [Verdict; 6] =
    [Verdict::Tunnel, Verdict::ToPeer, Verdict::Flood, Verdict::Pass, Verdict::TooLong, Verdict::NoSocket];

macro_rules! needs_privileges {
    ($name:literal) => {
        if !privileged($name) {
            return;
        }
    };
}

#[test]
fn tunnel_data_packets_go_to_the_socket() {
    needs_privileges!("tunnel_data_packets_go_to_the_socket");
    let (mut bench, _socket) = bench_with_socket();
    for opcode in [6, 9] {
        for key_id in 0..8 {
            let payload = vec![opcode << 3 | key_id; 40];
            judge(&mut bench, &Datagram { payload, ..Default::default() }.frame(), Verdict::Tunnel);
        }
    }
    let shortest = Datagram { payload: vec![9 << 3], ..Default::default() };
    judge(&mut bench, &shortest.frame(), Verdict::Tunnel);
    let padded = [shortest.frame(), vec![0; 17]].concat();
    judge(&mut bench, &padded, Verdict::Tunnel);
    let fragmentation_forbidden = Datagram { fragment: 0x4000, ..Default::default() };
    judge(&mut bench, &fragmentation_forbidden.frame(), Verdict::Tunnel);
}

#[test]
fn control_packets_pass_with_every_opcode_there_is() {
    needs_privileges!("control_packets_pass_with_every_opcode_there_is");
    let (mut bench, _socket) = bench_with_socket();
    for opcode in (0..32).filter(|opcode| ![6, 9].contains(opcode)) {
        let payload = vec![opcode << 3; 40];
        judge(&mut bench, &Datagram { payload, ..Default::default() }.frame(), Verdict::Pass);
    }
    judge(&mut bench, &Datagram { payload: vec![], ..Default::default() }.frame(), Verdict::Pass);
}

#[test]
fn tunnel_packets_are_found_behind_ip_options_of_every_length() {
    needs_privileges!("tunnel_packets_are_found_behind_ip_options_of_every_length");
    let (mut bench, _socket) = bench_with_socket();
    for words in 0..=10 {
        let options = vec![1; words * 4];
        judge(
            &mut bench,
            &Datagram { options: options.clone(), ..Default::default() }.frame(),
            Verdict::Tunnel,
        );
        let control = Datagram { options, payload: vec![7 << 3; 20], ..Default::default() };
        judge(&mut bench, &control.frame(), Verdict::Pass);
    }
}

#[test]
fn what_is_not_the_tunnels_passes() {
    needs_privileges!("what_is_not_the_tunnels_passes");
    let (mut bench, _socket) = bench_with_socket();
    let base = Datagram::default;
    for (what, datagram) in [
        ("middle fragment", Datagram { fragment: 0x2001, ..base() }),
        ("last fragment", Datagram { fragment: 0x00b9, ..base() }),
        ("highest offset", Datagram { fragment: 0x1fff, ..base() }),
        ("other port", Datagram { destination: (ADDRESS, PORT + 1), ..base() }),
        ("port in the wrong byte order", Datagram { destination: (ADDRESS, PORT.swap_bytes()), ..base() }),
        ("other address", Datagram { destination: ([192, 0, 2, 2], PORT), ..base() }),
        (
            "first fragment to another port",
            Datagram { fragment: 0x2000, destination: (ADDRESS, 53), ..base() },
        ),
        ("our address as source", Datagram { destination: ([1; 4], 5), source: (ADDRESS, PORT), ..base() }),
        ("TCP", Datagram { protocol: 6, ..base() }),
        ("ICMP", Datagram { protocol: 1, ..base() }),
        ("IP version 6 in an IPv4 frame", Datagram { version: 6, ..base() }),
        ("IPv6", Datagram { ethertype: 0x86dd, version: 6, ..base() }),
        ("ARP", Datagram { ethertype: 0x0806, ..base() }),
        ("tagged", Datagram { tags: vec![(TAG, 5)], ..base() }),
        ("priority-tagged", Datagram { tags: vec![(TAG, 0x6000)], ..base() }),
        ("twice tagged", Datagram { tags: vec![(SERVICE_TAG, 5), (TAG, 6)], ..base() }),
        ("router's MAC", Datagram { to: ROUTER, ..base() }),
        ("broadcast", Datagram { to: BROADCAST, ..base() }),
    ] {
        eprintln!("{what}");
        judge(&mut bench, &datagram.frame(), Verdict::Pass);
    }
}

#[test]
fn a_datagram_that_contradicts_itself_passes() {
    needs_privileges!("a_datagram_that_contradicts_itself_passes");
    let (mut bench, _socket) = bench_with_socket();
    let good = Datagram::default().frame();
    for (what, at, value) in [
        ("header of 4 words", 14, 0x44u8),
        ("header of no words", 14, 0x40),
        ("total length beyond the frame", 16, 0xff),
        ("total length below the headers", 17, 27),
        ("UDP length beyond the packet", 38, 0xff),
        ("UDP length below its header", 39, 7),
    ] {
        eprintln!("{what}");
        let mut frame = good.clone();
        frame[at] = value;
        judge(&mut bench, &frame, Verdict::Pass);
    }
}

#[test]
fn a_tunnel_packet_cut_off_anywhere_passes() {
    needs_privileges!("a_tunnel_packet_cut_off_anywhere_passes");
    let (mut bench, _socket) = bench_with_socket();
    let options = vec![1; 40];
    for whole in [Datagram::default().frame(), Datagram { options, ..Default::default() }.frame()] {
        judge(&mut bench, &whole, Verdict::Tunnel);
        for length in 0..whole.len() {
            if length < 14 {
                // No driver hands XDP less than an Ethernet header, and the kernel's test run neither.
                assert!(bench.xdp(names::XDP_NIC, &whole[..length]).is_err());
            } else {
                judge(&mut bench, &whole[..length], Verdict::Pass);
            }
        }
    }
}

#[test]
fn a_cut_off_tag_passes() {
    needs_privileges!("a_cut_off_tag_passes");
    let (mut bench, _socket) = bench_with_socket();
    for length in 14..18 {
        let frame = ethernet(STRANGER, WIRE, &[(TAG, 5)], 0x88b5, &[]);
        judge(&mut bench, &frame[..length], Verdict::Pass);
    }
    judge(&mut bench, &ethernet(STRANGER, WIRE, &[(TAG, 5)], 0x88b5, &[]), Verdict::Flood);
}

#[test]
fn unicast_goes_where_its_destination_stands() {
    needs_privileges!("unicast_goes_where_its_destination_stands");
    let (mut bench, _socket) = bench_with_socket();
    for (destination, verdict) in [
        (PEER, Verdict::ToPeer),
        (STRANGER, Verdict::Flood),
        (WIRE, Verdict::Pass),
        (ROUTER, Verdict::Pass),
        (NIC_MAC, Verdict::Pass),
        (GROUP, Verdict::Pass),
        (BROADCAST, Verdict::Pass),
        ([0x01, 0x80, 0xc2, 0, 0, 0], Verdict::Pass),
    ] {
        judge(&mut bench, &plain(destination, WIRE), verdict);
    }
    bench.station(0, STRANGER, Place::Host, true);
    judge(&mut bench, &plain(STRANGER, WIRE), Verdict::Pass);
    bench.station(0, STRANGER, Place::Peer, true);
    judge(&mut bench, &plain(STRANGER, WIRE), Verdict::ToPeer);
}

#[test]
fn a_tunnel_packet_for_another_listener_behind_a_peer_is_just_a_frame() {
    needs_privileges!("a_tunnel_packet_for_another_listener_behind_a_peer_is_just_a_frame");
    let (mut bench, _socket) = bench_with_socket();
    judge(&mut bench, &Datagram { to: PEER, ..Default::default() }.frame(), Verdict::ToPeer);
    judge(&mut bench, &Datagram { to: STRANGER, ..Default::default() }.frame(), Verdict::Flood);
}

#[test]
fn a_fixed_station_stands_in_every_vlan() {
    needs_privileges!("a_fixed_station_stands_in_every_vlan");
    let (mut bench, _socket) = bench_with_socket();
    let tagged = |destination| ethernet(destination, WIRE, &[(TAG, 5)], 0x88b5, &[0; 46]);
    bench.station(0, STRANGER, Place::Host, false);
    judge(&mut bench, &tagged(STRANGER), Verdict::Flood);
    bench.station(0, STRANGER, Place::Host, true);
    judge(&mut bench, &tagged(STRANGER), Verdict::Pass);
}

#[test]
fn the_outer_tag_names_the_vlan() {
    needs_privileges!("the_outer_tag_names_the_vlan");
    let (mut bench, _socket) = bench_with_socket();
    bench.station(5, STRANGER, Place::Peer, false);
    let mut tagged = |tags: &[(u16, u16)], verdict| {
        judge(&mut bench, &ethernet(STRANGER, WIRE, tags, 0x88b5, &[0; 46]), verdict);
    };
    tagged(&[], Verdict::Flood);
    tagged(&[(TAG, 5)], Verdict::ToPeer);
    tagged(&[(TAG, 0xe005)], Verdict::ToPeer);
    tagged(&[(SERVICE_TAG, 5)], Verdict::ToPeer);
    tagged(&[(SERVICE_TAG, 5), (TAG, 6)], Verdict::ToPeer);
    tagged(&[(SERVICE_TAG, 6), (TAG, 5)], Verdict::Flood);
    tagged(&[(TAG, 6)], Verdict::Flood);
    tagged(&[(TAG, 0x1005)], Verdict::ToPeer);
    bench.station(0, STRANGER, Place::Wire, false);
    let mut tagged = |tags: &[(u16, u16)], verdict| {
        judge(&mut bench, &ethernet(STRANGER, WIRE, tags, 0x88b5, &[0; 46]), verdict);
    };
    tagged(&[(TAG, 0)], Verdict::Pass);
    tagged(&[(TAG, 0xe000)], Verdict::Pass);
    tagged(&[(TAG, 5)], Verdict::ToPeer);
}

#[test]
fn underlay_mode_steers_the_tunnel_only() {
    needs_privileges!("underlay_mode_steers_the_tunnel_only");
    let (mut bench, _socket) = bench_with_socket();
    bench.settings(Settings { bridge: 0, ..default_settings() });
    judge(&mut bench, &Datagram::default().frame(), Verdict::Tunnel);
    for destination in [PEER, STRANGER, WIRE, BROADCAST] {
        judge(&mut bench, &plain(destination, WIRE), Verdict::Pass);
    }
}

#[test]
fn without_settings_everything_passes() {
    needs_privileges!("without_settings_everything_passes");
    let (mut bench, _socket) = bench_with_socket();
    bench.settings(Settings::default());
    judge(&mut bench, &Datagram::default().frame(), Verdict::Pass);
    judge(&mut bench, &plain(PEER, WIRE), Verdict::Pass);
}

#[test]
fn frames_longer_than_the_limit_pass_by_their_own_name() {
    needs_privileges!("frames_longer_than_the_limit_pass_by_their_own_name");
    let (mut bench, _socket) = bench_with_socket();
    let frame_of = |length: usize| ethernet(PEER, WIRE, &[], 0x88b5, &vec![0; length - 14]);
    judge(&mut bench, &frame_of(MAX_FRAME), Verdict::ToPeer);
    judge(&mut bench, &frame_of(MAX_FRAME + 1), Verdict::TooLong);
    let tunnel_of =
        |length: usize| Datagram { payload: vec![9 << 3; length - 42], ..Default::default() }.frame();
    judge(&mut bench, &tunnel_of(MAX_FRAME), Verdict::Tunnel);
    judge(&mut bench, &tunnel_of(MAX_FRAME + 1), Verdict::TooLong);
    // What is not steered is not called too long.
    judge(&mut bench, &ethernet(WIRE, ROUTER, &[], 0x88b5, &vec![0; MAX_FRAME]), Verdict::Pass);
}

#[test]
fn without_a_socket_frames_pass_by_their_own_name() {
    needs_privileges!("without_a_socket_frames_pass_by_their_own_name");
    let mut bench = Bench::new();
    judge(&mut bench, &Datagram::default().frame(), Verdict::NoSocket);
    judge(&mut bench, &plain(PEER, WIRE), Verdict::NoSocket);
    judge(&mut bench, &plain(STRANGER, WIRE), Verdict::NoSocket);
    judge(&mut bench, &plain(WIRE, ROUTER), Verdict::Pass);
    // A socket of another queue serves no other.
    let socket = xsk();
    bench.put(names::XSKS, &(QUEUES - 1).to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes());
    judge(&mut bench, &plain(PEER, WIRE), Verdict::NoSocket);
    bench.put(names::XSKS, &0u32.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes());
    judge(&mut bench, &plain(PEER, WIRE), Verdict::ToPeer);
    // A closed socket leaves the map by itself.
    drop(socket);
    judge(&mut bench, &plain(PEER, WIRE), Verdict::NoSocket);
}

#[test]
fn xdp_refreshes_the_sources_that_tc_does_not_see() {
    needs_privileges!("xdp_refreshes_the_sources_that_tc_does_not_see");
    let (mut bench, _socket) = bench_with_socket();
    judge(&mut bench, &plain(ROUTER, WIRE), Verdict::Pass);
    assert_eq!(bench.last_seen_ns(WIRE), Some(0), "what passes is TC's to hear");
    judge(&mut bench, &plain(PEER, WIRE), Verdict::ToPeer);
    let first = bench.last_seen_ns(WIRE).expect("it is known");
    assert!(first > 0);
    judge(&mut bench, &plain(PEER, WIRE), Verdict::ToPeer);
    assert_eq!(bench.last_seen_ns(WIRE), Some(first), "not again within a second");
    judge(&mut bench, &plain(PEER, ROUTER), Verdict::ToPeer);
    assert_eq!(bench.last_seen_ns(ROUTER), Some(0), "fixed entries do not age");
    judge(&mut bench, &plain(STRANGER, PEER), Verdict::Flood);
    assert_eq!(bench.last_seen_ns(PEER), Some(0), "it stands elsewhere");
    assert!(bench.reported().is_empty(), "XDP never reports: in generic mode it sees injected frames again");
}

#[test]
fn random_bytes_reach_a_socket_only_where_they_make_a_tunnel_packet() {
    needs_privileges!("random_bytes_reach_a_socket_only_where_they_make_a_tunnel_packet");
    let (mut bench, _socket) = bench_with_socket();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let good = Datagram { options: vec![1; 8], ..Default::default() }.frame();
    let mut steered = 0;
    for round in 0..4000 {
        let mut frame = good.clone();
        if round % 2 == 0 {
            // All of it random, but for our address, behind which the parser works.
            frame[6..].fill_with(|| random().to_le_bytes()[3]);
        } else {
            let at = 12 + usize::try_from(random() % 60).expect("small");
            frame[at] = random().to_le_bytes()[5];
        }
        if round % 3 == 0 {
            frame.truncate(14 + usize::try_from(random() % 100).expect("small"));
        }
        let returned = bench.xdp(names::XDP_NIC, &frame).expect("the kernel takes it");
        let expected = if is_tunnel(&frame) { XDP_REDIRECT } else { XDP_PASS };
        assert_eq!(returned, expected, "{frame:02x?}");
        steered += usize::from(returned == XDP_REDIRECT);
    }
    assert!((50..2000).contains(&steered), "both answers are tried: {steered}");
}

/// What the program should find, said again in other words.
fn is_tunnel(frame: &[u8]) -> bool {
    let Some(([0x08, 0x00], packet)) = frame.get(12..).and_then(<[u8]>::split_first_chunk::<2>) else {
        return false;
    };
    let [first, _, length @ ..] = packet else { return false };
    let header = usize::from(first & 15) * 4;
    let (Some(total), Some(udp)) = (length.first_chunk::<2>(), packet.get(header..)) else { return false };
    let total = usize::from(u16::from_be_bytes(*total));
    first >> 4 == 4
        && header >= 20
        && packet.len() >= total
        && udp.len() > 8
        && packet[6] & 0x3f == 0
        && packet[7] == 0
        && packet[9] == 17
        && packet[16..20] == ADDRESS
        && udp[2..4] == PORT.to_be_bytes()
        && (9..=total.saturating_sub(header)).contains(&usize::from(u16::from_be_bytes([udp[4], udp[5]])))
        && matches!(udp[8] >> 3, 6 | 9)
}

#[test]
fn the_pass_program_passes() {
    needs_privileges!("the_pass_program_passes");
    let mut bench = Bench::new();
    assert_eq!(bench.xdp(names::XDP_PASS, &plain(PEER, WIRE)).expect("it runs"), XDP_PASS);
    assert_eq!(bench.verdicts(Verdict::Pass), 0);
}

/// A bench whose host port is a real interface, that counts what is sent to it; in a namespace of the test's own.
fn bench_with_host_port() -> Bench {
    enter_namespace();
    ip("link add host0 type veth peer name host1");
    ip("link set host0 up");
    ip("link set host1 up");
    let mut bench = Bench::new();
    bench.settings(Settings { host_port: index_of("host0"), ..default_settings() });
    bench
}

#[derive(Debug, PartialEq)]
enum Done {
    Passed,
    Redirected,
    Cloned,
}

/// Runs a TC program and says what it did.
#[track_caller]
fn run(bench: &mut Bench, program: &str, frame: &[u8]) -> Done {
    // An interface that came up has things of its own to say (IPv6): what is counted must be ours, so frames are told
    // apart by repeating the run.
    let (mut most, mut least, mut returned) = (0, u64::MAX, 0);
    for _ in 0..3 {
        let before = transmitted("host0");
        returned = bench.tc(program, frame, 0).0;
        let sent = transmitted("host0") - before;
        (most, least) = (most.max(sent), least.min(sent));
    }
    match (returned, least) {
        (TC_PASS, 0) => Done::Passed,
        (TC_PASS, 1) => Done::Cloned,
        (TC_REDIRECT, 0) => Done::Redirected,
        other => panic!("{other:?}, at most {most} sent"),
    }
}

#[test]
fn frames_from_the_wire_reach_peers_and_host() {
    needs_privileges!("frames_from_the_wire_reach_peers_and_host");
    let mut bench = bench_with_host_port();
    for (destination, done) in [
        (BROADCAST, Done::Cloned),
        (GROUP, Done::Cloned),
        (STRANGER, Done::Cloned),
        (PEER, Done::Redirected),
        (NIC_MAC, Done::Passed),
        (ROUTER, Done::Passed),
        (WIRE, Done::Passed),
    ] {
        assert_eq!(run(&mut bench, names::TC_NIC_IN, &plain(destination, WIRE)), done, "{destination:02x?}");
    }
    // Our own tunnel's packets, for the kernel's socket.
    assert_eq!(run(&mut bench, names::TC_NIC_IN, &Datagram::default().frame()), Done::Passed);
    // The NIC's own address passes even where the database has not heard of it.
    let tagged = ethernet(NIC_MAC, WIRE, &[(TAG, 7)], 0x88b5, &[0; 46]);
    assert_eq!(run(&mut bench, names::TC_NIC_IN, &tagged), Done::Passed);
}

#[test]
fn the_hosts_frames_reach_peers_and_wire() {
    needs_privileges!("the_hosts_frames_reach_peers_and_wire");
    let mut bench = bench_with_host_port();
    for (destination, done) in [
        (BROADCAST, Done::Cloned),
        (GROUP, Done::Cloned),
        (STRANGER, Done::Cloned),
        (PEER, Done::Redirected),
        (ROUTER, Done::Passed),
        (WIRE, Done::Passed),
        (NIC_MAC, Done::Passed),
    ] {
        assert_eq!(
            run(&mut bench, names::TC_NIC_OUT, &plain(destination, NIC_MAC)),
            done,
            "{destination:02x?}"
        );
    }
    assert!(bench.reported().is_empty(), "the host's own addresses are not learnt");
}

#[test]
fn the_gateways_own_tunnel_packets_never_enter_the_tunnel() {
    needs_privileges!("the_gateways_own_tunnel_packets_never_enter_the_tunnel");
    let mut bench = bench_with_host_port();
    let ours = Datagram {
        from: NIC_MAC,
        source: (ADDRESS, PORT),
        destination: ([198, 51, 100, 7], 40_000),
        ..Default::default()
    };
    for to in [ROUTER, STRANGER, BROADCAST, PEER] {
        let frame = Datagram { to, ..ours.clone() }.frame();
        assert_eq!(run(&mut bench, names::TC_NIC_OUT, &frame), Done::Passed, "{to:02x?}");
    }
    let options = Datagram { to: STRANGER, options: vec![1; 12], ..ours.clone() };
    assert_eq!(run(&mut bench, names::TC_NIC_OUT, &options.frame()), Done::Passed);
    for other in [
        Datagram { to: STRANGER, source: (ADDRESS, 53), ..ours.clone() },
        Datagram { to: STRANGER, source: ([192, 0, 2, 9], PORT), ..ours.clone() },
        Datagram { to: STRANGER, protocol: 6, ..ours.clone() },
    ] {
        assert_eq!(run(&mut bench, names::TC_NIC_OUT, &other.frame()), Done::Cloned);
    }
}

#[test]
fn tc_passes_everything_in_underlay_mode_without_settings_and_without_a_host_port() {
    needs_privileges!("tc_passes_everything_in_underlay_mode_without_settings_and_without_a_host_port");
    let mut bench = bench_with_host_port();
    let host_port = index_of("host0");
    for settings in [
        Settings { bridge: 0, host_port, ..default_settings() },
        Settings { host_port: 0, ..default_settings() },
        Settings::default(),
    ] {
        bench.settings(settings);
        for program in [names::TC_NIC_IN, names::TC_NIC_OUT] {
            for destination in [PEER, STRANGER, BROADCAST] {
                assert_eq!(run(&mut bench, program, &plain(destination, STRANGER)), Done::Passed);
            }
        }
    }
    assert!(bench.reported().is_empty());
}

#[test]
fn a_stopped_heart_turns_tc_off_and_a_beat_turns_it_on() {
    needs_privileges!("a_stopped_heart_turns_tc_off_and_a_beat_turns_it_on");
    let mut bench = bench_with_host_port();
    let timeout_ns = 2_000_000_000;
    let host_port = index_of("host0");
    bench.settings(Settings { host_port, heartbeat_timeout_ns: timeout_ns, ..default_settings() });
    let now = trestle::xdp::maps::monotonic_ns();
    for (beat_ns, alive) in [
        (0, false),
        (now - timeout_ns - 1, false),
        (now - timeout_ns / 2, true),
        (now, true),
        (u64::MAX, true),
    ] {
        bench.put(names::HEARTBEAT, &0u32.to_ne_bytes(), &beat_ns.to_ne_bytes());
        let (cloned, redirected) =
            if alive { (Done::Cloned, Done::Redirected) } else { (Done::Passed, Done::Passed) };
        for program in [names::TC_NIC_IN, names::TC_NIC_OUT] {
            assert_eq!(run(&mut bench, program, &plain(BROADCAST, WIRE)), cloned);
            assert_eq!(run(&mut bench, program, &plain(PEER, WIRE)), redirected);
        }
    }
}

#[test]
fn injected_frames_pass_unmarked_and_are_not_learnt() {
    needs_privileges!("injected_frames_pass_unmarked_and_are_not_learnt");
    let mut bench = bench_with_host_port();
    let before = transmitted("host0");
    for program in [names::TC_NIC_IN, names::TC_NIC_OUT] {
        for destination in [NIC_MAC, PEER, BROADCAST] {
            assert_eq!(bench.tc(program, &plain(destination, STRANGER), MARK_INJECTED), (TC_PASS, 0));
        }
    }
    assert!(bench.reported().is_empty());
    assert!(
        transmitted("host0") - before < 6,
        "none was cloned; the interface may have said something of its own"
    );
}

#[test]
fn other_marks_are_the_hosts_and_stay() {
    needs_privileges!("other_marks_are_the_hosts_and_stay");
    let mut bench = bench_with_host_port();
    for program in [names::TC_NIC_IN, names::TC_NIC_OUT] {
        assert_eq!(bench.tc(program, &plain(BROADCAST, WIRE), 7), (TC_PASS, 7));
    }
}

#[test]
fn the_host_ports_frames_enter_the_host_with_the_mark() {
    needs_privileges!("the_host_ports_frames_enter_the_host_with_the_mark");
    let mut bench = Bench::new();
    for destination in [NIC_MAC, BROADCAST, STRANGER] {
        assert_eq!(bench.tc(names::TC_HOST_IN, &plain(destination, PEER), 0), (TC_REDIRECT, MARK_INJECTED));
    }
    bench.settings(Settings { bridge: 0, ..default_settings() });
    assert_eq!(bench.tc(names::TC_HOST_IN, &plain(NIC_MAC, PEER), 0), (TC_PASS, 0));
}

#[test]
fn new_and_moved_sources_are_reported_known_and_fixed_ones_are_not() {
    needs_privileges!("new_and_moved_sources_are_reported_known_and_fixed_ones_are_not");
    let mut bench = Bench::new();
    let fixed_peer = [0x02, 0, 0, 0, 0, 0x77];
    bench.station(0, fixed_peer, Place::Peer, true);
    let mut heard = |frame: &[u8]| {
        bench.tc(names::TC_NIC_IN, frame, 0);
        bench.reported()
    };
    assert_eq!(heard(&plain(NIC_MAC, STRANGER)), [FdbKey::new(0, STRANGER)], "new");
    assert_eq!(heard(&plain(BROADCAST, PEER)), [FdbKey::new(0, PEER)], "moved here from a peer");
    let tagged = ethernet(NIC_MAC, WIRE, &[(TAG, 9)], 0x88b5, &[0; 46]);
    assert_eq!(heard(&tagged), [FdbKey::new(9, WIRE)], "known in another VLAN only");
    for (source, why) in [
        (WIRE, "known"),
        (ROUTER, "fixed"),
        (NIC_MAC, "the host's own"),
        (fixed_peer, "fixed behind a peer"),
        (GROUP, "a group"),
        (BROADCAST, "a group"),
        ([0; 6], "zero"),
    ] {
        assert_eq!(heard(&plain(NIC_MAC, source)), [], "{why}");
    }
}

#[test]
fn tc_refreshes_known_stations_once_a_second() {
    needs_privileges!("tc_refreshes_known_stations_once_a_second");
    let mut bench = Bench::new();
    bench.tc(names::TC_NIC_IN, &plain(NIC_MAC, WIRE), 0);
    let first = bench.last_seen_ns(WIRE).expect("it is known");
    assert!(trestle::xdp::maps::monotonic_ns() - first < 5_000_000_000, "it is the gateway's own clock");
    bench.tc(names::TC_NIC_IN, &plain(NIC_MAC, WIRE), 0);
    assert_eq!(bench.last_seen_ns(WIRE), Some(first));
    std::thread::sleep(std::time::Duration::from_millis(1050));
    bench.tc(names::TC_NIC_IN, &plain(NIC_MAC, WIRE), 0);
    assert!(bench.last_seen_ns(WIRE) > Some(first));
}

#[test]
fn a_full_ring_of_reports_loses_reports_and_no_frames() {
    needs_privileges!("a_full_ring_of_reports_loses_reports_and_no_frames");
    let mut bench = Bench::new();
    // 256 KiB hold fewer than 12,000 events of 24 bytes.
    for number in 0..12_000_u16 {
        let [high, low] = number.to_be_bytes();
        let source = [0x02, 0xaa, 0, 0, high, low];
        assert_eq!(bench.tc(names::TC_NIC_IN, &plain(NIC_MAC, source), 0).0, TC_PASS);
    }
    let reported = bench.reported();
    assert!((5_000..12_000).contains(&reported.len()), "{}", reported.len());
}
