//! The OpenVPN protocol for Ethernet (TAP), both roles, without IO.
//!
//! Nothing here opens a socket, reads a clock, starts a thread or logs. Input comes in by `handle_*`, output is
//! fetched by `poll_*`, and `now` is a parameter. In the order a session comes to life:
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests begin at some moment"))]

/// The client role.
pub mod client;
/// The data channel: keys, sealing and opening packets, replay window, compression framing.
pub mod data;
/// The small numbers the protocol names things by.
pub mod ids;
/// Secret randomness from one seed.
mod random;
/// The server role: cookie, sessions, addresses, push, exit.
pub mod server;
/// One control channel: reliability, TLS, key exchange, rekeying.
pub mod session;
/// TLS configurations as OpenVPN wants them.
pub mod tls;
/// What stands in packets: opcodes, control packets, key-method 2, peer info, push messages.
pub mod wire;
