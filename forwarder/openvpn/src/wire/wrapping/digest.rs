//! The digests of tls-auth: those that `auth` can name and aws-lc has.

use aws_lc_rs::hmac;

/// A digest to authenticate with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Digest {
    /// Upstream's default, and safe in an HMAC.
    #[default]
    Sha1,
    /// SHA-2 with 224 bits.
    Sha224,
    /// SHA-2 with 256 bits.
    Sha256,
    /// SHA-2 with 384 bits.
    Sha384,
    /// SHA-2 with 512 bits.
    Sha512,
}

impl Digest {
    /// All of them, by length.
    pub const ALL: [Self; 5] = [Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// OpenVPN's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// The digest of that name, in any of the spellings that OpenSSL takes.
    pub fn from_name(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("RSA-").unwrap_or(&upper);
        match bare {
            "SHA1" | "SHA-1" | "SSL3-SHA1" => Some(Self::Sha1),
            "SHA224" | "SHA-224" | "SHA2-224" => Some(Self::Sha224),
            "SHA256" | "SHA-256" | "SHA2-256" => Some(Self::Sha256),
            "SHA384" | "SHA-384" | "SHA2-384" => Some(Self::Sha384),
            "SHA512" | "SHA-512" | "SHA2-512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Bytes of an HMAC with it, which is also the length of the key.
    pub fn tag_len(self) -> usize {
        self.algorithm().digest_algorithm().output_len()
    }

    /// The HMAC's key: the beginning of `material`, which is 64 bytes long.
    pub(super) fn hmac_key(self, material: &[u8]) -> hmac::Key {
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
    fn every_digest_is_found_by_its_name() {
        for digest in Digest::ALL {
            assert_eq!(Digest::from_name(digest.name()), Some(digest));
            assert_eq!(Digest::from_name(&digest.name().to_lowercase()), Some(digest));
        }
        assert_eq!(Digest::from_name("RSA-SHA512"), Some(Digest::Sha512));
        for other in ["", "MD5", "none", "SHA", "BLAKE2b512"] {
            assert_eq!(Digest::from_name(other), None, "{other}");
        }
        assert_eq!(Digest::ALL.map(Digest::tag_len), [20, 28, 32, 48, 64]);
    }
}
