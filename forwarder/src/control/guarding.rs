//! The loop guard at work: what it hears of the gateway, and what becomes of its verdicts.

use std::time::{Duration, Instant};

use common::Mac;
use openvpn::ids::PeerId;
use serde_json::{Value, json};

use super::{
    Error,
    gateway::Gateway,
    loop_guard::{Action, Hold, LoopGuard},
};
use crate::{
    config,
    switch::{Ingress, Nonce, Port},
    worker::{Command, Guards},
};

/// A first byte with these bits is a locally administered address of one station.
const LOCAL: u8 = 0x02;
const GROUP: u8 = 0x01;

/// What guards a segment, as its members are told.
pub(super) struct Guarding {
    /// `None`: it is off.
    pub loops: Option<LoopGuard>,
    /// For the workers.
    workers: Guards,
    random: fn() -> Result<[u8; 32], Error>,
}

impl Guarding {
    /// As configured; `random` is the source of what nobody may guess.
    pub fn new(guards: config::Guards, random: fn() -> Result<[u8; 32], Error>) -> Result<Self, Error> {
        let mut guarding = Self { loops: None, workers: Guards::default(), random };
        guarding.change(guards)?;
        Ok(guarding)
    }

    /// As configured from now on. A loop guard that stays on keeps what it knows.
    fn change(&mut self, guards: config::Guards) -> Result<(), Error> {
        if guards.loop_guard != self.loops.is_some() {
            (self.loops, self.workers.probe_source) = loop_guard(guards.loop_guard, self.random)?;
        }
        let config::Guards { broadcast, multicast, unknown, .. } = guards;
        self.workers = Guards { broadcast, multicast, unknown, ..self.workers };
        Ok(())
    }
}

/// A loop guard and the source of its probes, where it is on.
fn loop_guard(
    on: bool,
    random: fn() -> Result<[u8; 32], Error>,
) -> Result<(Option<LoopGuard>, Option<Mac>), Error> {
    let source = on.then(random).transpose()?.map(|random| {
        let mut mac = [0; 6];
        mac.iter_mut().zip(random).for_each(|(to, from)| *to = from);
        mac[0] = mac[0] & !GROUP | LOCAL;
        mac
    });
    let nonces = move || random().ok().and_then(|random| random.first_chunk().copied());
    let loops = source.map(|source| LoopGuard::new(source, Box::new(nonces)));
    Ok((loops, source))
}

impl Gateway {
    /// Has all workers watch for what is configured.
    pub fn post_guards(&self) {
        for post in &self.datapath.posts {
            post.send(Command::Guards(self.guarding.workers));
        }
    }

    /// Guards by other limits from now on, under connected peers; the answer says so, or why nothing was changed.
    pub(super) fn change_guards(&mut self, guards: config::Guards, now: Instant) -> Value {
        let peers: Vec<PeerId> = self.sessions.peers.keys().copied().collect();
        let held: Vec<PeerId> =
            peers.iter().copied().filter(|&peer_id| self.held(peer_id).is_some()).collect();
        let was_on = self.guarding.loops.is_some();
        if let Err(error) = self.guarding.change(guards) {
            tracing::error!("the guards were not changed: {error}");
            return json!({ "error": error.to_string() });
        }
        self.sessions.change_guards(&self.datapath.posts, guards);
        for &peer_id in &peers {
            self.stations.limit_peer(peer_id, self.sessions.mac_limit(peer_id));
        }
        match (was_on, guards.loop_guard) {
            // Nobody would let them go.
            (true, false) => held.into_iter().for_each(|peer_id| self.let_go(peer_id)),
            (false, true) => peers.into_iter().for_each(|peer_id| self.guard_peer(peer_id, now)),
            _ => {}
        }
        self.post_guards();
        tracing::info!(?guards, "guards changed");
        json!({ "reload": { "guards": "applied live" } })
    }

    fn let_go(&self, peer_id: PeerId) {
        self.datapath.post(peer_id).send(Command::Hold(peer_id, false));
        let peer = self.port_text(Port::Peer(peer_id));
        tracing::info!(%peer, "without a loop guard {peer} is no longer held down");
    }

    pub(super) fn handle_probe(&mut self, nonce: Nonce, ingress: Ingress, now: Instant) {
        let port = match ingress {
            Ingress::Peer(peer_id) => Port::Peer(peer_id),
            Ingress::Wire(wire) => Port::Wire(wire),
            Ingress::Host => Port::Host,
        };
        if let Some(loops) = &mut self.guarding.loops {
            loops.handle_returned(nonce, port, now);
        }
        self.drain_guard();
    }

    /// To be called whenever stations were entered.
    pub(super) fn handle_moves(&mut self, now: Instant) {
        for peer_id in self.stations.take_moves() {
            if let Some(loops) = &mut self.guarding.loops {
                loops.handle_move(peer_id, now);
            }
        }
    }

    /// The peers that are there, to the guard.
    pub(super) fn guard_peer(&mut self, peer_id: PeerId, now: Instant) {
        if let (Some(loops), Some(peer)) = (&mut self.guarding.loops, self.sessions.peers.get(&peer_id)) {
            loops.handle_connected(peer_id, peer.session, now);
        }
    }

    pub(super) fn unguard_peer(&mut self, peer_id: PeerId) {
        if let Some(loops) = &mut self.guarding.loops {
            loops.handle_gone(peer_id);
        }
    }

    pub(super) fn guard_timeout(&self) -> Option<Instant> {
        self.guarding.loops.as_ref().and_then(LoopGuard::poll_timeout)
    }

    pub(super) fn handle_guard_time(&mut self, now: Instant) {
        if let Some(loops) = &mut self.guarding.loops {
            loops.handle_time(now);
        }
        self.drain_guard();
    }

    fn drain_guard(&mut self) {
        while let Some(action) = self.guarding.loops.as_mut().and_then(LoopGuard::poll_action) {
            match action {
                Action::Probe(peer_id, probe) => {
                    self.datapath.post(peer_id).send(Command::Probe(peer_id, probe));
                }
                Action::Hold(peer_id, with) => self.hold(peer_id, with),
                Action::Release(peer_id, held_for) => self.release(peer_id, held_for),
            }
        }
    }

    fn hold(&mut self, peer_id: PeerId, with: Port) {
        self.datapath.post(peer_id).send(Command::Hold(peer_id, true));
        // What stands behind it is reached another way now, if at all.
        self.stations.forget_behind(&mut self.datapath.copies(), peer_id);
        let (peer, other) = (self.port_text(Port::Peer(peer_id)), self.port_text(with));
        tracing::warn!(
            %peer, %other,
            "the segment is joined to itself: a frame sent to {peer} came back by {other}; {peer} is held down until the loop is open: remove one of the two ways"
        );
    }

    fn release(&self, peer_id: PeerId, held_for: Duration) {
        self.datapath.post(peer_id).send(Command::Hold(peer_id, false));
        let peer = self.port_text(Port::Peer(peer_id));
        tracing::info!(%peer, held_s = held_for.as_secs(), "the loop is open: {peer} is no longer held down");
    }

    /// Why a peer is held, for the operator.
    pub(super) fn held(&self, peer_id: PeerId) -> Option<&Hold> {
        self.guarding.loops.as_ref()?.held(peer_id)
    }

    /// A port by the name that the operator knows.
    pub(super) fn port_text(&self, port: Port) -> String {
        match port {
            Port::Peer(peer_id) => {
                let name =
                    self.sessions.peers.get(&peer_id).map_or("a peer that has left", |peer| &peer.name);
                format!("{name} (peer {})", peer_id.value())
            }
            // On a NIC's wire and in a bridge the host port is the way of broadcasts of both.
            Port::Host | Port::Wire(_) => {
                self.about.nic().or(self.about.host_port()).unwrap_or_default().to_owned()
            }
        }
    }
}
