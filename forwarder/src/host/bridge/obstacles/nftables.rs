//! Chains of nftables that see frames of a bridge or a port. Kernel: include/uapi/linux/netfilter/nf_tables.h.

use neli::types::Buffer;
use nix::libc;

use super::super::super::netlink::Requests;
use super::super::super::netlink::nested::Nested;
use super::super::super::{Error, Result};
use super::{Obstacle, ObstacleKind};

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of messages' types.
const SUBSYSTEM: u16 = 10 << 8;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
/// `struct nfgenmsg`: family, version, two bytes.
const HEADER: usize = 4;

mod number {
    pub(super) const GEN_ID: u16 = 1;
    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_POLICY: u16 = 5;
    pub(super) const CHAIN_USE: u16 = 6;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_DEV: u16 = 3;
    pub(super) const HOOK_DEVS: u16 = 4;
    pub(super) const DROP: u32 = 0;
}

/// Chains kept at most; a host with more has rules for certain.
const CHAINS: usize = 4096;

/// What a chain is for (`NFPROTO_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// ARP.
    Arp = 3,
    /// Single interfaces.
    Netdev = 5,
    /// Bridges.
    Bridge = 7,
    /// IPv6.
    Ip6 = 10,
}

/// All that are looked at.
const FAMILIES: [Family; 6] =
    [Family::Inet, Family::Ip, Family::Arp, Family::Netdev, Family::Bridge, Family::Ip6];

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ip6 => "ip6",
        }
    }
}

/// A chain that the kernel calls, and that has rules or drops what no rule takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Whose frames or packets it sees.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where it is called.
    pub hook: u32,
    /// Interfaces it is hooked on; one that ends with `*` stands for many.
    pub devices: Vec<String>,
}

impl Chain {
    /// What a message says, if it is about such a chain.
    pub fn parse(rest: &[u8]) -> Option<Self> {
        let family = *FAMILIES.iter().find(|family| rest.first() == Some(&(**family as u8)))?;
        let attributes = Nested::behind(HEADER, rest);
        let hook = Nested::of(attributes.bytes(number::CHAIN_HOOK)?);
        let drops = attributes.network_number(number::CHAIN_POLICY) == Some(number::DROP);
        // Nothing jumps to a chain that the kernel calls: all that uses it are its rules.
        let has_rules = attributes.network_number(number::CHAIN_USE).is_none_or(|rules| rules > 0);
        (drops || has_rules).then_some(())?;
        Some(Self {
            family,
            table: attributes.text(number::CHAIN_TABLE)?,
            name: attributes.text(number::CHAIN_NAME)?,
            hook: hook.network_number(number::HOOK_NUMBER)?,
            devices: devices(hook),
        })
    }

    /// Family, table and name, as `nft` wants them.
    pub fn shown(&self) -> String {
        format!("{} {} {}", self.family.name(), self.table, self.name)
    }

    /// Whether it sees what passes through: before routing, forwarding, after routing. Frames from and to the host stay
    /// with the kernel anyway.
    fn sees_passing(&self) -> bool {
        match self.family {
            // NF_ARP_FORWARD is 2, the others are the host's own.
            Family::Arp => self.hook == 2,
            Family::Netdev => false,
            // Prerouting, forward, postrouting.
            _ => matches!(self.hook, 0 | 2 | 4),
        }
    }

    fn is_on(&self, port: &str) -> bool {
        self.devices.iter().any(|device| match device.strip_suffix('*') {
            Some(beginning) => port.starts_with(beginning),
            None => device == port,
        })
    }
}

/// One name, or a list of them. A name without a zero at its end, or of the second type, is the beginning of names
/// (kernel 6.16).
fn devices(hook: Nested<'_>) -> Vec<String> {
    let one = hook.bytes(number::HOOK_DEV).map(|name| (1, name));
    let listed = hook.nested(number::HOOK_DEVS).each();
    let mut found: Vec<_> =
        one.into_iter().chain(listed).filter_map(|(kind, name)| device(kind, name)).collect();
    found.dedup();
    found
}

fn device(kind: u16, name: &[u8]) -> Option<String> {
    let end = name.iter().position(|byte| *byte == 0);
    let text = String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned();
    let beginning = kind == 2 || end.is_none();
    (!text.is_empty()).then(|| if beginning { text + "*" } else { text })
}

/// Chains that do something, read anew when the kernel's generation of them is another.
#[derive(Debug)]
pub(super) struct Nftables {
    /// `None`: the kernel has no netfilter netlink.
    requests: Option<Requests>,
    generation: Option<u32>,
    chains: Vec<Chain>,
}

impl Nftables {
    pub(super) fn open() -> Result<Self> {
        let requests = match Requests::netfilter() {
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => None,
            other => Some(other.map_err(Error::os("open a netfilter netlink socket"))?),
        };
        Ok(Self { requests, generation: None, chains: Vec::new() })
    }

    pub(super) fn refresh(&mut self) -> Result<()> {
        let Some(requests) = &mut self.requests else { return Ok(()) };
        let Some(generation) = generation(requests)? else {
            self.chains.clear();
            return Ok(());
        };
        if self.generation == Some(generation) {
            return Ok(());
        }
        let mut chains = Vec::new();
        for family in FAMILIES {
            chains.extend(chains_of(requests, family)?);
        }
        // Read before the chains: if they change meanwhile, they are read once more.
        (self.generation, self.chains) = (Some(generation), chains);
        Ok(())
    }

    /// Chains that see what passes through bridges.
    pub(super) fn on_bridges(&self) -> impl Iterator<Item = String> {
        self.passing(&[Family::Bridge])
    }

    /// Chains of these families that see what passes through.
    pub(super) fn passing(&self, families: &[Family]) -> impl Iterator<Item = String> {
        self.chains
            .iter()
            .filter(|chain| families.contains(&chain.family) && chain.sees_passing())
            .map(Chain::shown)
    }

    /// Chains hooked on these ports, given by number and name.
    pub(super) fn on_ports(&self, ports: &[(u32, &str)]) -> Vec<Obstacle> {
        let hooked = self.chains.iter().filter(|chain| !chain.devices.is_empty());
        let on = |chain: &Chain, (index, name): (u32, &str)| {
            let kind = ObstacleKind::NftablesOnPort { chain: chain.shown(), port: name.to_owned() };
            chain.is_on(name).then_some(Obstacle { port: Some(index), kind })
        };
        hooked.flat_map(|chain| ports.iter().filter_map(move |port| on(chain, *port))).collect()
    }
}

/// `None` where the kernel has no nftables.
fn generation(requests: &mut Requests) -> Result<Option<u32>> {
    let found = requests.request(GET_GENERATION, 0, &question(0), |found: &mut Option<u32>, _, rest| {
        *found = found.or_else(|| Nested::behind(HEADER, rest).network_number(number::GEN_ID));
    });
    match found {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(None),
        other => other.map_err(Error::os("read the generation of nftables")),
    }
}

fn chains_of(requests: &mut Requests, family: Family) -> Result<Vec<Chain>> {
    let found = requests.dump(GET_CHAIN, &question(family as u8), |found: &mut Vec<_>, _, rest| {
        found.extend(Chain::parse(rest).filter(|_| found.len() < CHAINS));
    });
    found.map_err(Error::os(format!("read the chains of nftables' family {}", family.name())))
}

fn question(family: u8) -> Buffer {
    Buffer::from(vec![family, 0, 0, 0])
}
