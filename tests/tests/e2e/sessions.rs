//! The life of a session: cipher, rekey, keepalive, exit, restart, pool, status file, privileges.

use std::time::Duration;

use trestle_tests::agent::Agent;
use trestle_tests::echo::{ping, reachable};
use trestle_tests::gateway::{Mode, SERVER_CONF, Start};
use trestle_tests::network::{GATEWAY, LAN_HOST, Layout, POOL_FIRST};
use trestle_tests::pki::{Keys, Pki, Purpose};
use trestle_tests::process::{read_lossy, wait_until};
use trestle_tests::raw::{RawPort, Volley};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::Flow;
use trestle_tests::{Fault, Result, scenarios};

use crate::stations::config_with;

pub(crate) const BRIEFLY: Duration = Duration::from_secs(20);

/// Scenarios that share a site with the reference configuration and leave all agents connected.
pub const SUITE: Suite = Suite {
    name: "sessions",
    modes: &[Mode::Native],
    site: |mode| {
        let config = config_with("").replace("openvpn-status.log", "openvpn-status.log 1");
        Site::open(Layout::default(), Start { config, ..Start::reference(mode) })
    },
    fresh: false,
    scenarios: scenarios![
        the_gateway_runs_as_nobody_with_three_capabilities,
        an_aes_128_client_gets_its_cipher,
        a_client_without_a_common_cipher_is_refused_in_plain_words,
        a_client_that_compresses_is_understood,
        a_client_that_starts_again_on_the_same_port_is_let_in;
        stock:
        addresses_come_from_the_pool_in_order,
        the_status_file_has_version_1,
        a_client_that_exits_is_gone_at_once,
        a_client_of_another_authority_is_refused,
        agents_are_told_when_the_gateway_stops,
    ],
};

/// Scenarios with a configuration of their own.
pub const LIFE: Suite = Suite {
    name: "session_life",
    modes: &[Mode::Native, Mode::Socket],
    site: |mode| Site::prepare_with(Layout::default(), Start::reference(mode), Keys::Rsa2048),
    fresh: true,
    scenarios: scenarios![
        the_pool_never_leases_the_broadcast_address_nor_the_gateways_own;
        stock:
        rekeying_by_either_side_loses_no_frame,
    ],
};

/// Slow, and the same in every mode.
pub const KEEPALIVE: Suite = Suite {
    name: "keepalive",
    modes: &[Mode::Native],
    scenarios: scenarios![; stock:
        keepalive_holds_an_idle_client_and_drops_a_dead_one,
        agents_come_back_after_the_gateway_was_killed,
    ],
    ..LIFE
};

fn addresses_come_from_the_pool_in_order(site: &mut Site) -> Result<()> {
    let mut given = [site.address(0), site.address(1)];
    given.sort();
    assert_eq!(given[0], POOL_FIRST);
    assert_eq!(u32::from(given[1]), u32::from(POOL_FIRST) + 1);
    Ok(())
}

fn the_status_file_has_version_1(site: &mut Site) -> Result<()> {
    let path = site.folder().join("log/openvpn/openvpn-status.log");
    let wanted =
        ["OpenVPN CLIENT LIST", "Updated,", "agent1,", "agent2,", "ROUTING TABLE", "GLOBAL STATS", "END"];
    let complete = || wanted.iter().all(|word| read_lossy(&path).contains(word)).then_some(());
    wait_until("a complete status file", BRIEFLY, complete, || read_lossy(&path))?;
    let text = read_lossy(&path);
    let agent = text.lines().find(|line| line.starts_with("agent1,")).expect("a line for agent1");
    let fields: Vec<&str> = agent.split(',').collect();
    assert_eq!(fields.len(), 5, "{agent}");
    assert!(fields[1].contains("198.51.100."), "{agent}");
    assert!(fields[2].parse::<u64>().is_ok_and(|bytes| bytes > 0), "{agent}");
    assert!(fields[3].parse::<u64>().is_ok_and(|bytes| bytes > 0), "{agent}");
    Ok(())
}

fn the_gateway_runs_as_nobody_with_three_capabilities(site: &mut Site) -> Result<()> {
    /// CAP_NET_ADMIN (12), CAP_NET_RAW (13), CAP_BPF (39): linux/capability.h.
    const KEPT: u64 = 1 << 12 | 1 << 13 | 1 << 39;
    let pid = site.gateway()?.process().pid();
    let nobody = nix_user("nobody")?;
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).map_err(Fault::io("listing threads"))?;
    for task in tasks.flatten() {
        let status = read_lossy(&task.path().join("status"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.trim().to_owned()).unwrap_or_default()
        };
        let users: Vec<u32> = field("Uid:").split_whitespace().filter_map(|id| id.parse().ok()).collect();
        assert!(users.iter().all(|id| *id == nobody), "a thread runs as {users:?}: {status}");
        for set in ["CapEff:", "CapPrm:"] {
            let held = u64::from_str_radix(&field(set), 16).unwrap_or(u64::MAX);
            assert_eq!(held & !KEPT, 0, "{set} {held:#x}");
        }
    }
    Ok(())
}

fn nix_user(name: &str) -> Result<u32> {
    let accounts = read_lossy(std::path::Path::new("/etc/passwd"));
    let line = accounts.lines().find(|line| line.starts_with(&format!("{name}:")));
    let id = line.and_then(|line| line.split(':').nth(2)?.parse().ok());
    id.ok_or_else(|| Fault::other(format!("there is no user {name}")))
}

fn an_aes_128_client_gets_its_cipher(site: &mut Site) -> Result<()> {
    site.connect_agents(&["--data-ciphers", "AES-128-GCM"])?;
    let echoes = ping(site.agent(0), site.address(1), 20, 1000)?;
    assert!(echoes.complete(), "{echoes:?}");
    assert!(reachable(site.agent(1), LAN_HOST, BRIEFLY));
    let status = site.gateway()?.status()?;
    let ciphers: Vec<_> =
        peers(&status).iter().map(|peer| peer["cipher"].as_str().unwrap_or("").to_owned()).collect();
    assert_eq!(ciphers, ["AES-128-GCM", "AES-128-GCM"]);
    site.connect_agents(&[])
}

fn a_client_without_a_common_cipher_is_refused_in_plain_words(site: &mut Site) -> Result<()> {
    let mut agent = relaunch(site, 0, &["--data-ciphers", "AES-256-CBC"])?;
    agent.process().wait_for("AUTH_FAILED", BRIEFLY)?;
    let log = site.gateway()?.log();
    let said = log.lines().any(|line| line.contains("agent1") && line.to_lowercase().contains("cipher"));
    assert!(said, "the log does not say whom it refused and why:\n{log}");
    drop(agent);
    site.connect_agents(&[])
}

fn a_client_that_compresses_is_understood(site: &mut Site) -> Result<()> {
    site.agents.clear();
    let mut first = relaunch(site, 0, &["--compress", "lz4-v2", "--allow-compression", "yes"])?;
    let mut second = relaunch(site, 1, &[])?;
    first.wait_connected(site.agent(0))?;
    let plain = second.wait_connected(site.agent(1))?;
    assert_eq!(first.times("compress lz4-v2"), 1, "{}", first.log());
    // Zeros: 1000 of them compress to a few bytes.
    let echoes = ping(site.agent(0), plain, 20, 1000)?;
    assert!(echoes.complete(), "{echoes:?}");
    let (from, to) = (RawPort::open(site.agent(0), "tap0")?, RawPort::open(site.agent(1), "tap0")?);
    for first_byte in [0x02, 0x50] {
        let there = [first_byte, 0, 0, 0, 0, 7];
        let tally = Volley::new(there, site.mac(0)?).of_length(1514).fly(&from, &to)?;
        assert!(tally.complete(), "to {there:02x?}: {tally:?}");
    }
    drop((first, second));
    site.connect_agents(&[])
}

fn a_client_that_exits_is_gone_at_once(site: &mut Site) -> Result<()> {
    let mut agent = relaunch(site, 0, &["--explicit-exit-notify", "1"])?;
    agent.wait_connected(site.agent(0))?;
    assert!(reachable(site.agent(0), LAN_HOST, BRIEFLY));
    let since = site.gateway()?.log().len();
    agent.process().terminate(BRIEFLY)?;
    gone(site, "agent1", since, Duration::from_secs(8))?;
    site.connect_agents(&[])
}

/// Waits until the gateway has forgotten the peer `name`.
pub(crate) fn gone(site: &mut Site, name: &str, log_since: usize, limit: Duration) -> Result<()> {
    let gateway = site.gateway()?;
    let forgotten = || {
        if gateway.mode() == Mode::Stock {
            let log = gateway.log();
            let ends = ["client-instance exiting", "client-instance restarting"];
            return ends.iter().any(|end| log[log_since..].contains(end)).then_some(());
        }
        let status = gateway.status().ok()?;
        peers(&status).iter().all(|peer| peer["name"] != name).then_some(())
    };
    wait_until(&format!("that the gateway forgets {name}"), limit, forgotten, || gateway.log_tail())
}

fn a_client_that_starts_again_on_the_same_port_is_let_in(site: &mut Site) -> Result<()> {
    // The profile says nobind: one port to choose from makes it the same each time.
    for _ in 0..2 {
        site.agent(0).sysctl("net/ipv4/ip_local_port_range", "40001 40001")?;
        let mut agent = relaunch(site, 0, &[])?;
        agent.wait_connected(site.agent(0))?;
        site.agent(0).sysctl("net/ipv4/ip_local_port_range", "32768 60999")?;
        assert!(reachable(site.agent(0), LAN_HOST, BRIEFLY));
        agent.process().kill()?;
    }
    site.connect_agents(&[])
}

fn a_client_of_another_authority_is_refused(site: &mut Site) -> Result<()> {
    let folder = site.folder().join("stranger");
    std::fs::create_dir_all(folder.join("agent1")).map_err(Fault::io("making a folder"))?;
    // Its certificate is another authority's; it trusts ours, so that the refusal is the gateway's.
    let stranger = Pki::new(Keys::Ecdsa)?;
    stranger.issue("agent1", Purpose::Client)?.write(&folder.join("agent1"), "client")?;
    site.agents.remove(0);
    let since = site.gateway()?.log().len();
    let mut agent = Agent::launch(site.agent(0), &folder, &site.pki, "agent1", &[])?;
    let gateway = site.gateway()?;
    let refusal = || {
        let log = gateway.log()[since..].to_lowercase();
        log.lines().any(|line| line.contains("198.51.100.11") && line.contains("certificate")).then_some(())
    };
    wait_until("a refusal in the gateway's log", BRIEFLY, refusal, || gateway.log_tail())?;
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(
        agent.times("Initialization Sequence Completed"),
        0,
        "a certificate of another authority is let in"
    );
    assert!(agent.process().ended().is_none(), "the client ended by itself:\n{}", agent.log());
    drop(agent);
    site.connect_agents(&[])
}

fn agents_are_told_when_the_gateway_stops(site: &mut Site) -> Result<()> {
    let ended = site.gateway()?.stop()?;
    assert!(ended.success(), "it ends with {ended}");
    for agent in &mut site.agents {
        agent.process().wait_log("a RESTART", BRIEFLY, |log| {
            log.contains("server-pushed-connection-reset").then_some(())
        })?;
    }
    site.start_gateway()?;
    site.connect_agents(&[])
}

fn rekeying_by_either_side_loses_no_frame(site: &mut Site) -> Result<()> {
    // The client's 0 leaves it to the server; the shorter of two others wins.
    site.start().config = config_with("reneg-sec 5");
    site.start_gateway()?;
    let mut first = relaunch(site, 0, &["--reneg-sec", "3"])?;
    let mut second = relaunch(site, 1, &["--reneg-sec", "0"])?;
    let address = first.wait_connected(site.agent(0))?;
    second.wait_connected(site.agent(1))?;
    let flow = Flow::start(site.agent(1), site.agent(0), address, Duration::from_millis(2))?;
    std::thread::sleep(Duration::from_secs(13));
    let report = flow.stop()?;
    for (agent, at_least) in [(&first, 4), (&second, 3)] {
        let keys = agent.times("Control Channel: TLS");
        assert!(keys >= at_least, "{} agreed on keys {keys} times only:\n{}", agent.name(), agent.log());
        assert_eq!(agent.times("Initialization Sequence Completed"), 1, "{} connected anew", agent.name());
    }
    assert!(
        report.lost.is_empty(),
        "{} of {} lost while rekeying: {:?}",
        report.lost.len(),
        report.sent,
        report.lost
    );
    Ok(())
}

fn keepalive_holds_an_idle_client_and_drops_a_dead_one(site: &mut Site) -> Result<()> {
    site.start().config = SERVER_CONF.replace("keepalive 10 120", "keepalive 1 4");
    site.start_gateway()?;
    site.connect_agents(&[])?;
    // Nothing but pings: the host's own chatter must not keep the tunnel alive.
    for namespace in &site.network.agents {
        namespace.ip("link set tap0 arp off")?;
    }
    std::thread::sleep(Duration::from_secs(9));
    for agent in &site.agents {
        assert_eq!(agent.times("Initialization Sequence Completed"), 1, "{}:\n{}", agent.name(), agent.log());
        assert_eq!(agent.times("Inactivity timeout"), 0, "{}:\n{}", agent.name(), agent.log());
    }
    let since = site.gateway()?.log().len();
    site.agents[0].process().kill()?;
    // The server waits twice as long as it tells clients to.
    gone(site, "agent1", since, Duration::from_secs(14))
}

fn agents_come_back_after_the_gateway_was_killed(site: &mut Site) -> Result<()> {
    site.start().config = SERVER_CONF.replace("keepalive 10 120", "keepalive 1 4");
    site.start_gateway()?;
    site.connect_agents(&[])?;
    site.gateway()?.kill()?;
    site.start_gateway()?;
    for agent in &mut site.agents {
        let again = |log: &str| (log.matches("Initialization Sequence Completed").count() > 1).then_some(());
        agent.process().wait_log("a second connection", BRIEFLY, again)?;
    }
    assert!(reachable(site.agent(0), LAN_HOST, BRIEFLY));
    Ok(())
}

fn the_pool_never_leases_the_broadcast_address_nor_the_gateways_own(site: &mut Site) -> Result<()> {
    site.start().config = SERVER_CONF.replace("10.10.21.100 10.10.21.255", "10.10.21.254 10.10.21.255");
    site.start_gateway()?;
    let mut first = relaunch(site, 0, &[])?;
    assert_eq!(first.wait_connected(site.agent(0))?.octets(), [10, 10, 21, 254]);
    let mut second = relaunch(site, 1, &[])?;
    second.process().wait_for("Initialization Sequence Completed", BRIEFLY)?;
    assert!(!second.log().contains("ifconfig 10.10.21.255"), "{}", second.log());
    drop((first, second));
    site.start().config = SERVER_CONF.replace("10.10.21.100 10.10.21.255", "10.10.21.4 10.10.21.6");
    site.gateway()?.stop()?;
    site.start_gateway()?;
    site.connect_agents(&[])?;
    assert_ne!(site.address(0), GATEWAY);
    assert_ne!(site.address(1), GATEWAY);
    Ok(())
}

/// Ends agent `number` and starts it again with other arguments; the site no longer knows it.
pub(crate) fn relaunch(site: &mut Site, number: usize, arguments: &[&str]) -> Result<Agent> {
    let name = format!("agent{}", number + 1);
    site.agents.retain(|agent| agent.name() != name);
    Agent::launch(site.agent(number), site.folder(), &site.pki, &name, arguments)
}

pub(crate) fn peers(status: &serde_json::Value) -> &[serde_json::Value] {
    status["peers"].as_array().map(Vec::as_slice).unwrap_or_default()
}
