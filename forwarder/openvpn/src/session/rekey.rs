//! From one key to the next: when to send with which, when to forget which. Source: brief A.9, "Rekey".

use std::time::{Duration, Instant};

use super::{Event, Session, negotiation::Negotiation};
use crate::{ids::KeyId, wire::Opcode};

/// How much longer than needed a superseded key is accepted, for packets still under way.
const RETIRE_GRACE: Duration = Duration::from_secs(5);

impl Session {
    /// True while an old key is in use because the last attempt to replace it failed.
    pub(crate) fn has_lost_rekey(&self) -> bool {
        self.expires.is_some()
    }

    /// The next key's negotiation takes the place of the newest, which becomes the old one.
    pub(super) fn begin_negotiation(&mut self, now: Instant) {
        let key_id = self.newest.key_id.next();
        let next = match Negotiation::open(now, key_id, &self.engine, Opcode::SoftReset) {
            Ok(next) => next,
            Err(error) => {
                self.rekey_at = Some(now + self.times.hand_window);
                return self.events.push_back(Event::RekeyFailed(error.to_string()));
            }
        };
        // The peer holds no more than two keys: what it is about to forget must not be sent with.
        self.send_with(self.newest.key_id);
        let lasted = now.saturating_duration_since(self.newest.begun);
        let previous = std::mem::replace(&mut self.newest, next);
        // The peer may send with an older one until it hears of this negotiation, which can take a while.
        self.superseded.extend(self.old.take().map(|(older, _)| older.key_id));
        let dies = self.expires.take().unwrap_or(now + self.times.tran_window);
        self.old = Some((previous, dies));
        self.rekey_at = None;
        self.switch_at = Some(now + self.switch_delay(lasted));
    }

    /// How long after its beginning a new key is used for sending: upstream's min(hand-window, reneg-sec / 2), and no
    /// more than half of what the last key lasted, because the peer may rekey more often than we.
    fn switch_delay(&self, lasted: Duration) -> Duration {
        let reneg = self.times.reneg.map_or(Duration::MAX, |reneg| reneg / 2);
        self.times.hand_window.min(reneg).min(lasted / 2)
    }

    /// The peer has gone through the newest negotiation with us: it sends with that key or the one before.
    pub(super) fn retire_superseded_soon(&mut self, now: Instant) {
        self.retiring.extend(self.superseded.drain(..).map(|key_id| (now + RETIRE_GRACE, key_id)));
    }

    pub(super) fn negotiation_done(&mut self, now: Instant) {
        if let Some((old, _)) = &mut self.old {
            old.reliable.abandon();
        }
        self.rekey_at = self.times.reneg.map(|reneg| now + reneg);
        self.handle_timeout(now);
    }

    /// A failed rekey leaves the old key in use; a failed first negotiation, or a stream that breaks later, leaves
    /// nothing. What becomes of an old key's own stream does not matter.
    pub(super) fn negotiation_failed(&mut self, now: Instant, key_id: KeyId, reason: String) {
        if key_id != self.newest.key_id {
            return;
        }
        let old = self.old.take().filter(|_| !self.newest.was_active());
        let Some((old, dies)) = old else {
            return self.events.push_back(Event::Failed(reason));
        };
        self.newest = old;
        self.switch_at = None;
        self.expires = Some(dies);
        self.rekey_at = Some(now + self.times.hand_window);
        self.send_with(self.newest.key_id);
        self.events.push_back(Event::Retired(key_id));
        self.events.push_back(Event::RekeyFailed(reason));
    }

    pub(super) fn send_with(&mut self, key_id: KeyId) {
        self.switch_at = None;
        if self.sending != Some(key_id) {
            self.sending = Some(key_id);
            self.events.push_back(Event::SendWith(key_id));
        }
    }

    pub(super) fn retire_superseded(&mut self) {
        if let Some((_, key_id)) = self.retiring.pop_front() {
            self.events.push_back(Event::Retired(key_id));
        }
    }

    pub(super) fn old_key_died(&mut self) {
        if self.expires.take().is_some() {
            self.events.push_back(Event::Expired);
        } else if let Some((old, _)) = self.old.take() {
            // Its time may end before the newest key's to be sent with has come.
            self.send_with(self.newest.key_id);
            self.events.push_back(Event::Retired(old.key_id));
        }
    }
}
