//! What a peer's data packets look like: agreed once a session.

use super::{Cipher, Framing, HEADER};

/// What was agreed with a peer about its data packets. Holds for all keys of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// How packets are sealed.
    pub cipher: Cipher,
    /// What stands around the sealed part.
    pub layout: Layout,
    /// What stands between frame and cipher.
    pub framing: Framing,
    /// Frames that get smaller by it are sent compressed. Only by a framing that has LZ4: [`Framing::V2`] and
    /// [`Framing::Swapped`].
    pub compresses: bool,
    /// `fragment`: every plaintext begins with a fragment header, and none has more than so many bytes behind it.
    /// `None`: no such headers.
    pub fragment: Option<u16>,
    /// `mssfix`: the largest TCP segment over IPv4 that a SYN may ask for, in bytes; over IPv6 20 less.
    pub mssfix: Option<u16>,
}

/// The layout of data packets. Source: brief A.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `P_DATA_V2`: a peer id, 32-bit packet ids.
    V2,
}

impl Profile {
    /// `P_DATA_V2` packets under `cipher`, frames framed by `framing`, neither compressed nor cut.
    pub const fn new(cipher: Cipher, framing: Framing) -> Self {
        Self { cipher, layout: Layout::V2, framing, compresses: false, fragment: None, mssfix: None }
    }

    /// The longest plaintext whose packet has at most `packet` bytes.
    pub(crate) fn longest_plaintext(self, packet: usize) -> usize {
        match self.layout {
            Layout::V2 => packet.saturating_sub(HEADER),
        }
    }
}
