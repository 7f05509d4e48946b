//! Sealing and opening for one peer.

use std::fmt;

use super::{
    DataKeys, HEADER, OpenError, Opened, Profile, SealError,
    framing::{self, Unframer},
    keys::DirectionKey,
    message,
    packet::{self, AAD, Packet},
    replay::ReplayWindow,
    usage::{Allowance, Usage},
};
use crate::ids::{KeyId, PeerId};

/// Key ids there are: three bits of a packet's first byte.
const KEY_IDS: usize = 8;

/// Sealing and opening for one peer, owned by one worker. No clock, no allocation per packet.
pub struct DataChannel {
    peer_id: PeerId,
    max_frame: usize,
    unframer: Unframer,
    /// By key id.
    keys: [Option<Box<InstalledKey>>; KEY_IDS],
    /// What packets are sealed under; if set, there is a key under it.
    sending: Option<KeyId>,
    /// Installed last; if set, there is a key under it.
    newest: Option<KeyId>,
}

impl DataChannel {
    /// A channel without keys, for the peer named `peer_id` in packets. Frames longer than `max_frame` bytes are not
    /// opened, and nothing is decompressed beyond that.
    pub fn new(peer_id: PeerId, profile: Profile, max_frame: usize) -> Self {
        Self {
            peer_id,
            max_frame,
            unframer: Unframer::new(profile.framing, max_frame),
            keys: [const { None }; KEY_IDS],
            sending: None,
            newest: None,
        }
    }

    /// Packets under `key_id` can be opened from now on; sending still uses the former key, if there is one.
    pub fn install(&mut self, key_id: KeyId, keys: DataKeys) {
        self.keys[slot(key_id)] = Some(Box::new(InstalledKey::new(keys)));
        self.newest = Some(key_id);
    }

    /// Packets are sealed under `key_id` from now on. Unknown ids change nothing.
    pub fn send_with(&mut self, key_id: KeyId) {
        if self.keys[slot(key_id)].is_some() {
            self.sending = Some(key_id);
        }
    }

    /// Forgets the key.
    pub fn retire(&mut self, key_id: KeyId) {
        self.keys[slot(key_id)] = None;
        self.sending = self.sending.filter(|&sending| sending != key_id);
        self.newest = self.newest.filter(|&newest| newest != key_id).or(self.sending);
    }

    /// Opens `packet` (a whole UDP payload) into `out`, which needs room for `packet.len() - HEADER` bytes and for
    /// the longest frame. On error `out` is unspecified, the window unchanged unless the packet was authentic.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&mut self, packet: &[u8], out: &mut [u8]) -> Result<Opened, OpenError> {
        let packet = Packet::parse(packet).ok_or(OpenError::Malformed)?;
        let key = self.keys[slot(packet.key_id)].as_mut().ok_or(OpenError::KeyUnknown)?;
        let plaintext = out.get_mut(..packet.ciphertext.len()).ok_or(OpenError::TooLong)?;
        key.open(&packet, plaintext)?;
        let len = self.unframer.unframe(out, packet.ciphertext.len())?;
        message::classify(out.get(..len).ok_or(OpenError::TooLong)?, self.max_frame)
    }

    /// Seals `frame` into `out` and returns the packet's length, `frame.len() + HEADER`, 2 more for a frame that
    /// begins with 0x50 under [`super::Framing::V2`].
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(&mut self, frame: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let key_id = self.sending.ok_or(SealError::NoKey)?;
        let key = self.keys[slot(key_id)].as_mut().ok_or(SealError::NoKey)?;
        let prefix = framing::prefix(self.unframer.framing(), frame);
        key.seal(key_id, self.peer_id, [prefix, frame], out)
    }

    /// Seals a keepalive into `out`.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal_ping(&mut self, out: &mut [u8]) -> Result<usize, SealError> {
        self.seal(&message::PING, out)
    }

    /// Seals into `out` that we leave.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal_exit(&mut self, out: &mut [u8]) -> Result<usize, SealError> {
        self.seal(&message::OCC_EXIT, out)
    }

    /// True once, when the sending or receiving side of the key in use nears its limit and a rekey must begin. The key
    /// in use is the newest: while a newer one waits to be sent with, the rekey has been.
    #[must_use]
    pub fn take_rekey_request(&mut self) -> bool {
        let newest = self.newest.and_then(|key_id| self.keys[slot(key_id)].as_mut());
        newest.is_some_and(|key| key.take_rekey_request())
    }
}

impl fmt::Debug for DataChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataChannel")
            .field("peer_id", &self.peer_id)
            .field("framing", &self.unframer.framing())
            .field("sending", &self.sending)
            .finish_non_exhaustive()
    }
}

/// Where the key of `key_id` is: at most 7, which the compiler can see here.
fn slot(key_id: KeyId) -> usize {
    usize::from(key_id.value()) % KEY_IDS
}

/// A key and what has been done with it.
struct InstalledKey {
    open: DirectionKey,
    window: ReplayWindow,
    opened: Usage,
    seal: DirectionKey,
    allowance: Allowance,
    rekey_requested: bool,
}

impl InstalledKey {
    fn new(keys: DataKeys) -> Self {
        Self {
            open: keys.open,
            window: ReplayWindow::new(),
            opened: Usage::default(),
            seal: keys.seal,
            allowance: Allowance::new(),
            rekey_requested: false,
        }
    }

    /// `plaintext` is as long as the ciphertext.
    fn open(&mut self, packet: &Packet<'_>, plaintext: &mut [u8]) -> Result<(), OpenError> {
        if !self.window.is_fresh(packet.packet_id) {
            return Err(OpenError::Replayed);
        }
        self.open.open(packet, plaintext).map_err(|_| OpenError::AuthenticationFailed)?;
        self.window.commit(packet.packet_id);
        self.opened.add(plaintext.len());
        Ok(())
    }

    /// Seals the two parts of a plaintext as one.
    fn seal(
        &mut self,
        key_id: KeyId,
        peer_id: PeerId,
        [prefix, frame]: [&[u8]; 2],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let len = prefix.len() + frame.len();
        let (header, rest) = out.split_first_chunk_mut::<HEADER>().ok_or(SealError::TooLong)?;
        let ciphertext = rest.get_mut(..len).ok_or(SealError::TooLong)?;
        let packet_id = self.allowance.take(len)?;
        let (aad, tag) = header.split_at_mut(AAD);
        aad.copy_from_slice(&packet::aad(key_id, peer_id, packet_id));
        let sealed = if prefix.is_empty() {
            self.seal.seal(packet_id, aad, frame, ciphertext, tag)
        } else {
            ciphertext[..prefix.len()].copy_from_slice(prefix);
            ciphertext[prefix.len()..].copy_from_slice(frame);
            self.seal.seal_in_place(packet_id, aad, ciphertext, tag)
        };
        // The one thing AES-GCM refuses is a plaintext of more than 64 GiB.
        sealed.map(|()| HEADER + len).map_err(|_| SealError::TooLong)
    }

    fn take_rekey_request(&mut self) -> bool {
        let near = self.allowance.is_near_limit() || self.opened.is_near_limit();
        near && !std::mem::replace(&mut self.rekey_requested, near)
    }
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
