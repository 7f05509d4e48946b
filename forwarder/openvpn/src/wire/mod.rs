//! What stands in packets and messages: pure parsing and building, no state.
//!
//! Every protocol has a meaning (a struct) with `parse` and `emit`, the inverse of one another. Parsers take bytes
//! an attacker may have chosen: they never panic, never allocate more than the input is long, and return
//! [`Malformed`], which is no diagnosis on purpose. All integers are big-endian.

/// Messages of the TLS stream after key exchange: push, exit, authentication failures.
pub mod command;
/// Control packets: opcode, session ids, acknowledgements, payload.
pub mod control;
/// What a server's hard reset may carry.
pub mod early;
/// The key-method 2 message, first in each direction of the TLS stream.
pub mod key_method;
/// The options consistency string.
pub mod occ;
/// What a client says about itself.
pub mod peer_info;
/// Push replies: splitting into messages, and putting together again.
pub mod push;
/// What protects control packets before TLS does: tls-auth, tls-crypt, tls-crypt-v2.
pub mod wrapping;

mod cursor;

pub use control::{Acks, Body, ControlPacket, Head, Opcode, SessionId};

/// Bytes are not what they should be. Parse failures are counted, not diagnosed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are malformed")]
pub struct Malformed;
