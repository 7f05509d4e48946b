//! What is measured, one file a kind.

/// Flow completion of a distributed build's pattern.
pub mod build;
/// Frames delivered under overload, and what they cost.
pub mod capacity;
/// What a thousand clients cost.
pub mod crowd;
/// The highest rate without losses.
pub mod lossless;
/// From port to port of a kernel bridge.
pub mod port_to_port;
/// Round trips beside a load.
pub mod round_trip;
/// All cells, in turn over all systems.
pub mod run;
/// TCP between ordinary stacks.
pub mod tcp;
