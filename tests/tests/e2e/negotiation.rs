//! What client and server agree on: version of TLS, derivation of keys, cipher.

use std::time::Duration;

use trestle_tests::echo::{ping, reachable};
use trestle_tests::gateway::{Mode, SERVER_CONF, Start};
use trestle_tests::network::{LAN_HOST, Layout};
use trestle_tests::process::wait_until;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Result, scenarios};

use crate::load::{self, assert_all_arrived};
use crate::sessions::relaunch;
use crate::stations::config_with;

const BRIEFLY: Duration = Duration::from_secs(20);

/// Stock clients, each scenario with a server of its own.
pub const SUITE: Suite = Suite {
    name: "negotiation",
    modes: &[Mode::Native],
    site: |mode| Site::prepare(Layout::default(), Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![
        a_client_of_tls_1_2_is_served,
        a_client_below_the_least_version_of_tls_is_refused_in_plain_words,
    ],
};

/// Our client as an older one, at our server and at the stock one.
pub const OLDER: Suite = Suite {
    name: "older_clients",
    modes: &[Mode::Native, Mode::Stock],
    site: |mode| load::open(mode, format!("{SERVER_CONF}duplicate-cn\n")),
    fresh: false,
    scenarios: scenarios![; stock: keys_come_from_the_prf_where_the_exporter_is_not_offered,],
};

fn a_client_of_tls_1_2_is_served(site: &mut Site) -> Result<()> {
    site.start().config = config_with("");
    site.start_gateway()?;
    site.connect_agents(&["--tls-version-max", "1.2"])?;
    for agent in &site.agents {
        assert!(agent.times("Control Channel: TLSv1.2") > 0, "{}", agent.log());
    }
    let echoes = ping(site.agent(0), site.address(1), 20, 1000)?;
    assert!(echoes.complete(), "{echoes:?}");
    assert!(reachable(site.agent(1), LAN_HOST, BRIEFLY));
    site.agents.clear();
    Ok(())
}

fn a_client_below_the_least_version_of_tls_is_refused_in_plain_words(site: &mut Site) -> Result<()> {
    site.start().config = config_with("tls-version-min 1.3");
    site.start_gateway()?;
    let agent = relaunch(site, 0, &["--tls-version-max", "1.2"])?;
    let gateway = site.gateway()?;
    let said = || {
        let log = gateway.log();
        log.lines()
            .any(|line| line.contains("198.51.100.11") && line.contains("version of TLS"))
            .then_some(())
    };
    wait_until("a refusal in the gateway's log", BRIEFLY, said, || gateway.log_tail())?;
    assert_eq!(agent.times("Initialization Sequence Completed"), 0);
    Ok(())
}

fn keys_come_from_the_prf_where_the_exporter_is_not_offered(site: &mut Site) -> Result<()> {
    for arguments in [&["--prf", "--to", "session"][..], &["--prf", "--tls", "1.2", "--to", "session"]] {
        assert_all_arrived(&load::load(site, 200, arguments)?);
    }
    Ok(())
}
