//! A system's network and its clients: laid out, connected, and removed when dropped.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use trestle_tests::frame::{self, BROADCAST, Mac, local_mac};
use trestle_tests::netns::Namespace;
use trestle_tests::network::{GATEWAY, NIC, ROUTER};
use trestle_tests::pki::{Keys, Pki, Purpose};
use trestle_tests::process::wait_until;
use trestle_tests::raw::RawPort;
use trestle_tests::{Fault, Result};

use super::counter::Counter;
use super::cpu::{GATEWAY_CORE, LOAD_CORE, on_core};
use super::shared::SERVER_PORT;
use super::system::{Client, Clients, OwnClient, Place, Starter, System};
use crate::load::{Fleet, Plan};
use crate::peers;

/// The far end of the gateway's wire.
pub const WIRE: &str = "wire";
/// The station on the LAN that the load comes from or goes to: nobody's, so that no stack answers.
pub const LAN_MAC: Mac = [0x02, 0x5e, 0xff, 0, 0, 1];
/// The station on the LAN that round trips begin and end at.
pub const PROBE_MAC: Mac = [0x02, 0x5e, 0xff, 0, 0, 2];
/// EtherType of frames that make stations known and measure round trips; not the load's, so they are not counted.
pub const ETHERTYPE_PROBE: u16 = 0x88b6;
/// How long a system may take to serve.
const START: Duration = Duration::from_secs(20);
/// How often both ends of a foreign tunnel say hello: the first ones may be lost while keys are agreed on.
const HELLOS: usize = 5;
/// How long stations may take to be known everywhere.
const SETTLE: Duration = Duration::from_millis(200);
/// First frames in a row: fewer than any socket holds.
const HELLOS_AT_ONCE: usize = 32;
/// Time for those to be heard.
const HELLO_PAUSE: Duration = Duration::from_millis(5);
/// How long all clients may take to be connected: a thousand need some seconds of the server, more on a busy machine.
const CONNECT: Duration = Duration::from_secs(60);

/// A system that runs, its network, and its connected clients.
pub struct Site {
    // Fields are dropped in this order: clients and system before their network.
    /// The clients, if it has any.
    pub fleet: Option<Fleet>,
    own: Option<Client>,
    /// The system under test.
    pub system: Box<dyn System>,
    /// What crosses the wire from the gateway.
    pub counter: Counter,
    /// Where clients and load are.
    pub world: Namespace,
    /// Where the system is.
    pub gateway: Namespace,
    identity: Credentials,
    folder: Folder,
}

impl Site {
    /// Lays out a network, starts a system in it and connects `peers` clients, and another for round trips.
    pub fn open(starter: Starter, binaries: &Path, peers: u32, stop: &AtomicBool) -> Result<Self> {
        let mut site = Self::start(starter, binaries, Keys::Ecdsa)?;
        match site.system.clients() {
            Clients::OpenVpn => {
                site.connect(peers + 1, peers, stop)?;
                site.introduce()?;
            }
            Clients::Own(connect) => site.connect_own(connect, binaries)?,
            Clients::None => {}
        }
        Ok(site)
    }

    /// Lays out a network and starts a system in it, which identifies itself with `keys`; nobody is connected yet.
    pub fn start(starter: Starter, binaries: &Path, keys: Keys) -> Result<Self> {
        let folder = Folder::create()?;
        let identity = identities(&folder.0, keys)?;
        let (gateway, world) = (Namespace::create("gateway")?, Namespace::create("world")?);
        lay_out(&gateway, &world)?;
        let counter = world.within(|| Counter::attach(WIRE))??;
        let place = Place { gateway: &gateway, world: &world, folder: &folder.0, binaries };
        // Not on the gateway's core: what waits for the system must not slow it down.
        let system = on_core(GATEWAY_CORE, || starter(&place))?;
        let mut site = Self { fleet: None, own: None, system, counter, world, gateway, identity, folder };
        site.system.wait_ready(START)?;
        Ok(site)
    }

    /// The TAP device of the system's own client, if it has one: its end of the segment.
    pub fn own_device(&self) -> Option<&str> {
        self.own.as_ref().map(|client| client.device.as_str())
    }

    /// Address of the station behind client `number`.
    pub fn peer_mac(number: u32) -> Mac {
        local_mac(number)
    }

    /// Stops the system and removes everything.
    pub fn close(mut self) -> Result<()> {
        self.fleet = None;
        self.own = None;
        self.system.stop()
    }

    /// Connects `sessions` OpenVPN clients; data packets to the first `counted` of them are counted and dropped at the
    /// first hop, the others receive them.
    pub fn connect(&mut self, sessions: u32, counted: u32, stop: &AtomicBool) -> Result<()> {
        let Credentials { ca, certificate, key } = &self.identity;
        let tls = openvpn::tls::client_config(ca.as_bytes(), certificate.as_bytes(), key.as_bytes())
            .map_err(|error| Fault::other(format!("the clients' certificate: {error}")))?;
        let mut plan = Plan::new(SocketAddrV4::new(GATEWAY, SERVER_PORT), tls, sessions as usize);
        plan.time_out = CONNECT;
        plan.client.compression = false;
        plan.client.reneg = None;
        let connected = self.world.within(|| Fleet::connect(&plan, stop))?;
        let failed = |what: String, log: &dyn System| Fault::other(format!("{what}\n{}", log.log_tail()));
        let fleet = connected.map_err(|error| failed(error.to_string(), &*self.system))?;
        if let Some(failure) = fleet.failures().first() {
            let what = format!("client {} was not connected: {}", failure.number, failure.reason);
            return Err(failed(what, &*self.system));
        }
        for session in fleet.sessions().iter().take(counted as usize) {
            self.counter.add_port(session.local().port())?;
        }
        self.fleet = Some(fleet);
        Ok(())
    }

    /// Connects the system's own client, and lets both ends hear one another: some agree on keys only then.
    fn connect_own(&mut self, connect: OwnClient, binaries: &Path) -> Result<()> {
        let place = Place { gateway: &self.gateway, world: &self.world, folder: &self.folder.0, binaries };
        let client = on_core(LOAD_CORE, || connect(&place, 0));
        let client = client.map_err(|error| Fault::other(format!("{error}\n{}", self.system.log_tail())))?;
        let (lan, tap) = (RawPort::open(&self.world, WIRE)?, RawPort::open(&self.world, &client.device)?);
        for _ in 0..HELLOS {
            lan.send(&hello(BROADCAST, LAN_MAC))?;
            tap.send(&hello(BROADCAST, Self::peer_mac(0)))?;
            sleep(SETTLE);
        }
        self.counter.add_foreign_port(peers::CLIENT_PORT)?;
        self.own = Some(client);
        Ok(())
    }

    /// Lets the gateway hear every station once, and waits until it has: what it does not know it floods.
    ///
    /// Clients speak to the LAN's station alone: a thousand broadcasts to a thousand clients are a million copies.
    pub fn introduce(&mut self) -> Result<()> {
        let lan = RawPort::open(&self.world, WIRE)?;
        lan.send(&hello(BROADCAST, PROBE_MAC))?;
        lan.send(&hello(BROADCAST, LAN_MAC))?;
        let Some(fleet) = self.fleet.as_mut() else { return Ok(()) };
        pause(fleet, HELLO_PAUSE);
        for number in 0..fleet.sessions().len() {
            let Some(session) = fleet.sessions_mut().get_mut(number) else { break };
            session
                .send(Instant::now(), &hello(LAN_MAC, Self::peer_mac(number as u32)))
                .map_err(|error| Fault::other(format!("a first frame of client {number}: {error}")))?;
            if number % HELLOS_AT_ONCE == HELLOS_AT_ONCE - 1 {
                pause(fleet, HELLO_PAUSE);
            }
        }
        pause(fleet, SETTLE);
        Ok(())
    }
}

fn hello(destination: Mac, source: Mac) -> Vec<u8> {
    frame::padded(frame::frame(destination, source, ETHERTYPE_PROBE, &[]), 60)
}

/// Lets `time` pass while the clients stay alive.
fn pause(fleet: &mut Fleet, time: Duration) {
    fleet.hold(Instant::now() + time, &AtomicBool::new(false));
}

struct Credentials {
    ca: String,
    certificate: String,
    key: String,
}

/// What a server and its clients identify themselves with, in `folder` and at hand.
fn identities(folder: &Path, keys: Keys) -> Result<Credentials> {
    let pki = Pki::new(keys)?;
    pki.write_server(folder)?;
    let client = pki.issue("client", Purpose::Client)?;
    client.write(folder, "client")?;
    Ok(Credentials { ca: pki.ca().to_owned(), certificate: client.certificate, key: client.key })
}

/// One wire, one queue each way, as it comes from a NIC: checksums finished, tags in place.
fn lay_out(gateway: &Namespace, world: &Namespace) -> Result<()> {
    for namespace in [gateway, world] {
        namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    }
    gateway.ip_batch(&format!(
        "link add {NIC} type veth peer name {WIRE} netns {}
         address add {GATEWAY}/16 dev {NIC}
         link set {NIC} up
         route add default via {ROUTER}",
        world.name()
    ))?;
    world.ip_batch(&format!(
        "address add {ROUTER}/16 dev {WIRE}
         link set {WIRE} up"
    ))?;
    world.run("ethtool", &format!("-K {WIRE} tx off txvlan off"))?;
    // Without an XDP program a veth takes redirected frames only if it has GRO.
    gateway.run("ethtool", &format!("-K {NIC} gro on"))?;
    let up = || world.ip("link show wire").is_ok_and(|text| text.contains("LOWER_UP")).then_some(());
    wait_until("a carrier on the wire", START, up, String::new)
}

/// A folder for one site's files, removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// A new one.
    ///
    /// # Errors
    /// There is no room for temporary files.
    pub fn create() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("trestle-bench-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(Fault::io(format!("creating {}", path.display())))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
