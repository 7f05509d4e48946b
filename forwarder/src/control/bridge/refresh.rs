//! Keeping stations in the bridge whose frames it does not see any more, because XDP forwards them.

use std::time::{Duration, Instant};

use common::FdbKey;

use super::numbers::Numbers;
use crate::{
    control::{datapath::Datapath, stations::Stations},
    host::bridge::{Mirror, Station},
    switch::Port,
};

/// Each station is looked at this many times within the ageing time.
const LOOKS: u32 = 4;
/// A turn of the loop's chores.
const TURN: Duration = Duration::from_millis(500);
/// Stations looked at in one turn at least.
const LEAST: usize = 256;

/// Goes through all stations bit by bit.
#[derive(Debug)]
pub(super) struct Refresh {
    after: Option<FdbKey>,
    /// When the walk under way began, and the one before: a station heard since is in use.
    began: Instant,
    before: Instant,
}

impl Refresh {
    pub fn new(now: Instant) -> Self {
        Self { after: None, began: now, before: now }
    }

    /// Looks at the next few.
    pub fn turn(
        &mut self,
        mirror: &mut Mirror,
        numbers: &Numbers,
        datapath: &mut Datapath,
        stations: &mut Stations,
        now: Instant,
    ) {
        let Some(bridge) = mirror.known().bridge() else { return };
        let round = Duration::from_millis(bridge.ageing_ms) / LOOKS;
        if self.after.is_none() && now < self.began + round.saturating_sub(TURN) {
            return;
        }
        if self.after.is_none() {
            (self.before, self.began) = (self.began, now);
        }
        let most = a_turns_share(stations.table().len(), round);
        let batch = stations.table().mirrored(self.after, most);
        self.after = if batch.len() < most { None } else { batch.last().map(|(key, _)| *key) };
        let keys = batch.into_iter().map(|(key, _)| key);
        let in_use: Vec<Station> =
            keys.filter_map(|key| self.in_use(key, mirror, numbers, datapath, stations, now)).collect();
        if let Err(error) = mirror.touch(&in_use) {
            tracing::warn!("{error}");
        }
    }

    /// The station, if XDP has heard it since the last look and it still stands where it did.
    fn in_use(
        &self,
        key: FdbKey,
        mirror: &Mirror,
        numbers: &Numbers,
        datapath: &mut Datapath,
        stations: &mut Stations,
        now: Instant,
    ) -> Option<Station> {
        let heard = stations.heard_by_xdp(&datapath.copies(), key, now)?;
        let station = *mirror.known().station(&key)?;
        let place = numbers.of(station.port).map(Port::Wire)?;
        let stands = stations.table().get(key)?.port == place;
        (heard >= self.before && stands).then_some(station)
    }
}

fn a_turns_share(stations: usize, round: Duration) -> usize {
    let turns = usize::try_from(round.as_millis() / TURN.as_millis()).unwrap_or(usize::MAX).max(1);
    stations.div_ceil(turns).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stations_are_looked_at_within_a_round() {
        assert_eq!(a_turns_share(65_536, Duration::from_secs(75)), 437);
        assert_eq!(a_turns_share(10, Duration::from_secs(75)), LEAST);
        assert_eq!(a_turns_share(65_536, Duration::ZERO), 65_536);
    }
}
