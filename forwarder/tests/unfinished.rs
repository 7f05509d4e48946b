//! What the XDP program on a bridge's port makes of checksums that a sender's stack left unfinished: frame by frame by
//! BPF_PROG_TEST_RUN, and of frames that a real stack sent through a veth.

mod bench;

use std::net::{Ipv4Addr, Ipv6Addr};

use bench::*;
use common::{
    Mac,
    bridge::{PortValue, port_flag as flag},
    names,
};

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
const LOOPBACK: u32 = 1;
const NEAR: Mac = [0x02, 0, 0, 0, 1, 0x01];
const FAR: Mac = [0x02, 0, 0, 0, 2, 0x01];

const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Two open ports, of which the one frames come by is a veth's end.
fn bench_of_a_veth() -> Bench {
    let mut bench = Bench::new();
    let open = flag::FROM | flag::TO;
    for (slot, station, flags) in [(1u32, NEAR, open | flag::UNFINISHED), (2, FAR, open)] {
        let value = PortValue { ifindex: LOOPBACK, flags, max_frame: 1518, ..Default::default() };
        bench.port(slot, value);
        bench.put(names::DEVMAP, &slot.to_ne_bytes(), &u64::from(LOOPBACK).to_le_bytes());
        bench.station_on(slot, 0, station);
    }
    bench
}

#[track_caller]
fn judge(bench: &mut Bench, frame: &[u8], expected: u32) {
    assert_eq!(bench.xdp(names::XDP_PORT, frame).expect("the kernel takes the frame"), expected);
}

/// A TCP or UDP packet whose checksum is the pseudo header's sum plus `off`.
fn packet(addresses: &[&[u8]; 2], protocol: u8, off: u16) -> Vec<u8> {
    let mut payload = vec![0x5a; 40];
    let at = if protocol == TCP { 16 } else { 6 };
    let length = payload.len() as u32;
    let words = addresses.iter().flat_map(|address| address.chunks(2));
    let mut sum = words.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    sum += u32::from(protocol) + length;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let field = u16::try_from(sum).expect("folded").wrapping_add(off);
    payload[at..at + 2].copy_from_slice(&field.to_be_bytes());
    payload
}

fn v4(source: Ipv4Addr, protocol: u8, off: u16) -> Vec<u8> {
    let (source, destination) = (source.octets(), [10, 0, 0, 2]);
    let payload = packet(&[&source, &destination], protocol, off);
    let total = u16::try_from(20 + payload.len()).expect("short").to_be_bytes();
    let head = [0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, protocol, 0, 0];
    [&head[..], &source, &destination, &payload].concat()
}

fn v6(source: Ipv6Addr, protocol: u8, off: u16) -> Vec<u8> {
    let (source, destination) = (source.octets(), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets());
    let payload = packet(&[&source, &destination], protocol, off);
    let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], protocol, 64];
    [&head[..], &source, &destination, &payload].concat()
}

fn framed(kind: u16, packet: &[u8]) -> Vec<u8> {
    ethernet(FAR, NEAR, &[], kind, packet)
}

macro_rules! bench_or_return {
    ($name:literal) => {{
        if !privileged($name) {
            return;
        }
        bench_of_a_veth()
    }};
}

#[test]
fn a_checksum_that_is_the_pseudo_headers_sum_is_left_to_the_bridge() {
    let mut bench = bench_or_return!("a_checksum_that_is_the_pseudo_headers_sum_is_left_to_the_bridge");
    // Sums with no, one and several carries.
    for source in [[10, 0, 0, 1], [255, 255, 245, 253], [240, 15, 255, 255]].map(Ipv4Addr::from) {
        for protocol in [TCP, UDP] {
            judge(&mut bench, &framed(IPV4, &v4(source, protocol, 0)), XDP_PASS);
            for off in [1, 0x100, 0x8000] {
                judge(&mut bench, &framed(IPV4, &v4(source, protocol, off)), XDP_REDIRECT);
            }
        }
    }
    for source in [[0xfd00, 0, 0, 0, 0, 0, 0, 1], [0xffff; 8]].map(Ipv6Addr::from) {
        for protocol in [TCP, UDP] {
            judge(&mut bench, &framed(IPV6, &v6(source, protocol, 0)), XDP_PASS);
            for off in [1, 0x100, 0x8000] {
                judge(&mut bench, &framed(IPV6, &v6(source, protocol, off)), XDP_REDIRECT);
            }
        }
    }
}

#[test]
fn a_port_that_is_a_wire_is_not_looked_at() {
    let mut bench = bench_or_return!("a_port_that_is_a_wire_is_not_looked_at");
    let flags = flag::FROM | flag::TO;
    bench.port(1, PortValue { ifindex: LOOPBACK, flags, max_frame: 1518, ..Default::default() });
    judge(&mut bench, &framed(IPV4, &v4([10, 0, 0, 1].into(), TCP, 0)), XDP_REDIRECT);
    judge(&mut bench, &ethernet(FAR, NEAR, &[(TAG, 5)], IPV4, &[0; 46]), XDP_REDIRECT);
}

#[test]
fn what_cannot_be_judged_is_left_to_the_bridge() {
    let mut bench = bench_or_return!("what_cannot_be_judged_is_left_to_the_bridge");
    let good = v4([10, 0, 0, 1].into(), UDP, 1);
    judge(&mut bench, &framed(IPV4, &good), XDP_REDIRECT);
    let changed = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        framed(IPV4, &packet)
    };
    for (what, frame) in [
        ("options", changed(0, 0x46)),
        ("another version", changed(0, 0x65)),
        ("a first fragment", changed(6, 0x20)),
        ("a later fragment", changed(7, 1)),
        ("a total length below the header's", changed(3, 19)),
        ("SCTP", changed(9, 132)),
        ("UDP-Lite", changed(9, 136)),
        ("DCCP", changed(9, 33)),
        ("a tag", ethernet(FAR, NEAR, &[(TAG, 5)], IPV4, &good)),
        ("another tag", ethernet(FAR, NEAR, &[(SERVICE_TAG, 5)], IPV4, &good)),
        ("cut off ahead of the checksum", framed(IPV4, &good[..26])),
        ("cut off in the header", framed(IPV4, &good[..19])),
    ] {
        eprintln!("{what}");
        judge(&mut bench, &frame, XDP_PASS);
    }
    let good = v6(Ipv6Addr::LOCALHOST, UDP, 1);
    judge(&mut bench, &framed(IPV6, &good), XDP_REDIRECT);
    for header in [0, 43, 44, 60, 132] {
        let mut packet = good.clone();
        packet[6] = header;
        judge(&mut bench, &framed(IPV6, &packet), XDP_PASS);
    }
    judge(&mut bench, &framed(IPV6, &good[..39]), XDP_PASS);
}

#[test]
fn what_a_stack_does_not_leave_unfinished_is_redirected() {
    let mut bench = bench_or_return!("what_a_stack_does_not_leave_unfinished_is_redirected");
    judge(&mut bench, &plain(FAR, NEAR), XDP_REDIRECT);
    judge(&mut bench, &ethernet(FAR, NEAR, &[], 0x0806, &[0; 46]), XDP_REDIRECT);
    let mut icmp = v4([10, 0, 0, 1].into(), UDP, 0);
    icmp[9] = 1;
    judge(&mut bench, &framed(IPV4, &icmp), XDP_REDIRECT);
    let mut icmp = v6(Ipv6Addr::LOCALHOST, UDP, 0);
    icmp[6] = 58;
    judge(&mut bench, &framed(IPV6, &icmp), XDP_REDIRECT);
    // No checksum at all, which UDP over IPv4 may leave out.
    let mut none = v4([10, 0, 0, 1].into(), UDP, 0);
    none[26..28].fill(0);
    judge(&mut bench, &framed(IPV4, &none), XDP_REDIRECT);
}
