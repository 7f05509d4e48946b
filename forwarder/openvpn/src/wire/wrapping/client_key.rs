//! `tls-crypt-v2`: each client has a key of its own, which it brings along, wrapped by the server's key. Source: brief
//! A.5; tls_crypt.c.
//!
//! ```text
//! wrapped client key:  tag (32) | encrypted ( client key (256) | metadata ) | length of all of it (2)
//!                      the tag is of the length, the client key and the metadata
//! metadata:            type (1) | 0: what its maker wrote; 1: seconds since 1970 (8) when it was made
//! ```

use std::fmt;

use zeroize::Zeroizing;

use super::{
    StaticKey, Unauthentic,
    key_file::{self, KeyFileError},
    siv::{Siv, TAG},
    static_key::{HALF, Half},
};
use crate::wire::Malformed;

/// Longest wrapped key that upstream takes.
const MAX_WRAPPED: usize = 1024;
/// Bytes of the length behind a wrapped key.
const LENGTH: usize = 2;
/// Types of metadata.
const USER: u8 = 0;
const TIMESTAMP: u8 = 1;

/// The server's key.
pub struct ServerKey(Siv);

/// A client's key: what it has in its file.
#[derive(Clone)]
pub struct ClientKey {
    /// What it wraps its packets with, as with tls-crypt.
    pub key: StaticKey,
    /// What it tells the server.
    pub wrapped: Vec<u8>,
}

/// A client's key as it comes to a server.
#[derive(Debug)]
pub struct Unwrapped {
    /// What it wraps its packets with.
    pub key: StaticKey,
    /// What its maker wrote beside it.
    pub metadata: Metadata,
}

/// What stands beside a client's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// Bytes of the maker's choice.
    User(Vec<u8>),
    /// When it was made, in seconds since 1970.
    Made(i64),
    /// Nothing, or of a kind nobody has used yet.
    Other,
}

/// Splits what follows the head of a packet that carries a wrapped key into the packet's own part and the wrapped key.
/// The length is the sender's word, and nothing of it is authenticated yet.
///
/// # Errors
/// No length, or one that no wrapped key has or that is longer than the packet.
pub fn split_wrapped_key(rest: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let len = rest
        .last_chunk::<LENGTH>()
        .map(|length| usize::from(u16::from_be_bytes(*length)))
        .ok_or(Malformed)?;
    let at = rest.len().checked_sub(len).ok_or(Malformed)?;
    if !(TAG + StaticKey::LEN + LENGTH..=MAX_WRAPPED).contains(&len) {
        return Err(Malformed);
    }
    rest.split_at_checked(at).ok_or(Malformed)
}

impl ServerKey {
    const LABEL: &str = "OpenVPN tls-crypt-v2 server key";

    /// Reads a file as `openvpn --genkey tls-crypt-v2-server` writes it.
    ///
    /// # Errors
    /// No such section, no base64 in it, or another length.
    pub fn parse(text: &[u8]) -> Result<Self, KeyFileError> {
        let bytes = key_file::section(text, Self::LABEL)?;
        let wrong = KeyFileError::Length { found: bytes.len(), expected: HALF };
        let half = bytes.first_chunk::<HALF>().filter(|_| bytes.len() == HALF).ok_or(wrong)?;
        Ok(Self(Siv::new(Half(half))))
    }

    /// Takes a client's key out of what [`split_wrapped_key`] found.
    ///
    /// # Errors
    /// Not wrapped by this key, or not as long as it says.
    pub fn unwrap(&self, wrapped: &[u8]) -> Result<Unwrapped, Unauthentic> {
        let (sealed, length) = wrapped.split_last_chunk::<LENGTH>().ok_or(Unauthentic)?;
        let (tag, sealed) = sealed.split_first_chunk::<TAG>().ok_or(Unauthentic)?;
        if wrapped.len() > MAX_WRAPPED || usize::from(u16::from_be_bytes(*length)) != wrapped.len() {
            return Err(Unauthentic);
        }
        let mut plain = Zeroizing::new(sealed.to_vec());
        self.0.open(tag, length, &mut plain)?;
        let (key, metadata) = plain.split_first_chunk::<{ StaticKey::LEN }>().ok_or(Unauthentic)?;
        Ok(Unwrapped { key: StaticKey::from_bytes(key), metadata: Metadata::parse(metadata) })
    }

    /// Wraps a client's key; `None` if there is more metadata than fits.
    pub fn wrap(&self, key: &StaticKey, metadata: &Metadata) -> Option<Vec<u8>> {
        let metadata = metadata.bytes();
        let len = TAG + StaticKey::LEN + metadata.len() + LENGTH;
        let length = u16::try_from(len).ok().filter(|_| len <= MAX_WRAPPED)?.to_be_bytes();
        let mut plain = Zeroizing::new([key.bytes(), metadata.as_slice()].concat());
        let tag = self.0.tag(&length, &plain);
        self.0.apply(&tag, &mut plain);
        Some([&tag, plain.as_slice(), &length].concat())
    }
}

impl ClientKey {
    const LABEL: &str = "OpenVPN tls-crypt-v2 client key";

    /// Reads a file as `openvpn --genkey tls-crypt-v2-client` writes it.
    ///
    /// # Errors
    /// No such section, no base64 in it, or another length.
    pub fn parse(text: &[u8]) -> Result<Self, KeyFileError> {
        let bytes = key_file::section(text, Self::LABEL)?;
        let short = KeyFileError::Length {
            found: bytes.len(),
            expected: StaticKey::LEN + TAG + StaticKey::LEN + LENGTH,
        };
        let (key, wrapped) = bytes.split_first_chunk::<{ StaticKey::LEN }>().ok_or(short)?;
        match split_wrapped_key(wrapped) {
            Ok(([], wrapped)) => Ok(Self { key: StaticKey::from_bytes(key), wrapped: wrapped.to_vec() }),
            _ => Err(KeyFileError::Damaged),
        }
    }
}

impl Metadata {
    fn parse(bytes: &[u8]) -> Self {
        match bytes.split_first() {
            Some((&USER, text)) => Self::User(text.to_vec()),
            Some((&TIMESTAMP, time)) => {
                time.first_chunk().map_or(Self::Other, |time| Self::Made(i64::from_be_bytes(*time)))
            }
            _ => Self::Other,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::User(text) => [&[USER], text.as_slice()].concat(),
            Self::Made(time) => [&[TIMESTAMP], time.to_be_bytes().as_slice()].concat(),
            Self::Other => Vec::new(),
        }
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKey(hidden)")
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(hidden)")
    }
}
