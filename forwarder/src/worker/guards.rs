//! What guards the segment against its own members, as far as workers see to it: limits of what goes to everybody, and
//! what the loop guard holds down.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use common::Mac;

use super::{Command, Notice, Worker};
use crate::{
    drops::Drop,
    ports::{Frame, Port},
    switch::{Decision, Header, Ingress, PROBE_BYTES, probe_nonce},
};

/// What a worker watches for. All of it may be off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// Most broadcasts of one peer, in frames a second.
    pub broadcast: Option<NonZeroU32>,
    /// Most frames of one peer to other groups, in frames a second.
    pub multicast: Option<NonZeroU32>,
    /// Most frames of one peer to stations nobody knows, in frames a second.
    pub unknown: Option<NonZeroU32>,
    /// The source of the loop guard's probes; `None`: it sends none.
    pub probe_source: Option<Mac>,
}

/// A peer's share of what goes to everybody.
#[derive(Debug, Default)]
pub(super) struct Storms {
    broadcast: Bucket,
    multicast: Bucket,
    unknown: Bucket,
}

/// Probes of one port that the control thread is told of, a second. A loop returns some tens; a peer that has learnt how
/// they look may send any number.
const PROBES_TOLD: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// A bucket holds what comes in this time: a machine that wakes up, or a router that asks for its whole network, says more
/// at once than in the seconds after. Too high lets short storms through, too low cuts bursts that do no harm.
const BURST: Duration = Duration::from_secs(1);

/// A token bucket as one instant: when it would be full again (the virtual scheduling algorithm of ITU-T I.371 annex A).
#[derive(Debug, Default)]
pub(super) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes a token, if there is one.
    pub fn take(&mut self, per_second: NonZeroU32, now: Instant) -> bool {
        let after = self.full_at.map_or(now, |at| at.max(now)) + Duration::from_secs(1) / per_second.get();
        let has_one = after <= now + BURST;
        if has_one {
            self.full_at = Some(after);
        }
        has_one
    }
}

impl Guards {
    const fn limits_storms(&self) -> bool {
        self.broadcast.is_some() || self.multicast.is_some() || self.unknown.is_some()
    }

    /// Whether `frame` is one of our probes, which pass where the loop guard holds a peer down.
    pub(super) fn is_probe(&self, frame: &[u8]) -> bool {
        self.probe_source.is_some_and(|source| probe_nonce(frame, source).is_some())
    }
}

impl Storms {
    fn admit(&mut self, guards: &Guards, header: &Header, now: Instant) -> Result<(), Drop> {
        let (limit, bucket, reason) = if header.is_broadcast() {
            (guards.broadcast, &mut self.broadcast, Drop::StormBroadcast)
        } else if header.is_group() {
            (guards.multicast, &mut self.multicast, Drop::StormMulticast)
        } else {
            (guards.unknown, &mut self.unknown, Drop::StormUnknown)
        };
        if limit.is_none_or(|limit| bucket.take(limit, now)) { Ok(()) } else { Err(reason) }
    }
}

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    /// What is decided, unless it would send more of one peer's to everybody than it may.
    pub(super) fn limit_storm(
        &mut self,
        ingress: Ingress,
        header: &Header,
        decision: Decision,
        now: Instant,
    ) -> Result<Decision, Drop> {
        let guards = &self.settings.guards;
        if let (Decision::Flood(_), Ingress::Peer(peer_id)) = (decision, ingress)
            && guards.limits_storms()
            && let Some(peer) = self.peers.get_mut(peer_id)
        {
            peer.storms.admit(guards, header, now)?;
        }
        Ok(decision)
    }

    /// Takes a probe of ours that came back: nobody else is to get it. True if `frame` is one.
    pub(super) fn take_probe(&mut self, ingress: Ingress, frame: &Frame, now: Instant) -> bool {
        let Some(source) = self.settings.guards.probe_source else { return false };
        let Some(nonce) = probe_nonce(self.frames.bytes(frame), source) else { return false };
        let told = match ingress {
            Ingress::Peer(peer_id) => self.peers.get_mut(peer_id).map(|peer| &mut peer.probes),
            Ingress::Wire(_) | Ingress::Host => Some(&mut self.probes),
        };
        if told.is_some_and(|bucket| bucket.take(PROBES_TOLD, now)) {
            self.mailbox.tell(Notice::ProbeReturned(nonce, ingress));
        }
        true
    }

    #[cold]
    pub(super) fn obey_guards(&mut self, command: Command, now: Instant) {
        match command {
            Command::Guards(guards) => self.settings.guards = guards,
            Command::MacLimit(peer_id, limit) => self.with_peer(peer_id, |peer| peer.mac_limit = limit),
            Command::Hold(peer_id, held) => self.with_peer(peer_id, |peer| peer.held = held),
            Command::Probe(peer_id, probe) => self.send_probe(peer_id, &probe, now),
            _ => {}
        }
    }

    fn send_probe(&mut self, peer_id: openvpn::ids::PeerId, probe: &[u8; PROBE_BYTES], now: Instant) {
        // Without memory the next one will do.
        let Some(mut frame) = self.frames.take_with(probe) else { return };
        self.seal_for(peer_id, &mut frame, now);
        self.frames.put(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: NonZeroU32 = NonZeroU32::new(10).unwrap();

    #[test]
    fn a_bucket_gives_its_rate_and_a_second_s_worth_at_once() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let mut took = |at| (0..1000).filter(|_| bucket.take(TEN, start + Duration::from_millis(at))).count();
        assert_eq!(took(0), 10);
        assert_eq!(took(99), 0);
        assert_eq!(took(100), 1);
        assert_eq!(took(600), 5);
        assert_eq!(took(60_000), 10);
    }

    #[test]
    fn kinds_of_storms_have_limits_of_their_own() {
        let guards = Guards { broadcast: Some(TEN), unknown: NonZeroU32::new(1), ..Guards::default() };
        let (mut storms, now) = (Storms::default(), Instant::now());
        let mut passed = |destination: Mac| {
            let header = Header { destination, source: [2, 0, 0, 0, 0, 1], vlan: 0 };
            let mut reason = None;
            let passed = (0..100).filter(|_| match storms.admit(&guards, &header, now) {
                Ok(()) => true,
                Err(lost) => {
                    reason = Some(lost);
                    false
                }
            });
            (passed.count(), reason)
        };
        assert_eq!(passed([0xff; 6]), (10, Some(Drop::StormBroadcast)));
        assert_eq!(passed([1, 0, 0x5e, 0, 0, 1]), (100, None));
        assert_eq!(passed([2, 0, 0, 0, 0, 9]), (1, Some(Drop::StormUnknown)));
    }
}
