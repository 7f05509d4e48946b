//! Trestle: an Ethernet gateway. Remote machines join a LAN over the Internet as if plugged into it.
//!
//! The modules, in the order a frame meets them:
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests begin at some moment"))]

/// Attaching to a NIC, AF_XDP rings and their memory, the few system calls no library wraps: all `unsafe` there is.
#[expect(unsafe_code, reason = "the one fence: rings, UMEM, ioctls")]
pub mod xdp;

/// Where frames come in and go out: AF_XDP, the tunnel's UDP socket, the host port, plain memory.
#[forbid(unsafe_code)]
pub mod ports;

/// Clients over TCP: their connections, and the thread that owns them.
#[forbid(unsafe_code)]
pub mod streams;

/// The data path: receive, classify, open, switch, seal, transmit. Start with its `mod.rs`.
#[forbid(unsafe_code)]
pub mod worker;

/// Which port a frame goes to: pure, without IO.
#[forbid(unsafe_code)]
pub mod switch;

/// The control loop: OpenVPN sessions, the MAC table's one writer, netlink, timers.
#[forbid(unsafe_code)]
pub mod control;

/// What stands around the gateway: NIC, host port, routes and neighbours, privileges.
#[forbid(unsafe_code)]
pub mod host;

/// Status file and control socket.
#[forbid(unsafe_code)]
pub mod management;

/// `server.conf` and the command line into one typed configuration.
#[forbid(unsafe_code)]
pub mod config;

/// What this host can do, what is wrong, and how to mend it.
#[forbid(unsafe_code)]
pub mod doctor;

/// The command line, one file a subcommand.
#[forbid(unsafe_code)]
pub mod cli;

/// Every lost frame has a name.
#[forbid(unsafe_code)]
pub mod drops;
