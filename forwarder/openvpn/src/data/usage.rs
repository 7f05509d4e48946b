//! How much a key may be used. Source: brief A.10, "Limits".

use std::num::NonZeroU32;

use super::SealError;

/// Packets plus 16-byte blocks that AES-GCM may process under one key in one direction.
const GCM_LIMIT: u64 = 1 << 36;
/// Where a new key is asked for: 7/8 of the limit. Too low rekeys needlessly often, too high leaves no time for it.
const GCM_NEAR: u64 = GCM_LIMIT / 8 * 7;
/// AES's block in bytes.
const BLOCK: usize = 16;
/// Packet id at which a new key is asked for: 16 Mi ids before the last.
const PACKET_ID_NEAR: u32 = 0xff00_0000;

/// What went through a key in one direction.
#[derive(Default)]
pub(super) struct Usage {
    /// Packets plus blocks begun.
    spent: u64,
}

impl Usage {
    /// Counts a packet with `plaintext_len` bytes.
    pub(super) fn add(&mut self, plaintext_len: usize) {
        self.spent = self.spent.saturating_add(1 + plaintext_len.div_ceil(BLOCK) as u64);
    }

    /// True when a new key should be asked for.
    pub(super) fn is_near_limit(&self) -> bool {
        self.spent >= GCM_NEAR
    }

    /// True when the key is not safe any more.
    fn is_used_up(&self) -> bool {
        self.spent >= GCM_LIMIT
    }
}

/// The packet ids and the amount of data that a key has left to seal with.
pub(super) struct Allowance {
    /// `None`: the last id is used.
    next: Option<NonZeroU32>,
    usage: Usage,
}

impl Allowance {
    /// All of a new key: ids begin at 1.
    pub(super) fn new() -> Self {
        Self { next: Some(NonZeroU32::MIN), usage: Usage::default() }
    }

    /// The packet id to seal `plaintext_len` bytes with: never the same twice.
    pub(super) fn take(&mut self, plaintext_len: usize) -> Result<NonZeroU32, SealError> {
        if self.usage.is_used_up() {
            return Err(SealError::KeyExhausted);
        }
        let id = self.next.ok_or(SealError::KeyExhausted)?;
        self.next = id.checked_add(1);
        self.usage.add(plaintext_len);
        Ok(id)
    }

    /// True when a new key should be asked for.
    pub(super) fn is_near_limit(&self) -> bool {
        self.usage.is_near_limit() || self.next.is_none_or(|next| next.get() > PACKET_ID_NEAR)
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, packet_id: u32) {
        self.next = NonZeroU32::new(packet_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(spent: u64) -> Usage {
        Usage { spent }
    }

    #[test]
    fn a_packet_counts_itself_and_the_blocks_it_begins() {
        for (len, counted) in [(0, 1), (1, 2), (16, 2), (17, 3), (1414, 90)] {
            let mut usage = Usage::default();
            usage.add(len);
            assert_eq!(usage.spent, counted, "{len} bytes");
        }
    }

    #[test]
    fn a_new_key_is_asked_for_at_seven_eighths_of_the_blocks() {
        let limit = 60_129_542_144; // 7/8 of 2^36
        assert!(!spent(limit - 1).is_near_limit());
        assert!(spent(limit).is_near_limit());
    }

    #[test]
    fn a_key_whose_blocks_are_used_up_seals_no_more() {
        let mut allowance = Allowance { next: Some(NonZeroU32::MIN), usage: spent((1 << 36) - 1) };
        assert_eq!(allowance.take(100), Ok(NonZeroU32::MIN));
        assert_eq!(allowance.take(100), Err(SealError::KeyExhausted));
    }

    #[test]
    fn a_new_key_is_asked_for_at_packet_id_ff000000() {
        let mut allowance = Allowance::new();
        allowance.skip_to(0xfeff_ffff);
        assert_eq!(allowance.take(100).map(NonZeroU32::get), Ok(0xfeff_ffff));
        assert!(!allowance.is_near_limit());
        assert_eq!(allowance.take(100).map(NonZeroU32::get), Ok(0xff00_0000));
        assert!(allowance.is_near_limit());
    }

    #[test]
    fn ids_begin_at_one_and_end_for_good_after_the_last() {
        let mut allowance = Allowance::new();
        assert_eq!(allowance.take(100).map(NonZeroU32::get), Ok(1));
        assert_eq!(allowance.take(100).map(NonZeroU32::get), Ok(2));
        allowance.skip_to(u32::MAX);
        assert_eq!(allowance.take(100), Ok(NonZeroU32::MAX));
        for _ in 0..3 {
            assert_eq!(allowance.take(100), Err(SealError::KeyExhausted));
        }
        assert!(allowance.is_near_limit());
    }
}
