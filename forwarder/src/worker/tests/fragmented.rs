//! Full-size frames: tunnel packets in fragments, over the NIC.

use super::*;

/// A packet as the router sends it on: in fragments of at most `mtu` bytes.
fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let part = (mtu - 20) & !7;
    let (header, datagram) = packet.split_at(34);
    let count = datagram.len().div_ceil(part);
    let cut_one = |(at, payload): (usize, &[u8])| {
        let mut fragment = [header, payload].concat();
        let more = if at + 1 < count { 0x2000 } else { 0 };
        let bits = u16::try_from(at * part / 8).unwrap() | more;
        fragment[16..18].copy_from_slice(&u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
        fragment[20..22].copy_from_slice(&bits.to_be_bytes());
        fragment.resize(fragment.len().max(60), 0);
        fragment
    };
    datagram.chunks(part).enumerate().map(cut_one).collect()
}

/// A full-size packet of the client with an identification of its own.
fn full_size(client: &mut Client, to: Mac, number: u8) -> (Vec<u8>, Vec<u8>) {
    let sent = frame(to, client.mac, &[number; 1500]);
    let mut packet = client.seal(&sent);
    packet[19] = number;
    (sent, packet)
}

#[test]
fn fragments_of_a_packet_are_one_frame_in_the_order_in_which_packets_become_whole() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    let (long, packet) = full_size(&mut a, ON_WIRE, 1);
    let short = frame(ON_WIRE, a.mac, &[7; 60]);
    let short_packet = a.seal(&short);
    for received in cut(&packet, 1500).iter().chain([&short_packet]) {
        gateway.rigs[0].nic.send(received);
    }
    gateway.turn();
    let left: Vec<_> = std::iter::from_fn(|| gateway.rigs[0].nic.next()).collect();
    assert_eq!(left, [long, short]);
    assert_eq!((a.counters.rx_frames_xdp.load(Relaxed), gateway.all_drops()), (2, 0));
}

#[test]
fn a_fragment_waits_for_the_others_over_turns_and_not_for_ever() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    let (sent, packet) = full_size(&mut a, ON_WIRE, 1);
    for fragment in cut(&packet, 576).iter().rev() {
        assert_eq!(gateway.rigs[0].nic.next(), None);
        gateway.rigs[0].nic.send(fragment);
        gateway.turn();
        gateway.now += Duration::from_millis(50);
    }
    assert_eq!(gateway.rigs[0].nic.next(), Some(sent));

    let (_, packet) = full_size(&mut a, ON_WIRE, 2);
    gateway.rigs[0].nic.send(&cut(&packet, 1500)[0]);
    gateway.turn();
    assert_eq!(gateway.rigs[0].worker.frames.free(), FRAMES - 1);
    gateway.now += Duration::from_millis(500);
    gateway.turn();
    assert_eq!(gateway.rigs[0].worker.frames.free(), FRAMES);
    assert_eq!((gateway.drops(Drop::FragmentsIncomplete), gateway.all_drops()), (1, 1));
}

#[test]
fn fragments_on_different_queues_meet_and_then_are_sent_on_at_once() {
    let mut gateway = Gateway::new(2);
    let mut a = gateway.connect(0);
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    let mut arrived = 0;
    for number in 0..32 {
        let (sent, packet) = full_size(&mut a, ON_WIRE, number);
        let [first, second] = &cut(&packet, 1500)[..] else { panic!("a pair") };
        gateway.rigs[0].nic.send(first);
        gateway.rigs[1].nic.send(second);
        gateway.turn();
        let at_once = arrived > 0;
        assert_eq!(gateway.rigs.iter().any(|rig| rig.nic.waiting() > 0), at_once, "packet {number}");
        if !at_once {
            assert!(gateway.rigs.iter().any(|rig| rig.worker.longest_sleep() == Duration::from_millis(1)));
        }
        gateway.now += Duration::from_millis(2);
        (0..2).for_each(|_| gateway.turn());
        let left: Vec<_> = gateway.rigs.iter().filter_map(|rig| rig.nic.next()).collect();
        assert_eq!(left, [sent]);
        arrived += 1;
    }
    assert_eq!((arrived, gateway.all_drops()), (32, 0));
    for rig in &gateway.rigs {
        assert_eq!(rig.worker.frames.free(), FRAMES);
    }
}

#[test]
fn fragments_on_one_queue_are_not_handed_on() {
    let mut gateway = Gateway::new(2);
    let mut a = gateway.connect(0);
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    for number in 0..32 {
        let (sent, packet) = full_size(&mut a, ON_WIRE, number);
        for fragment in cut(&packet, 1500) {
            gateway.rigs[0].nic.send(&fragment);
        }
        gateway.rigs[0].worker.turn(gateway.now);
        assert_eq!(gateway.rigs[0].nic.next(), Some(sent), "the owner of the peer had no need of the other");
    }
}

#[test]
fn a_packet_is_cut_as_the_kernel_cuts_it() {
    for (mtu, lengths) in [(1500, &[1514, 100][..]), (1499, &[1506, 108]), (576, &[586, 586, 476])] {
        let mut gateway = Gateway::new(1);
        let mut a = gateway.connect(0);
        set_mtu(&mut gateway, &a, mtu);
        gateway.station(a.mac, Place::Peer(a.peer_id), false);
        let sent = frame(a.mac, ON_WIRE, &[9; 1500]);
        gateway.rigs[0].nic.send(&sent);
        gateway.turn();
        let left: Vec<_> = std::iter::from_fn(|| gateway.rigs[0].nic.next()).collect();
        assert_eq!(left.iter().map(Vec::len).collect::<Vec<_>>(), lengths, "MTU {mtu}");
        for fragment in &left {
            assert_eq!(checksum_of(&fragment[14..34]), 0xffff);
            assert_eq!(fragment[18..20], left[0][18..20], "one identification");
        }
        let whole = fragments::tests::joined(left.into_iter()).remove(0);
        let pseudo = [&whole[26..34], &[0, 17], &whole[38..40]].concat();
        assert_eq!(checksum_of(&[&pseudo, &whole[34..]].concat()), 0xffff, "UDP's is of the whole");
        assert_eq!(a.open(&whole), Some(sent));
        assert_eq!((a.counters.tx_frames.load(Relaxed), gateway.all_drops()), (1, 0));
    }
}

pub(super) fn set_mtu(gateway: &mut Gateway, client: &Client, mtu: u16) {
    let path = client.path;
    let outer = Outer::by_nic(WireId::UPLINK, path.local, path.remote, NIC, ROUTER, mtu);
    gateway.rigs[0].post.send(Command::SetOuter(client.peer_id, path, Some(Box::new(outer))));
}

pub(super) fn checksum_of(bytes: &[u8]) -> u16 {
    crate::ports::checksum::fold(crate::ports::checksum::sum(bytes))
}

#[test]
fn without_memory_for_the_last_fragment_none_is_sent() {
    let mut gateway = Gateway::new(1);
    let worker = &mut gateway.rigs[0].worker;
    let mut taken: Vec<_> = std::iter::from_fn(|| worker.frames.take()).collect();
    let mut full_size = |worker: &mut TestWorker| {
        let mut packet = taken.pop().unwrap();
        worker.frames.set_len(&mut packet, 1580);
        worker.queue_fragments(packet, 576)
    };
    assert_eq!(full_size(worker), Err(Drop::NoFreeFrame));
    assert_eq!((worker.frames.free(), worker.batch.to_nic.len()), (1, 0), "its own frame is free again");
    assert_eq!(full_size(worker), Err(Drop::NoFreeFrame), "one is not enough for two");
    assert_eq!(full_size(worker), Ok(()));
    assert_eq!((worker.frames.free(), worker.batch.to_nic.len()), (0, 3));
    taken.into_iter().for_each(|frame| worker.frames.put(frame));
    gateway.turn();
}

#[test]
fn two_workers_never_give_packets_to_one_address_the_same_identification() {
    let mut gateway = Gateway::new(2);
    let peers = [gateway.connect(0), gateway.connect(1)];
    for (client, rig) in peers.iter().zip(&gateway.rigs) {
        // Both behind one router.
        let remote =
            SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 40_000 + client.peer_id.value() as u16);
        let path = Path::udp(remote.into(), GATEWAY.into());
        let outer = Outer::by_nic(WireId::UPLINK, GATEWAY, remote, NIC, ROUTER, 1500);
        rig.post.send(Command::SetOuter(client.peer_id, path, Some(Box::new(outer))));
    }
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..50 {
        for (client, rig) in peers.iter().zip(&mut gateway.rigs) {
            rig.post.send(Command::Ping(client.peer_id));
            rig.worker.turn(gateway.now);
            let packet = rig.nic.next().unwrap();
            assert!(seen.insert(packet[18..20].to_vec()), "round {round}");
        }
    }
}

#[test]
fn forged_fragments_are_lost_by_name_and_peers_are_not() {
    let mut gateway = Gateway::new(1);
    let mut a = gateway.connect(0);
    gateway.station(ON_WIRE, Place::Wire(WireId::UPLINK), false);
    gateway.turn();
    let (_, forged) = full_size(&mut a, ON_WIRE, 0);
    let forged = cut(&forged, 1500).remove(0);
    let mut arrived = 0;
    for round in 0..200_u8 {
        for number in 0..60_u8 {
            let mut forged = forged.clone();
            // From anywhere, in the peer's name.
            forged[26..30].copy_from_slice(&[203, 0, round, number]);
            gateway.rigs[0].nic.send(&forged);
        }
        let (sent, packet) = full_size(&mut a, ON_WIRE, round);
        let [first, second] = &cut(&packet, 1500)[..] else { panic!("a pair") };
        gateway.rigs[0].nic.send(first);
        gateway.turn();
        gateway.rigs[0].nic.send(second);
        gateway.turn();
        arrived += usize::from(gateway.rigs[0].nic.next() == Some(sent));
    }
    assert_eq!(arrived, 200);
    let waiting = (FRAMES - gateway.rigs[0].worker.frames.free()) as u64;
    assert_eq!(gateway.drops(Drop::FragmentsCrowdedOut) + waiting, 200 * 60);
}
