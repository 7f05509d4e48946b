//! Tunnel packets longer than the path: fragments of IPv4 and IPv6, made on the way out and put together on the way in.
//!
//! ```text
//!   sealed packet ── longer than the route's MTU? ── split ──► two or more frames for the NIC
//!
//!   NIC queue ── fragment? ── header ── reassembly ──► one packet, to be opened
//!                                          │
//!                                          └ others on another queue? ── handed on to the worker where they meet
//! ```
//!
//! Source: RFC 791, sections 2.3 and 3.2; RFC 8200, section 4.5; RFC 5722 for what overlaps. XDP lets all fragments of a datagram take the same
//! way (`ebpf/src/fragments.rs`): what comes here is of tunnel packets only.

/// Reading a fragment.
pub mod header;
/// Numbers that tell fragmented packets apart.
mod identification;
/// Fragments until they are whole packets, bounded in memory and time.
pub mod reassembly;
mod receive;
mod send;
#[cfg(test)]
pub(super) mod tests;

pub use identification::Identifications;
pub use reassembly::Reassembly;

/// For hashes whose outcome nobody outside should know.
pub(super) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
