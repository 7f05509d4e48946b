//! When a worker sleeps, and when it looks again first.
//!
//! A system call that finds nothing costs as much as one that finds a frame. So after a turn with work the rings are
//! looked at again at once, for that costs none; sockets and the host port are asked about by the `poll` that ends in
//! sleep, or now and then when there is no sleep.
//!
//! To sleep and be woken costs about 20 µs of CPU time, and delays the frame by as much. A worker whose work usually comes
//! again sooner than that looks at the rings for a short while before it sleeps: the answer comes earlier, and takes
//! little more CPU time. One whose work does not, sleeps at once.

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

/// Work that usually comes sooner than this after the last is waited for awake. Too low delays frames by a wake-up, too
/// high costs more CPU time than sleep: at 70,000 frames a second the gap is 11 µs, and with sleep a wake-up serves
/// three frames.
const SHORT_GAP: Duration = Duration::from_micros(15);

/// Longest wait awake, for the gap that turns out longer than usual.
const LONGEST_VIGIL: Duration = Duration::from_micros(20);

/// What sleep adds to a gap: the time from a frame's arrival to the worker's first look. Too low and a worker that sleeps
/// never learns that its gaps are short, too high and it takes long ones for short.
const WAKE_UP: Duration = Duration::from_micros(12);

/// What a gap counts at most: after a pause, a few short gaps show that work has begun again.
const LONGEST_GAP: Duration = SHORT_GAP.saturating_mul(4);

/// The share of the latest gap in the usual one, as a divisor. Too low follows each single gap, too high is late.
const GAP_WEIGHT: u32 = 8;

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
    gaps: Gaps,
}

impl Waking {
    /// A worker that begins.
    pub fn new(now: Instant) -> Self {
        Self { idle_turns: 0, asked: now, gaps: Gaps::default() }
    }

    /// What comes after a turn that began at `now` and `received` so many frames; `leftovers`: see
    /// [`Port::has_leftovers`](crate::ports::Port::has_leftovers).
    pub fn after_turn(&mut self, now: Instant, received: usize, leftovers: bool) -> Next {
        self.idle_turns = if received == 0 { self.idle_turns + 1 } else { 0 };
        if received > 0 {
            self.gaps.end(now);
        }
        let next = match (received, leftovers) {
            (1.., _) => Next::Turn,
            (0, true) if self.idle_turns < PATIENCE => Next::Turn,
            (0, true) => Next::Sleep(NAP),
            (0, false) if self.gaps.is_worth_waiting(now) => Next::Turn,
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

/// How long it usually takes from the end of work to the next.
///
/// Invariant: `usual <= LONGEST_GAP`.
#[derive(Debug)]
struct Gaps {
    /// When work ended; `None` while there is some.
    since: Option<Instant>,
    /// The worker went to sleep in it.
    slept: bool,
    usual: Duration,
}

impl Default for Gaps {
    /// Sleeps until short gaps are seen.
    fn default() -> Self {
        Self { since: None, slept: false, usual: LONGEST_GAP }
    }
}

impl Gaps {
    /// There is work again.
    fn end(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            let delay = if std::mem::take(&mut self.slept) { WAKE_UP } else { Duration::ZERO };
            let gap = now.saturating_duration_since(since).saturating_sub(delay).min(LONGEST_GAP);
            self.usual = self.usual - self.usual / GAP_WEIGHT + gap / GAP_WEIGHT;
        }
    }

    /// There is none: whether to wait for it awake.
    fn is_worth_waiting(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let worth = self.usual < SHORT_GAP && now.saturating_duration_since(since) < LONGEST_VIGIL;
        self.slept |= !worth;
        worth
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

    /// Lets work come each of `gaps` after the end of the last, one frame a turn, and says where the worker sleeps between.
    fn sleeps_between(waking: &mut Waking, start: &mut Instant, gaps: &[Duration]) -> Vec<bool> {
        let slept = |gap: &Duration| {
            waking.after_turn(*start, 1, false);
            let end = *start + *gap;
            let mut asleep = false;
            while *start < end && !asleep {
                *start += US;
                asleep = matches!(waking.after_turn(*start, 0, false), Next::Sleep(_));
            }
            *start = if asleep { end + WAKE_UP } else { end };
            asleep
        };
        gaps.iter().map(slept).collect()
    }

    #[test]
    fn a_worker_whose_work_comes_soon_again_stays_awake_once_it_has_learnt_so() {
        let mut start = Instant::now();
        let mut waking = Waking::new(start);
        let slept = sleeps_between(&mut waking, &mut start, &[10 * US; 100]);
        assert!(slept[0], "nothing is known yet");
        assert!(slept[50..].iter().all(|slept| !slept), "{slept:?}");
    }

    #[test]
    fn a_worker_whose_work_does_not_come_soon_gives_up_waiting_for_it() {
        let mut start = Instant::now();
        let mut waking = Waking::new(start);
        let slept = sleeps_between(&mut waking, &mut start, &[50 * US; 100]);
        assert!(slept.iter().all(|slept| *slept), "{slept:?}");
        sleeps_between(&mut waking, &mut start, &[5 * US; 100]);
        let slept = sleeps_between(&mut waking, &mut start, &[500 * US; 20]);
        assert!(slept.iter().all(|slept| *slept), "even the first is not waited for to its end: {slept:?}");
        let begun = start;
        waking.after_turn(start, 1, false);
        let next = waking.after_turn(begun + US, 0, false);
        assert_eq!(next, Next::Sleep(LONGEST_SLEEP), "and now it sleeps at once");
    }

    #[test]
    fn a_pause_of_any_length_is_forgotten_after_a_few_short_gaps() {
        let mut start = Instant::now();
        let mut waking = Waking::new(start);
        sleeps_between(&mut waking, &mut start, &[5 * US; 100]);
        sleeps_between(&mut waking, &mut start, &[Duration::from_secs(3600)]);
        let slept = sleeps_between(&mut waking, &mut start, &[5 * US; 20]);
        assert!(!slept[19], "{slept:?}");
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
