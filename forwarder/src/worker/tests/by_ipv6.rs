//! Peers that are reached by IPv6, beside others by IPv4.

use std::net::{Ipv6Addr, SocketAddrV6};

use super::{
    fragmented::{checksum_of, set_mtu},
    *,
};

const GATEWAY_V6: SocketAddrV6 =
    SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0x21, 0, 0, 0, 0, 5), 443, 0, 0);

fn path_v6(host: u16) -> Path {
    let address = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, host);
    Path::udp(SocketAddr::from((address, 40_000)), GATEWAY_V6.into())
}

/// A packet as its sender's kernel cuts it, for links of `mtu` bytes.
fn cut(packet: &[u8], mtu: usize, identification: u32) -> Vec<Vec<u8>> {
    let part = (mtu - 48) & !7;
    let (header, datagram) = packet.split_at(54);
    let count = datagram.len().div_ceil(part);
    let cut_one = |(at, payload): (usize, &[u8])| {
        let bits = u16::try_from(at * part).unwrap() | u16::from(at + 1 < count);
        let mut fragment = header.to_vec();
        fragment[18..20].copy_from_slice(&u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
        fragment[20] = 44;
        fragment.extend([17, 0]);
        fragment.extend(bits.to_be_bytes());
        fragment.extend(identification.to_be_bytes());
        fragment.extend(payload);
        fragment.extend([0xee; 3]);
        fragment
    };
    datagram.chunks(part).enumerate().map(cut_one).collect()
}

#[test]
fn peers_of_both_families_reach_each_other_in_frames_of_every_length() {
    let mut gateway = Gateway::new(1);
    let (mut a, mut b) = (gateway.connect_by(PROFILE, 0, path_v6(1)), gateway.connect(1));
    gateway.station(a.mac, Place::Peer(a.peer_id), false);
    gateway.station(b.mac, Place::Peer(b.peer_id), false);
    for len in [0, 46, 1000, 1386, 1387, 1400, 1500] {
        for _ in 0..2 {
            let (from, to) = (&mut a, &mut b);
            let sent = frame(to.mac, from.mac, &vec![7; len]);
            let packet = from.seal(&sent);
            gateway.rigs[0].nic.send(&packet);
            gateway.turn();
            assert_eq!(gateway.received_by(to), [sent], "{len} bytes");
            std::mem::swap(&mut a, &mut b);
        }
    }
    assert_eq!((a.counters.rx_frames_xdp.load(Relaxed), gateway.all_drops()), (7, 0));
    assert_eq!(a.counters.tx_bytes.load(Relaxed), b.counters.tx_bytes.load(Relaxed), "headers do not count");
}

#[test]
fn a_packet_is_cut_as_the_kernel_cuts_it() {
    for (mtu, lengths) in [(1500, &[1510, 160][..]), (1499, &[1510, 160]), (1280, &[1294, 376])] {
        let mut gateway = Gateway::new(1);
        let mut a = gateway.connect_by(PROFILE, 0, path_v6(1));
        set_mtu(&mut gateway, &a, mtu);
        gateway.station(a.mac, Place::Peer(a.peer_id), false);
        let sent = frame(a.mac, ON_WIRE, &[9; 1500]);
        gateway.rigs[0].nic.send(&sent);
        gateway.turn();
        let left: Vec<_> = std::iter::from_fn(|| gateway.rigs[0].nic.next()).collect();
        assert_eq!(left.iter().map(Vec::len).collect::<Vec<_>>(), lengths, "MTU {mtu}");
        for fragment in &left {
            assert_eq!((fragment[20], fragment[54], fragment[55]), (44, 17, 0));
            assert_eq!(usize::from(u16::from_be_bytes([fragment[18], fragment[19]])), fragment.len() - 54);
            assert_eq!(fragment[58..62], left[0][58..62], "one identification");
        }
        let whole = fragments::tests::joined(left.into_iter()).remove(0);
        let pseudo = [&whole[22..54], &[0, 17], &whole[58..60]].concat();
        assert_eq!(checksum_of(&[&pseudo, &whole[54..]].concat()), 0xffff, "UDP's is of the whole");
        assert_eq!(a.open(&whole), Some(sent));
        assert_eq!((a.counters.tx_frames.load(Relaxed), gateway.all_drops()), (1, 0));
    }
}

#[test]
fn fragments_are_one_frame_in_any_order_and_on_any_queue() {
    let mut gateway = Gateway::new(2);
    let mut a = gateway.connect_by(PROFILE, 0, path_v6(1));
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    for number in 0..32_u8 {
        let sent = frame(ON_WIRE, a.mac, &[number; 1500]);
        let [first, second] = &cut(&a.seal(&sent), 1500, 0x8000_0000 | u32::from(number))[..] else {
            panic!("a pair")
        };
        gateway.rigs[0].nic.send(if number % 2 == 0 { first } else { second });
        gateway.turn();
        gateway.rigs[usize::from(number / 16)].nic.send(if number % 2 == 0 { second } else { first });
        gateway.turn();
        gateway.now += Duration::from_millis(2);
        (0..2).for_each(|_| gateway.turn());
        let left: Vec<_> = gateway.rigs.iter().filter_map(|rig| rig.nic.next()).collect();
        assert_eq!(left, [sent], "packet {number}");
    }
    assert_eq!(gateway.all_drops(), 0);
    assert!(gateway.rigs.iter().all(|rig| rig.worker.frames.free() == FRAMES));
}

#[test]
fn the_longest_packet_a_frame_holds_is_put_together_and_a_longer_one_is_lost() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect_by(PROFILE, 0, path_v6(1));
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    // Outer header with fragment header, data packet, Ethernet header.
    let longest = CAPACITY - outer::LONGEST_OUTER_HEADER - 24 - 14;
    for (len, arrives) in [(longest, true), (longest + 1, false)] {
        let sent = frame(ON_WIRE, a.mac, &vec![3; len]);
        for fragment in cut(&a.seal(&sent), 1280, len as u32) {
            gateway.rigs[0].nic.send(&fragment);
        }
        gateway.turn();
        // The segment's own limit comes after: what is put together and too long is lost by another name.
        let is_put_together = gateway.drops(Drop::FragmentMalformed) == 0;
        assert_eq!(is_put_together, arrives, "{len} bytes");
        while gateway.rigs[0].nic.next().is_some() {}
    }
    assert_eq!(gateway.rigs[0].worker.frames.free(), FRAMES);
}

#[test]
fn a_peer_that_speaks_from_elsewhere_is_reported_whatever_the_family() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect_by(PROFILE, 0, path_v6(1));
    for elsewhere in [path_v6(2), path(a.peer_id)] {
        a.path = elsewhere;
        let packet = a.seal(&frame(ON_WIRE, a.mac, b"moved"));
        gateway.rigs[0].nic.send(&packet);
        gateway.turn();
        let floated = Notice::Floated(a.peer_id, elsewhere);
        assert!(gateway.notices.try_iter().any(|notice| notice == floated));
        gateway.now += Duration::from_secs(1);
    }
}

#[test]
fn packets_of_a_peer_of_another_worker_are_handed_over() {
    let mut gateway = Gateway::new(2);
    let mut a = gateway.connect_by(PROFILE, 1, path_v6(1));
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    gateway.turn();
    for round in 0..200_u8 {
        let sent = frame(ON_WIRE, a.mac, &[round; 100]);
        gateway.rigs[0].nic.send(&a.seal(&sent));
        gateway.rigs[0].worker.turn(gateway.now);
    }
    // More than strangers may have, for where the peer is is known.
    (0..8).for_each(|_| gateway.turn());
    assert_eq!(a.counters.rx_frames_xdp.load(Relaxed), 200);
    assert_eq!(gateway.all_drops(), 0);
}
