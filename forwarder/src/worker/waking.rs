//! When a worker sleeps, and when it looks again first.
//!
//! A system call that finds nothing costs as much as one that finds a frame. So after a turn with work the rings are
//! looked at again at once, for that costs none; sockets and the host port are asked about by the `poll` that ends in
//! sleep, or now and then when there is no sleep.

use std::time::{Duration, Instant};

/// An upper bound on sleep, against a wake-up lost by a driver. Costs nothing at once a second.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Turns without work in which leftovers are tried at once. Too low delays the end of a burst that the NIC takes
/// slowly; too high costs CPU time.
const PATIENCE: u64 = 64;

/// How long leftovers are left alone that nobody takes: a NIC without a carrier takes no frames for as long as it lasts.
const NAP: Duration = Duration::from_millis(1);

/// A worker that never sleeps asks the kernel so often what is readable. Too high delays frames of the host and packets
/// of the tunnel's socket while the NIC is busy, too low costs a system call a turn.
const ASK_INTERVAL: Duration = Duration::from_micros(100);

/// What comes after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another turn at once.
    Turn,
    /// Another turn, but ask what is readable.
    Ask,
    /// Sleep until something is readable, at most so long.
    Sleep(Duration),
}

/// Decides after each turn. Has no clock of its own.
#[derive(Debug)]
pub(super) struct Waking {
    /// Turns without work in a row.
    idle_turns: u64,
    /// When the kernel was last asked what is readable.
    asked: Instant,
}

impl Waking {
    /// A worker that begins.
    pub fn new(now: Instant) -> Self {
        Self { idle_turns: 0, asked: now }
    }

    /// What comes after a turn that began at `now` and `received` so many frames; `leftovers`: see
    /// [`Port::has_leftovers`](crate::ports::Port::has_leftovers).
    pub fn after_turn(&mut self, now: Instant, received: usize, leftovers: bool) -> Next {
        self.idle_turns = if received == 0 { self.idle_turns + 1 } else { 0 };
        let next = match (received, leftovers) {
            (1.., _) => Next::Turn,
            (0, true) if self.idle_turns < PATIENCE => Next::Turn,
            (0, true) => Next::Sleep(NAP),
            (0, false) => Next::Sleep(LONGEST_SLEEP),
        };
        self.ask_if_due(now, next)
    }

    fn ask_if_due(&mut self, now: Instant, next: Next) -> Next {
        if next == Next::Turn && now.saturating_duration_since(self.asked) < ASK_INTERVAL {
            return Next::Turn;
        }
        self.asked = now;
        if next == Next::Turn { Next::Ask } else { next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn a_worker_without_work_sleeps_at_once() {
        let start = Instant::now();
        let mut waking = Waking::new(start);
        assert_eq!(waking.after_turn(start + US, 1, false), Next::Turn);
        assert_eq!(waking.after_turn(start + 2 * US, 0, false), Next::Sleep(LONGEST_SLEEP));
    }

    #[test]
    fn a_busy_worker_asks_about_the_sockets_now_and_then() {
        let start = Instant::now();
        let mut waking = Waking::new(start);
        let next: Vec<_> = (1..=300).map(|at| waking.after_turn(start + at * US, 64, false)).collect();
        assert_eq!(next.iter().filter(|next| **next == Next::Ask).count(), 3);
        assert!(next.iter().all(|next| matches!(next, Next::Ask | Next::Turn)));
    }

    #[test]
    fn leftovers_that_nobody_takes_do_not_keep_a_worker_awake() {
        let start = Instant::now();
        let mut waking = Waking::new(start);
        assert_eq!(waking.after_turn(start, 0, true), Next::Turn, "they are tried again at once");
        let last = (0..PATIENCE).map(|_| waking.after_turn(start, 0, true)).last();
        assert_eq!(last, Some(Next::Sleep(NAP)));
        assert_eq!(waking.after_turn(start, 1, true), Next::Turn, "there is work again");
        assert_eq!(waking.after_turn(start, 0, true), Next::Turn);
    }
}
