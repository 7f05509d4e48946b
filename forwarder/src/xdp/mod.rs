//! The one fence around `unsafe`.

/// The memory frames live in.
pub mod frames;
/// AF_XDP rings, with frames going in and coming out as tokens.
pub mod xsk;
