//! Secret randomness from one seed: HMAC-SHA256 of a counter. No clock, no operating system, so tests repeat exactly.

use aws_lc_rs::hmac;

use crate::wire::SessionId;

/// A stream of secret random bytes.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    key: hmac::Key,
    counter: u64,
}

impl Random {
    /// All that comes out follows from `seed`, which must be secret and used once.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &seed), counter: 0 }
    }

    /// The next 32 bytes.
    pub(crate) fn block(&mut self) -> [u8; 32] {
        self.counter += 1;
        let tag = hmac::sign(&self.key, &self.counter.to_be_bytes());
        let mut block = [0; 32];
        block.copy_from_slice(tag.as_ref());
        block
    }

    /// An independent stream.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.block())
    }

    /// A number in `0..below`; 0 when `below` is 0. The bias is below 2^-32 for what it is used for.
    pub(crate) fn below(&mut self, below: u32) -> u32 {
        let [a, b, c, d, e, f, g, h, ..] = self.block();
        let wide = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        u32::try_from(wide.checked_rem(u64::from(below)).unwrap_or(0)).unwrap_or(0)
    }

    /// A session id.
    pub(crate) fn session_id(&mut self) -> SessionId {
        loop {
            let [a, b, c, d, e, f, g, h, ..] = self.block();
            if let Some(id) = SessionId::new([a, b, c, d, e, f, g, h]) {
                return id;
            }
        }
    }
}
