//! Keys of an AEAD with 32-bit packet ids, in packets of either opcode. Source: brief A.5, A.10.
//!
//! ```text
//! half of key2:  cipher (64): the key is its first bytes     hmac (64): the implicit IV is its first 8 bytes
//! nonce:         packet_id (4) | implicit IV (8)
//! ```

use std::num::NonZeroU32;

use aws_lc_rs::{
    aead::{
        AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN,
        Nonce, UnboundKey,
    },
    error::Unspecified,
};

use super::{
    Cipher, OpenError, SealError,
    framing::Plaintext,
    keys::{self, Halves},
    packet::{PACKET_ID, Packet, Prefix, TAG, aad_of},
    replay::ReplayWindow,
    usage::{Allowance, Usage},
};

/// Length of the implicit IV, the part of a nonce that the key agreement gives.
const IMPLICIT_IV: usize = 8;

/// Both directions' keys and what has been done with them. Packets have a prefix of `PREFIX` bytes.
pub(super) struct AeadKeys<const PREFIX: usize> {
    open: DirectionKey,
    window: ReplayWindow,
    pub(super) opened: Usage,
    seal: DirectionKey,
    pub(super) allowance: Allowance,
}

impl<const PREFIX: usize> AeadKeys<PREFIX> {
    pub(super) fn new(cipher: Cipher, halves: Halves<'_>) -> Self {
        Self {
            open: DirectionKey::new(cipher, halves.open),
            window: ReplayWindow::new(),
            opened: Usage::new(cipher),
            seal: DirectionKey::new(cipher, halves.seal),
            allowance: Allowance::new(cipher),
        }
    }

    /// See [`super::DataKeys::open`].
    #[inline]
    pub(super) fn open(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, OpenError> {
        let packet = Packet::<PREFIX>::parse(packet).ok_or(OpenError::Malformed)?;
        let plaintext = out.get_mut(..packet.ciphertext.len()).ok_or(OpenError::TooLong)?;
        if !self.window.is_fresh(packet.packet_id.into()) {
            return Err(OpenError::Replayed);
        }
        if self.open.open(&packet, plaintext).is_err() {
            self.opened.fail();
            return Err(OpenError::AuthenticationFailed);
        }
        self.window.commit(packet.packet_id.into());
        self.opened.add(plaintext.len());
        Ok(plaintext.len())
    }

    /// See [`super::DataKeys::seal`].
    #[inline]
    pub(super) fn seal(
        &mut self,
        prefix: &Prefix,
        plaintext: &Plaintext<'_>,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let len = plaintext.len();
        let (header, rest) = out.split_at_mut_checked(PREFIX + PACKET_ID + TAG).ok_or(SealError::TooLong)?;
        let ciphertext = rest.get_mut(..len).ok_or(SealError::TooLong)?;
        let packet_id = self.allowance.take(len)?;
        let (head, tag) = header.split_at_mut(PREFIX + PACKET_ID);
        head[..PREFIX].copy_from_slice(&prefix[..PREFIX]);
        head[PREFIX..].copy_from_slice(&packet_id.get().to_be_bytes());
        let sealed = self.seal.seal(packet_id, &head[aad_of::<PREFIX>()], plaintext, ciphertext, tag);
        // The one thing an AEAD refuses is a plaintext of 64 GiB and more.
        sealed.map(|()| PREFIX + PACKET_ID + TAG + len).map_err(|_| SealError::TooLong)
    }

    #[inline]
    pub(super) fn is_near_limit(&self) -> bool {
        self.allowance.is_near_limit() || self.opened.is_near_limit()
    }
}

/// The key of one direction.
pub(super) struct DirectionKey {
    key: LessSafeKey,
    implicit_iv: [u8; IMPLICIT_IV],
}

impl DirectionKey {
    /// `half` is a direction's part of the key block.
    pub(super) fn new(cipher: Cipher, half: &[u8; keys::HALF]) -> Self {
        let (cipher_part, hmac_part) = half.split_at(keys::CIPHER_PART);
        let mut implicit_iv = [0; IMPLICIT_IV];
        implicit_iv.copy_from_slice(&hmac_part[..IMPLICIT_IV]);
        Self { key: aead_key(cipher, cipher_part), implicit_iv }
    }

    /// Decrypts `packet` into `plaintext`, which is as long as its ciphertext.
    #[inline]
    fn open<const PREFIX: usize>(
        &self,
        packet: &Packet<'_, PREFIX>,
        plaintext: &mut [u8],
    ) -> Result<(), Unspecified> {
        let nonce = self.nonce(packet.packet_id);
        self.key.open_separate_gather(nonce, Aad::from(packet.aad), packet.ciphertext, packet.tag, plaintext)
    }

    /// Encrypts `plaintext` into `ciphertext`, which is as long, and writes `TAG` bytes of tag. The
    /// caller never passes the same `packet_id` twice.
    pub(super) fn seal(
        &self,
        packet_id: NonZeroU32,
        aad: &[u8],
        plaintext: &Plaintext<'_>,
        ciphertext: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Unspecified> {
        seal(&self.key, self.nonce(packet_id), aad, plaintext, ciphertext, tag)
    }

    #[inline]
    fn nonce(&self, packet_id: NonZeroU32) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        let (id, iv) = nonce.split_at_mut(NONCE_LEN - IMPLICIT_IV);
        id.copy_from_slice(&packet_id.get().to_be_bytes());
        iv.copy_from_slice(&self.implicit_iv);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Encrypts `plaintext` into `ciphertext`, which is as long. What stands in one piece is not copied.
pub(super) fn seal(
    key: &LessSafeKey,
    nonce: Nonce,
    aad: &[u8],
    plaintext: &Plaintext<'_>,
    ciphertext: &mut [u8],
    tag: &mut [u8],
) -> Result<(), Unspecified> {
    let aad = Aad::from(aad);
    if let Some(whole) = plaintext.whole() {
        return key.seal_out_of_place_scatter(nonce, aad, whole, ciphertext, &[], tag);
    }
    plaintext.write(ciphertext).ok_or(Unspecified)?;
    key.seal_in_place_scatter(nonce, aad, ciphertext, &[], tag)
}

/// The key of an AEAD, from at least as many bytes as it needs.
pub(super) fn aead_key(cipher: Cipher, bytes: &[u8]) -> LessSafeKey {
    let unbound = bytes.get(..cipher.key_len()).ok_or(Unspecified);
    match unbound.and_then(|bytes| UnboundKey::new(algorithm(cipher), bytes)) {
        Ok(key) => LessSafeKey::new(key),
        Err(Unspecified) => keys::no_memory(),
    }
}

/// Those that are no AEAD are [`super::cbc`]'s and never come here.
fn algorithm(cipher: Cipher) -> &'static Algorithm {
    match cipher {
        Cipher::Aes128Gcm | Cipher::Aes128Cbc => &AES_128_GCM,
        Cipher::Aes192Gcm | Cipher::Aes192Cbc => &AES_192_GCM,
        Cipher::Aes256Gcm | Cipher::Aes256Cbc => &AES_256_GCM,
        Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonce_is_packet_id_then_implicit_iv() {
        let mut half = [0; keys::HALF];
        half[64..72].copy_from_slice(b"implicit");
        let key = DirectionKey::new(Cipher::Aes256Gcm, &half);
        let nonce = key.nonce(NonZeroU32::new(0x0102_0304).unwrap());
        assert_eq!(nonce.as_ref(), b"\x01\x02\x03\x04implicit");
    }
}
