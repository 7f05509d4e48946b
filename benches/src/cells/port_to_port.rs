//! From port to port of a kernel bridge: by the bridge alone, and by XDP beside it.
//!
//! ```text
//!   gateway namespace                      world namespace
//!   ┌─────────────────────────┐            ┌──────────────────────────┐
//!   │       ┌── from ─────────┼─── veth ───┼─ near   load             │
//!   │  br0 ─┤                 │            │                          │
//!   │       └── to ───────────┼─── veth ───┼─ far    XDP counts, drops │
//!   └─────────────────────────┘            └──────────────────────────┘
//! ```
//! Frames arrive as XDP frames, as from a NIC, and all happens on the load's processor: making them, carrying them,
//! counting them. So one processor's work is divided by frames, no queue can overflow, and every loss is the system's.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use trestle_tests::frame::{self, BROADCAST, Mac};
use trestle_tests::gateway::Gateway;
use trestle_tests::netns::Namespace;
use trestle_tests::process::wait_until;
use trestle_tests::raw::RawPort;
use trestle_tests::{Fault, Result};

use crate::results::Sample;
use crate::rig::counter::Counter;
use crate::rig::generator::Generator;
use crate::rig::pump::Pump;
use crate::rig::shared::ETHERTYPE_LOAD;
use crate::rig::site::{ETHERTYPE_PROBE, Folder};

/// The bridge alone.
pub const KERNEL: &str = "kernel-bridge";
/// `trestle run --bridge` beside it, which has learnt both stations.
pub const XDP: &str = "trestle-bridge";
/// Both, in the order they take turns.
pub const SYSTEMS: [&str; 2] = [KERNEL, XDP];
/// Lengths of frames in bytes.
pub const SIZES: [u32; 2] = [60, 1414];

const BRIDGE: &str = "br0";
const FROM: &str = "from";
const TO: &str = "to";
const NEAR: &str = "near";
const FAR: &str = "far";
/// The stations that the load goes between.
const SENDER: Mac = [0x02, 0x5e, 0xfe, 0, 0, 1];
const RECEIVER: Mac = [0x02, 0x5e, 0xfe, 0, 0, 2];
/// How long the gateway may take to have both ports.
const ACCELERATED: Duration = Duration::from_secs(10);
/// How long ports may take to forward, and the bridge to have learnt.
const SETTLE: Duration = Duration::from_millis(200);
/// How long the last frames may be under way.
const DRAIN: Duration = Duration::from_millis(50);

/// What `system`, one of [`SYSTEMS`], carries in `time`, as fast as one processor goes.
pub fn measure(system: &str, frame_bytes: u32, time: Duration) -> Result<Sample> {
    let (gateway, world) = (Namespace::create("gateway")?, Namespace::create("world")?);
    lay_out(&gateway, &world)?;
    let counter = world.within(|| Counter::attach(FAR))??;
    introduce(&world)?;
    let held = (system == XDP).then(|| Held::start(&gateway)).transpose()?;
    let load = frame::frame(RECEIVER, SENDER, ETHERTYPE_LOAD, &[]);
    let load = frame::padded(load, frame_bytes as usize);
    let generator = world.within(|| Generator::repeating(NEAR, &load, 1))??;
    let mut pump = Pump::new(&world, generator);
    let sample = pump.during(0.0, time, |valve| {
        let (began, before) = (Instant::now(), counter.read()?.frames());
        sleep(time);
        let (seconds, carried) = (began.elapsed().as_secs_f64(), counter.read()?.frames() - before);
        valve.close()?;
        sleep(DRAIN);
        // Of the whole load, its beginning included, and exact: nothing is under way any more.
        let lost = valve.progress()?.sent.saturating_sub(counter.read()?.frames());
        let (offered_frames, delivered_frames) = (carried + lost, carried);
        Ok(Sample { seconds, offered_frames, delivered_frames, ..Sample::default() })
    })?;
    match held.map(|held| held.carried()).transpose()? {
        Some(carried) if carried < sample.delivered_frames => {
            Err(Fault::other(format!("XDP carried {carried} of {} frames", sample.delivered_frames)))
        }
        _ => Ok(sample),
    }
}

/// A bridge of two ports, as from a NIC: checksums finished, tags in place.
fn lay_out(gateway: &Namespace, world: &Namespace) -> Result<()> {
    for namespace in [gateway, world] {
        namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    }
    gateway.ip_batch(&format!(
        "link add {BRIDGE} type bridge forward_delay 0 mcast_snooping 0
         link add {FROM} type veth peer name {NEAR} netns {world}
         link add {TO} type veth peer name {FAR} netns {world}
         link set {FROM} master {BRIDGE} up
         link set {TO} master {BRIDGE} up
         link set {BRIDGE} up",
        world = world.name()
    ))?;
    world.ip_batch(&format!("link set {NEAR} up\nlink set {FAR} up"))?;
    for far in [NEAR, FAR] {
        world.run("ethtool", &format!("-K {far} tx off txvlan off"))?;
    }
    // Without an XDP program a veth takes redirected frames only if it has GRO.
    gateway.run("ethtool", &format!("-K {FROM} gro on"))?;
    sleep(SETTLE);
    Ok(())
}

/// Lets the bridge hear both stations, so that it floods nothing.
fn introduce(world: &Namespace) -> Result<()> {
    for (device, station) in [(NEAR, SENDER), (FAR, RECEIVER)] {
        let hello = frame::padded(frame::frame(BROADCAST, station, ETHERTYPE_PROBE, &[]), 60);
        RawPort::open(world, device)?.send(&hello)?;
    }
    sleep(SETTLE);
    Ok(())
}

/// Trestle beside the bridge, in its namespace.
struct Held {
    gateway: Gateway,
    _folder: Folder,
}

impl Held {
    /// Starts it, and waits until it has both ports.
    fn start(namespace: &Namespace) -> Result<Self> {
        let folder = Folder::create()?;
        let gateway = Gateway::accelerate(namespace, folder.path(), BRIDGE)?;
        let held = Self { gateway, _folder: folder };
        let both = || held.ports().ok().filter(|ports| ports.iter().all(|(_, open)| *open)).map(drop);
        wait_until("both ports to be accelerated", ACCELERATED, both, || held.gateway.log_tail())?;
        Ok(held)
    }

    /// Frames that XDP has carried.
    fn carried(&self) -> Result<u64> {
        Ok(self.ports()?.iter().map(|(frames, _)| frames).sum())
    }

    /// Of each port what XDP has carried from it, and whether frames go to it or from it as the load needs.
    fn ports(&self) -> Result<Vec<(u64, bool)>> {
        let answer = self.gateway.ask("ports")?;
        let ports = answer["ports"].as_array().ok_or_else(|| Fault::other("no ports in the answer"))?;
        let of = |port: &Value| {
            let needed = if port["name"] == FROM { "from" } else { "to" };
            let ways = port["bridge"]["accelerated"].as_array();
            let open = ways.is_some_and(|ways| ways.iter().any(|way| way == needed));
            (port["bridge"]["frames"]["xdp"].as_u64().unwrap_or(0), open)
        };
        Ok(ports.iter().map(of).collect())
    }
}
