use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::agent::Agent;
use crate::branch::Branch;
use crate::frame::Mac;
use crate::gateway::{Gateway, Mode, Start};
use crate::netns::Namespace;
use crate::network::{Layout, Network};
use crate::pki::{Keys, Pki};
use crate::process::run;
use crate::{Fault, Result};

/// A network with a gateway and its agents. Everything ends and vanishes when it is dropped.
#[derive(Debug)]
pub struct Site {
    // Dropped in this order: processes first, then the namespaces, then the files.
    /// Stock clients, one in each of the network's agent namespaces.
    pub agents: Vec<Agent>,
    /// Another site that joins this one, if there is one.
    pub branch: Option<Branch>,
    /// The gateway, if it runs.
    pub gateway: Option<Gateway>,
    /// The namespaces.
    pub network: Network,
    /// Who signs.
    pub pki: Pki,
    addresses: Vec<Ipv4Addr>,
    start: Start,
    folder: Folder,
}

impl Site {
    /// Lays out a network and writes keys and certificates; starts nothing.
    pub fn prepare(layout: Layout, start: Start) -> Result<Self> {
        Self::prepare_with(layout, start, Keys::Ecdsa)
    }

    /// The same with another kind of keys.
    pub fn prepare_with(layout: Layout, start: Start, keys: Keys) -> Result<Self> {
        let folder = Folder::create()?;
        let pki = Pki::new(keys)?;
        pki.write_server(folder.path())?;
        let network = Network::lay_out(layout)?;
        let (branch, gateway) = (None, None);
        Ok(Self { agents: Vec::new(), branch, gateway, network, pki, addresses: Vec::new(), start, folder })
    }

    /// Lays out a network, starts the gateway and connects every agent.
    pub fn open(layout: Layout, start: Start) -> Result<Self> {
        let mut site = Self::prepare(layout, start)?;
        site.start_gateway()?;
        site.connect_agents(&[])?;
        Ok(site)
    }

    /// How its gateway is started.
    pub fn start(&mut self) -> &mut Start {
        &mut self.start
    }

    /// Starts the gateway and waits until it serves.
    pub fn start_gateway(&mut self) -> Result<()> {
        self.gateway = None;
        self.gateway = Some(Gateway::start(&self.network.gateway, self.folder.path(), &self.start)?);
        Ok(())
    }

    /// The gateway that runs.
    pub fn gateway(&mut self) -> Result<&mut Gateway> {
        self.gateway.as_mut().ok_or_else(|| Fault::other("the gateway of this site is not started"))
    }

    /// Starts a client in every agent namespace, `arguments` added, and waits until all are connected.
    pub fn connect_agents(&mut self, arguments: &[&str]) -> Result<()> {
        self.agents.clear();
        for (number, namespace) in (1..).zip(&self.network.agents) {
            let name = format!("agent{number}");
            let agent = Agent::launch(namespace, self.folder.path(), &self.pki, &name, arguments)?;
            self.agents.push(agent);
        }
        self.wait_connected()
    }

    /// Waits until every agent is connected.
    pub fn wait_connected(&mut self) -> Result<()> {
        self.addresses.clear();
        let gateway = self.gateway.as_ref();
        for (agent, namespace) in self.agents.iter_mut().zip(&self.network.agents) {
            let address = agent.wait_connected(namespace).map_err(|fault| match gateway {
                Some(gateway) => Fault::other(format!("{fault}\n{}", gateway.log_tail())),
                None => fault,
            })?;
            self.addresses.push(address);
        }
        Ok(())
    }

    /// Address of agent `number` (from 0) inside the tunnel.
    pub fn address(&self, number: usize) -> Ipv4Addr {
        self.addresses.get(number).copied().unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// Namespace of agent `number` (from 0).
    pub fn agent(&self, number: usize) -> &Namespace {
        &self.network.agents[number]
    }

    /// Hardware address of agent `number` (from 0) inside the tunnel.
    pub fn mac(&self, number: usize) -> Result<Mac> {
        self.agent(number).mac("tap0")
    }

    /// Lays out another site behind the first agent's namespace, which joins this one in `mode`; starts nothing.
    pub fn prepare_branch(&mut self, mode: Mode) -> Result<&mut Branch> {
        let branch = Branch::prepare(&self.network.agents[0], self.folder.path(), &self.pki, mode)?;
        Ok(self.branch.insert(branch))
    }

    /// The site that joins.
    pub fn branch(&mut self) -> Result<&mut Branch> {
        self.branch.as_mut().ok_or_else(|| Fault::other("no other site is laid out"))
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The end of every log and what the gateway counts as lost, for a report of failure.
    pub fn evidence(&self) -> String {
        let drops = self.gateway.iter().filter_map(|gateway| gateway.table("drops").ok());
        let gateway = self.gateway.iter().map(Gateway::log_tail);
        let agents = self.agents.iter().map(|agent| crate::process::tail(agent.name(), &agent.log()));
        let branch = self.branch.iter().filter_map(|branch| branch.gateway.as_ref()).map(Gateway::log_tail);
        gateway.chain(drops).chain(agents).chain(branch).collect::<Vec<_>>().join("\n")
    }
}

/// A folder for one site's files, removed when dropped; kept if `TRESTLE_KEEP` is set.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("trestle-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(Fault::io(format!("creating {}", path.display())))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        match std::env::var_os("TRESTLE_KEEP") {
            Some(_) => eprintln!("kept: {}", self.0.display()),
            None => drop(std::fs::remove_dir_all(&self.0)),
        }
    }
}

/// Whether this process may make network namespaces.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Which of the programs that the harness shells out to are missing.
pub fn missing_programs() -> Vec<&'static str> {
    const NEEDED: &[&str] =
        &["ip", "nft", "nsenter", "unshare", "ethtool", "openvpn", "ping", "iperf3", "openssl"];
    let found = |program: &str| {
        let shell = format!("command -v {program}");
        run(std::process::Command::new("sh").args(["-c", &shell]), 5).is_ok()
    };
    NEEDED.iter().copied().filter(|program| !found(program)).collect()
}
