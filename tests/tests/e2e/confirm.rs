//! Who locked himself out gets his host back (`--confirm`), and who killed a gateway gets his NIC's settings back.

use std::time::Duration;

use trestle_tests::bridged::{Bridged, Kind};
use trestle_tests::echo::reachable;
use trestle_tests::gateway::{Mode, Start, refused};
use trestle_tests::network::{BRIDGE, GATEWAY, LAN_HOST, Layout, NIC};
use trestle_tests::process::{Process, wait_until};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Fault, Result, scenarios};

use crate::host_safety::traces;

pub const SUITE: Suite = Suite {
    name: "confirm",
    modes: &[Mode::Native],
    site: |mode| {
        let arguments = ["--confirm", SECONDS].map(String::from).to_vec();
        let layout = Layout { unfinished_checksums: true, agents: 1, ..Layout::default() };
        Site::prepare(layout, Start { arguments, ..Start::reference(mode) })
    },
    fresh: true,
    scenarios: scenarios![
        what_nobody_confirms_is_taken_back,
        a_bridge_that_peers_joined_is_given_back,
        a_bridge_that_was_accelerated_is_given_back,
        what_is_confirmed_stays,
        a_gateway_outlives_the_terminal_it_was_started_in,
        a_gateway_that_hangs_is_ended_by_the_alarm,
        what_a_killed_gateway_changed_is_put_back_by_the_next,
    ],
};

/// Short for the test's sake, and long enough to look at what the gateway has made of its host.
const SECONDS: &str = "4";
/// The gateway's own time, two seconds for its peers, and a busy machine's.
const OVER: Duration = Duration::from_secs(20);

/// All that a gateway may change on its host and on the far end of its veth.
fn state(site: &Site) -> Result<String> {
    let near = site.network.gateway.run("ethtool", &format!("-k {NIC}"))?;
    let far = site.network.wire.run("ethtool", "-k w-gw")?;
    // Flags, MTU, queue, bridge.
    let links = site.network.gateway.ip("-oneline link show")?;
    Ok(format!("{}\n{links}\n{near}\n{far}", traces(&site.network.gateway)?))
}

fn what_nobody_confirms_is_taken_back(site: &mut Site) -> Result<()> {
    // As `openvpn --mktun` made it; once up, for that gives an interface its first queueing discipline.
    site.network
        .gateway
        .ip_batch("tuntap add dev tap0 mode tap\nlink set tap0 mtu 1400 up\nlink set tap0 down")?;
    let before = state(site)?;
    site.start_gateway()?;
    let left = site.gateway()?.status()?["confirm_s"].as_u64();
    assert!(left.is_some_and(|left| left <= 4), "{left:?}");
    assert_ne!(state(site)?, before, "a running gateway changes nothing: the test is blind");
    site.connect_agents(&[])?;
    let ended = site.gateway()?.process().wait(OVER)?;
    assert_eq!(ended.code(), Some(1), "{}", site.gateway()?.log());
    let log = site.gateway()?.process().log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("trestle: nobody confirmed within 4 s"), "{log}");
    assert_eq!(state(site)?, before);
    assert!(reachable(&site.network.lan, GATEWAY, Duration::from_secs(5)));
    Ok(())
}

/// What a gateway may change on a bridge and its ports, besides [`state`]; aged entries are nobody's doing.
fn bridge_state(site: &Site) -> Result<String> {
    let host = &site.network.gateway;
    let kept: Vec<String> = host
        .run("bridge", &format!("fdb show br {BRIDGE}"))?
        .lines()
        .filter(|line| line.contains("permanent") || line.contains("extern_learn") || line.contains("static"))
        .map(String::from)
        .collect();
    Ok(format!("{}\n{}\n{}", state(site)?, host.run("bridge", "link show")?, kept.join("\n")))
}

/// Waits until the kernel has noticed that nobody has the TAP open.
fn let_go_of_tap(site: &Site) -> Result<()> {
    let host = &site.network.gateway;
    let gone = || host.ip("link show tap0").ok().filter(|tap| tap.contains("NO-CARRIER")).map(drop);
    wait_until("tap0 without carrier", Duration::from_secs(5), gone, String::new)
}

/// As the admin's own script leaves it.
fn a_bridge_that_peers_joined_is_given_back(site: &mut Site) -> Result<()> {
    site.network.bridge_up()?;
    site.start().bridge = Some(BRIDGE.to_owned());
    // The kernel takes a TAP's carrier for there until a program has let go of it once, and openvpn had.
    site.start_gateway()?;
    assert_eq!(site.gateway()?.stop()?.code(), Some(0));
    let_go_of_tap(site)?;
    let before = bridge_state(site)?;
    site.start_gateway()?;
    site.connect_agents(&[])?;
    let host = &site.network.gateway;
    let entered =
        || host.run("bridge", "fdb show br br0").ok().filter(|all| all.contains("extern_learn")).map(drop);
    let _ = reachable(site.agent(0), GATEWAY, Duration::from_secs(1));
    wait_until("a peer's MAC on the host port", Duration::from_secs(3), entered, String::new)?;
    assert_ne!(bridge_state(site)?, before, "a running gateway changes nothing: the test is blind");
    assert_eq!(site.gateway()?.process().wait(OVER)?.code(), Some(1), "{}", site.gateway()?.log());
    let_go_of_tap(site)?;
    assert_eq!(bridge_state(site)?, before);
    assert!(reachable(&site.network.lan, GATEWAY, Duration::from_secs(5)));
    Ok(())
}

/// Without SERVER.CONF: XDP on the ports and their features are all there is to take back.
fn a_bridge_that_was_accelerated_is_given_back(site: &mut Site) -> Result<()> {
    let bridged = Bridged::lay_out(site.folder().to_owned(), &[Kind::Wire, Kind::Wire, Kind::Container])?;
    let host = &bridged.host;
    let look = || -> Result<String> {
        let features = ["w0", "w1", "c2"].map(|port| host.run("ethtool", &format!("-k {port}")));
        let features = features.into_iter().collect::<Result<Vec<_>>>()?.concat();
        Ok(format!("{}\n{}\n{features}", traces(host)?, host.run("bridge", "link show")?))
    };
    let before = look()?;
    let ended = std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            refused(
                host,
                site.folder(),
                &["--bridge", BRIDGE, "--confirm", SECONDS, "--control", "confirm.sock"],
            )
        });
        let attached = || look().ok().filter(|now| now.contains("xdp") && *now != before).map(drop);
        wait_until("XDP on the ports", Duration::from_secs(4), attached, String::new)?;
        run.join().map_err(|_| Fault::other("the thread that waits for the gateway"))?
    })?;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("nobody confirmed within 4 s"), "{}", ended.stderr);
    assert_eq!(look()?, before);
    Ok(())
}

fn what_is_confirmed_stays(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    assert_eq!(site.gateway()?.ask("confirm")?["confirm"], "confirmed");
    assert!(site.gateway()?.status()?["confirm_s"].is_null());
    assert_eq!(
        site.gateway()?.table("confirm")?.trim(),
        "there is nothing to confirm: the gateway stays as it is"
    );
    // Longer than it would have had.
    std::thread::sleep(Duration::from_secs(5));
    site.connect_agents(&[])?;
    assert!(reachable(site.agent(0), LAN_HOST, Duration::from_secs(10)));
    assert_eq!(site.gateway()?.stop()?.code(), Some(0));
    Ok(())
}

/// When it is gone, every line of the log fails with EPIPE.
fn a_gateway_outlives_the_terminal_it_was_started_in(site: &mut Site) -> Result<()> {
    let before = state(site)?;
    let mut process = started_in_terminal(site, "sleep 1", "true")?;
    process.wait_for("exit 1", OVER)?;
    assert_eq!(state(site)?, before);
    Ok(())
}

/// A terminal that takes nothing more (Ctrl-S): the log's next line never ends, and the loop with it.
fn a_gateway_that_hangs_is_ended_by_the_alarm(site: &mut Site) -> Result<()> {
    let before = traces(&site.network.gateway)?;
    let mut process = started_in_terminal(site, "sleep 40", "head -c 65000 /dev/zero >&2")?;
    // 128 and SIGALRM: four seconds, and ten of grace.
    process.wait_for("exit 142", Duration::from_secs(30))?;
    assert_eq!(traces(&site.network.gateway)?, before);
    Ok(())
}

/// Starts the gateway with its log going to `terminal`, a command; `first` goes there before.
fn started_in_terminal(site: &mut Site, terminal: &str, first: &str) -> Result<Process> {
    let folder = site.folder().to_owned();
    let mut start = site.start().clone();
    start.config =
        start.config.lines().filter(|line| !line.starts_with("log")).flat_map(|line| [line, "\n"]).collect();
    let launch = trestle_tests::gateway::command(&site.network.gateway, &folder, &start)?;
    let script = format!("{{ {first}; exec \"$@\"; }} 2> >({terminal}) & wait $!; echo \"exit $?\"");
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &script, "terminal"]).current_dir(&folder);
    shell.arg(launch.get_program()).args(launch.get_args());
    Process::spawn("terminal", &mut shell, &folder.join("terminal.log"))
}

fn what_a_killed_gateway_changed_is_put_back_by_the_next(site: &mut Site) -> Result<()> {
    site.start().arguments.clear();
    let before = state(site)?;
    site.start_gateway()?;
    site.gateway()?.kill()?;
    let left = state(site)?;
    for line in ["rx-vlan-offload: off", "tx-checksum-ip-generic: off"] {
        assert!(left.contains(line), "{line} is not left behind: the test is blind");
    }
    let journals = || std::fs::read_dir(site.folder().join("run/settings")).into_iter().flatten().count();
    assert_eq!(journals(), 1);
    // The admin has made up his mind about one of them meanwhile.
    site.network.gateway.run("ethtool", &format!("-K {NIC} rxvlan on"))?;
    site.start_gateway()?;
    let log = site.gateway()?.log();
    assert!(
        log.contains(
            "tx-checksum-ip-generic of w-gw was turned off by a gateway that was killed: it is on again"
        ),
        "{log}"
    );
    assert!(
        log.contains(
            "rx-vlan-hw-parse of ens5 was turned off by a gateway that was killed, and changed since"
        ),
        "{log}"
    );
    site.gateway()?.stop()?;
    assert_eq!(state(site)?, before);
    Ok(())
}
