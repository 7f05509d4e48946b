//! Packets in CBC mode, authenticated by an HMAC: only for peers that have no AEAD. Source: brief A.10, 2.7 crypto.c
//! `openvpn_encrypt_v1`.
//!
//! ```text
//!  prefix │ HMAC (20..64) │ IV (16) │ CBC( packet_id (4) │ plaintext │ padding (1..16) )
//!                           └────────────── covered by the HMAC ─────────────────────┘
//! ```
//! The prefix is not authenticated, the peer id in it included: the HMAC's key says whose packet it is.
//!
//! ```text
//! half of key2:  cipher (64): the cipher's key is its first bytes     hmac (64): the HMAC's key likewise, as long as an HMAC
//! ```
//!
//! An IV must be unforeseeable and need not be random: it is an HMAC of the packet id under a key of its own, which nothing
//! else uses, so no generator of random numbers is needed here.

use std::num::NonZeroU32;

use aws_lc_rs::{
    cipher::{
        AES_128, AES_192, AES_256, Algorithm, DecryptingKey, DecryptionContext, EncryptingKey,
        EncryptionContext, UnboundCipherKey,
    },
    error::Unspecified,
    hmac,
    iv::FixedLength,
};

use super::{
    Cipher, Layout, OpenError, Profile, SealError,
    framing::Plaintext,
    keys::{self, Halves},
    packet::{PACKET_ID, Prefix, V1_PREFIX, V2_PREFIX},
    replay::ReplayWindow,
    usage::{Allowance, Usage},
};

/// AES's block in bytes; an IV is as long.
pub(super) const BLOCK: usize = 16;
/// Most bytes that packet id and padding add to a plaintext.
pub(super) const MOST_PADDED: usize = PACKET_ID + BLOCK;

/// What the key of the IVs is derived for.
const IV_LABEL: &[u8] = b"trestle cbc iv";

/// Length of the ciphertext of a plaintext: with packet id and at least one byte of padding, whole blocks.
pub(super) const fn padded_len(plaintext_len: usize) -> usize {
    ((PACKET_ID + plaintext_len) / BLOCK + 1) * BLOCK
}

/// The longest plaintext whose ciphertext has at most `room` bytes.
pub(super) const fn longest_plaintext(room: usize) -> usize {
    (room / BLOCK * BLOCK).saturating_sub(PACKET_ID + 1)
}

/// Both directions' keys and what has been done with them.
pub(super) struct CbcKeys {
    prefix_len: usize,
    open: OpeningKey,
    window: ReplayWindow,
    opened: Usage,
    seal: SealingKey,
    pub(super) allowance: Allowance,
}

struct OpeningKey {
    key: DecryptingKey,
    hmac: hmac::Key,
}

struct SealingKey {
    key: EncryptingKey,
    hmac: hmac::Key,
    iv: hmac::Key,
}

impl CbcKeys {
    pub(super) fn new(profile: Profile, halves: Halves<'_>) -> Self {
        let Profile { cipher, digest, .. } = profile;
        let hmac_key = |half: &[u8; keys::HALF]| digest.hmac_key(&half[keys::CIPHER_PART..]);
        Self {
            prefix_len: if profile.layout == Layout::V1 { V1_PREFIX } else { V2_PREFIX },
            open: OpeningKey {
                key: made(unbound(cipher, halves.open).and_then(DecryptingKey::cbc)),
                hmac: hmac_key(halves.open),
            },
            window: ReplayWindow::new(),
            opened: Usage::new(cipher),
            seal: SealingKey {
                key: made(unbound(cipher, halves.seal).and_then(EncryptingKey::cbc)),
                hmac: hmac_key(halves.seal),
                iv: iv_key(halves.seal),
            },
            allowance: Allowance::new(cipher),
        }
    }

    /// See [`super::DataKeys::open`]. The HMAC is checked, in constant time, before anything is decrypted.
    pub(super) fn open(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, OpenError> {
        let tag_len = self.open.hmac.algorithm().tag_len();
        let (tag, body) = packet
            .get(self.prefix_len..)
            .and_then(|rest| rest.split_at_checked(tag_len))
            .ok_or(OpenError::Malformed)?;
        let (iv, ciphertext) = body.split_first_chunk::<BLOCK>().ok_or(OpenError::Malformed)?;
        if ciphertext.is_empty() || ciphertext.len() % BLOCK != 0 {
            return Err(OpenError::Malformed);
        }
        let text = out.get_mut(..ciphertext.len()).ok_or(OpenError::TooLong)?;
        if hmac::verify(&self.open.hmac, body, tag).is_err() {
            self.opened.fail();
            return Err(OpenError::AuthenticationFailed);
        }
        text.copy_from_slice(ciphertext);
        let context = DecryptionContext::Iv128(FixedLength::from(*iv));
        // Refused are other lengths than whole blocks alone, which were seen to.
        self.open.key.decrypt(text, context).map_err(|_| OpenError::Malformed)?;
        self.take_out(text)
    }

    /// Takes packet id and padding off what was decrypted, and moves the plaintext to the front; its length.
    fn take_out(&mut self, text: &mut [u8]) -> Result<usize, OpenError> {
        let padded = text.len();
        let end = unpadded(text).ok_or(OpenError::PlaintextMalformed)?;
        let (id, _) = text[..end].split_first_chunk().ok_or(OpenError::PlaintextMalformed)?;
        let id = NonZeroU32::new(u32::from_be_bytes(*id)).ok_or(OpenError::Malformed)?;
        if !self.window.is_fresh(id.into()) {
            return Err(OpenError::Replayed);
        }
        self.window.commit(id.into());
        self.opened.add(padded);
        text.copy_within(PACKET_ID..end, 0);
        Ok(end - PACKET_ID)
    }

    /// See [`super::DataKeys::seal`].
    pub(super) fn seal(
        &mut self,
        prefix: &Prefix,
        plaintext: &Plaintext<'_>,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let plaintext_len = plaintext.len();
        let tag_len = self.seal.hmac.algorithm().tag_len();
        let head_len = self.prefix_len + tag_len;
        let len = head_len + BLOCK + padded_len(plaintext_len);
        let (head, body) = out
            .get_mut(..len)
            .and_then(|out| out.split_at_mut_checked(head_len))
            .ok_or(SealError::TooLong)?;
        let id = self.allowance.take(plaintext_len)?;
        self.seal.encrypt(id, plaintext, body)?;
        head[..self.prefix_len].copy_from_slice(&prefix[..self.prefix_len]);
        head[self.prefix_len..].copy_from_slice(hmac::sign(&self.seal.hmac, body).as_ref());
        Ok(len)
    }

    pub(super) fn is_near_limit(&self) -> bool {
        self.allowance.is_near_limit() || self.opened.is_near_limit()
    }
}

impl SealingKey {
    /// Fills `body` with IV and ciphertext; it has the length they need.
    fn encrypt(&self, id: NonZeroU32, plaintext: &Plaintext<'_>, body: &mut [u8]) -> Result<(), SealError> {
        let id = id.get().to_be_bytes();
        let (iv, text) = body.split_first_chunk_mut::<BLOCK>().ok_or(SealError::TooLong)?;
        iv.copy_from_slice(&hmac::sign(&self.iv, &id).as_ref()[..BLOCK]);
        let (head, rest) = text.split_first_chunk_mut::<PACKET_ID>().ok_or(SealError::TooLong)?;
        *head = id;
        plaintext.write(rest).ok_or(SealError::TooLong)?;
        let padding = &mut rest[plaintext.len()..];
        // 1..=BLOCK bytes, and each says how many.
        padding.fill(u8::try_from(padding.len()).unwrap_or(0));
        let context = EncryptionContext::Iv128(FixedLength::from(*iv));
        self.key.less_safe_encrypt(text, context).map(drop).map_err(|_| SealError::TooLong)
    }
}

/// Where the padding of a decrypted text begins; `None` if it is none. What is looked at here is authentic.
fn unpadded(text: &[u8]) -> Option<usize> {
    let &padding = text.last()?;
    let len = usize::from(padding);
    let end = text.len().checked_sub(len)?;
    let is_padding = (1..=BLOCK).contains(&len) && text[end..].iter().all(|&byte| byte == padding);
    is_padding.then_some(end)
}

fn unbound(cipher: Cipher, half: &[u8; keys::HALF]) -> Result<UnboundCipherKey, Unspecified> {
    UnboundCipherKey::new(algorithm(cipher), &half[..cipher.key_len()])
}

/// A key nothing else depends on: from the cipher part, whose unused bytes are as secret as the others.
fn iv_key(half: &[u8; keys::HALF]) -> hmac::Key {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &half[..keys::CIPHER_PART]);
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, IV_LABEL).as_ref())
}

/// AEADs are [`super::aead`]'s and never come here.
fn algorithm(cipher: Cipher) -> &'static Algorithm {
    match cipher {
        Cipher::Aes128Cbc | Cipher::Aes128Gcm => &AES_128,
        Cipher::Aes192Cbc | Cipher::Aes192Gcm => &AES_192,
        Cipher::Aes256Cbc | Cipher::Aes256Gcm | Cipher::ChaCha20Poly1305 => &AES_256,
    }
}

fn made<T>(key: Result<T, Unspecified>) -> T {
    key.unwrap_or_else(|Unspecified| keys::no_memory())
}

#[cfg(test)]
#[path = "cbc_tests.rs"]
mod tests;
