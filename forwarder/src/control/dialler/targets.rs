//! Whom to call next, and when: the `remote` lines, their addresses, and pauses that grow.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use crate::config::client::Remote;

/// Attempts at every remote before pauses grow. Source: `socket_restart_pause` of init.c.
const PATIENCE: u32 = 4;
/// Pauses are doubled so often at most: the longest first one is less than 2^16 s.
const MAX_DOUBLINGS: u32 = 15;

/// The remotes, in the order they are tried.
#[derive(Debug)]
pub(super) struct Targets {
    /// At least one.
    remotes: Vec<Remote>,
    current: usize,
    /// Of the current remote, not tried yet; the first is the one being called.
    addresses: VecDeque<SocketAddr>,
    /// Since a session was up.
    failures: u32,
    /// The pause after a failure, and the longest it grows to.
    retry: (Duration, Duration),
    /// Failures of every remote until we give up.
    attempts: Option<u32>,
}

/// Whom to call after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The same address.
    Same,
    /// The remote's next address, or the next remote.
    Address,
    /// The next remote.
    Remote,
}

impl Targets {
    pub(super) fn new(remotes: Vec<Remote>, retry: (Duration, Duration), attempts: Option<u32>) -> Self {
        Self { remotes, current: 0, addresses: VecDeque::new(), failures: 0, retry, attempts }
    }

    /// The remote being called.
    pub(super) fn remote(&self) -> &Remote {
        &self.remotes[self.current]
    }

    /// Its address being called; `None` until it is known.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.addresses.front().copied()
    }

    /// What the remote's name stands for.
    pub(super) fn resolved(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = addresses.into();
    }

    /// A session is up: whatever ends it, it is no failure to connect.
    pub(super) fn connected(&mut self) {
        self.failures = 0;
    }

    /// Turns to whoever is next.
    pub(super) fn turn(&mut self, next: Next) {
        self.failures = self.failures.saturating_add(1);
        match next {
            // Its name may stand for something else by now.
            Next::Same if self.addresses.len() <= 1 => self.addresses.clear(),
            Next::Same => {}
            Next::Address => {
                self.addresses.pop_front();
            }
            Next::Remote => self.addresses.clear(),
        }
        if self.addresses.is_empty() && next != Next::Same {
            self.current = (self.current + 1) % self.remotes.len();
        }
    }

    /// How long to wait before the next call.
    pub(super) fn pause(&self) -> Duration {
        let (first, most) = self.retry;
        let rounds = self.rounds();
        let doublings = rounds.saturating_sub(PATIENCE).min(MAX_DOUBLINGS);
        first.saturating_mul(1 << doublings).min(most)
    }

    /// Everyone was tried as often as `connect-retry-max` says.
    pub(super) fn are_used_up(&self) -> bool {
        self.attempts.is_some_and(|attempts| self.rounds() >= attempts)
    }

    fn rounds(&self) -> u32 {
        self.failures / u32::try_from(self.remotes.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn targets(hosts: &[&str]) -> Targets {
        let remotes = hosts.iter().map(|&host| Remote { host: host.into(), port: 1194 }).collect();
        Targets::new(remotes, (SECOND, SECOND * 300), None)
    }

    fn addresses(last: &[u8]) -> Vec<SocketAddr> {
        last.iter().map(|&last| SocketAddr::from(([192, 0, 2, last], 1194))).collect()
    }

    #[test]
    fn pauses_grow_from_the_fifth_round_to_five_minutes() {
        let mut one = targets(&["a"]);
        let pauses: Vec<u64> = (0..14)
            .map(|_| {
                one.turn(Next::Address);
                one.pause().as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 1, 1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        one.connected();
        assert_eq!(one.pause(), SECOND);
    }

    #[test]
    fn every_address_of_a_remote_comes_before_the_next_remote() {
        let mut two = targets(&["a", "b"]);
        two.resolved(addresses(&[1, 2]));
        two.turn(Next::Address);
        assert_eq!((two.remote().host.as_str(), two.address()), ("a", Some(addresses(&[2])[0])));
        two.turn(Next::Address);
        assert_eq!((two.remote().host.as_str(), two.address()), ("b", None));
        two.resolved(addresses(&[3, 4]));
        two.turn(Next::Remote);
        assert_eq!((two.remote().host.as_str(), two.address()), ("a", None));
    }

    #[test]
    fn the_same_server_is_called_again_by_its_name() {
        let mut two = targets(&["a", "b"]);
        two.resolved(addresses(&[1]));
        two.turn(Next::Same);
        assert_eq!((two.remote().host.as_str(), two.address()), ("a", None));
        two.resolved(addresses(&[1, 2]));
        two.turn(Next::Same);
        assert_eq!((two.remote().host.as_str(), two.address()), ("a", Some(addresses(&[1])[0])));
    }

    #[test]
    fn connect_retry_max_counts_every_remote() {
        let mut two = Targets { attempts: Some(2), ..targets(&["a", "b"]) };
        let used_up: Vec<bool> = (0..4)
            .map(|_| {
                two.turn(Next::Remote);
                two.are_used_up()
            })
            .collect();
        assert_eq!(used_up, [false, false, false, true]);
    }
}
