use std::time::Duration;

use jiff::Timestamp;

use crate::report::figure::Figure;
use crate::results::{Cell, Direction, Measure};

/// What stands where nothing was measured.
pub const MISSING: &str = "–";

/// `value` in three digits, with k, M or G where the unit is one of counting.
pub fn number(value: f64, figure: Figure) -> String {
    match figure {
        Figure::Delivered | Figure::Handshakes => counted(value),
        _ => digits(value),
    }
}

/// `value` in three digits, thousands as k, M or G.
fn counted(value: f64) -> String {
    let steps = [(1e9, " G"), (1e6, " M"), (1e3, " k")];
    // Rounding must not make a thousand of its own: 999,999 is 1.00 M.
    let step = steps.into_iter().find(|(size, _)| value >= 0.9995 * size);
    match step {
        Some((size, letter)) => digits(value / size) + letter,
        None => digits(value),
    }
}

/// `value` in three digits, as a power of ten where it is very great or very small; [`MISSING`] for what is no number.
pub fn digits(value: f64) -> String {
    match value {
        _ if !value.is_finite() => MISSING.to_owned(),
        0.0 => "0".to_owned(),
        _ if !(1e-3..1e6).contains(&value.abs()) => format!("{value:.2e}"),
        _ if value.abs() >= 99.95 => format!("{value:.0}"),
        _ if value.abs() >= 9.995 => format!("{value:.1}"),
        _ if value.abs() >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// `value` without decimals where it has none, else in three digits.
fn whole(value: f64) -> String {
    let rounded = value.round();
    if (value - rounded).abs() < 1e-9 && rounded.abs() < 1e6 {
        format!("{rounded:.0}")
    } else {
        digits(value)
    }
}

/// A ratio: `4.06×`.
pub fn times(ratio: f64) -> String {
    digits(ratio) + "×"
}

/// Moment `unix_s` in UTC; the bare number where no calendar has it.
pub fn moment(unix_s: u64) -> String {
    let known = i64::try_from(unix_s).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    known.map_or_else(|| unix_s.to_string(), |moment| moment.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// A run's length in minutes and seconds.
pub fn length(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(length) => format!("{} min {} s", length.as_secs() / 60, length.as_secs() % 60),
        Err(_) => MISSING.to_owned(),
    }
}

/// What a work is, without its measure: direction, length, peers, load.
pub fn work(cell: &Cell) -> String {
    // Connecting and staying connected have no direction.
    let is_static = matches!(cell.measure, Measure::Memory | Measure::Handshake);
    let mut words = Vec::new();
    if !is_static {
        words.push(direction(cell.direction).to_owned());
        words.extend(length_of(cell));
    }
    if cell.peers > 2 || is_static {
        words.push(format!("{} peers", cell.peers));
    }
    words.extend(load(cell));
    words.join(" · ")
}

/// The length of frames, where they have one.
fn length_of(cell: &Cell) -> Option<String> {
    match (cell.frame_bytes, cell.measure) {
        (0, Measure::Tcp | Measure::Build) => None,
        (0, _) => Some("IMIX".to_owned()),
        (length, _) => Some(format!("{length} B")),
    }
}

fn load(cell: &Cell) -> Option<String> {
    if cell.measure == Measure::TwiceCapacity {
        return None;
    }
    let share = cell.load_share.map(|share| format!("{} % load", whole(share * 100.0)));
    share.or_else(|| cell.offered_per_second.map(|rate| format!("{} frames/s offered", whole(rate))))
}

/// A direction in people's words.
pub const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::LanToPeer => "LAN → peer",
        Direction::PeerToLan => "peer → LAN",
        Direction::PeerToPeer => "peer → peer",
        Direction::HostToPeer => "host → peer",
        Direction::PeerToHost => "peer → host",
        Direction::BothWays => "both ways",
        Direction::PortToPort => "port → port",
    }
}

/// A measure as a heading.
pub const fn measure(measure: Measure) -> &'static str {
    match measure {
        Measure::Capacity => "Capacity under overload",
        Measure::LosslessRate => "Highest rate with at most 0.1 % loss",
        Measure::TwiceCapacity => "At twice its capacity",
        Measure::Cpu => "CPU at a given rate",
        Measure::RoundTrip => "Round trip beside a load",
        Measure::Tcp => "TCP between ordinary stacks",
        Measure::Build => "Flow completion of a distributed build",
        Measure::Broadcast => "Broadcast copies",
        Measure::Memory => "Memory",
        Measure::Handshake => "Handshakes",
        Measure::PortToPort => "From port to port of a kernel bridge",
    }
}

/// How a measure is taken, in a sentence or two.
pub const fn how(measure: Measure) -> &'static str {
    match measure {
        Measure::Capacity => {
            "More frames are offered than any system takes; what arrives is counted and dropped by XDP at the first hop \
             behind the gateway, so that no receiver's stack is on the bill. CPU time is everything that ran meanwhile."
        }
        Measure::LosslessRate => {
            "The offered rate is bisected for the highest one of which at most one frame in a thousand is lost."
        }
        Measure::TwiceCapacity => {
            "Twice the system's own capacity, found in the same run, is offered: a good gateway goes on delivering its \
             capacity."
        }
        Measure::Cpu => {
            "Frames are offered evenly at a given rate, a share of openvpn's capacity where a share is named. At low rates \
             this is the price of waking up, and says nothing about capacity."
        }
        Measure::RoundTrip => {
            "A small frame goes to the other side and comes back, again and again, beside a load of the given share of \
             openvpn's capacity."
        }
        Measure::Tcp => "iperf3 between ordinary stacks for a few seconds, with stock OpenVPN clients.",
        Measure::Build => {
            "Many short bursts of small non-IP messages go to workers, which answer with large ones; timed from the first \
             message to the last answer."
        }
        Measure::Broadcast => {
            "One broadcast goes in, a copy to each connected peer comes out; copies are counted."
        }
        Measure::Memory => "Resident memory of the gateway's process with that many peers connected.",
        Measure::PortToPort => {
            "Frames that arrive as from a NIC, as many as one processor makes, carries and counts: by the kernel's bridge \
             alone, and by XDP beside it."
        }
        Measure::Handshake => {
            "Clients connect anew, one after another or all at once; CPU time of the gateway's process."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let counted = |value| number(value, Figure::Delivered);
        assert_eq!(
            [0.0, 7.0, 999.9, 553_120.0, 999_999.0].map(counted),
            ["0", "7.00", "1.00 k", "553 k", "1.00 M"]
        );
        assert_eq!(
            [0.0449, 0.99951, 9.996, 99.96, 1234.0].map(digits),
            ["0.045", "1.00", "10.0", "100", "1234"]
        );
        assert_eq!([f64::MAX, 1e-9].map(digits), ["1.80e308", "1.00e-9"]);
        assert_eq!(times(4.056), "4.06×");
        assert_eq!([1.0, 50.0, 12.5, f64::NAN].map(whole), ["1", "50", "12.5", MISSING]);
    }

    #[test]
    fn moments_are_in_utc_and_never_fail() {
        assert_eq!(moment(0), "1970-01-01 00:00 UTC");
        assert_eq!(moment(1_700_000_000), "2023-11-14 22:13 UTC");
        assert_eq!(moment(u64::MAX), u64::MAX.to_string());
        assert_eq!(length(605.4), "10 min 5 s");
        assert_eq!([f64::NAN, -1.0, f64::MAX].map(length), [MISSING; 3]);
    }
}
