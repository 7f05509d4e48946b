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
    scenarios: scenarios![; stock: a_client_connects_talks_and_rekeys_through_a_storm],
};

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

fn launch(site: &Site, relay: &Relay, arguments: &[&str]) -> Result<Agent> {
    let (host, port) = (relay.address().ip().to_string(), relay.address().port().to_string());
    let remote = ["--remote", &host, &port];
    Agent::launch(site.agent(0), site.folder(), &site.pki, "agent1", &[&remote[..], arguments].concat())
}
