//! Control packets that are wrapped before TLS protects them: tls-auth, tls-crypt, tls-crypt-v2, and what both ends
//! agree on for later negotiations.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use trestle_tests::agent::Agent;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::network::{LAN_HOST, Layout, PUBLIC};
use trestle_tests::process::{read_lossy, run, wait_until};
use trestle_tests::relay::{Relay, Weather};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Fault, Result, scenarios};

use crate::load::{self, assert_all_arrived};
use crate::sessions::relaunch;
use crate::stations::config_with;

const BRIEFLY: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// A stock client, each scenario with a server of its own.
pub const SUITE: Suite = Suite {
    name: "wrapping",
    modes: &[Mode::Native],
    site: |mode| Site::prepare(Layout { agents: 1, ..Layout::default() }, Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![
        a_wrong_key_direction_or_digest_or_none_gets_silence_and_is_counted,
        a_client_key_that_is_too_old_is_refused_in_plain_words;
        stock: tls_auth_with_sha1_and_directions_carries_and_rekeys,
        tls_auth_with_sha512_and_no_direction_carries_and_rekeys,
        tls_crypt_in_a_block_carries_and_rekeys,
        tls_crypt_v2_carries_and_rekeys_beside_tls_crypt,
        tls_crypt_v2_comes_through_a_storm,
    ],
};

/// Our client at the stock server.
pub const OUR_CLIENT: Suite = Suite {
    name: "our_wrapped_client",
    modes: &[Mode::Stock],
    site: |mode| load::open(mode, config_with("duplicate-cn")),
    fresh: false,
    scenarios: scenarios![; stock: our_client_talks_under_every_wrapping],
};

/// A key of the stock OpenVPN's making in the site's folder.
fn key(site: &Site, name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let path = site.folder().join(name);
    run(Command::new("openvpn").args(arguments).arg(&path), 10)?;
    Ok(path)
}

fn static_key(site: &Site, name: &str) -> Result<PathBuf> {
    key(site, name, &["--genkey", "secret"])
}

fn client_key(site: &Site, server: &str, name: &str) -> Result<PathBuf> {
    let server = site.folder().join(server).display().to_string();
    key(site, name, &["--tls-crypt-v2", &server, "--genkey", "tls-crypt-v2-client"])
}

fn serve(site: &mut Site, lines: &str) -> Result<()> {
    site.agents.clear();
    site.gateway = None;
    // The stock server is ready once its log says so: that of the last one must not.
    let _ = std::fs::remove_file(site.folder().join("log/openvpn/openvpn.log"));
    site.start().config = config_with(lines);
    site.start_gateway()
}

/// The client connects, frames cross, and it rekeys twice without connecting anew.
fn connect_and_rekey(site: &mut Site, arguments: &[&str]) -> Result<Agent> {
    let mut agent = relaunch(site, 0, &[arguments, &["--reneg-sec", "2"]].concat())?;
    agent.wait_connected(site.agent(0)).map_err(|fault| with_log(site, fault))?;
    assert!(reachable(site.agent(0), LAN_HOST, BRIEFLY));
    wait_rekeys(&agent)?;
    let echoes = ping(site.agent(0), LAN_HOST, 20, 1000)?;
    assert!(echoes.complete(), "{echoes:?}");
    assert_eq!(agent.times("Initialization Sequence Completed"), 1, "{}", agent.log());
    // Then it takes no other packets of later negotiations than wrapped ones.
    assert!(
        agent.times("Protocol options: protocol-flags cc-exit tls-ekm dyn-tls-crypt") > 0,
        "{}",
        agent.log()
    );
    assert_eq!(agent.times("TLS Error"), 0, "{}", agent.log());
    Ok(agent)
}

fn wait_rekeys(agent: &Agent) -> Result<()> {
    let rekeys = || (agent.times("Control Channel: TLS") > 2).then_some(());
    wait_until("two rekeys", PATIENCE, rekeys, || agent.log())
}

fn with_log(site: &Site, fault: Fault) -> Fault {
    let log = site.gateway.as_ref().map(|gateway| gateway.log_tail()).unwrap_or_default();
    Fault::other(format!("{fault}\n{log}"))
}

fn tls_auth_with_sha1_and_directions_carries_and_rekeys(site: &mut Site) -> Result<()> {
    let key = static_key(site, "ta.key")?.display().to_string();
    serve(site, "tls-auth ta.key 0")?;
    connect_and_rekey(site, &["--tls-auth", &key, "1"])?;
    Ok(())
}

fn tls_auth_with_sha512_and_no_direction_carries_and_rekeys(site: &mut Site) -> Result<()> {
    let key = static_key(site, "ta512.key")?.display().to_string();
    serve(site, "tls-auth ta512.key\nauth SHA512")?;
    connect_and_rekey(site, &["--auth", "SHA512", "--tls-auth", &key])?;
    Ok(())
}

fn tls_crypt_in_a_block_carries_and_rekeys(site: &mut Site) -> Result<()> {
    let key = static_key(site, "tc.key")?;
    serve(site, &format!("<tls-crypt>\n{}</tls-crypt>", read_lossy(&key)))?;
    connect_and_rekey(site, &["--tls-crypt", &key.display().to_string()])?;
    Ok(())
}

fn tls_crypt_v2_carries_and_rekeys_beside_tls_crypt(site: &mut Site) -> Result<()> {
    let shared = static_key(site, "shared.key")?.display().to_string();
    key(site, "v2.key", &["--genkey", "tls-crypt-v2-server"])?;
    let own = client_key(site, "v2.key", "own.key")?.display().to_string();
    serve(site, "tls-crypt shared.key\ntls-crypt-v2 v2.key force-cookie")?;
    connect_and_rekey(site, &["--tls-crypt-v2", &own])?;
    let mut agent = relaunch(site, 0, &["--tls-crypt", &shared])?;
    agent.wait_connected(site.agent(0))?;
    Ok(())
}

fn tls_crypt_v2_comes_through_a_storm(site: &mut Site) -> Result<()> {
    key(site, "v2s.key", &["--genkey", "tls-crypt-v2-server"])?;
    let own = client_key(site, "v2s.key", "owns.key")?.display().to_string();
    serve(site, "tls-crypt-v2 v2s.key")?;
    let relay = Relay::start(site.agent(0), (PUBLIC, 443).into(), Weather::STORM)?;
    let (host, port) = (relay.address().ip().to_string(), relay.address().port().to_string());
    let arguments = ["--remote", &host, &port, "--reneg-sec", "3", "--tls-crypt-v2", &own];
    let mut agent = relaunch(site, 0, &arguments)?;
    agent.wait_connected(site.agent(0))?;
    wait_rekeys(&agent)?;
    assert!(reachable(site.agent(0), LAN_HOST, PATIENCE));
    assert_eq!(agent.times("Initialization Sequence Completed"), 1, "{}", agent.log());
    assert!(relay.lost() > 0, "{relay:?}");
    Ok(())
}

fn a_wrong_key_direction_or_digest_or_none_gets_silence_and_is_counted(site: &mut Site) -> Result<()> {
    let right = static_key(site, "right.key")?.display().to_string();
    let wrong = static_key(site, "wrong.key")?.display().to_string();
    serve(site, "tls-auth right.key 0")?;
    let cases: [&[&str]; 5] = [
        &["--tls-auth", &wrong, "1"],
        &["--tls-auth", &right, "0"],
        &["--tls-auth", &right, "1", "--auth", "SHA256"],
        &["--tls-crypt", &right],
        &[],
    ];
    for arguments in cases {
        // All that it hears passes here: nothing may.
        let relay = Relay::start(site.agent(0), (PUBLIC, 443).into(), Weather::FINE)?;
        let (host, port) = (relay.address().ip().to_string(), relay.address().port().to_string());
        let before = site.gateway()?.drops("control_unauthentic")?;
        let agent = relaunch(site, 0, &[arguments, &["--remote", &host, &port]].concat())?;
        let gateway = site.gateway()?;
        let counted = || (gateway.drops("control_unauthentic").ok()? > before).then_some(());
        wait_until("a counted drop", BRIEFLY, counted, || gateway.log_tail())?;
        drop(agent);
        assert_eq!(relay.answers(), 0, "{arguments:?} is answered");
    }
    assert!(!site.gateway()?.log().contains("refused"), "{}", site.gateway()?.log_tail());
    Ok(())
}

fn a_client_key_that_is_too_old_is_refused_in_plain_words(site: &mut Site) -> Result<()> {
    key(site, "v2a.key", &["--genkey", "tls-crypt-v2-server"])?;
    let fresh = client_key(site, "v2a.key", "fresh.key")?.display().to_string();
    let server = site.folder().join("v2a.key").display().to_string();
    // With metadata of its maker's choice it has no date.
    let dateless = site.folder().join("dateless.key").display().to_string();
    let arguments = ["--tls-crypt-v2", &server, "--genkey", "tls-crypt-v2-client", &dateless, "AABBCCDD"];
    run(Command::new("openvpn").args(arguments), 10)?;
    serve(site, "tls-crypt-v2 v2a.key\ntls-crypt-v2-max-age 1")?;
    let agent = relaunch(site, 0, &["--tls-crypt-v2", &dateless])?;
    let gateway = site.gateway()?;
    let said = || gateway.log().contains("tls-crypt-v2-max-age").then_some(());
    wait_until("a refusal in the gateway's log", BRIEFLY, said, || gateway.log_tail())?;
    drop(agent);
    let mut agent = relaunch(site, 0, &["--tls-crypt-v2", &fresh])?;
    agent.wait_connected(site.agent(0))?;
    Ok(())
}

fn our_client_talks_under_every_wrapping(site: &mut Site) -> Result<()> {
    static_key(site, "ta.key")?;
    key(site, "v2.key", &["--genkey", "tls-crypt-v2-server"])?;
    client_key(site, "v2.key", "own.key")?;
    // Two sessions and a rekey before frames are sent.
    let cases: [(&str, &[&str]); 4] = [
        ("tls-auth ta.key 0", &["--tls-auth", "ta.key", "--key-direction", "1"]),
        ("tls-auth ta.key\nauth SHA384", &["--tls-auth", "ta.key", "--auth", "SHA384"]),
        ("tls-crypt ta.key", &["--tls-crypt", "ta.key"]),
        ("tls-crypt-v2 v2.key force-cookie", &["--tls-crypt-v2", "own.key"]),
    ];
    for (lines, arguments) in cases {
        serve(site, &format!("duplicate-cn\n{lines}"))?;
        let arguments = [&["--to", "session"], arguments].concat();
        assert_all_arrived(&load::load(site, 200, &arguments).map_err(|fault| with_log(site, fault))?);
    }
    Ok(())
}
