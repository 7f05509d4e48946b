//! Gateways without a NIC, a kernel or privileges: workers whose ports are rings in memory, clients whose packets are
//! sealed by the same protocol crate, and the rounds of work that benchmarks and counts are made of.
//!
//! ```text
//!   offer             turn                        collect
//!   far ends of  ──►  Worker::turn, each   ──►    far ends of
//!   the wires         worker once                 the wires
//! ```
//! Only the middle is measured: the far ends belong to whoever measures.

mod client;
mod gateway;
mod scaling;
mod work;

pub use client::Client;
pub use gateway::{GATEWAY, Gateway, NIC, ROUTER, Stand};
pub use scaling::Scaling;
pub use work::{Round, Work};
