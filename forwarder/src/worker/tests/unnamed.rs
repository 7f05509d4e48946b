//! Peers whose packets name no peer, and those whose packets are longer or of other shape than most.

use openvpn::data::{Digest, Layout};

use super::*;

const V1: Profile = Profile { layout: Layout::V1, ..PROFILE };

impl Gateway {
    /// Tells all workers that packets by the client's path are its own, or nobody's.
    fn place(&self, client: &Client, peer_id: Option<PeerId>) {
        for rig in &self.rigs {
            rig.post.send(Command::Unnamed(path(client.peer_id), peer_id));
        }
    }
}

#[test]
fn packets_that_name_no_peer_are_the_peers_who_is_where_they_come_from() {
    let mut gateway = Gateway::new(2);
    // Worker 0 owns the first, worker 1 the second; each sends to both.
    let mut clients = [gateway.connect_with(V1, 4), gateway.connect_with(V1, 5)];
    let mut third = gateway.connect(6);
    for client in &clients {
        gateway.place(client, Some(client.peer_id));
    }
    for (at, rig) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let sent = frame(third.mac, clients[at].mac, &[at as u8; 60]);
        gateway.station(third.mac, Place::Peer(third.peer_id), false);
        let packet = clients[at].seal(&sent);
        assert_eq!(packet[outer::OUTER_HEADER], 0x30);
        gateway.rigs[rig].nic.send(&packet);
        gateway.turn();
        gateway.turn();
        assert_eq!(gateway.received_by(&mut third), [sent], "client {at} by worker {rig}");
    }
    assert_eq!(gateway.all_drops(), 0);
    assert!(!gateway.notices.try_iter().any(|notice| matches!(notice, Notice::Floated(..))));

    let back = frame(clients[1].mac, third.mac, &[9; 1500]);
    gateway.station(clients[1].mac, Place::Peer(clients[1].peer_id), false);
    gateway.rigs[0].nic.send(&third.seal(&back));
    gateway.turn();
    gateway.turn();
    assert_eq!(gateway.received_by(&mut clients[1]), [back]);
}

#[test]
fn packets_that_name_no_peer_and_come_from_elsewhere_are_nobodys() {
    let mut gateway = Gateway::new(1);
    let mut client = gateway.connect_with(V1, 4);
    let sent = frame(BROADCAST, client.mac, b"hello");
    gateway.rigs[0].nic.send(&client.seal(&sent));
    gateway.turn();
    assert_eq!(gateway.drops(Drop::PeerUnknown), 1, "before it is known");
    gateway.place(&client, Some(client.peer_id));
    gateway.rigs[0].nic.send(&client.seal(&sent));
    gateway.turn();
    assert_eq!(gateway.rigs[0].host.as_ref().unwrap().waiting(), 1);
    gateway.place(&client, None);
    gateway.rigs[0].nic.send(&client.seal(&sent));
    gateway.turn();
    assert_eq!(gateway.drops(Drop::PeerUnknown), 2, "after it has left");
}

#[test]
fn a_peer_that_names_itself_sends_no_packets_that_do_not() {
    let mut gateway = Gateway::new(1);
    let client = gateway.connect(4);
    gateway.place(&client, Some(client.peer_id));
    let mut other = gateway.connect_with(V1, 4);
    gateway.connect(4);
    gateway.rigs[0].nic.send(&other.seal(&frame(BROADCAST, other.mac, b"hello")));
    gateway.turn();
    assert_eq!(gateway.drops(Drop::TunnelMalformed), 1);
}

#[test]
fn the_longest_frames_cross_under_every_profile() {
    for cipher in Cipher::ALL {
        for layout in [Layout::V1, Layout::V2, Layout::Epoch] {
            let profile = Profile { digest: Digest::Sha512, layout, ..Profile::new(cipher, Framing::V2) };
            let mut gateway = Gateway::new(1);
            let (mut a, mut b) = (gateway.connect_with(profile, 0), gateway.connect_with(profile, 1));
            gateway.place(&a, Some(a.peer_id));
            gateway.station(b.mac, Place::Peer(b.peer_id), false);
            let sent = frame(b.mac, a.mac, &[7; 1504]);
            gateway.rigs[0].tunnel.send(&a.seal(&sent));
            gateway.turn();
            assert_eq!(gateway.received_by(&mut b), [sent], "{profile:?}");
        }
    }
}
