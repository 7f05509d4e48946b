//! What one worker knows of the MAC table: its own copy, kept up to date by commands from the control thread.

use std::{collections::HashMap, time::Instant};

use common::FdbKey;
use foldhash::fast::RandomState;

use super::{Port, Station};

/// One worker's copy of the MAC table.
///
/// A source the table does not have may be entered at once, ahead of the control thread's word ([`Fdb::anticipate`]):
/// the answer to a first frame must find its way.
#[derive(Debug, Default)]
pub struct Fdb {
    // Seeded at random: peers choose the keys.
    stations: HashMap<FdbKey, Known, RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    station: Station,
    /// When the control thread was last told that the station is alive.
    reported: Instant,
}

/// What the table says of a source that was just heard at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It stands there; nobody needs to hear of it now.
    Agrees,
    /// It stands there, and the control thread has not heard of it for a while.
    AgreesUnreported,
    /// It is new, or has moved to this port.
    Differs,
    /// It is the host's or a next hop's, and this is another port.
    Protected,
}

impl Fdb {
    /// Where `key` stands.
    pub fn get(&self, key: FdbKey) -> Option<Station> {
        self.find(key).map(|known| known.station)
    }

    /// A fixed station stands in every VLAN, under its key in VLAN 0: a tag must not get a peer around it.
    fn find(&self, key: FdbKey) -> Option<&Known> {
        let exact = self.stations.get(&key);
        if exact.is_some() || key.vlan == 0 {
            return exact;
        }
        self.stations.get(&FdbKey { vlan: 0, ..key }).filter(|known| known.station.fixed)
    }

    /// The control thread's word: `station`, or nobody.
    pub fn set(&mut self, key: FdbKey, station: Option<Station>, now: Instant) {
        match station {
            Some(station) => self.stations.insert(key, Known { station, reported: now }),
            None => self.stations.remove(&key),
        };
    }

    /// Enters a station ahead of the control thread's word, which must have been told.
    pub fn anticipate(&mut self, key: FdbKey, port: Port, now: Instant) {
        self.set(key, Some(Station { port, fixed: false }), now);
    }

    /// What a frame from `key` at `port` means. `stale_before`: reports older than this are due again.
    pub fn hear(&self, key: FdbKey, port: Port, stale_before: Option<Instant>) -> Lookup {
        match self.find(key) {
            Some(known) if known.station.port == port => {
                let due = stale_before.is_some_and(|limit| known.reported < limit) && !known.station.fixed;
                if due { Lookup::AgreesUnreported } else { Lookup::Agrees }
            }
            Some(known) if known.station.fixed => Lookup::Protected,
            _ => Lookup::Differs,
        }
    }

    /// The control thread has been told that `key` is alive.
    pub fn reported(&mut self, key: FdbKey, now: Instant) {
        if let Some(known) = self.stations.get_mut(&key) {
            known.reported = now;
        }
    }

    /// Number of stations known.
    pub fn len(&self) -> usize {
        self.stations.len()
    }

    /// True without stations.
    pub fn is_empty(&self) -> bool {
        self.stations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::switch::WireId;

    const KEY: FdbKey = FdbKey::new(0, [2, 0, 0, 0, 0, 1]);

    #[test]
    fn a_new_source_differs_until_it_is_entered() {
        let (mut fdb, now) = (Fdb::default(), Instant::now());
        assert_eq!(fdb.hear(KEY, Port::Wire(WireId::UPLINK), None), Lookup::Differs);
        fdb.anticipate(KEY, Port::Wire(WireId::UPLINK), now);
        assert_eq!(fdb.hear(KEY, Port::Wire(WireId::UPLINK), None), Lookup::Agrees);
        assert_eq!(fdb.hear(KEY, Port::Host, None), Lookup::Differs);
    }

    #[test]
    fn a_fixed_station_is_protected_at_every_other_port() {
        let (mut fdb, now) = (Fdb::default(), Instant::now());
        fdb.set(KEY, Some(Station { port: Port::Host, fixed: true }), now);
        assert_eq!(fdb.hear(KEY, Port::Wire(WireId::UPLINK), None), Lookup::Protected);
        assert_eq!(fdb.hear(KEY, Port::Host, Some(now + Duration::from_secs(1))), Lookup::Agrees);
    }

    #[test]
    fn a_fixed_station_stands_in_every_vlan() {
        let (mut fdb, now) = (Fdb::default(), Instant::now());
        let tagged = FdbKey { vlan: 7, ..KEY };
        fdb.set(KEY, Some(Station { port: Port::Wire(WireId::UPLINK), fixed: false }), now);
        assert_eq!(fdb.get(tagged), None);
        fdb.set(KEY, Some(Station { port: Port::Wire(WireId::UPLINK), fixed: true }), now);
        assert_eq!(fdb.hear(tagged, Port::Host, None), Lookup::Protected);
    }

    #[test]
    fn a_station_is_reported_again_when_its_report_is_old() {
        let (mut fdb, now) = (Fdb::default(), Instant::now());
        fdb.anticipate(KEY, Port::Wire(WireId::UPLINK), now);
        let later = now + Duration::from_secs(1);
        assert_eq!(fdb.hear(KEY, Port::Wire(WireId::UPLINK), Some(later)), Lookup::AgreesUnreported);
        fdb.reported(KEY, later);
        assert_eq!(fdb.hear(KEY, Port::Wire(WireId::UPLINK), Some(later)), Lookup::Agrees);
    }
}
