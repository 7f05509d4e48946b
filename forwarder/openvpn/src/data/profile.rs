//! What a peer's data packets look like: agreed once a session.

use super::{
    Cipher, Digest, Framing, cbc, epoch, framing,
    packet::{PACKET_ID, TAG, V1_PREFIX, V2_PREFIX},
};

/// What was agreed with a peer about its data packets. Holds for all keys of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// How packets are sealed.
    pub cipher: Cipher,
    /// What authenticates them where the cipher does not; without meaning for others.
    pub digest: Digest,
    /// What stands around the sealed part.
    pub layout: Layout,
    /// What stands between frame and cipher.
    pub framing: Framing,
}

/// The layout of data packets. Source: brief A.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `P_DATA_V1`: no peer id; the sender's address says whose packet it is. 32-bit packet ids.
    V1,
    /// `P_DATA_V2`: a peer id, 32-bit packet ids.
    V2,
    /// `P_DATA_V2` with epochs: a peer id, the key's epoch, 48-bit packet ids, the tag at the end. Only AEADs have
    /// epochs: with another cipher this is [`Layout::V2`].
    Epoch,
}

impl Profile {
    /// `P_DATA_V2` packets under `cipher` with upstream's default digest, frames framed by `framing`.
    pub const fn new(cipher: Cipher, framing: Framing) -> Self {
        Self { cipher, digest: Digest::Sha1, layout: Layout::V2, framing }
    }

    /// Length of the data packet (the UDP payload) in which `plaintext_len` bytes travel, framing included in them.
    pub const fn sealed_len(self, plaintext_len: usize) -> usize {
        if !self.cipher.is_aead() {
            return self.prefix_len() + self.digest.len() + cbc::sealed_len(plaintext_len);
        }
        let packet_id = if matches!(self.layout, Layout::Epoch) { epoch::PACKET_ID } else { PACKET_ID };
        self.prefix_len() + packet_id + TAG + plaintext_len
    }

    /// Most bytes that sealing adds to a frame.
    pub const fn max_overhead(self) -> usize {
        let framing = match self.framing {
            Framing::None => 0,
            Framing::V2 => framing::ESCAPE,
        };
        let sealing = match self.cipher.is_aead() {
            true => self.sealed_len(0),
            false => self.prefix_len() + self.digest.len() + cbc::MAX_OVERHEAD,
        };
        framing + sealing
    }

    /// Bytes ahead of what is sealed or authenticated by the cipher's own means.
    const fn prefix_len(self) -> usize {
        match self.layout {
            Layout::V1 => V1_PREFIX,
            Layout::V2 | Layout::Epoch => V2_PREFIX,
        }
    }
}
