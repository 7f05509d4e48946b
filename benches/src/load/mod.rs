//! A load generator in the client's role: many sessions with one server, Trestle or stock OpenVPN.
//!
//! ```text
//!   Plan ──► Fleet::connect ──► Fleet: sessions that are up
//!                                 │  session_mut(n): seal, open, addresses, peer id, when the handshake was
//!                                 │  turn(): receives, keeps alive, rekeys
//!                                 └─ leave(): the server forgets them at once
//! ```
//!
//! The protocol itself is `openvpn::client`; here is the IO around it.

mod dial;
mod error;
mod fleet;
mod session;
#[cfg(test)]
mod testing;

pub use dial::{Handshake, Plan};
pub use error::{Failure, LoadError, Reason};
pub use fleet::Fleet;
pub use session::Session;
