//! The ciphers of a data channel, and their names in configurations and messages.

/// The cipher of a data channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
}

impl Cipher {
    /// Every cipher there is, in the order of preference.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::Aes128Gcm];

    /// The cipher of that name, in any case; `None` for ciphers we do not have.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cipher| cipher.name().eq_ignore_ascii_case(name))
    }

    /// The name that goes into `cipher`, `data-ciphers` and `IV_CIPHERS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
        }
    }
}
