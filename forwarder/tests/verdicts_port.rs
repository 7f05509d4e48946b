//! Every rule of the XDP program on a bridge's port, frame by frame, by BPF_PROG_TEST_RUN. Test runs come in by the
//! loopback, queue 0: that is port 1 of the bridge here.

mod bench;

use std::os::fd::{AsRawFd, OwnedFd};

use bench::*;
use common::{
    Mac, Place, QUEUES, Settings, Verdict,
    bridge::{
        CAPTURED_BYTES, CaptureHeader, PortCounters, PortValue, VLAN_WORDS, VlanWord, port_flag as flag,
    },
    names,
};

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
const LOOPBACK: u32 = 1;

/// The port frames come by, and another, with their stations.
const HERE: u32 = 1;
const THERE: u32 = 2;
const NEAR: Mac = [0x02, 0, 0, 0, 1, 0x01];
const FAR: Mac = [0x02, 0, 0, 0, 2, 0x01];
/// Longest frame of a port with an MTU of 1500.
const LONGEST: u32 = 1518;

fn port(flags: u32) -> PortValue {
    PortValue { ifindex: LOOPBACK, flags, max_frame: LONGEST, ..Default::default() }
}

const OPEN: u32 = flag::FROM | flag::TO;

/// Two open ports with a station each, a peer, and a socket for what comes by the first.
struct Bridge {
    bench: Bench,
    _socket: OwnedFd,
}

impl Bridge {
    fn new() -> Self {
        let (mut bench, socket) = (Bench::new(), xsk());
        let index = HERE * QUEUES;
        bench.put(names::XSKS, &index.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes());
        let mut bridge = Self { bench, _socket: socket };
        for (slot, station) in [(HERE, NEAR), (THERE, FAR)] {
            bridge.port(slot, OPEN);
            bridge.bench.put(names::DEVMAP, &slot.to_ne_bytes(), &device(LOOPBACK));
            bridge.bench.station_on(slot, 0, station);
        }
        bridge
    }

    fn port(&mut self, slot: u32, flags: u32) {
        // Which port a frame came by is seen from its interface: the others have another.
        let ifindex = if slot == HERE { LOOPBACK } else { LOOPBACK + slot };
        self.bench.port(slot, PortValue { ifindex, ..port(flags) });
    }

    fn vlan_filtering(&mut self) {
        self.bench.settings(Settings { vlan_filtering: 1, ..default_settings() });
        self.bench.put(names::SLOTS, &LOOPBACK.to_ne_bytes(), &HERE.to_ne_bytes());
    }

    /// The port carries these VLANs: id, and whether without a tag.
    fn vlans(&mut self, slot: u32, vlans: &[(u16, bool)]) {
        let mut words = [VlanWord::default(); VLAN_WORDS as usize];
        for (vid, untagged) in vlans {
            let word = &mut words[usize::from(vid / 64)];
            word.member |= 1 << (vid % 64);
            word.untagged |= u64::from(*untagged) << (vid % 64);
        }
        for (at, word) in (slot * VLAN_WORDS..).zip(words) {
            self.bench.put(names::VLANS, &at.to_ne_bytes(), &word.to_bytes());
        }
    }

    fn run(&mut self, frame: &[u8]) -> u32 {
        self.bench.xdp(names::XDP_PORT, frame).expect("the kernel takes the frame")
    }

    /// Runs the program; asserts that the frame passes, and nothing is noted of it but the verdict.
    #[track_caller]
    fn passes_as(&mut self, frame: &[u8], verdict: Verdict) {
        let before = (self.bench.verdicts(verdict), self.bench.port_counters(HERE));
        assert_eq!(self.run(frame), XDP_PASS);
        assert_eq!((self.bench.verdicts(verdict), self.bench.port_counters(HERE)), (before.0 + 1, before.1));
    }

    #[track_caller]
    fn passes(&mut self, frame: &[u8]) {
        self.passes_as(frame, Verdict::Pass);
    }

    /// Asserts that the frame goes to another port, counted.
    #[track_caller]
    fn goes_to_port(&mut self, frame: &[u8]) {
        let mut expected = self.bench.port_counters(HERE);
        expected.frames_to_ports += 1;
        expected.bytes_to_ports += frame.len() as u64;
        assert_eq!(self.run(frame), XDP_REDIRECT);
        assert_eq!(self.bench.port_counters(HERE), expected);
    }

    /// Asserts that the frame goes to the worker, counted.
    #[track_caller]
    fn goes_to_socket(&mut self, frame: &[u8], verdict: Verdict) {
        let (counted, mut expected) = (self.bench.verdicts(verdict), self.bench.port_counters(HERE));
        expected.frames_to_sockets += 1;
        expected.bytes_to_sockets += frame.len() as u64;
        assert_eq!(self.run(frame), XDP_REDIRECT);
        assert_eq!((self.bench.verdicts(verdict), self.bench.port_counters(HERE)), (counted + 1, expected));
    }
}

/// `struct bpf_devmap_val` without a program.
fn device(ifindex: u32) -> [u8; 8] {
    (u64::from(ifindex)).to_le_bytes()
}

fn tagged(tags: &[(u16, u16)]) -> Vec<u8> {
    ethernet(FAR, NEAR, tags, 0x88b5, &[0; 46])
}

fn sized(length: u32) -> Vec<u8> {
    let mut frame = plain(FAR, NEAR);
    frame.resize(length as usize, 0);
    frame
}

macro_rules! bridge_or_return {
    ($name:literal) => {{
        if !privileged($name) {
            return;
        }
        Bridge::new()
    }};
}

#[test]
fn unicast_between_stations_of_two_ports_is_redirected() {
    let mut bridge = bridge_or_return!("unicast_between_stations_of_two_ports_is_redirected");
    bridge.goes_to_port(&plain(FAR, NEAR));
    bridge.goes_to_port(&Datagram { to: FAR, from: NEAR, ..Default::default() }.frame());
    for slot in [THERE, 0] {
        assert_eq!(bridge.bench.port_counters(slot), PortCounters::default(), "counted where it came in");
    }
}

#[test]
fn groups_and_unknown_destinations_are_the_bridges() {
    let mut bridge = bridge_or_return!("groups_and_unknown_destinations_are_the_bridges");
    for destination in
        [BROADCAST, GROUP, [0x01, 0x80, 0xc2, 0, 0, 0], [0x33, 0x33, 0, 0, 0, 1], STRANGER, [0; 6]]
    {
        bridge.passes(&plain(destination, NEAR));
    }
    // Host and, in a segment without wires of its own, anything else that is no station of a port.
    bridge.bench.station(0, STRANGER, Place::Host, false);
    bridge.passes(&plain(STRANGER, NEAR));
}

#[test]
fn an_unknown_source_is_left_for_the_bridge_to_learn() {
    let mut bridge = bridge_or_return!("an_unknown_source_is_left_for_the_bridge_to_learn");
    for source in [STRANGER, BROADCAST, GROUP, [0; 6]] {
        bridge.passes(&plain(FAR, source));
    }
    // Known elsewhere: behind a peer, as the host's.
    for place in [Place::Peer, Place::Host] {
        bridge.bench.station(0, STRANGER, place, false);
        bridge.passes(&plain(FAR, STRANGER));
    }
}

#[test]
fn a_source_that_moved_is_left_for_the_bridge_to_see() {
    let mut bridge = bridge_or_return!("a_source_that_moved_is_left_for_the_bridge_to_see");
    bridge.bench.station_on(3, 0, STRANGER);
    bridge.port(3, OPEN);
    bridge.passes(&plain(FAR, STRANGER));
    bridge.bench.station_on(HERE, 0, STRANGER);
    bridge.goes_to_port(&plain(FAR, STRANGER));
}

#[test]
fn nothing_is_taken_from_a_port_that_is_not_open() {
    let mut bridge = bridge_or_return!("nothing_is_taken_from_a_port_that_is_not_open");
    for flags in [0, flag::TO, flag::TO | flag::TO_PEERS] {
        bridge.port(HERE, flags);
        bridge.passes(&plain(FAR, NEAR));
        bridge.passes(&plain(PEER, NEAR));
        bridge.passes(&Datagram { from: NEAR, ..Default::default() }.frame());
    }
    bridge.port(HERE, flag::FROM);
    bridge.goes_to_port(&plain(FAR, NEAR));
}

#[test]
fn nothing_is_sent_to_a_port_that_is_not_open() {
    let mut bridge = bridge_or_return!("nothing_is_sent_to_a_port_that_is_not_open");
    bridge.port(THERE, flag::FROM);
    bridge.passes(&plain(FAR, NEAR));
    bridge.port(THERE, flag::TO);
    bridge.goes_to_port(&plain(FAR, NEAR));
    // A slot beyond the last.
    bridge.bench.station_on(common::bridge::PORTS, 0, FAR);
    bridge.passes(&plain(FAR, NEAR));
}

#[test]
fn a_frame_for_the_port_it_came_by_is_the_bridges() {
    let mut bridge = bridge_or_return!("a_frame_for_the_port_it_came_by_is_the_bridges");
    bridge.bench.station_on(HERE, 0, STRANGER);
    bridge.passes(&plain(STRANGER, NEAR));
    bridge.passes(&plain(NEAR, NEAR));
}

#[test]
fn isolated_ports_reach_all_but_each_other() {
    let mut bridge = bridge_or_return!("isolated_ports_reach_all_but_each_other");
    for (here, there, reaches) in
        [(flag::ISOLATED, flag::ISOLATED, false), (flag::ISOLATED, 0, true), (0, flag::ISOLATED, true)]
    {
        bridge.port(HERE, OPEN | here);
        bridge.port(THERE, OPEN | there);
        if reaches { bridge.goes_to_port(&plain(FAR, NEAR)) } else { bridge.passes(&plain(FAR, NEAR)) }
    }
}

#[test]
fn a_port_without_a_device_loses_nothing() {
    let mut bridge = bridge_or_return!("a_port_without_a_device_loses_nothing");
    bridge.bench.put(names::DEVMAP, &THERE.to_ne_bytes(), &device(0));
    bridge.passes(&plain(FAR, NEAR));
}

#[test]
fn frames_longer_than_the_other_port_sends_pass_by_their_own_name() {
    let mut bridge = bridge_or_return!("frames_longer_than_the_other_port_sends_pass_by_their_own_name");
    bridge.goes_to_port(&sized(LONGEST));
    bridge.passes_as(&sized(LONGEST + 1), Verdict::TooLong);
}

#[test]
fn frames_for_peers_go_to_the_socket_of_their_port() {
    let mut bridge = bridge_or_return!("frames_for_peers_go_to_the_socket_of_their_port");
    bridge.passes(&plain(PEER, NEAR));
    bridge.port(HERE, OPEN | flag::TO_PEERS);
    bridge.goes_to_socket(&plain(PEER, NEAR), Verdict::ToPeer);
    bridge.passes(&plain(PEER, STRANGER));
    bridge.passes_as(&ethernet(PEER, NEAR, &[], 0x88b5, &[0; MAX_FRAME]), Verdict::TooLong);
    // The slot's own sockets, no others.
    bridge.bench.station_on(THERE, 0, NEAR);
    bridge.bench.port(THERE, port(OPEN | flag::TO_PEERS));
    bridge.passes_as(&plain(PEER, NEAR), Verdict::NoSocket);
}

#[test]
fn tunnel_packets_to_the_bridges_mac_go_to_the_socket_once_their_sender_is_learnt() {
    let mut bridge =
        bridge_or_return!("tunnel_packets_to_the_bridges_mac_go_to_the_socket_once_their_sender_is_learnt");
    let tunnel = |from| Datagram { from, ..Default::default() };
    bridge.passes(&tunnel(NEAR).frame());
    bridge.port(HERE, OPEN | flag::TO_PEERS);
    bridge.goes_to_socket(&tunnel(NEAR).frame(), Verdict::Tunnel);
    bridge.passes(&tunnel(STRANGER).frame());
    bridge.passes(&plain(NIC_MAC, NEAR));
    let control = Datagram { payload: vec![7 << 3; 20], ..tunnel(NEAR) };
    bridge.passes(&control.frame());
    bridge.passes(&Datagram { destination: (ADDRESS, PORT + 1), ..tunnel(NEAR) }.frame());
    bridge.passes(&Datagram { tags: vec![(TAG, 5)], ..tunnel(NEAR) }.frame());
}

#[test]
fn stations_in_use_are_heard_and_those_the_bridge_hears_itself_are_not() {
    let mut bridge = bridge_or_return!("stations_in_use_are_heard_and_those_the_bridge_hears_itself_are_not");
    bridge.passes(&plain(STRANGER, NEAR));
    assert_eq!(bridge.bench.last_seen_ns(NEAR), Some(0));
    bridge.goes_to_port(&plain(FAR, NEAR));
    let first = bridge.bench.last_seen_ns(NEAR).expect("it is known");
    assert!(first > 0);
    bridge.goes_to_port(&plain(FAR, NEAR));
    assert_eq!(bridge.bench.last_seen_ns(NEAR), Some(first), "not again within a second");
    assert_eq!(bridge.bench.last_seen_ns(FAR), Some(0), "it has said nothing");
    bridge.bench.station_on(HERE, 0, NEAR);
    bridge.port(HERE, OPEN | flag::TO_PEERS);
    bridge.goes_to_socket(&plain(PEER, NEAR), Verdict::ToPeer);
    assert!(bridge.bench.last_seen_ns(NEAR) > Some(0));
}

#[test]
fn without_vlan_filtering_tags_are_not_looked_at() {
    let mut bridge = bridge_or_return!("without_vlan_filtering_tags_are_not_looked_at");
    for tags in [&[(TAG, 5)][..], &[(TAG, 0xe000)], &[(SERVICE_TAG, 7), (TAG, 5)]] {
        bridge.goes_to_port(&tagged(tags));
    }
    bridge.passes(&tagged(&[(TAG, 5)])[..17]);
}

#[test]
fn with_vlan_filtering_only_what_keeps_its_tag_is_taken() {
    let mut bridge = bridge_or_return!("with_vlan_filtering_only_what_keeps_its_tag_is_taken");
    bridge.vlan_filtering();
    bridge.bench.port(HERE, PortValue { pvid: 1, ..port(OPEN) });
    for vlan in [1, 5, 64, 4094] {
        bridge.bench.station_on(HERE, vlan, NEAR);
        bridge.bench.station_on(THERE, vlan, FAR);
    }
    // By VLAN of the frame: how the two ports carry it, and whether the frame goes.
    let (with_tag, without) = ((|vid| tagged(&[(TAG, vid)])) as fn(u16) -> Vec<u8>, plain(FAR, NEAR));
    bridge.vlans(HERE, &[(1, true), (5, false), (4094, false)]);
    bridge.vlans(THERE, &[(1, true), (5, false), (64, false)]);
    bridge.goes_to_port(&without);
    bridge.goes_to_port(&with_tag(5));
    bridge.goes_to_port(&with_tag(0xe005));
    // It would lose its tag; it has none of these VLANs where it came by, or would leave; nobody has that one.
    for vid in [1, 64, 4094, 6] {
        bridge.passes(&with_tag(vid));
    }
    // Without a tag it would get one.
    bridge.vlans(THERE, &[(1, false)]);
    bridge.passes(&without);
    bridge.goes_to_port(&with_tag(1));
    // Priority tags become VLAN tags or go; tags of another kind are no tags to the bridge.
    bridge.vlans(THERE, &[(1, true), (5, false)]);
    bridge.passes(&with_tag(0));
    bridge.passes(&with_tag(0xe000));
    bridge.passes(&tagged(&[(SERVICE_TAG, 5)]));
    // Without a VLAN for them untagged frames are the bridge's to drop.
    bridge.bench.port(HERE, port(OPEN));
    bridge.passes(&without);
    bridge.goes_to_port(&with_tag(5));
}

#[test]
fn with_vlan_filtering_stations_stand_in_one_vlan_and_none_behind_peers() {
    let mut bridge =
        bridge_or_return!("with_vlan_filtering_stations_stand_in_one_vlan_and_none_behind_peers");
    bridge.vlan_filtering();
    bridge.bench.port(HERE, PortValue { pvid: 1, ..port(OPEN | flag::TO_PEERS) });
    for slot in [HERE, THERE] {
        bridge.vlans(slot, &[(1, true), (2, false)]);
    }
    bridge.bench.station_on(HERE, 1, NEAR);
    bridge.passes(&plain(FAR, NEAR));
    bridge.bench.station_on(THERE, 1, FAR);
    bridge.goes_to_port(&plain(FAR, NEAR));
    bridge.passes(&tagged(&[(TAG, 2)]));
    bridge.bench.station(1, PEER, Place::Peer, false);
    bridge.passes(&plain(PEER, NEAR));
    bridge.passes(&Datagram { from: NEAR, ..Default::default() }.frame());
}

#[test]
fn a_captured_port_has_copies_of_what_comes_and_goes_and_others_have_none() {
    let mut bridge =
        bridge_or_return!("a_captured_port_has_copies_of_what_comes_and_goes_and_others_have_none");
    bridge.goes_to_port(&plain(FAR, NEAR));
    assert_eq!(bridge.bench.captured(), []);
    let long = sized(LONGEST);
    for (here, there) in [(flag::CAPTURE, 0), (0, flag::CAPTURE), (flag::CAPTURE, flag::CAPTURE)] {
        bridge.port(HERE, OPEN | here);
        bridge.port(THERE, OPEN | there);
        bridge.goes_to_port(&long);
        bridge.passes(&plain(STRANGER, NEAR));
        let [(header, bytes)] = &bridge.bench.captured()[..] else { panic!("one record") };
        let verdict = Verdict::ToPort as u32;
        let expected =
            CaptureHeader { time_ns: header.time_ns, from: HERE, to: THERE, verdict, length: LONGEST };
        assert!(header.time_ns > 0);
        assert_eq!((*header, bytes), (expected, &long));
    }
    bridge.port(HERE, OPEN | flag::TO_PEERS | flag::CAPTURE);
    bridge.goes_to_socket(&plain(PEER, NEAR), Verdict::ToPeer);
    let [(header, bytes)] = &bridge.bench.captured()[..] else { panic!("one record") };
    assert_eq!((header.to, header.verdict), (CaptureHeader::NO_PORT, Verdict::ToPeer as u32));
    assert_eq!(*bytes, plain(PEER, NEAR));
}

#[test]
fn a_capture_has_the_first_bytes_of_long_frames_and_counts_what_it_misses() {
    let mut bridge =
        bridge_or_return!("a_capture_has_the_first_bytes_of_long_frames_and_counts_what_it_misses");
    let length = CAPTURED_BYTES + 100;
    bridge.bench.port(THERE, PortValue { ifindex: 3, max_frame: 9018, ..port(OPEN | flag::CAPTURE) });
    for length in [CAPTURED_BYTES - 1, CAPTURED_BYTES, CAPTURED_BYTES + 1, length] {
        bridge.goes_to_port(&sized(length));
        let [(header, bytes)] = &bridge.bench.captured()[..] else { panic!("one record") };
        assert_eq!(header.length, length);
        assert_eq!(*bytes, sized(length.min(CAPTURED_BYTES)));
    }
    // Unread until it is full: frames go on.
    let held = common::bridge::CAPTURES_BYTES / CAPTURED_BYTES;
    for _ in 0..held + 10 {
        assert_eq!(bridge.run(&sized(length)), XDP_REDIRECT);
    }
    let missed = bridge.bench.port_counters(HERE).uncaptured;
    assert!(missed >= 10, "{missed}");
    assert_eq!(bridge.bench.captured().len() as u64 + missed, u64::from(held) + 10);
}
