//! The ruler: what Trestle's speed is measured with.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a ruler reads the clock and starts threads")]

/// Sessions with a server, any number of them, and frames through them: what `trestle-load` is made of.
pub mod load;
/// A whole gateway over rings in memory, and frames that keep it at work.
pub mod memory;
