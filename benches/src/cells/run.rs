//! All cells of a run: systems take turns, round after round, so that what the machine does meanwhile meets all alike.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trestle_tests::pki::Keys;
use trestle_tests::{Fault, Result};

use super::{build, capacity, crowd, lossless, port_to_port, round_trip, tcp};
use crate::results::{Cell, Direction, Measure, Report, Sample};
use crate::rig::site::Site;
use crate::rig::system::{Clients, Starter};
use crate::rig::systems::OPENVPN;
use crate::rig::traffic::{MIXED, Traffic};

/// What is measured, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The systems, in the order they take turns; openvpn first, whose capacity others' loads are shares of.
    pub systems: Vec<(String, Starter)>,
    /// What capacity is measured of.
    pub traffic: Vec<Traffic>,
    /// Of which measures there are to be cells.
    pub measures: Vec<Measure>,
    /// How often systems take turns.
    pub rounds: u32,
    /// How long a measurement takes.
    pub time: Duration,
    /// Frames a second for [`Measure::Capacity`] instead of overload; 0 for overload.
    pub rate: f64,
}

/// Shares of openvpn's capacity that CPU and round trips are measured at.
const SHARES: [f64; 3] = [0.01, 0.5, 0.9];
/// The traffic that shares are of.
const SHARED: Traffic = Traffic::new(Direction::LanToPeer, 1414);
/// A low rate, at which waking up is what counts, in frames a second.
const LOW_RATE: f64 = 2000.0;
/// Connected peers; one more is there for round trips.
const PEERS: u32 = 2;
/// What only a thousand clients show.
const CROWDED: [Measure; 3] = [Measure::Broadcast, Measure::Memory, Measure::Handshake];
/// What is measured with the few clients of [`PEERS`], shares of capacity included.
const BY_FEW: [Measure; 5] =
    [Measure::Capacity, Measure::LosslessRate, Measure::TwiceCapacity, Measure::Cpu, Measure::RoundTrip];

/// Measures all of `plan` into `report`; `told` hears of every sample.
///
/// # Errors
/// What could not be measured, after all the rest was.
pub fn run(
    plan: &Plan,
    binaries: &Path,
    report: &mut Report,
    stop: &AtomicBool,
    told: &mut dyn FnMut(&Cell, &Sample),
) -> Result<()> {
    let mut faults = Vec::new();
    for round in 1..=plan.rounds {
        for (name, starter) in &plan.systems {
            let mut turn = Turn { plan, name, round, report: &mut *report, stop, told: &mut *told };
            turn.check()?;
            let done = [
                turn.by_clients(*starter, binaries),
                turn.by_streams(binaries),
                turn.by_flows(*starter, binaries),
                turn.by_crowd(*starter, binaries),
            ];
            faults.extend(done.into_iter().filter_map(|done| Some(format!("{name}: {}", done.err()?))));
        }
        for name in port_to_port::SYSTEMS {
            let mut turn = Turn { plan, name, round, report: &mut *report, stop, told: &mut *told };
            faults.extend(turn.by_ports().err().map(|fault| format!("{name}: {fault}")));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Fault::other(faults.join("\n"))) }
}

/// One system's turn in a round.
struct Turn<'a> {
    plan: &'a Plan,
    name: &'a str,
    round: u32,
    report: &'a mut Report,
    stop: &'a AtomicBool,
    told: &'a mut dyn FnMut(&Cell, &Sample),
}

impl Turn<'_> {
    fn by_clients(&mut self, starter: Starter, binaries: &Path) -> Result<()> {
        if !BY_FEW.into_iter().any(|measure| self.wants(measure)) {
            return Ok(());
        }
        let mut site = Site::open(starter, binaries, PEERS, self.stop)?;
        let done = self.frames(&mut site).and_then(|()| self.shares(&mut site));
        done.map_err(|fault| Fault::other(format!("{fault}\n{}", site.system.log_tail())))?;
        site.close()
    }

    fn by_streams(&mut self, binaries: &Path) -> Result<()> {
        if self.wants(Measure::Tcp) && tcp::is_possible(self.name) {
            self.check()?;
            for (direction, sample) in tcp::measure(self.name, binaries)? {
                self.add(Cell { direction, peers: 1, ..self.cell(Measure::Tcp, SHARED) }, sample);
            }
        }
        Ok(())
    }

    fn by_ports(&mut self) -> Result<()> {
        if !self.wants(Measure::PortToPort) {
            return Ok(());
        }
        for frame_bytes in port_to_port::SIZES {
            self.check()?;
            let sample = port_to_port::measure(self.name, frame_bytes, self.plan.time)?;
            let work = self.cell(Measure::PortToPort, Traffic::new(Direction::PortToPort, frame_bytes));
            self.add(Cell { peers: 0, ..work }, sample);
        }
        Ok(())
    }

    fn by_flows(&mut self, starter: Starter, binaries: &Path) -> Result<()> {
        if !self.wants(Measure::Build) || !crowd::is_possible(self.name) {
            return Ok(());
        }
        self.check()?;
        let mut site = Site::start(starter, binaries, Keys::Ecdsa)?;
        site.connect(build::WORKERS, 0, self.stop)?;
        site.introduce()?;
        let sample = build::measure(&mut site, self.plan.time)?;
        let work = self.cell(Measure::Build, Traffic::new(Direction::BothWays, MIXED));
        self.add(Cell { peers: build::WORKERS, ..work }, sample);
        site.close()
    }

    fn by_crowd(&mut self, starter: Starter, binaries: &Path) -> Result<()> {
        let wanted = CROWDED.into_iter().any(|measure| self.wants(measure));
        if !wanted || !crowd::is_possible(self.name) {
            return Ok(());
        }
        self.check()?;
        let mut site = crowd::start(starter, binaries)?;
        let done = self.crowd(&mut site);
        done.map_err(|fault| Fault::other(format!("{fault}\n{}", site.system.log_tail())))?;
        site.close()
    }

    /// All that a thousand clients show; what they cost a frame where capacity is wanted.
    fn crowd(&mut self, site: &mut Site) -> Result<()> {
        let of = |measure, peers, turn: &Self| Cell { peers, ..turn.cell(measure, crowd::IN_TURN) };
        let count = |measure, peers, turn: &Self| Cell { frame_bytes: MIXED, ..of(measure, peers, turn) };
        let empty = crowd::memory(site)?;
        let connected = crowd::connect(site, self.stop)?;
        let full = crowd::memory(site)?;
        if self.wants(Measure::Memory) {
            self.add(count(Measure::Memory, 0, self), empty);
            self.add(count(Measure::Memory, crowd::CROWD, self), full);
        }
        if self.wants(Measure::Handshake) {
            self.add(count(Measure::Handshake, crowd::CROWD, self), connected);
        }
        if self.wants(Measure::Capacity) {
            self.check()?;
            let sample = capacity::overload(site, crowd::IN_TURN, self.plan.time)?;
            self.add(of(Measure::Capacity, crowd::CROWD, self), sample);
        }
        if self.wants(Measure::Broadcast) {
            self.check()?;
            let sample = crowd::broadcast(site, self.plan.time)?;
            let work = self.cell(Measure::Broadcast, crowd::TO_ALL);
            self.add(Cell { peers: crowd::CROWD, ..work }, sample);
        }
        Ok(())
    }

    /// Capacity and what follows from it.
    fn frames(&mut self, site: &mut Site) -> Result<()> {
        let all = self.wants(Measure::Capacity) || self.wants(Measure::LosslessRate);
        for &traffic in self.plan.traffic.iter().filter(|traffic| all || **traffic == SHARED) {
            self.check()?;
            let sample = match self.plan.rate {
                0.0 => capacity::overload(site, traffic, self.plan.time)?,
                rate => capacity::at_rate(site, traffic, rate, self.plan.time)?,
            };
            let found = sample.delivered_per_second();
            self.add(self.cell(Measure::Capacity, traffic), sample);
            // Several loads for one figure, a third of all the time: not in every round.
            if self.wants(Measure::LosslessRate) && self.round % 2 == 1 {
                self.check()?;
                let sample = lossless::search(site, traffic, found)?;
                self.add(self.cell(Measure::LosslessRate, traffic), sample);
            }
            if self.wants(Measure::TwiceCapacity) && traffic == SHARED {
                let sample = capacity::at_rate(site, traffic, 2.0 * found, self.plan.time)?;
                let cell = self.cell(Measure::TwiceCapacity, traffic);
                self.add(Cell { load_share: Some(2.0), ..cell }, sample);
            }
        }
        Ok(())
    }

    /// CPU and round trips beside loads that are the same for every system.
    fn shares(&mut self, site: &mut Site) -> Result<()> {
        if !matches!(site.system.clients(), Clients::OpenVpn) {
            return Ok(());
        }
        if self.wants(Measure::Cpu) {
            self.paced(site, LOW_RATE, None, Measure::Cpu)?;
        }
        let Some(capacity) = self.capacity_of_openvpn() else { return Ok(()) };
        for share in SHARES {
            for measure in [Measure::Cpu, Measure::RoundTrip] {
                if self.wants(measure) {
                    self.paced(site, share * capacity, Some(share), measure)?;
                }
            }
        }
        Ok(())
    }

    fn paced(&mut self, site: &mut Site, rate: f64, share: Option<f64>, measure: Measure) -> Result<()> {
        self.check()?;
        let sample = match measure {
            Measure::RoundTrip => round_trip::beside(site, SHARED, rate, self.plan.time)?,
            _ => capacity::at_rate(site, SHARED, rate, self.plan.time)?,
        };
        let offered_per_second = share.is_none().then_some(rate);
        self.add(Cell { offered_per_second, load_share: share, ..self.cell(measure, SHARED) }, sample);
        Ok(())
    }

    /// As measured so far in this run, in frames a second.
    fn capacity_of_openvpn(&self) -> Option<f64> {
        let wanted = Cell { system: OPENVPN.to_owned(), ..self.cell(Measure::Capacity, SHARED) };
        let same = |cell: &&Cell| cell.system == wanted.system && cell.is_same_work(&wanted);
        self.report.cells.iter().find(same)?.median(Sample::delivered_per_second)
    }

    fn wants(&self, measure: Measure) -> bool {
        self.plan.measures.contains(&measure)
    }

    fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Fault::other("interrupted")) } else { Ok(()) }
    }

    fn add(&mut self, cell: Cell, sample: Sample) {
        let sample = Sample { round: self.round, ..sample };
        (self.told)(&cell, &sample);
        self.report.add(cell, sample);
    }

    fn cell(&self, measure: Measure, traffic: Traffic) -> Cell {
        Cell {
            measure,
            system: self.name.to_owned(),
            direction: traffic.direction,
            frame_bytes: traffic.frame_bytes,
            peers: PEERS,
            offered_per_second: None,
            load_share: None,
            samples: Vec::new(),
        }
    }
}
