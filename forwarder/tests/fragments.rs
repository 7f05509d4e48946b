//! Which fragments XDP steers: all of a tunnel packet, or none; none of anything else.

mod bench;

use std::os::fd::{AsRawFd, OwnedFd};

use bench::*;
use common::{Settings, names};

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

const MORE: u16 = 0x2000;

/// A datagram of the tunnel in three fragments: 64 bytes, 64 bytes and the rest.
#[derive(Clone)]
struct Fragments(Datagram);

impl Fragments {
    fn of(identification: u16) -> Self {
        Self(Datagram { identification, ..Default::default() })
    }

    /// Its first fragment: 64 bytes, with the UDP header of the whole.
    fn first(&self) -> Vec<u8> {
        let payload = [&self.0.payload[..1], &[7; 55]].concat();
        Datagram { fragment: MORE, payload, ..self.0.clone() }.frame()
    }

    /// Without ports: what stands where they would be is data.
    fn middle(&self) -> Vec<u8> {
        Datagram { fragment: MORE | 8, payload: vec![7; 56], ..self.later() }.frame()
    }

    fn last(&self) -> Vec<u8> {
        Datagram { fragment: 16, payload: vec![7; 61], ..self.later() }.frame()
    }

    fn later(&self) -> Datagram {
        Datagram {
            source: (self.0.source.0, 0x4848),
            destination: (self.0.destination.0, 0x4848),
            ..self.0.clone()
        }
    }
}

fn bench_with_socket() -> Option<(Bench, OwnedFd)> {
    if !privileged(std::thread::current().name().unwrap_or("a test of fragments")) {
        return None;
    }
    let (mut bench, socket) = (Bench::new(), xsk());
    bench.put(names::XSKS, &0u32.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes());
    Some((bench, socket))
}

fn is_steered(bench: &mut Bench, frame: &[u8]) -> bool {
    match bench.xdp(names::XDP_NIC, frame).expect("the kernel takes the frame") {
        XDP_REDIRECT => true,
        XDP_PASS => false,
        other => panic!("the program returned {other}"),
    }
}

/// What becomes of fragments, in the order in which they come.
#[track_caller]
fn judge(bench: &mut Bench, frames: &[Vec<u8>], steered: &[bool]) {
    let seen: Vec<_> = frames.iter().map(|frame| is_steered(bench, frame)).collect();
    assert_eq!(seen, steered);
}

#[test]
fn all_fragments_of_a_tunnel_packet_are_steered() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let packet = Fragments::of(7);
    judge(&mut bench, &[packet.first(), packet.middle(), packet.last()], &[true; 3]);
    let packet = Fragments::of(8);
    judge(&mut bench, &[packet.first(), packet.last(), packet.middle(), packet.first()], &[true; 4]);
    let mut packet = Fragments::of(9);
    packet.0.options = vec![1; 12];
    judge(&mut bench, &[packet.first(), packet.last()], &[true; 2]);
    let mut packet = Fragments::of(10);
    packet.0.payload[0] = 6 << 3;
    judge(&mut bench, &[packet.first(), packet.last()], &[true; 2]);
}

#[test]
fn all_fragments_of_anything_else_pass() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let base = || Fragments::of(7).0;
    for (what, datagram) in [
        ("a control packet", Datagram { payload: vec![7 << 3; 60], ..base() }),
        ("another port", Datagram { destination: (ADDRESS, 2049), ..base() }),
        ("another address", Datagram { destination: ([192, 0, 2, 2], PORT), ..base() }),
        ("TCP", Datagram { protocol: 6, ..base() }),
        ("ICMP", Datagram { protocol: 1, ..base() }),
        ("tagged", Datagram { tags: vec![(TAG, 5)], ..base() }),
        ("longer than a worker's memory", Datagram { payload: vec![9 << 3; 2600], ..base() }),
    ] {
        eprintln!("{what}");
        let packet = Fragments(datagram);
        let first = Datagram { fragment: MORE, payload: packet.0.payload[..56].to_vec(), ..packet.0.clone() };
        let first =
            if what.starts_with("longer") { Datagram { fragment: MORE, ..packet.0.clone() } } else { first };
        judge(&mut bench, &[first.frame(), packet.middle(), packet.last()], &[false; 3]);
    }
}

#[test]
fn whoever_comes_first_decides_for_all() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let packet = Fragments::of(7);
    judge(&mut bench, &[packet.last(), packet.first(), packet.middle()], &[false; 3]);
    let packet = Fragments::of(8);
    judge(&mut bench, &[packet.middle(), packet.last(), packet.first()], &[false; 3]);
}

#[test]
fn datagrams_differ_by_addresses_and_identification() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    bench.put(names::LISTENERS, &listener([192, 0, 2, 2], PORT).to_bytes(), &1u32.to_ne_bytes());
    let packet = Fragments::of(7);
    judge(&mut bench, &[packet.first()], &[true]);
    let of_another = Fragments(Datagram { source: ([198, 51, 100, 8], 40_000), ..packet.0.clone() });
    let to_another = Fragments(Datagram { destination: ([192, 0, 2, 2], PORT), ..packet.0.clone() });
    for other in [Fragments::of(8), of_another, to_another] {
        judge(&mut bench, &[other.last()], &[false]);
    }
    judge(&mut bench, &[packet.last()], &[true]);
}

#[test]
fn a_datagram_of_the_host_with_the_number_of_a_tunnel_packet_passes() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let tunnel = Fragments::of(7);
    judge(&mut bench, &[tunnel.first(), tunnel.last()], &[true; 2]);
    let dns = Fragments(Datagram { destination: (ADDRESS, 53), ..tunnel.0.clone() });
    judge(&mut bench, &[dns.first(), dns.middle(), dns.last()], &[false; 3]);
    // And while that is remembered, a tunnel packet of that number is the kernel's: slower, not lost.
    judge(&mut bench, &[tunnel.first(), tunnel.last()], &[false; 2]);
}

#[test]
fn what_was_noted_is_forgotten_after_half_a_second() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let (steered, passed) = (Fragments::of(7), Fragments::of(8));
    judge(&mut bench, &[steered.first(), passed.last()], &[true, false]);
    std::thread::sleep(std::time::Duration::from_millis(600));
    judge(&mut bench, &[steered.last(), steered.first()], &[false; 2]);
    judge(&mut bench, &[passed.first(), passed.last()], &[true; 2]);
}

#[test]
fn sixty_thousand_packets_of_one_sender_do_not_take_one_anothers_place() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    // Not all at once: what was noted must not be forgotten meanwhile.
    for start in (0..60_000).step_by(2_500) {
        let numbers = start..start + 20;
        assert!(numbers.clone().all(|number| is_steered(&mut bench, &Fragments::of(number).first())));
        assert!(numbers.clone().all(|number| is_steered(&mut bench, &Fragments::of(number).last())));
    }
}

#[test]
fn fragments_that_contradict_themselves_pass_and_decide_nothing() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let packet = Fragments::of(7);
    let base = packet.0.clone();
    let cut =
        |length: usize| Datagram { fragment: MORE, payload: vec![9 << 3; length], ..base.clone() }.frame();
    let mut beyond = packet.first();
    beyond[16] = 0xff;
    let mut empty = packet.last();
    empty[17] = 20;
    // The last two end where only a last fragment may, and before there is an opcode.
    for bad in [beyond, empty, cut(55), [cut(0), vec![9 << 3; 30]].concat()] {
        judge(&mut bench, &[bad], &[false]);
    }
    judge(&mut bench, &[packet.first(), packet.last()], &[true; 2]);
}

#[test]
fn a_fragment_cut_off_anywhere_passes() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    let packet = Fragments::of(7);
    judge(&mut bench, &[packet.first()], &[true]);
    for whole in [packet.first(), packet.last()] {
        for length in 14..whole.len() {
            judge(&mut bench, &[whole[..length].to_vec()], &[false]);
        }
    }
    judge(&mut bench, &[packet.last()], &[true]);
}

#[test]
fn where_a_queue_has_no_socket_all_fragments_pass() {
    let Some((mut bench, _socket)) = bench_with_socket() else { return };
    bench.settings(Settings { fragments: 0, ..default_settings() });
    let packet = Fragments::of(7);
    judge(&mut bench, &[packet.first(), packet.middle(), packet.last()], &[false; 3]);
    // A whole tunnel packet is steered none the less.
    judge(&mut bench, &[Datagram::default().frame()], &[true]);
}
