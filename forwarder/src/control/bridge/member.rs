//! One port of the bridge: what is known of it, what is attached to it, what XDP was told of it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use common::bridge::{PortCounters, PortValue, port_flag as flag};

use super::{
    look::{self, Looked},
    peers::{OwnPort, Served},
    policy::{self, Arrival, Attached, Facts, Reason, Ruling},
    refusal::{Refusal, Refused},
};
use crate::{
    control::datapath::Datapath,
    host::{
        bridge::{Bridge, Port},
        nic::{Preparation, xdp_features::AllXdpFeatures},
    },
    switch::WireId,
    xdp::{
        attach::{PortAttachment, XdpChoice, XdpGot},
        maps::{MapError, ports::VlanSet},
        programs::Programs,
    },
};

/// Ethernet header and a tag, above the MTU.
const HEADER_BYTES: u32 = 18;

/// A port of the bridge.
pub(super) struct Member {
    wire: Option<WireId>,
    looked: Looked,
    /// When it was looked at, in looks of all ports.
    pub looked_turn: u64,
    facts: Option<Facts>,
    held: Option<Held>,
    /// What was prepared while its far end could be reached.
    early: Option<Preparation>,
    served: Served,
    refused: Option<Refused>,
    ruling: Ruling,
    /// What XDP was told.
    told: PortValue,
    /// Its VLANs as XDP was told; `None`: those of who had the number before may stand there.
    vlans: Option<VlanSet>,
    /// What the number's former port had counted.
    counted: PortCounters,
}

/// XDP on the port, and what it takes; dropped in this order.
struct Held {
    attachment: PortAttachment,
    _preparation: Option<Preparation>,
}

/// What is known and done of a port while far ends can still be reached: before privileges are given up.
pub(super) struct Early {
    looked: Looked,
    preparation: Option<Preparation>,
}

impl Early {
    /// Looks at the port, and prepares one whose far end stands for a wire.
    pub fn of(port: &Port) -> Self {
        let looked = Looked::at(port);
        let wire = matches!(looked.arrival, Arrival::Finished { veth: true });
        let preparation = wire.then(|| Preparation::of(&port.link)).transpose().unwrap_or_else(|error| {
            tracing::warn!(port = %port.link.name, "{error}");
            None
        });
        Self { looked, preparation }
    }
}

impl Member {
    pub fn new(port: &Port, wire: Option<WireId>, early: Option<Early>, datapath: &mut Datapath) -> Self {
        let counted =
            wire.zip(datapath.programs()).and_then(|(wire, programs)| programs.port_counts.read(wire).ok());
        let early = early.unwrap_or_else(|| Early { looked: Looked::at(port), preparation: None });
        Self {
            wire,
            looked: early.looked,
            looked_turn: next_turn(),
            facts: None,
            held: None,
            early: early.preparation,
            served: Served::default(),
            refused: None,
            ruling: Ruling::default(),
            told: PortValue::default(),
            vlans: None,
            counted: counted.unwrap_or_default(),
        }
    }

    pub fn wire(&self) -> Option<WireId> {
        self.wire
    }

    /// Which XDP is on it.
    pub fn xdp(&self) -> Option<XdpGot> {
        self.held.as_ref().map(|held| held.attachment.xdp())
    }

    /// Whether it has AF_XDP sockets.
    pub fn has_sockets(&self) -> bool {
        self.served.is_open()
    }

    pub fn is_attached(&self) -> bool {
        self.held.is_some()
    }

    pub fn ruling(&self) -> &Ruling {
        &self.ruling
    }

    pub fn counted(&self) -> PortCounters {
        self.counted
    }

    /// Looks at it anew. A far end that was seen, and cannot be any more, is taken for what it was: XDP passes what it leaves
    /// unfinished.
    pub fn look(&mut self, port: &Port) {
        let Looked { arrival, takes_frames } = self.looked.clone();
        let new = Looked::at(port).arrival;
        let blind = matches!(new, Arrival::Unknown(_)) && self.early.is_some();
        self.looked = Looked { arrival: if blind { arrival } else { new }, takes_frames };
        self.looked_turn = next_turn();
    }

    /// Puts together what is known of it. A refusal to attach is not said: it is no lasting fact, and tried again.
    pub fn gather(
        &mut self,
        port: &Port,
        bridge: &Bridge,
        obstacles: &[(Option<u32>, String)],
        devices: Option<&AllXdpFeatures>,
    ) -> Facts {
        self.looked.look_at_device(port, devices);
        let facts = self.looked.facts(port, bridge, obstacles, self.attachment(), self.wire.is_some());
        self.facts = Some(facts.clone());
        facts
    }

    fn attached(&self) -> Attached {
        match &self.refused {
            Some(refused) if self.held.is_none() => Attached::Refused(refused.sentence.clone()),
            _ => self.attachment(),
        }
    }

    fn attachment(&self) -> Attached {
        match self.xdp() {
            Some(XdpGot::Native) => Attached::Native,
            Some(XdpGot::Generic) => Attached::Generic,
            None => Attached::No,
        }
    }

    /// News of the port, before it is judged: what it says against using it counts at once.
    pub fn close_if_unfit(&mut self, port: &Port, datapath: &mut Datapath) {
        let forwards = look::state(port) == policy::State::Forwarding && port.link.up && port.link.running;
        let isolation = self.told.flags & flag::ISOLATED != 0;
        if !forwards || isolation != port.settings.isolated || self.vlans != Some(vlans(port)) {
            self.shut(datapath);
        }
    }

    /// Lets go of what is no candidate.
    pub fn close_unless(&mut self, port: &Port, candidate: bool, datapath: &mut Datapath) {
        if candidate || self.held.is_none() {
            return;
        }
        tracing::info!(port = %port.link.name, "left to the kernel bridge");
        self.shut(datapath);
        if let Some(wire) = self.wire {
            self.served.close(wire, datapath);
        }
        self.held = None;
    }

    /// Nothing of it is used, for now.
    pub fn shut(&mut self, datapath: &mut Datapath) {
        self.tell(PortValue { flags: self.told.flags & flag::CAPTURE, ..self.told }, datapath);
        if let Some(wire) = self.wire {
            datapath.let_peers_out(wire, false);
        }
    }

    /// Has XDP copy what it takes here, or not. A port that leaves takes the flag with it.
    pub fn set_captured(&mut self, captured: bool, datapath: &mut Datapath) {
        let others = self.told.flags & !flag::CAPTURE;
        let flags = if captured { others | flag::CAPTURE } else { others };
        self.tell(PortValue { flags, ..self.told }, datapath);
    }

    /// Attaches to a candidate, and tells XDP what may be done with it.
    pub fn open(
        &mut self,
        port: &Port,
        candidate: bool,
        terms: &Terms,
        datapath: &mut Datapath,
        now: Instant,
    ) {
        let filters_vlans = terms.filters_vlans;
        if candidate
            && self.held.is_none()
            && self.refused.as_ref().is_none_or(|refused| now >= refused.again)
        {
            self.attach(port, terms, datapath, now);
        }
        let Some(mut facts) = self.facts.clone() else { return };
        facts.xdp = self.attached();
        self.ruling = policy::rule(&facts, candidate);
        self.serve_peers(port, terms, datapath, now);
        // Also where VLANs are not filtered: what stands there is what counts in the moment they are.
        if !self.tell_vlans(port, datapath) {
            return self.shut(datapath);
        }
        self.tell(self.value(port, filters_vlans), datapath);
        if let Some(wire) = self.wire {
            datapath.let_peers_out(wire, self.ruling.peers);
        }
    }

    fn serve_peers(&mut self, port: &Port, terms: &Terms, datapath: &mut Datapath, now: Instant) {
        let (Some(own), Some(wire), true) = (&terms.own, self.wire, self.ruling.from) else { return };
        match self.served.serve(wire, port, own, datapath, now) {
            Ok(()) => self.ruling.peers = true,
            Err(why) => self.ruling.reasons.push(Reason::NoPeers(why)),
        }
    }

    fn attach(&mut self, port: &Port, terms: &Terms, datapath: &mut Datapath, now: Instant) {
        match hold(port, self.wire, terms.xdp, self.early.is_some(), datapath) {
            Ok(held) => {
                tracing::info!(port = %port.link.name, "accelerated");
                (self.held, self.refused) = (Some(held), None);
            }
            Err(refusal) => {
                tracing::debug!(port = %port.link.name, sentence = %refusal.sentence, "not accelerated");
                self.refused = Some(Refused::after(self.refused.as_ref(), refusal, now));
            }
        }
    }

    fn value(&self, port: &Port, filters_vlans: bool) -> PortValue {
        let veth = matches!(self.looked.arrival, Arrival::Finished { veth: true });
        let flags = [
            (self.ruling.from, flag::FROM),
            (self.ruling.to, flag::TO),
            (self.ruling.peers, flag::TO_PEERS),
            (port.settings.isolated, flag::ISOLATED),
            (veth, flag::UNFINISHED),
            (self.told.flags & flag::CAPTURE != 0, flag::CAPTURE),
        ];
        PortValue {
            ifindex: port.link.index,
            flags: flags.into_iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum(),
            max_frame: port.link.mtu.saturating_add(HEADER_BYTES),
            pvid: port.vlans.pvid.filter(|_| filters_vlans).unwrap_or(0),
            reserved: 0,
        }
    }

    fn tell(&mut self, value: PortValue, datapath: &mut Datapath) {
        if self.told == value {
            return;
        }
        let (Some(wire), Some(programs)) = (self.wire, datapath.programs()) else { return };
        match programs.ports.set(wire, value) {
            Ok(()) => self.told = value,
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Written word by word, so only while the port is closed. False: XDP has others than the bridge.
    fn tell_vlans(&mut self, port: &Port, datapath: &mut Datapath) -> bool {
        let vlans = vlans(port);
        if self.vlans.as_ref() == Some(&vlans) {
            return true;
        }
        self.shut(datapath);
        let (Some(wire), Some(programs)) = (self.wire, datapath.programs()) else { return true };
        match programs.vlans.set(wire, &vlans) {
            Ok(()) => self.vlans = Some(vlans),
            Err(error) => {
                tracing::warn!("{error}");
                return false;
            }
        }
        true
    }

    /// The port is none any more, or we end: nothing of it is used from here on.
    pub fn leave(mut self, port: u32, datapath: &mut Datapath) {
        self.tell(PortValue::default(), datapath);
        let Some(wire) = self.wire else { return };
        self.served.close(wire, datapath);
        let Some(programs) = datapath.programs() else { return };
        let removed = [programs.devmap.remove(wire), programs.slots.remove(port).map(|_| ())];
        removed.into_iter().filter_map(Result::err).for_each(|error| tracing::warn!("{error}"));
    }
}

fn vlans(port: &Port) -> VlanSet {
    let mut vlans = VlanSet::default();
    for range in &port.vlans.ranges {
        (range.first..=range.last).for_each(|vlan| vlans.insert(vlan, range.untagged));
    }
    vlans
}

/// What holds for all ports alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The bridge filters VLANs.
    pub filters_vlans: bool,
    /// Which XDP is wanted.
    pub xdp: XdpChoice,
    /// Our own port, where there are peers.
    pub own: Option<OwnPort>,
}

/// Attaches, then prepares the port unless it `is_prepared`.
fn hold(
    port: &Port,
    wire: Option<WireId>,
    xdp: XdpChoice,
    is_prepared: bool,
    datapath: &mut Datapath,
) -> Result<Held, Refusal> {
    let (Some(wire), Some(programs)) = (wire, datapath.programs()) else {
        return Err(Refusal::untouched("there are no XDP programs"));
    };
    // Attached first: it passes all until it is told otherwise, and where it is refused nothing was touched.
    let attachment = programs.attach_port(&port.link.name, xdp).map_err(Refusal::untouched)?;
    let preparation =
        (!is_prepared).then(|| Preparation::of(&port.link)).transpose().map_err(Refusal::touched)?;
    if let Some(refused) = preparation.iter().flat_map(Preparation::refused).next() {
        return Err(Refusal::touched(refused));
    }
    enter(programs, wire, port.link.index).map_err(Refusal::touched)?;
    Ok(Held { attachment, _preparation: preparation })
}

fn enter(programs: &mut Programs, wire: WireId, port: u32) -> Result<(), MapError> {
    programs.devmap.set(wire, port)?;
    programs.slots.insert(port, wire)
}

/// Looks of all ports are counted, so that the oldest is found.
fn next_turn() -> u64 {
    static TURN: AtomicU64 = AtomicU64::new(0);
    TURN.fetch_add(1, Relaxed)
}
