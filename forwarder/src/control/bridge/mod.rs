//! A kernel bridge, accelerated.
#![cfg_attr(not(test), expect(dead_code, reason = "used by what follows"))]

/// What of a port is accelerated, and what is not and why.
mod policy;
