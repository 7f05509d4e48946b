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

mod cargo;
/// The command line of `trestle-load`.
pub mod cli;
mod dial;
mod error;
mod fleet;
mod fragments;
mod nic;
mod order;
mod pace;
mod report;
mod road;
mod run;
mod session;
mod stamp;
mod tally;
#[cfg(test)]
mod testing;
mod udp;
mod wrapping;

pub use cargo::{Cargo, CargoError, MAX_FRAME, Macs, To};
pub use dial::{Handshake, Plan};
pub use error::{Failure, LoadError, Reason};
pub use fleet::Fleet;
pub use pace::Rate;
pub use report::{Failed, Line, Report, SessionLine, Spread};
pub use run::{Datapath, Orders, Run, RunError};
pub use session::Session;
