//! A host with a kernel bridge, for the accelerator: wires and containers are its ports.
//!
//! ```text
//!   station 0  eth0 10.10.21.11 ── w0 ─┐
//!   station 1  eth0 10.10.21.12 ── w1 ─┤ br0 10.10.21.5 (host)
//!   ...                                │
//!   container  eth0 ────────────── c2 ─┘
//! ```

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::frame::Mac;
use crate::gateway::Gateway;
use crate::netns::Namespace;
use crate::process::wait_until;
use crate::raw::RawPort;
use crate::{Fault, Result};

/// The bridge.
pub const BRIDGE: &str = "br0";
/// The host's address on it.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 10, 21, 5);
/// What takes the gateway a turn of its loop, or two.
const SOON: Duration = Duration::from_secs(10);

/// What stands at the far end of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A wire: frames arrive finished, and are taken from XDP.
    Wire,
    /// An ordinary container: nothing is set inside.
    Container,
}

/// A host with a bridge, and who is at its ports.
#[derive(Debug)]
pub struct Bridged {
    // Dropped in this order: processes first, then the namespaces.
    /// The accelerator, if it runs.
    pub gateway: Option<Gateway>,
    /// Where the bridge is.
    pub host: Namespace,
    /// Who is at port 0, 1, ...: device `eth0`.
    pub stations: Vec<Station>,
    folder: PathBuf,
}

/// One at a port of the bridge.
#[derive(Debug)]
pub struct Station {
    /// Where it is.
    pub namespace: Namespace,
    /// The port on the host.
    pub port: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: Mac,
}

/// Has a veth's far end, which must be up, stand for a wire: it finishes frames, and takes those of XDP.
pub fn make_wire(namespace: &Namespace, device: &str) -> Result<()> {
    namespace.run("ethtool", &format!("-K {device} tx off txvlan off gro on")).map(drop)
}

impl Bridged {
    /// Lays out a host with a station of each kind in `kinds`. `folder` is for the accelerator's files.
    pub fn lay_out(folder: PathBuf, kinds: &[Kind]) -> Result<Self> {
        let host = Namespace::create("host")?;
        host.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        host.ip_batch(&format!(
            "link add {BRIDGE} address 02:5e:00:00:00:05 type bridge forward_delay 0 mcast_snooping 0
             address add {HOST}/24 dev {BRIDGE}
             link set {BRIDGE} up"
        ))?;
        let mut this = Self { gateway: None, host, stations: Vec::new(), folder };
        for kind in kinds {
            this.add(*kind)?;
        }
        Ok(this)
    }

    /// Adds a station with a port of its own.
    pub fn add(&mut self, kind: Kind) -> Result<()> {
        let number = u8::try_from(self.stations.len()).map_err(|_| Fault::other("too many stations"))?;
        let namespace = Namespace::create(&format!("station{number}"))?;
        namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        let port = format!("{}{number}", if kind == Kind::Wire { 'w' } else { 'c' });
        let address = Ipv4Addr::new(10, 10, 21, 11 + number);
        let mac = crate::frame::local_mac(u32::from(number) + 17);
        let show = crate::frame::show_mac(mac);
        self.host.ip_batch(&format!(
            "link add {port} type veth peer name eth0 address {show} netns {}
             link set {port} master {BRIDGE} up",
            namespace.name()
        ))?;
        namespace.ip_batch(&format!("address add {address}/24 dev eth0\nlink set eth0 up"))?;
        if kind == Kind::Wire {
            make_wire(&namespace, "eth0")?;
        }
        self.stations.push(Station { namespace, port, address, mac });
        Ok(())
    }

    /// Starts the accelerator and waits until it answers.
    pub fn accelerate(&mut self) -> Result<()> {
        self.gateway = None;
        self.gateway = Some(Gateway::accelerate(&self.host, &self.folder, BRIDGE)?);
        Ok(())
    }

    /// The accelerator that runs.
    pub fn gateway(&mut self) -> Result<&mut Gateway> {
        self.gateway.as_mut().ok_or_else(|| Fault::other("the accelerator is not started"))
    }

    /// A packet socket on a station's device.
    pub fn raw(&self, station: usize) -> Result<RawPort> {
        RawPort::open(&self.stations[station].namespace, "eth0")
    }

    /// What `trestle ports -j` says of `port`.
    pub fn port(&self, port: &str) -> Result<Value> {
        let gateway = self.gateway.as_ref().ok_or_else(|| Fault::other("the accelerator is not started"))?;
        let ports = gateway.ask("ports")?;
        let found = ports["ports"].as_array().into_iter().flatten().find(|found| found["name"] == port);
        found.cloned().ok_or_else(|| Fault::other(format!("{port} is not among {ports:#}")))
    }

    /// Frames that XDP forwarded from `port`.
    pub fn by_xdp(&self, port: &str) -> Result<u64> {
        Ok(self.port(port)?["bridge"]["frames"]["xdp"].as_u64().unwrap_or(0))
    }

    /// Waits until exactly `ways` of `port` are accelerated.
    pub fn wait_accelerated(&self, port: &str, ways: &[&str]) -> Result<()> {
        self.wait_port(port, &format!("{port} with {ways:?} accelerated"), |about| {
            about["bridge"]["accelerated"] == Value::from(ways.to_vec())
        })
    }

    /// Waits until a reason of `port` contains `text`.
    pub fn wait_reason(&self, port: &str, text: &str) -> Result<()> {
        self.wait_port(port, &format!("{port} to say {text:?}"), |about| {
            let reasons = about["bridge"]["reasons"].as_array();
            reasons
                .into_iter()
                .flatten()
                .any(|reason| reason.as_str().is_some_and(|said| said.contains(text)))
        })
    }

    fn wait_port(&self, port: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
        let look = || self.port(port).ok().filter(&holds).map(drop);
        wait_until(what, SOON, look, || {
            let said = self.port(port).map_or_else(|fault| fault.to_string(), |said| format!("{said:#}"));
            format!("{said}\n{}", self.gateway.as_ref().map(Gateway::log_tail).unwrap_or_default())
        })
    }

    /// Waits until the accelerator has the station's address at its port.
    pub fn wait_learnt(&self, station: usize) -> Result<()> {
        let station = &self.stations[station];
        let mac = crate::frame::show_mac(station.mac);
        let look = || {
            let fdb = self.gateway.as_ref()?.ask("fdb").ok()?;
            let found =
                fdb["entries"].as_array()?.iter().any(|e| e["mac"] == mac && e["port"] == station.port);
            found.then_some(())
        };
        wait_until(&format!("{mac} at {}", station.port), SOON, look, || {
            self.host.run("bridge", &format!("fdb show br {BRIDGE}")).unwrap_or_default()
        })
    }
}
