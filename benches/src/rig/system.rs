use std::path::{Path, PathBuf};
use std::time::Duration;

use trestle_tests::Result;
use trestle_tests::netns::Namespace;

/// Where a system runs, and what it finds there.
///
/// Its namespace has one NIC, [`trestle_tests::network::NIC`], up, with [`trestle_tests::network::GATEWAY`]/24, GRO on,
/// and a default route by [`trestle_tests::network::ROUTER`]; whatever is started is pinned to the gateway's core.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The gateway's namespace.
    pub gateway: &'a Namespace,
    /// The world outside: clients and the LAN.
    pub world: &'a Namespace,
    /// A folder of this run's own with ca.crt, server.crt, server.key, dh2048.pem, client.crt and client.key.
    pub folder: &'a Path,
    /// The folder with the programs under test: target/release.
    pub binaries: &'a Path,
}

/// A system under test that runs. Dropping it ends it.
///
/// The caller has entered no namespace; it has pinned the calling thread to the gateway's core, and what is spawned
/// inherits that.
pub trait System: Send {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// The protocol its clients speak.
    fn clients(&self) -> Clients;

    /// Waits until it serves; an early end is an error with its log.
    fn wait_ready(&mut self, limit: Duration) -> Result<()>;

    /// Its processes: their CPU time, all threads, is the gateway's.
    fn pids(&mut self) -> Vec<u32>;

    /// The end of what it has logged, for a report of failure.
    fn log_tail(&self) -> String;

    /// Stops it as an init system does.
    fn stop(&mut self) -> Result<()>;
}

/// Starts a [`System`] in its place.
pub type Starter = fn(&Place<'_>) -> Result<Box<dyn System>>;

/// What has to be connected to a system so that it can be measured.
#[derive(Clone, Copy, Debug)]
pub enum Clients {
    /// OpenVPN sessions by the protocol crate's client role, to UDP port 443: keys are known, packets sealed ahead.
    OpenVpn,
    /// None: it forwards every frame back to where it came from.
    None,
    /// The system's own client, which [`Client`] starts: the load enters by the client's TAP device.
    Own(OwnClient),
}

/// Starts a system's own client in a namespace; it returns the TAP device that is its end of the segment.
pub type OwnClient = fn(&Place<'_>, number: u32) -> Result<Client>;

/// A system's own client that runs.
pub struct Client {
    /// Its process.
    pub process: trestle_tests::process::Process,
    /// Its end of the segment, in the world's namespace.
    pub device: String,
    /// What it has written.
    pub log: PathBuf,
}
