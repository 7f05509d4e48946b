//! The control thread: OpenVPN sessions, the MAC table's one writer, routes and neighbours, the operator.
//!
//! One loop over everything that can be waited for. The data path runs without it: when it is late, sessions and
//! learning are late, frames are not.
//!
//! ```text
//!  UDP sockets (control packets)─┐                            ┌─ UDP sockets
//!  TCP: control packets, ends ───┤                            ├─ the streams' thread
//!  workers' notices ─────────────┤                            ├─ workers' commands
//!  eBPF: sources heard ──────────┼─ Server, Sessions,         ┼─ eBPF maps
//!  netlink: routes, neighbours ──┤  Stations, Surroundings    ├─ status file
//!  control socket, signals, time ┘                            └─ control socket
//! ```

mod borrowed;
mod bridge;
mod capture;
mod client_files;
mod confirm;
mod crew;
mod datapath;
mod dialler;
mod error;
mod fitness;
mod gateway;
mod guarding;
mod host_port;
mod listeners;
mod loop_guard;
mod peer_entries;
mod plan;
mod pool;
mod pool_schedule;
mod report;
mod reread;
mod role;
mod servers;
mod sessions;
mod signals;
mod start;
mod stations;
mod streams;
mod surroundings;
mod wires;

pub use bridge::forecast::{Outlook, Said, forecast};
pub use error::Error;
pub(crate) use signals::{Signals, Wish};

use crate::{config::Config, host::nic::journal};

/// Runs a gateway until it is told to stop.
///
/// # Errors
/// It could not start, and everything is as it was; or the loop cannot go on. Cause and cure, as a sentence.
pub fn run(config: Config) -> Result<(), Error> {
    journal::begin();
    // The log may be a file, where nobody sees what is printed at the end.
    let outcome = start::start(&config)
        .and_then(|gateway| gateway.run().inspect_err(|error| tracing::error!("{error}")));
    journal::end();
    outcome
}
