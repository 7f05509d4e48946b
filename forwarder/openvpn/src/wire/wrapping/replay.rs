//! Stamps: which transmission of its sender's a packet is. Source: brief A.5; packet_id.c.
//!
//! A sender counts its transmissions from 1 at one time, which is the wall clock's when it began. A later time begins a
//! new count, so that a sender that starts anew is heard although its ids are used.

use std::time::Instant;

use crate::wire::{Malformed, cursor::Cursor};

/// How many ids below the newest may still come.
const WINDOW: u32 = 64;

/// A transmission's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Counts the sender's transmissions since `time`; never 0.
    pub id: u32,
    /// Seconds since 1970 when the sender began to count.
    pub time: u32,
}

impl Stamp {
    /// Bytes of a stamp in a packet.
    pub const LEN: usize = 8;
    /// The top byte of the ids of a client that can tell its wrapped key again.
    const EARLY: u32 = 0x0f;

    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(Self { id: cursor.u32()?, time: cursor.u32()? })
    }

    pub(super) fn bytes(self) -> [u8; Self::LEN] {
        let Self { id, time } = self;
        (u64::from(id) << 32 | u64::from(time)).to_be_bytes()
    }

    /// True if the sender of this stamp, which stood in a first packet with a wrapped key, takes early negotiation:
    /// it understands TLVs in the answer and can tell its wrapped key once more.
    pub const fn is_early(self) -> bool {
        self.id >> 24 == Self::EARLY
    }
}

/// Gives each transmission a stamp of its own.
#[derive(Clone, Debug)]
pub struct Stamps {
    last: Stamp,
}

impl Stamps {
    /// Counts from 1, at `time`.
    pub const fn since(time: u32) -> Self {
        Self { last: Stamp { id: 0, time } }
    }

    /// As a client with tls-crypt-v2 that can tell its wrapped key again counts.
    pub const fn early(time: u32) -> Self {
        Self { last: Stamp { id: Stamp::EARLY << 24, time } }
    }

    /// The next stamp. Used up ids begin anew at the present time, `now`.
    pub fn next(&mut self, now: u32) -> Stamp {
        self.last = match self.last.id.checked_add(1) {
            Some(id) => Stamp { id, ..self.last },
            None => Stamp { id: 1, time: now.max(self.last.time.saturating_add(1)) },
        };
        self.last
    }
}

/// Which of the peer's stamps have come.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    newest: Option<Stamp>,
    /// Bit i: id `newest.id - i` has come.
    seen: u64,
}

impl ReplayWindow {
    /// True if an authentic packet with this stamp has not come before; from now on it has.
    pub fn accept(&mut self, stamp: Stamp) -> bool {
        let fresh = stamp.id != 0 && self.is_fresh(stamp);
        if fresh {
            self.take(stamp);
        }
        fresh
    }

    fn is_fresh(&self, stamp: Stamp) -> bool {
        let Some(newest) = self.newest else { return true };
        if stamp.time != newest.time {
            return stamp.time > newest.time;
        }
        match newest.id.checked_sub(stamp.id) {
            None => true,
            Some(age) => age < WINDOW && self.seen >> age & 1 == 0,
        }
    }

    fn take(&mut self, stamp: Stamp) {
        let same_count = self.newest.filter(|newest| newest.time == stamp.time);
        let Some(newest) = same_count else {
            (self.newest, self.seen) = (Some(stamp), 1);
            return;
        };
        match stamp.id.checked_sub(newest.id) {
            Some(ahead) => {
                self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
                self.newest = Some(stamp);
            }
            None => self.seen |= 1 << (newest.id - stamp.id),
        }
    }
}

/// The wall clock as far as stamps and the age of keys need it: what it showed at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    start: Instant,
    unix_s: u64,
}

impl WallClock {
    /// At `start` it was `unix_s` seconds after 1970.
    pub(crate) const fn new(start: Instant, unix_s: u64) -> Self {
        Self { start, unix_s }
    }

    /// Seconds since 1970.
    pub(crate) fn unix_s(&self, now: Instant) -> u64 {
        self.unix_s.saturating_add(now.saturating_duration_since(self.start).as_secs())
    }

    /// Seconds since 1970 as stamps have them, whose 32 bits end in 2106.
    pub(crate) fn stamp_time(&self, now: Instant) -> u32 {
        u32::try_from(self.unix_s(now)).unwrap_or(u32::MAX)
    }

    /// Thousandths of the second in which `now` lies.
    pub(crate) fn millis(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.start).subsec_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(time: u32, id: u32) -> Stamp {
        Stamp { id, time }
    }

    #[test]
    fn each_stamp_is_accepted_once_in_any_order_within_the_window() {
        let mut window = ReplayWindow::default();
        for id in [1, 3, 2, 70, 7, 69] {
            assert!(window.accept(stamp(9, id)), "{id}");
            assert!(!window.accept(stamp(9, id)), "{id} again");
        }
        // 70 - 64 = 6 is the newest that is too old.
        assert!(!window.accept(stamp(9, 6)));
        assert!(!window.accept(stamp(9, 0)));
        assert!(window.accept(stamp(9, u32::MAX)));
    }

    #[test]
    fn a_later_time_begins_anew_and_an_earlier_one_is_over() {
        let mut window = ReplayWindow::default();
        assert!(window.accept(stamp(9, 500)));
        assert!(window.accept(stamp(10, 1)));
        assert!(!window.accept(stamp(9, 501)));
        assert!(!window.accept(stamp(10, 1)));
        assert!(window.accept(stamp(10, 2)));
    }

    #[test]
    fn a_sender_whose_ids_are_used_up_begins_anew_at_a_later_time() {
        let mut stamps = Stamps { last: stamp(100, u32::MAX - 1) };
        assert_eq!(stamps.next(100), stamp(100, u32::MAX));
        assert_eq!(stamps.next(100), stamp(101, 1));
        assert_eq!(stamps.next(100), stamp(101, 2));
    }

    #[test]
    fn the_ids_of_early_negotiation_are_told_by_their_top_byte() {
        assert!(Stamps::early(0).next(0).is_early());
        assert!(!Stamps::since(0).next(0).is_early());
    }
}
