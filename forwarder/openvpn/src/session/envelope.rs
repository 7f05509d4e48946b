//! How a session's control packets are wrapped: one wrapping for the first key, perhaps another for those after it.
//! Source: brief A.5.
//!
//! ```text
//!   key 0 ──► first:  none, tls-auth, tls-crypt
//!   key 1..7 ──► rekeys: dynamic tls-crypt, where both ends have agreed on it; else first
//! ```

use std::{borrow::Cow, time::Instant};

use super::{Ignored, KeyBlock};
use crate::{
    data::Role,
    ids::KeyId,
    wire::{
        ControlPacket, Head, Opcode,
        wrapping::{ReplayWindow, Stamp, Stamps, Unauthentic, WallClock, Wrapping, split_wrapped_key},
    },
};

/// Wraps and unwraps one session's control packets.
pub(crate) struct Envelope {
    first: Lane,
    rekeys: Option<Lane>,
    clock: WallClock,
    /// What a client with tls-crypt-v2 tells the server beside its own packets.
    wrapped_key: Option<Vec<u8>>,
}

/// One wrapping with what it has seen and sent.
struct Lane {
    wrapping: Wrapping,
    stamps: Stamps,
    window: ReplayWindow,
}

impl Envelope {
    /// Of a client; `wrapped_key` with tls-crypt-v2.
    pub(crate) fn of_client(
        now: Instant,
        clock: WallClock,
        wrapping: Wrapping,
        wrapped_key: Option<Vec<u8>>,
    ) -> Self {
        let time = clock.stamp_time(now);
        let stamps = if wrapped_key.is_some() { Stamps::early(time) } else { Stamps::since(time) };
        let first = Lane { wrapping, stamps, window: ReplayWindow::default() };
        Self { first, rekeys: None, clock, wrapped_key }
    }

    /// Of a server, for a client whose packet with the stamp `seen` begins the session.
    pub(crate) fn of_server(now: Instant, clock: WallClock, wrapping: Wrapping, seen: Option<Stamp>) -> Self {
        // The answer without state was given in this second at the latest: a later one begins a new count, so that
        // nobody need remember how far that one came.
        let stamps = Stamps::since(clock.stamp_time(now).saturating_add(1));
        let mut window = ReplayWindow::default();
        seen.into_iter().for_each(|stamp| _ = window.accept(stamp));
        Self { first: Lane { wrapping, stamps, window }, rekeys: None, clock, wrapped_key: None }
    }

    /// From now on packets of all keys but the first are wrapped with what TLS has `exported`.
    pub(crate) fn wrap_rekeys(&mut self, now: Instant, exported: &KeyBlock, role: Role) {
        let wrapping = self.first.wrapping.dynamic(exported.bytes(), role);
        let stamps = Stamps::since(self.clock.stamp_time(now));
        self.rekeys = Some(Lane { wrapping, stamps, window: ReplayWindow::default() });
    }

    /// The datagram of `packet`.
    pub(super) fn wrap(&mut self, now: Instant, packet: &ControlPacket<'_>) -> Vec<u8> {
        let time = self.clock.stamp_time(now);
        let lane = self.lane(packet.head.key_id);
        let stamp = lane.stamps.next(time);
        let mut datagram = lane.wrapping.wrap(stamp, packet);
        if carries_wrapped_key(packet.head.opcode) {
            datagram.extend_from_slice(self.wrapped_key.as_deref().unwrap_or_default());
        }
        datagram
    }

    /// What [`crate::wire::Body`] is parsed from.
    ///
    /// # Errors
    /// Not wrapped with the key, or received before.
    pub(super) fn unwrap<'a>(&mut self, head: &Head, rest: &'a [u8]) -> Result<Cow<'a, [u8]>, Ignored> {
        // The key it was opened with is the one told first: another one told later is not looked at.
        let own = match carries_wrapped_key(head.opcode) {
            true => split_wrapped_key(rest).map_err(|_| Ignored::Malformed)?.0,
            false => rest,
        };
        let lane = self.lane(head.key_id);
        let unwrapped = lane.wrapping.unwrap(head, own).map_err(|Unauthentic| Ignored::Unauthentic)?;
        match unwrapped.stamp {
            Some(stamp) if !lane.window.accept(stamp) => Err(Ignored::Replayed),
            _ => Ok(unwrapped.body),
        }
    }

    /// By how many bytes a packet of this kind and key grows.
    pub(super) fn overhead(&self, opcode: Opcode, key_id: KeyId) -> usize {
        let lane = self.rekeys.as_ref().filter(|_| key_id != KeyId::FIRST).unwrap_or(&self.first);
        let key = self.wrapped_key.as_ref().filter(|_| carries_wrapped_key(opcode));
        lane.wrapping.overhead() + key.map_or(0, Vec::len)
    }

    /// True for a client with tls-crypt-v2.
    pub(super) fn has_wrapped_key(&self) -> bool {
        self.wrapped_key.is_some()
    }

    /// The reset that a client begins with.
    pub(super) fn reset(&self) -> Opcode {
        if self.wrapped_key.is_some() { Opcode::HardResetClientV3 } else { Opcode::HardResetClient }
    }

    fn lane(&mut self, key_id: KeyId) -> &mut Lane {
        match &mut self.rekeys {
            Some(rekeys) if key_id != KeyId::FIRST => rekeys,
            _ => &mut self.first,
        }
    }
}

/// True for the kinds of packet behind which a wrapped client key stands.
pub(crate) fn carries_wrapped_key(opcode: Opcode) -> bool {
    matches!(opcode, Opcode::HardResetClientV3 | Opcode::ControlWrappedKey)
}
