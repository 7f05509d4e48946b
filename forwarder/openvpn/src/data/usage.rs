//! How much a key may be used. Source: brief A.10, "Limits".

use std::num::NonZeroU32;

use super::{Cipher, SealError};

/// Packets plus 16-byte blocks that AES-GCM may process under one key in one direction.
const GCM_LIMIT: u64 = 1 << 36;
/// Failed authentications after which a new key is asked for, whatever the cipher: half of what is safe, for packets of
/// up to 16 KiB. Source: 2.7 crypto.h `cipher_decrypt_verify_fail_warn`, after RFC 9147 4.5.3.
const FAILURES_NEAR: u64 = 1 << 35;
/// AES's block in bytes.
const BLOCK: usize = 16;
/// Packet id at which a new key is asked for: 16 Mi ids before the last.
const PACKET_ID_NEAR: u32 = 0xff00_0000;

/// What went through a key in one direction.
pub(super) struct Usage {
    /// Packets plus blocks begun.
    spent: u64,
    /// As many as are safe; never reached where the cipher sets no limit.
    limit: u64,
    /// 7/8 of them: where a new key is asked for. Less would rekey needlessly often, more leave no time for it.
    near: u64,
    /// Packets that did not authenticate.
    failed: u64,
}

impl Usage {
    /// Nothing yet. ChaCha20-Poly1305 is not limited by what it encrypts, CBC by no more than its packet ids.
    pub(super) fn new(cipher: Cipher) -> Self {
        let limit = match cipher {
            Cipher::Aes128Gcm | Cipher::Aes192Gcm | Cipher::Aes256Gcm => GCM_LIMIT,
            Cipher::ChaCha20Poly1305 | Cipher::Aes128Cbc | Cipher::Aes192Cbc | Cipher::Aes256Cbc => u64::MAX,
        };
        Self { spent: 0, limit, near: limit / 8 * 7, failed: 0 }
    }

    /// Counts a packet with `plaintext_len` bytes.
    #[inline]
    pub(super) fn add(&mut self, plaintext_len: usize) {
        self.spent = self.spent.saturating_add(1 + plaintext_len.div_ceil(BLOCK) as u64);
    }

    /// Counts a packet that did not authenticate.
    #[cold]
    pub(super) fn fail(&mut self) {
        self.failed = self.failed.saturating_add(1);
    }

    /// True when a new key should be asked for.
    #[inline]
    pub(super) fn is_near_limit(&self) -> bool {
        self.spent >= self.near || self.is_failing()
    }

    /// True when so much was forged that the key should not be tried much longer.
    #[inline]
    pub(super) fn is_failing(&self) -> bool {
        self.failed > FAILURES_NEAR
    }

    /// True when the key is not safe any more.
    pub(super) fn is_used_up(&self) -> bool {
        self.spent >= self.limit
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
    pub(super) fn new(cipher: Cipher) -> Self {
        Self { next: Some(NonZeroU32::MIN), usage: Usage::new(cipher) }
    }

    /// The packet id to seal `plaintext_len` bytes with: never the same twice.
    #[inline]
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
    #[inline]
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

    const GCM: Cipher = Cipher::Aes256Gcm;

    fn spent(spent: u64) -> Usage {
        Usage { spent, ..Usage::new(GCM) }
    }

    #[test]
    fn a_packet_counts_itself_and_the_blocks_it_begins() {
        for (len, counted) in [(0, 1), (1, 2), (16, 2), (17, 3), (1414, 90)] {
            let mut usage = Usage::new(GCM);
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
    fn ciphers_without_a_limit_of_data_never_reach_one() {
        for cipher in Cipher::ALL {
            let limited = matches!(cipher, Cipher::Aes128Gcm | Cipher::Aes192Gcm | Cipher::Aes256Gcm);
            let usage = Usage { spent: 1 << 40, ..Usage::new(cipher) };
            assert_eq!((usage.is_near_limit(), usage.is_used_up()), (limited, limited), "{cipher:?}");
        }
    }

    #[test]
    fn a_new_key_is_asked_for_when_too_much_was_forged() {
        for cipher in Cipher::ALL {
            let mut usage = Usage { failed: 1 << 35, ..Usage::new(cipher) };
            assert!(!usage.is_near_limit());
            usage.fail();
            assert!(usage.is_near_limit() && !usage.is_used_up());
        }
    }

    #[test]
    fn a_key_whose_blocks_are_used_up_seals_no_more() {
        let mut allowance = Allowance { next: Some(NonZeroU32::MIN), usage: spent((1 << 36) - 1) };
        assert_eq!(allowance.take(100), Ok(NonZeroU32::MIN));
        assert_eq!(allowance.take(100), Err(SealError::KeyExhausted));
    }

    #[test]
    fn a_new_key_is_asked_for_at_packet_id_ff000000() {
        let mut allowance = Allowance::new(GCM);
        allowance.skip_to(0xfeff_ffff);
        assert_eq!(allowance.take(100).map(NonZeroU32::get), Ok(0xfeff_ffff));
        assert!(!allowance.is_near_limit());
        assert_eq!(allowance.take(100).map(NonZeroU32::get), Ok(0xff00_0000));
        assert!(allowance.is_near_limit());
    }

    #[test]
    fn ids_begin_at_one_and_end_for_good_after_the_last() {
        let mut allowance = Allowance::new(GCM);
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
