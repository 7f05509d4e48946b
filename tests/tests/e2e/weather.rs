//! Bad networks: what is lost, repeated and reordered on the way must not matter to a session.

use std::time::Duration;

use trestle_tests::agent::Agent;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::network::{LAN_HOST, Layout, PUBLIC};
use trestle_tests::process::wait_until;
use trestle_tests::relay::{Relay, Weather};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Result, scenarios};

use crate::stations::config_with;

const PATIENCE: Duration = Duration::from_secs(60);

/// Behind a relay that has its way with every packet.
pub const SUITE: Suite = Suite {
    name: "weather",
    modes: &[Mode::Native],
    site: |mode| {
        let mut site = Site::prepare(Layout { agents: 1, ..Layout::default() }, Start::reference(mode))?;
        site.start_gateway()?;
        Ok(site)
    },
    fresh: true,
    scenarios: scenarios![
        whatever_was_agreed_comes_through_a_storm;
        stock: a_client_connects_talks_and_rekeys_through_a_storm
    ],
};

/// What clients of one server agree with it, each in its own way.
const AGREED: &str = "data-ciphers AES-256-GCM:CHACHA20-POLY1305:AES-256-CBC\nfragment 1200\n";

/// A client's arguments, and what the gateway then says of it.
const CLIENTS: [(&[&str], &str); 4] = [
    (&["--tls-version-max", "1.2", "--data-ciphers", "CHACHA20-POLY1305"], "cipher=\"CHACHA20-POLY1305\""),
    (&["--data-ciphers", "AES-256-CBC", "--auth", "SHA1"], "cipher=\"AES-256-CBC\""),
    (&["--fragment", "1200"], "cipher=\"AES-256-GCM\""),
    (&["--comp-lzo", "no"], "framing="),
];

fn a_client_connects_talks_and_rekeys_through_a_storm(site: &mut Site) -> Result<()> {
    let relay = Relay::start(site.agent(0), (PUBLIC, 443).into(), Weather::STORM)?;
    let mut agent = launch(site, &relay, &["--reneg-sec", "5"])?;
    agent.wait_connected(site.agent(0))?;
    assert!(reachable(site.agent(0), LAN_HOST, PATIENCE));
    let echoes = ping(site.agent(0), LAN_HOST, 300, 1000)?;
    // A tenth is lost each way; chance may double that, and no more.
    assert!(echoes.received > 150, "{echoes:?}");
    assert_eq!(echoes.duplicates, 0, "a repeated packet was taken for a new one");
    // Each negotiation verifies the server anew.
    let rekeys = || (agent.times("VERIFY OK: depth=0") > 2).then_some(());
    wait_until("two rekeys", PATIENCE, rekeys, || agent.log())?;
    assert!(reachable(site.agent(0), LAN_HOST, PATIENCE));
    assert!(relay.lost() > 0 && relay.carried() > 600, "{relay:?}");
    assert_eq!(agent.times("Initialization Sequence Completed"), 1, "{}", agent.log());
    Ok(())
}

/// By cipher, by version of TLS, cut or framed: frames longer than a packet arrive, and none twice.
fn whatever_was_agreed_comes_through_a_storm(site: &mut Site) -> Result<()> {
    site.start().config = config_with(AGREED);
    site.start_gateway()?;
    let relay = Relay::start(site.agent(0), (PUBLIC, 443).into(), Weather::STORM)?;
    for (arguments, said) in CLIENTS {
        let mut agent = launch(site, &relay, arguments)?;
        agent.wait_connected(site.agent(0))?;
        assert!(reachable(site.agent(0), LAN_HOST, PATIENCE), "{arguments:?}");
        let echoes = ping(site.agent(0), LAN_HOST, 100, 1472)?;
        // A frame in two packets is lost when either is: two thirds come back where a tenth is lost each way.
        assert!(echoes.received > 35 && echoes.duplicates == 0, "{arguments:?}: {echoes:?}");
        let log = site.gateway()?.log();
        assert!(log.lines().any(|line| line.contains("peer connected") && line.contains(said)), "{log}");
    }
    Ok(())
}

fn launch(site: &Site, relay: &Relay, arguments: &[&str]) -> Result<Agent> {
    let (host, port) = (relay.address().ip().to_string(), relay.address().port().to_string());
    let remote = ["--remote", &host, &port];
    Agent::launch(site.agent(0), site.folder(), &site.pki, "agent1", &[&remote[..], arguments].concat())
}
