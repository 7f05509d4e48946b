//! Data packets of every layout and cipher in virtual time, from negotiation through rekeys.

mod pair;

use std::time::Duration;

use pair::{FINE, PKI, Pair, STORM, server_config};
use trestle_openvpn::{
    client,
    data::{Cipher, Digest, Layout, OpenError},
    server,
};

const SECOND: Duration = Duration::from_secs(1);

/// A client that rekeys every 20 s.
fn client(layout: Layout, cipher: Cipher) -> client::Config {
    client::Config {
        layout,
        data_ciphers: vec![cipher],
        reneg: Some(20 * SECOND),
        ..client::Config::new(PKI.client("agent"))
    }
}

fn server() -> server::Config {
    server::Config { data_ciphers: Cipher::ALL.to_vec(), digest: Digest::Sha1, ..server_config() }
}

/// The layout agreed where a client offers `layout` and `cipher`; 90 s of frames cross without a loss.
fn agreed(layout: Layout, cipher: Cipher) -> Layout {
    let mut pair = Pair::new(server(), FINE, 1);
    pair.traffic = Some(SECOND / 4);
    let at = pair.connect(client(layout, cipher));
    pair.run_for(90 * SECOND);
    let terms = pair.agents[at].terms();
    assert_eq!(terms.profile.cipher, cipher);
    assert!(pair.keys_installed >= 4, "{} keys", pair.keys_installed);
    let agent = pair.agents[at].tunnel();
    let peer = &pair.peers[&terms.peer_id].1;
    for (one, other) in [(agent, peer), (peer, agent)] {
        assert_eq!(one.lost, [] as [OpenError; 0], "{layout:?} {cipher:?}");
        assert!(one.opened > 300 && one.opened + 3 >= other.sent, "{} of {}", one.opened, other.sent);
    }
    terms.profile.layout
}

#[test]
fn frames_cross_through_rekeys_in_the_newest_layout_the_client_offers() {
    for cipher in Cipher::ALL {
        assert_eq!(agreed(Layout::V1, cipher), Layout::V1, "{cipher:?}");
        assert_eq!(agreed(Layout::V2, cipher), Layout::V2, "{cipher:?}");
        let newest = if cipher.is_aead() { Layout::Epoch } else { Layout::V2 };
        assert_eq!(agreed(Layout::Epoch, cipher), newest, "{cipher:?}");
    }
}

#[test]
fn a_storm_costs_only_what_it_swallows() {
    for (seed, layout) in [Layout::V1, Layout::V2, Layout::Epoch].into_iter().cycle().take(9).enumerate() {
        let mut pair = Pair::new(server(), STORM, seed as u64);
        pair.traffic = Some(SECOND / 20);
        let at = pair.connect(client(layout, Cipher::Aes128Gcm));
        pair.run_for(60 * SECOND);
        let agent = pair.agents[at].tunnel();
        let peer = &pair.peers[&pair.agents[at].terms().peer_id].1;
        for (one, other) in [(agent, peer), (peer, agent)] {
            assert_eq!(one.lost, [] as [OpenError; 0], "{layout:?}, seed {seed}");
            assert!(one.opened * 2 > other.sent, "{} of {}, seed {seed}", one.opened, other.sent);
        }
    }
}

#[test]
fn what_is_pushed_goes_with_the_layout() {
    let pushed = |layout| {
        let mut pair = Pair::new(server(), FINE, 1);
        let at = pair.connect(client(layout, Cipher::Aes256Gcm));
        pair.run_for(SECOND);
        pair.agents[at].terms().options.clone()
    };
    let has = |options: &[String], word: &str| options.iter().any(|option| option.contains(word));
    assert!(!has(&pushed(Layout::V1), "peer-id"));
    assert!(has(&pushed(Layout::V2), "peer-id 0") && !has(&pushed(Layout::V2), "aead-epoch"));
    assert!(has(&pushed(Layout::Epoch), "peer-id 0") && has(&pushed(Layout::Epoch), "aead-epoch"));
}
