//! Which number a port of the bridge has among the wires.

use std::collections::BTreeMap;

use crate::switch::WireId;

/// Numbers of ports, by interface. The uplink's is never given.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    by_port: BTreeMap<u32, WireId>,
    /// The one given last.
    last: u16,
}

impl Numbers {
    /// Gives `port` a number; `None` when all are taken. The one that was freed last comes last again, so that whoever
    /// still holds an old word of it is mistaken for nobody else.
    pub fn give(&mut self, port: u32) -> Option<WireId> {
        let count = u16::try_from(WireId::COUNT).unwrap_or(u16::MAX);
        let behind = (1..count).map(|step| (self.last + step) % count);
        let free = behind
            .filter_map(WireId::new)
            .find(|wire| *wire != WireId::UPLINK && self.port(*wire).is_none())?;
        self.last = free.number();
        self.by_port.insert(port, free);
        Some(free)
    }

    /// The number of `port`.
    pub fn of(&self, port: u32) -> Option<WireId> {
        self.by_port.get(&port).copied()
    }

    /// The port with this number.
    pub fn port(&self, wire: WireId) -> Option<u32> {
        self.by_port.iter().find(|(_, given)| **given == wire).map(|(port, _)| *port)
    }

    /// The port is none any more.
    pub fn free(&mut self, port: u32) {
        self.by_port.remove(&port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_in_turn_and_never_twice_nor_the_uplinks() {
        let mut numbers = Numbers::default();
        let given: Vec<u16> = (100..355).map(|port| numbers.give(port).unwrap().number()).collect();
        assert_eq!(given, (1..256).collect::<Vec<_>>());
        assert_eq!(numbers.give(999), None);
        let (one, two) = (numbers.of(100).unwrap(), numbers.of(101).unwrap());
        numbers.free(101);
        assert_eq!((numbers.port(one), numbers.port(two), numbers.of(101)), (Some(100), None, None));
        assert_eq!(numbers.give(999), Some(two));
    }

    #[test]
    fn a_freed_number_waits_until_the_others_had_their_turn() {
        let mut numbers = Numbers::default();
        let first = numbers.give(1).unwrap();
        numbers.free(1);
        assert_ne!(numbers.give(2), Some(first));
    }
}
