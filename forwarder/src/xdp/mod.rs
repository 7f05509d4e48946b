//! The one fence around `unsafe`.

/// Putting the eBPF programs on the NIC and the host port.
pub mod attach;
/// The ioctls of the kernel bridge.
pub mod bridge;
/// Many packets with one system call.
pub mod datagrams;
/// Tables of ebtables.
pub mod ebtables;
/// The memory frames live in.
pub mod frames;
mod interface;
/// The maps shared with the eBPF programs.
pub mod maps;
/// The eBPF programs: start here, its head says in which order all this is used.
pub mod programs;
/// What the kernel may have against them.
pub mod refusal;
/// The few system calls no library wraps.
pub mod sys;
/// AF_XDP rings, with frames going in and coming out as tokens.
pub mod xsk;
