use std::thread::sleep;
use std::time::{Duration, Instant};

use trestle_tests::frame::{self, Mac};
use trestle_tests::{Fault, Result};

use crate::results::{Direction, Sample};
use crate::rig::cpu::Spent;
use crate::rig::generator::Generator;
use crate::rig::pump::Pump;
use crate::rig::shared::ETHERTYPE_LOAD;
use crate::rig::site::{LAN_MAC, Site, WIRE};

/// What is sent through a system.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Which way.
    pub direction: Direction,
    /// Length of each inner frame in bytes.
    pub frame_bytes: u32,
    /// Frames a second; 0: as many as the load's processor makes.
    pub rate: f64,
    /// For how long.
    pub time: Duration,
}

/// Sends, and measures what arrives and what it costs.
pub fn measure(site: &mut Site, work: Work) -> Result<Sample> {
    let generator = generator(site, work)?;
    let pids = site.system().pids();
    let notes = remarks(site, work);
    let mut pump = Pump::new(&site.world, generator);
    let counter = &site.counter;
    pump.during(work.rate, work.time, |sent| {
        let begin = (Instant::now(), counter.read()?.frames(), sent()?, Spent::read(&pids)?);
        sleep(work.time);
        let end = (Instant::now(), counter.read()?.frames(), sent()?, Spent::read(&pids)?);
        let spent = end.3.since(begin.3);
        Ok(Sample {
            seconds: (end.0 - begin.0).as_secs_f64(),
            offered_frames: end.2 - begin.2,
            delivered_frames: end.1 - begin.1,
            gateway_cpu_ns: spent.processes_ns,
            gateway_core_ns: spent.gateway_core_ns,
            load_core_ns: spent.load_core_ns,
            notes,
            ..Sample::default()
        })
    })
}

/// A client that seals shares its processor with the load: it may be slower than the gateway.
fn remarks(site: &Site, work: Work) -> Vec<String> {
    let sealed_live = work.direction == Direction::PeerToLan && site.own_device().is_some();
    let remark = "at least this: the system's own client seals, on the load's processor";
    if sealed_live { vec![remark.to_owned()] } else { Vec::new() }
}

fn generator(site: &Site, work: Work) -> Result<Generator> {
    let length = work.frame_bytes as usize;
    match work.direction {
        Direction::LanToPeer => {
            let frame = load_frame(Site::peer_mac(0), LAN_MAC, length);
            site.world.within(|| Generator::repeating(WIRE, &frame, 1))?
        }
        // By the client's TAP device: the client seals, on the load's processor.
        Direction::PeerToLan if let Some(device) = site.own_device() => {
            let frame = load_frame(LAN_MAC, Site::peer_mac(0), length);
            site.world.within(|| Generator::repeating(device, &frame, 1))?
        }
        other => Err(Fault::other(format!("no load is made {} yet", other.name()))),
    }
}

fn load_frame(destination: Mac, source: Mac, length: usize) -> Vec<u8> {
    frame::padded(frame::frame(destination, source, ETHERTYPE_LOAD, &[]), length)
}
