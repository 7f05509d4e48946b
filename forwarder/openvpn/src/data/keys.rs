//! Keys of a data channel, from 256 bytes of key block (`key2`). Source: brief A.5, A.9.
//!
//! ```text
//! key2:    keys[0] (128)             keys[1] (128)
//!          cipher (64) | hmac (64)   cipher (64) | hmac (64)
//! AES key: the cipher part's first 16 or 32 bytes     implicit IV: the hmac part's first 8 bytes
//! nonce:   packet_id (4) | implicit IV (8)
//! ```

use std::{alloc::Layout, fmt, num::NonZeroU32};

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
};

use super::{Cipher, Profile, Role, packet::Packet};

/// Length of one direction's part of the key block.
const HALF: usize = 128;
/// Length of the cipher part of a half; the hmac part follows.
const CIPHER_PART: usize = 64;
/// Length of the implicit IV, the part of a nonce that the key agreement gives.
const IMPLICIT_IV: usize = 8;

/// The keys of one direction pair, from 256 bytes of key block (`key2`). Zeroized on drop; never printed.
///
/// The key bytes are not kept: they live only inside aws-lc's contexts, which it wipes when it frees them.
pub struct DataKeys {
    /// Key of what the other side sends.
    pub(super) open: DirectionKey,
    /// Key of what we send.
    pub(super) seal: DirectionKey,
}

impl DataKeys {
    /// From the exporter's or the PRF's 256 bytes, which remain the caller's to wipe.
    pub fn new(profile: Profile, role: Role, key2: &[u8; 2 * HALF]) -> Self {
        let (first, second) = key2.split_at(HALF);
        let (open, seal) = match role {
            Role::Server => (first, second),
            Role::Client => (second, first),
        };
        let cipher = profile.cipher;
        Self { open: DirectionKey::new(cipher, open), seal: DirectionKey::new(cipher, seal) }
    }
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKeys(hidden)")
    }
}

/// The key of one direction.
pub(super) struct DirectionKey {
    key: LessSafeKey,
    implicit_iv: [u8; IMPLICIT_IV],
}

impl DirectionKey {
    /// `half` is `HALF` bytes long.
    fn new(cipher: Cipher, half: &[u8]) -> Self {
        let algorithm = cipher.algorithm();
        let (cipher_part, hmac_part) = half.split_at(CIPHER_PART);
        let mut implicit_iv = [0; IMPLICIT_IV];
        implicit_iv.copy_from_slice(&hmac_part[..IMPLICIT_IV]);
        Self { key: aead_key(algorithm, &cipher_part[..algorithm.key_len()]), implicit_iv }
    }

    /// Decrypts `packet` into `plaintext`, which is as long as its ciphertext.
    pub(super) fn open(&self, packet: &Packet<'_>, plaintext: &mut [u8]) -> Result<(), Unspecified> {
        let nonce = self.nonce(packet.packet_id);
        self.key.open_separate_gather(nonce, Aad::from(packet.aad), packet.ciphertext, packet.tag, plaintext)
    }

    /// Encrypts `plaintext` into `ciphertext`, which is as long, and writes `TAG` bytes of tag. The caller never passes
    /// the same `packet_id` twice.
    pub(super) fn seal(
        &self,
        packet_id: NonZeroU32,
        aad: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Unspecified> {
        let (nonce, aad) = (self.nonce(packet_id), Aad::from(aad));
        self.key.seal_out_of_place_scatter(nonce, aad, plaintext, ciphertext, &[], tag)
    }

    /// As [`Self::seal`], with the plaintext where the ciphertext will be.
    pub(super) fn seal_in_place(
        &self,
        packet_id: NonZeroU32,
        aad: &[u8],
        in_out: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), Unspecified> {
        self.key.seal_in_place_scatter(self.nonce(packet_id), Aad::from(aad), in_out, &[], tag)
    }

    fn nonce(&self, packet_id: NonZeroU32) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        let (id, iv) = nonce.split_at_mut(NONCE_LEN - IMPLICIT_IV);
        id.copy_from_slice(&packet_id.get().to_be_bytes());
        iv.copy_from_slice(&self.implicit_iv);
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Cipher {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
        }
    }
}

fn aead_key(algorithm: &'static Algorithm, bytes: &[u8]) -> LessSafeKey {
    match UnboundKey::new(algorithm, bytes) {
        Ok(key) => LessSafeKey::new(key),
        // The length is right by construction, so aws-lc was refused memory: the same end as for Rust's allocations.
        Err(Unspecified) => std::alloc::handle_alloc_error(Layout::new::<UnboundKey>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Framing;

    #[test]
    fn keys_are_never_printed() {
        let keys = DataKeys::new(Profile::new(Cipher::Aes256Gcm, Framing::None), Role::Server, &[0x5a; 256]);
        assert_eq!(format!("{keys:?}"), "DataKeys(hidden)");
    }

    #[test]
    fn nonce_is_packet_id_then_implicit_iv() {
        let mut half = [0; HALF];
        half[64..72].copy_from_slice(b"implicit");
        let key = DirectionKey::new(Cipher::Aes256Gcm, &half);
        let nonce = key.nonce(NonZeroU32::new(0x0102_0304).unwrap());
        assert_eq!(nonce.as_ref(), b"\x01\x02\x03\x04implicit");
    }
}
