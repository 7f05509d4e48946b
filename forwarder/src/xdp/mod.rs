//! The one fence around `unsafe`.

/// The memory frames live in.
pub mod frames;
