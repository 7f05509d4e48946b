//! Whether numbered frames come in order, and each once.

/// How many of the latest frames are remembered one by one. Fewer than a data channel's replay window, which no copy
/// passes anyway.
const REMEMBERED: u32 = 64;

/// One way of frames, from one session to another.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    /// One more than the highest sequence number; `None` before the first frame.
    next: Option<u32>,
    /// Bit n: the frame `next - 1 - n` has come.
    seen: u64,
}

/// How a frame came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// After all others.
    InOrder,
    /// After one that was sent later (RFC 4737, type-P-reordered).
    Late,
    /// Again.
    Again,
}

impl Order {
    /// Enters a frame.
    pub fn enter(&mut self, sequence: u32) -> Came {
        let next = *self.next.get_or_insert(sequence);
        let ahead = sequence.wrapping_sub(next);
        // Half of all numbers are ahead, half behind: they begin again after the last.
        if ahead < 1 << 31 {
            self.seen = self.seen.checked_shl(ahead.saturating_add(1)).unwrap_or(0) | 1;
            self.next = Some(sequence.wrapping_add(1));
            return Came::InOrder;
        }
        let behind = next.wrapping_sub(sequence).wrapping_sub(1);
        if behind >= REMEMBERED {
            return Came::Late;
        }
        let bit = 1 << behind;
        if self.seen & bit != 0 {
            return Came::Again;
        }
        self.seen |= bit;
        Came::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(sequences: &[u32]) -> Vec<Came> {
        let mut order = Order::default();
        sequences.iter().map(|&sequence| order.enter(sequence)).collect()
    }

    #[test]
    fn frames_in_order_are_in_order_whatever_is_missing() {
        assert_eq!(all(&[0, 1, 2, 5, 70, 1000]), [Came::InOrder; 6]);
        assert_eq!(all(&[3, 4, 500]), [Came::InOrder; 3]);
    }

    #[test]
    fn late_frames_are_late_and_second_copies_are_again() {
        assert_eq!(
            all(&[0, 2, 1, 1, 2, 0]),
            [Came::InOrder, Came::InOrder, Came::Late, Came::Again, Came::Again, Came::Again]
        );
        assert_eq!(all(&[0, 100, 1]), [Came::InOrder, Came::InOrder, Came::Late]);
    }

    #[test]
    fn numbers_begin_again() {
        assert_eq!(
            all(&[u32::MAX - 1, u32::MAX, 0, u32::MAX, 1]),
            [Came::InOrder, Came::InOrder, Came::InOrder, Came::Again, Came::InOrder]
        );
    }
}
