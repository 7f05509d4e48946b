//! What XDP and TC do with IPv6, frame by frame: the tunnel's data packets and their fragments are steered, all else is
//! the kernel's.

mod bench;

use std::os::fd::{AsRawFd, OwnedFd};

use bench::*;
use common::{ListenerKeyV6, Settings, names};

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
const TC_REDIRECT: i32 = 7;

const OURS: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
const PEERS: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0x51, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11];

/// A UDP datagram over IPv6; the default is a tunnel data packet for the gateway.
#[derive(Clone)]
struct Datagram {
    to: Mac,
    tags: Vec<(u16, u16)>,
    version: u8,
    /// What follows the IPv6 header first, and bytes ahead of the UDP header.
    next: u8,
    extension: Vec<u8>,
    source: ([u8; 16], u16),
    destination: ([u8; 16], u16),
    payload: Vec<u8>,
}

type Mac = [u8; 6];

impl Default for Datagram {
    fn default() -> Self {
        Self {
            to: NIC_MAC,
            tags: Vec::new(),
            version: 6,
            next: 17,
            extension: Vec::new(),
            source: (PEERS, 40_000),
            destination: (OURS, PORT),
            payload: [&[9 << 3][..], &[0; 60]].concat(),
        }
    }
}

impl Datagram {
    fn udp(&self) -> Vec<u8> {
        let len = u16::try_from(8 + self.payload.len()).expect("it is short");
        let words = [self.source.1, self.destination.1, len, 0xbeef];
        [words.map(u16::to_be_bytes).concat(), self.payload.clone()].concat()
    }

    fn frame(&self) -> Vec<u8> {
        self.frame_of(&[&self.extension[..], &self.udp()].concat())
    }

    fn frame_of(&self, behind: &[u8]) -> Vec<u8> {
        let length = u16::try_from(behind.len()).expect("it is short").to_be_bytes();
        let mut packet = vec![self.version << 4, 0, 0, 0, length[0], length[1], self.next, 64];
        packet.extend(self.source.0);
        packet.extend(self.destination.0);
        packet.extend(behind);
        ethernet(self.to, ROUTER, &self.tags, 0x86dd, &packet)
    }

    /// The fragment with `range` of the datagram.
    fn fragment(&self, identification: u32, range: std::ops::Range<usize>) -> Vec<u8> {
        let udp = self.udp();
        let more = range.end < udp.len();
        let bits = u16::try_from(range.start).expect("it is short") | u16::from(more);
        let header = [&[17, 0][..], &bits.to_be_bytes(), &identification.to_be_bytes()].concat();
        Self { next: 44, ..self.clone() }.frame_of(&[&header, &udp[range]].concat())
    }

    /// All of it in three fragments.
    fn fragments(&self, identification: u32) -> [Vec<u8>; 3] {
        let end = self.udp().len();
        [0..24, 24..48, 48..end].map(|range| self.fragment(identification, range))
    }
}

fn bench_with_socket() -> Option<(Bench, OwnedFd)> {
    if !privileged(std::thread::current().name().unwrap_or("a test of IPv6")) {
        return None;
    }
    let (mut bench, socket) = (Bench::new(), xsk());
    bench.put(names::XSKS, &0u32.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes());
    let key = ListenerKeyV6 { address: OURS, port: PORT.to_be_bytes(), reserved: [0; 2] };
    bench.put(names::LISTENERS_V6, &key.to_bytes(), &1u32.to_ne_bytes());
    Some((bench, socket))
}

fn is_steered(bench: &mut Bench, frame: &[u8]) -> bool {
    match bench.xdp(names::XDP_NIC, frame).expect("the kernel takes the frame") {
        XDP_REDIRECT => true,
        XDP_PASS => false,
        other => panic!("the program returned {other}"),
    }
}

#[test]
fn tunnel_data_packets_are_steered_and_control_packets_are_not() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    for opcode in 0..32 {
        let payload = vec![opcode << 3 | 5; 40];
        let frame = Datagram { payload, ..Default::default() }.frame();
        assert_eq!(is_steered(&mut bench, &frame), [6, 9].contains(&opcode), "opcode {opcode}");
        assert!(!is_steered(&mut bench, &Datagram { payload: vec![], ..Default::default() }.frame()));
    }
    let shortest = Datagram { payload: vec![9 << 3], ..Default::default() }.frame();
    assert!(is_steered(&mut bench, &shortest));
    assert!(is_steered(&mut bench, &[shortest, vec![0; 17]].concat()), "padded");
}

#[test]
fn what_is_not_the_tunnels_passes() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let base = Datagram::default;
    // Eight bytes of padding options, with UDP behind them.
    let option = vec![17, 0, 1, 4, 0, 0, 0, 0];
    let mut other = OURS;
    other[15] = 6;
    for (what, datagram) in [
        ("other port", Datagram { destination: (OURS, PORT + 1), ..base() }),
        ("other address", Datagram { destination: (other, PORT), ..base() }),
        ("our address as source", Datagram { destination: (PEERS, 5), source: (OURS, PORT), ..base() }),
        ("IP version 4 in an IPv6 frame", Datagram { version: 4, ..base() }),
        ("TCP", Datagram { next: 6, ..base() }),
        ("ICMPv6", Datagram { next: 58, ..base() }),
        ("hop-by-hop options", Datagram { next: 0, extension: option.clone(), ..base() }),
        ("destination options", Datagram { next: 60, extension: option.clone(), ..base() }),
        ("routing header", Datagram { next: 43, extension: option, ..base() }),
        ("atomic fragment", Datagram { next: 44, extension: vec![17, 0, 0, 0, 0, 0, 0, 1], ..base() }),
        ("nothing behind", Datagram { next: 59, ..base() }),
        ("tagged", Datagram { tags: vec![(TAG, 5)], ..base() }),
        ("router's MAC", Datagram { to: ROUTER, ..base() }),
        ("neighbours' multicast", Datagram { to: [0x33, 0x33, 0, 0, 0, 1], ..base() }),
    ] {
        assert!(!is_steered(&mut bench, &datagram.frame()), "{what}");
    }
}

#[test]
fn a_packet_that_is_cut_off_or_contradicts_itself_passes() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let whole = Datagram::default().frame();
    let fragment = Datagram::default().fragment(77, 0..24);
    for (frame, identification) in [(&whole, None), (&fragment, Some(61))] {
        for length in 14..frame.len() {
            let mut cut = frame[..length].to_vec();
            // What passed once makes its like pass: each has a number of its own.
            if let Some(byte) = identification.and_then(|at: usize| cut.get_mut(at)) {
                *byte = u8::try_from(length).expect("it is short");
            }
            assert!(!is_steered(&mut bench, &cut), "{length} bytes");
        }
        assert!(is_steered(&mut bench, frame));
    }
    for (what, at, value) in [
        ("payload length beyond the frame", 18, 0xff_u8),
        ("payload length below UDP's", 19, 7),
        ("UDP length beyond the packet", 58, 0xff),
        ("UDP length below its header", 59, 7),
    ] {
        let mut frame = whole.clone();
        frame[at] = value;
        assert!(!is_steered(&mut bench, &frame), "{what}");
    }
}

#[test]
fn fragments_of_a_tunnel_packet_stay_together() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let judge = |bench: &mut Bench, frames: &[&Vec<u8>]| -> Vec<bool> {
        frames.iter().map(|frame| is_steered(bench, frame)).collect()
    };
    let tunnel = Datagram::default();
    let [first, middle, last] = &tunnel.fragments(0x1234_0007);
    assert_eq!(judge(&mut bench, &[first, last, middle, first]), [true; 4]);
    let [first, middle, last] = &tunnel.fragments(0x1234_0008);
    assert_eq!(judge(&mut bench, &[middle, first, last]), [false; 3], "the kernel has one of them");
    // The same lower half of the identification, in the same slot.
    let [first, _, last] = &tunnel.fragments(0x4321_0007);
    assert_eq!(judge(&mut bench, &[last, first]), [false; 2], "another datagram's mark is not its own");

    let mut other = PEERS;
    other[15] = 0x12;
    for (what, of) in [
        ("control packet", Datagram { payload: vec![7 << 3; 60], ..tunnel.clone() }),
        ("other port", Datagram { destination: (OURS, 53), ..tunnel.clone() }),
        ("other address", Datagram { destination: (other, PORT), ..tunnel.clone() }),
    ] {
        let [first, middle, last] = &of.fragments(0x9999_0001);
        assert_eq!(judge(&mut bench, &[first, middle, last]), [false; 3], "{what}");
    }
    let stranger = Datagram { source: (other, 40_000), ..tunnel.clone() };
    let [_, middle, _] = &stranger.fragments(0x1234_0007);
    assert_eq!(judge(&mut bench, &[middle]), [false], "only the source differs");

    bench.settings(Settings { fragments: 0, ..default_settings() });
    let [first, ..] = &tunnel.fragments(99);
    assert_eq!(judge(&mut bench, &[first]), [false], "not every queue is served");
}

#[test]
fn fragments_that_are_none_pass() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let good = Datagram::default().fragment(5, 0..24);
    for (what, at, value) in [
        ("of TCP", 54, 6_u8),
        ("no multiple of 8", 19, 31),
        ("nothing in it", 19, 8),
        ("shorter than its header", 19, 7),
        ("no more than a UDP header", 19, 16),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        bad[61] = value;
        assert!(!is_steered(&mut bench, &bad), "{what}");
    }
    assert!(is_steered(&mut bench, &good));
}

#[test]
fn listeners_of_one_family_are_none_of_the_other() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    // The IPv4 listener's address as IPv6 writes it.
    let mapped = std::net::Ipv4Addr::from(ADDRESS).to_ipv6_mapped().octets();
    assert!(!is_steered(&mut bench, &Datagram { destination: (mapped, PORT), ..Default::default() }.frame()));
    assert!(is_steered(&mut bench, &bench::Datagram::default().frame()), "and IPv4 is as before");
}

#[test]
fn the_gateways_own_packets_are_not_cloned_to_the_peers() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let to_peer = Datagram { to: PEER, ..Default::default() };
    let ours = Datagram { source: (OURS, PORT), destination: (PEERS, 40_000), ..to_peer.clone() };
    assert_eq!(bench.tc(names::TC_NIC_OUT, &to_peer.frame(), 0).0, TC_REDIRECT);
    assert_eq!(bench.tc(names::TC_NIC_OUT, &ours.frame(), 0).0, -1);
}
