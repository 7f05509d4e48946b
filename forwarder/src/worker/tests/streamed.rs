//! Peers over TCP: their packets come from the streams' thread and go to it.

use super::*;
use crate::{streams::StreamId, worker::Errand};

const STREAM: StreamId = StreamId(7);

impl Gateway {
    /// Connects a client over TCP.
    fn connect_stream(&mut self, peer_id: u32) -> Client {
        let client = self.connect_by(PROFILE, peer_id, over_tcp(peer_id));
        let owner = client.peer_id.index() % self.rigs.len();
        let outer = Some(Box::new(Outer::by_stream(STREAM)));
        self.rigs[owner].post.send(Command::SetOuter(client.peer_id, client.path, outer));
        client
    }

    /// Hands a packet to the owner of the peer that the connection belongs to, as the streams' thread does.
    fn stream_in(&mut self, client: &Client, packet: &[u8]) -> bool {
        let owner = self.streams.owner(client.peer_id);
        self.streams.push(owner, Errand::FromStream(client.peer_id), packet)
    }

    /// What the streams' thread is to send.
    fn streamed_out(&mut self) -> Vec<(Errand, Vec<u8>)> {
        let mut out = Vec::new();
        while self.streams.pop(|errand, bytes| out.push((errand, bytes.to_vec()))) {}
        out
    }
}

fn over_tcp(peer_id: u32) -> Path {
    let Path { remote, local, .. } = path(PeerId::new(peer_id).unwrap());
    Path::tcp(remote, local)
}

/// Without any headers.
fn sealed(client: &mut Client, frame: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; frame.len() + MAX_OVERHEAD];
    let len = client.channel.seal(frame, &mut packet).unwrap();
    packet.truncate(len);
    packet
}

fn opened(client: &mut Client, packet: &[u8]) -> Vec<u8> {
    let mut plain = vec![0; CAPACITY];
    let Ok(Opened::Frame { len }) = client.channel.open(packet, &mut plain) else {
        panic!("it does not open")
    };
    plain[..len].to_vec()
}

#[test]
fn a_peer_over_tcp_and_one_over_udp_reach_each_other_through_any_worker() {
    for stream in [4, 5] {
        let mut gateway = Gateway::new(2);
        let (mut tcp, mut udp) = (gateway.connect_stream(stream), gateway.connect(6));
        gateway.station(tcp.mac, Place::Peer(tcp.peer_id), false);
        gateway.station(udp.mac, Place::Peer(udp.peer_id), false);
        let there = frame(udp.mac, tcp.mac, &[1; 1500]);
        let packet = sealed(&mut tcp, &there);
        assert!(gateway.stream_in(&tcp, &packet));
        gateway.turn();
        gateway.turn();
        assert_eq!(gateway.received_by(&mut udp), [there]);
        let back = frame(tcp.mac, udp.mac, &[2; 1500]);
        gateway.rigs[0].nic.send(&udp.seal(&back));
        gateway.turn();
        gateway.turn();
        let out = gateway.streamed_out();
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].0, opened(&mut tcp, &out[0].1)), (Errand::ToStream(STREAM), back));
        assert_eq!(gateway.all_drops(), 0);
        assert!(!gateway.notices.try_iter().any(|notice| matches!(notice, Notice::Floated(..))));
    }
}

#[test]
fn floods_in_one_turn_reach_each_of_many_peers_over_tcp() {
    let mut gateway = Gateway::new(1);
    (0..200).for_each(|peer_id| _ = gateway.connect_stream(peer_id));
    for _ in 0..5 {
        gateway.rigs[0].nic.send(&frame(BROADCAST, ON_WIRE, b"who has"));
    }
    gateway.turn();
    assert_eq!((gateway.streamed_out().len(), gateway.all_drops()), (1000, 0));
}

#[test]
fn a_flood_reaches_peers_over_tcp_and_a_full_lane_loses_only_their_share() {
    let mut gateway = Gateway::new(1);
    let (mut tcp, mut udp) = (gateway.connect_stream(0), gateway.connect(1));
    for round in 0..140_u8 {
        for _ in 0..32 {
            gateway.rigs[0].nic.send(&frame(BROADCAST, ON_WIRE, &[round; 60]));
        }
        gateway.turn();
        assert_eq!(gateway.received_by(&mut udp).len(), 32);
    }
    let out = gateway.streamed_out();
    assert_eq!(out.len() as u64 + gateway.drops(Drop::HandoverFull), 140 * 32);
    assert!(gateway.drops(Drop::HandoverFull) > 0);
    assert!(out.iter().all(|(_, packet)| opened(&mut tcp, packet).starts_with(&BROADCAST)));
}

#[test]
fn what_a_connection_says_for_a_peer_that_is_gone_or_is_forged_is_counted() {
    let mut gateway = Gateway::new(1);
    let mut tcp = gateway.connect_stream(0);
    let sent = frame(BROADCAST, tcp.mac, b"x");
    let packet = sealed(&mut tcp, &sent);
    for forged in [&packet[..packet.len() - 1], &packet[..3], &[], &[0x48; 2000]] {
        assert!(gateway.stream_in(&tcp, forged));
    }
    gateway.turn();
    assert_eq!(gateway.all_drops(), 4);
    gateway.rigs[0].post.send(Command::RemovePeer(tcp.peer_id));
    assert!(gateway.stream_in(&tcp, &packet));
    gateway.turn();
    assert_eq!(gateway.drops(Drop::PeerUnknown), 1);
    assert!(gateway.rigs[0].nic.next().is_none());
}
