//! What is to be reached: one gateway core, load on the other, against openvpn 2.6 with a kernel bridge in the same run.
//!
//! Where the numbers come from: the project's requirements. Their reasons: openvpn copies each frame through four
//! system calls and the bridge, so that a data path without them must be several times faster, and less so where
//! packets are cut into fragments; waking up costs every system the same, so that at low rates it may not cost more.

use serde::Serialize;

use crate::cells::port_to_port;
use crate::report::figure::Figure;
use crate::report::grid::{AEAD, Grid, NULL, OPENVPN, Row, TRESTLE};
use crate::report::show;
use crate::report::spread::{Spread, ratio};
use crate::results::{Cell, Direction, Measure, Report};

use Direction::{LanToPeer, PeerToLan, PeerToPeer, PortToPort};

/// Every mark, in the order they are shown.
pub const MARKS: &[Mark] = &[
    capacity(LanToPeer, 60, 4.0),
    capacity(LanToPeer, 1414, 4.0),
    capacity(LanToPeer, 1514, 2.8),
    capacity(PeerToLan, 60, 3.0),
    capacity(PeerToLan, 1414, 3.2),
    capacity(PeerToLan, 1514, 2.5),
    capacity(PeerToPeer, 1414, 3.0),
    floor(LanToPeer, 1),
    floor(PeerToLan, 1),
    floor(PeerToPeer, 2),
    round_trip("round trip p50, idle", Figure::P50, 0.01),
    round_trip("round trip p99, idle", Figure::P99, 0.01),
    round_trip("round trip p50, at half of openvpn's capacity", Figure::P50, 0.5),
    round_trip("round trip p99, at half of openvpn's capacity", Figure::P99, 0.5),
    Mark::new(
        "CPU at 2,000 frames a second",
        Ask::Against(Work { offered: Some(2000.0), ..Work::of(Measure::Cpu) }, Figure::ProcessTime),
        Bound::AtMost(1.0),
    ),
    Mark::new("delivered at twice capacity, of capacity", Ask::Overload, Bound::AtLeast(0.9)),
    Mark::new("cost of a frame with 1,000 peers, of that with 2", Ask::ManyPeers, Bound::AtMost(1.3)),
    Mark::new(
        "broadcast copies a second to 1,000 peers",
        Ask::Against(Work { peers: MANY, ..Work::of(Measure::Broadcast) }, Figure::Delivered),
        Bound::AtLeast(2.5),
    ),
    Mark::new("memory a peer", Ask::MemoryPerPeer, Bound::AtMost(1.0 / 3.0)),
    Mark::new(
        "CPU a handshake",
        Ask::Against(Work::of(Measure::Handshake), Figure::HandshakeTime),
        Bound::AtMost(0.5),
    ),
    ports(60, 3.2),
    ports(1414, 3.2),
    Mark::new("delivered of what was offered, from port to port", Ask::PortsDeliver, Bound::AtLeast(1.0)),
];

/// One thing to be reached.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    subject: &'static str,
    /// Which works are looked at, where the subject alone does not say it.
    work: Option<(Direction, u32)>,
    ask: Ask,
    bound: Bound,
}

/// Which ratio is asked for. Of several rows that match, the worst counts.
#[derive(Clone, Copy, Debug)]
enum Ask {
    /// Of the same work's figure, openvpn's being 1.
    Against(Work, Figure),
    /// Of a frame's CPU time, the null forwarder's with so many AEAD operations being 1.
    Floor(Direction, u32),
    /// Of frames delivered at twice capacity, those at capacity being 1.
    Overload,
    /// Of a frame's CPU time with 1,000 peers, that with two or fewer being 1.
    ManyPeers,
    /// Of memory for one more peer, openvpn's being 1.
    MemoryPerPeer,
    /// Of frames of this length from port to port, the kernel bridge's being 1.
    Ports(u32),
    /// Of frames from port to port by XDP, those offered being 1.
    PortsDeliver,
}

/// As many peers as there are.
const ANY: (u32, u32) = (0, u32::MAX);
/// The least and the most peers of what is called few.
const FEW: (u32, u32) = (0, 2);
/// The least and the most peers of what is called many.
const MANY: (u32, u32) = (1000, 1000);

/// Which rows are looked at; `None` is any.
#[derive(Clone, Copy, Debug)]
struct Work {
    measure: Measure,
    direction: Option<Direction>,
    frame_bytes: Option<u32>,
    peers: (u32, u32),
    share: Option<f64>,
    offered: Option<f64>,
}

/// How a ratio has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

/// What became of a mark in one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// What was asked.
    pub subject: String,
    /// What is wanted, such as `≥ 4.00×`.
    pub wanted: String,
    /// The ratio that was found; `None` where a part of it was not measured.
    pub found: Option<f64>,
    /// Whether that is as wanted; `None` where nothing was found.
    pub reached: Option<bool>,
}

/// Every mark, judged by `report`.
pub fn judge(report: &Report, grid: &Grid<'_>) -> Vec<Judgement> {
    MARKS.iter().map(|mark| mark.judge(report, grid)).collect()
}

const fn capacity(direction: Direction, frame_bytes: u32, times: f64) -> Mark {
    let of = Work::of(Measure::Capacity);
    let work = Work { direction: Some(direction), frame_bytes: Some(frame_bytes), peers: FEW, ..of };
    let mark =
        Mark::new("delivered under overload", Ask::Against(work, Figure::Delivered), Bound::AtLeast(times));
    Mark { work: Some((direction, frame_bytes)), ..mark }
}

const fn floor(direction: Direction, operations: u32) -> Mark {
    let subject = match operations {
        1 => "CPU a frame at capacity, over the null forwarder and one AEAD operation",
        _ => "CPU a frame at capacity, over the null forwarder and two AEAD operations",
    };
    let mark = Mark::new(subject, Ask::Floor(direction, operations), Bound::AtMost(1.3));
    Mark { work: Some((direction, 0)), ..mark }
}

const fn ports(frame_bytes: u32, times: f64) -> Mark {
    let subject = "frames by one processor, against the kernel bridge";
    let mark = Mark::new(subject, Ask::Ports(frame_bytes), Bound::AtLeast(times));
    Mark { work: Some((PortToPort, frame_bytes)), ..mark }
}

const fn round_trip(subject: &'static str, figure: Figure, share: f64) -> Mark {
    let work = Work { share: Some(share), ..Work::of(Measure::RoundTrip) };
    Mark::new(subject, Ask::Against(work, figure), Bound::AtMost(1.0))
}

impl Mark {
    const fn new(subject: &'static str, ask: Ask, bound: Bound) -> Self {
        Self { subject, work: None, ask, bound }
    }

    fn judge(&self, report: &Report, grid: &Grid<'_>) -> Judgement {
        let found = self.bound.worst(self.ask.ratios(report, grid));
        Judgement {
            subject: self.subject(),
            wanted: self.bound.text(),
            found,
            reached: found.map(|ratio| self.bound.holds(ratio)),
        }
    }

    fn subject(&self) -> String {
        match self.work {
            Some((direction, 0)) => format!("{}, {}", self.subject, show::direction(direction)),
            Some((direction, length)) => {
                format!("{}, {} {length} B", self.subject, show::direction(direction))
            }
            None => self.subject.to_owned(),
        }
    }
}

impl Ask {
    /// The ratio of every row that matches and was measured on both sides.
    fn ratios(self, report: &Report, grid: &Grid<'_>) -> Vec<f64> {
        match self {
            Self::Against(work, figure) => {
                let rows = rows(grid, work, figure);
                rows.filter_map(|row| grid.ratio(row, TRESTLE, OPENVPN)).collect()
            }
            Self::Floor(direction, operations) => over_floor(report, grid, direction, operations),
            Self::Overload => overload(grid),
            Self::ManyPeers => many_peers(grid),
            Self::MemoryPerPeer => {
                let ours = memory_per_peer(grid, TRESTLE);
                ours.zip(memory_per_peer(grid, OPENVPN)).and_then(|(a, b)| ratio(a, b)).into_iter().collect()
            }
            Self::Ports(frame_bytes) => {
                let work = Work { frame_bytes: Some(frame_bytes), ..Work::of(Measure::PortToPort) };
                let rows = rows(grid, work, Figure::Delivered);
                rows.filter_map(|row| grid.ratio(row, port_to_port::XDP, port_to_port::KERNEL)).collect()
            }
            Self::PortsDeliver => {
                let rows = rows(grid, Work::of(Measure::PortToPort), Figure::Lost);
                let worst = |row: &Row<'_>| Some(row.spread(grid.column(port_to_port::XDP)?)?.max);
                rows.filter_map(worst).map(|lost| 1.0 - lost / 100.0).collect()
            }
        }
    }
}

impl Work {
    const fn of(measure: Measure) -> Self {
        Self { measure, direction: None, frame_bytes: None, peers: ANY, share: None, offered: None }
    }

    fn matches(&self, cell: &Cell) -> bool {
        self.measure == cell.measure
            && self.direction.is_none_or(|direction| direction == cell.direction)
            && self.frame_bytes.is_none_or(|length| length == cell.frame_bytes)
            && (self.peers.0..=self.peers.1).contains(&cell.peers)
            && self.share.is_none_or(|share| near(share, cell.load_share))
            && self.offered.is_none_or(|rate| near(rate, cell.offered_per_second))
    }
}

/// Whether `found` is `wanted` within 2 %: a rate comes out of a division.
fn near(wanted: f64, found: Option<f64>) -> bool {
    found.is_some_and(|found| (found / wanted - 1.0).abs() < 0.02)
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }

    fn worst(self, ratios: Vec<f64>) -> Option<f64> {
        let all = Spread::of(ratios)?;
        Some(match self {
            Self::AtLeast(_) => all.min,
            Self::AtMost(_) => all.max,
        })
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {}", show::times(least)),
            Self::AtMost(most) => format!("≤ {}", show::times(most)),
        }
    }
}

fn rows<'g, 'a>(grid: &'g Grid<'a>, work: Work, figure: Figure) -> impl Iterator<Item = &'g Row<'a>> {
    grid.rows.iter().filter(move |row| row.figure == figure && work.matches(row.work))
}

fn over_floor(report: &Report, grid: &Grid<'_>, direction: Direction, operations: u32) -> Vec<f64> {
    let work = Work { direction: Some(direction), peers: FEW, ..Work::of(Measure::Capacity) };
    let of = |row: &Row<'_>| {
        let aead = aead_us(report, row.work.frame_bytes)?;
        let floor = grid.median(row, NULL)? + f64::from(operations) * aead;
        ratio(grid.median(row, TRESTLE)?, floor)
    };
    rows(grid, work, Figure::CoreTime).filter_map(of).collect()
}

/// One AEAD operation on a frame of that length, in µs, as this run measured it.
pub fn aead_us(report: &Report, frame_bytes: u32) -> Option<f64> {
    let cells = report.cells.iter().filter(|cell| cell.system == AEAD && cell.frame_bytes == frame_bytes);
    let readings = cells.flat_map(|cell| &cell.samples).filter_map(|sample| Figure::ProcessTime.read(sample));
    Spread::of(readings).map(|spread| spread.median)
}

fn overload(grid: &Grid<'_>) -> Vec<f64> {
    let twice = rows(grid, Work::of(Measure::TwiceCapacity), Figure::Delivered);
    let of = |row: &Row<'_>| {
        let cell = row.work;
        let same = Work {
            direction: Some(cell.direction),
            frame_bytes: Some(cell.frame_bytes),
            peers: (cell.peers, cell.peers),
            ..Work::of(Measure::Capacity)
        };
        let capacity = rows(grid, same, Figure::Delivered).find_map(|row| grid.median(row, TRESTLE))?;
        ratio(grid.median(row, TRESTLE)?, capacity)
    };
    twice.filter_map(of).collect()
}

fn many_peers(grid: &Grid<'_>) -> Vec<f64> {
    let many = rows(grid, Work { peers: MANY, ..Work::of(Measure::Capacity) }, Figure::CoreTime);
    let of = |row: &Row<'_>| {
        let cell = row.work;
        let same = Work {
            direction: Some(cell.direction),
            frame_bytes: Some(cell.frame_bytes),
            peers: FEW,
            ..Work::of(Measure::Capacity)
        };
        let mut few = rows(grid, same, Figure::CoreTime);
        ratio(grid.median(row, TRESTLE)?, few.find_map(|row| grid.median(row, TRESTLE))?)
    };
    many.filter_map(of).collect()
}

/// MiB for one more peer, from the fewest peers measured to the most.
fn memory_per_peer(grid: &Grid<'_>, system: &str) -> Option<f64> {
    let all = rows(grid, Work::of(Measure::Memory), Figure::Memory);
    let points: Vec<(u32, f64)> =
        all.filter_map(|row| Some((row.work.peers, grid.median(row, system)?))).collect();
    let least = points.iter().min_by_key(|(peers, _)| *peers)?;
    let most = points.iter().max_by_key(|(peers, _)| *peers)?;
    ratio(most.1 - least.1, f64::from(most.0 - least.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{cell, report, sample};

    fn found(report: &Report, subject: &str) -> Judgement {
        let judged = judge(report, &Grid::of(report));
        judged.into_iter().find(|judgement| judgement.subject == subject).unwrap()
    }

    #[test]
    fn what_was_not_measured_is_neither_reached_nor_missed() {
        for judgement in judge(&Report::default(), &Grid::of(&Report::default())) {
            assert_eq!((judgement.found, judgement.reached), (None, None), "{}", judgement.subject);
        }
    }

    #[test]
    fn subjects_tell_marks_apart() {
        let report = Report::default();
        let mut subjects: Vec<_> =
            judge(&report, &Grid::of(&report)).into_iter().map(|j| j.subject).collect();
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), MARKS.len());
    }

    #[test]
    fn delivered_frames_are_judged_by_openvpns() {
        let report = report();
        let judgement = found(&report, "delivered under overload, LAN → peer 60 B");
        assert_eq!((judgement.found, judgement.reached), (Some(4.0), Some(true)));
        assert_eq!(judgement.wanted, "≥ 4.00×");
        assert_eq!(found(&report, "delivered under overload, LAN → peer 1414 B").found, None);
    }

    #[test]
    fn the_floor_is_the_null_forwarder_with_its_aead_operations() {
        let mut report = report();
        let subject = "CPU a frame at capacity, over the null forwarder and one AEAD operation, LAN → peer";
        assert_eq!(found(&report, subject).found, None, "no AEAD operation was measured");
        // 0.5 µs; the null forwarder has 1 µs, trestle 2 µs.
        let aead = Cell { measure: Measure::Cpu, ..cell(AEAD) };
        report.add(aead, crate::results::Sample { gateway_cpu_ns: 500_000, ..sample(1, 1000) });
        let judgement = found(&report, subject);
        assert!((judgement.found.unwrap() - 2.0 / 1.5).abs() < 1e-9);
        assert_eq!(judgement.reached, Some(false));
    }

    #[test]
    fn the_worst_of_several_rows_counts() {
        assert_eq!(Bound::AtMost(1.0).worst(vec![0.5, 2.0]), Some(2.0));
        assert_eq!(Bound::AtLeast(1.0).worst(vec![0.5, 2.0]), Some(0.5));
        assert_eq!(Bound::AtLeast(1.0).worst(vec![]), None);
    }

    #[test]
    fn few_and_many_peers_are_not_mixed_up() {
        let mut report = report();
        for (system, core_ns) in [(TRESTLE, 2_200_000), (OPENVPN, 2_000_000)] {
            let many = crate::results::Sample { gateway_core_ns: core_ns, ..sample(1, 1000) };
            report.add(Cell { peers: 1000, ..cell(system) }, many);
        }
        assert_eq!(found(&report, "delivered under overload, LAN → peer 60 B").found, Some(4.0));
        let cost = found(&report, "cost of a frame with 1,000 peers, of that with 2").found.unwrap();
        assert!((cost - 1.1).abs() < 1e-9, "{cost}");
    }

    #[test]
    fn ports_are_judged_by_the_kernel_bridge_and_by_what_is_lost_in_any_round() {
        let mut report = Report::default();
        let of =
            |system| Cell { measure: Measure::PortToPort, direction: PortToPort, peers: 0, ..cell(system) };
        for (system, delivered) in [(port_to_port::KERNEL, 1000), (port_to_port::XDP, 4000)] {
            for round in [1, 2] {
                let lost = if round == 2 && system == port_to_port::XDP { delivered / 4 } else { 0 };
                let sample =
                    crate::results::Sample { offered_frames: delivered + lost, ..sample(round, delivered) };
                report.add(of(system), sample);
            }
        }
        let subject = "frames by one processor, against the kernel bridge, port → port 60 B";
        assert_eq!((found(&report, subject).found, found(&report, subject).reached), (Some(4.0), Some(true)));
        let delivered = found(&report, "delivered of what was offered, from port to port");
        assert_eq!((delivered.found, delivered.reached), (Some(0.8), Some(false)));
    }

    #[test]
    fn memory_a_peer_is_what_more_peers_add() {
        let mut report = Report::default();
        for (system, peers, mebibytes) in
            [(TRESTLE, 2, 30), (TRESTLE, 1002, 80), (OPENVPN, 2, 8), (OPENVPN, 1002, 158)]
        {
            let of = Cell { measure: Measure::Memory, peers, ..cell(system) };
            let memory_bytes = Some(mebibytes << 20);
            report.add(of, crate::results::Sample { memory_bytes, ..Default::default() });
        }
        let judgement = found(&report, "memory a peer");
        assert!((judgement.found.unwrap() - 1.0 / 3.0).abs() < 1e-9);
    }
}
