//! Answering first packets without state. Source: brief A.4.
//!
//! The server's session id is a keyed hash of the client's address and session id and the time, so the answer to a
//! reset need not be remembered: whoever sends that id back was reached at the address it claims.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;

use super::{Path, Transport};
use crate::{random::Random, wire::SessionId};

/// A cookie is accepted in the slot it was made in and the two after it.
const SLOT: Duration = Duration::from_secs(30);

/// Used cookies are remembered for at least as long as they are accepted.
const MEMORY: Duration = Duration::from_secs(3 * SLOT.as_secs());
/// Most used cookies remembered in that time; what comes beyond counts as used. 700 sessions a second, and 1.5 MB.
const MAX_USED: usize = 65_536;

/// The secret, and the beginning of time.
pub(super) struct Cookie {
    key: hmac::Key,
    epoch: Instant,
}

impl Cookie {
    pub(super) fn new(random: &mut Random, now: Instant) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &random.block()), epoch: now }
    }

    /// Our session id for a client that calls itself `client`, at `now`.
    pub(super) fn make(&self, now: Instant, path: &Path, client: SessionId) -> Option<SessionId> {
        self.in_slot(self.slot(now), path, client)
    }

    /// True if `ours` was made for this client in this slot or the two before.
    pub(super) fn verify(&self, now: Instant, path: &Path, client: SessionId, ours: SessionId) -> bool {
        let slot = self.slot(now);
        (slot.saturating_sub(2)..=slot)
            .filter_map(|slot| self.in_slot(slot, path, client))
            .any(|id| aws_lc_rs::constant_time::verify_slices_are_equal(&id.bytes(), &ours.bytes()).is_ok())
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs() / SLOT.as_secs()
    }

    fn in_slot(&self, slot: u64, path: &Path, client: SessionId) -> Option<SessionId> {
        let mut hash = hmac::Context::with_key(&self.key);
        hash.update(&slot.to_be_bytes());
        hash.update(&[u8::from(path.transport == Transport::Tcp)]);
        update_address(&mut hash, path.remote);
        update_address(&mut hash, path.local);
        hash.update(&client.bytes());
        let tag = hash.sign();
        // All-zero once in 2^64: that client's next attempt has another session id.
        tag.as_ref().first_chunk::<8>().and_then(|bytes| SessionId::new(*bytes))
    }
}

fn update_address(hash: &mut hmac::Context, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(v4) => hash.update(&v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => hash.update(&v6.octets()),
    }
    hash.update(&address.port().to_be_bytes());
}

/// At most so many in a period. `connect-freq-initial`.
pub(super) struct RateLimit {
    most: u32,
    period: Duration,
    begun: Instant,
    count: u32,
}

impl RateLimit {
    pub(super) fn new((most, period): (u32, Duration), now: Instant) -> Self {
        Self { most, period, begun: now, count: 0 }
    }

    /// True if one more is allowed now; it is counted.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.begun) >= self.period {
            self.begun = now;
            self.count = 0;
        }
        let allowed = self.count < self.most;
        self.count += u32::from(allowed);
        allowed
    }

    /// One that was allowed does not count.
    pub(super) fn give_back(&mut self) {
        self.count = self.count.saturating_sub(1);
    }
}

/// Cookies that have begun a session.
pub(super) struct UsedCookies {
    begun: Instant,
    /// Since `begun`, and in the [`MEMORY`] before it.
    recent: HashSet<SessionId>,
    former: HashSet<SessionId>,
}

impl UsedCookies {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, recent: HashSet::new(), former: HashSet::new() }
    }

    /// True if a cookie, which must be valid, has not been used before; from now on it has.
    pub(super) fn is_first_use(&mut self, now: Instant, cookie: SessionId) -> bool {
        if now.saturating_duration_since(self.begun) >= MEMORY {
            self.begun = now;
            self.former = std::mem::take(&mut self.recent);
        }
        !self.former.contains(&cookie) && self.recent.len() < MAX_USED && self.recent.insert(cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn cookie(value: u64) -> SessionId {
        SessionId::new(value.to_be_bytes()).unwrap()
    }

    #[test]
    fn a_cookie_is_used_once_for_as_long_as_it_is_accepted() {
        let start = Instant::now();
        let mut used = UsedCookies::new(start);
        for begun in [0, 89, 1000] {
            let begun = start + begun * SECOND;
            let fresh = cookie(begun.duration_since(start).as_secs() + 1);
            assert!(used.is_first_use(begun, fresh));
            for later in [0, 1, 45, 89] {
                assert!(!used.is_first_use(begun + later * SECOND, fresh), "{later} s later");
            }
        }
    }

    #[test]
    fn cookies_remembered_are_bounded() {
        let mut used = UsedCookies::new(Instant::now());
        let now = used.begun;
        let first = (1..=100_000).filter(|value| used.is_first_use(now, cookie(*value))).count();
        assert_eq!((first, used.recent.len()), (MAX_USED, MAX_USED));
    }

    #[test]
    fn what_is_given_back_may_be_used_again_in_the_same_period() {
        let now = Instant::now();
        let mut limit = RateLimit::new((2, 10 * SECOND), now);
        limit.give_back();
        assert_eq!([limit.allow(now), limit.allow(now), limit.allow(now)], [true, true, false]);
        limit.give_back();
        assert_eq!([limit.allow(now), limit.allow(now)], [true, false]);
    }
}
