//! VLAN filtering on an accelerated bridge. Debian's kernels have it; where the kernel has none this says so, and holds:
//! nothing can be turned on there.
//!
//! ```text
//!   w0, w1  access ports of VLAN 10        w2  access port of VLAN 20        w3, w4  trunks of both
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use trestle_tests::bridged::{BRIDGE, Bridged, Kind};
use trestle_tests::frame::{self, BROADCAST, ETHERTYPE_EXPERIMENT, show_mac};
use trestle_tests::gateway::{Mode, Start};
use trestle_tests::network::Layout;
use trestle_tests::process::{patient, wait_until};
use trestle_tests::raw::Volley;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Result, scenarios};

use crate::bridge::{BOTH, lay_out, volley};

pub const SUITE: Suite = Suite {
    name: "bridge_vlans",
    modes: &[Mode::Native],
    site: |mode| Site::prepare(Layout { agents: 0, ..Layout::default() }, Start::reference(mode)),
    fresh: false,
    scenarios: scenarios![vlan_filtering_on_and_off_under_traffic_does_not_leak],
};

/// What the kernel's word to the gateway may take: until then XDP goes by what was before.
const GRACE: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(10);

fn vlan_filtering_on_and_off_under_traffic_does_not_leak(site: &mut Site) -> Result<()> {
    let mut bridged = lay_out(site, &[Kind::Wire; 5])?;
    if filter(&bridged, true).is_err() {
        println!("not possible here: this kernel's bridge has no VLAN filtering (Debian's 6.12 has)");
        return Ok(());
    }
    give_vlans(&bridged)?;
    bridged.accelerate()?;
    for port in 0..5 {
        bridged.wait_accelerated(&format!("w{port}"), BOTH)?;
    }
    announce_all(&bridged)?;
    what_keeps_its_tag_goes_by_xdp(&bridged)?;
    what_changes_its_tag_goes_by_the_kernel(&bridged)?;
    no_vlan_reaches_another(&bridged)?;
    switching_does_not_leak(&bridged)?;
    a_port_that_loses_a_vlan_gets_none_of_it(&bridged)?;
    vlans_changed_while_not_filtered_count_at_once(&bridged)
}

fn filter(bridged: &Bridged, on: bool) -> Result<()> {
    bridged.host.ip(&format!("link set {BRIDGE} type bridge vlan_filtering {}", u8::from(on))).map(drop)
}

fn vlan(bridged: &Bridged, words: &str) -> Result<()> {
    bridged.host.run("bridge", &format!("vlan {words}")).map(drop)
}

fn give_vlans(bridged: &Bridged) -> Result<()> {
    for (port, vid) in [("w0", 10), ("w1", 10), ("w2", 20)] {
        vlan(bridged, &format!("add dev {port} vid {vid} pvid untagged"))?;
        vlan(bridged, &format!("del dev {port} vid 1"))?;
    }
    for port in ["w3", "w4"] {
        vlan(bridged, &format!("del dev {port} vid 1"))?;
        [10, 20].iter().try_for_each(|vid| vlan(bridged, &format!("add dev {port} vid {vid}")))?;
    }
    Ok(())
}

/// Has the bridge learn who is where; those behind trunks are in both VLANs.
fn announce_all(bridged: &Bridged) -> Result<()> {
    for station in 0..5 {
        let hello = frame::frame(BROADCAST, bridged.stations[station].mac, ETHERTYPE_EXPERIMENT, &[0; 46]);
        let raw = bridged.raw(station)?;
        match station {
            0..3 => raw.send(&hello)?,
            _ => [10, 20].iter().try_for_each(|vid| raw.send(&frame::tagged(&hello, *vid)))?,
        }
    }
    [(0, 10), (1, 10), (2, 20), (3, 10), (3, 20), (4, 10), (4, 20)]
        .iter()
        .try_for_each(|(station, vid)| wait_learnt(bridged, *station, *vid))
}

fn wait_learnt(bridged: &Bridged, station: usize, vid: u16) -> Result<()> {
    let station = &bridged.stations[station];
    let mac = show_mac(station.mac);
    let learnt = || {
        let fdb = bridged.gateway.as_ref()?.ask("fdb").ok()?;
        let entry = |e: &serde_json::Value| e["mac"] == mac && e["port"] == station.port && e["vlan"] == vid;
        fdb["entries"].as_array()?.iter().any(entry).then_some(())
    };
    wait_until(&format!("{mac} in VLAN {vid} at {}", station.port), SOON, learnt, || {
        format!(
            "{:#}",
            bridged.gateway.as_ref().and_then(|gateway| gateway.ask("fdb").ok()).unwrap_or_default()
        )
    })
}

/// How many frames of the volley arrived as they were, and how many went by XDP.
fn fly(bridged: &Bridged, from: usize, to: usize, volley: Volley) -> Result<(u32, u64)> {
    let before = bridged.by_xdp(&bridged.stations[from].port)?;
    let tally = volley.fly(&bridged.raw(from)?, &bridged.raw(to)?)?;
    assert_eq!((tally.duplicates, tally.altered), (0, 0), "{from} to {to}: {tally:?}");
    Ok((tally.received, bridged.by_xdp(&bridged.stations[from].port)? - before))
}

fn what_keeps_its_tag_goes_by_xdp(bridged: &Bridged) -> Result<()> {
    assert_eq!(fly(bridged, 0, 1, volley(bridged, 0, 1))?, (20, 20), "untagged in VLAN 10");
    // From a veth what is tagged goes by the kernel, for checksums behind a tag are not looked at; NICs' frames are tried
    // by BPF_PROG_TEST_RUN.
    for vid in [10, 20] {
        let tagged = volley(bridged, 3, 4).in_vlan(vid);
        assert_eq!(fly(bridged, 3, 4, tagged)?.0, 20, "between trunks in VLAN {vid}");
    }
    Ok(())
}

fn what_changes_its_tag_goes_by_the_kernel(bridged: &Bridged) -> Result<()> {
    let before = (bridged.by_xdp("w0")?, bridged.by_xdp("w3")?);
    let (access, trunk) = (&bridged.stations[0], &bridged.stations[3]);
    let (out, back) = (bridged.raw(0)?, bridged.raw(3)?);
    let there = frame::frame(trunk.mac, access.mac, ETHERTYPE_EXPERIMENT, &[1; 46]);
    out.send(&there)?;
    assert!(back.expect(SOON, |seen| seen == frame::tagged(&there, 10)).is_some(), "no tag was given");
    let here = frame::frame(access.mac, trunk.mac, ETHERTYPE_EXPERIMENT, &[2; 46]);
    back.send(&frame::tagged(&here, 10))?;
    assert!(out.expect(SOON, |seen| seen == here).is_some(), "no tag was taken");
    assert_eq!((bridged.by_xdp("w0")?, bridged.by_xdp("w3")?), before, "XDP forwarded what has another tag");
    Ok(())
}

fn no_vlan_reaches_another(bridged: &Bridged) -> Result<()> {
    assert_eq!(fly(bridged, 0, 2, volley(bridged, 0, 2))?.0, 0, "VLAN 10 reaches 20");
    assert_eq!(fly(bridged, 3, 1, volley(bridged, 3, 1).in_vlan(20))?.0, 0, "a trunk's VLAN 20 reaches 10");
    Ok(())
}

/// While filtering is on, nothing sent from VLAN 10 arrives in VLAN 20, though without it the very same frames do.
fn switching_does_not_leak(bridged: &Bridged) -> Result<()> {
    let mut filtered = Vec::new();
    let mut open = Vec::new();
    let arrived = under_traffic(bridged, 0, 2, |began| {
        for _ in 0..3 {
            filter(bridged, false)?;
            open.push(settled(began));
            filter(bridged, true)?;
            filtered.push(settled(began));
        }
        Ok(())
    })?;
    none_within(&arrived, &filtered, "filtering is on");
    for (from, until) in open {
        let through = arrived.iter().any(|sent| (from..until).contains(sent));
        assert!(through, "nothing crosses without filtering: the test is blind");
    }
    Ok(())
}

/// XDP and the kernel alike: neither into a port, nor out of it.
fn a_port_that_loses_a_vlan_gets_none_of_it(bridged: &Bridged) -> Result<()> {
    for port in ["w1", "w0"] {
        let mut lost = Vec::new();
        let before = bridged.by_xdp("w0")?;
        let arrived = under_traffic(bridged, 0, 1, |began| {
            std::thread::sleep(patient(GRACE));
            vlan(bridged, &format!("del dev {port} vid 10"))?;
            lost.push(settled(began));
            vlan(bridged, &format!("add dev {port} vid 10 pvid untagged"))?;
            bridged.wait_accelerated(port, BOTH)?;
            settled(began);
            Ok(())
        })?;
        none_within(&arrived, &lost, &format!("{port} has lost the VLAN"));
        let after = arrived.iter().filter(|sent| lost.iter().all(|(_, until)| *sent > until)).count();
        assert!(after > 0, "{port} has the VLAN again, and nothing comes");
        assert!(bridged.by_xdp("w0")? > before, "the test is blind: all went by the kernel");
        announce_all(bridged)?;
    }
    Ok(())
}

/// What XDP knew of VLANs when they were filtered last must not be what it goes by when they are again.
fn vlans_changed_while_not_filtered_count_at_once(bridged: &Bridged) -> Result<()> {
    let mut other = Vec::new();
    let arrived = under_traffic(bridged, 0, 1, |began| {
        filter(bridged, false)?;
        vlan(bridged, "del dev w1 vid 10")?;
        vlan(bridged, "add dev w1 vid 20 pvid untagged")?;
        std::thread::sleep(patient(GRACE));
        filter(bridged, true)?;
        other.push(settled(began));
        Ok(())
    })?;
    none_within(&arrived, &other, "the port is of another VLAN");
    assert!(!arrived.is_empty(), "the test is blind");
    Ok(())
}

/// From when a change has reached XDP for sure until a while after.
fn settled(began: Instant) -> (Duration, Duration) {
    std::thread::sleep(patient(GRACE));
    let from = began.elapsed();
    std::thread::sleep(patient(GRACE));
    (from, began.elapsed())
}

fn none_within(arrived: &[Duration], spans: &[(Duration, Duration)], when: &str) {
    for (from, until) in spans {
        let leaked = arrived.iter().filter(|sent| (from..until).contains(sent)).count();
        assert_eq!(leaked, 0, "frames arrived that were sent while {when}");
    }
}

/// Frames from one station to another's address, one a millisecond while `act` goes on. When those were sent that
/// arrived, since the beginning.
fn under_traffic(
    bridged: &Bridged,
    from: usize,
    to: usize,
    act: impl FnOnce(Instant) -> Result<()>,
) -> Result<Vec<Duration>> {
    let (sender, receiver) = (bridged.raw(from)?, bridged.raw(to)?);
    let (target, source) = (bridged.stations[to].mac, bridged.stations[from].mac);
    let (began, ends) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                let sent = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                let payload = [&[0xda; 4][..], &sent.to_be_bytes(), &[0; 34]].concat();
                sender.send(&frame::frame(target, source, ETHERTYPE_EXPERIMENT, &payload))?;
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let acted = act(began);
        ends.store(true, Ordering::Relaxed);
        let sent: Result<()> = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        acted.and(sent)
    })?;
    Ok(receiver.collect(GRACE, |_| true).iter().filter_map(|seen| sent_at(seen)).collect())
}

fn sent_at(seen: &[u8]) -> Option<Duration> {
    let tag = if frame::ethertype(seen) == frame::ETHERTYPE_VLAN { 4 } else { 0 };
    let payload = seen.get(frame::HEADER + tag..)?.strip_prefix(&[0xda; 4])?;
    Some(Duration::from_micros(u64::from_be_bytes(*payload.first_chunk()?)))
}
