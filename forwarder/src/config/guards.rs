//! What guards a segment against its own members: storm limits, a limit of stations, the loop guard.
//!
//! The same words on the command line (`--storm-limit broadcast=1000`, `--mac-limit 64`, `--no-loop-guard`) and in a
//! segment's `guards` of `trestle.toml`. All of it can change while the gateway runs.

use std::{num::NonZeroU32, str::FromStr};

/// How a line for a running gateway begins.
const WORD: &str = "guards";

/// What guards a segment. The default keeps out loops and limits nothing else: a protocol that lives of broadcasts is
/// no storm until somebody says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guards {
    /// Most broadcasts of one peer, in frames a second; `None`: any number.
    pub broadcast: Option<NonZeroU32>,
    /// Most multicasts of one peer, in frames a second; `None`: any number.
    pub multicast: Option<NonZeroU32>,
    /// Most frames of one peer to stations nobody knows, in frames a second; `None`: any number.
    pub unknown: Option<NonZeroU32>,
    /// Most stations behind one peer; `None`: what `max-routes-per-client` of the server's file says.
    pub mac_limit: Option<NonZeroU32>,
    /// A segment joined to itself through a peer is found and cut.
    pub loop_guard: bool,
}

impl Default for Guards {
    fn default() -> Self {
        Self { broadcast: None, multicast: None, unknown: None, mac_limit: None, loop_guard: true }
    }
}

impl Guards {
    /// Most stations behind a peer, of a server whose file says `of_file`.
    pub fn mac_limit(&self, of_file: usize) -> usize {
        self.mac_limit.map_or(of_file, |limit| usize::try_from(limit.get()).unwrap_or(usize::MAX))
    }

    /// As arguments of the command line that say all of it.
    pub fn arguments(&self) -> Vec<String> {
        let limits = [self.broadcast, self.multicast, self.unknown];
        let storms = Storm::ALL.into_iter().zip(limits);
        let storms =
            storms.filter_map(|(storm, limit)| Some(format!("--storm-limit={}={}", storm.name(), limit?)));
        let stations = self.mac_limit.map(|limit| format!("--mac-limit={limit}"));
        let loops = (!self.loop_guard).then(|| "--no-loop-guard".to_owned());
        storms.chain(stations).chain(loops).collect()
    }

    /// As a running gateway is told over its control socket: `guards` and the arguments of the command line.
    pub fn line(&self) -> String {
        [WORD.to_owned()].into_iter().chain(self.arguments()).collect::<Vec<_>>().join(" ")
    }

    /// From such a line; `None` for another.
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        words.next().filter(|word| *word == WORD)?;
        words.try_fold(Self::default(), |guards, word| guards.with(word))
    }

    fn with(mut self, word: &str) -> Option<Self> {
        match word.split_once('=') {
            None if word == "--no-loop-guard" => self.loop_guard = false,
            Some(("--storm-limit", limit)) => self.limit(limit.parse().ok()?),
            Some(("--mac-limit", limit)) => self.mac_limit = Some(limit.parse().ok()?),
            _ => return None,
        }
        Some(self)
    }

    /// Sets the limit of one kind of storm.
    pub fn limit(&mut self, StormLimit(kind, limit): StormLimit) {
        match kind {
            Storm::Broadcast => self.broadcast = limit,
            Storm::Multicast => self.multicast = limit,
            Storm::Unknown => self.unknown = limit,
        }
    }
}

/// Frames of a kind that go to everybody, and so make storms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storm {
    /// To ff:ff:ff:ff:ff:ff.
    Broadcast,
    /// To another group.
    Multicast,
    /// To a station that nobody knows.
    Unknown,
}

impl Storm {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Broadcast, Self::Multicast, Self::Unknown];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
            Self::Unknown => "unknown",
        }
    }
}

/// `--storm-limit KIND=N`: most frames a second of one peer; `off`: any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StormLimit(pub Storm, pub Option<NonZeroU32>);

impl FromStr for StormLimit {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let wrong =
            || "write broadcast=N, multicast=N or unknown=N: frames a second of one peer, or off".to_owned();
        let (kind, limit) = word.split_once('=').ok_or_else(wrong)?;
        let kind = Storm::ALL.into_iter().find(|storm| storm.name() == kind).ok_or_else(wrong)?;
        let limit = match limit {
            "off" => None,
            number => Some(number.parse().map_err(|_| wrong())?),
        };
        Ok(Self(kind, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_only_loops_are_kept_out() {
        let guards = Guards::default();
        assert!(guards.loop_guard);
        assert_eq!([guards.broadcast, guards.multicast, guards.unknown, guards.mac_limit], [None; 4]);
        assert_eq!(guards.mac_limit(256), 256);
    }

    #[test]
    fn a_storm_limit_is_a_kind_and_a_rate_or_off() {
        let mut guards = Guards::default();
        for word in ["broadcast=1000", "multicast=5", "unknown=7", "multicast=off"] {
            guards.limit(word.parse().unwrap());
        }
        let rates =
            [guards.broadcast, guards.multicast, guards.unknown].map(|limit| limit.map(NonZeroU32::get));
        assert_eq!(rates, [Some(1000), None, Some(7)]);
        for wrong in
            ["", "broadcast", "broadcast=", "broadcast=0", "broadcast=-1", "storm=5", "unknown=4294967296"]
        {
            assert!(wrong.parse::<StormLimit>().unwrap_err().contains("broadcast=N"), "{wrong}");
        }
    }

    #[test]
    fn what_a_running_gateway_is_told_is_what_was_meant() {
        let some =
            Guards { broadcast: NonZeroU32::new(9), mac_limit: NonZeroU32::new(2), ..Guards::default() };
        for guards in [Guards::default(), some, Guards { loop_guard: false, unknown: some.broadcast, ..some }]
        {
            assert_eq!(Guards::from_line(&guards.line()), Some(guards), "{}", guards.line());
        }
        for wrong in
            ["", "guard", "guards ", "guards --mac-limit", "guards --mac-limit=0", "guards --workers=2"]
        {
            assert_eq!(Guards::from_line(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_limit_of_stations_has_the_last_word_over_the_file() {
        let guards = Guards { mac_limit: NonZeroU32::new(2), ..Guards::default() };
        assert_eq!(guards.mac_limit(256), 2);
    }
}
