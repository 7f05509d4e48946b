//! The ruler: what Trestle's speed is measured with.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a ruler reads the clock and starts threads")]

/// What a run has found, as `report.json` has it.
pub mod results;
/// The network a system is measured in, and the systems.
pub mod rig;
