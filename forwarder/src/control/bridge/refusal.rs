//! What is done about a port that XDP is not attached to: it is tried again, later.

use std::time::{Duration, Instant};

/// What was refused is tried again after this long: the MTU may have been lowered, another owner be gone.
const AGAIN: Duration = Duration::from_secs(5);
/// Where each try takes XDP on and off the NIC, the wait doubles up to this: many drivers lose their link by it.
const AGAIN_AT_LAST: Duration = Duration::from_secs(3600);

/// Why XDP is not on a port.
pub(super) struct Refusal {
    pub sentence: String,
    /// It was there, for a moment.
    touched: bool,
}

impl Refusal {
    /// Nothing was touched.
    pub fn untouched(sentence: impl ToString) -> Self {
        Self { sentence: sentence.to_string(), touched: false }
    }

    /// XDP was attached, and detached again.
    pub fn touched(sentence: impl ToString) -> Self {
        Self { sentence: sentence.to_string(), touched: true }
    }
}

/// A refusal, and when it is put to the test.
pub(super) struct Refused {
    pub sentence: String,
    pub again: Instant,
    wait: Duration,
}

impl Refused {
    /// What to do about a refusal, `before` being the one before.
    pub fn after(before: Option<&Self>, refusal: Refusal, now: Instant) -> Self {
        let before = before.filter(|_| refusal.touched);
        let wait = before.map_or(AGAIN, |before| (before.wait * 2).min(AGAIN_AT_LAST));
        Self { sentence: refusal.sentence, again: now + wait, wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nic_that_each_try_disturbs_is_tried_ever_less_often_and_another_every_few_seconds() {
        let now = Instant::now();
        let waits = |refusal: fn() -> Refusal| {
            let tries = std::iter::successors(Some(Refused::after(None, refusal(), now)), |before| {
                Some(Refused::after(Some(before), refusal(), now))
            });
            tries.take(12).map(|refused| (refused.again - now).as_secs()).collect::<Vec<_>>()
        };
        let disturbed = waits(|| Refusal::touched("it joins segments"));
        assert_eq!(disturbed, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        assert_eq!(waits(|| Refusal::untouched("the MTU is too high")), [5; 12]);
    }
}
