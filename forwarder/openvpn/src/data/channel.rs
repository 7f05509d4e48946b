//! Sealing and opening for one peer.

use std::fmt;

use super::{
    DataKeys, Layout, OpenError, Opened, Profile, SealError,
    fragment::Joiner,
    framing::{self, Plaintext, Unframer},
    message,
    shaper::Shaper,
};
use crate::ids::{KeyId, PeerId};

/// Key ids there are: three bits of a packet's first byte.
const KEY_IDS: usize = 8;

/// Sealing and opening for one peer, owned by one worker. No clock, no allocation per packet.
pub struct DataChannel {
    peer_id: PeerId,
    layout: Layout,
    max_frame: usize,
    unframer: Unframer,
    /// Only where frames are cut.
    joiner: Option<Box<Joiner>>,
    /// Only where frames are cut or compressed.
    shaper: Option<Box<Shaper>>,
    /// The largest TCP segment a SYN may ask for.
    mssfix: Option<u16>,
    /// By key id.
    keys: [Option<Box<DataKeys>>; KEY_IDS],
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
            layout: profile.layout,
            max_frame,
            unframer: Unframer::new(profile.framing, max_frame),
            joiner: profile.fragment.map(|_| Box::new(Joiner::new(max_frame + framing::ESCAPE))),
            shaper: Shaper::new(profile, max_frame).map(Box::new),
            mssfix: profile.mssfix,
            keys: [const { None }; KEY_IDS],
            sending: None,
            newest: None,
        }
    }

    /// Packets under `key_id` can be opened from now on; sending still uses the former key, if there is one.
    pub fn install(&mut self, key_id: KeyId, keys: DataKeys) {
        self.keys[slot(key_id)] = Some(Box::new(keys));
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

    /// Opens `packet` (a whole UDP payload) into `out`, which needs room for all of it behind its header and for the
    /// longest frame. On error `out` is unspecified, the window unchanged unless the packet was authentic.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&mut self, packet: &[u8], out: &mut [u8]) -> Result<Opened, OpenError> {
        let key_id = self.layout.key_id(packet).ok_or(OpenError::Malformed)?;
        let key = self.keys[slot(key_id)].as_mut().ok_or(OpenError::KeyUnknown)?;
        let mut len = key.open(packet, out)?;
        if let Some(joiner) = &mut self.joiner {
            match joiner.join(out, len)? {
                Some(whole) => len = whole,
                None => return Ok(Opened::Fragment),
            }
        }
        let len = self.unframer.unframe(out, len)?;
        message::classify(out.get(..len).ok_or(OpenError::TooLong)?, self.max_frame)
    }

    /// Seals `frame` into `out`, or, with `fragment`, what of it one packet takes: [`Self::seal_rest`] has the others.
    /// Returns the packet's length: [`Profile::sealed_len`] of what stands in it.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(&mut self, frame: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let key_id = self.sending.ok_or(SealError::NoKey)?;
        let key = self.keys[slot(key_id)].as_mut().ok_or(SealError::NoKey)?;
        let plaintext = match &mut self.shaper {
            None => Plaintext::plain(self.unframer.framing(), frame),
            Some(shaper) => shaper.shape(frame)?,
        };
        key.seal(&self.layout.prefix(key_id, self.peer_id), &plaintext, out)
    }

    /// True while there is more to seal of the frame that was handed to [`Self::seal`] last.
    #[inline]
    pub fn has_rest(&self) -> bool {
        self.shaper.as_ref().is_some_and(|shaper| shaper.has_rest())
    }

    /// Seals the next part of the frame that was handed to [`Self::seal`] last; `None` when all of it has been sealed,
    /// always so without `fragment`.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal_rest(&mut self, out: &mut [u8]) -> Option<Result<usize, SealError>> {
        let plaintext = self.shaper.as_mut()?.rest()?;
        let key_id = self.sending?;
        let key = self.keys[slot(key_id)].as_mut()?;
        Some(key.seal(&self.layout.prefix(key_id, self.peer_id), &plaintext, out))
    }

    /// The largest TCP segment over IPv4 that a SYN from or to the peer may ask for, in bytes; `None` if any.
    #[inline]
    pub fn mssfix(&self) -> Option<u16> {
        self.mssfix
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
    #[inline]
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
#[inline]
fn slot(key_id: KeyId) -> usize {
    usize::from(key_id.value()) % KEY_IDS
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
