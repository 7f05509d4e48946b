//! What is sent through a system, and the generator that sends it.

use std::net::SocketAddrV4;
use std::time::Duration;

use openvpn::data::{Cipher, Framing, Profile};
use trestle_tests::frame::{self, BROADCAST, Mac};
use trestle_tests::netns::Namespace;
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
/// What sealing adds to a frame at most.
const OVERHEAD: u32 = Profile::new(Cipher::Aes256Gcm, Framing::V2).max_overhead() as u32;
/// What a packet on the wire may be longer than its frame: Ethernet, IPv4, UDP, what sealing adds, its length.
const OUTER_BYTES: u32 = 42 + OVERHEAD + 8;
/// Longest frame whose packet is not fragmented on a wire of 1500 bytes.
const LONGEST_WHOLE: u32 = 1500 - 20 - 8 - OVERHEAD;
/// How much longer a load lasts than its warm-up and its measurement, for a machine that is late.
const SPARE: Duration = Duration::from_millis(150);
/// [`Traffic::frame_bytes`] of a mixture, [`MIXTURE`].
pub const MIXED: u32 = 0;
/// Lengths in turn: 7 short frames, 4 of middle length, 1 of full length, as far from their like as they go (IMIX).
const MIXTURE: [u32; 12] = [60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 590, 60];

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Which way.
    pub direction: Direction,
    /// Length of each inner frame in bytes, or [`MIXED`].
    pub frame_bytes: u32,
    /// Whom frames from the LAN go to.
    pub audience: Audience,
}

/// Whom frames from the LAN go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The first peer.
    First,
    /// The first so many peers, each in its turn.
    InTurn(u32),
    /// Everybody: they are broadcasts.
    Everybody,
}

/// Sends some traffic.
#[derive(Debug)]
pub struct Source {
    /// Sends its packets.
    pub generator: Generator,
    /// Packets on the wire for one inner frame: 2 where all are fragmented, somewhat more than 1 where few are.
    pub packets_per_frame: f64,
    /// Packets recorded; `None`: without end.
    pub recorded: Option<u64>,
}

impl Traffic {
    /// From or to the first peer.
    pub const fn new(direction: Direction, frame_bytes: u32) -> Self {
        Self { direction, frame_bytes, audience: Audience::First }
    }

    /// Whether a system gets it from a recording, which ends: sealed packets, and frames of mixed lengths.
    pub fn is_recorded(self, site: &Site) -> bool {
        self.is_sealed_ahead(site) || self.frame_bytes == MIXED
    }

    /// Whether a system's own client seals it as it goes: it enters by the client's TAP device.
    pub fn is_sealed_live(self, site: &Site) -> bool {
        self.direction == Direction::PeerToLan && site.own_device().is_some()
    }

    fn is_sealed_ahead(self, site: &Site) -> bool {
        let sealed = matches!(self.direction, Direction::PeerToLan | Direction::PeerToPeer);
        sealed && matches!(site.system.clients(), Clients::OpenVpn)
    }

    /// How long frames can be offered at that rate, after warming up, before the longest recording ends.
    pub fn longest(self, rate: f64) -> Duration {
        let lengths = self.lengths();
        let slots: f64 = lengths.iter().map(|&length| if length > LONGEST_WHOLE { 2.0 } else { 1.0 }).sum();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let frames = RECORDING_BYTES * lengths.len() as f64 / (f64::from(longest + OUTER_BYTES) * slots);
        Duration::from_secs_f64((frames / rate.max(1.0)).min(3600.0)).saturating_sub(WARM_UP + SPARE)
    }

    /// Makes its source; a recorded one for `rate` frames a second and for `time`, beside warming up.
    pub fn source(self, site: &mut Site, rate: f64, time: Duration) -> Result<Source> {
        let frames = (rate * (WARM_UP + SPARE + time).as_secs_f64()) as u32;
        if self.is_sealed_ahead(site) {
            return self.record_sealed(site, frames);
        }
        let (device, destination, source) = match site.own_device() {
            Some(device) if self.is_sealed_live(site) => (device, LAN_MAC, Site::peer_mac(0)),
            _ => (WIRE, self.destination(), LAN_MAC),
        };
        let frame = |length| plain(destination, source, length);
        if self.frame_bytes == MIXED {
            return self.record(&site.world, device, frames, |length| Ok(vec![frame(length)]));
        }
        let destinations = if let Audience::InTurn(peers) = self.audience { peers } else { 1 };
        let repeating = || Generator::repeating(device, &frame(self.frame_bytes), destinations);
        Ok(Source { generator: site.world.within(repeating)??, packets_per_frame: 1.0, recorded: None })
    }

    fn record_sealed(self, site: &mut Site, frames: u32) -> Result<Source> {
        let destination = match self.direction {
            Direction::PeerToPeer => Site::peer_mac(1),
            _ => LAN_MAC,
        };
        let macs = (site.world.mac(WIRE)?, site.gateway.mac(NIC)?);
        let fleet = site.fleet.as_mut().ok_or_else(|| Fault::other("nobody is connected"))?;
        let session = fleet.sessions_mut().first_mut().ok_or_else(|| Fault::other("nobody is connected"))?;
        let addresses = (session.local(), SocketAddrV4::new(*session.remote().ip(), SERVER_PORT));
        let mut recorder =
            Recorder { session, outer: Outer { macs, addresses }, number: 0, sealed: [0; 2048] };
        let packets = |length| recorder.packets(&plain(destination, Site::peer_mac(0), length));
        self.record(&site.world, WIRE, frames, packets)
    }

    /// Records `frames` frames, at least one of each length; `packets` makes those that carry one of a length.
    fn record(
        self,
        world: &Namespace,
        device: &str,
        frames: u32,
        mut packets: impl FnMut(u32) -> Result<Vec<Vec<u8>>>,
    ) -> Result<Source> {
        let lengths = self.lengths();
        let first: Vec<Vec<u8>> =
            lengths.iter().map(|&length| packets(length)).collect::<Result<Vec<_>>>()?.concat();
        let room = first.iter().map(Vec::len).max().unwrap_or(0) as u32;
        let rounds = (frames as usize).div_ceil(lengths.len()).max(1);
        let mut generator =
            world.within(|| Generator::replaying(device, rounds as u32 * first.len() as u32, room))??;
        first.iter().try_for_each(|packet| generator.record(packet))?;
        for _ in 1..rounds {
            for &length in lengths {
                packets(length)?.iter().try_for_each(|packet| generator.record(packet))?;
            }
        }
        let packets_per_frame = first.len() as f64 / lengths.len() as f64;
        Ok(Source { generator, packets_per_frame, recorded: Some((rounds * first.len()) as u64) })
    }

    fn destination(self) -> Mac {
        if self.audience == Audience::Everybody { BROADCAST } else { Site::peer_mac(0) }
    }

    /// Lengths of frames, in turn.
    fn lengths(&self) -> &[u32] {
        if self.frame_bytes == MIXED { &MIXTURE } else { std::slice::from_ref(&self.frame_bytes) }
    }
}

fn plain(destination: Mac, source: Mac, length: u32) -> Vec<u8> {
    frame::padded(frame::frame(destination, source, ETHERTYPE_LOAD, &[]), length as usize)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixture_is_seven_short_four_middling_and_one_long() {
        let count = |length| MIXTURE.iter().filter(|&&other| other == length).count();
        assert_eq!([60, 590, 1514].map(count), [7, 4, 1]);
    }

    #[test]
    fn a_recording_of_fragments_ends_sooner() {
        let longest = |bytes| Traffic::new(Direction::PeerToLan, bytes).longest(1e6);
        assert!(longest(1514) < longest(1414) && longest(1514) < longest(MIXED));
        assert!(longest(60) > longest(1414));
    }
}
