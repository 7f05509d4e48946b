//! How data packets are sealed and laid out: every cipher with stock clients, other layouts with our own.

use std::time::Duration;

use trestle_tests::agent::Agent;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::gateway::{Mode, SERVER_CONF, Start};
use trestle_tests::network::{LAN_HOST, Layout};
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::Flow;
use trestle_tests::{Result, scenarios};

use crate::load::{self, assert_all_arrived};
use crate::sessions::{BRIEFLY, peers, relaunch};
use crate::stations::config_with;

/// All that a server can be made to offer, and the digest that CBC needs.
const OFFER: &str =
    "data-ciphers AES-256-GCM:AES-192-GCM:CHACHA20-POLY1305:AES-256-CBC:AES-128-CBC\nauth SHA256";

/// Stock clients of one cipher each.
pub const SUITE: Suite = Suite {
    name: "ciphers",
    modes: &[Mode::Native],
    site: |mode| {
        let start = Start { config: config_with(OFFER), ..Start::reference(mode) };
        let mut site = Site::prepare(Layout::default(), start)?;
        site.start_gateway()?;
        Ok(site)
    },
    fresh: false,
    scenarios: scenarios![;
        stock: chacha20_and_aes_192_carry_frames_of_any_length_through_rekeys,
        cbc_with_hmac_carries_frames_of_any_length_through_rekeys,
    ],
};

/// Our client at our server and at the stock one.
pub const LAYOUTS: Suite = Suite {
    name: "layouts",
    modes: &[Mode::Native, Mode::Stock],
    site: |mode| load::open(mode, format!("{SERVER_CONF}duplicate-cn\n{OFFER}\nauth SHA1\n")),
    fresh: false,
    scenarios: scenarios![
        epochs_are_used_where_the_client_has_them;
        stock: packets_without_a_peer_id_cross_under_every_kind_of_cipher,
        every_cipher_is_sealed_as_the_server_opens_it,
    ],
};

fn chacha20_and_aes_192_carry_frames_of_any_length_through_rekeys(site: &mut Site) -> Result<()> {
    carry(site, ["CHACHA20-POLY1305", "AES-192-GCM"])
}

fn cbc_with_hmac_carries_frames_of_any_length_through_rekeys(site: &mut Site) -> Result<()> {
    carry(site, ["AES-256-CBC", "AES-128-CBC"])
}

/// Both agents have a cipher of their own; what crosses is opened under one and sealed under the other.
fn carry(site: &mut Site, ciphers: [&str; 2]) -> Result<()> {
    site.agents.clear();
    let launch = |site: &mut Site, number: usize| -> Result<Agent> {
        let cipher = ciphers[number];
        relaunch(
            site,
            number,
            &["--data-ciphers", cipher, "--cipher", cipher, "--auth", "SHA256", "--reneg-sec", "2"],
        )
    };
    let (mut first, mut second) = (launch(site, 0)?, launch(site, 1)?);
    first.wait_connected(site.agent(0))?;
    let address = second.wait_connected(site.agent(1))?;
    assert_ciphers(site, ciphers)?;
    let flow = Flow::start(site.agent(0), site.agent(1), address, Duration::from_millis(5))?;
    let echoes = ping(site.agent(0), address, 20, 1400)?;
    assert!(echoes.complete(), "{echoes:?}");
    assert!(reachable(site.agent(1), LAN_HOST, BRIEFLY));
    let ports = (RawPort::open(site.agent(0), "tap0")?, RawPort::open(site.agent(1), "tap0")?);
    for length in [60, 590, 1513, 1514] {
        for (from, to, source) in [(&ports.0, &ports.1, site.mac(0)?), (&ports.1, &ports.0, site.mac(1)?)] {
            let tally = Volley::new([2, 0, 0, 0, 0, 7], source).of_length(length).fly(from, to)?;
            assert!(tally.complete(), "{length} bytes: {tally:?}");
        }
    }
    let again = |agent: &mut Agent| {
        agent.process().wait_log("a second rekey", BRIEFLY, |log| {
            (log.matches("Control Channel: TLS").count() > 2).then_some(())
        })
    };
    again(&mut first)?;
    again(&mut second)?;
    let report = flow.stop()?;
    assert!(report.lost.is_empty(), "{} of {} lost: {:?}", report.lost.len(), report.sent, report.lost);
    Ok(())
}

/// What the gateway says it agreed on; a stock one does not say it in this way.
fn assert_ciphers(site: &mut Site, expected: [&str; 2]) -> Result<()> {
    if site.gateway()?.mode() == Mode::Stock {
        return Ok(());
    }
    let status = site.gateway()?.status()?;
    let mut seen: Vec<_> = peers(&status).iter().map(|peer| peer["cipher"].as_str().unwrap_or("")).collect();
    let mut expected = expected.to_vec();
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
    Ok(())
}

fn packets_without_a_peer_id_cross_under_every_kind_of_cipher(site: &mut Site) -> Result<()> {
    for cipher in ["AES-256-GCM", "AES-256-CBC"] {
        let arguments = ["--layout", "v1", "--cipher", cipher, "--to", "session"];
        assert_all_arrived(&load::load(site, 1514, &arguments)?);
    }
    Ok(())
}

fn every_cipher_is_sealed_as_the_server_opens_it(site: &mut Site) -> Result<()> {
    for cipher in ["CHACHA20-POLY1305", "AES-128-CBC"] {
        assert_all_arrived(&load::load(site, 1514, &["--cipher", cipher, "--to", "session"])?);
    }
    Ok(())
}

fn epochs_are_used_where_the_client_has_them(site: &mut Site) -> Result<()> {
    for cipher in ["AES-256-GCM", "CHACHA20-POLY1305"] {
        let since = site.gateway()?.log().len();
        let arguments = ["--layout", "epoch", "--cipher", cipher, "--to", "session"];
        assert_all_arrived(&load::load(site, 1514, &arguments)?);
        let log = site.gateway()?.log();
        let agreed =
            log[since..].lines().filter(|line| line.contains("layout=Epoch") && line.contains(cipher));
        assert_eq!(agreed.count(), 3, "{log}");
    }
    Ok(())
}
