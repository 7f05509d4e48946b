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

use common::{
    FdbKey, FdbValue, Place,
    bridge::{PortValue, port_flag},
};
use trestle::switch::WireId;
use trestle::xdp::attach::{PortAttachment, XdpChoice};
use trestle::xdp::programs::Programs;
use trestle_tests::frame::{self, BROADCAST, Mac};
use trestle_tests::netns::Namespace;
use trestle_tests::raw::RawPort;
use trestle_tests::{Fault, Result};

use crate::results::Sample;
use crate::rig::counter::Counter;
use crate::rig::generator::Generator;
use crate::rig::pump::Pump;
use crate::rig::shared::ETHERTYPE_LOAD;
use crate::rig::site::ETHERTYPE_PROBE;

/// The bridge alone.
pub const KERNEL: &str = "kernel-bridge";
/// The bridge with `xdp_port` on its ports, and both stations in the database.
pub const XDP: &str = "xdp-port";
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
/// Longest frame of a port with an MTU of 1500, with a tag.
const LONGEST: u32 = 1518;
/// How long ports may take to forward, and the bridge to have learnt.
const SETTLE: Duration = Duration::from_millis(200);
/// How long the last frames may be under way.
const DRAIN: Duration = Duration::from_millis(50);

/// What `system`, one of [`SYSTEMS`], carries in `time`, as fast as one processor goes.
pub fn measure(system: &str, frame_bytes: u32, time: Duration) -> Result<Sample> {
    let (gateway, world) = (Namespace::create("gateway")?, Namespace::create("world")?);
    lay_out(&gateway, &world)?;
    let counter = world.within(|| Counter::attach(FAR))??;
    let held = (system == XDP).then(|| gateway.within(accelerate)).transpose()?.transpose()?;
    introduce(&world)?;
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

/// The programs on both ports; dropping it detaches them.
struct Held {
    programs: Programs,
    _ports: Vec<PortAttachment>,
}

impl Held {
    /// Frames that XDP has carried.
    fn carried(&self) -> Result<u64> {
        let counts = self.programs.port_counts.read(wire(1)?).map_err(refused)?;
        Ok(counts.frames_to_ports)
    }
}

/// What the gateway does to a bridge, of the calling thread's namespace, that has learnt both stations.
fn accelerate() -> Result<Held> {
    let mut programs = Programs::load().map_err(refused)?;
    let mut ports = Vec::new();
    for (number, port, station) in [(1, FROM, SENDER), (2, TO, RECEIVER)] {
        let ifindex =
            nix::net::if_::if_nametoindex(port).map_err(Fault::os(format!("looking for {port}")))?;
        ports.push(programs.attach_port(port, XdpChoice::Native).map_err(refused)?);
        programs.devmap.set(wire(number)?, ifindex).map_err(refused)?;
        let value = FdbValue { place: Place::Wire as u32, port: number.into(), ..FdbValue::default() };
        programs.fdb.insert(FdbKey::new(0, station), value).map_err(refused)?;
        // As at any veth: its checksums are looked at.
        let flags = port_flag::FROM | port_flag::TO | port_flag::UNFINISHED;
        let value = PortValue { ifindex, flags, max_frame: LONGEST, ..PortValue::default() };
        programs.ports.set(wire(number)?, value).map_err(refused)?;
    }
    Ok(Held { programs, _ports: ports })
}

fn wire(number: u16) -> Result<WireId> {
    WireId::new(number).ok_or_else(|| Fault::other(format!("there is no port {number}")))
}

fn refused(error: impl std::error::Error) -> Fault {
    Fault::other(error.to_string())
}
