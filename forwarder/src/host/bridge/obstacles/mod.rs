//! What stands on a bridge or a port of it that XDP would bypass, each with a sentence: cause and cure.
//!
//! ```text
//!   frame ─► XDP ─► tc ingress, nft netdev ─► ebtables, nft bridge, br_netfilter ─► qdisc, tc egress ─► port
//!             └──────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Only what can change a frame's way counts: a table without a rule that accepts everything is nothing in the way.

use std::collections::BTreeSet;
use std::fmt;

use super::super::Result;
use super::super::links::XdpMode;
use super::{Bridge, Known};

mod bridge_netfilter;
mod ebtables;
/// Chains of nftables.
pub mod nftables;
/// Traffic control.
pub mod tc;

pub use bridge_netfilter::Call;
use nftables::Nftables;
use tc::TrafficControl;

/// Something that XDP would bypass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The port it concerns; `None`: all of the bridge.
    pub port: Option<u32>,
    /// What it is.
    pub kind: ObstacleKind,
}

/// Kinds of obstacles. Shown, each is a sentence of cause and cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObstacleKind {
    /// A table of ebtables has rules, or drops what no rule takes.
    Ebtables {
        /// `filter`, `nat` or `broute`.
        table: &'static str,
    },
    /// A chain of nftables sees the bridge's frames.
    Nftables {
        /// Family, table and name: `bridge filter forward`.
        chain: String,
    },
    /// A chain of nftables is hooked on the port.
    NftablesOnPort {
        /// Family, table and name.
        chain: String,
        /// The port's name.
        port: String,
    },
    /// The bridge's frames go through the IP firewall, which has rules.
    BridgeNetfilter {
        /// Which firewall.
        call: Call,
        /// The bridge's name, where it is the bridge's own setting; `None`: the sysctl.
        bridge: Option<String>,
        /// What has rules there.
        rules: String,
    },
    /// Somebody else's XDP program.
    Xdp {
        /// As `bpftool prog show id` knows it.
        program_id: u32,
        /// Where it runs.
        mode: XdpMode,
        /// The port's name.
        port: String,
    },
    /// Filters of traffic control: `ingress` or `egress`.
    TcFilter {
        /// `ingress` or `egress`.
        direction: &'static str,
        /// The port's name.
        port: String,
    },
    /// BPF programs of traffic control.
    Tcx {
        /// `ingress` or `egress`.
        direction: &'static str,
        /// The port's name.
        port: String,
    },
    /// A queueing discipline that shapes, or drops on purpose.
    Qdisc {
        /// Its name, as `tc qdisc` shows it.
        kind: String,
        /// The port's name.
        port: String,
    },
}

impl fmt::Display for ObstacleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ebtables { table } => write!(
                f,
                "ebtables has rules, or a policy other than ACCEPT, in its table {table}, which XDP would bypass: \
                 `ebtables-legacy -t {table} -L` shows them; remove them if they are not needed"
            ),
            Self::Nftables { chain } => write!(
                f,
                "the nftables chain {chain} sees the bridge's frames, which XDP would bypass: `nft list chain {chain}` \
                 shows it; remove its rules if they are not needed"
            ),
            Self::NftablesOnPort { chain, port } => write!(
                f,
                "the nftables chain {chain} is hooked on {port}, and XDP would bypass it: `nft list chain {chain}` \
                 shows it; remove it if it is not needed"
            ),
            Self::BridgeNetfilter { call, bridge, rules } => {
                bridge_netfilter::describe(f, *call, bridge, rules)
            }
            Self::Xdp { program_id, mode, port } => {
                let off = match mode {
                    XdpMode::Native => "xdpdrv off",
                    XdpMode::Generic => "xdpgeneric off",
                    XdpMode::Offload => "xdpoffload off",
                    XdpMode::Several => "xdp off",
                };
                write!(
                    f,
                    "{port} has another XDP program (id {program_id}): `bpftool prog show id {program_id}` says whose \
                     it is; stop its owner, or remove it with `ip link set dev {port} {off}`"
                )
            }
            Self::TcFilter { direction, port } => write!(
                f,
                "{port} has tc filters ({direction}), which XDP would bypass: `tc filter show dev {port} {direction}` \
                 shows them; remove them if they are not needed"
            ),
            Self::Tcx { direction, port } => write!(
                f,
                "{port} has a BPF program of tc ({direction}, tcx), which XDP would bypass: `bpftool net show dev \
                 {port}` says which; stop its owner if it is not needed"
            ),
            Self::Qdisc { kind, port } => write!(
                f,
                "{port} has the queueing discipline {kind}, which XDP would bypass: `tc qdisc del dev {port} root` \
                 removes it if it is not needed"
            ),
        }
    }
}

/// Looks for obstacles.
#[derive(Debug)]
pub struct Obstacles {
    nftables: Nftables,
    traffic_control: TrafficControl,
}

impl Obstacles {
    /// Opens what is needed to look.
    pub fn open() -> Result<Self> {
        Ok(Self { nftables: Nftables::open()?, traffic_control: TrafficControl::open()? })
    }

    /// All there are now on the bridge and its ports; `ours` are the ids of our own XDP programs. To be called by the
    /// thread that opened it, in the bridge's namespace. Some tens of microseconds, and one a port: nftables' chains
    /// are read only when their generation is another. There is news of few of these things, so ask every second or so.
    pub fn look(&mut self, known: &Known, ours: &BTreeSet<u32>) -> Result<Vec<Obstacle>> {
        let Some(bridge) = known.bridge() else { return Ok(Vec::new()) };
        let mut found = self.on_bridge(bridge)?;
        let names: Vec<_> =
            known.ports().values().map(|port| (port.link.index, port.link.name.as_str())).collect();
        found.extend(self.nftables.on_ports(&names));
        found.extend(self.traffic_control.on_ports(&names)?);
        found.extend(known.ports().values().filter_map(|port| {
            let xdp = port.link.xdp.filter(|xdp| !ours.contains(&xdp.program_id))?;
            let name = port.link.name.clone();
            let kind = ObstacleKind::Xdp { program_id: xdp.program_id, mode: xdp.mode, port: name };
            Some(Obstacle { port: Some(port.link.index), kind })
        }));
        Ok(found)
    }

    fn on_bridge(&mut self, bridge: &Bridge) -> Result<Vec<Obstacle>> {
        self.nftables.refresh()?;
        let whole = |kind| Obstacle { port: None, kind };
        let mut found: Vec<_> =
            ebtables::tables().map(|table| whole(ObstacleKind::Ebtables { table })).collect();
        let chains = self.nftables.on_bridges();
        found.extend(chains.map(|chain| whole(ObstacleKind::Nftables { chain })));
        found.extend(bridge_netfilter::calls(bridge, &self.nftables).map(whole));
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
