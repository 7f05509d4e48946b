//! The network a system is measured in, the systems, and the load.
//!
//! ```text
//!   gateway namespace (core 1)          world namespace (core 0)
//!   ┌───────────────────────┐           ┌───────────────────────────────────────────┐
//!   │ system   ens5 ────────┼── veth ───┼─ wire   clients, load, XDP counts & drops │
//!   │          10.10.21.5   │           │         10.10.21.1                        │
//!   └───────────────────────┘           └───────────────────────────────────────────┘
//! ```
//! What the gateway sends is counted and dropped at the first hop, by XDP on `wire`: no receiver's stack is on the bill.
//! What does not belong to the load (ARP, control packets, keepalives) passes, so that sessions stay alive. The load
//! appears on `wire` by `BPF_PROG_RUN` with live frames, on core 0; so does the softirq of `ens5`, and that of `wire`
//! runs where the gateway sends, on core 1: a veth has it so.

mod bpf;
/// What crosses the wire from the gateway, counted.
pub mod counter;
/// Processors: staying on one, and what was spent on them.
pub mod cpu;
/// Load from inside the kernel.
pub mod generator;
/// The machine, and the versions of what takes part.
pub mod machine;
/// Packets as clients send them.
pub mod outer;
/// A load that runs beside what is measured.
pub mod pump;
/// A system's network and its clients.
pub mod site;
/// Frames of the load to an AF_XDP socket.
pub mod steering;
/// The systems under test.
pub mod system;
/// The systems that are always there.
pub mod systems;
/// What is sent through a system.
pub mod traffic;

/// What the programs of ebpf/bench and the ruler must agree on.
#[path = "../../../ebpf/bench/src/shared.rs"]
pub mod shared;
