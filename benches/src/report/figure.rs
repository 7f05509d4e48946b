use serde::{Deserialize, Serialize};

use crate::results::{Measure, RoundTrip, Sample};

/// One quantity that a sample may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// Inner frames that arrived, a second.
    Delivered,
    /// CPU time of everything on the gateway's processor for one frame that arrived, in µs.
    CoreTime,
    /// CPU time of the gateway's process alone for one frame that arrived, in µs.
    ProcessTime,
    /// Share of one processor that the gateway's process used, in percent.
    ProcessShare,
    /// Share of offered frames that did not arrive, in percent.
    Lost,
    /// Median of times, in µs.
    P50,
    /// 99th percentile of times, in µs.
    P99,
    /// 99.9th percentile of times, in µs.
    P999,
    /// Share of requests without an answer, in percent.
    Unanswered,
    /// Payload of streams, in Gbit/s.
    Throughput,
    /// Resident memory of the gateway's process, in MiB.
    Memory,
    /// Handshakes a second.
    Handshakes,
    /// CPU time of the gateway's process for one handshake, in ms.
    HandshakeTime,
}

/// Which of two figures is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The greater one.
    Higher,
    /// The smaller one.
    Lower,
}

impl Figure {
    /// The figures that samples of `measure` hold, the most telling first.
    pub const fn of(measure: Measure) -> &'static [Self] {
        match measure {
            Measure::Capacity | Measure::TwiceCapacity | Measure::Broadcast => {
                &[Self::Delivered, Self::CoreTime, Self::ProcessTime]
            }
            Measure::LosslessRate => &[Self::Delivered],
            Measure::Cpu => &[Self::ProcessTime, Self::CoreTime, Self::ProcessShare, Self::Lost],
            Measure::RoundTrip | Measure::Build => &[Self::P50, Self::P99, Self::P999, Self::Unanswered],
            Measure::Tcp => &[Self::Throughput],
            Measure::PortToPort => &[Self::Delivered, Self::Lost],
            Measure::Memory => &[Self::Memory],
            Measure::Handshake => &[Self::HandshakeTime, Self::Handshakes],
        }
    }

    /// What `sample` says of it; `None` where it was not measured: a time or a count of nothing among them.
    pub fn read(self, sample: &Sample) -> Option<f64> {
        let value = match self {
            Self::Delivered => per(count(sample.delivered_frames), span(sample)?)?,
            Self::CoreTime => per(measured(sample.gateway_core_ns)? / 1e3, count(sample.delivered_frames))?,
            Self::ProcessTime => per(measured(sample.gateway_cpu_ns)? / 1e3, count(sample.delivered_frames))?,
            Self::ProcessShare => per(measured(sample.gateway_cpu_ns)? / 1e7, span(sample)?)?,
            Self::Lost => {
                let lost = sample.offered_frames.saturating_sub(sample.delivered_frames);
                per(count(lost) * 100.0, count(sample.offered_frames))?
            }
            Self::P50 => time(sample, |times| times.p50_ns)?,
            Self::P99 => time(sample, |times| times.p99_ns)?,
            Self::P999 => time(sample, |times| times.p999_ns)?,
            Self::Unanswered => {
                let times = sample.round_trip?;
                per(count(times.sent.saturating_sub(times.answered)) * 100.0, count(times.sent))?
            }
            Self::Throughput => sample.bits_per_second? / 1e9,
            Self::Memory => count(sample.memory_bytes?) / f64::from(1 << 20),
            Self::Handshakes => per(measured(sample.handshakes)?, span(sample)?)?,
            Self::HandshakeTime => per(measured(sample.gateway_cpu_ns)? / 1e6, measured(sample.handshakes)?)?,
        };
        // Less than nothing was not measured either: a clock or a file was wrong.
        Some(value).filter(|value| value.is_finite() && *value >= 0.0)
    }

    /// Which is better.
    pub const fn better(self) -> Better {
        match self {
            Self::Delivered | Self::Throughput | Self::Handshakes => Better::Higher,
            _ => Better::Lower,
        }
    }

    /// Its unit, short.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Delivered => "frames/s",
            Self::CoreTime | Self::ProcessTime => "µs/frame",
            Self::ProcessShare | Self::Lost | Self::Unanswered => "%",
            Self::P50 | Self::P99 | Self::P999 => "µs",
            Self::Throughput => "Gbit/s",
            Self::Memory => "MiB",
            Self::Handshakes => "handshakes/s",
            Self::HandshakeTime => "ms/handshake",
        }
    }

    /// What it is called in a heading.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "frames delivered",
            Self::CoreTime => "gateway's processor, everything on it",
            Self::ProcessTime => "gateway's process alone",
            Self::ProcessShare => "share of a processor, process alone",
            Self::Lost => "lost",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Unanswered => "unanswered",
            Self::Throughput => "payload",
            Self::Memory => "resident",
            Self::Handshakes => "rate",
            Self::HandshakeTime => "CPU of the process",
        }
    }
}

fn count(number: u64) -> f64 {
    number as f64
}

/// A counter that cannot stand still where it was read: nought means that nobody read it.
fn measured(number: u64) -> Option<f64> {
    (number > 0).then(|| count(number))
}

fn span(sample: &Sample) -> Option<f64> {
    Some(sample.seconds).filter(|seconds| seconds.is_finite() && *seconds > 0.0)
}

fn per(amount: f64, of: f64) -> Option<f64> {
    (of > 0.0).then(|| amount / of)
}

fn time(sample: &Sample, percentile: impl Fn(&RoundTrip) -> u64) -> Option<f64> {
    let times = sample.round_trip.filter(|times| times.answered > 0)?;
    Some(count(percentile(&times)) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_sample_says_nothing() {
        for measure in crate::report::grid::MEASURES {
            for figure in Figure::of(measure) {
                assert_eq!(figure.read(&Sample::default()), None, "{figure:?}");
            }
        }
    }

    #[test]
    fn nothing_delivered_is_a_reading_but_costs_no_frame() {
        let sample = Sample { seconds: 2.0, gateway_core_ns: 7, ..Sample::default() };
        assert_eq!(Figure::Delivered.read(&sample), Some(0.0));
        assert_eq!(Figure::CoreTime.read(&sample), None);
    }

    #[test]
    fn figures_come_in_their_units() {
        let sample = Sample {
            seconds: 2.0,
            offered_frames: 4000,
            delivered_frames: 3000,
            gateway_cpu_ns: 6_000_000,
            gateway_core_ns: 9_000_000,
            bits_per_second: Some(2.5e9),
            memory_bytes: Some(3 << 20),
            handshakes: 4,
            round_trip: Some(RoundTrip { sent: 4, answered: 3, p50_ns: 1500, p99_ns: 2500, p999_ns: 3500 }),
            ..Sample::default()
        };
        let read = |figure: Figure| figure.read(&sample).unwrap();
        assert_eq!(read(Figure::Delivered), 1500.0);
        assert_eq!((read(Figure::ProcessTime), read(Figure::CoreTime)), (2.0, 3.0));
        assert_eq!((read(Figure::ProcessShare), read(Figure::Lost)), (0.3, 25.0));
        assert_eq!((read(Figure::P50), read(Figure::P99), read(Figure::P999)), (1.5, 2.5, 3.5));
        assert_eq!((read(Figure::Unanswered), read(Figure::Throughput)), (25.0, 2.5));
        assert_eq!((read(Figure::Memory), read(Figure::Handshakes)), (3.0, 2.0));
        assert_eq!(read(Figure::HandshakeTime), 1.5);
    }
}
