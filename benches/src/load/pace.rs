//! When the next frames are due.

use std::time::{Duration, Instant};

/// How fast frames are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many a second, over all sessions.
    PerSecond(u32),
    /// As fast as they can be.
    Max,
}

/// Nanoseconds of a second.
const SECOND_NS: u128 = 1_000_000_000;

/// Counts frames against the clock. A sender that is late catches up as fast as it can.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    rate: Rate,
    began: Instant,
    sent: u64,
}

impl Pace {
    /// Begins now.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, began: now, sent: 0 }
    }

    /// How many frames are due, `limit` at most.
    pub fn due(&self, now: Instant, limit: usize) -> usize {
        let Rate::PerSecond(rate) = self.rate else { return limit };
        let elapsed = now.saturating_duration_since(self.began).as_nanos();
        // The first one at once.
        let due = elapsed * u128::from(rate) / SECOND_NS + 1;
        let late = due.saturating_sub(u128::from(self.sent));
        usize::try_from(late).unwrap_or(limit).min(limit)
    }

    /// How long until the next is due.
    pub fn wait(&self, now: Instant) -> Duration {
        let Rate::PerSecond(rate) = self.rate else { return Duration::ZERO };
        let at_ns = u128::from(self.sent) * SECOND_NS / u128::from(rate.max(1));
        let at = Duration::from_nanos(u64::try_from(at_ns).unwrap_or(u64::MAX));
        at.saturating_sub(now.saturating_duration_since(self.began))
    }

    /// So many have been dealt with.
    pub fn count(&mut self, frames: usize) {
        self.sent += frames as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_due_at_even_distances() {
        let began = Instant::now();
        let mut pace = Pace::new(Rate::PerSecond(1000), began);
        let after = |us| began + Duration::from_micros(us);
        assert_eq!(pace.due(began, 64), 1);
        pace.count(1);
        assert_eq!(pace.due(after(999), 64), 0);
        assert_eq!(pace.wait(after(400)), Duration::from_micros(600));
        assert_eq!(pace.due(after(1000), 64), 1);
        assert_eq!(pace.due(after(10_500), 64), 10);
        assert_eq!(pace.due(after(10_500), 4), 4);
        pace.count(10);
        assert_eq!((pace.due(after(10_500), 64), pace.wait(after(10_500))), (0, Duration::from_micros(500)));
    }

    #[test]
    fn at_most_speed_frames_are_always_due() {
        let now = Instant::now();
        let mut pace = Pace::new(Rate::Max, now);
        pace.count(1 << 40);
        assert_eq!((pace.due(now, 64), pace.wait(now)), (64, Duration::ZERO));
    }
}
