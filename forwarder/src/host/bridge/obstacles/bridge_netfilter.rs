//! br_netfilter: a bridge's IP packets going through the IP firewall. It counts where that has rules: the switches alone
//! are on by default wherever the module is.

use std::fmt;
use std::fs;

use super::super::Bridge;
use super::ObstacleKind;
use super::nftables::{Family, Nftables};

/// A firewall that a bridge's frames may go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// IPv4.
    Iptables,
    /// IPv6.
    Ip6tables,
    /// ARP.
    Arptables,
}

const CALLS: [Call; 3] = [Call::Iptables, Call::Ip6tables, Call::Arptables];

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Ip6tables => "ip6tables",
            Self::Arptables => "arptables",
        }
    }

    fn families(self) -> &'static [Family] {
        match self {
            Self::Iptables => &[Family::Ip, Family::Inet],
            Self::Ip6tables => &[Family::Ip6, Family::Inet],
            Self::Arptables => &[Family::Arp],
        }
    }

    /// Names of the old tool's tables that are in use in this thread's namespace.
    fn legacy_tables(self) -> &'static str {
        match self {
            Self::Iptables => "/proc/thread-self/net/ip_tables_names",
            Self::Ip6tables => "/proc/thread-self/net/ip6_tables_names",
            Self::Arptables => "/proc/thread-self/net/arp_tables_names",
        }
    }

    fn of_bridge(self, bridge: &Bridge) -> bool {
        match self {
            Self::Iptables => bridge.calls_iptables,
            Self::Ip6tables => bridge.calls_ip6tables,
            Self::Arptables => bridge.calls_arptables,
        }
    }

    fn sysctl(self) -> String {
        format!("net.bridge.bridge-nf-call-{}", self.name())
    }
}

/// What of `bridge`'s frames goes through a firewall with rules.
pub(super) fn calls(bridge: &Bridge, nftables: &Nftables) -> impl Iterator<Item = ObstacleKind> {
    CALLS.into_iter().filter_map(move |call| {
        // Without the module there is no such file, and a bridge's own setting does nothing.
        let everywhere = switched_on(call)?;
        let own = call.of_bridge(bridge);
        if !everywhere && !own {
            return None;
        }
        let rules = nftables.passing(call.families()).next().or_else(|| legacy(call))?;
        let bridge = (!everywhere).then(|| bridge.link.name.clone());
        Some(ObstacleKind::BridgeNetfilter { call, bridge, rules })
    })
}

fn switched_on(call: Call) -> Option<bool> {
    let path = format!("/proc/sys/{}", call.sysctl().replace('.', "/"));
    fs::read_to_string(path).ok().map(|text| text.trim() != "0")
}

/// Whether a table has rules the old tools tell only by asking for all of it: one in use is taken for one with rules.
fn legacy(call: Call) -> Option<String> {
    let names = fs::read_to_string(call.legacy_tables()).ok()?;
    let first = names.lines().next()?;
    Some(format!("the table {first} of {}", call.name()))
}

pub(super) fn describe(
    f: &mut fmt::Formatter<'_>,
    call: Call,
    bridge: &Option<String>,
    rules: &str,
) -> fmt::Result {
    let name = call.name();
    let switch = match bridge {
        Some(bridge) => format!("`ip link set dev {bridge} type bridge nf_call_{name} 0`"),
        None => format!("`sysctl {}=0`", call.sysctl()),
    };
    write!(
        f,
        "the bridge's frames go through {name} (br_netfilter), where {rules} has rules, which XDP would bypass: \
         {switch} if they are not meant for bridged frames"
    )
}
