//! Another site, which joins the reference network's segment through a gateway of its own.
//!
//! ```text
//!   host    eth0 10.10.21.60 ─┐
//!   gateway ens5 192.0.2.5 ───┤ wire (a switch)
//!   router  lan0 192.0.2.1 ───┘        router  eth0 198.51.100.11 ─ internet
//! ```
//! The router is the namespace of the reference network's first agent.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::agent::profile;
use crate::fault::write_file;
use crate::gateway::{Gateway, Mode};
use crate::netns::Namespace;
use crate::network::{NIC, plug};
use crate::pki::{Pki, Purpose};

/// The branch host's address: of the subnet that both sites share.
pub const BRANCH_HOST: Ipv4Addr = Ipv4Addr::new(10, 10, 21, 60);
/// The gateway's own address, and its router's.
const OWN: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(192, 0, 2, 5), Ipv4Addr::new(192, 0, 2, 1));

/// The site that joins.
#[derive(Debug)]
pub struct Branch {
    // Dropped in this order: the process first, then its namespaces.
    /// The gateway, if it runs.
    pub gateway: Option<Gateway>,
    /// Where it runs.
    pub site: Namespace,
    /// The switch between gateway, host and router.
    pub wire: Namespace,
    /// A host of the site, device `eth0`.
    pub host: Namespace,
    folder: PathBuf,
    /// The profile, as it is written before each start.
    pub profile: String,
    mode: Mode,
}

impl Branch {
    /// Lays the site out behind `router` and writes its certificate and profile below `folder`; starts nothing.
    pub fn prepare(router: &Namespace, folder: &Path, pki: &Pki, mode: Mode) -> Result<Self> {
        let folder = folder.join("branch");
        std::fs::create_dir_all(&folder).map_err(crate::Fault::io("creating a folder"))?;
        pki.issue("branch", Purpose::Client)?.write(&folder, "client")?;
        let branch = Self {
            gateway: None,
            site: Namespace::create("branch")?,
            wire: Namespace::create("branch-wire")?,
            host: Namespace::create("branch-host")?,
            folder,
            profile: profile(pki),
            mode,
        };
        branch.lay_out(router)?;
        Ok(branch)
    }

    fn lay_out(&self, router: &Namespace) -> Result<()> {
        let wire = self.wire.name();
        self.wire.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        self.wire.ip("link add sw type bridge mcast_snooping 0 forward_delay 0")?;
        self.wire.ip("link set sw up")?;
        self.site.ip_batch(&format!(
            "link add {NIC} type veth peer name w-gw netns {wire}
             address add {}/24 dev {NIC}
             link set {NIC} up
             route add default via {}",
            OWN.0, OWN.1
        ))?;
        self.host.ip_batch(&format!(
            "link add eth0 type veth peer name w-host netns {wire}
             address add {BRANCH_HOST}/24 dev eth0
             link set eth0 up"
        ))?;
        router.ip_batch(&format!(
            "link add lan0 type veth peer name w-router netns {wire}
             address add {}/24 dev lan0
             link set lan0 up",
            OWN.1
        ))?;
        plug(&self.wire, &["w-gw", "w-host", "w-router"])?;
        self.wire.run("ethtool", "-K w-gw tx off txvlan off")?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        router.nft(
            "table ip branch {
               chain out {
                 type nat hook postrouting priority 100
                 oifname \"eth0\" masquerade
               }
             }",
        )
    }

    /// Starts the gateway with the profile as it is now, and waits until it answers the operator.
    pub fn start(&mut self) -> Result<&mut Gateway> {
        self.gateway = None;
        write_file(&self.folder.join("client.ovpn"), &self.profile)?;
        Ok(self.gateway.insert(Gateway::join(&self.site, &self.folder, self.mode, NIC)?))
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
