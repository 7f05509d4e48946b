//! The ruler: what Trestle's speed is measured with.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a ruler reads the clock and starts threads")]

/// One AEAD operation: a part of the floor.
pub mod aead;
/// What is measured, one file a kind.
pub mod cells;
/// Sessions with a server, any number of them, and frames through them: what `trestle-load` is made of.
pub mod load;
/// A whole gateway over rings in memory, and frames that keep it at work.
pub mod memory;
/// Other people's tunnels and switches, as systems under test.
pub mod peers;
/// A run for people and programs: table, `report.json`, one HTML page.
pub mod report;
/// What a run has found, as `report.json` has it.
pub mod results;
/// The network a system is measured in, and the systems.
pub mod rig;
