//! Which packet ids of a key were received: a sliding window over them, after RFC 6479.
//!
//! ```text
//!        too old           window: each id received or not         newer: always fresh
//!  ……───────────────┤◄──────────── WINDOW ids ──────────────────►├───────────────────……
//!                                                              highest
//! ```
//!
//! The bits live in a ring of 64-bit words, indexed by the id's upper bits. Moving on clears whole words and never
//! shifts, so up to 63 ids of the oldest word are remembered beyond the window; they count as too old nevertheless.
//!
//! Upstream's window has 64 ids and closes after 15 s (brief A.10). This one is wider, because several receive queues
//! at 10 Gbit/s disorder more than that, and it has no clock: an old id inside the window is accepted once, whenever it
//! comes. Nothing of this is visible on the wire.

use std::num::NonZeroU64;

/// Ids behind the highest that are still told apart. Too low drops packets that the network disordered, too high costs
/// memory for each key (a bit an id). 1984 is one word less than four cache lines.
pub const WINDOW: u64 = RING_IDS - WORD_IDS;

/// Ids the ring has bits for.
const RING_IDS: u64 = 2048;
/// Ids in one word.
const WORD_IDS: u64 = 64;
const WORDS: usize = (RING_IDS / WORD_IDS) as usize;

/// The ids received under one key.
///
/// Invariant: in the word of `highest` and the `WORDS - 1` words behind it, a bit is set if and only if its id was
/// received; bits of ids above `highest` are zero.
pub(super) struct ReplayWindow {
    highest: u64,
    ring: [u64; WORDS],
}

impl ReplayWindow {
    /// A window that has received nothing.
    pub(super) fn new() -> Self {
        Self { highest: 0, ring: [0; WORDS] }
    }

    /// True for an id that was not received and is not too old to know. Changes nothing: ask before the packet is
    /// authentic, [`Self::commit`] after.
    #[inline]
    pub(super) fn is_fresh(&self, id: NonZeroU64) -> bool {
        let id = id.get();
        if id > self.highest {
            return true;
        }
        self.highest - id < WINDOW && self.ring[word(id)] & bit(id) == 0
    }

    /// Notes that a fresh id was received in an authentic packet.
    #[inline]
    pub(super) fn commit(&mut self, id: NonZeroU64) {
        debug_assert!(self.is_fresh(id), "an id is committed once");
        let id = id.get();
        self.advance(id);
        self.ring[word(id)] |= bit(id);
    }

    /// Makes room for `id`: words between the highest id's and its own now stand for ids not received.
    fn advance(&mut self, id: u64) {
        if id <= self.highest {
            return;
        }
        let (from, to) = (self.highest / WORD_IDS, id / WORD_IDS);
        // A jump over the whole ring clears each word once.
        let from = from.max(to.saturating_sub(RING_IDS / WORD_IDS));
        for at in from + 1..=to {
            self.ring[word(at * WORD_IDS)] = 0;
        }
        self.highest = id;
    }
}

/// Where in the ring an id's bit is.
fn word(id: u64) -> usize {
    (id / WORD_IDS) as usize % WORDS
}

fn bit(id: u64) -> u64 {
    1 << (id % WORD_IDS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn id(value: u64) -> NonZeroU64 {
        NonZeroU64::new(value).unwrap()
    }

    /// Receives `value` if it is fresh, and says whether it was.
    fn receive(window: &mut ReplayWindow, value: u64) -> bool {
        let fresh = window.is_fresh(id(value));
        if fresh {
            window.commit(id(value));
        }
        fresh
    }

    #[test]
    fn each_id_is_fresh_once() {
        let mut window = ReplayWindow::new();
        for value in 1..=3 * RING_IDS {
            assert!(receive(&mut window, value));
            assert!(!receive(&mut window, value));
        }
    }

    #[test]
    fn the_oldest_id_of_the_window_is_told_from_the_one_before() {
        let mut window = ReplayWindow::new();
        assert!(receive(&mut window, 10_000));
        assert!(receive(&mut window, 10_000 - WINDOW + 1));
        assert!(!receive(&mut window, 10_000 - WINDOW));
    }

    #[test]
    fn the_last_id_leaves_the_window_usable() {
        let mut window = ReplayWindow::new();
        assert!(receive(&mut window, u64::MAX));
        assert!(!receive(&mut window, u64::MAX));
        assert!(receive(&mut window, u64::MAX - 1));
        assert!(!receive(&mut window, 1));
    }

    /// What the window must do, by remembering everything.
    #[derive(Default)]
    struct Model {
        received: HashSet<u64>,
        highest: u64,
    }

    impl Model {
        fn receive(&mut self, id: u64) -> bool {
            let too_old = self.highest >= id && self.highest - id >= WINDOW;
            let fresh = !too_old && self.received.insert(id);
            self.highest = self.highest.max(id);
            fresh
        }
    }

    /// Steps from the id before: mostly small disorder, sometimes about a window, sometimes anywhere.
    fn ids() -> impl Strategy<Value = Vec<u64>> {
        let window = i64::try_from(WINDOW).unwrap();
        let step = prop_oneof![
            8 => -40..60_i64,
            2 => -window - 70..window + 70,
            1 => -5 * window..5 * window,
            1 => any::<i32>().prop_map(i64::from),
        ];
        (1..=u64::MAX / 2, prop::collection::vec(step, 1..400)).prop_map(|(start, steps)| {
            let mut at = i64::try_from(start).unwrap();
            let walk = steps.into_iter().map(|step| {
                at = at.saturating_add(step).max(1);
                u64::try_from(at).unwrap()
            });
            walk.collect()
        })
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_one_that_remembers_everything(ids in ids()) {
            let (mut window, mut model) = (ReplayWindow::new(), Model::default());
            for id in ids {
                prop_assert_eq!(receive(&mut window, id), model.receive(id), "id {}", id);
            }
        }
    }
}
