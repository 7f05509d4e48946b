//! What a run of the ruler has found: plain data, as `report.json` has it.
//!
//! Everything is counted, nothing derived: ratios, medians and rates are the reader's ([`Sample::delivered_per_second`]
//! and its neighbours compute the common ones).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of this schema: raised when a field changes its meaning or goes, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`] of the program that wrote it.
    pub schema_version: u32,
    /// Where it ran.
    pub machine: Machine,
    /// Version of each system and tool by its name, in its own words.
    pub versions: BTreeMap<String, String>,
    /// When it began, in seconds since 1970-01-01 00:00 UTC.
    pub started_unix_s: u64,
    /// How long all of it took, in seconds.
    pub took_s: f64,
    /// The command line, without the program's path.
    pub arguments: Vec<String>,
    /// What was measured, in the order it was first measured in.
    pub cells: Vec<Cell>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of its processor, as /proc/cpuinfo names it.
    pub cpu: String,
    /// How many processors the kernel sees.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Release of its kernel.
    pub kernel: String,
}

/// What was done to one system: its samples are comparable among each other, and with those of the cell of another
/// system that differs in `system` alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// What was measured.
    pub measure: Measure,
    /// Name of the system, such as `trestle-af-xdp`, `trestle-socket`, `openvpn`, `null` ([`crate::rig::system::System::name`]).
    pub system: String,
    /// Which way frames go.
    pub direction: Direction,
    /// Length of each inner frame in bytes, with its Ethernet header, without check sequence; 0 where there is none,
    /// or they are mixed.
    pub frame_bytes: u32,
    /// Connected peers.
    pub peers: u32,
    /// Offered load in frames a second, where the cell names it; `None` under overload or without load.
    pub offered_per_second: Option<f64>,
    /// The load as a share of openvpn's capacity in the same direction and size (0.01, 0.5, 0.9), where it was chosen
    /// so; 2.0 for twice the system's own.
    pub load_share: Option<f64>,
    /// One a round, in order.
    pub samples: Vec<Sample>,
}

/// What a cell is about, and so which fields of its samples say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Frames delivered under overload, and what they cost.
    Capacity,
    /// The highest offered rate of which at most 0.1 % is lost.
    LosslessRate,
    /// What frames cost at a given rate.
    Cpu,
    /// Round trips of small frames beside a load of a given rate.
    RoundTrip,
    /// Frames delivered at twice the capacity, found in the same run.
    TwiceCapacity,
    /// TCP between ordinary stacks, by iperf3.
    Tcp,
    /// Copies of broadcasts delivered to all peers.
    Broadcast,
    /// Memory of the gateway, by number of peers.
    Memory,
    /// Handshakes of clients that connect anew.
    Handshake,
    /// Flow completion of a distributed build's pattern: many short bursts with large answers.
    Build,
    /// Frames carried from port to port of a kernel bridge, by all of one processor.
    PortToPort,
}

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From a host on the LAN to a peer: the gateway seals.
    LanToPeer,
    /// From a peer to a host on the LAN: the gateway opens.
    PeerToLan,
    /// From a peer to another: the gateway opens and seals.
    PeerToPeer,
    /// From the gateway's own host to a peer.
    HostToPeer,
    /// From a peer to the gateway's own host.
    PeerToHost,
    /// There and back.
    BothWays,
    /// From a port of a kernel bridge to another.
    PortToPort,
}

/// One measurement. What a cell does not measure is 0 or `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// In which round, from 1: systems take turns within a round.
    pub round: u32,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// Frames offered meanwhile.
    pub offered_frames: u64,
    /// Inner frames that arrived meanwhile: a fragmented packet is one, a broadcast to ten peers ten.
    pub delivered_frames: u64,
    /// CPU time of the gateway's process, all threads, in nanoseconds (schedstat). It has the kernel's work that runs
    /// in its name: system calls, and what its sends set off at the far end of a veth.
    pub gateway_cpu_ns: u64,
    /// CPU time of everything that ran on the gateway's processor, in nanoseconds.
    pub gateway_core_ns: u64,
    /// CPU time of everything that ran on the load's processor, the load itself included, in nanoseconds.
    pub load_core_ns: u64,
    /// Round trips, if any were made.
    pub round_trip: Option<RoundTrip>,
    /// Payload of streams in bits a second.
    pub bits_per_second: Option<f64>,
    /// Resident memory of the gateway's process in bytes.
    pub memory_bytes: Option<u64>,
    /// Handshakes done.
    pub handshakes: u64,
    /// Remarks for whoever reads the figure.
    pub notes: Vec<String>,
}

/// Round trips of small frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// Requests sent.
    pub sent: u64,
    /// Answers received; the rest was lost, or came too late.
    pub answered: u64,
    /// Median in nanoseconds.
    pub p50_ns: u64,
    /// Of a hundred, the slowest but one, in nanoseconds.
    pub p99_ns: u64,
    /// Of a thousand, the slowest but one, in nanoseconds.
    pub p999_ns: u64,
}

impl Sample {
    /// Frames delivered a second.
    pub fn delivered_per_second(&self) -> f64 {
        per(self.delivered_frames as f64, self.seconds)
    }

    /// CPU time of the gateway's process for one delivered frame, in microseconds.
    pub fn gateway_cpu_us_per_frame(&self) -> f64 {
        per(self.gateway_cpu_ns as f64 / 1e3, self.delivered_frames as f64)
    }

    /// CPU time of everything on the gateway's processor for one delivered frame, in microseconds.
    pub fn gateway_core_us_per_frame(&self) -> f64 {
        per(self.gateway_core_ns as f64 / 1e3, self.delivered_frames as f64)
    }

    /// Share of the offered frames that did not arrive.
    pub fn lost(&self) -> f64 {
        per(self.offered_frames.saturating_sub(self.delivered_frames) as f64, self.offered_frames as f64)
    }
}

impl Cell {
    /// Median over the samples of what `figure` makes of each; `None` without samples.
    pub fn median(&self, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        let mut figures: Vec<f64> = self.samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let (low, high) = (figures.get(figures.len().wrapping_sub(1) / 2)?, figures.get(figures.len() / 2)?);
        Some((low + high) / 2.0)
    }

    /// Whether it is the same measurement, of another system perhaps.
    pub fn is_same_work(&self, other: &Self) -> bool {
        self.measure == other.measure
            && self.direction == other.direction
            && self.frame_bytes == other.frame_bytes
            && self.peers == other.peers
            && self.load_share == other.load_share
    }
}

impl Report {
    /// Adds `sample` to the cell that `cell` describes, which is made if it is new.
    pub fn add(&mut self, cell: Cell, sample: Sample) {
        let known = |seen: &&mut Cell| seen.system == cell.system && seen.is_same_work(&cell);
        match self.cells.iter_mut().find(known) {
            Some(seen) => seen.samples.push(sample),
            None => self.cells.push(Cell { samples: vec![sample], ..cell }),
        }
    }
}

impl Direction {
    /// As the command line and the report write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LanToPeer => "lan-to-peer",
            Self::PeerToLan => "peer-to-lan",
            Self::PeerToPeer => "peer-to-peer",
            Self::HostToPeer => "host-to-peer",
            Self::PeerToHost => "peer-to-host",
            Self::BothWays => "both-ways",
            Self::PortToPort => "port-to-port",
        }
    }
}

fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(system: &str, delivered: &[u64]) -> Cell {
        let sample = |&frames: &u64| Sample { seconds: 2.0, delivered_frames: frames, ..Sample::default() };
        Cell {
            measure: Measure::Capacity,
            system: system.to_owned(),
            direction: Direction::LanToPeer,
            frame_bytes: 60,
            peers: 1,
            offered_per_second: None,
            load_share: None,
            samples: delivered.iter().map(sample).collect(),
        }
    }

    #[test]
    fn a_median_of_two_lies_between_them() {
        assert_eq!(cell("a", &[]).median(Sample::delivered_per_second), None);
        assert_eq!(cell("a", &[6, 2, 400]).median(Sample::delivered_per_second), Some(3.0));
        assert_eq!(cell("a", &[2, 6]).median(Sample::delivered_per_second), Some(2.0));
    }

    #[test]
    fn samples_of_one_system_and_work_meet_in_one_cell() {
        let mut report = Report::default();
        for system in ["a", "b", "a"] {
            report.add(cell(system, &[]), Sample::default());
        }
        let lengths: Vec<_> = report.cells.iter().map(|cell| cell.samples.len()).collect();
        assert_eq!(lengths, [2, 1]);
    }

    #[test]
    fn a_report_survives_being_written_and_read() {
        let mut report = Report { schema_version: SCHEMA_VERSION, ..Report::default() };
        report.add(cell("null", &[]), Sample { round: 1, ..Sample::default() });
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains("\"lan-to-peer\"") && text.contains("\"capacity\""));
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn nothing_offered_is_nothing_lost() {
        assert_eq!(Sample::default().lost(), 0.0);
        let half = Sample { offered_frames: 10, delivered_frames: 5, ..Sample::default() };
        assert_eq!(half.lost(), 0.5);
    }
}
