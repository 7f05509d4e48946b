//! The proving ground: the reference deployment in network namespaces, real OpenVPN clients, and raw frames.
//!
//! The modules, from the ground up. Everything here shells out to `ip`, `nft`, `openvpn` and friends on purpose:
//! the product is judged from outside, by the tools an operator has.
#![forbid(unsafe_code)]

/// Stock OpenVPN clients.
pub mod agent;
/// Another site, which joins the reference network.
pub mod branch;
/// A host with a kernel bridge, wires and containers at its ports.
pub mod bridged;
/// Echo requests, each of which must come back.
pub mod echo;
/// What goes wrong in the harness itself, in sentences.
mod fault;
/// Ethernet frames as bytes.
pub mod frame;
/// The gateway under test: trestle in its modes, or the stock server it replaces.
pub mod gateway;
/// Ctrl-C and SIGTERM as a flag.
pub mod interrupt;
/// Network namespaces of this process, removed whatever happens.
pub mod netns;
/// The reference network: gateway, LAN host, router with address translation, agents outside.
pub mod network;
/// Certificates of a small OpenVPN deployment.
pub mod pki;
/// Child processes with logs and deadlines, and commands run to their end.
pub mod process;
/// Sending and receiving raw frames, and counting what became of them.
pub mod raw;
/// Bad weather: a relay that loses, repeats and reorders.
pub mod relay;
/// Runs scenarios one after another, in every mode, and counts them.
pub mod runner;
/// A network, a gateway and its agents, up and running.
pub mod site;
/// Traffic of ordinary stacks: iperf3, and flows that watch for losses.
pub mod traffic;

pub use fault::{Fault, Result};
