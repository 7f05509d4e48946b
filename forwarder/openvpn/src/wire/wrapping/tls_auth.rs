//! `tls-auth`: an HMAC over every control packet. Source: brief A.5; ssl_pkt.c.
//!
//! ```text
//! on the wire:    Head | HMAC | replay id | time | Body
//! the HMAC is of: replay id | time | Head | Body
//! ```

use std::{borrow::Cow, fmt};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};

use super::{Digest, Stamp, StaticKey, Unauthentic, Unwrap, buffer};
use crate::wire::{ControlPacket, Head, control::HEAD_LEN, cursor::Cursor};

/// Which half of the key each direction uses: one end has 0, the other 1; without, both use the first for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `0`: sends with the first half, receives with the second. By custom the server.
    Zero,
    /// `1`: the other way round. By custom the client.
    One,
}

/// The keys of tls-auth.
pub struct TlsAuth {
    key: StaticKey,
    digest: Digest,
    send: hmac::Key,
    receive: hmac::Key,
}

impl TlsAuth {
    /// Of this end.
    pub fn new(key: StaticKey, digest: Digest, direction: Option<Direction>) -> Self {
        let [first, second] = key.halves().map(|half| digest.hmac_key(half.hmac()));
        let (send, receive) = match direction {
            None => (first.clone(), first),
            Some(Direction::Zero) => (first, second),
            Some(Direction::One) => (second, first),
        };
        Self { key, digest, send, receive }
    }

    pub(super) fn key(&self) -> &StaticKey {
        &self.key
    }

    pub(super) fn tag_len(&self) -> usize {
        self.digest.tag_len()
    }

    pub(super) fn wrap(&self, stamp: Stamp, packet: &ControlPacket<'_>) -> Vec<u8> {
        let mut out = buffer(packet);
        packet.head.emit(&mut out);
        let behind = HEAD_LEN + self.tag_len() + Stamp::LEN;
        out.resize(behind, 0);
        packet.body.emit(&mut out);
        let tag = sign(&self.send, stamp, &packet.head, out.get(behind..).unwrap_or_default());
        let parts = tag.as_ref().iter().chain(&stamp.bytes()).copied().collect::<Vec<u8>>();
        out.splice(HEAD_LEN..behind, parts);
        out
    }

    pub(super) fn unwrap<'a>(&self, head: &Head, rest: &'a [u8]) -> Result<Unwrap<'a>, Unauthentic> {
        let mut cursor = Cursor::new(rest);
        let tag = cursor.bytes(self.tag_len())?;
        let stamp = Stamp::parse(&mut cursor)?;
        let body = cursor.rest();
        let expected = sign(&self.receive, stamp, head, body);
        verify_slices_are_equal(expected.as_ref(), tag).map_err(|_| Unauthentic)?;
        Ok(Unwrap { stamp: Some(stamp), body: Cow::Borrowed(body) })
    }
}

fn sign(key: &hmac::Key, stamp: Stamp, head: &Head, body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(&stamp.bytes());
    context.update(&head.bytes());
    context.update(body);
    context.sign()
}

impl fmt::Debug for TlsAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAuth").field("digest", &self.digest).finish_non_exhaustive()
    }
}
