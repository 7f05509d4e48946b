//! Peers whose packets are cut (`fragment`), and SYNs on their way from and to peers (`mssfix`).

use super::*;

const CUT: Profile = Profile { fragment: Some(400), ..PROFILE };
const LOWERED: Profile = Profile { mssfix: Some(1368), ..PROFILE };

/// Most bytes of a packet of [`CUT`] with its outer headers.
const MOST: usize = 42 + 24 + 4 + 400;

/// An IPv4 SYN that asks for `asks` bytes a segment.
fn syn(destination: Mac, source: Mac, asks: u16) -> Vec<u8> {
    let ip = [0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 1, 1, 10, 1, 1, 2];
    let tcp = [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 2, 0, 9, 0xab, 0xcd, 0, 0, 2, 4];
    [&destination[..], &source, &[8, 0], &ip, &tcp, &asks.to_be_bytes()].concat()
}

fn asked(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[56], frame[57]])
}

#[test]
fn a_long_frame_leaves_in_packets_and_counts_once() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect_with(CUT, 0);
    gateway.station(a.mac, Place::Peer(a.peer_id), false);
    let sent = [frame(a.mac, ON_WIRE, &[3; 1500]), frame(a.mac, ON_WIRE, &[4; 60])];
    sent.iter().for_each(|frame| assert!(gateway.rigs[0].nic.send(frame)));
    gateway.turn();
    let packets: Vec<_> = std::iter::from_fn(|| gateway.rigs[0].nic.next()).collect();
    assert_eq!(packets.len(), 5);
    assert!(packets.iter().all(|packet| packet.len() <= MOST));
    assert_eq!(packets.iter().filter_map(|packet| a.open(packet)).collect::<Vec<_>>(), sent);
    assert_eq!((a.counters.tx_frames.load(Relaxed), gateway.all_drops()), (2, 0));
}

#[test]
fn parts_from_a_peer_become_one_frame_and_lost_ones_none() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect_with(CUT, 0);
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    let sent = frame(ON_WIRE, a.mac, &[3; 1500]);
    for lost in [true, false] {
        let mut packets = a.seal_all(&sent);
        assert_eq!(packets.len(), 4);
        packets.reverse();
        packets.iter().skip(usize::from(lost)).for_each(|packet| assert!(gateway.rigs[0].nic.send(packet)));
        gateway.turn();
        assert_eq!(gateway.rigs[0].nic.next(), (!lost).then(|| sent.clone()));
    }
    assert_eq!((a.counters.rx_frames.load(Relaxed), gateway.all_drops()), (1, 0));
}

#[test]
fn a_flood_is_cut_only_for_those_who_have_it_so() {
    let mut gateway = Gateway::new(1);
    let (mut a, mut b) = (gateway.connect_with(CUT, 0), gateway.connect(1));
    let sent = frame(BROADCAST, ON_WIRE, &[3; 1400]);
    gateway.rigs[0].nic.send(&sent);
    gateway.turn();
    let packets: Vec<_> = std::iter::from_fn(|| gateway.rigs[0].nic.next()).collect();
    assert_eq!(packets.len(), 4 + 1);
    for client in [&mut a, &mut b] {
        assert_eq!(packets.iter().filter_map(|packet| client.open(packet)).collect::<Vec<_>>(), [&sent[..]]);
    }
}

#[test]
fn more_parts_than_there_is_memory_for_are_counted_and_none_is_lost_for_good() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect_with(Profile { fragment: Some(60), ..PROFILE }, 0);
    gateway.station(a.mac, Place::Peer(a.peer_id), false);
    for round in 0..3 {
        for _ in 0..60 {
            assert!(gateway.rigs[0].nic.send(&frame(a.mac, ON_WIRE, &[round; 1500])));
        }
        // Far more packets than the wire holds; the worker asserts that it has all its frames back.
        gateway.turn();
        while gateway.rigs[0].nic.next().is_some() {}
    }
    assert!(gateway.rigs[0].nic.send(&frame(a.mac, ON_WIRE, &[9; 1500])));
    gateway.turn();
    assert_eq!(gateway.received_by(&mut a), [frame(a.mac, ON_WIRE, &[9; 1500])]);
}

#[test]
fn syns_are_lowered_from_and_to_peers_and_not_otherwise() {
    let mut gateway = Gateway::new(1);
    let (mut a, mut b) = (gateway.connect_with(LOWERED, 0), gateway.connect(1));
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    gateway.station(a.mac, Place::Peer(a.peer_id), false);
    gateway.station(b.mac, Place::Peer(b.peer_id), false);
    gateway.rigs[0].nic.send(&a.seal(&syn(ON_WIRE, a.mac, 1460)));
    gateway.turn();
    assert_eq!(gateway.rigs[0].nic.next().as_deref().map(asked), Some(1368), "from the peer");
    gateway.rigs[0].nic.send(&syn(a.mac, ON_WIRE, 1460));
    gateway.turn();
    assert_eq!(gateway.received_by(&mut a).iter().map(|frame| asked(frame)).collect::<Vec<_>>(), [1368]);
    gateway.rigs[0].nic.send(&syn(b.mac, ON_WIRE, 1460));
    gateway.turn();
    assert_eq!(gateway.received_by(&mut b), [syn(b.mac, ON_WIRE, 1460)], "it has no limit");
    gateway.rigs[0].nic.send(&syn(BROADCAST, ON_WIRE, 1460));
    gateway.turn();
    assert_eq!(gateway.received_by(&mut b), [syn(BROADCAST, ON_WIRE, 1460)], "a broadcast");
}
