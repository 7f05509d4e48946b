//! Segments of one `trestle.toml`: what has not changed is not touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use trestle_tests::agent::Agent;
use trestle_tests::echo::ping;
use trestle_tests::frame::{BROADCAST, frame, local_mac};
use trestle_tests::gateway::{Mode, Start, binary};
use trestle_tests::network::{GATEWAY, Layout};
use trestle_tests::pki::{Keys, Pki};
use trestle_tests::process::{self, Process, wait_until};
use trestle_tests::raw::RawPort;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Result, scenarios};

pub const SUITE: Suite = Suite {
    name: "segments",
    // How frames come to the workers has no part in it.
    modes: &[Mode::Socket],
    site: |mode| {
        let site = Site::prepare(Layout::default(), Start::reference(mode))?;
        site.network.router.nft(&format!(
            "table ip segments {{
               chain in {{
                 type nat hook prerouting priority -100
                 udp dport {{ 1001, 1002, 1003 }} dnat to {GATEWAY}
               }}
             }}"
        ))?;
        Ok(site)
    },
    fresh: true,
    scenarios: scenarios![
        a_reload_touches_only_the_segments_that_have_changed,
        two_servers_with_authorities_of_their_own_share_one_segment,
        a_segment_that_dies_comes_back_alone_and_all_end_with_the_supervisor,
    ],
};

/// A start, or the end of a process that tells its peers, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A supervisor with its segments.
struct Supervised {
    process: Process,
    folder: PathBuf,
}

impl Supervised {
    /// Writes the segments and starts them in the gateway's namespace.
    fn start(site: &Site, segments: &[&str]) -> Result<Self> {
        let folder = site.folder().to_owned();
        for number in 1..=3 {
            let text = format!(
                "port 100{number}\ndev tap{number}\nca ca.crt\ncert server.crt\nkey server.key\nkeepalive 1 20\n\
                 server-bridge 10.{number}.0.1 255.255.255.0 10.{number}.0.100 10.{number}.0.110\nexplicit-exit-notify 1\n"
            );
            write(&folder.join(format!("{number}.conf")), &text)?;
        }
        write(&folder.join("trestle.toml"), &segments.concat())?;
        let mut command = site.network.gateway.command(&binary()?.display().to_string());
        command.args(["run", "--config", "trestle.toml", "--control"]).arg(folder.join("control.sock"));
        command.current_dir(&folder);
        let process = Process::spawn("supervisor", &mut command, &folder.join("gateway.log"))?;
        Ok(Self { process, folder })
    }

    fn call(&self, site: &Site, words: &[&str]) -> Result<process::Output> {
        let mut command = site.network.gateway.command(&binary()?.display().to_string());
        command.args(words).arg("--control").arg(self.folder.join("control.sock"));
        process::output(&mut command, 20)
    }

    /// Writes the file anew; what `trestle reload` says, and whether it succeeded.
    fn reload(&self, site: &Site, segments: &[&str]) -> Result<(bool, String)> {
        write(&self.folder.join("trestle.toml"), &segments.concat())?;
        let output = self.call(site, &["reload"])?;
        Ok((output.code == Some(0), output.stdout + &output.stderr))
    }

    fn status(&self, site: &Site, segment: &str) -> Result<Value> {
        let output = self.call(site, &["status", "-j", "--segment", segment])?;
        Ok(serde_json::from_str(&output.stdout).unwrap_or(Value::Null))
    }

    /// The segment's status once it serves.
    fn wait_status(&self, site: &Site, segment: &str) -> Result<Value> {
        let ready = || self.status(site, segment).ok().filter(|status| status["pid"].is_u64());
        wait_until(&format!("segment {segment}"), SOON, ready, || self.process.log_tail())
    }

    /// Process, number and seconds of the session of a segment with one peer.
    fn session(&self, site: &Site, segment: &str) -> Result<(u64, u64, u64)> {
        let status = self.status(site, segment)?;
        let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
        let peer = &status["peers"][0];
        Ok((number(&status["pid"]), number(&peer["peer_id"]), number(&peer["connected_s"])))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).expect("the site's folder is ours");
    Ok(())
}

fn segment(number: u32) -> String {
    format!("[segment.s{number}]\nserver = '{number}.conf'\ndatapath = 'socket'\n")
}

/// A stock client of segment `number`, connected.
fn connect(site: &Site, number: usize) -> Result<Agent> {
    let namespace = &site.network.agents[number - 1];
    let arguments = ["--remote", "203.0.113.1", &format!("100{number}")];
    let name = format!("agent{number}");
    let mut agent = Agent::launch(namespace, site.folder(), &site.pki, &name, &arguments)?;
    agent.wait_connected(namespace)?;
    Ok(agent)
}

fn a_reload_touches_only_the_segments_that_have_changed(site: &mut Site) -> Result<()> {
    let [one, two, three] = [1, 2, 3].map(segment);
    let supervised = Supervised::start(site, &[&one, &two])?;
    supervised.wait_status(site, "s1")?;
    supervised.wait_status(site, "s2")?;
    let both = supervised.call(site, &["peers", "-j"])?.stdout;
    let both: Value = serde_json::from_str(&both).unwrap_or_default();
    assert!(
        both["segments"]["s1"]["peers"].is_array() && both["segments"]["s2"]["peers"].is_array(),
        "{both}"
    );
    let (_first, _second) = (connect(site, 1)?, connect(site, 2)?);
    let (pid, peer_id, age) = supervised.session(site, "s1")?;
    let before = supervised.session(site, "s2")?;
    let (pinging, other) = (start_pinging(site, 1)?, start_pinging(site, 2)?);

    let (done, said) = supervised.reload(site, &[&one, &two, &three])?;
    assert!(done && said == "s1: kept\ns2: kept\ns3: started\n", "{said}");
    supervised.wait_status(site, "s3")?;

    let broken = "[segment.s3]\nserver = '3.conf'\nwrokers = 1\n";
    let (done, said) = supervised.reload(site, &[&two, broken])?;
    let wanted = "trestle: nothing was changed: trestle.toml:6: `segment.s3.wrokers` is unknown; perhaps `workers` is meant\n";
    assert!(!done && said == wanted, "{said}");
    let unusable = "[segment.s3]\nserver = 'none.conf'\n";
    let (done, said) = supervised.reload(site, &[&two, unusable])?;
    assert!(!done && said.contains("none.conf: the configuration cannot be read"), "{said}");
    let (done, said) = supervised.reload(site, &[&one, &two, "[segment.x]\nserver = './1.conf'\n"])?;
    assert!(!done && said.contains("is segment `s1`'s already"), "{said}");

    let guarded = format!("{two}guards = {{ broadcast = 5, mac-limit = 3, loop-guard = false }}\n");
    let (done, said) = supervised.reload(site, &[&one, &guarded])?;
    assert!(done && said == "s1: kept\ns2: applied live\ns3: stopped\n", "{said}");
    limits_bite(site, &supervised)?;
    let older = || {
        let (same_pid, same_peer, later) = supervised.session(site, "s2").ok()?;
        assert_eq!((same_pid, same_peer), (before.0, before.1));
        (later > before.2).then_some(())
    };
    wait_until("the session to be older", SOON, older, String::new)?;
    lost_nothing(other)?;

    // A revocation list's place: the authority's own file, whose bytes change and whose meaning does not.
    let ca = fs::read_to_string(site.folder().join("ca.crt")).unwrap_or_default();
    write(&site.folder().join("ca.crt"), &format!("{ca}\n"))?;
    let (done, said) = supervised.reload(site, &[&one, &guarded])?;
    assert!(done && said == "s1: applied live\ns2: applied live\n", "{said}");
    // Another authority: who is connected stays, who comes is not known any more.
    write(&site.folder().join("ca.crt"), Pki::new(Keys::Ecdsa)?.ca())?;
    assert!(supervised.reload(site, &[&one, &guarded])?.0);
    let remote = ["--remote", "203.0.113.1", "1001"];
    let mut stranger = Agent::launch(&site.network.agents[1], site.folder(), &site.pki, "stranger", &remote)?;
    stranger.process().wait_for("Received fatal SSL alert", SOON)?;
    drop(stranger);
    write(&site.folder().join("ca.crt"), "broken")?;
    let (done, said) = supervised.reload(site, &[&one, &guarded])?;
    assert!(!done && said.contains("ca.crt"), "{said}");
    write(&site.folder().join("ca.crt"), &ca)?;
    assert!(supervised.reload(site, &[&one, &guarded])?.0);

    // By content, not by name.
    let before = supervised.session(site, "s2")?.0;
    let conf = fs::read_to_string(site.folder().join("2.conf")).unwrap_or_default();
    write(&site.folder().join("2.conf"), &format!("{conf}max-clients 7\n"))?;
    let (done, said) = supervised.reload(site, &[&one, &guarded])?;
    assert!(done && said == "s1: kept\ns2: restarted\n", "{said}");
    assert_ne!(supervised.wait_status(site, "s2")?["pid"].as_u64(), Some(before));

    let (same_pid, same_peer, later) = supervised.session(site, "s1")?;
    assert_eq!((same_pid, same_peer), (pid, peer_id));
    assert!(later > age && later < 1000, "{age} s, then {later} s");
    lost_nothing(pinging)
}

/// Agent `number` asks the host, until it is told to stop.
fn start_pinging(site: &Site, number: usize) -> Result<Process> {
    site.network.gateway.ip(&format!("address add 10.{number}.0.1/24 dev tap{number}"))?;
    let mut ping = site.network.agents[number - 1].command("ping");
    ping.args(format!("-i 0.1 -c 1000 -W 2 10.{number}.0.1").split(' '));
    Process::spawn("ping", &mut ping, &site.folder().join(format!("ping{number}.log")))
}

fn lost_nothing(mut pinging: Process) -> Result<()> {
    pinging.signal(Signal::SIGINT)?;
    pinging.wait(SOON)?;
    assert!(pinging.log().contains(" 0% packet loss"), "{}", pinging.log_tail());
    Ok(())
}

/// The second agent floods, and has more stations than it may: most of that is lost, and known for what it is.
fn limits_bite(site: &Site, supervised: &Supervised) -> Result<()> {
    let port = RawPort::open(&site.network.agents[1], "tap0")?;
    for number in 0..40 {
        let source = local_mac(0x30_0000 + number % 10);
        port.send(&frame(BROADCAST, source, 0x88b5, &[0; 46]))?;
    }
    let bitten = || {
        let drops = supervised.status(site, "s2").ok()?["drops"].clone();
        let lost = |reason: &str| drops[reason].as_u64().unwrap_or_default();
        (lost("mac_limit") > 20 && lost("storm_broadcast") > 0).then_some(())
    };
    wait_until("the limits to bite", SOON, bitten, || supervised.process.log_tail())
}

fn a_segment_that_dies_comes_back_alone_and_all_end_with_the_supervisor(site: &mut Site) -> Result<()> {
    let mut supervised = Supervised::start(site, &[&segment(1), &segment(2)])?;
    let pid = |status: &Value| status["pid"].as_u64().unwrap_or_default();
    let first = pid(&supervised.wait_status(site, "s1")?);
    let second = pid(&supervised.wait_status(site, "s2")?);
    site.network.gateway.run("kill", &format!("-9 {first}"))?;
    let again =
        || supervised.status(site, "s1").ok().map(|s| pid(&s)).filter(|now| *now != 0 && *now != first);
    let again = wait_until("the segment again", SOON, again, || supervised.process.log_tail())?;
    assert_eq!(pid(&supervised.wait_status(site, "s2")?), second);
    supervised.process.kill()?;
    let gone = |pid: u64| !Path::new(&format!("/proc/{pid}")).exists();
    wait_until("the end of all", SOON, || (gone(again) && gone(second)).then_some(()), String::new)?;
    assert!(!site.network.gateway.has_device("tap1") && !site.network.gateway.has_device("tap2"));
    Ok(())
}

/// A server's file on `port`, its keys in `folder`, that leases ten addresses from 10.1.0.`first`.
fn sharing(port: u16, folder: &str, first: u8) -> String {
    format!(
        "port {port}\ndev tap1\nca {folder}ca.crt\ncert {folder}server.crt\nkey {folder}server.key\nclient-to-client\n\
         keepalive 1 20\nserver-bridge 10.1.0.1 255.255.255.0 10.1.0.{first} 10.1.0.{}\n",
        first + 9
    )
}

fn two_servers_with_authorities_of_their_own_share_one_segment(site: &mut Site) -> Result<()> {
    let folder = site.folder().to_owned();
    let other = Pki::new(Keys::Ecdsa)?;
    fs::create_dir_all(folder.join("other")).expect("the site's folder is ours");
    other.write_server(&folder.join("other"))?;
    write(&folder.join("a.conf"), &sharing(1001, "", 100))?;
    write(&folder.join("b.conf"), &sharing(1002, "other/", 120))?;
    let both = "[segment.both]\nserver = ['a.conf', 'b.conf']\ndatapath = 'socket'\nworkers = 2\n";
    let supervised = Supervised::start(site, &[both])?;
    supervised.wait_status(site, "both")?;
    let [one, two, ..] = &site.network.agents[..] else { panic!("two agents") };
    let by = |port| ["--remote", "203.0.113.1", port];
    let mut stranger = Agent::launch(two, &folder, &other, "stranger", &by("1001"))?;
    stranger.process().wait_for("VERIFY ERROR", SOON)?;
    drop(stranger);
    let mut first = Agent::launch(one, &folder, &site.pki, "first", &by("1001"))?;
    let mut second = Agent::launch(two, &folder, &other, "second", &by("1002"))?;
    let addresses = (first.wait_connected(one)?, second.wait_connected(two)?);
    assert_eq!((addresses.0.octets()[3], addresses.1.octets()[3]), (100, 120));
    let status = supervised.wait_status(site, "both")?;
    let peers: Vec<_> = status["peers"].as_array().into_iter().flatten().collect();
    let mut numbers: Vec<_> = peers.iter().filter_map(|peer| peer["peer_id"].as_u64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 256], "{status}");
    let echoes = ping(one, addresses.1, 20, 1400)?;
    assert!(echoes.complete(), "from one server's client to the other's: {echoes:?}");

    let limited = format!("{both}guards.mac-limit = 3\n");
    let (done, said) = supervised.reload(site, &[&limited])?;
    assert!(done && said == "both: applied live\n", "{said}");
    limits_stations(site, &supervised, "both")?;
    write(&folder.join("b.conf"), &sharing(1001, "other/", 120))?;
    let (done, said) = supervised.reload(site, &[&limited])?;
    let wanted =
        "b.conf: this listens on udp 0.0.0.0:1001, as a.conf has it; give one of them another `port`\n";
    assert!(!done && said.ends_with(wanted), "{said}");
    assert!(ping(two, addresses.0, 5, 56)?.complete());
    Ok(())
}

/// The second agent has more stations than it may.
fn limits_stations(site: &Site, supervised: &Supervised, segment: &str) -> Result<()> {
    let port = RawPort::open(&site.network.agents[1], "tap0")?;
    for number in 0..10 {
        port.send(&frame(BROADCAST, local_mac(0x31_0000 + number), 0x88b5, &[0; 46]))?;
    }
    let lost =
        || supervised.status(site, segment).ok()?["drops"]["mac_limit"].as_u64().filter(|lost| *lost > 5);
    wait_until("the limit to bite", SOON, lost, || supervised.process.log_tail()).map(drop)
}
