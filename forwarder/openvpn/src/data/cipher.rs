//! The ciphers and digests of a data channel, and their names in configurations and messages.

use aws_lc_rs::hmac;

/// The cipher of a data channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-192-GCM.
    Aes192Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
    /// AES-128-CBC, authenticated by an HMAC.
    Aes128Cbc,
    /// AES-192-CBC, authenticated by an HMAC.
    Aes192Cbc,
    /// AES-256-CBC, authenticated by an HMAC.
    Aes256Cbc,
}

impl Cipher {
    /// Every cipher there is, in the order of preference.
    pub const ALL: [Self; 7] = [
        Self::Aes256Gcm,
        Self::Aes128Gcm,
        Self::ChaCha20Poly1305,
        Self::Aes192Gcm,
        Self::Aes256Cbc,
        Self::Aes192Cbc,
        Self::Aes128Cbc,
    ];

    /// What `data-ciphers` is when nothing is said: upstream's default. Source: brief 0.
    pub const DEFAULT: [Self; 3] = [Self::Aes256Gcm, Self::Aes128Gcm, Self::ChaCha20Poly1305];

    /// The cipher of that name, in any case; `None` for ciphers we do not have.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cipher| cipher.name().eq_ignore_ascii_case(name))
    }

    /// The name that goes into `cipher`, `data-ciphers` and `IV_CIPHERS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes192Gcm => "AES-192-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "CHACHA20-POLY1305",
            Self::Aes128Cbc => "AES-128-CBC",
            Self::Aes192Cbc => "AES-192-CBC",
            Self::Aes256Cbc => "AES-256-CBC",
        }
    }

    /// It authenticates by itself; the others need a [`Digest`].
    pub const fn is_aead(self) -> bool {
        match self {
            Self::Aes128Gcm | Self::Aes192Gcm | Self::Aes256Gcm | Self::ChaCha20Poly1305 => true,
            Self::Aes128Cbc | Self::Aes192Cbc | Self::Aes256Cbc => false,
        }
    }

    /// Length of its key in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes128Cbc => 16,
            Self::Aes192Gcm | Self::Aes192Cbc => 24,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 | Self::Aes256Cbc => 32,
        }
    }
}

/// What authenticates packets whose cipher does not (`auth`): those that `auth` can name and aws-lc has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Digest {
    /// HMAC-SHA1: upstream's default, and safe in an HMAC.
    #[default]
    Sha1,
    /// HMAC-SHA224.
    Sha224,
    /// HMAC-SHA256.
    Sha256,
    /// HMAC-SHA384.
    Sha384,
    /// HMAC-SHA512.
    Sha512,
}

impl Digest {
    /// Every digest there is.
    pub const ALL: [Self; 5] = [Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The digest of that name, in any of the spellings that OpenSSL takes; `None` for those we do not have.
    pub fn from_name(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("RSA-").unwrap_or(&upper);
        let plain = bare.replacen("SHA2-", "SHA", 1).replacen("SHA-", "SHA", 1);
        Self::ALL.into_iter().find(|digest| digest.name() == plain)
    }

    /// The name that goes into `auth` and the OCC string.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// Length of an HMAC, and of its key, in bytes.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The HMAC's key: the beginning of `material`, which is 64 bytes long.
    pub(crate) fn hmac_key(self, material: &[u8]) -> hmac::Key {
        hmac::Key::new(self.algorithm(), material.get(..self.tag_len()).unwrap_or(material))
    }

    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => hmac::HMAC_SHA224,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_whatever_their_case() {
        for cipher in Cipher::ALL {
            assert_eq!(Cipher::from_name(cipher.name()), Some(cipher));
            assert_eq!(Cipher::from_name(&cipher.name().to_ascii_lowercase()), Some(cipher));
        }
        assert_eq!(Cipher::from_name("BF-CBC"), None);
        for digest in Digest::ALL {
            assert_eq!(Digest::from_name(digest.name()), Some(digest));
            assert_eq!(digest.algorithm().tag_len(), digest.tag_len());
        }
        assert_eq!(Digest::from_name("sha2-256"), Some(Digest::Sha256));
        assert_eq!(Digest::from_name("RSA-SHA1"), Some(Digest::Sha1));
        assert_eq!(Digest::from_name("SHA-1"), Some(Digest::Sha1));
        assert_eq!(Digest::from_name("none"), None);
    }
}
