//! The peers one worker owns.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use openvpn::{data::DataChannel, ids::PeerId, server::Path};

use super::{
    NewPeer, Outer, PeerCounters,
    guards::{Bucket, Storms},
};

/// A peer as its worker knows it.
#[derive(Debug)]
pub(super) struct Peer {
    pub channel: DataChannel,
    pub path: Path,
    pub outer: Option<Box<Outer>>,
    pub counters: Arc<PeerCounters>,
    /// Most stations behind it, and how many there are by this worker's copy of the MAC table.
    pub mac_limit: usize,
    pub macs: usize,
    /// A rekey must begin, and the control thread has not been told yet.
    pub rekey_due: bool,
    /// When the control thread was last told that it speaks from elsewhere.
    pub float_told: Option<Instant>,
    /// The loop guard holds it down: nothing but probes comes from it or goes to it.
    pub held: bool,
    /// What it sent to everybody.
    pub storms: Storms,
    /// Probes that came back by it.
    pub probes: Bucket,
}

/// A peer that speaks from elsewhere is reported this often: where it may not move to, each of its packets comes from
/// elsewhere, and a hostile one may alternate. Too low lets it crowd out other notices and keep the control thread
/// busy; too high delays what is sent to a peer that moves twice in a row.
const FLOAT_INTERVAL: Duration = Duration::from_millis(100);

impl Peer {
    /// True if the control thread is to hear that it spoke from `path`.
    pub(super) fn is_float_due(&self, path: Path, now: Instant) -> bool {
        let told_lately = |told| now.saturating_duration_since(told) < FLOAT_INTERVAL;
        path != self.path && !self.float_told.is_some_and(told_lately)
    }
}

/// The peers of one worker, by number. Bounded by `max-clients`, which bounds the numbers.
#[derive(Debug, Default)]
pub struct Peers {
    by_id: Vec<Option<Box<Peer>>>,
    /// The numbers in use, for floods.
    present: Vec<PeerId>,
}

impl Peers {
    pub(super) fn add(&mut self, new: NewPeer) {
        let index = new.peer_id.index();
        if self.by_id.len() <= index {
            self.by_id.resize_with(index + 1, || None);
        }
        let peer = Peer {
            channel: new.channel,
            path: new.path,
            outer: None,
            counters: new.counters,
            mac_limit: new.mac_limit,
            macs: 0,
            rekey_due: false,
            float_told: None,
            held: false,
            storms: Storms::default(),
            probes: Bucket::default(),
        };
        if self.by_id[index].replace(Box::new(peer)).is_none() {
            self.present.push(new.peer_id);
        }
    }

    pub(super) fn remove(&mut self, peer_id: PeerId) {
        if self.by_id.get_mut(peer_id.index()).and_then(Option::take).is_some() {
            self.present.retain(|present| *present != peer_id);
        }
    }

    pub(super) fn get_mut(&mut self, peer_id: PeerId) -> Option<&mut Peer> {
        self.by_id.get_mut(peer_id.index())?.as_deref_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.present.len()
    }

    /// The `at`-th peer present, in no particular order.
    pub(super) fn nth(&self, at: usize) -> Option<PeerId> {
        self.present.get(at).copied()
    }
}
