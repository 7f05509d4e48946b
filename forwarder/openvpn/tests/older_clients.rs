//! Clients of other ages in virtual time: TLS 1.2, keys by the PRF, little peer info.

mod pair;

use std::time::Duration;

use pair::{FINE, PKI, Pair, STORM, server_config};
use trestle_openvpn::{
    client,
    data::{Cipher, Digest, Layout, OpenError},
    tls::Versions,
};

const SECOND: Duration = Duration::from_secs(1);

/// What OpenVPN 2.5 does: TLS 1.2, keys by the PRF, a rekey every 20 s.
fn old_client(name: &str) -> client::Config {
    let mut config = client::Config::new(PKI.client_speaking(Versions::Only12, name));
    config.exporter = false;
    config.layout = Layout::V2;
    config.reneg = Some(20 * SECOND);
    config
}

fn assert_lossless(pair: &Pair, at: usize) {
    let agent = pair.agents[at].tunnel();
    let peer = &pair.peers[&pair.agents[at].terms().peer_id].1;
    for (one, other) in [(agent, peer), (peer, agent)] {
        assert_eq!(one.lost, [] as [OpenError; 0]);
        assert!(one.opened > 100 && one.opened + 3 >= other.sent, "{} of {}", one.opened, other.sent);
    }
}

#[test]
fn keys_by_the_prf_open_what_the_other_end_seals_through_rekeys() {
    let mut pair = Pair::new(server_config(), FINE, 1);
    pair.traffic = Some(SECOND / 4);
    let at = pair.connect(old_client("agent"));
    pair.run_for(200 * SECOND);
    assert!(pair.keys_installed >= 9, "{} keys", pair.keys_installed);
    assert_lossless(&pair, at);
    let told = &pair.agents[at].terms().options;
    assert!(told.iter().all(|option| !option.contains("tls-ekm")), "{told:?}");
}

#[test]
fn both_ends_use_the_exporter_under_tls_1_2() {
    let mut pair = Pair::new(server_config(), FINE, 2);
    pair.traffic = Some(SECOND / 10);
    let at = pair.connect(client::Config::new(PKI.client_speaking(Versions::Only12, "agent")));
    pair.run_for(30 * SECOND);
    assert_lossless(&pair, at);
    assert!(pair.agents[at].terms().options.iter().any(|option| option.contains("tls-ekm")));
}

#[test]
fn a_client_that_has_every_cipher_gets_the_servers_first() {
    for (server, layout) in [
        (Cipher::ChaCha20Poly1305, Layout::Epoch),
        (Cipher::Aes192Gcm, Layout::Epoch),
        (Cipher::Aes256Cbc, Layout::V2),
    ] {
        let mut config = server_config();
        config.data_ciphers = vec![server, Cipher::Aes128Gcm];
        config.digest = Digest::Sha256;
        let mut pair = Pair::new(config, FINE, 3);
        pair.traffic = Some(SECOND / 10);
        let mut client = client::Config::new(PKI.client("agent"));
        client.data_ciphers = Cipher::ALL.to_vec();
        client.digest = Digest::Sha256;
        let at = pair.connect(client);
        pair.run_for(30 * SECOND);
        let profile = pair.agents[at].terms().profile;
        assert_eq!((profile.cipher, profile.layout), (server, layout));
        assert_lossless(&pair, at);
    }
}

#[test]
fn an_old_clients_handshake_completes_in_a_storm() {
    for seed in 0..6 {
        let mut pair = Pair::new(server_config(), STORM, seed);
        let at = pair.connect(old_client("agent"));
        pair.run_for(60 * SECOND);
        assert!(pair.agents[at].connected().is_some(), "seed {seed}");
    }
}
