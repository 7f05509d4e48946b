//! The construction of tls-crypt: an HMAC-SHA256 of everything is the tag, and its first half the IV of AES-256-CTR.

use std::{alloc::Layout, fmt};

use aws_lc_rs::{
    cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey},
    constant_time::verify_slices_are_equal,
    hmac,
    iv::FixedLength,
};

use super::{Unauthentic, static_key::Half};

/// Bytes of a tag.
pub(super) const TAG: usize = 32;
/// Bytes of AES-256's and of the HMAC's key.
const KEY: usize = 32;
const IV: usize = 16;

/// The keys of one direction. Both live in aws-lc's contexts alone, which wipe them.
pub(super) struct Siv {
    cipher: EncryptingKey,
    mac: hmac::Key,
}

impl Siv {
    pub(super) fn new(half: Half<'_>) -> Self {
        let cipher = half.cipher().get(..KEY).unwrap_or_default();
        let mac = half.hmac().get(..KEY).unwrap_or_default();
        let cipher = UnboundCipherKey::new(&AES_256, cipher).and_then(EncryptingKey::ctr);
        // The length is right by construction, so aws-lc was refused memory: the same end as for Rust's allocations.
        let cipher = cipher.unwrap_or_else(|_| out_of_memory());
        Self { cipher, mac: hmac::Key::new(hmac::HMAC_SHA256, mac) }
    }

    /// The tag of `clear`, which stays readable, and `secret`, which does not.
    pub(super) fn tag(&self, clear: &[u8], secret: &[u8]) -> [u8; TAG] {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(clear);
        context.update(secret);
        let mut tag = [0; TAG];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// Encrypts or decrypts `bytes`, whose tag is `tag`.
    pub(super) fn apply(&self, tag: &[u8; TAG], bytes: &mut [u8]) {
        let mut iv = [0; IV];
        iv.copy_from_slice(tag.split_at(IV).0);
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        // Counter mode takes any length; as above.
        self.cipher.less_safe_encrypt(bytes, context).map(drop).unwrap_or_else(|_| out_of_memory());
    }

    /// Decrypts `bytes` and checks `tag` of them and `clear`. What is not authentic is of no use to anybody.
    pub(super) fn open(&self, tag: &[u8; TAG], clear: &[u8], bytes: &mut [u8]) -> Result<(), Unauthentic> {
        self.apply(tag, bytes);
        verify_slices_are_equal(&self.tag(clear, bytes), tag).map_err(|_| Unauthentic)
    }
}

impl fmt::Debug for Siv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Siv(hidden)")
    }
}

fn out_of_memory() -> ! {
    std::alloc::handle_alloc_error(Layout::new::<Siv>())
}
