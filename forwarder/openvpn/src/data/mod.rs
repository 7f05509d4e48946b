//! The data channel of one peer. (Signatures agreed; bodies to come.)

use crate::ids::{KeyId, PeerId};

/// Bytes ahead of a frame in a data packet: opcode and key id, peer id, packet id, tag. Source: brief A.10.
pub const HEADER: usize = 24;
/// Most bytes that sealing adds to a frame: the header and the 0x50 escape of v2 compression framing.
pub const MAX_OVERHEAD: usize = HEADER + 2;

/// The AEAD of a data channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
}

/// How frames are framed for compression. Source: brief A.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No compression framing.
    None,
    /// `compress lz4-v2` or `stub-v2`: a frame stands as it is unless it begins with 0x50. We never compress;
    /// lz4 blocks from the other side are decompressed.
    V2,
}

/// Which end of the tunnel we are: decides who uses which half of the key block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Server: opens with keys[0], seals with keys[1].
    Server,
    /// Client: the reverse.
    Client,
}

/// The keys of one direction pair, from 256 bytes of key block (`key2`). Zeroized on drop; never printed.
pub struct DataKeys;

impl std::fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKeys(hidden)")
    }
}

impl DataKeys {
    /// From the exporter's or the PRF's 256 bytes.
    pub fn new(_cipher: Cipher, _role: Role, _key2: &[u8; 256]) -> Self {
        todo!()
    }
}

/// What an authentic packet held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// An Ethernet frame (at least 14 bytes): the first `len` bytes of the output.
    Frame {
        /// Its length.
        len: usize,
    },
    /// A keepalive.
    Ping,
    /// The peer leaves (OCC exit).
    Exit,
    /// Another OCC message: nothing to do.
    Occ,
}

/// Why a packet was not opened; each maps to one drop reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than any data packet, or not DATA_V2.
    #[error("the packet is too short or of another kind")]
    Malformed,
    /// No key under this key id.
    #[error("no key is installed under the packet's key_id")]
    KeyUnknown,
    /// Forged, corrupted or of another session.
    #[error("the packet does not authenticate")]
    AuthenticationFailed,
    /// Received before or too old.
    #[error("the packet was received before or is older than the replay window")]
    Replayed,
    /// Authentic, but neither frame nor message.
    #[error("the plaintext is not an Ethernet frame")]
    PlaintextMalformed,
    /// The plaintext does not fit the output.
    #[error("the frame is longer than the segment's largest")]
    TooLong,
}

/// Why a frame was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No key to send with yet.
    #[error("no key is agreed yet")]
    NoKey,
    /// The key's packet ids or its safe amount of data are used up.
    #[error("the key is used up")]
    KeyExhausted,
    /// The packet does not fit the output.
    #[error("the packet does not fit")]
    TooLong,
}

/// Sealing and opening for one peer, owned by one worker. No clock, no allocation per packet.
pub struct DataChannel;

impl DataChannel {
    /// A channel without keys. `max_frame` bounds decompression.
    pub fn new(_peer_id: PeerId, _framing: Framing, _max_frame: usize) -> Self {
        todo!()
    }

    /// Packets under `key_id` can be opened from now on; sending still uses the former key, if there is one.
    pub fn install(&mut self, _key_id: KeyId, _keys: DataKeys) {
        todo!()
    }

    /// Packets are sealed under `key_id` from now on. Unknown ids change nothing.
    pub fn send_with(&mut self, _key_id: KeyId) {
        todo!()
    }

    /// Forgets the key.
    pub fn retire(&mut self, _key_id: KeyId) {
        todo!()
    }

    /// Opens `packet` (a whole UDP payload) into `out`. On error `out` is unspecified, the window unchanged unless
    /// the packet was authentic.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&mut self, _packet: &[u8], _out: &mut [u8]) -> Result<Opened, OpenError> {
        todo!()
    }

    /// Seals `frame` into `out` and returns the packet's length, `frame.len() + HEADER`, 2 more for a frame that
    /// begins with 0x50 under [`Framing::V2`].
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(&mut self, _frame: &[u8], _out: &mut [u8]) -> Result<usize, SealError> {
        todo!()
    }

    /// Seals a keepalive into `out`.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal_ping(&mut self, _out: &mut [u8]) -> Result<usize, SealError> {
        todo!()
    }

    /// True once, when the sending or receiving side of the key in use nears its limit and a rekey must begin.
    #[must_use]
    pub fn take_rekey_request(&mut self) -> bool {
        todo!()
    }
}
