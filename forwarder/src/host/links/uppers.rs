//! Which interfaces send and receive through another, and so which addresses are the host's own on a NIC's wire.

use std::collections::{BTreeMap, BTreeSet};

use common::Mac;

use super::Link;

/// All interfaces that stand on `nic`, itself included: its VLANs and macvlans, the bridge or bond it is a port of,
/// and what stands on those.
pub fn uppers(links: &BTreeMap<u32, Link>, nic: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([nic]);
    loop {
        let masters = found.iter().filter_map(|index| links.get(index)?.master);
        let children = links.values().filter(|link| link.lower.is_some_and(|lower| found.contains(&lower)));
        let more: BTreeSet<u32> = masters.chain(children.map(|link| link.index)).collect();
        if more.is_subset(&found) {
            return found;
        }
        found.extend(more);
    }
}

/// Addresses of the host that may appear in frames on `nic`: those of all its [`uppers`].
///
/// A macvlan moved into a container is not among this namespace's interfaces; see
/// [`unicast_filter`](super::unicast_filter).
pub fn host_macs(links: &BTreeMap<u32, Link>, nic: u32) -> BTreeSet<Mac> {
    let station = |mac: &Mac| mac[0] & 1 == 0 && *mac != [0; 6];
    uppers(links, nic).iter().filter_map(|index| links.get(index)?.mac).filter(station).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample as link;
    use super::*;

    fn host(links: impl IntoIterator<Item = Link>) -> BTreeMap<u32, Link> {
        links.into_iter().map(|link| (link.index, link)).collect()
    }

    #[test]
    fn children_of_any_depth_and_masters_count_and_strangers_do_not() {
        let links = host([
            link(2, [2, 0, 0, 0, 0, 2]),
            Link { lower: Some(2), ..link(3, [2, 0, 0, 0, 0, 3]) },
            Link { lower: Some(3), ..link(4, [2, 0, 0, 0, 0, 4]) },
            link(5, [2, 0, 0, 0, 0, 5]),
            Link { master: Some(6), ..link(7, [2, 0, 0, 0, 0, 7]) },
            link(6, [2, 0, 0, 0, 0, 6]),
            Link { lower: Some(6), ..link(8, [2, 0, 0, 0, 0, 8]) },
        ]);
        let last = |macs: BTreeSet<Mac>| macs.into_iter().map(|mac| mac[5]).collect::<Vec<_>>();
        assert_eq!(last(host_macs(&links, 2)), [2, 3, 4]);
        assert_eq!(last(host_macs(&links, 5)), [5]);
        assert_eq!(last(host_macs(&links, 7)), [6, 7, 8]);
    }

    #[test]
    fn a_nic_below_a_bridge_has_the_bridge_s_address_but_not_the_other_ports() {
        let bridge = Link { kind: Some("bridge".into()), ..link(9, [2, 0, 0, 0, 0, 9]) };
        let links = host([
            Link { master: Some(9), ..link(2, [2, 0, 0, 0, 0, 2]) },
            Link { master: Some(9), ..link(3, [2, 0, 0, 0, 0, 3]) },
            bridge,
        ]);
        assert!(host_macs(&links, 2).contains(&[2, 0, 0, 0, 0, 9]));
        assert!(!host_macs(&links, 2).contains(&[2, 0, 0, 0, 0, 3]));
    }

    #[test]
    fn zero_and_group_addresses_are_nobody_s() {
        let links = host([link(1, [0; 6]), Link { lower: Some(1), ..link(2, [1, 0, 0, 0, 0, 1]) }]);
        assert!(host_macs(&links, 1).is_empty());
    }
}
