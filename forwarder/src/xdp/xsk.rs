//! AF_XDP rings.

/// Entries of each ring. Lower loses frames in bursts (at 2 Mpps 2048 entries are one millisecond), higher costs cache.
pub const RING: u32 = 2048;
