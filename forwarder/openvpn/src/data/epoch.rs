//! Keys that renew themselves: each epoch's come from the one's before, without a word between the ends.
//! Source: brief A.10 "Epochs", 2.7 crypto_epoch.c.
//!
//! ```text
//!  +0   opcode 9 << 3 | key_id (1), peer_id (3)      ┐
//!  +4   epoch (2)                                    │ additional authenticated data
//!  +6   counter (6), from 1 in each epoch            ┘
//!  +12  ciphertext, at least 1 byte                   nonce = (epoch | counter | 0000) XOR data_iv
//!  end  tag (16)
//!
//!  cipher part of key2 ──► E1 ──"datakey upd"──► E2 ──► …        E(i) ──"data_key"──► key of epoch i
//!                                                                E(i) ──"data_iv" ──► its data_iv
//! ```
//! The sender goes on to the next epoch when a key is used up; the receiver follows when a packet of a later epoch proves
//! authentic, and then sends under no earlier one itself:
//!
//! ```text
//!  open:   … gone │ previous │ current │ future 1 │ 2 │ 3 │ 4 │ not yet …
//! ```
//! Keys of the future are made when the current one changes, so what an unauthentic packet costs does not depend on the
//! epoch it names.

use std::{collections::VecDeque, num::NonZeroU64};

use aws_lc_rs::{
    aead::{Aad, LessSafeKey, NONCE_LEN, Nonce},
    error::Unspecified,
    hmac,
};

use super::{
    Cipher, OpenError, SealError, aead,
    framing::Plaintext,
    keys::{self, Halves},
    packet::{Prefix, TAG, V2_PREFIX},
    replay::ReplayWindow,
    usage::Usage,
};

/// Length of epoch and counter.
pub(super) const PACKET_ID: usize = 8;
/// Length of what is ahead of the ciphertext, all of it authenticated.
const HEADER: usize = V2_PREFIX + PACKET_ID;

/// Length of an epoch's secret.
const SECRET: usize = 32;
/// Epochs beyond the current one that packets may be of. Too low loses packets of a sender that goes through them fast, too
/// high makes more keys in vain.
const FUTURE: usize = 4;
/// Later epochs are not received, for those behind them could not be made.
const LAST_RECEIVED: u16 = u16::MAX - 1 - FUTURE as u16;
/// Epoch at which new keys are asked for. Source: 2.7 ssl.c `should_trigger_renegotiation`.
const EPOCH_NEAR: u16 = 0xf000;
/// Last counter of an epoch.
const LAST_COUNTER: u64 = (1 << 48) - 1;

/// Both directions' keys and what has been done with them.
pub(super) struct EpochKeys {
    open: Receiver,
    seal: Sender,
}

impl EpochKeys {
    pub(super) fn new(cipher: Cipher, halves: Halves<'_>) -> Self {
        Self { open: Receiver::new(cipher, halves.open), seal: Sender::new(cipher, halves.seal) }
    }

    /// See [`super::DataKeys::open`].
    pub(super) fn open(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, OpenError> {
        let packet = Packet::parse(packet).ok_or(OpenError::Malformed)?;
        let plaintext = out.get_mut(..packet.ciphertext.len()).ok_or(OpenError::TooLong)?;
        self.open.open(&packet, plaintext)?;
        if self.seal.key.epoch < self.open.current.key.epoch {
            self.seal.advance_to(self.open.current.key.epoch);
        }
        Ok(plaintext.len())
    }

    /// See [`super::DataKeys::seal`].
    pub(super) fn seal(
        &mut self,
        prefix: &Prefix,
        plaintext: &Plaintext<'_>,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        // The other side goes on when we do: so it is told that it has used its key up.
        let Received { key, opened, .. } = &self.open.current;
        if self.seal.key.epoch == key.epoch && (opened.is_used_up() || opened.is_failing()) {
            self.seal.advance();
        }
        self.seal.seal(prefix, plaintext, out)
    }

    pub(super) fn is_near_limit(&self) -> bool {
        // What we send under is never earlier than what we receive under.
        self.seal.key.epoch >= EPOCH_NEAR
    }
}

/// A packet, split into its fields; nothing of it is authentic yet.
struct Packet<'a> {
    epoch: u16,
    counter: NonZeroU64,
    header: &'a [u8; HEADER],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG],
}

impl<'a> Packet<'a> {
    /// `None` if it is too short, or has an epoch or counter that is never used.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>()?;
        let id = u64::from_be_bytes(*header.last_chunk()?);
        let epoch = u16::try_from(id >> 48).ok().filter(|&epoch| epoch > 0)?;
        let counter = NonZeroU64::new(id & LAST_COUNTER)?;
        (!ciphertext.is_empty()).then_some(Self { epoch, counter, header, ciphertext, tag })
    }
}

/// What we open with.
struct Receiver {
    /// Of the last epoch of the future.
    secret: Secret,
    cipher: Cipher,
    previous: Option<Received>,
    current: Received,
    /// Those after the current one, in order.
    future: VecDeque<EpochKey>,
}

/// An epoch that packets came from.
struct Received {
    key: EpochKey,
    window: ReplayWindow,
    opened: Usage,
}

impl Receiver {
    fn new(cipher: Cipher, half: &[u8; keys::HALF]) -> Self {
        let secret = Secret::first(half);
        let current = Received::new(cipher, secret.key(cipher));
        let mut receiver =
            Self { secret, cipher, previous: None, current, future: VecDeque::with_capacity(FUTURE) };
        receiver.prepare();
        receiver
    }

    fn open(&mut self, packet: &Packet<'_>, plaintext: &mut [u8]) -> Result<(), OpenError> {
        if packet.epoch == self.current.key.epoch {
            return self.current.open(packet, plaintext);
        }
        if let Some(previous) = self.previous.as_mut().filter(|previous| previous.key.epoch == packet.epoch) {
            return previous.open(packet, plaintext);
        }
        let ahead = self.ahead(packet.epoch).ok_or(OpenError::KeyUnknown)?;
        if self.future[ahead].open(packet, plaintext).is_err() {
            self.current.opened.fail();
            return Err(OpenError::AuthenticationFailed);
        }
        self.follow(ahead);
        self.current.commit(packet);
        Ok(())
    }

    /// Which of the future's keys is the one of `epoch`.
    fn ahead(&self, epoch: u16) -> Option<usize> {
        let ahead = epoch.checked_sub(self.future.front()?.epoch)?;
        let ahead = usize::from(ahead);
        (ahead < self.future.len() && epoch <= LAST_RECEIVED).then_some(ahead)
    }

    /// The future's epoch number `ahead` is the current one from now on.
    fn follow(&mut self, ahead: usize) {
        self.future.drain(..ahead);
        if let Some(key) = self.future.pop_front() {
            let next = Received::new(self.cipher, key);
            self.previous = Some(std::mem::replace(&mut self.current, next));
        }
        self.prepare();
    }

    /// Makes what is missing of the future.
    fn prepare(&mut self) {
        while self.future.len() < FUTURE && self.secret.advance() {
            self.future.push_back(self.secret.key(self.cipher));
        }
    }
}

impl Received {
    fn new(cipher: Cipher, key: EpochKey) -> Self {
        Self { key, window: ReplayWindow::new(), opened: Usage::new(cipher) }
    }

    fn open(&mut self, packet: &Packet<'_>, plaintext: &mut [u8]) -> Result<(), OpenError> {
        if !self.window.is_fresh(packet.counter) {
            return Err(OpenError::Replayed);
        }
        if self.key.open(packet, plaintext).is_err() {
            self.opened.fail();
            return Err(OpenError::AuthenticationFailed);
        }
        self.commit(packet);
        Ok(())
    }

    /// Notes an authentic packet.
    fn commit(&mut self, packet: &Packet<'_>) {
        self.window.commit(packet.counter);
        self.opened.add(packet.ciphertext.len());
    }
}

/// What we seal with.
struct Sender {
    secret: Secret,
    cipher: Cipher,
    key: EpochKey,
    /// 1..=[`LAST_COUNTER`], or one more when the epoch is over.
    next: u64,
    sealed: Usage,
}

impl Sender {
    fn new(cipher: Cipher, half: &[u8; keys::HALF]) -> Self {
        let secret = Secret::first(half);
        let key = secret.key(cipher);
        Self { secret, cipher, key, next: 1, sealed: Usage::new(cipher) }
    }

    fn seal(
        &mut self,
        prefix: &Prefix,
        plaintext: &Plaintext<'_>,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let len = plaintext.len();
        let out = out.get_mut(..HEADER + len + TAG).ok_or(SealError::TooLong)?;
        let (header, rest) = out.split_first_chunk_mut::<HEADER>().ok_or(SealError::TooLong)?;
        let (ciphertext, tag) = rest.split_at_mut(len);
        let counter = self.take(len)?;
        header[..V2_PREFIX].copy_from_slice(prefix);
        header[V2_PREFIX..].copy_from_slice(&packet_id(self.key.epoch, counter));
        let nonce = self.key.nonce(header);
        aead::seal(&self.key.key, nonce, header, plaintext, ciphertext, tag)
            .map_err(|_| SealError::TooLong)?;
        Ok(HEADER + len + TAG)
    }

    /// The counter to seal `plaintext_len` bytes with in the current epoch, which is the next if this one is used up.
    fn take(&mut self, plaintext_len: usize) -> Result<u64, SealError> {
        if (self.sealed.is_used_up() || self.next > LAST_COUNTER) && !self.advance() {
            return Err(SealError::KeyExhausted);
        }
        let counter = self.next;
        self.next += 1;
        self.sealed.add(plaintext_len);
        Ok(counter)
    }

    /// Goes on to the next epoch; false after the last.
    fn advance(&mut self) -> bool {
        let is_next = self.secret.advance();
        if is_next {
            self.begin();
        }
        is_next
    }

    /// Goes on to `epoch`, which is a later one.
    fn advance_to(&mut self, epoch: u16) {
        while self.secret.epoch < epoch && self.secret.advance() {}
        self.begin();
    }

    /// Begins the secret's epoch, which has not been sealed in.
    fn begin(&mut self) {
        debug_assert!(self.secret.epoch > self.key.epoch, "an epoch's counters are used once");
        self.key = self.secret.key(self.cipher);
        self.next = 1;
        self.sealed = Usage::new(self.cipher);
    }
}

/// Epoch and counter as they stand in a packet.
fn packet_id(epoch: u16, counter: u64) -> [u8; PACKET_ID] {
    (u64::from(epoch) << 48 | counter).to_be_bytes()
}

/// The key of one epoch in one direction.
struct EpochKey {
    epoch: u16,
    key: LessSafeKey,
    data_iv: [u8; NONCE_LEN],
}

impl EpochKey {
    fn open(&self, packet: &Packet<'_>, plaintext: &mut [u8]) -> Result<(), Unspecified> {
        let nonce = self.nonce(packet.header);
        self.key.open_separate_gather(
            nonce,
            Aad::from(packet.header),
            packet.ciphertext,
            packet.tag,
            plaintext,
        )
    }

    fn nonce(&self, header: &[u8; HEADER]) -> Nonce {
        let mut nonce = self.data_iv;
        for (byte, id) in nonce.iter_mut().zip(&header[V2_PREFIX..]) {
            *byte ^= id;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// What an epoch's key and all later secrets come from. Overwritten when left behind.
struct Secret {
    epoch: u16,
    bytes: [u8; SECRET],
}

impl Secret {
    /// Of the first epoch, from a direction's half of the key block.
    fn first(half: &[u8; keys::HALF]) -> Self {
        let mut bytes = [0; SECRET];
        bytes.copy_from_slice(&half[..SECRET]);
        Self { epoch: 1, bytes }
    }

    /// Becomes the next epoch's; false after the last.
    fn advance(&mut self) -> bool {
        let Some(next) = self.epoch.checked_add(1) else { return false };
        let mut bytes = [0; SECRET];
        self.expand("datakey upd", &mut bytes);
        *self = Self { epoch: next, bytes };
        true
    }

    fn key(&self, cipher: Cipher) -> EpochKey {
        let mut bytes = [0; SECRET];
        let key = &mut bytes[..cipher.key_len()];
        self.expand("data_key", key);
        let key = aead::aead_key(cipher, key);
        wipe(&mut bytes);
        let mut data_iv = [0; NONCE_LEN];
        self.expand("data_iv", &mut data_iv);
        EpochKey { epoch: self.epoch, key, data_iv }
    }

    /// HKDF-Expand (RFC 5869) by SHA-256 with OpenVPN's kind of label, of which one block is enough: `out` is no longer
    /// than a secret.
    fn expand(&self, label: &str, out: &mut [u8]) {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.bytes));
        let lengths =
            [out.len(), "ovpn ".len() + label.len()].map(|len| u8::try_from(len).unwrap_or(u8::MAX));
        context.update(&[0, lengths[0], lengths[1]]);
        context.update(b"ovpn ");
        context.update(label.as_bytes());
        // No context; the first block.
        context.update(&[0, 1]);
        out.copy_from_slice(&context.sign().as_ref()[..out.len()]);
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Makes the compiler believe that somebody looks at the zeros.
    std::hint::black_box(bytes);
}

#[cfg(test)]
#[path = "epoch_tests.rs"]
mod tests;
