//! What was sent, and what came back of it.

use std::time::Instant;

use hdrhistogram::Histogram;

use super::{
    cargo::{Audience, Cargo, Macs},
    order::{Came, Order},
    stamp::{Stamp, Tag},
};

/// Most pairs of sessions whose order is followed: 16 bytes each. With more than 2048 sessions and frames to all it is
/// not.
const PAIRS: usize = 1 << 22;
/// Longest delay told apart, in nanoseconds: a minute.
const LONGEST_NS: u64 = 60_000_000_000;

/// One session's frames, and what the others received of them.
#[derive(Debug)]
pub(super) struct Sender {
    /// Frames the kernel took.
    pub sent: u64,
    /// Frames the kernel did not take.
    pub unsent: u64,
    /// Frames that should arrive, copies counted; `None` where nobody knows.
    pub expected: Option<u64>,
    /// Frames that arrived, copies to several counted, second copies to one not.
    pub received: u64,
    /// Of these, after one that was sent later.
    pub reordered: u64,
    /// Second copies to one session.
    pub duplicates: u64,
    /// From sealing to opening, in nanoseconds.
    pub delay_ns: Option<Histogram<u64>>,
}

impl Sender {
    fn new(known: bool) -> Self {
        Self {
            sent: 0,
            unsent: 0,
            expected: known.then_some(0),
            received: 0,
            reordered: 0,
            duplicates: 0,
            delay_ns: histogram(),
        }
    }

    /// Frames that did not arrive; `None` where nobody knows.
    pub fn lost(&self) -> Option<u64> {
        self.expected.map(|expected| expected.saturating_sub(self.received))
    }
}

/// Delays from a nanosecond to a minute, within one per cent. (`None` never comes: the bounds are within the library's
/// limits.)
pub(super) fn histogram() -> Option<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST_NS, 2).ok()
}

/// All sessions' frames.
#[derive(Debug)]
pub(super) struct Tally {
    began: Instant,
    tag: Tag,
    macs: Macs,
    stamped: bool,
    audience: Audience,
    /// By session number.
    senders: Vec<Sender>,
    /// By sender, and by receiver where a frame has several; empty when there are too many.
    orders: Vec<Order>,
    /// Sessions that receive what is sent to all.
    others: u64,
}

impl Tally {
    /// For `sessions` sessions, of which `live` are up.
    pub fn new(cargo: &Cargo, sessions: usize, live: usize, began: Instant) -> Self {
        let audience = cargo.audience();
        let pairs = if audience == Audience::One { sessions } else { sessions.saturating_mul(sessions) };
        let orders = if cargo.is_stamped() && pairs <= PAIRS { pairs } else { 0 };
        Self {
            began,
            tag: cargo.tag(),
            macs: cargo.macs(),
            stamped: cargo.is_stamped(),
            audience,
            senders: (0..sessions).map(|_| Sender::new(audience != Audience::Unknown)).collect(),
            orders: vec![Order::default(); orders],
            others: (live as u64).saturating_sub(1),
        }
    }

    /// By session number.
    pub fn senders(&self) -> &[Sender] {
        &self.senders
    }

    /// Whether order was followed.
    pub fn follows_order(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Whether delay was measured.
    pub fn is_stamped(&self) -> bool {
        self.stamped
    }

    /// Nanoseconds since the run began.
    pub fn elapsed_ns(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    /// `sent` frames of session `number` left, `unsent` did not.
    pub fn sent(&mut self, number: usize, sent: u64, unsent: u64) {
        let copies = if self.audience == Audience::Others { self.others } else { 1 };
        if let Some(sender) = self.senders.get_mut(number) {
            sender.sent += sent;
            sender.unsent += unsent;
            sender.expected = sender.expected.map(|expected| expected + sent * copies);
        }
    }

    /// A frame arrived at session `receiver`. Those that are not of this run are not counted.
    pub fn received(&mut self, receiver: usize, frame: &[u8], now: Instant) {
        if self.stamped {
            if let Some(stamp) = Stamp::read(self.tag, frame) {
                self.received_stamped(receiver, stamp, now);
            }
            return;
        }
        let source = frame.get(6..12).and_then(|source| source.first_chunk().copied());
        let number = source.and_then(|mac| self.macs.number(mac));
        if let Some(sender) = number.and_then(|number| self.senders.get_mut(number)) {
            sender.received += 1;
        }
    }

    fn received_stamped(&mut self, receiver: usize, stamp: Stamp, now: Instant) {
        let elapsed_ns = self.elapsed_ns(now);
        let number = usize::try_from(stamp.session).unwrap_or(usize::MAX);
        let sessions = self.senders.len();
        let Some(sender) = self.senders.get_mut(number) else { return };
        let pair = if self.audience == Audience::One { number } else { number * sessions + receiver };
        match self.orders.get_mut(pair).map(|order| order.enter(stamp.sequence)) {
            Some(Came::Again) => {
                sender.duplicates += 1;
                return;
            }
            Some(Came::Late) => sender.reordered += 1,
            Some(Came::InOrder) | None => {}
        }
        sender.received += 1;
        if let Some(delay_ns) = &mut sender.delay_ns {
            delay_ns.saturating_record(elapsed_ns.saturating_sub(stamp.sent_ns).max(1));
        }
    }

    /// True when all that should arrive has.
    pub fn is_complete(&self) -> bool {
        self.senders.iter().all(|sender| sender.lost() == Some(0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::cargo::To;

    const MACS: Macs = Macs([2, 0, 0, 1]);

    fn frame(number: usize, sequence: u32, sent_ns: u64) -> Vec<u8> {
        let mut cargo = Cargo::new(vec![0; 60], To::Session, MACS, [1; 8], true).unwrap();
        cargo.dress(number, 1);
        cargo.stamped(Stamp { session: number as u32, sequence, sent_ns }).to_vec()
    }

    fn tally(to: To, stamp: bool) -> Tally {
        let cargo = Cargo::new(vec![0; 60], to, MACS, [1; 8], stamp).unwrap();
        Tally::new(&cargo, 3, 3, Instant::now())
    }

    #[test]
    fn what_did_not_arrive_is_lost_and_late_or_doubled_frames_are_told_apart() {
        let mut tally = tally(To::Session, true);
        tally.sent(0, 4, 1);
        for sequence in [0, 2, 1, 1] {
            let now = tally.began + Duration::from_micros(5);
            tally.received(1, &frame(0, sequence, 1000), now);
        }
        let sender = &tally.senders()[0];
        assert_eq!((sender.sent, sender.unsent, sender.received, sender.lost()), (4, 1, 3, Some(1)));
        assert_eq!((sender.reordered, sender.duplicates), (1, 1));
        assert!((3_900..4_100).contains(&sender.delay_ns.as_ref().unwrap().max()));
        assert!(!tally.is_complete());
    }

    #[test]
    fn frames_to_all_are_expected_at_all_others() {
        let mut tally = tally(To::Broadcast, true);
        tally.sent(1, 2, 0);
        for (receiver, sequence) in [(0, 0), (2, 0), (0, 1), (2, 1)] {
            tally.received(receiver, &frame(1, sequence, 0), tally.began);
        }
        let sender = &tally.senders()[1];
        assert_eq!((sender.expected, sender.received, sender.reordered), (Some(4), 4, 0));
        assert!(tally.is_complete());
    }

    #[test]
    fn nobody_knows_what_is_lost_of_frames_for_others() {
        let mut tally = tally(To::Frame, true);
        tally.sent(0, 5, 0);
        assert_eq!(tally.senders()[0].lost(), None);
    }

    #[test]
    fn frames_without_stamp_are_known_by_their_source() {
        let mut tally = tally(To::Session, false);
        tally.sent(2, 2, 0);
        tally.received(0, &frame(2, 0, 0), tally.began);
        tally.received(0, &[0; 60], tally.began);
        assert_eq!((tally.senders()[2].received, tally.senders()[2].lost()), (1, Some(1)));
        assert!(!tally.follows_order());
    }

    #[test]
    fn frames_of_another_run_are_not_counted() {
        let mut tally = tally(To::Session, true);
        let mut foreign = frame(0, 0, 0);
        foreign[36] ^= 1;
        tally.received(1, &foreign, tally.began);
        assert_eq!(tally.senders()[0].received, 0);
    }
}
