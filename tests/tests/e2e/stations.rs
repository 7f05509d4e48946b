//! Where frames enter and leave in most scenarios.

use std::time::Duration;

use trestle_tests::Result;
use trestle_tests::frame::{self, BROADCAST, ETHERTYPE_EXPERIMENT, Mac};
use trestle_tests::gateway::{Mode, SERVER_CONF, Start};
use trestle_tests::network::{BRIDGE, Layout, NIC};
use trestle_tests::raw::RawPort;
use trestle_tests::site::Site;

/// How long a frame that should arrive may take.
pub const SOON: Duration = Duration::from_secs(2);
/// How long to watch for a frame that should not arrive.
pub const A_WHILE: Duration = Duration::from_millis(300);

/// A port of the segment and the address that stands there.
pub struct Station {
    pub name: &'static str,
    pub port: RawPort,
    pub mac: Mac,
}

impl Station {
    /// The first or second agent.
    pub fn agent(site: &Site, number: usize) -> Result<Self> {
        let name = if number == 0 { "agent1" } else { "agent2" };
        Ok(Self { name, port: RawPort::open(site.agent(number), "tap0")?, mac: site.mac(number)? })
    }

    /// The LAN host.
    pub fn lan(site: &Site) -> Result<Self> {
        let lan = &site.network.lan;
        Ok(Self { name: "lan", port: RawPort::open(lan, "eth0")?, mac: lan.mac("eth0")? })
    }

    /// The gateway host itself.
    pub fn host(site: &mut Site) -> Result<Self> {
        let bridged = site.gateway()?.mode() == Mode::Stock || site.start().bridge.is_some();
        let device = if bridged { BRIDGE } else { NIC };
        let host = &site.network.gateway;
        Ok(Self { name: "host", port: RawPort::open(host, device)?, mac: host.mac(device)? })
    }

    /// Sends a frame with `payload` from an address of its own choosing.
    pub fn send_as(&self, source: Mac, destination: Mac, payload: &[u8]) -> Result<()> {
        let frame = frame::frame(destination, source, ETHERTYPE_EXPERIMENT, payload);
        self.port.send(&frame::padded(frame, frame::MIN_SIZE))
    }

    /// Makes `mac` known here, by a broadcast from it.
    pub fn announce(&self, mac: Mac) -> Result<()> {
        self.send_as(mac, BROADCAST, b"here I am")?;
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    }

    /// Whether a frame with `payload` arrives soon.
    pub fn hears(&self, payload: &[u8]) -> bool {
        self.port.expect(SOON, |frame| carries(frame, payload)).is_some()
    }

    /// Whether no frame with `payload` arrives for a while.
    pub fn hears_nothing_of(&self, payload: &[u8]) -> bool {
        self.port.expect(A_WHILE, |frame| carries(frame, payload)).is_none()
    }
}

/// Whether `frame` is of the experimental EtherType and its payload begins with `payload`.
pub fn carries(frame: &[u8], payload: &[u8]) -> bool {
    frame::ethertype(frame) == ETHERTYPE_EXPERIMENT && frame[frame::HEADER..].starts_with(payload)
}

/// Both agents, the LAN host and the gateway host.
pub fn all(site: &mut Site) -> Result<[Station; 4]> {
    Ok([Station::agent(site, 0)?, Station::agent(site, 1)?, Station::lan(site)?, Station::host(site)?])
}

/// The reference deployment in bridge mode with two connected agents.
pub fn reference(mode: Mode) -> Result<Site> {
    Site::open(Layout::default(), Start::reference(mode))
}

/// The reference `server.conf` with `lines` added.
pub fn config_with(lines: &str) -> String {
    format!("{SERVER_CONF}{lines}\n")
}
