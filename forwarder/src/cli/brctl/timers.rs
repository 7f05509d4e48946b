//! Times of the kernel bridge: hundredths of a second there, decimal seconds on the command line.

use std::fmt;

use crate::xdp::sys;

/// Microseconds in a tick: the kernel tells times to user space in 1/100 s (`USER_HZ`), whatever its own clock.
const TICK_US: u64 = 10_000;

/// A time in ticks of 1/100 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticks(pub(super) u64);

impl Ticks {
    /// From decimal seconds as a person types them; `None` if there is no number at the start.
    ///
    /// What is negative or too much comes out as the real one's arithmetic has it: the kernel is the judge of it.
    pub(super) fn from_seconds(text: &[u8]) -> Option<Self> {
        let seconds = sys::scan_decimal(text)?;
        let whole = truncated(seconds);
        let rest = truncated(1e6 * (seconds - whole as f64));
        let us = whole.cast_unsigned().wrapping_mul(1_000_000).wrapping_add(rest.cast_unsigned());
        Some(Self(us / TICK_US))
    }

    /// Seconds, exactly as shown.
    pub(super) fn seconds(self) -> f64 {
        self.us() as f64 / 1e6
    }

    fn us(self) -> u64 {
        TICK_US.wrapping_mul(self.0)
    }
}

impl fmt::Display for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The real one prints an `int`: the cut is a part of its format.
        let seconds = (self.us() / 1_000_000) as i32;
        write!(f, "{seconds:4}.{:02}", self.us() % 1_000_000 / TICK_US)
    }
}

/// The integer before the point; what has no place in it is the least one, as x86-64 converts.
fn truncated(value: f64) -> i64 {
    // Both bounds are exact: -2^63 and 2^63.
    if value >= i64::MIN as f64 && value < -(i64::MIN as f64) { value as i64 } else { i64::MIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(text: &str) -> Option<u64> {
        Ticks::from_seconds(text.as_bytes()).map(|ticks| ticks.0)
    }

    #[test]
    fn seconds_are_read_as_scanf_does() {
        assert_eq!(ticks("120.5"), Some(12050));
        assert_eq!(ticks(" 7"), Some(700));
        assert_eq!(ticks("12abc"), Some(1200));
        assert_eq!(ticks("1e3"), Some(100_000));
        assert_eq!(ticks("0x1p3"), Some(800));
        assert_eq!(ticks("0.019"), Some(1));
        assert_eq!(ticks("abc"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn what_is_no_time_is_whatever_the_arithmetic_makes_of_it() {
        assert_eq!(ticks("-5"), Some(1_844_674_407_370_455));
        assert_eq!(ticks("inf"), Some(922_337_203_685_477));
        assert_eq!(ticks("nan"), Some(922_337_203_685_477));
    }

    #[test]
    fn ticks_are_shown_as_seconds_with_two_digits() {
        assert_eq!(Ticks(0).to_string(), "   0.00");
        assert_eq!(Ticks(12050).to_string(), " 120.50");
        assert_eq!(Ticks(100_000_007).to_string(), "1000000.07");
    }
}
