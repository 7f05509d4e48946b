//! `trestle doctor`: faults made on purpose are found, and mended where that harms nobody.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use trestle_tests::bridged::make_wire;
use trestle_tests::gateway::{Mode, Start, diagnose};
use trestle_tests::netns::Namespace;
use trestle_tests::network::{Layout, NIC};
use trestle_tests::process::{Output, run, wait_until};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Fault, Result, scenarios};

pub const SUITE: Suite = Suite {
    name: "doctor",
    modes: &[Mode::Native],
    site: |mode| Site::prepare(Layout { agents: 0, ..Layout::default() }, Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![
        a_nic_that_is_well_is_found_well,
        a_nic_that_is_down_is_set_up,
        a_large_mtu_is_lowered_only_where_the_host_is_not_reached_by_it,
        another_s_program_is_told_and_left,
        a_bridge_keeps_its_address_once_it_is_mended,
        what_a_start_would_do_with_each_port_of_a_bridge_is_told,
        what_a_killed_gateway_left_is_put_back,
        a_gateway_that_runs_is_left_in_peace,
        without_root_it_says_what_it_cannot_see,
    ],
};

fn doctor(site: &Site, words: &[&str]) -> Result<Output> {
    diagnose(&site.network.gateway, site.folder(), words)
}

/// Exit code, and the findings of one check.
fn findings(site: &Site, words: &[&str], check: &str) -> Result<(Option<i32>, Vec<Value>)> {
    let said = doctor(site, &[words, &["-j"]].concat())?;
    let json: Value = serde_json::from_str(&said.stdout)
        .map_err(|why| Fault::other(format!("{why}: {}{}", said.stdout, said.stderr)))?;
    let all = json["findings"].as_array().cloned().unwrap_or_default();
    assert_eq!(json["fit"], said.code == Some(0), "{json}");
    Ok((said.code, all.into_iter().filter(|finding| finding["check"] == check).collect()))
}

/// The one finding of a check; what it is about, its level and whether it was mended.
fn one(site: &Site, words: &[&str], check: &str) -> Result<(Option<i32>, String, bool)> {
    let (code, found) = findings(site, words, check)?;
    let [finding] = &found[..] else { return Err(Fault::other(format!("{check}: {found:?}"))) };
    Ok((code, finding["level"].as_str().unwrap_or_default().to_owned(), !finding["fixed"].is_null()))
}

fn a_nic_that_is_well_is_found_well(site: &mut Site) -> Result<()> {
    let before = crate::host_safety::traces(&site.network.gateway)?;
    for check in ["native", "generic", "sockets", "mtu", "journal", "kernel"] {
        assert_eq!(one(site, &[NIC], check)?, (Some(0), "ok".to_owned(), false), "{check}");
    }
    let (_, probes) = findings(site, &[NIC], "probe")?;
    assert!(probes.len() == 2 && probes.iter().all(|probe| probe["level"] == "ok"), "{probes:?}");
    let overview = doctor(site, &[])?;
    assert!(
        overview.stdout.contains("\nens5: ok: driver veth, 1 receive queue, MTU 1500\n"),
        "{}",
        overview.stdout
    );
    assert_eq!(crate::host_safety::traces(&site.network.gateway)?, before, "trying leaves something behind");
    Ok(())
}

/// The host, with an interface `spare0` that nobody uses, up and fresh.
fn spare(site: &Site) -> Result<&Namespace> {
    let host = &site.network.gateway;
    if host.has_device("spare0") {
        host.ip("link del spare0")?;
    }
    host.ip_batch("link add spare0 type veth peer name spare1\nlink set spare0 up\nlink set spare1 up")?;
    Ok(host)
}

fn a_nic_that_is_down_is_set_up(site: &mut Site) -> Result<()> {
    let host = spare(site)?;
    host.ip("link set spare0 down")?;
    assert_eq!(one(site, &["spare0"], "link")?, (Some(1), "fault".to_owned(), false));
    assert_eq!(doctor(site, &["--fix"])?.code, Some(0), "the host itself is well");
    assert_eq!(one(site, &["spare0"], "link")?.1, "fault", "nobody asked for this one");
    assert_eq!(one(site, &["spare0", "--fix"], "link")?, (Some(0), "ok".to_owned(), true));
    assert!(host.ip("-brief link show spare0")?.contains(",UP"));
    Ok(())
}

fn a_large_mtu_is_lowered_only_where_the_host_is_not_reached_by_it(site: &mut Site) -> Result<()> {
    let host = spare(site)?;
    host.ip("link set spare0 mtu 9000")?;
    assert_eq!(one(site, &["spare0"], "mtu")?, (Some(1), "fault".to_owned(), false));
    assert_eq!(one(site, &["spare0", "--fix"], "mtu")?, (Some(0), "ok".to_owned(), true));
    assert!(host.ip("link show spare0")?.contains("mtu 1500"));
    host.ip(&format!("link set {NIC} mtu 9000"))?;
    assert_eq!(one(site, &[NIC, "--fix"], "mtu")?, (Some(1), "fault".to_owned(), false));
    assert!(host.ip(&format!("link show {NIC}"))?.contains("mtu 9000"));
    host.ip(&format!("link set {NIC} mtu 1500")).map(drop)
}

fn another_s_program_is_told_and_left(site: &mut Site) -> Result<()> {
    let folder = site.folder();
    let source = "__attribute__((section(\"xdp\"), used)) int pass(void *frame) { return 2; }";
    std::fs::write(folder.join("pass.c"), source).map_err(Fault::io("writing a program"))?;
    let mut clang = Command::new("clang");
    run(clang.args(["-O2", "-g", "-target", "bpf", "-c", "pass.c", "-o", "pass.o"]).current_dir(folder), 30)?;
    let host = spare(site)?;
    host.ip(&format!("link set spare0 xdpdrv obj {}/pass.o sec xdp", folder.display()))?;
    let (code, found) = findings(site, &["spare0", "--fix"], "program")?;
    assert_eq!((code, found.len(), &found[0]["level"]), (Some(1), 1, &Value::from("fault")), "{found:?}");
    assert!(host.ip("link show spare0")?.contains("prog/xdp"), "it is somebody's");
    host.ip("link set spare0 xdpdrv off")?;
    host.run("tc", "qdisc add dev spare0 root tbf rate 1mbit burst 10k latency 50ms")?;
    host.run("tc", "qdisc add dev spare0 clsact")?;
    let (code, found) = findings(site, &["spare0", "--fix"], "traffic-control")?;
    assert_eq!((code, found.len()), (Some(0), 2), "{found:?}");
    host.run("tc", "qdisc del dev spare0 root")?;
    host.run("tc", "qdisc del dev spare0 clsact").map(drop)
}

fn a_bridge_keeps_its_address_once_it_is_mended(site: &mut Site) -> Result<()> {
    let host = spare(site)?;
    host.ip_batch(
        "link add br7 type bridge
         link set spare0 address 02:00:00:00:70:02 master br7
         address add 10.77.0.1/24 dev br7
         link set br7 up",
    )?;
    let before = host.mac("br7")?;
    assert_eq!(one(site, &["br7"], "address")?.1, "warning");
    assert_eq!(one(site, &["br7", "--fix"], "address")?, (Some(0), "ok".to_owned(), true));
    assert_eq!(one(site, &["br7"], "address")?.1, "ok");
    let (_, ports) = findings(site, &["br7"], "driver")?;
    assert_eq!(ports[0]["about"], "spare0");
    host.ip_batch("link add low0 address 02:00:00:00:00:01 type veth\nlink set low0 master br7")?;
    assert_eq!(host.mac("br7")?, before, "a port with a lower address joined");
    host.ip("link del br7").map(drop)
}

/// The one finding about a port: its level and all it says.
fn outlook(site: &Site, port: &str) -> Result<(String, String)> {
    let mut words = findings(site, &["br7"], "acceleration")?.1;
    words.retain(|finding| finding["about"] == port);
    let [finding] = &words[..] else { return Err(Fault::other(format!("{port}: {words:?}"))) };
    let said = format!("{} {}", finding["sentence"], finding["cure"]);
    Ok((finding["level"].as_str().unwrap_or_default().to_owned(), said))
}

fn what_a_start_would_do_with_each_port_of_a_bridge_is_told(site: &mut Site) -> Result<()> {
    let host = spare(site)?;
    host.ip_batch(
        "link add wire0 type veth peer name wire1
         link add wire2 type veth peer name wire3
         link add br7 type bridge forward_delay 0
         link set br7 up
         link set wire1 up
         link set wire3 up
         link set wire0 master br7 up
         link set wire2 master br7 up
         link set spare0 master br7",
    )?;
    for far in ["wire1", "wire3"] {
        make_wire(host, far)?;
    }
    for wire in ["wire0", "wire2"] {
        assert_eq!(outlook(site, wire)?.0, "ok", "{:?}", outlook(site, wire)?);
    }
    // The kernel takes a moment to call new interfaces up, the bridge last of all.
    let up = || host.ip("-br link show dev br7").ok()?.contains(" UP ").then_some(());
    wait_until("br7 to be up", Duration::from_secs(5), up, String::new)?;
    let before = crate::host_safety::traces(host)?;
    let (level, said) = outlook(site, "spare0")?;
    assert!(level == "note" && said.contains("ethtool -K FAR tx off"), "a container's veth: {level}: {said}");
    let (_, master) = findings(site, &["wire0"], "master")?;
    assert!(master[0]["sentence"].to_string().contains("`trestle doctor br7`"), "{master:?}");
    host.nft(
        "table bridge guard { chain across { type filter hook forward priority 0; ether type 0x88b5 drop; }\n}",
    )?;
    let (level, said) = outlook(site, "wire0")?;
    assert!(level == "warning" && said.contains("nft list chain bridge guard across"), "{level}: {said}");
    host.nft("delete table bridge guard")?;
    assert_eq!(outlook(site, "wire0")?.0, "ok");
    assert_eq!(crate::host_safety::traces(host)?, before, "looking leaves something behind");
    host.ip_batch("link del br7\nlink del wire0\nlink del wire2")
}

fn what_a_killed_gateway_left_is_put_back(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    assert_eq!(one(site, &[NIC], "journal")?.1, "ok", "a living gateway's are no leftovers");
    site.gateway()?.kill()?;
    let shown = |site: &Site| site.network.gateway.run("ethtool", &format!("-k {NIC}"));
    assert!(shown(site)?.contains("rx-vlan-offload: off"));
    assert_eq!(one(site, &[NIC], "journal")?, (Some(0), "warning".to_owned(), false));
    assert_eq!(one(site, &[NIC, "--fix"], "journal")?, (Some(0), "ok".to_owned(), true));
    assert!(shown(site)?.contains("rx-vlan-offload: on"));
    assert_eq!(one(site, &[NIC], "journal")?, (Some(0), "ok".to_owned(), false));
    Ok(())
}

fn a_gateway_that_runs_is_left_in_peace(site: &mut Site) -> Result<()> {
    site.start_gateway()?;
    let before = crate::host_safety::traces(&site.network.gateway)?;
    assert_eq!(one(site, &[NIC, "--try", "--fix"], "program")?, (Some(0), "ok".to_owned(), false));
    assert_eq!(crate::host_safety::traces(&site.network.gateway)?, before);
    assert_eq!(site.gateway()?.stop()?.code(), Some(0));
    Ok(())
}

fn without_root_it_says_what_it_cannot_see(site: &mut Site) -> Result<()> {
    // A copy: nobody may not enter every folder on the way to the binary.
    let copy = site.folder().join("trestle");
    std::fs::copy(trestle_tests::gateway::binary()?, &copy).map_err(Fault::io("copying the binary"))?;
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(site.folder()), 10)?;
    let mut command = site.network.gateway.command("setpriv");
    command.args(["--reuid=nobody", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    command.arg(&copy).args(["doctor", NIC]).current_dir("/");
    let said = trestle_tests::process::output(&mut command, 20)?;
    assert_eq!(said.code, Some(1));
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    for word in
        ["CAP_BPF (to load programs)", "cure: sudo trestle doctor", "native XDP: not tried: that takes root"]
    {
        assert!(said.stdout.contains(word), "{word} is missing in {}", said.stdout);
    }
    Ok(())
}
