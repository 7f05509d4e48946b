//! The one fence around `unsafe`.

/// Many packets with one system call.
pub mod datagrams;
/// The memory frames live in.
pub mod frames;
/// The few system calls no library wraps.
pub mod sys;
/// AF_XDP rings, with frames going in and coming out as tokens.
pub mod xsk;
