//! The ruler itself: that a load arrives and is counted. No figure is judged.
#![allow(clippy::disallowed_methods, reason = "a ruler reads the clock")]

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use trestle_bench::cells::capacity;
use trestle_bench::results::Direction;
use trestle_bench::rig::{cpu, site::Site, systems, traffic::Traffic};
use trestle_tests::site::is_root;

/// Frames a second: what any machine carries.
const RATE: f64 = 500.0;

#[test]
fn frames_through_stock_openvpn_and_the_null_forwarder_are_counted_both_ways() {
    if !is_root() || !cpu::enough() {
        eprintln!("SKIPPED: the ruler needs root and processors 0 and 1");
        return;
    }
    let binaries = Path::new(env!("CARGO_BIN_EXE_null-forwarder")).parent().unwrap();
    for name in [systems::OPENVPN, systems::NULL] {
        let (_, starter) = systems::BUILT_IN.iter().find(|(known, _)| *known == name).unwrap();
        let mut site = Site::open(*starter, binaries, 2, &AtomicBool::new(false)).unwrap();
        for direction in [Direction::LanToPeer, Direction::PeerToLan] {
            let traffic = Traffic::new(direction, 1514);
            let sample = capacity::at_rate(&mut site, traffic, RATE, Duration::from_millis(300)).unwrap();
            assert!(sample.offered_frames > 0, "{name}: {sample:?}");
            assert!(sample.delivered_frames > 0, "{name}: {sample:?}");
        }
        site.close().unwrap();
    }
}
