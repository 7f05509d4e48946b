//! Whole sessions in virtual time: coming, rekeying, going.

mod pair;

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use pair::{FINE, PKI, Pair, STORM, Weather, server_config};
use proptest::prelude::*;
use trestle_openvpn::{
    client::{self, CloseReason},
    data::{Cipher, Framing, OpenError, Profile},
    ids::PeerId,
    server::{Connected, Event, GoneReason, Path},
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn connected(pair: &Pair) -> Vec<&Connected> {
    let mut connected = Vec::new();
    for event in &pair.events {
        if let Event::Connected(peer) = event {
            connected.push(peer);
        }
    }
    connected
}

fn assert_lossless(pair: &Pair, at: usize, frames: u64) {
    let agent = pair.agents[at].tunnel();
    let peer = &pair.peers[&pair.agents[at].terms().peer_id].1;
    for (one, other) in [(agent, peer), (peer, agent)] {
        assert_eq!(one.lost, [] as [OpenError; 0]);
        // The last ones may still be in the air; the server may send a few before the client is ready.
        assert!(one.opened + 3 >= other.sent, "{} of {} frames", one.opened, other.sent);
        assert!(one.opened >= frames, "{} frames", one.opened);
    }
}

#[test]
fn a_client_connects_and_both_agree_on_the_terms() {
    let mut pair = Pair::new(server_config(), FINE, 1);
    let at = pair.named("agent one");
    pair.run_for(SECOND);
    let terms = pair.agents[at].terms();
    assert_eq!(terms.peer_id, PeerId::new(0).unwrap());
    assert_eq!(terms.address, Some((Ipv4Addr::new(10, 10, 21, 100), Ipv4Addr::new(255, 255, 255, 0))));
    assert_eq!(terms.profile, Profile::new(Cipher::Aes256Gcm, Framing::V2));
    assert_eq!(
        terms.options,
        [
            "compress lz4-v2",
            "route-gateway 10.10.21.5",
            "ping 10",
            "ping-restart 120",
            "ifconfig 10.10.21.100 255.255.255.0",
            "peer-id 0",
            "cipher AES-256-GCM",
            "protocol-flags cc-exit tls-ekm dyn-tls-crypt",
            "tun-mtu 1500"
        ]
    );
    let [peer] = connected(&pair)[..] else { panic!("one peer") };
    assert_eq!((peer.name.as_str(), peer.profile.framing), ("agent one", Framing::V2));
    assert!(peer.software.starts_with("trestle_"), "{}", peer.software);
    assert_eq!(pair.server.len(), 1);
}

#[test]
fn frames_cross_both_ways_once_connected() {
    let mut pair = Pair::new(server_config(), FINE, 2);
    pair.traffic = Some(SECOND / 10);
    let at = pair.named("agent");
    pair.run_for(10 * SECOND);
    assert_lossless(&pair, at, 90);
}

#[test]
fn handshakes_complete_with_a_fifth_of_all_packets_lost() {
    for seed in 0..20 {
        let mut pair = Pair::new(server_config(), STORM, seed);
        let at = pair.named("agent");
        pair.run_for(60 * SECOND);
        assert!(pair.agents[at].connected().is_some(), "seed {seed}");
        assert_eq!(pair.server.len(), 1, "seed {seed}");
    }
}

#[test]
fn an_hour_of_rekeys_loses_no_frame() {
    for (server_reneg, client_reneg) in
        [(120, 3600), (3600, 120), (120, 120), (20, 3600), (3600, 20), (20, 20)]
    {
        let mut config = server_config();
        config.reneg = Some(Duration::from_secs(server_reneg));
        let mut pair = Pair::new(config, FINE, server_reneg + client_reneg);
        pair.traffic = Some(SECOND / 2);
        let mut client = client::Config::new(PKI.client("agent"));
        client.reneg = Some(Duration::from_secs(client_reneg));
        let at = pair.connect(client);
        pair.run_for(HOUR);
        let rekeys = usize::try_from(3600 / server_reneg.min(client_reneg)).unwrap();
        assert!(pair.keys_installed + 1 >= rekeys, "{} of {rekeys} rekeys", pair.keys_installed);
        assert_eq!(pair.keys_installed, pair.agents[at].keys_installed);
        assert_lossless(&pair, at, 7000);
        assert_eq!(pair.gone_reasons(), []);
    }
}

#[test]
fn ten_hours_with_upstreams_times_lose_no_frame() {
    let mut pair = Pair::new(server_config(), FINE, 3);
    pair.traffic = Some(5 * SECOND);
    let at = pair.named("agent");
    pair.run_for(10 * HOUR);
    assert!((10..=13).contains(&pair.keys_installed), "{} keys", pair.keys_installed);
    assert_lossless(&pair, at, 7000);
}

#[test]
fn rekeys_in_a_storm_lose_no_delivered_frame() {
    for seed in 0..4 {
        let mut config = server_config();
        config.reneg = Some(Duration::from_secs(300));
        let mut pair = Pair::new(config, STORM, seed);
        pair.traffic = Some(SECOND / 2);
        let at = pair.named("agent");
        pair.run_for(HOUR);
        assert!(pair.keys_installed >= 10, "seed {seed}: {} keys", pair.keys_installed);
        assert_eq!(pair.agents[at].tunnel().lost, [], "seed {seed}");
        assert!(pair.peers.values().all(|(_, tunnel)| tunnel.lost.is_empty()), "seed {seed}");
        assert!(pair.agents[at].tunnel().opened > 5000, "seed {seed}");
    }
}

#[test]
fn a_rekey_begun_by_both_at_once_is_one_rekey() {
    let mut pair = Pair::new(server_config(), FINE, 4);
    pair.traffic = Some(SECOND / 10);
    let at = pair.named("agent");
    for round in 2..20 {
        pair.run_for(3 * SECOND);
        pair.agents[at].client.handle_rekey_request(pair.now);
        pair.drain_agent(at);
        pair.server.handle_rekey_request(pair.now, PeerId::new(0).unwrap());
        pair.drain_server();
        pair.run_for(3 * SECOND);
        assert_eq!((pair.keys_installed, pair.agents[at].keys_installed), (round, round));
    }
    pair.run_for(70 * SECOND);
    assert_lossless(&pair, at, 1000);
}

#[test]
fn a_rekey_that_cannot_finish_leaves_the_old_key_in_use_and_is_tried_again() {
    let mut pair = Pair::new(server_config(), FINE, 5);
    pair.traffic = Some(SECOND);
    let at = pair.named("agent");
    pair.run_for(10 * SECOND);
    // The client is deaf for the whole negotiation, on the control channel alone.
    pair.server.handle_rekey_request(pair.now, PeerId::new(0).unwrap());
    while pair.server.poll_transmit().is_some() {}
    let end = pair.now + 65 * SECOND;
    while pair.now < end {
        pair.now += SECOND;
        pair.server.handle_timeout(pair.now);
        while pair.server.poll_transmit().is_some() {}
    }
    assert_eq!(pair.server.len(), 1);
    let before = pair.agents[at].tunnel().opened;
    pair.run_for(120 * SECOND);
    assert!(pair.agents[at].tunnel().opened > before + 100);
    assert_eq!(pair.keys_installed, 2);
    assert_eq!(pair.agents[at].tunnel().lost, []);
}

#[test]
fn a_restarted_client_replaces_itself_only_after_it_has_authenticated() {
    let mut pair = Pair::new(server_config(), FINE, 6);
    let first = pair.named("agent");
    pair.run_for(SECOND);
    pair.agents[first].alive = false;
    let address = pair.agents[first].address;
    let stranger = pair::Pki::new().client_of(&PKI, "agent");
    let thief = pair.connect_from(client::Config::new(stranger), address);
    pair.run_for(10 * SECOND);
    assert!(pair.agents[thief].connected().is_none());
    assert_eq!((pair.server.len(), pair.gone_reasons()), (1, vec![]));
    pair.agents[thief].alive = false;
    let again = pair.connect_from(client::Config::new(PKI.client("agent")), address);
    pair.run_for(SECOND);
    assert_eq!(pair.gone_reasons(), [GoneReason::Restarted]);
    let terms = pair.agents[again].terms();
    assert_eq!(terms.address.unwrap().0, Ipv4Addr::new(10, 10, 21, 100));
    assert_eq!(pair.server.len(), 1);
}

#[test]
fn the_same_name_from_elsewhere_replaces_the_older_session() {
    let mut pair = Pair::new(server_config(), FINE, 7);
    pair.named("agent");
    pair.run_for(SECOND);
    pair.named("agent");
    pair.run_for(SECOND);
    assert_eq!(pair.gone_reasons(), [GoneReason::Replaced]);
    assert_eq!(pair.server.len(), 1);
}

#[test]
fn with_duplicate_cn_the_same_name_connects_twice() {
    let mut config = server_config();
    config.duplicate_cn = true;
    let mut pair = Pair::new(config, FINE, 8);
    pair.named("agent");
    pair.named("agent");
    pair.run_for(SECOND);
    let addresses: Vec<_> =
        connected(&pair).iter().map(|peer| (peer.peer_id.value(), peer.address)).collect();
    assert_eq!(pair.server.len(), 2);
    assert_ne!(addresses[0], addresses[1]);
}

#[test]
fn a_client_of_a_foreign_authority_is_refused() {
    let mut pair = Pair::new(server_config(), FINE, 9);
    let stranger = pair::Pki::new().client_of(&PKI, "stranger");
    let at = pair.connect(client::Config::new(stranger));
    pair.run_for(20 * SECOND);
    assert!(
        matches!(pair.agents[at].closed(), Some(CloseReason::HandshakeFailed(_))),
        "{:?}",
        pair.agents[at].closed()
    );
    assert!(matches!(&pair.events[..], [Event::Refused { .. }]), "{:?}", pair.events);
    assert_eq!((pair.server.len(), pair.server.half_open()), (0, 0));
}

#[test]
fn a_client_without_a_common_cipher_hears_why() {
    let mut config = server_config();
    config.data_ciphers = vec![Cipher::Aes256Gcm];
    let mut pair = Pair::new(config, FINE, 10);
    let mut client = client::Config::new(PKI.client("agent"));
    client.data_ciphers = vec![Cipher::Aes128Gcm];
    let at = pair.connect(client);
    pair.run_for(10 * SECOND);
    let told = "Data channel cipher negotiation failed (no shared cipher)";
    assert_eq!(pair.agents[at].closed(), Some(&CloseReason::Refused(told.into())));
    let [Event::Refused { name: Some(name), reason, .. }] = &pair.events[..] else {
        panic!("{:?}", pair.events)
    };
    assert_eq!(name, "agent");
    assert!(reason.contains("data-ciphers"), "{reason}");
    assert_eq!(pair.server.half_open(), 0);
}

#[test]
fn the_client_beyond_max_clients_hears_that_the_server_is_full_for_now() {
    let mut config = server_config();
    config.max_clients = 2;
    let mut pair = Pair::new(config, FINE, 11);
    let agents: Vec<usize> = ["a", "b", "c"].into_iter().map(|name| pair.named(name)).collect();
    pair.run_for(10 * SECOND);
    assert_eq!(pair.server.len(), 2);
    let refused: Vec<_> = agents.iter().filter_map(|at| pair.agents[*at].closed()).collect();
    assert_eq!(refused, [&CloseReason::Refused("TEMP:server is full".into())]);
}

#[test]
fn a_client_that_says_exit_is_gone_at_once_and_its_number_is_free() {
    let mut pair = Pair::new(server_config(), STORM, 12);
    let at = pair.named("agent");
    pair.run_for(60 * SECOND);
    pair.agents[at].client.exit(pair.now);
    pair.drain_agent(at);
    pair.run_for(30 * SECOND);
    assert_eq!(pair.gone_reasons(), [GoneReason::Exit]);
    assert_eq!((pair.server.len(), pair.server.half_open()), (0, 0));
    assert!(pair.agents[at].client.is_closed());
    pair.named("other");
    pair.run_for(60 * SECOND);
    assert_eq!(connected(&pair).last().unwrap().peer_id, PeerId::new(0).unwrap());
}

#[test]
fn a_silent_client_is_dropped_after_ping_restart() {
    let mut pair = Pair::new(server_config(), FINE, 13);
    let at = pair.named("agent");
    pair.run_for(100 * SECOND);
    assert_eq!(pair.server.len(), 1, "keepalives hold it");
    pair.agents[at].alive = false;
    pair.run_for(225 * SECOND);
    assert_eq!(pair.server.len(), 1);
    pair.run_for(26 * SECOND);
    assert_eq!(pair.gone_reasons(), [GoneReason::PingTimeout]);
    assert_eq!(pair.server.half_open(), 0);
}

#[test]
fn a_client_gives_up_a_silent_server() {
    let mut pair = Pair::new(server_config(), FINE, 14);
    let at = pair.named("agent");
    pair.run_for(SECOND);
    pair.weather.loss = 100;
    pair.run_for(125 * SECOND);
    assert_eq!(pair.agents[at].closed(), Some(&CloseReason::PingTimeout));
}

#[test]
fn idle_peers_are_pinged_every_ten_seconds_and_busy_ones_are_not() {
    let mut pair = Pair::new(server_config(), FINE, 15);
    pair.named("agent");
    pair.run_for(105 * SECOND);
    let pings =
        |pair: &Pair| pair.events.iter().filter(|event| matches!(event, Event::PingDue { .. })).count();
    assert_eq!(pings(&pair), 10);
    let before = pings(&pair);
    for _ in 0..100 {
        pair.server.handle_activity(PeerId::new(0).unwrap(), pair.start, pair.now);
        pair.run_for(SECOND);
    }
    assert_eq!(pings(&pair), before);
}

#[test]
fn a_stopping_server_tells_everyone_and_waits_for_their_answer() {
    let mut pair = Pair::new(server_config(), FINE, 16);
    let agents: Vec<usize> = ["a", "b", "c"].into_iter().map(|name| pair.named(name)).collect();
    pair.run_for(SECOND);
    pair.server.stop(pair.now);
    pair.drain_server();
    assert!(!pair.server.is_stopped());
    pair.run_for(SECOND);
    assert!(pair.server.is_stopped());
    assert_eq!(pair.server.poll_timeout(), None);
    for at in agents {
        assert_eq!(pair.agents[at].closed(), Some(&CloseReason::Restart(String::new())));
    }
    let late = pair.named("late");
    pair.run_for(5 * SECOND);
    assert!(pair.agents[late].connected().is_none());
}

#[test]
fn a_stopping_server_waits_two_seconds_at_most() {
    let mut pair = Pair::new(server_config(), FINE, 17);
    pair.named("agent");
    pair.run_for(SECOND);
    pair.weather.loss = 100;
    pair.server.stop(pair.now);
    pair.drain_server();
    pair.run_for(SECOND);
    assert!(!pair.server.is_stopped());
    pair.run_for(2 * SECOND);
    assert!(pair.server.is_stopped());
}

#[test]
fn a_disconnected_client_is_told_to_restart() {
    let mut pair = Pair::new(server_config(), FINE, 18);
    let at = pair.named("agent");
    pair.run_for(SECOND);
    pair.server.disconnect(pair.now, PeerId::new(0).unwrap());
    pair.drain_server();
    pair.run_for(10 * SECOND);
    assert_eq!(pair.gone_reasons(), [GoneReason::Disconnected]);
    assert!(matches!(pair.agents[at].closed(), Some(CloseReason::Restart(_))));
    assert_eq!(pair.server.half_open(), 0);
}

#[test]
fn a_floating_peer_keeps_its_session() {
    let mut pair = Pair::new(server_config(), FINE, 19);
    let at = pair.named("agent");
    pair.run_for(SECOND);
    let peer_id = PeerId::new(0).unwrap();
    pair.agents[at].address.set_port(50_000);
    let path = Path::udp(pair.agents[at].address, pair::GATEWAY);
    pair.server.handle_float(pair.now, peer_id, path);
    pair.drain_server();
    pair.server.handle_rekey_request(pair.now, peer_id);
    pair.drain_server();
    pair.run_for(10 * SECOND);
    assert_eq!(pair.keys_installed, 2);
    assert_eq!(pair.peers[&peer_id].0, path);
}

#[test]
fn a_peer_cannot_float_onto_another_clients_address() {
    let mut pair = Pair::new(server_config(), FINE, 20);
    pair.named("one");
    let other = pair.named("other");
    pair.run_for(SECOND);
    let path = Path::udp(pair.agents[other].address, pair::GATEWAY);
    let one = connected(&pair).iter().find(|peer| peer.name == "one").unwrap().peer_id;
    pair.server.handle_float(pair.now, one, path);
    pair.drain_server();
    assert_ne!(pair.peers[&one].0, path);
    assert_eq!(pair.server.len(), 2);
}

#[test]
fn many_push_options_come_in_several_messages_and_in_order() {
    let mut config = server_config();
    let routes: Vec<String> = (0..200).map(|i| format!("route 10.{i}.0.0 255.255.0.0")).collect();
    config.push = routes.clone();
    let mut pair = Pair::new(config, FINE, 21);
    let at = pair.named("agent");
    pair.run_for(10 * SECOND);
    let options = &pair.agents[at].terms().options;
    assert_eq!(options[1..=200], routes[..]);
}

#[test]
fn a_client_gets_its_former_address_back() {
    let mut pair = Pair::new(server_config(), FINE, 22);
    let one = pair.named("one");
    pair.run_for(SECOND);
    pair.agents[one].client.exit(pair.now);
    pair.drain_agent(one);
    pair.run_for(10 * SECOND);
    pair.named("two");
    pair.run_for(SECOND);
    pair.named("one");
    pair.run_for(SECOND);
    let addresses: Vec<u8> = connected(&pair).iter().map(|peer| peer.address.unwrap().octets()[3]).collect();
    assert_eq!(addresses, [100, 101, 100]);
}

#[test]
fn a_crowd_connects_in_a_storm_and_everyone_is_somebody_else() {
    let mut config = server_config();
    config.max_clients = 40;
    let mut pair = Pair::new(config, STORM, 25);
    for number in 0..40 {
        pair.named(&format!("agent {number}"));
    }
    pair.run_for(60 * SECOND);
    assert_eq!(pair.server.len(), 40);
    let unique = |values: Vec<u32>| values.into_iter().collect::<BTreeSet<u32>>().len();
    assert_eq!(unique(connected(&pair).iter().map(|peer| peer.peer_id.value()).collect()), 40);
    assert_eq!(unique(connected(&pair).iter().map(|peer| peer.address.unwrap().to_bits()).collect()), 40);
}

#[test]
fn one_lost_packet_anywhere_never_costs_a_session() {
    for lost in 0..60 {
        let mut pair = Pair::new(server_config(), FINE, 24);
        pair.lose = Some(lost);
        let at = pair.named("agent");
        pair.run_for(20 * SECOND);
        assert!(pair.agents[at].connected().is_some(), "packet {lost} lost");
        pair.agents[at].client.handle_rekey_request(pair.now);
        pair.drain_agent(at);
        pair.run_for(20 * SECOND);
        assert_eq!((pair.keys_installed, pair.agents[at].keys_installed), (2, 2), "packet {lost} lost");
        pair.traffic = Some(SECOND);
        pair.run_for(60 * SECOND);
        assert_eq!(pair.agents[at].tunnel().lost, [], "packet {lost} lost");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn rekeys_at_any_time_by_anyone_in_any_weather_lose_no_delivered_frame(
        seed in any::<u64>(),
        (loss, duplication) in (0_u64..20, 0_u64..20),
        jitter in 0_u64..300,
        rekeys in prop::collection::vec((any::<bool>(), 0_u64..20_000), 1..20),
    ) {
        let jitter = Duration::from_millis(jitter);
        let weather = Weather { jitter, loss, duplication, ..FINE };
        let mut pair = Pair::new(server_config(), weather, seed);
        let at = pair.named("agent");
        pair.run_for(30 * SECOND);
        prop_assume!(pair.agents[at].connected().is_some() && pair.server.len() == 1);
        pair.traffic = Some(SECOND / 4);
        for (by_server, pause) in rekeys {
            pair.run_for(Duration::from_millis(pause));
            if by_server {
                pair.server.handle_rekey_request(pair.now, PeerId::new(0).unwrap());
                pair.drain_server();
            } else {
                pair.agents[at].client.handle_rekey_request(pair.now);
                pair.drain_agent(at);
            }
        }
        pair.run_for(70 * SECOND);
        prop_assert_eq!(&pair.agents[at].tunnel().lost, &[]);
        for (_, tunnel) in pair.peers.values() {
            prop_assert_eq!(&tunnel.lost, &[]);
        }
    }
}

#[test]
fn a_client_that_was_told_to_go_does_not_come_back_by_a_rekey() {
    let mut pair = Pair::new(server_config(), FINE, 21);
    let at = pair.named("agent");
    pair.run_for(10 * SECOND);
    pair.server.disconnect(pair.now, PeerId::new(0).unwrap());
    // It does not listen, and says no goodbye.
    while pair.server.poll_transmit().is_some() {}
    pair.agents[at].client.handle_rekey_request(pair.now);
    pair.drain_agent(at);
    pair.run_for(SECOND);
    assert_eq!((pair.server.len(), connected(&pair).len()), (0, 1));
}

#[test]
fn a_tran_window_shorter_than_the_hand_window_leaves_the_server_a_key_to_send_with() {
    let mut config = server_config();
    config.tran_window = 10 * SECOND;
    let mut pair = Pair::new(config, FINE, 22);
    pair.traffic = Some(SECOND);
    let at = pair.named("agent");
    pair.run_for(1000 * SECOND);
    pair.server.handle_rekey_request(pair.now, PeerId::new(0).unwrap());
    pair.drain_server();
    let before = pair.agents[at].tunnel().opened;
    pair.run_for(100 * SECOND);
    let opened = pair.agents[at].tunnel().opened - before;
    assert!(opened >= 99, "{opened} of 100 frames");
}

#[test]
fn a_key_id_used_again_soon_is_not_retired_in_the_former_ones_stead() {
    for pause_ms in [600, 700, 800, 900, 1000, 1200] {
        let mut pair = Pair::new(server_config(), FINE, 23);
        pair.traffic = Some(SECOND / 20);
        let at = pair.named("agent");
        for _ in 0..40 {
            pair.run_for(Duration::from_millis(pause_ms));
            pair.agents[at].client.handle_rekey_request(pair.now);
            pair.drain_agent(at);
        }
        assert_eq!(pair.agents[at].tunnel().lost, [], "every {pause_ms} ms");
        assert!(pair.peers.values().all(|(_, tunnel)| tunnel.lost.is_empty()), "every {pause_ms} ms");
    }
}
