//! The ruler: what Trestle's speed is measured with.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a ruler reads the clock and starts threads")]

/// What is measured, one file a kind of cell.
pub mod cells;
/// Sessions with a server, any number of them, and frames through them: what `trestle-load` is made of.
pub mod load;
/// What a run has found, as `report.json` has it.
pub mod results;
/// The network a system is measured in, and the systems.
pub mod rig;
