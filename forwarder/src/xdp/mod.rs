//! The one fence around `unsafe`.

/// Putting the eBPF programs on the NIC and the host port.
pub mod attach;
/// The memory frames live in.
pub mod frames;
mod interface;
/// The maps shared with the eBPF programs.
pub mod maps;
/// The eBPF programs: start here, its head says in which order all this is used.
pub mod programs;
/// What the kernel may have against them.
pub mod refusal;
