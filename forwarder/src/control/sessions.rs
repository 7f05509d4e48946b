//! Between the OpenVPN server and the workers: its events become commands, what workers saw becomes its input.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use openvpn::{
    data::{Cipher, DataChannel, Layout},
    ids::PeerId,
    server::{Connected, Event, Path, Server, Share},
};

use crate::{
    config::Guards,
    worker::{Clock, Command, NewPeer, Outer, PeerCounters, Post},
};

/// A connected peer as the control thread knows it.
#[derive(Debug)]
pub(super) struct Peer {
    pub name: String,
    pub address: Option<Ipv4Addr>,
    pub cipher: Cipher,
    /// What stands around the sealed part of its packets.
    pub layout: Layout,
    pub path: Path,
    pub counters: Arc<PeerCounters>,
    /// Most stations behind it, where that is not what all others have.
    pub max_stations: Option<usize>,
    /// Its version and platform, as it says.
    pub software: String,
    pub connected: Instant,
    pub connected_at: SystemTime,
    /// Number of its session: never used twice.
    pub session: u64,
    /// As last told to the worker.
    pub outer: Option<Outer>,
}

impl Peer {
    /// Packets to it leave by the NIC's queue.
    pub fn leaves_by_nic(&self) -> bool {
        self.outer.as_ref().is_some_and(Outer::leaves_by_nic)
    }

    /// Tells every worker where a peer is whose packets do not name it.
    fn move_unnamed(&self, posts: &[Post], peer_id: PeerId, from: Option<Path>, to: Option<Path>) {
        if self.layout != Layout::V1 {
            return;
        }
        for post in posts {
            from.into_iter().for_each(|path| post.send(Command::Unnamed(path, None)));
            to.into_iter().for_each(|path| post.send(Command::Unnamed(path, Some(peer_id))));
        }
    }
}

/// The connected peers, and the way to the workers that own them.
#[derive(Debug)]
pub(super) struct Sessions {
    pub peers: BTreeMap<PeerId, Peer>,
    clock: Clock,
    max_frame: usize,
    /// Most stations behind a peer that has no limit of its own, by its server's file.
    limits_of_files: Vec<usize>,
    guards: Guards,
    /// Sessions that have begun.
    begun: u64,
    refusals: Refusals,
}

/// What an event means beyond the workers.
#[derive(Debug)]
pub(super) enum Consequence {
    /// How packets to the peer leave must be looked up.
    FindPath(PeerId),
    /// It has moved away from there; how packets to it leave now must be looked up.
    Moved(PeerId, Path),
    /// It is gone from there, and its stations with it.
    ForgetPeer(PeerId, Path),
    /// The connection there is of no more use.
    Close(Path),
}

impl Sessions {
    /// `limits_of_files` are the servers' limits of stations behind a peer, in the order of their shares.
    pub fn new(clock: Clock, max_frame: usize, limits_of_files: Vec<usize>, guards: Guards) -> Self {
        Self {
            peers: BTreeMap::new(),
            clock,
            max_frame,
            limits_of_files,
            guards,
            begun: 0,
            refusals: Refusals::default(),
        }
    }

    /// Most stations behind a peer.
    pub fn mac_limit(&self, peer_id: PeerId) -> usize {
        let own = self.peers.get(&peer_id).and_then(|peer| peer.max_stations);
        own.unwrap_or_else(|| self.mac_limit_of_server(peer_id))
    }

    fn mac_limit_of_server(&self, peer_id: PeerId) -> usize {
        let server = Share::index_of(peer_id, self.limits_of_files.len());
        self.guards.mac_limit(self.limits_of_files.get(server).copied().unwrap_or_default())
    }

    /// Other guards from now on. Stations that are there stay, should they be more than peers may have.
    pub fn change_guards(&mut self, posts: &[Post], guards: Guards) {
        self.guards = guards;
        for peer_id in self.peers.keys() {
            owner(posts, *peer_id).send(Command::MacLimit(*peer_id, self.mac_limit(*peer_id)));
        }
    }

    /// Carries out one event of the server.
    #[expect(clippy::disallowed_methods, reason = "the wall clock, for the operator's eyes only")]
    pub fn handle(&mut self, posts: &[Post], event: Event, now: Instant) -> Option<Consequence> {
        match event {
            Event::Connected(connected) => {
                let peer_id = connected.peer_id;
                self.connect(posts, connected, now, SystemTime::now());
                return Some(Consequence::FindPath(peer_id));
            }
            Event::KeyInstalled { peer_id, key_id, keys } => {
                owner(posts, peer_id).send(Command::InstallKey(peer_id, key_id, keys));
            }
            Event::SendWith { peer_id, key_id } => {
                owner(posts, peer_id).send(Command::SendWith(peer_id, key_id))
            }
            Event::KeyRetired { peer_id, key_id } => {
                owner(posts, peer_id).send(Command::RetireKey(peer_id, key_id))
            }
            Event::PingDue { peer_id } => owner(posts, peer_id).send(Command::Ping(peer_id)),
            Event::PathChanged { peer_id, path } => {
                let peer = self.peers.get_mut(&peer_id)?;
                tracing::info!(peer = %peer.name, peer_id = peer_id.value(), from = %peer.path.remote, to = %path.remote, "peer moved");
                let former = std::mem::replace(&mut peer.path, path);
                peer.move_unnamed(posts, peer_id, Some(former), Some(path));
                return Some(Consequence::Moved(peer_id, former));
            }
            Event::Gone { peer_id, reason } => {
                let peer = self.peers.remove(&peer_id)?;
                tracing::info!(peer = %peer.name, peer_id = peer_id.value(), ?reason, "peer gone");
                owner(posts, peer_id).send(Command::RemovePeer(peer_id));
                peer.move_unnamed(posts, peer_id, Some(peer.path), None);
                return Some(Consequence::ForgetPeer(peer_id, peer.path));
            }
            Event::PathUnused { path } => return Some(Consequence::Close(path)),
            Event::Refused { path, name, reason } => {
                if let Some(untold) = self.refusals.may_tell(now) {
                    tracing::warn!(address = %path.remote, name = name.as_deref().unwrap_or("-"), "client refused: {reason}");
                    if untold > 0 {
                        tracing::warn!(
                            "{untold} other clients were refused before: more than the log has lines for"
                        );
                    }
                }
            }
        }
        None
    }

    fn connect(&mut self, posts: &[Post], connected: Connected, now: Instant, connected_at: SystemTime) {
        let Connected { peer_id, name, path, address, max_stations, profile, software } = connected;
        tracing::info!(peer = %name, peer_id = peer_id.value(), from = %path.remote, ?address, cipher = profile.cipher.name(), layout = ?profile.layout, framing = ?profile.framing, %software, "peer connected");
        let counters = Arc::new(PeerCounters::default());
        let new = NewPeer {
            peer_id,
            channel: DataChannel::new(peer_id, profile, self.max_frame),
            path,
            counters: Arc::clone(&counters),
            mac_limit: max_stations.unwrap_or_else(|| self.mac_limit_of_server(peer_id)),
        };
        owner(posts, peer_id).send(Command::AddPeer(Box::new(new)));
        let peer = Peer {
            name,
            address,
            cipher: profile.cipher,
            layout: profile.layout,
            path,
            counters,
            max_stations,
            software,
            connected: now,
            connected_at,
            session: self.begun,
            outer: None,
        };
        self.begun += 1;
        peer.move_unnamed(posts, peer_id, None, Some(path));
        self.peers.insert(peer_id, peer);
    }

    /// Tells the peer's worker how packets to it leave, if that changed.
    pub fn set_outer(&mut self, posts: &[Post], peer_id: PeerId, outer: Option<Outer>) {
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        // Both ends of the path stand in it, so the worker knows the path as well.
        if outer.is_some() && peer.outer == outer {
            return;
        }
        tracing::debug!(peer = %peer.name, ?outer, "outer path");
        peer.outer.clone_from(&outer);
        owner(posts, peer_id).send(Command::SetOuter(peer_id, peer.path, outer.map(Box::new)));
    }

    /// When the data path last heard the peer.
    pub fn last_heard(&self, peer: &Peer) -> Option<Instant> {
        let millis = peer.counters.last_rx_ms.load(Relaxed);
        (millis > 0).then(|| self.clock.instant(millis))
    }

    /// When the peer was last heard and last sent to by the data path.
    pub fn activity(&self, peer_id: PeerId) -> Option<(Instant, Instant)> {
        let peer = self.peers.get(&peer_id)?;
        let received = self.clock.instant(peer.counters.last_rx_ms.load(Relaxed)).max(peer.connected);
        let sent = self.clock.instant(peer.counters.last_tx_ms.load(Relaxed)).max(peer.connected);
        Some((received, sent))
    }

    /// Tells a peer on the data channel that we leave.
    pub fn say_exit(&self, posts: &[Post], peer_id: PeerId) {
        owner(posts, peer_id).send(Command::Exit(peer_id));
    }

    /// Tells the server what the data path last saw of the peers it is about to judge.
    pub fn report_activity(&self, server: &mut Server, now: Instant) {
        for peer_id in server.due_peers(now) {
            self.report_one(server, peer_id);
        }
    }

    /// Tells the server what the data path last saw of a peer.
    pub fn report_one(&self, server: &mut Server, peer_id: PeerId) {
        if let Some((received, sent)) = self.activity(peer_id) {
            server.handle_activity(peer_id, received, sent);
        }
    }
}

/// Refusals told in a [`REFUSALS_PERIOD`]. Too low hides who is refused where many are, too high lets a flood of
/// nonsense fill the disk.
const REFUSALS: u32 = 100;
const REFUSALS_PERIOD: Duration = Duration::from_secs(10);

/// How often the log says that a client was refused.
#[derive(Debug, Default)]
struct Refusals {
    begun: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Refusals {
    /// Whether one more is told, and how many before it were not.
    fn may_tell(&mut self, now: Instant) -> Option<u64> {
        if self.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= REFUSALS_PERIOD) {
            (self.begun, self.told) = (Some(now), 0);
        }
        if self.told == REFUSALS {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

/// The worker that owns `peer_id`: the rule is [`crate::worker::Handovers::owner`]'s.
fn owner(posts: &[Post], peer_id: PeerId) -> &Post {
    &posts[peer_id.index() % posts.len()]
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test begins at some moment")]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_told_in_part_and_then_counted() {
        let (start, mut refusals) = (Instant::now(), Refusals::default());
        let told = (0..1000).filter_map(|_| refusals.may_tell(start)).collect::<Vec<_>>();
        assert_eq!(told, [0; 100]);
        assert_eq!(refusals.may_tell(start + REFUSALS_PERIOD), Some(900));
        assert_eq!(refusals.may_tell(start + REFUSALS_PERIOD), Some(0));
    }
}
