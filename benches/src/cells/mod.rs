//! What is measured, one file a kind.

/// Frames delivered under overload, and what they cost.
pub mod capacity;
/// The highest rate without losses.
pub mod lossless;
/// Round trips beside a load.
pub mod round_trip;
/// All cells, in turn over all systems.
pub mod run;
/// TCP between ordinary stacks.
pub mod tcp;
