//! A thousand clients: what they cost to connect, to keep, and to tell apart.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use trestle_tests::pki::Keys;
use trestle_tests::{Fault, Result};

use super::capacity;
use crate::results::{Direction, Sample};
use crate::rig::cpu::{Spent, memory_of};
use crate::rig::site::Site;
use crate::rig::system::Starter;
use crate::rig::systems::{OPENVPN, TRESTLE_AF_XDP, TRESTLE_SOCKET};
use crate::rig::traffic::{Audience, Traffic};

/// How many clients.
pub const CROWD: u32 = 1000;
/// To each of them in its turn.
pub const IN_TURN: Traffic =
    Traffic { audience: Audience::InTurn(CROWD), ..Traffic::new(Direction::LanToPeer, 1414) };
/// To all of them at once: as an ARP request.
pub const TO_ALL: Traffic =
    Traffic { audience: Audience::Everybody, ..Traffic::new(Direction::LanToPeer, 60) };
/// Broadcasts offered a second: five million copies, more than one processor seals, and no more, for a broadcast that is
/// dropped costs as well.
const BROADCASTS: f64 = 5000.0;
/// The longest broadcasts are offered for: a copy is one frame of many, so that little time shows much.
const BROADCAST_TIME: Duration = Duration::from_secs(2);

/// Whether so many clients of ours can be connected to the system.
pub fn is_possible(system: &str) -> bool {
    [OPENVPN, TRESTLE_AF_XDP, TRESTLE_SOCKET].contains(&system)
}

/// Starts the system without clients, with RSA keys of 2048 bits, as easy-rsa makes them: the server's part of a
/// handshake is mostly the signature.
pub fn start(starter: Starter, binaries: &Path) -> Result<Site> {
    Site::start(starter, binaries, Keys::Rsa2048)
}

/// Resident memory of the gateway's processes as it is now.
pub fn memory(site: &mut Site) -> Result<Sample> {
    let memory: u64 = site.system.pids().into_iter().map(memory_of).sum::<Result<u64>>()?;
    Ok(Sample { memory_bytes: Some(memory), ..Sample::default() })
}

/// Connects all clients; how long that took is from the first packet to the last push reply.
pub fn connect(site: &mut Site, stop: &AtomicBool) -> Result<Sample> {
    let pids = site.system.pids();
    let (before, began) = (Spent::read(&pids)?, Instant::now());
    site.connect(CROWD, CROWD, stop)?;
    let spent = Spent::read(&pids)?.since(before);
    let sessions = site.fleet.as_ref().ok_or_else(|| Fault::other("nobody is connected"))?.sessions();
    let ended = sessions.iter().map(|session| session.handshake().ended).max().unwrap_or(began);
    let seconds = ended.saturating_duration_since(began).as_secs_f64();
    let handshakes = sessions.len() as u64;
    site.introduce()?;
    Ok(Sample {
        seconds,
        handshakes,
        gateway_cpu_ns: spent.processes_ns,
        gateway_core_ns: spent.gateway_core_ns,
        load_core_ns: spent.load_core_ns,
        ..Sample::default()
    })
}

/// Broadcasts from the LAN; each copy counts.
pub fn broadcast(site: &mut Site, time: Duration) -> Result<Sample> {
    capacity::at_rate(site, TO_ALL, BROADCASTS, time.min(BROADCAST_TIME))
}
