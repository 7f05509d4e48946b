use std::{
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::ports::{
    BATCH,
    testing::{frames_of, in_namespace, ip, numbered, receive, run, transmit},
};

fn frames() -> Frames {
    Frames::in_memory(512, 1792)
}

fn open(name: &str) -> (HostPort, Arc<DropCounters>) {
    let drops = Arc::new(DropCounters::default());
    (HostPort::open(name, false, Arc::clone(&drops)).unwrap(), drops)
}

/// One side of a relay: the TAP and a server in a namespace of their own, on a thread that lives until `stop` is
/// dropped.
struct Side {
    port: HostPort,
    drops: Arc<DropCounters>,
    _server: Server,
    stop: mpsc::Sender<()>,
}

/// An iperf3 server, which ends with the test.
struct Server(Child);

impl std::ops::Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Has iperf3 report as JSON. The server takes one test at a time, and on a busy machine is not done with the one before,
/// or gives a report without figures: tried ten times.
fn iperf3(words: &str) -> String {
    let words: Vec<_> = words.split_whitespace().collect();
    let mut output = String::new();
    for _ in 0..10 {
        let run =
            Command::new("iperf3").args(["-J", "--connect-timeout", "2000"]).args(&words).output().unwrap();
        output = String::from_utf8_lossy(&run.stdout).into_owned();
        if run.status.success() && has_figures(&output) {
            return output;
        }
        thread::sleep(Duration::from_millis(300));
    }
    panic!("iperf3 {words:?}: {output}");
}

fn far_side() -> Side {
    let (send, made) = mpsc::channel();
    thread::spawn(move || {
        in_namespace(move || {
            let (port, drops) = open("tap0");
            address("2");
            let mut server = Command::new("iperf3");
            server.arg("-s").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let server = Server(server.spawn().unwrap());
            let (stop, stopped) = mpsc::channel();
            send.send(Side { port, drops, _server: server, stop }).unwrap();
            let _ = stopped.recv();
            assert_eq!(checksum_errors(), 0);
        });
    });
    made.recv().unwrap()
}

/// Sets up `tap0` as host `number` of 10.77.0.0/24 and fd77::/64.
fn address(number: &str) {
    std::fs::write("/proc/sys/net/ipv6/conf/tap0/accept_dad", "0").unwrap();
    ip(&format!("addr add 10.77.0.{number}/24 dev tap0"));
    ip(&format!("addr add fd77::{number}/64 dev tap0 nodad"));
    ip("link set tap0 up");
}

/// TCP and UDP packets with a wrong checksum that the thread's namespace has seen.
fn checksum_errors() -> u64 {
    let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let snmp6 = std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
    let mut errors = 0;
    for protocol in ["Tcp:", "Udp:"] {
        let mut lines = snmp.lines().filter(|line| line.starts_with(protocol));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split(' ').position(|name| name == "InCsumErrors").unwrap();
        errors += values.split(' ').nth(at).unwrap().parse::<u64>().unwrap();
    }
    let six = snmp6.lines().filter(|line| line.starts_with("Udp6InCsumErrors"));
    errors + six.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum::<u64>()
}

/// Moves frames between two TAPs until told to stop; returns the longest frame and how often a batch ended within a
/// large segment.
fn relay(mut left: HostPort, mut right: HostPort, stop: &mpsc::Receiver<()>) -> (usize, usize) {
    let mut frames = frames();
    let (mut longest, mut interrupted) = (0, 0);
    let mut received = Vec::new();
    while stop.try_recv() == Err(mpsc::TryRecvError::Empty) {
        let busy = left.has_leftovers() || right.has_leftovers();
        wait(&left, &right, if busy { 0 } else { 20 });
        left.receive(&mut frames, &mut received, BATCH);
        longest = received.iter().map(Frame::len).fold(longest, usize::max);
        right.transmit(&mut frames, &mut received);
        right.receive(&mut frames, &mut received, BATCH);
        longest = received.iter().map(Frame::len).fold(longest, usize::max);
        left.transmit(&mut frames, &mut received);
        interrupted += usize::from(left.has_leftovers()) + usize::from(right.has_leftovers());
        assert_eq!(frames.free(), frames.total());
    }
    (longest, interrupted)
}

fn wait(left: &HostPort, right: &HostPort, ms: u8) {
    let mut fds = [left, right].map(|port| PollFd::new(port.readable().unwrap(), PollFlags::POLLIN));
    poll(&mut fds, PollTimeout::from(ms)).unwrap();
}

#[test]
fn tcp_and_udp_of_two_kernels_cross_a_pair_of_taps_whole() {
    if Command::new("iperf3").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: iperf3 is not installed");
    }
    in_namespace(|| {
        let (near, near_drops) = open("tap0");
        address("1");
        let far = far_side();
        let (stop, stopped) = mpsc::channel();
        let relaying = thread::spawn(move || relay(near, far.port, &stopped));
        thread::sleep(Duration::from_millis(300));

        for target in ["10.77.0.2", "fd77::2"] {
            for direction in ["", "-R"] {
                let report = iperf3(&format!("-c {target} -t 1 {direction}"));
                let bytes = sum_received(&report);
                println!("TCP {target} {direction}: {} Mbit/s", bytes * 8 / 1_000_000);
                assert!(bytes > 20_000_000, "TCP {target} {direction}: {bytes} bytes in a second");
            }
            let (packets, lost) = udp_packets(&iperf3(&format!("-c {target} -u -b 20M -l 1400 -t 1")));
            println!("UDP {target}: {lost} of {packets} packets lost");
            // A busy machine overruns a socket now and then; a wrong checksum would lose them all.
            assert!(packets > 0 && lost * 10 < packets, "UDP {target}: {lost} of {packets} packets lost");
        }
        assert_eq!(checksum_errors(), 0);
        assert!(run("ethtool", "-k tap0").contains("tcp-segmentation-offload: on"));

        drop(stop);
        let (longest, interrupted) = relaying.join().unwrap();
        assert_eq!(longest, 1514, "frames of the MTU and none longer");
        assert!(interrupted > 0, "large segments were cut");
        for drops in [near_drops, far.drops] {
            assert_eq!(drops.get(Drop::SegmentMalformed) + drops.get(Drop::ChecksumUnfinishable), 0);
            assert_eq!(drops.get(Drop::FrameMalformed), 0);
        }
        drop(far.stop);
    });
}

fn has_figures(report: &str) -> bool {
    let report: serde_json::Value = serde_json::from_str(report).unwrap_or_default();
    let end = &report["end"];
    end["sum_received"]["bytes"].is_u64() || end["sum"]["packets"].is_u64()
}

/// `end.sum_received.bytes` of iperf3's JSON.
fn sum_received(report: &str) -> u64 {
    let report: serde_json::Value = serde_json::from_str(report).unwrap();
    report["end"]["sum_received"]["bytes"].as_u64().unwrap()
}

/// Packets sent and lost, from iperf3's JSON.
fn udp_packets(report: &str) -> (u64, u64) {
    let report: serde_json::Value = serde_json::from_str(report).unwrap();
    let sum = &report["end"]["sum"];
    (sum["packets"].as_u64().unwrap(), sum["lost_packets"].as_u64().unwrap())
}

#[test]
fn a_frame_goes_to_the_host_and_too_short_ones_are_counted() {
    in_namespace(|| {
        let (mut port, drops) = open("tap");
        assert_eq!(port.name(), "tap0");
        let station = {
            ip("link set tap0 addrgenmode none");
            ip("link set tap0 up");
            crate::ports::testing::Station::on("tap0")
        };
        let mut frames = frames();
        let sent = [numbered(1, 60), numbered(2, 1514), numbered(3, 18)];
        transmit(&mut port, &mut frames, &[&sent[0], &[7; 13], &[], &sent[1], &sent[2]]);
        assert_eq!(station.receive(3), sent);
        assert_eq!(drops.get(Drop::FrameMalformed), 2);

        assert!(station.send(&sent[1]) && station.send(&sent[0]));
        assert_eq!(receive(&mut port, &mut frames, 2), [sent[1].clone(), sent[0].clone()]);
        assert_eq!(frames.free(), frames.total());
    });
}

#[test]
fn a_large_segment_waits_for_memory_and_loses_nothing() {
    in_namespace(|| {
        let (mut port, drops) = open("tap0");
        let mut frames = Frames::in_memory(3, 1792);
        // As the host's stack hands it over: 20 times 1448 bytes and 7 more.
        let payload: Vec<u8> = (0..20 * 1448 + 7).map(|at: u32| (at / 1448) as u8).collect();
        let packet = [
            &[2; 12][..],
            &[0x08, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2],
            &[0, 80, 0, 81, 0, 0, 0, 0, 0, 0, 0, 9, 0x50, 0x18, 1, 1, 0, 0, 0, 0],
            &payload,
        ]
        .concat();
        let cut = header(1, 1, 1448, 34, 16).cut(&packet).unwrap();
        port.buffer[VNET_LEN..VNET_LEN + packet.len()].copy_from_slice(&packet);
        port.pending = Some(Pending { cut, next: 0, len: packet.len() });

        let mut seen = Vec::new();
        let mut turns = 0;
        while port.has_leftovers() {
            let mut received = Vec::new();
            port.receive(&mut frames, &mut received, BATCH);
            assert_eq!((received.len(), frames.free()), (3, 0), "as much as there is memory for");
            for frame in received {
                seen.extend_from_slice(&frames.bytes(&frame)[54..]);
                frames.put(frame);
            }
            turns += 1;
        }
        assert_eq!(turns, 7);
        assert!(seen == payload);
        assert_eq!(drops.get(Drop::SegmentMalformed), 0);
    });
}

#[test]
fn a_host_port_that_is_down_counts_what_it_cannot_deliver() {
    in_namespace(|| {
        let (mut port, drops) = open("tap0");
        let mut frames = frames();
        transmit(&mut port, &mut frames, &[&numbered(1, 60), &numbered(2, 60)]);
        assert_eq!(drops.get(Drop::HostPortFull), 2);
        assert_eq!(frames.free(), frames.total());
    });
}

#[test]
fn a_tap_that_goes_away_under_us_is_no_panic() {
    in_namespace(|| {
        let (mut port, _drops) = open("tap0");
        ip("link set tap0 up");
        ip("link del tap0");
        let mut frames = frames();
        let mut received = Vec::new();
        port.receive(&mut frames, &mut received, BATCH);
        assert!(received.is_empty());
        let mut queue = frames_of(&mut frames, &[&numbered(1, 60)]);
        port.transmit(&mut frames, &mut queue);
        assert_eq!(frames.free(), frames.total());
    });
}

#[test]
fn a_tap_goes_with_its_port_but_a_persistent_one_stays() {
    in_namespace(|| {
        let exists =
            |name: &str| Command::new("ip").args(["link", "show", name]).output().unwrap().status.success();
        let (port, _) = open("tap0");
        assert!(exists("tap0"));
        let busy = HostPort::open("tap0", false, Arc::default()).unwrap_err();
        assert!(busy.to_string().contains("another program has it open"), "{busy}");
        drop(port);
        // A child that another test is starting has our descriptors until it executes its program.
        let gone = (0..50).any(|_| {
            thread::sleep(Duration::from_millis(20));
            !exists("tap0")
        });
        assert!(gone);

        for mode in ["", " multi_queue"] {
            ip(&format!("tuntap add dev old0 mode tap{mode}"));
            let (port, _) = open("old0");
            assert_eq!(port.name(), "old0");
            drop(port);
            assert!(exists("old0"));
            ip("link del old0");
        }
    });
}

#[test]
fn names_that_cannot_be_a_tap_are_refused_in_words() {
    in_namespace(|| {
        let error = |name: &str| HostPort::open(name, false, Arc::default()).unwrap_err().to_string();
        assert!(error("lo").contains("exists and is no TAP"), "{}", error("lo"));
        assert!(error("a-name-of-sixteen").contains("at most 15"), "{}", error("a-name-of-sixteen"));
    });
}

#[test]
fn several_workers_each_have_a_queue_of_one_tap() {
    in_namespace(|| {
        let first = HostPort::open("tap0", true, Arc::default()).unwrap();
        let second = HostPort::open("tap0", true, Arc::default()).unwrap();
        assert_eq!((first.name(), second.name()), ("tap0", "tap0"));
    });
}

/// A `virtio_net_hdr`.
fn header(flags: u8, gso_type: u8, gso_size: u16, start: u16, offset: u16) -> Header {
    let mut bytes = [0; VNET_LEN];
    bytes[0] = flags;
    bytes[1] = gso_type;
    bytes[4..6].copy_from_slice(&gso_size.to_ne_bytes());
    bytes[6..8].copy_from_slice(&start.to_ne_bytes());
    bytes[8..10].copy_from_slice(&offset.to_ne_bytes());
    Header::of(&bytes)
}

#[test]
fn what_the_host_s_header_promises_and_does_not_keep_has_a_name() {
    let mut frames = frames();
    let mut verdict = |header: &Header, packet: &[u8]| {
        let frame = frames.take().unwrap();
        let (verdict, frame) = match accept(header, packet, &frames, frame) {
            Ok(Accepted::Frame(frame) | Accepted::Large(_, frame)) => (None, frame),
            Err((reason, frame)) => (Some(reason), frame),
        };
        frames.put(frame);
        verdict
    };
    let packet = numbered(1, 1514);
    assert_eq!(verdict(&header(0, 0, 0, 0, 0), &packet), None);
    assert_eq!(verdict(&header(0, 0, 0, 0, 0), &packet[..13]), Some(Drop::FrameMalformed));
    assert_eq!(verdict(&header(0, 0, 0, 0, 0), &[0; 1793]), Some(Drop::FrameMalformed));
    assert_eq!(verdict(&header(1, 0, 0, 34, 16), &packet), None);
    assert_eq!(verdict(&header(1, 0, 0, 1500, 16), &packet), Some(Drop::ChecksumUnfinishable));
    assert_eq!(verdict(&header(1, 0, 0, 65_535, 65_535), &packet), Some(Drop::ChecksumUnfinishable));
    for gso_type in [1, 3, 4, 5, 0x81, 0x7f] {
        assert_eq!(verdict(&header(1, gso_type, 1448, 34, 16), &packet), Some(Drop::SegmentMalformed));
    }
}
