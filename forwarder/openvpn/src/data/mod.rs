//! The data channel of one peer: keys, packets, replay window, framing, limits.
//!
//! ```text
//!  open:  packet ─► key by id ─► split ─► replay? ─► AEAD ─► replay! ─► unframe ─► frame, ping, exit
//!         (channel)   (keys)    (aead, or epoch, or cbc: one match a packet)  (framing)   (message)
//!  seal:  frame ─► escape ─► packet id, limits ─► AEAD ─► packet
//!        (framing)           (usage)        (aead, epoch, cbc)
//! ```
//!
//! One worker owns a [`DataChannel`]: packet ids are never used twice because nobody else seals. Nothing here allocates
//! for a packet, reads a clock or believes a byte before it is authentic.

mod aead;
mod cbc;
mod channel;
mod cipher;
mod epoch;
mod fragment;
mod framing;
mod keys;
mod message;
mod packet;
mod profile;
mod replay;
mod shaper;
mod usage;

pub use channel::DataChannel;
pub use cipher::{Cipher, Digest};
pub use framing::Framing;
pub use keys::DataKeys;
pub use message::{OCC_EXIT, OCC_MAGIC, PING};
pub use packet::{HEADER, names_no_peer, peer_id_of};
pub use profile::{Layout, Profile};
pub use replay::WINDOW as REPLAY_WINDOW;

/// Most bytes that sealing adds to a frame under any profile: what a packet's memory has room for.
pub const MAX_OVERHEAD: usize = profile::LONGEST.max_overhead();
/// Bytes that `fragment` adds to every packet. Source: brief A.13.
pub const FRAGMENT_HEADER: usize = 4;
/// Shortest Ethernet frame in bytes: its header alone. Source: brief B, "Frames".
pub const MIN_FRAME: usize = 14;

/// Which end of the tunnel we are: decides who uses which half of the key block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Server: opens with keys[0], seals with keys[1].
    Server,
    /// Client: the reverse.
    Client,
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
    /// Part of a frame, by `fragment`: the rest has not come yet.
    Fragment,
}

/// Why a packet was not opened; each maps to one drop reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than any data packet, or not of the peer's layout.
    #[error("the packet is too short or of another kind")]
    Malformed,
    /// No key under this key id, or none of its epoch.
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
