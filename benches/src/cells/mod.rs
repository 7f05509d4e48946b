//! What is measured.

/// Frames delivered under overload, and what they cost.
pub mod capacity;
