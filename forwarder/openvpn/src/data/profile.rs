//! What a peer's data packets look like: agreed once a session.

use super::{Cipher, Framing};

/// What was agreed with a peer about its data packets. Holds for all keys of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// How packets are sealed.
    pub cipher: Cipher,
    /// What stands around the sealed part.
    pub layout: Layout,
    /// What stands between frame and cipher.
    pub framing: Framing,
}

/// The layout of data packets. Source: brief A.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `P_DATA_V2`: a peer id, 32-bit packet ids.
    V2,
}

impl Profile {
    /// `P_DATA_V2` packets under `cipher`, frames framed by `framing`.
    pub const fn new(cipher: Cipher, framing: Framing) -> Self {
        Self { cipher, layout: Layout::V2, framing }
    }
}
