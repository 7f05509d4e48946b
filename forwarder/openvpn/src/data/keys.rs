//! Keys of a data channel, from 256 bytes of key block (`key2`), and which kind they are. Source: brief A.5, A.9.
//!
//! ```text
//! key2:    keys[0] (128)             keys[1] (128)
//!          cipher (64) | hmac (64)   cipher (64) | hmac (64)
//! ```

use std::{alloc::Layout as Memory, fmt};

use super::{
    Layout, OpenError, Profile, Role, SealError,
    aead::AeadKeys,
    cbc::CbcKeys,
    epoch::EpochKeys,
    framing::Plaintext,
    packet::{Prefix, V1_PREFIX, V2_PREFIX},
};

/// Length of one direction's part of the key block.
pub(super) const HALF: usize = 128;
/// Length of the cipher part of a half; the hmac part follows.
pub(super) const CIPHER_PART: usize = 64;

/// The keys of both directions, from 256 bytes of key block (`key2`), and what has been done with them. Zeroized on drop;
/// never printed.
///
/// The key bytes are not kept: they live only inside aws-lc's contexts, which it wipes when it frees them. Those that
/// later epochs come from are wiped when they are left behind.
pub struct DataKeys {
    pub(super) kind: Kind,
    /// A rekey has been asked for.
    rekey_requested: bool,
}

/// The directions' halves of a key block.
#[derive(Clone, Copy)]
pub(super) struct Halves<'a> {
    /// Of what the other side sends.
    pub(super) open: &'a [u8; HALF],
    /// Of what we send.
    pub(super) seal: &'a [u8; HALF],
}

/// How packets are sealed and laid out: looked at once a packet.
pub(super) enum Kind {
    V2(AeadKeys<V2_PREFIX>),
    V1(AeadKeys<V1_PREFIX>),
    Epoch(Box<EpochKeys>),
    Cbc(Box<CbcKeys>),
}

impl DataKeys {
    /// From the exporter's or the PRF's 256 bytes, which remain the caller's to wipe.
    pub fn new(profile: Profile, role: Role, key2: &[u8; 2 * HALF]) -> Self {
        let (first, second) = halves(key2);
        let halves = match role {
            Role::Server => Halves { open: first, seal: second },
            Role::Client => Halves { open: second, seal: first },
        };
        let cipher = profile.cipher;
        let kind = match profile.layout {
            _ if !cipher.is_aead() => Kind::Cbc(Box::new(CbcKeys::new(profile, halves))),
            Layout::V2 => Kind::V2(AeadKeys::new(cipher, halves)),
            Layout::V1 => Kind::V1(AeadKeys::new(cipher, halves)),
            Layout::Epoch => Kind::Epoch(Box::new(EpochKeys::new(cipher, halves))),
        };
        Self { kind, rekey_requested: false }
    }

    /// Opens `packet`, which begins with a prefix of these keys' layout, into `out`; the plaintext's length. `out` needs
    /// room for all of the packet behind its header, padding included. On error `out` is unspecified, the replay window
    /// unchanged unless the packet was authentic.
    #[inline]
    pub(super) fn open(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, OpenError> {
        match &mut self.kind {
            Kind::V2(keys) => keys.open(packet, out),
            Kind::V1(keys) => keys.open(packet, out),
            Kind::Epoch(keys) => keys.open(packet, out),
            Kind::Cbc(keys) => keys.open(packet, out),
        }
    }

    /// Seals `plaintext` into `out`, behind `prefix`; the packet's length.
    pub(super) fn seal(
        &mut self,
        prefix: &Prefix,
        plaintext: &Plaintext<'_>,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        match &mut self.kind {
            Kind::V2(keys) => keys.seal(prefix, plaintext, out),
            Kind::V1(keys) => keys.seal(prefix, plaintext, out),
            Kind::Epoch(keys) => keys.seal(prefix, plaintext, out),
            Kind::Cbc(keys) => keys.seal(prefix, plaintext, out),
        }
    }

    /// True once, when a new key must be agreed.
    #[inline]
    pub(super) fn take_rekey_request(&mut self) -> bool {
        let near = match &self.kind {
            Kind::V2(keys) => keys.is_near_limit(),
            Kind::V1(keys) => keys.is_near_limit(),
            Kind::Epoch(keys) => keys.is_near_limit(),
            Kind::Cbc(keys) => keys.is_near_limit(),
        };
        near && !std::mem::replace(&mut self.rekey_requested, near)
    }
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKeys(hidden)")
    }
}

/// The two halves of a key block.
fn halves(key2: &[u8; 2 * HALF]) -> (&[u8; HALF], &[u8; HALF]) {
    let (halves, _) = key2.as_chunks();
    (&halves[0], &halves[1])
}

/// The end where aws-lc refuses a key whose length is right: it was refused memory, which ends Rust's programs as well.
pub(super) fn no_memory() -> ! {
    std::alloc::handle_alloc_error(Memory::new::<DataKeys>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Cipher, Framing};

    #[test]
    fn keys_are_never_printed() {
        let keys = DataKeys::new(Profile::new(Cipher::Aes256Gcm, Framing::None), Role::Server, &[0x5a; 256]);
        assert_eq!(format!("{keys:?}"), "DataKeys(hidden)");
    }
}
