//! What is sent through a system, and the generator that sends it.

use std::net::SocketAddrV4;
use std::time::Duration;

use openvpn::data::MAX_OVERHEAD;
use trestle_tests::frame::{self, Mac};
use trestle_tests::network::NIC;
use trestle_tests::{Fault, Result};

use super::generator::Generator;
use super::outer::Outer;
use super::pump::WARM_UP;
use super::shared::{ETHERTYPE_LOAD, SERVER_PORT};
use super::site::{LAN_MAC, Site, WIRE};
use super::system::Clients;
use crate::load::Session;
use crate::results::Direction;

/// What recorded packets may take of the machine's memory, in bytes.
const RECORDING_BYTES: f64 = 3e9;
/// What a packet on the wire may be longer than its frame: Ethernet, IPv4, UDP, what sealing adds, its length.
const OUTER_BYTES: u32 = 42 + MAX_OVERHEAD as u32 + 8;
/// Longest frame whose packet is not fragmented on a wire of 1500 bytes.
const LONGEST_WHOLE: u32 = 1500 - 20 - 8 - MAX_OVERHEAD as u32;
/// How much longer a load lasts than its warm-up and its measurement, for a machine that is late.
const SPARE: Duration = Duration::from_millis(150);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Which way.
    pub direction: Direction,
    /// Length of each inner frame in bytes.
    pub frame_bytes: u32,
}

/// Sends some traffic.
#[derive(Debug)]
pub struct Source {
    /// Sends its packets.
    pub generator: Generator,
    /// Packets on the wire for one inner frame: 2 where a fragmented packet is sent.
    pub packets_per_frame: u32,
    /// Packets recorded; `None`: without end.
    pub recorded: Option<u64>,
}

impl Traffic {
    /// Whether a system gets it from a recording of sealed packets, which ends.
    pub fn is_recorded(self, site: &Site) -> bool {
        let sealed = matches!(self.direction, Direction::PeerToLan | Direction::PeerToPeer);
        sealed && matches!(site.system.clients(), Clients::OpenVpn)
    }

    /// Whether a system's own client seals it as it goes: it enters by the client's TAP device.
    pub fn is_sealed_live(self, site: &Site) -> bool {
        self.direction == Direction::PeerToLan && site.own_device().is_some()
    }

    /// How long frames can be offered at that rate, after warming up, before the longest recording ends.
    pub fn longest(self, rate: f64) -> Duration {
        let slots = if self.frame_bytes > LONGEST_WHOLE { 2.0 } else { 1.0 };
        let frames = RECORDING_BYTES / (f64::from(self.frame_bytes + OUTER_BYTES) * slots);
        Duration::from_secs_f64((frames / rate.max(1.0)).min(3600.0)).saturating_sub(WARM_UP + SPARE)
    }

    /// Makes its source; a recorded one for `rate` frames a second and for `time`, beside warming up.
    pub fn source(self, site: &mut Site, rate: f64, time: Duration) -> Result<Source> {
        if self.is_recorded(site) {
            let frames = rate * (WARM_UP + SPARE + time).as_secs_f64();
            return self.record(site, frames as u32);
        }
        let (device, frame) = match site.own_device() {
            Some(device) if self.is_sealed_live(site) => (device, self.frame(LAN_MAC, Site::peer_mac(0))),
            _ => (WIRE, self.frame(Site::peer_mac(0), LAN_MAC)),
        };
        let generator = site.world.within(|| Generator::repeating(device, &frame, 1))??;
        Ok(Source { generator, packets_per_frame: 1, recorded: None })
    }

    fn record(self, site: &mut Site, frames: u32) -> Result<Source> {
        let destination = match self.direction {
            Direction::PeerToPeer => Site::peer_mac(1),
            _ => LAN_MAC,
        };
        let frame = self.frame(destination, Site::peer_mac(0));
        let macs = (site.world.mac(WIRE)?, site.gateway.mac(NIC)?);
        let fleet = site.fleet.as_mut().ok_or_else(|| Fault::other("nobody is connected"))?;
        let session = fleet.sessions_mut().first_mut().ok_or_else(|| Fault::other("nobody is connected"))?;
        let addresses = (session.local(), SocketAddrV4::new(*session.remote().ip(), SERVER_PORT));
        let mut recorder =
            Recorder { session, outer: Outer { macs, addresses }, number: 0, sealed: [0; 2048] };
        let first = recorder.packets(&frame)?;
        let packets_per_frame = first.len() as u32;
        let room = first.iter().map(Vec::len).max().unwrap_or(0) as u32;
        let packets = frames * packets_per_frame;
        let mut generator = site.world.within(|| Generator::replaying(WIRE, packets, room))??;
        for number in 0..frames {
            let made = if number == 0 { first.clone() } else { recorder.packets(&frame)? };
            made.iter().try_for_each(|packet| generator.record(packet))?;
        }
        Ok(Source { generator, packets_per_frame, recorded: Some(packets.into()) })
    }

    fn frame(self, destination: Mac, source: Mac) -> Vec<u8> {
        frame::padded(frame::frame(destination, source, ETHERTYPE_LOAD, &[]), self.frame_bytes as usize)
    }
}

/// Seals packets as a client does, without sending them.
struct Recorder<'a> {
    session: &'a mut Session,
    outer: Outer,
    number: u16,
    sealed: [u8; 2048],
}

impl Recorder<'_> {
    fn packets(&mut self, frame: &[u8]) -> Result<Vec<Vec<u8>>> {
        let sealed = self.session.channel_mut().seal(frame, &mut self.sealed);
        let length = sealed.map_err(|error| Fault::other(format!("sealing a frame: {error}")))?;
        self.number = self.number.wrapping_add(1);
        Ok(self.outer.frames(&self.sealed[..length], self.number))
    }
}
