//! The ruler: what Trestle's speed is measured with.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a ruler reads the clock and starts threads")]

/// A whole gateway over rings in memory, and frames that keep it at work.
pub mod memory;
