//! What protects control packets before TLS does. Source: brief A.5.
//!
//! ```text
//!  tls-auth:   Head (9) | HMAC (20..=64) | replay id (4) | time (4) | Body
//!  tls-crypt:  Head (9) | replay id (4) | time (4) | tag (32) | encrypted Body
//!  tls-crypt-v2, where the client's key is told:              ... | wrapped client key
//! ```
//! A [`Wrapping`] has no state: it wraps and unwraps. Whether a stamp is fresh is its receiver's question
//! ([`ReplayWindow`]), to give a fresh one its sender's ([`Stamps`]).

use std::{borrow::Cow, fmt, sync::Arc};

use super::{Malformed, control::HEAD_LEN};
use crate::{data::Role, wire::ControlPacket, wire::Head};

mod client_key;
mod key_file;
mod replay;
mod siv;
mod static_key;
mod tls_auth;
mod tls_crypt;

pub use crate::data::Digest;
pub use client_key::{ClientKey, Metadata, ServerKey, Unwrapped, split_wrapped_key};
pub use key_file::KeyFileError;
pub(crate) use replay::WallClock;
pub use replay::{ReplayWindow, Stamp, Stamps};
pub use static_key::StaticKey;
pub use tls_auth::{Direction, TlsAuth};
pub use tls_crypt::TlsCrypt;

/// How control packets are wrapped.
#[derive(Clone, Default)]
pub enum Wrapping {
    /// Not at all.
    #[default]
    None,
    /// Authenticated.
    Auth(Arc<TlsAuth>),
    /// Authenticated and encrypted.
    Crypt(Arc<TlsCrypt>),
}

/// The packet is not of somebody who has the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet is not wrapped with the key")]
pub struct Unauthentic;

/// A packet unwrapped.
#[derive(Debug)]
pub struct Unwrap<'a> {
    /// Which transmission of its sender's it is; `None` without wrapping.
    pub stamp: Option<Stamp>,
    /// What [`super::Body`] is parsed from.
    pub body: Cow<'a, [u8]>,
}

impl Wrapping {
    /// `tls-auth`.
    pub fn auth(key: StaticKey, digest: Digest, direction: Option<Direction>) -> Self {
        Self::Auth(Arc::new(TlsAuth::new(key, digest, direction)))
    }

    /// `tls-crypt`, and what tls-crypt-v2 comes to once the client's key is known.
    pub fn crypt(key: StaticKey, role: Role) -> Self {
        Self::Crypt(Arc::new(TlsCrypt::new(key, role)))
    }

    /// True where packets are not wrapped.
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// By how many bytes a wrapped packet is longer.
    pub fn overhead(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Auth(keys) => Stamp::LEN + keys.tag_len(),
            Self::Crypt(_) => Stamp::LEN + TlsCrypt::TAG,
        }
    }

    /// The datagram of `packet`. No stamp may be used twice with one key.
    pub fn wrap(&self, stamp: Stamp, packet: &ControlPacket<'_>) -> Vec<u8> {
        match self {
            Self::None => packet.emit(),
            Self::Auth(keys) => keys.wrap(stamp, packet),
            Self::Crypt(keys) => keys.wrap(stamp, packet),
        }
    }

    /// Takes the wrapping off `rest`, which followed `head` in a datagram.
    ///
    /// # Errors
    /// Too short, or not wrapped with the key.
    pub fn unwrap<'a>(&self, head: &Head, rest: &'a [u8]) -> Result<Unwrap<'a>, Unauthentic> {
        match self {
            Self::None => Ok(Unwrap { stamp: None, body: Cow::Borrowed(rest) }),
            Self::Auth(keys) => keys.unwrap(head, rest),
            Self::Crypt(keys) => keys.unwrap(head, rest),
        }
    }

    /// The wrapping of the packets of all keys but the first: the TLS `exported` bytes, mixed with the key of the
    /// wrapping so far. Source: brief A.5, "Dynamic tls-crypt".
    pub fn dynamic(&self, exported: &[u8; StaticKey::LEN], role: Role) -> Self {
        let key = match self {
            Self::None => StaticKey::from_bytes(exported),
            Self::Auth(keys) => keys.key().mixed_with(exported),
            Self::Crypt(keys) => keys.key().mixed_with(exported),
        };
        Self::crypt(key, role)
    }
}

impl fmt::Debug for Wrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Auth(_) => "Auth(hidden)",
            Self::Crypt(_) => "Crypt(hidden)",
        })
    }
}

/// Largest datagram without what it carries: one allocation a packet.
const LONGEST_HEADERS: usize = HEAD_LEN + Stamp::LEN + 64 + 1 + 4 * super::control::MAX_ACKS + 8 + 4;

/// A buffer that holds the whole of `packet`, wrapped anyhow.
fn buffer(packet: &ControlPacket<'_>) -> Vec<u8> {
    Vec::with_capacity(LONGEST_HEADERS + packet.body.payload.len())
}

impl From<Malformed> for Unauthentic {
    /// What cannot be parsed is not authentic either.
    fn from(_: Malformed) -> Self {
        Self
    }
}
