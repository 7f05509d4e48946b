//! What goes into a session besides packets, and what comes out.

use std::time::Duration;

use crate::{ids::KeyId, wire::key_method::KeyMethod};

/// How long things may take. Source: brief 0, A.9.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// `hand-window`: a negotiation not done by then has failed.
    pub hand_window: Duration,
    /// `tran-window`: an old key is accepted for this long.
    pub tran_window: Duration,
    /// `reneg-sec`, jitter applied; `None`: rekeys are not begun by time.
    pub reneg: Option<Duration>,
}

/// What this end says in its key-method message.
#[derive(Clone, Debug, Default)]
pub struct Greeting {
    /// Options consistency string.
    pub options: String,
    /// Peer info; clients only.
    pub peer_info: String,
}

/// What the owner must know or decide.
#[derive(Debug)]
pub enum Event {
    /// The peer's key-method message under this key: call [`Session::accept`] or [`Session::fail`] before anything
    /// else.
    KeyMethod(KeyId, Box<KeyMethod>),
    /// Key material under this key: accept data from now on.
    Keys(KeyId, KeyMaterial),
    /// Send data under this key from now on.
    SendWith(KeyId),
    /// The key is no longer accepted.
    Retired(KeyId),
    /// The peer said something.
    Command(String),
    /// The first negotiation failed: the session is over.
    Failed(String),
    /// A rekey failed; the session goes on with the old key.
    RekeyFailed(String),
    /// The old key ran out after a failed rekey: the session is over.
    Expired,
}

/// Why a packet was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// No packet a peer sends.
    Malformed,
    /// For another session, key or time.
    OutOfSync,
    /// Not wrapped with the key.
    Unauthentic,
    /// Received before.
    Replayed,
}

/// When something must happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// To send unacknowledged packets again.
    Retransmit,
    /// To give up a negotiation.
    HandWindow,
    /// To send under the newest key.
    SwitchKey,
    /// To stop accepting a superseded key.
    RetireKey,
    /// To end the session, or the old key, when tran-window is over.
    TranWindow,
    /// To begin a rekey.
    Rekey,
}

impl Timer {
    /// The reason as text.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Retransmit => "retransmit control packets",
            Self::HandWindow => "give up a negotiation",
            Self::SwitchKey => "send under the newest key",
            Self::RetireKey => "retire a superseded key",
            Self::TranWindow => "retire the old key",
            Self::Rekey => "begin a rekey",
        }
    }
}

/// Where data keys come from: agreed once a session, by the client with the push reply, after its first keys exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derivation {
    /// The TLS exporter (`tls-ekm`).
    Exporter,
    /// TLS 1.0's PRF over the key-method messages: peers before 2.6.
    Prf,
}

/// What data keys under one key id can be made of.
#[derive(Debug)]
pub struct KeyMaterial {
    pub(super) exporter: KeyBlock,
    pub(super) prf: KeyBlock,
}

impl KeyMaterial {
    /// The block that both ends agreed to use.
    pub fn block(&self, derivation: Derivation) -> &KeyBlock {
        match derivation {
            Derivation::Exporter => &self.exporter,
            Derivation::Prf => &self.prf,
        }
    }
}

/// The 256 bytes that data keys are made of. Never printed; overwritten when dropped.
pub struct KeyBlock(Box<[u8; 256]>);

impl KeyBlock {
    /// All zero, to be written by the exporter.
    pub(super) fn empty() -> Self {
        Self(Box::new([0; 256]))
    }

    /// The bytes, to write.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8; 256] {
        &mut self.0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 256] {
        &self.0
    }
}

impl Drop for KeyBlock {
    fn drop(&mut self) {
        self.0.fill(0);
        // Makes the compiler believe that somebody looks at the zeros.
        std::hint::black_box(&self.0);
    }
}

impl std::fmt::Debug for KeyBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyBlock(hidden)")
    }
}
