//! A kernel bridge, accelerated: what it has learnt goes by XDP, all else by the kernel, and nothing is bypassed.
//!
//! Every scenario lays out a host and a bridge of its own; the suite's site is no more than a folder.

use std::path::Path;
use std::time::{Duration, Instant};

use trestle_tests::bridged::{BRIDGE, Bridged, HOST, Kind, make_wire};
use trestle_tests::echo::reachable;
use trestle_tests::frame::{BROADCAST, ETHERTYPE_EXPERIMENT, frame, local_mac, show_mac};
use trestle_tests::gateway::{Mode, Start, binary, refused};
use trestle_tests::network::Layout;
use trestle_tests::process::{Process, output, patient, run, wait_until};
use trestle_tests::raw::{Tally, Volley};
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::traffic::{Extent, Flow, FlowReport, Stream, iperf3};
use trestle_tests::{Fault, Result, scenarios};

use crate::host_safety::traces;

pub const SUITE: Suite = Suite {
    name: "bridge",
    modes: &[Mode::Native],
    site: |mode| Site::prepare(Layout { agents: 0, ..Layout::default() }, Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![
        known_unicast_goes_by_xdp_and_all_else_by_the_kernel,
        a_capture_of_a_port_shows_every_frame_once,
        a_port_that_leaves_is_not_used_any_more,
        stations_in_use_do_not_age_and_silent_ones_do,
        a_loop_is_blocked_by_the_spanning_tree_and_xdp_obeys,
        isolated_ports_stay_isolated,
        a_rule_on_the_bridge_bites_and_ports_come_back_without_it,
        a_foreign_program_is_respected,
        containers_reach_each_other_and_the_wire_at_once,
        a_station_that_moves_keeps_its_connection,
        kill_9_leaves_a_plain_bridge_at_once,
        stop_leaves_everything_as_it_was,
        a_bridge_deleted_and_made_anew_is_accelerated_again,
        what_is_no_bridge_is_named,
    ],
};

const SOON: Duration = Duration::from_secs(10);
pub const BOTH: &[&str] = &["from", "to"];
const WIRES: [Kind; 3] = [Kind::Wire; 3];

pub fn lay_out(site: &Site, kinds: &[Kind]) -> Result<Bridged> {
    Bridged::lay_out(site.folder().to_owned(), kinds)
}

/// A host with three wires, accelerated, whose stations are known.
pub fn three_wires(site: &Site) -> Result<Bridged> {
    let mut bridged = lay_out(site, &WIRES)?;
    bridged.accelerate()?;
    for station in 0..WIRES.len() {
        bridged.wait_accelerated(&format!("w{station}"), BOTH)?;
        announce(&bridged, station)?;
    }
    Ok(bridged)
}

/// Has everybody learn where a station is.
fn announce(bridged: &Bridged, station: usize) -> Result<()> {
    let mac = bridged.stations[station].mac;
    bridged.raw(station)?.send(&frame(BROADCAST, mac, ETHERTYPE_EXPERIMENT, &[0; 46]))?;
    bridged.wait_learnt(station)
}

pub fn volley(bridged: &Bridged, from: usize, to: usize) -> Volley {
    Volley::new(bridged.stations[to].mac, bridged.stations[from].mac)
}

fn known_unicast_goes_by_xdp_and_all_else_by_the_kernel(site: &mut Site) -> Result<()> {
    let bridged = three_wires(site)?;
    let raw = [bridged.raw(0)?, bridged.raw(1)?, bridged.raw(2)?];
    for (from, to) in [(0, 1), (1, 0), (2, 0)] {
        let before = bridged.by_xdp(&bridged.stations[from].port)?;
        raw.iter().for_each(|raw| raw.drain());
        let tally = volley(&bridged, from, to).of_length(1000).of_count(500).fly(&raw[from], &raw[to])?;
        assert!(tally.complete(), "{from} to {to}: {tally:?}");
        assert_eq!(bridged.by_xdp(&bridged.stations[from].port)? - before, 500, "{from} to {to}");
    }
    let tagged = volley(&bridged, 0, 1).in_vlan(7).fly(&raw[0], &raw[1])?;
    assert!(tagged.complete(), "tagged: {tagged:?}");
    let before = bridged.by_xdp("w0")?;
    for destination in [BROADCAST, [0x33, 0x33, 0, 0, 0, 0x77], local_mac(4711)] {
        for to in [1, 2] {
            let tally = Volley::new(destination, bridged.stations[0].mac).fly(&raw[0], &raw[to])?;
            assert!(tally.complete(), "{destination:?} to {to}: {tally:?}");
        }
    }
    assert_eq!(bridged.by_xdp("w0")?, before, "a flood went by XDP");
    Ok(())
}

fn a_capture_of_a_port_shows_every_frame_once(site: &mut Site) -> Result<()> {
    let mut bridged = three_wires(site)?;
    let raw = [bridged.raw(0)?, bridged.raw(1)?, bridged.raw(2)?];
    let file = site.folder().join("w1.pcapng");
    let mut capture = begin_capture(site, &mut bridged, "w1", &file)?;
    assert!(xdp_copies_frames(&mut bridged)?, "no port bears the flag");
    let (zero, one) = (bridged.stations[0].mac, bridged.stations[1].mac);
    let forwarded = bridged.by_xdp("w0")?;
    let to_one = volley(&bridged, 0, 1).of_count(20).fly(&raw[0], &raw[1])?;
    let from_one = volley(&bridged, 1, 0).of_count(30).fly(&raw[1], &raw[0])?;
    let flood = Volley::new(BROADCAST, zero).of_count(5).fly(&raw[0], &raw[1])?;
    let tagged = Volley::new(BROADCAST, one).in_vlan(7).of_count(6).fly(&raw[1], &raw[0])?;
    // Neither comes nor goes by w1.
    let past = volley(&bridged, 0, 2).of_count(7).fly(&raw[0], &raw[2])?;
    assert!([to_one, from_one, flood, tagged, past].iter().all(Tally::complete));
    assert_eq!(bridged.by_xdp("w0")? - forwarded, 20 + 7, "the test is blind");
    let line = |way: u8, from, to, vlan: &str| {
        format!("w1|0x0000000{way}|{}|{}|{vlan}", show_mac(from), show_mac(to))
    };
    let expected = [
        (line(2, zero, one, ""), 20),
        (line(1, one, zero, ""), 30),
        (line(2, zero, BROADCAST, ""), 5),
        (line(1, one, BROADCAST, "7"), 6),
    ];
    pause(300);
    capture.terminate(Duration::from_secs(5))?;
    let lines = read_capture(&file)?;
    for (line, count) in &expected {
        assert_eq!(lines.iter().filter(|found| *found == line).count(), *count, "{line}: {lines:#?}");
    }
    assert_eq!(lines.len(), 20 + 30 + 5 + 6, "{lines:#?}");
    let gone = || (!xdp_copies_frames(&mut bridged).ok()?).then_some(());
    wait_until("the flag to be gone", SOON, gone, String::new)
}

/// Starts `trestle capture` of a port, and waits until the accelerator has begun.
fn begin_capture(site: &Site, bridged: &mut Bridged, port: &str, file: &Path) -> Result<Process> {
    let mut command = bridged.host.command(&binary()?.display().to_string());
    command.args(["capture", port, "-w"]).arg(file).arg("--control").arg(bridged.gateway()?.control());
    let process = Process::spawn("trestle capture", &mut command, &site.folder().join("capture.log"))?;
    let begun = || bridged.gateway.as_ref()?.log().contains("a capture begins").then_some(());
    wait_until("the capture to begin", SOON, begun, || process.log())?;
    Ok(process)
}

/// What tshark reads: a line a frame, of interface, direction, source, destination and VLAN.
fn read_capture(file: &Path) -> Result<Vec<String>> {
    let mut command = std::process::Command::new("tshark");
    let fields = ["frame.interface_name", "frame.packet_flags_direction", "eth.src", "eth.dst", "vlan.id"];
    command.arg("-r").arg(file).args(["-T", "fields", "-E", "separator=|"]);
    fields.iter().for_each(|field| _ = command.args(["-e", field]));
    Ok(run(&mut command, 30)?.lines().map(str::to_owned).collect())
}

/// Whether any port in the accelerator's map bears `port_flag::CAPTURE`.
fn xdp_copies_frames(bridged: &mut Bridged) -> Result<bool> {
    /// In the second word of a port.
    const CAPTURE: u64 = 1 << 5;
    let id = map_of_ports(bridged.gateway()?.process().pid())?;
    let map: serde_json::Value =
        serde_json::from_str(&bridged.host.run("bpftool", &format!("-j map dump id {id}"))?)
            .map_err(|error| Fault::other(format!("bpftool's map cannot be read: {error}")))?;
    let flags = |entry: &serde_json::Value| {
        let byte = entry["value"][4].as_str()?.trim_start_matches("0x");
        u64::from_str_radix(byte, 16).ok()
    };
    let entries = map.as_array().ok_or_else(|| Fault::other(format!("no entries: {map}")))?;
    let flags: Vec<u64> = entries.iter().filter_map(flags).collect();
    assert!(!flags.is_empty(), "the test is blind: {}", map[0]);
    Ok(flags.iter().any(|flags| flags & CAPTURE != 0))
}

/// The number of the map that XDP is told of ports by: others' maps have the same name.
fn map_of_ports(process: u32) -> Result<u32> {
    let folder = format!("/proc/{process}/fdinfo");
    let described = std::fs::read_dir(&folder).map_err(Fault::io("reading descriptors"))?.flatten();
    let described = described.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let is_ports = |text: &String| text.contains("value_size:\t16\n") && text.contains("max_entries:\t256\n");
    let found = described
        .filter(is_ports)
        .find_map(|text| text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok()));
    found.ok_or_else(|| Fault::other(format!("no map of ports in {folder}")))
}

fn a_port_that_leaves_is_not_used_any_more(site: &mut Site) -> Result<()> {
    let mut bridged = three_wires(site)?;
    let (raw, flow) = ([bridged.raw(0)?, bridged.raw(1)?], start_flow(&bridged, 0, 1)?);
    pause(300);
    bridged.host.ip("link set w1 nomaster")?;
    let gone = || bridged.port("w1").is_err().then_some(());
    wait_until("w1 to be no port", SOON, gone, String::new)?;
    let tally = volley(&bridged, 0, 1).of_count(40).fly(&raw[0], &raw[1])?;
    assert_eq!(tally.received, 0, "frames go to what is no port of the bridge");
    let back = volley(&bridged, 1, 0).of_count(40).fly(&raw[1], &raw[0])?;
    assert_eq!(back.received, 0, "frames come from what is no port of the bridge");
    bridged.host.ip(&format!("link set w1 master {BRIDGE}"))?;
    bridged.wait_accelerated("w1", BOTH)?;
    pause(300);
    let report = flow.stop()?;
    assert_eq!(report.duplicates, 0);
    assert!(ends_well(&report), "{} of {} lost: {:?}", report.lost.len(), report.sent, report.lost);
    let port = bridged.port("w1")?;
    assert!(port["bridge"]["frames"]["xdp"].as_u64() > Some(0), "{port:#}");
    assert!(bridged.gateway()?.process().ended().is_none());
    Ok(())
}

fn stations_in_use_do_not_age_and_silent_ones_do(site: &mut Site) -> Result<()> {
    let mut bridged = lay_out(site, &WIRES)?;
    bridged.host.run("brctl", &format!("setageing {BRIDGE} 3"))?;
    bridged.accelerate()?;
    bridged.wait_accelerated("w0", BOTH)?;
    (0..3).try_for_each(|station| announce(&bridged, station))?;
    let flow = start_flow(&bridged, 0, 1)?;
    let began = Instant::now();
    let (zero, one, two) = (bridged.stations[0].mac, bridged.stations[1].mac, bridged.stations[2].mac);
    while began.elapsed() < Duration::from_secs(8) {
        let known = shown_macs(&bridged)?;
        assert!(known.contains(&show_mac(zero)) && known.contains(&show_mac(one)), "{known}");
        pause(200);
    }
    assert!(!shown_macs(&bridged)?.contains(&show_mac(two)), "who is silent stays");
    assert!(bridged.by_xdp("w0")? > 1000, "the test is blind: frames went by the kernel");
    let report = flow.stop()?;
    assert!(report.lost.is_empty(), "{report:?}");
    let gone = || (!shown_macs(&bridged).ok()?.contains(&show_mac(zero))).then_some(());
    wait_until("a silent station to be forgotten", SOON, gone, String::new)?;
    let forgotten =
        || (!bridged.gateway.as_ref()?.ask("fdb").ok()?.to_string().contains(&show_mac(zero))).then_some(());
    wait_until("the gateway to forget it", SOON, forgotten, String::new)
}

/// Stations that the bridge has learnt, as brctl shows them.
fn shown_macs(bridged: &Bridged) -> Result<String> {
    let command = format!("mount -t sysfs sysfs /sys && exec brctl showmacs {BRIDGE}");
    let mut unshare = bridged.host.command("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", &command]);
    let shown = output(&mut unshare, 10)?;
    match shown.code {
        Some(0) => Ok(shown.stdout),
        _ => Err(Fault::other(format!("brctl showmacs: {}", shown.stderr))),
    }
}

fn a_loop_is_blocked_by_the_spanning_tree_and_xdp_obeys(site: &mut Site) -> Result<()> {
    let mut bridged = lay_out(site, &WIRES)?;
    bridged
        .host
        .ip(&format!("link set {BRIDGE} type bridge stp_state 1 forward_delay 200 hello_time 100"))?;
    close_loop(&bridged)?;
    bridged.accelerate()?;
    bridged.wait_accelerated("w2", BOTH)?;
    bridged.wait_reason("w3", "spanning tree keeps it blocked")?;
    bridged.wait_accelerated("w0", BOTH)?;
    announce(&bridged, 2)?;
    let raw = bridged.raw(2)?;
    // A broadcast in a loop comes back to who sent it, again and again.
    let tally = Volley::new(BROADCAST, bridged.stations[2].mac).of_count(5).fly(&raw, &raw)?;
    assert_eq!(tally.received + tally.duplicates, 0, "the loop is not blocked: {tally:?}");
    let flow = start_flow(&bridged, 2, 0)?;
    pause(500);
    assert_eq!(bridged.by_xdp("w3")?, 0, "XDP forwarded from a blocked port");
    let report = flow.stop()?;
    assert!(ends_well(&report) && report.duplicates == 0, "{report:?}");
    Ok(())
}

/// Makes station 0 a switch with a second cable, w3, to the bridge, and puts its address behind it.
fn close_loop(bridged: &Bridged) -> Result<()> {
    let (host, station) = (&bridged.host, &bridged.stations[0]);
    let switch = &station.namespace;
    host.ip_batch(&format!("link add w3 type veth peer name up1 netns {}", switch.name()))?;
    switch.ip_batch(&format!(
        "link set eth0 down
         link set eth0 name up0
         address flush dev up0
         link set up0 address 02:5e:00:00:07:00
         link add sw address {mac} type bridge forward_delay 0 mcast_snooping 0
         link set up0 master sw up
         link set up1 master sw up
         address add {address}/24 dev sw
         link set sw up",
        mac = show_mac(station.mac),
        address = station.address,
    ))?;
    switch.run("ethtool", "-K sw tx off")?;
    host.ip("link set w3 up")?;
    make_wire(switch, "up1")?;
    // The device was down meanwhile: the kernel says anew what it takes.
    switch.run("ethtool", "-K up0 gro off")?;
    make_wire(switch, "up0")?;
    host.ip(&format!("link set w3 master {BRIDGE}")).map(drop)
}

fn isolated_ports_stay_isolated(site: &mut Site) -> Result<()> {
    let bridged = three_wires(site)?;
    let raw = [bridged.raw(0)?, bridged.raw(1)?, bridged.raw(2)?];
    assert!(volley(&bridged, 0, 1).fly(&raw[0], &raw[1])?.complete());
    for port in ["w0", "w1"] {
        bridged.host.run("bridge", &format!("link set dev {port} isolated on"))?;
    }
    // The word to the gateway is on its way while the command returns.
    pause(200);
    assert_eq!(volley(&bridged, 0, 1).fly(&raw[0], &raw[1])?.received, 0);
    assert_eq!(volley(&bridged, 1, 0).fly(&raw[1], &raw[0])?.received, 0);
    let before = bridged.by_xdp("w0")?;
    assert!(volley(&bridged, 0, 2).fly(&raw[0], &raw[2])?.complete());
    assert!(bridged.by_xdp("w0")? > before, "an isolated port is not accelerated to others");
    bridged.host.run("bridge", "link set dev w0 isolated off")?;
    pause(200);
    assert!(volley(&bridged, 0, 1).fly(&raw[0], &raw[1])?.complete());
    Ok(())
}

fn a_rule_on_the_bridge_bites_and_ports_come_back_without_it(site: &mut Site) -> Result<()> {
    let bridged = three_wires(site)?;
    let raw = [bridged.raw(0)?, bridged.raw(1)?];
    let flow = start_flow(&bridged, 0, 1)?;
    pause(200);
    bridged.host.nft(
        "table bridge guard { chain across { type filter hook forward priority 0; ether type 0x88b5 drop; }\n}",
    )?;
    bridged.wait_accelerated("w0", &[])?;
    bridged.wait_reason("w0", "nft")?;
    assert_eq!(volley(&bridged, 0, 1).fly(&raw[0], &raw[1])?.received, 0, "the rule is bypassed");
    bridged.host.nft("delete table bridge guard")?;
    bridged.wait_accelerated("w0", BOTH)?;
    bridged.wait_accelerated("w1", BOTH)?;
    assert!(volley(&bridged, 0, 1).fly(&raw[0], &raw[1])?.complete());
    let report = flow.stop()?;
    assert!(report.lost.is_empty() && report.duplicates == 0, "a change of ways costs frames: {report:?}");
    Ok(())
}

fn a_foreign_program_is_respected(site: &mut Site) -> Result<()> {
    let mut bridged = lay_out(site, &WIRES)?;
    let object = foreign_program(site)?;
    bridged.host.run("ip", &format!("link set dev w1 xdpdrv obj {object} sec xdp"))?;
    bridged.accelerate()?;
    bridged.wait_accelerated("w0", BOTH)?;
    bridged.wait_accelerated("w1", &[])?;
    bridged.wait_reason("w1", "XDP program")?;
    assert!(reachable(&bridged.stations[0].namespace, bridged.stations[1].address, SOON));
    bridged.host.run("ip", "link set dev w1 xdpdrv off")?;
    bridged.wait_accelerated("w1", BOTH)
}

/// An XDP program that passes everything.
fn foreign_program(site: &Site) -> Result<String> {
    let (source, object) = (site.folder().join("pass.c"), site.folder().join("pass.o"));
    let text = "__attribute__((section(\"xdp\"), used)) int pass(void *c) { return 2; }\n\
                char terms[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";
    std::fs::write(&source, text).map_err(Fault::io("writing a program"))?;
    let mut clang = std::process::Command::new("clang");
    clang.args(["-O2", "-g", "-target", "bpf", "-c"]).arg(&source).arg("-o").arg(&object);
    run(&mut clang, 30)?;
    Ok(object.display().to_string())
}

fn containers_reach_each_other_and_the_wire_at_once(site: &mut Site) -> Result<()> {
    let mut bridged = lay_out(site, &[Kind::Container, Kind::Container, Kind::Wire, Kind::Wire])?;
    bridged.accelerate()?;
    bridged.wait_accelerated("w2", BOTH)?;
    bridged.wait_reason("c0", "checksums")?;
    for (from, to) in [(0, 1), (0, 2), (2, 0), (2, 3)] {
        let (from, to) = (&bridged.stations[from], &bridged.stations[to]);
        let carried = iperf3(&from.namespace, &to.namespace, to.address, Stream::Tcp, Extent::Megabytes(20))?;
        assert!(carried.bits_per_second > 0.0, "{} to {}", from.port, to.port);
    }
    let port = bridged.port("c0")?;
    assert_eq!(port["xdp"], "none", "a container pays for XDP it has nothing of: {port:#}");
    assert!(bridged.by_xdp("w2")? > 0, "wire to wire went by the kernel");
    Ok(())
}

fn a_station_that_moves_keeps_its_connection(site: &mut Site) -> Result<()> {
    let bridged = three_wires(site)?;
    let (from, moving) = (&bridged.stations[0], &bridged.stations[1]);
    let inside = moving.namespace.name();
    bridged.host.ip(&format!("link add w9 type veth peer name eth1 netns {inside}"))?;
    bridged.host.ip(&format!("link set w9 master {BRIDGE} up"))?;
    let flow = start_flow(&bridged, 0, 1)?;
    let moved = std::thread::scope(|scope| {
        let moved = scope.spawn(|| {
            pause(1000);
            moving.namespace.ip_batch(&format!(
                "link set eth0 down
                 address flush dev eth0
                 link set eth0 address 02:5e:00:00:07:01
                 link set eth1 address {}
                 address add {}/24 dev eth1
                 link set eth1 up",
                show_mac(moving.mac),
                moving.address
            ))
        });
        let carried =
            iperf3(&from.namespace, &moving.namespace, moving.address, Stream::Tcp, Extent::Seconds(4))?;
        assert!(carried.bits_per_second > 0.0);
        let moved = moved.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        moved.and_then(|()| make_wire(&moving.namespace, "eth1"))
    });
    moved?;
    bridged.wait_accelerated("w9", BOTH)?;
    pause(300);
    let report = flow.stop()?;
    assert!(ends_well(&report), "{} of {} lost: {:?}", report.lost.len(), report.sent, report.lost);
    let port = bridged.port("w9")?;
    assert!(port["bridge"]["frames"]["xdp"].as_u64() > Some(0), "the new port is not accelerated: {port:#}");
    Ok(())
}

fn kill_9_leaves_a_plain_bridge_at_once(site: &mut Site) -> Result<()> {
    let mut bridged = lay_out(site, &WIRES)?;
    let untouched = traces(&bridged.host)?;
    bridged.accelerate()?;
    bridged.wait_accelerated("w0", BOTH)?;
    (0..3).try_for_each(|station| announce(&bridged, station))?;
    let flow = start_flow(&bridged, 0, 1)?;
    let to_host = Flow::start(&bridged.stations[2].namespace, &bridged.host, HOST, EVERY)?;
    pause(500);
    assert!(bridged.by_xdp("w0")? > 50, "the test is blind: frames went by the kernel");
    assert_ne!(traces(&bridged.host)?, untouched, "a running accelerator leaves no trace: the test is blind");
    bridged.gateway()?.kill()?;
    assert_eq!(traces(&bridged.host)?, untouched, "after kill -9");
    pause(500);
    for report in [flow.stop()?, to_host.stop()?] {
        // A plain bridge forwards within 100 ms; a busy machine may take its time for the rest.
        assert!(gap(&report) < patient(Duration::from_millis(400)), "{:?}", report.lost);
        assert!(ends_well(&report) && report.duplicates == 0, "{report:?}");
    }
    assert_eq!(bridged.host.ipv4(BRIDGE), Some(HOST));
    bridged.accelerate()?;
    bridged.wait_accelerated("w0", BOTH)
}

fn stop_leaves_everything_as_it_was(site: &mut Site) -> Result<()> {
    let mut bridged = lay_out(site, &[Kind::Wire, Kind::Wire, Kind::Container])?;
    let features = |bridged: &Bridged| bridged.host.run("ethtool", "-k w0");
    let (untouched, before) = (traces(&bridged.host)?, features(&bridged)?);
    bridged.accelerate()?;
    bridged.wait_accelerated("w0", BOTH)?;
    assert_ne!(features(&bridged)?, before, "VLAN tags are stripped: the test is blind, or VLANs merge");
    let flow = start_flow(&bridged, 0, 1)?;
    pause(300);
    let ended = bridged.gateway()?.stop()?;
    assert!(ended.success(), "{ended:?}");
    assert_eq!((traces(&bridged.host)?, features(&bridged)?), (untouched, before), "after a stop");
    let report = flow.stop()?;
    assert!(report.lost.is_empty() && report.duplicates == 0, "{report:?}");
    Ok(())
}

fn a_bridge_deleted_and_made_anew_is_accelerated_again(site: &mut Site) -> Result<()> {
    let mut bridged = three_wires(site)?;
    bridged.host.ip(&format!("link delete {BRIDGE}"))?;
    let waits = || {
        let status = bridged.gateway.as_ref()?.status().ok()?;
        status["health"].to_string().contains("is gone").then_some(())
    };
    wait_until("the gateway to wait for its bridge", SOON, waits, String::new)?;
    bridged.host.ip_batch(&format!(
        "link add {BRIDGE} type bridge forward_delay 0 mcast_snooping 0
         link set w0 master {BRIDGE}
         link set w1 master {BRIDGE}
         link set {BRIDGE} up"
    ))?;
    bridged.wait_accelerated("w0", BOTH)?;
    (0..2).try_for_each(|station| announce(&bridged, station))?;
    let before = bridged.by_xdp("w0")?;
    let tally = volley(&bridged, 0, 1).fly(&bridged.raw(0)?, &bridged.raw(1)?)?;
    assert!(tally.complete() && bridged.by_xdp("w0")? > before, "{tally:?}");
    let status = bridged.gateway()?.status()?;
    assert_eq!(status["health"], serde_json::json!([]), "{status:#}");
    assert!(bridged.gateway()?.table("status")?.contains("no tunnels"));
    Ok(())
}

fn what_is_no_bridge_is_named(site: &mut Site) -> Result<()> {
    let bridged = lay_out(site, &[Kind::Wire])?;
    for (name, words) in [("br7", "there is no"), ("w0", "is no bridge")] {
        let said = refused(&bridged.host, site.folder(), &["--bridge", name])?;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains(name) && said.stderr.contains(words), "{said:?}");
    }
    Ok(())
}

/// Time between two datagrams of a flow.
const EVERY: Duration = Duration::from_millis(2);

fn start_flow(bridged: &Bridged, from: usize, to: usize) -> Result<Flow> {
    let (from, to) = (&bridged.stations[from], &bridged.stations[to]);
    assert!(reachable(&from.namespace, to.address, SOON), "{} does not reach {}", from.port, to.port);
    Flow::start(&from.namespace, &to.namespace, to.address, EVERY)
}

/// The longest row of lost datagrams, as time.
fn gap(report: &FlowReport) -> Duration {
    let (mut longest, mut row, mut last) = (0, 0, None);
    for &number in &report.lost {
        row = if last.is_some_and(|last: u32| last + 1 == number) { row + 1 } else { 1 };
        longest = longest.max(row);
        last = Some(number);
    }
    EVERY * longest
}

/// Whether the last datagrams were answered.
fn ends_well(report: &FlowReport) -> bool {
    report.lost.last().is_none_or(|last| last + 20 < report.sent)
}

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}
