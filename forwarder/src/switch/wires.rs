//! The NICs of a gateway, by number, and which of them are ports of a segment.

/// A NIC of the gateway: the same number in the MAC table, the workers and the eBPF maps, where it is the slot of PORTS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireId(u16);

impl WireId {
    /// The NIC of `--uplink`.
    pub const UPLINK: Self = Self(0);
    /// Numbers there are: one for the uplink, the others for ports of a bridge.
    pub const COUNT: usize = 256;

    /// The wire with that number; `None` from [`WireId::COUNT`] on.
    pub fn new(number: u16) -> Option<Self> {
        (usize::from(number) < Self::COUNT).then_some(Self(number))
    }

    /// Its number, below [`WireId::COUNT`].
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The same, to index with.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of wires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireSet([u64; WireId::COUNT / 64]);

impl WireSet {
    /// Whether the wire is one of them.
    pub fn contains(&self, wire: WireId) -> bool {
        self.0[wire.index() / 64] >> (wire.index() % 64) & 1 == 1
    }

    /// Makes the wire one of them, or none.
    pub fn set(&mut self, wire: WireId, present: bool) {
        let (word, bit) = (&mut self.0[wire.index() / 64], 1 << (wire.index() % 64));
        *word = if present { *word | bit } else { *word & !bit };
    }
}

/// Which wires are ports of a segment, beside the host and the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wires {
    /// None (underlay): the host is an ordinary port of its own.
    None,
    /// The uplink's (bridge mode).
    Uplink,
    /// Those of a kernel bridge, of which the host port is one more port.
    Joined(Joined),
}

/// A kernel bridge, as far as its frames pass the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Wires that frames of peers leave by without passing the bridge.
    pub open: WireSet,
    /// The bridge filters VLANs: a station stands in one, and not in all whatever its frames' tags.
    pub vlan_aware: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_wires_has_what_was_put_in_and_not_taken_out() {
        let mut set = WireSet::default();
        let all = || (0..WireId::COUNT).filter_map(|number| WireId::new(u16::try_from(number).unwrap()));
        all().filter(|wire| wire.number() % 3 == 0).for_each(|wire| set.set(wire, true));
        assert!(all().all(|wire| set.contains(wire) == (wire.number() % 3 == 0)));
        all().filter(|wire| wire.number() % 2 == 0).for_each(|wire| set.set(wire, false));
        assert!(all().all(|wire| set.contains(wire) == (wire.number() % 6 == 3)));
    }

    #[test]
    fn there_are_no_more_wires_than_the_maps_have_slots_for() {
        assert_eq!(WireId::new(255).map(WireId::number), Some(255));
        assert_eq!(WireId::new(256), None);
    }
}
