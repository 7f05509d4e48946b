use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use super::*;
use crate::{ports::checksum, switch::WireId};

const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 10, 21, 5), 443);
const REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 11), 40_000);

const LOCAL_V6: SocketAddrV6 =
    SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0x21, 0, 0, 0, 0, 5), 443, 0, 0);
const REMOTE_V6: SocketAddrV6 =
    SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x11), 40_000, 0, 0);

fn written(payload: &[u8], outer: &Outer) -> (Vec<u8>, Way) {
    let mut packet = [&vec![0; outer.header_len()][..], payload].concat();
    let way = outer.write(&mut packet, 7);
    (packet, way)
}

#[test]
fn what_is_written_is_read_back() {
    let pairs = [(SocketAddr::V4(LOCAL), SocketAddr::V4(REMOTE)), (LOCAL_V6.into(), REMOTE_V6.into())];
    for (local, remote) in pairs {
        let (packet, way) =
            written(b"hello", &Outer::by_nic(WireId::UPLINK, local, remote, [2; 6], [4; 6], 1500));
        assert_eq!(way, Way::Nic { wire: WireId::UPLINK, mtu: 1500 });
        assert_eq!((&packet[..6], &packet[6..12]), (&[4; 6][..], &[2; 6][..]));
        let arrived = parse(&packet).unwrap();
        assert_eq!(&packet[arrived.payload], b"hello");
        assert_eq!((arrived.path.remote, arrived.path.local), (local, remote));
    }
}

#[test]
fn checksums_verify() {
    for payload in [&b""[..], b"odd", b"even", &[0xff; 1400]] {
        let (packet, _) =
            written(payload, &Outer::by_nic(WireId::UPLINK, LOCAL, REMOTE, [2; 6], [4; 6], 1500));
        assert_eq!(checksum::fold(checksum::sum(&packet[14..34])), 0xffff);
        let pseudo = checksum::sum(&packet[26..34]) + 17 + (8 + payload.len() as u64);
        assert_eq!(checksum::fold(pseudo + checksum::sum(&packet[34..])), 0xffff, "{payload:?}");
        let (packet, _) =
            written(payload, &Outer::by_nic(WireId::UPLINK, LOCAL_V6, REMOTE_V6, [2; 6], [4; 6], 1500));
        let pseudo = checksum::sum(&packet[22..54]) + 17 + (8 + payload.len() as u64);
        assert_eq!(checksum::fold(pseudo + checksum::sum(&packet[54..])), 0xffff, "{payload:?}");
        assert_ne!(packet[60..62], [0; 2], "IPv6 has no UDP without a checksum");
    }
}

#[test]
fn a_packet_longer_than_the_least_mtu_leaves_by_the_socket() {
    let outer = Outer::by_nic(WireId::UPLINK, LOCAL, REMOTE, [2; 6], [4; 6], 1500);
    assert_eq!(written(&[0; 1472], &outer).1, Way::Nic { wire: WireId::UPLINK, mtu: 1500 });
    assert_eq!(written(&[0; 1473], &outer).1, Way::Nic { wire: WireId::UPLINK, mtu: 1500 });
    let narrow = Outer::by_nic(WireId::UPLINK, LOCAL, REMOTE, [2; 6], [4; 6], 575);
    assert_eq!(written(&[0; 547], &narrow).1, Way::Nic { wire: WireId::UPLINK, mtu: 575 });
    assert_eq!(written(&[0; 548], &narrow).1, Way::Socket);
    assert_eq!(written(&[0; 9], &Outer::by_socket(LOCAL, REMOTE)).1, Way::Socket);
    let outer = |mtu| Outer::by_nic(WireId::UPLINK, LOCAL_V6, REMOTE_V6, [2; 6], [4; 6], mtu);
    assert_eq!(written(&[0; 1453], &outer(1500)).1, Way::Nic { wire: WireId::UPLINK, mtu: 1500 });
    assert_eq!(written(&[0; 1231], &outer(1279)).1, Way::Nic { wire: WireId::UPLINK, mtu: 1279 });
    assert_eq!(written(&[0; 1232], &outer(1279)).1, Way::Socket);
    assert_eq!(written(&[0; 9], &Outer::by_socket(LOCAL_V6, REMOTE_V6)).1, Way::Socket);
}

#[test]
fn padding_is_not_payload_and_cut_packets_are_none() {
    let both = [(Outer::by_socket(LOCAL, REMOTE), 42..43), (Outer::by_socket(LOCAL_V6, REMOTE_V6), 62..63)];
    for (outer, payload) in both {
        let (mut packet, _) = written(b"x", &outer);
        for len in 0..packet.len() {
            assert_eq!(parse(&packet[..len]), None, "{len} bytes");
        }
        packet.extend([0; 17]);
        assert_eq!(parse(&packet).unwrap().payload, payload);
    }
}

#[test]
fn fragments_and_other_protocols_are_none() {
    let (packet, _) = written(b"x", &Outer::by_socket(LOCAL, REMOTE));
    for (at, value) in [(20, 0x20), (21, 0x01), (23, 6), (12, 0x86), (14, 0x65), (14, 0x44)] {
        let mut changed = packet.clone();
        changed[at] = value;
        assert_eq!(parse(&changed), None, "byte {at} = {value:#x}");
    }
    let (packet, _) = written(b"x", &Outer::by_socket(LOCAL_V6, REMOTE_V6));
    for (at, value) in [(20, 6), (20, 0), (20, 44), (20, 60), (12, 0x08), (14, 0x45), (59, 7), (59, 99)] {
        let mut changed = packet.clone();
        changed[at] = value;
        assert_eq!(parse(&changed), None, "byte {at} = {value:#x}");
    }
}

#[test]
fn an_ipv4_address_in_the_form_of_ipv6_is_none_on_a_wire() {
    let mapped = SocketAddrV6::new(REMOTE.ip().to_ipv6_mapped(), 40_000, 0, 0);
    assert_eq!(parse(&written(b"x", &Outer::by_socket(LOCAL_V6, mapped)).0), None);
    assert_eq!(parse(&written(b"x", &Outer::by_socket(mapped, REMOTE_V6)).0), None);
}
