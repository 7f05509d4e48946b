//! The small numbers the protocol names things by.

use std::fmt;

/// A session's number in data packets, 24 bits; `ffffff` means none. Source: brief A.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(u32);

impl PeerId {
    /// The value that stands for "no peer id".
    pub const NONE: u32 = 0x00ff_ffff;

    /// `None` when `value` does not fit 24 bits or is the reserved [`Self::NONE`].
    pub const fn new(value: u32) -> Option<Self> {
        if value < Self::NONE { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The number as an index of a table by peer.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which of a session's keys a packet belongs to: 0 for the first, then 1..=7, then 1 again. Source: brief A.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(u8);

impl KeyId {
    /// The key of the first negotiation.
    pub const FIRST: Self = Self(0);

    /// The key id in the low three bits of a packet's first byte.
    pub const fn from_first_byte(byte: u8) -> Self {
        Self(byte & 0x07)
    }

    /// The key id of the next negotiation.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(if self.0 == 7 { 1 } else { self.0 + 1 })
    }

    /// 0..=7.
    pub const fn value(self) -> u8 {
        self.0
    }
}
