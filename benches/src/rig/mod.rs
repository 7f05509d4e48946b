//! The network a system is measured in, and the systems.
//!
//! ```text
//!   gateway namespace (core 1)          world namespace (core 0)
//!   ┌───────────────────────┐           ┌──────────────────────────────────────────┐
//!   │ system   ens5 ────────┼── veth ───┼─ wire   clients, load, XDP counts & drops│
//!   │          10.10.21.5   │           │         10.10.21.1                       │
//!   └───────────────────────┘           └──────────────────────────────────────────┘
//! ```
//! What the gateway sends is counted and dropped at the first hop, by XDP on `wire`: no receiver's stack is on the bill.
//! What does not belong to the load (ARP, control packets, keepalives) passes, so that sessions stay alive.

/// The systems that are measured.
pub mod system;
