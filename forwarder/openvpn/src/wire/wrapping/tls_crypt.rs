//! `tls-crypt`: every control packet is authenticated and encrypted. Source: brief A.5; tls_crypt.c.
//!
//! ```text
//! Head | replay id | time | tag | encrypted Body        the tag is of all before it and of the Body
//! ```

use std::{borrow::Cow, fmt};

use super::{Stamp, StaticKey, Unauthentic, Unwrap, buffer, siv, siv::Siv};
use crate::{
    data::Role,
    wire::{ControlPacket, Head, control::HEAD_LEN, cursor::Cursor},
};

/// What the tag covers in the clear.
const CLEAR: usize = HEAD_LEN + Stamp::LEN;

/// The keys of tls-crypt.
pub struct TlsCrypt {
    key: StaticKey,
    send: Siv,
    receive: Siv,
}

impl TlsCrypt {
    /// Bytes of a packet's tag.
    pub const TAG: usize = siv::TAG;

    /// Of this end: the server sends with the first half, the client with the second.
    pub fn new(key: StaticKey, role: Role) -> Self {
        let [first, second] = key.halves().map(Siv::new);
        let (send, receive) = match role {
            Role::Server => (first, second),
            Role::Client => (second, first),
        };
        Self { key, send, receive }
    }

    pub(super) fn key(&self) -> &StaticKey {
        &self.key
    }

    pub(super) fn wrap(&self, stamp: Stamp, packet: &ControlPacket<'_>) -> Vec<u8> {
        let mut out = buffer(packet);
        packet.head.emit(&mut out);
        out.extend_from_slice(&stamp.bytes());
        out.resize(CLEAR + siv::TAG, 0);
        packet.body.emit(&mut out);
        let (clear, rest) = out.split_at_mut(CLEAR);
        if let Some((tag, body)) = rest.split_first_chunk_mut::<{ siv::TAG }>() {
            *tag = self.send.tag(clear, body);
            self.send.apply(tag, body);
        }
        out
    }

    pub(super) fn unwrap<'a>(&self, head: &Head, rest: &'a [u8]) -> Result<Unwrap<'a>, Unauthentic> {
        let mut cursor = Cursor::new(rest);
        let stamp = Stamp::parse(&mut cursor)?;
        let tag = cursor.array()?;
        let mut clear = [0; CLEAR];
        let (in_head, in_stamp) = clear.split_at_mut(HEAD_LEN);
        in_head.copy_from_slice(&head.bytes());
        in_stamp.copy_from_slice(&stamp.bytes());
        let mut body = cursor.rest().to_vec();
        self.receive.open(&tag, &clear, &mut body)?;
        Ok(Unwrap { stamp: Some(stamp), body: Cow::Owned(body) })
    }
}

impl fmt::Debug for TlsCrypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsCrypt(hidden)")
    }
}
