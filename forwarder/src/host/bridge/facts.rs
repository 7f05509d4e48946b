//! What is known of a bridge, its ports and its stations.

use common::{FdbKey, Mac};

use super::super::links::Link;

/// A kernel bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The bridge as an interface: number, name, address, MTU, whether it is up.
    pub link: Link,
    /// How long a station that is not heard stays known, in milliseconds.
    pub ageing_ms: u64,
    /// The spanning tree is on, the kernel's or a daemon's.
    pub stp: bool,
    /// It looks at VLAN tags.
    pub vlan_filtering: bool,
    /// What it takes for a tag: 0x8100 or 0x88a8.
    pub vlan_protocol: u16,
    /// VLAN of untagged frames at ports that are added; 0: none.
    pub default_pvid: u16,
    /// Its IPv4 frames go through iptables (if br_netfilter is there), whatever `net.bridge` says.
    pub calls_iptables: bool,
    /// Its IPv6 frames go through ip6tables, likewise.
    pub calls_ip6tables: bool,
    /// Its ARP frames go through arptables, likewise.
    pub calls_arptables: bool,
    /// It sends groups only where they are asked for.
    pub multicast_snooping: bool,
    /// VLANs have spanning trees of their own.
    pub mst: bool,
}

/// A port of the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port as an interface: number, name, address, MTU, up, running, kind, XDP program.
    pub link: Link,
    /// The other end of a veth.
    pub far_end: Option<FarEnd>,
    /// Settings as a port of the bridge.
    pub settings: PortSettings,
    /// Its VLANs; empty where the kernel has no VLAN filtering.
    pub vlans: Vlans,
}

/// The other end of a veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FarEnd {
    /// Its number, in its namespace.
    pub index: u32,
    /// The number its namespace has in ours; `None`: it is in ours.
    pub namespace: Option<i32>,
}

/// A port's state in the spanning tree; without one, forwarding or disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortState {
    /// Down, or without carrier.
    #[default]
    Disabled,
    /// Waiting.
    Listening,
    /// Learning, but not yet forwarding.
    Learning,
    /// In use.
    Forwarding,
    /// Kept closed, for there is another way.
    Blocking,
}

/// A port's settings in the bridge (`bridge -d link`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// What the spanning tree, or nobody, has it do.
    pub state: PortState,
    /// Frames go out by the port they came in by.
    pub hairpin: bool,
    /// Stations are learnt.
    pub learning: bool,
    /// Unicast to unknown stations goes there.
    pub unicast_flood: bool,
    /// Groups go there.
    pub multicast_flood: bool,
    /// Broadcast goes there.
    pub broadcast_flood: bool,
    /// Exchanges no frames with other isolated ports.
    pub isolated: bool,
    /// Only stations entered by hand may send.
    pub locked: bool,
    /// The bridge answers ARP and neighbour discovery itself (`neigh_suppress`, `proxy_arp` or `proxy_arp_wifi`).
    pub answers_neighbours: bool,
    /// VLANs are mapped to tunnels.
    pub vlan_tunnel: bool,
    /// Number of the port that takes over when this one has no carrier.
    pub backup: Option<u32>,
}

impl Default for PortSettings {
    /// As the kernel makes a port.
    fn default() -> Self {
        Self {
            state: PortState::Disabled,
            hairpin: false,
            learning: true,
            unicast_flood: true,
            multicast_flood: true,
            broadcast_flood: true,
            isolated: false,
            locked: false,
            answers_neighbours: false,
            vlan_tunnel: false,
            backup: None,
        }
    }
}

/// A port's VLANs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vlans {
    /// VLAN of untagged frames that come in; `None`: they are dropped.
    pub pvid: Option<u16>,
    /// Ranges, in order, neither touching unless they differ.
    pub ranges: Vec<VlanRange>,
}

/// VLANs from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanRange {
    /// The first.
    pub first: u16,
    /// The last, itself included.
    pub last: u16,
    /// Their frames leave without a tag.
    pub untagged: bool,
}

impl Vlans {
    /// Whether frames of `vlan` pass the port, and if so, whether they leave without a tag.
    pub fn untagged(&self, vlan: u16) -> Option<bool> {
        let range = self.ranges.iter().find(|range| (range.first..=range.last).contains(&vlan))?;
        Some(range.untagged)
    }

    /// The VLANs whose frames leave without a tag.
    pub fn untagged_ranges(&self) -> impl Iterator<Item = VlanRange> {
        self.ranges.iter().copied().filter(|range| range.untagged)
    }
}

/// An entry of the bridge's forwarding database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// VLAN (0 where the bridge does not filter) and address. The segment is always 0.
    pub key: FdbKey,
    /// Number of the port it is at; of the bridge itself where it is the bridge's own.
    pub port: u32,
    /// Where the entry comes from.
    pub kind: StationKind,
    /// It does not move, wherever it is heard.
    pub sticky: bool,
    /// Heard at a locked port: nothing of it is forwarded.
    pub locked: bool,
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StationKind {
    /// The bridge heard it; it ages.
    Learned,
    /// Somebody entered it for good.
    Static,
    /// It is this host's: the bridge's own address, or a port's.
    Local,
    /// A program vouches for it (`extern_learn`): for peers' stations, we.
    ExternLearned,
}

/// The order of stations in the mirror.
pub(super) type StationKey = (u16, Mac);

impl Station {
    pub(super) fn sort_key(&self) -> StationKey {
        (self.key.vlan, self.key.mac)
    }
}
