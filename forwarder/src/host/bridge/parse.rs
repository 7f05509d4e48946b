//! What the kernel's messages say about bridges. Numbers from include/uapi/linux/if_link.h, if_bridge.h and neighbour.h.

use common::FdbKey;
use nix::libc;

use super::super::links::Link;
use super::super::netlink::nested::Nested;
use super::facts::{Bridge, FarEnd, PortSettings, PortState, Station, StationKind, VlanRange, Vlans};

/// `IFLA_…`.
mod ifla {
    pub(super) const LINK: u16 = 5;
    pub(super) const MASTER: u16 = 10;
    pub(super) const PROTINFO: u16 = 12;
    pub(super) const LINKINFO: u16 = 18;
    pub(super) const AF_SPEC: u16 = 26;
    pub(super) const LINK_NETNSID: u16 = 37;
    pub(super) const INFO_DATA: u16 = 2;
    pub(super) const INFO_SLAVE_KIND: u16 = 4;
    pub(super) const INFO_SLAVE_DATA: u16 = 5;
}

/// `IFLA_BR_…`.
mod br {
    pub(super) const AGEING_TIME: u16 = 4;
    pub(super) const STP_STATE: u16 = 5;
    pub(super) const VLAN_FILTERING: u16 = 7;
    pub(super) const VLAN_PROTOCOL: u16 = 8;
    pub(super) const MCAST_SNOOPING: u16 = 23;
    pub(super) const NF_CALL_IPTABLES: u16 = 36;
    pub(super) const NF_CALL_IP6TABLES: u16 = 37;
    pub(super) const NF_CALL_ARPTABLES: u16 = 38;
    pub(super) const VLAN_DEFAULT_PVID: u16 = 39;
    pub(super) const MULTI_BOOLOPT: u16 = 46;
    /// `BR_BOOLOPT_MST_ENABLE`.
    pub(super) const BOOLOPT_MST: u32 = 2;
}

/// `IFLA_BRPORT_…`.
mod port {
    pub(super) const STATE: u16 = 1;
    pub(super) const MODE: u16 = 4;
    pub(super) const LEARNING: u16 = 8;
    pub(super) const UNICAST_FLOOD: u16 = 9;
    pub(super) const PROXYARP: u16 = 10;
    pub(super) const PROXYARP_WIFI: u16 = 12;
    pub(super) const MCAST_FLOOD: u16 = 27;
    pub(super) const VLAN_TUNNEL: u16 = 29;
    pub(super) const BCAST_FLOOD: u16 = 30;
    pub(super) const NEIGH_SUPPRESS: u16 = 32;
    pub(super) const ISOLATED: u16 = 33;
    pub(super) const BACKUP_PORT: u16 = 34;
    pub(super) const LOCKED: u16 = 39;
    /// Since 6.3: neighbours are suppressed for single VLANs.
    pub(super) const NEIGH_VLAN_SUPPRESS: u16 = 43;
}

/// `IFLA_BRIDGE_VLAN_INFO` and the flags in it.
mod vlan {
    pub(super) const INFO: u16 = 2;
    pub(super) const PVID: u16 = 1 << 1;
    pub(super) const UNTAGGED: u16 = 1 << 2;
    pub(super) const RANGE_BEGIN: u16 = 1 << 3;
    pub(super) const RANGE_END: u16 = 1 << 4;
}

/// `NDA_…`.
mod nda {
    pub(super) const LLADDR: u16 = 2;
    pub(super) const VLAN: u16 = 5;
    pub(super) const MASTER: u16 = 9;
    pub(super) const FLAGS_EXT: u16 = 15;
    /// `NTF_STICKY`.
    pub(super) const STICKY: u8 = 1 << 6;
    /// `NTF_EXT_LOCKED`.
    pub(super) const EXT_LOCKED: u32 = 1 << 1;
}

/// `struct ifinfomsg`: family, padding, type, number, flags, change.
const LINK_HEADER: usize = 16;
/// `struct ndmsg`: family, padding, number, state, flags, type.
const NEIGHBOUR_HEADER: usize = 12;
/// The kernel's clock as it tells of it (`USER_HZ`), in milliseconds a tick.
const TICK_MS: u64 = 10;

/// A message about an interface.
#[derive(Debug)]
pub(super) enum LinkNews<'a> {
    /// The whole of it (`AF_UNSPEC`).
    Whole(Link, Nested<'a>),
    /// What a bridge says of one of its ports (`AF_BRIDGE`).
    Port(PortNews<'a>),
}

/// What a bridge says of one of its ports.
#[derive(Debug)]
pub(super) struct PortNews<'a> {
    pub index: u32,
    pub bridge: u32,
    attributes: Nested<'a>,
}

/// What `RTM_NEWLINK` and `RTM_DELLINK` hold.
pub(super) fn link(rest: &[u8]) -> Option<LinkNews<'_>> {
    let attributes = Nested::behind(LINK_HEADER, rest);
    if rest.first() != Some(&BRIDGE_FAMILY) {
        return Some(LinkNews::Whole(Link::parse(rest)?, attributes));
    }
    let index = u32::from_ne_bytes(rest.get(4..8)?.try_into().ok()?);
    Some(LinkNews::Port(PortNews { index, bridge: attributes.number(ifla::MASTER)?, attributes }))
}

const BRIDGE_FAMILY: u8 = {
    assert!(libc::AF_BRIDGE == 7);
    7
};

/// The bridge that `link` is.
pub(super) fn bridge(link: Link, attributes: Nested<'_>) -> Option<Bridge> {
    if !link.is_bridge() {
        return None;
    }
    let data = attributes.nested(ifla::LINKINFO).nested(ifla::INFO_DATA);
    let on = |kind| data.byte(kind).is_some_and(|value| value != 0);
    Some(Bridge {
        ageing_ms: u64::from(data.number(br::AGEING_TIME)?) * TICK_MS,
        stp: data.number(br::STP_STATE)? != 0,
        vlan_filtering: on(br::VLAN_FILTERING),
        vlan_protocol: data.array(br::VLAN_PROTOCOL).map_or(0x8100, u16::from_be_bytes),
        default_pvid: data.short(br::VLAN_DEFAULT_PVID).unwrap_or(0),
        calls_iptables: on(br::NF_CALL_IPTABLES),
        calls_ip6tables: on(br::NF_CALL_IP6TABLES),
        calls_arptables: on(br::NF_CALL_ARPTABLES),
        multicast_snooping: on(br::MCAST_SNOOPING),
        // struct br_boolopt_multi: values, then which of them count.
        mst: data
            .bytes(br::MULTI_BOOLOPT)
            .and_then(|options| options.first_chunk())
            .is_some_and(|values| u32::from_ne_bytes(*values) & (1 << br::BOOLOPT_MST) != 0),
        link,
    })
}

/// Settings of `AF_UNSPEC` news about a port of a bridge.
pub(super) fn port_settings(attributes: Nested<'_>) -> Option<PortSettings> {
    let info = attributes.nested(ifla::LINKINFO);
    let ours = info.text(ifla::INFO_SLAVE_KIND).as_deref() == Some("bridge");
    ours.then(|| settings(info.nested(ifla::INFO_SLAVE_DATA))).flatten()
}

/// The other end of a veth.
pub(super) fn far_end(link: &Link, attributes: Nested<'_>) -> Option<FarEnd> {
    if link.kind.as_deref() != Some("veth") {
        return None;
    }
    let index = attributes.number(ifla::LINK).filter(|index| *index != 0)?;
    Some(FarEnd { index, namespace: attributes.array(ifla::LINK_NETNSID).map(i32::from_ne_bytes) })
}

impl PortNews<'_> {
    /// The port's settings, if the message has them.
    pub(super) fn settings(&self) -> Option<PortSettings> {
        settings(self.attributes.nested(ifla::PROTINFO))
    }

    /// The port's VLANs. A kernel without VLAN filtering does not say, nor does a port without a VLAN: none.
    pub(super) fn vlans(&self) -> Vlans {
        vlans(self.attributes.nested(ifla::AF_SPEC))
    }
}

fn settings(data: Nested<'_>) -> Option<PortSettings> {
    let on = |kind| data.byte(kind).is_some_and(|value| value != 0);
    // What an old kernel does not say is as if the port had just been made.
    let unless_off = |kind| data.byte(kind).is_none_or(|value| value != 0);
    let suppressing = [port::NEIGH_SUPPRESS, port::NEIGH_VLAN_SUPPRESS, port::PROXYARP, port::PROXYARP_WIFI];
    Some(PortSettings {
        state: match data.byte(port::STATE)? {
            1 => PortState::Listening,
            2 => PortState::Learning,
            3 => PortState::Forwarding,
            4 => PortState::Blocking,
            _ => PortState::Disabled,
        },
        hairpin: on(port::MODE),
        learning: unless_off(port::LEARNING),
        unicast_flood: unless_off(port::UNICAST_FLOOD),
        multicast_flood: unless_off(port::MCAST_FLOOD),
        broadcast_flood: unless_off(port::BCAST_FLOOD),
        isolated: on(port::ISOLATED),
        locked: on(port::LOCKED),
        answers_neighbours: suppressing.into_iter().any(on),
        vlan_tunnel: on(port::VLAN_TUNNEL),
        backup: data.number(port::BACKUP_PORT),
    })
}

/// `IFLA_BRIDGE_VLAN_INFO`, compressed or not: rows of `struct bridge_vlan_info { u16 flags; u16 vid; }`.
fn vlans(spec: Nested<'_>) -> Vlans {
    let mut found = Vlans::default();
    let mut begun = None;
    for (flags, vid) in spec.each().filter(|(kind, _)| *kind == vlan::INFO).filter_map(|(_, row)| entry(row))
    {
        if flags & vlan::PVID != 0 {
            found.pvid = Some(vid);
        }
        if flags & vlan::RANGE_BEGIN != 0 {
            begun = Some(vid);
            continue;
        }
        let first = if flags & vlan::RANGE_END != 0 { begun.take().unwrap_or(vid) } else { vid };
        add(&mut found.ranges, VlanRange { first, last: vid, untagged: flags & vlan::UNTAGGED != 0 });
    }
    found
}

fn entry(row: &[u8]) -> Option<(u16, u16)> {
    let [f0, f1, v0, v1] = *row.first_chunk()?;
    let vid = u16::from_ne_bytes([v0, v1]);
    (1..4095).contains(&vid).then_some((u16::from_ne_bytes([f0, f1]), vid))
}

/// Joins neighbouring VLANs of the same kind; what goes backwards is passed over.
fn add(ranges: &mut Vec<VlanRange>, range: VlanRange) {
    if range.first > range.last {
        return;
    }
    match ranges.last_mut() {
        Some(last) if range.first <= last.last => {}
        Some(last) if last.untagged == range.untagged && last.last + 1 == range.first => {
            last.last = range.last;
        }
        _ => ranges.push(range),
    }
}

/// What `RTM_NEWNEIGH` and `RTM_DELNEIGH` say about a station of `bridge`; `None` for all other neighbours.
pub(super) fn station(rest: &[u8], bridge: u32) -> Option<Station> {
    let header: &[u8; NEIGHBOUR_HEADER] = rest.first_chunk()?;
    let [family, _, _, _, i0, i1, i2, i3, s0, s1, flags, _] = *header;
    let attributes = Nested::behind(NEIGHBOUR_HEADER, rest);
    if family != BRIDGE_FAMILY || attributes.number(nda::MASTER) != Some(bridge) {
        return None;
    }
    Some(Station {
        key: FdbKey::new(attributes.short(nda::VLAN).unwrap_or(0), attributes.array(nda::LLADDR)?),
        port: u32::from_ne_bytes([i0, i1, i2, i3]),
        kind: kind(u16::from_ne_bytes([s0, s1]), flags),
        sticky: flags & nda::STICKY != 0,
        locked: attributes.number(nda::FLAGS_EXT).is_some_and(|flags| flags & nda::EXT_LOCKED != 0),
    })
}

/// Kernel: `fdb_to_nud` in net/bridge/br_fdb.c.
fn kind(state: u16, flags: u8) -> StationKind {
    if state & libc::NUD_PERMANENT != 0 {
        StationKind::Local
    } else if flags & libc::NTF_EXT_LEARNED != 0 {
        StationKind::ExternLearned
    } else if state & libc::NUD_NOARP != 0 {
        StationKind::Static
    } else {
        StationKind::Learned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `IFLA_AF_SPEC`'s inside, of rows of flags and VLAN.
    fn spec(rows: &[(u16, u16)]) -> Vec<u8> {
        rows.iter()
            .flat_map(|(flags, vid)| [8, vlan::INFO, *flags, *vid])
            .flat_map(u16::to_ne_bytes)
            .collect()
    }

    #[test]
    fn vlans_come_in_ranges_or_one_by_one_and_mean_the_same() {
        let begin = vlan::RANGE_BEGIN;
        let end = vlan::RANGE_END;
        let ranges = spec(&[(vlan::PVID | vlan::UNTAGGED, 1), (begin, 100), (end, 102)]);
        let single = spec(&[(vlan::PVID | vlan::UNTAGGED, 1), (0, 100), (0, 101), (0, 102)]);
        let found = vlans(Nested::of(&ranges));
        assert_eq!(found, vlans(Nested::of(&single)));
        assert_eq!(found.pvid, Some(1));
        assert_eq!(found.untagged_ranges().count(), 1);
        assert_eq!(
            [1, 2, 100, 102, 103].map(|vlan| found.untagged(vlan)),
            [Some(true), None, Some(false), Some(false), None]
        );
    }

    #[test]
    fn ranges_that_make_no_sense_let_nothing_more_pass() {
        let backwards =
            spec(&[(vlan::RANGE_BEGIN, 200), (vlan::RANGE_END, 100), (0, 0), (0, 4095), (0, 9000)]);
        assert_eq!(vlans(Nested::of(&backwards)), Vlans::default());
        let unended = spec(&[(vlan::RANGE_BEGIN, 7)]);
        assert_eq!(vlans(Nested::of(&unended)), Vlans::default());
    }

    #[test]
    fn a_neighbour_of_another_table_is_no_station() {
        let mut rest = vec![0u8; NEIGHBOUR_HEADER];
        rest[0] = BRIDGE_FAMILY;
        rest.extend([10, 0, 2, 0, 2, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(station(&rest, 9), None, "of no bridge");
        rest.extend([8, 0, 9, 0]);
        rest.extend(9u32.to_ne_bytes());
        assert_eq!(station(&rest, 9).unwrap().kind, StationKind::Learned);
        assert_eq!(station(&rest, 8), None, "of another");
        rest[0] = 2;
        assert_eq!(station(&rest, 9), None, "ARP");
    }
}
