//! What of a bridge's port is accelerated, and what is not and why. Pure: facts in, rulings out.
//!
//! ```text
//!   Facts of every port ─► candidates: what may be attached to ─► attach (the caller) ─► flags: FROM, TO, ...
//! ```
//!
//! A port is left to the kernel whenever XDP would bypass something that somebody relies on, could not be right, or would
//! gain nothing. Every such case is a [`Reason`], which says so to the operator.

use std::fmt;

/// What is known of a port. Gathered anew at every event and about every second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Up, and its other end is there.
    pub running: bool,
    /// What the spanning tree (or nobody) has it do.
    pub state: State,
    /// The bridge answers ARP and neighbour discovery for stations behind it.
    pub answers_neighbours: bool,
    /// VLANs are mapped to tunnels (`vlan_tunnel`).
    pub vlan_tunnel: bool,
    /// How the bridge sees its VLANs.
    pub vlans: Vlans,
    /// What its frames are like when they arrive.
    pub arrival: Arrival,
    /// The device takes frames redirected to it (netdev's `NDO_XMIT`); `None`: the kernel does not say.
    pub takes_frames: Option<bool>,
    /// What came of attaching.
    pub xdp: Attached,
    /// What XDP would bypass, on the port or on all of the bridge: a sentence each.
    pub obstacles: Vec<String>,
    /// It has a number among the ports that XDP knows.
    pub numbered: bool,
}

/// A port's state as the spanning tree has it; without one, forwarding or disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Disabled,
    Listening,
    Learning,
    Forwarding,
    Blocking,
}

/// How the bridge sees a port's VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vlans {
    /// It does not look at tags.
    Ignored,
    /// It filters, and of this port exactly the frames of the pvid are untagged, on the way in and out.
    Filtered,
    /// It filters, and tags would have to change on the way: a sentence says how.
    Changed(&'static str),
}

/// What frames are like when they arrive by a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// As on a wire. `veth`: its far end was told to finish them, and may be told otherwise any time.
    Finished {
        /// One end of a veth.
        veth: bool,
    },
    /// The far end of a veth leaves checksums to whoever sends them on: an ordinary container.
    Unfinished,
    /// A virtual machine, or a program, leaves them likewise.
    Virtual,
    /// It was not to be found out: why.
    Unknown(String),
}

/// What came of attaching XDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// Not tried.
    No,
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
    /// The kernel refused: its sentence.
    Refused(String),
}

/// What becomes of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ruling {
    /// Frames that come by it may be forwarded by XDP.
    pub from: bool,
    /// XDP may forward frames to it.
    pub to: bool,
    /// Frames for peers go to the workers, and theirs leave by it.
    pub peers: bool,
    /// Why not, or not all; empty when all there is to do is done.
    pub reasons: Vec<Reason>,
}

/// Why a port, or a direction of it, is left to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    NotRunning,
    NotForwarding(State),
    Bypassed(String),
    AnswersNeighbours,
    VlanTunnel,
    TagsChange(&'static str),
    Unfinished,
    Virtual,
    FarEndUnknown(String),
    TooManyPorts,
    Refused(String),
    /// Frames come from it by XDP, none go to it.
    TakesNoFrames {
        /// One end of a veth: what takes frames is the other.
        veth: bool,
    },
    /// Between ports generic XDP gains nothing.
    Generic,
    /// Its peers' frames go by the bridge.
    NoPeers(String),
    /// Nothing would be gained.
    Alone,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning => f.write_str("it is down, or its other end is: bring both up"),
            Self::NotForwarding(State::Disabled) => {
                f.write_str("the bridge keeps it disabled: bring the port and the bridge up")
            }
            Self::NotForwarding(State::Blocking) => f.write_str(
                "the spanning tree keeps it blocked, for there is another way: that is its purpose, nothing is wrong",
            ),
            Self::NotForwarding(_) => {
                f.write_str("the spanning tree has it wait for the forward delay: wait, or shorten that (`setfd`)")
            }
            Self::Bypassed(sentence) | Self::Refused(sentence) => f.write_str(sentence),
            Self::AnswersNeighbours => f.write_str(
                "the bridge answers ARP for stations (neigh_suppress or proxy_arp), which XDP would bypass: turn it \
                 off with `bridge link set dev PORT neigh_suppress off` if it is not needed",
            ),
            Self::VlanTunnel => f.write_str("its VLANs are mapped to tunnels (vlan_tunnel), which only the kernel does"),
            Self::TagsChange(how) => write!(f, "{how}, which only the kernel does: see `bridge vlan show`"),
            Self::Unfinished => f.write_str(
                "its far end leaves checksums and segments unfinished, as a container's does: the kernel alone carries \
                 those, and fast; `ethtool -K FAR tx off` in the far end's namespace makes it a wire",
            ),
            Self::Virtual => f.write_str(
                "a program or a virtual machine is behind it, which leaves checksums and segments unfinished: the \
                 kernel alone carries those, and fast",
            ),
            Self::FarEndUnknown(why) => write!(
                f,
                "whether its far end finishes checksums could not be found out ({why}): start trestle with the \
                 privileges to look, or leave the port to the kernel",
            ),
            Self::TooManyPorts => f.write_str("XDP counts 255 ports at most: use another bridge for the rest"),
            Self::TakesNoFrames { veth: true } => f.write_str(
                "frames go to it by the kernel alone, for its far end takes none by XDP: `ethtool -K FAR gro on`, in \
                 the far end's namespace while it is up",
            ),
            Self::TakesNoFrames { veth: false } => f.write_str(
                "frames go to it by the kernel alone, for its driver takes none by XDP: another driver or NIC would",
            ),
            Self::Generic => f.write_str(
                "XDP runs in generic mode on it, for its driver has no other: frames for peers are taken from it, those \
                 for other ports are the kernel's, which is as fast",
            ),
            Self::NoPeers(why) => write!(f, "frames between it and peers go by the bridge: {why}"),
            Self::Alone => f.write_str("there is no other port to exchange frames with by XDP"),
        }
    }
}

/// Which ports XDP is to be attached to, by the order of `ports`. What was refused is no candidate: the caller tries again
/// when it has reason to.
///
/// Two at least, unless `to_peers`: frames go from one port to another, and XDP costs the ports it is on a little.
pub(super) fn candidates(ports: &[Facts], to_peers: bool) -> Vec<bool> {
    let eligible: Vec<bool> = ports.iter().map(|facts| lasting(facts).is_empty()).collect();
    let enough = to_peers || eligible.iter().filter(|eligible| **eligible).count() > 1;
    eligible.into_iter().map(|eligible| eligible && enough).collect()
}

/// What becomes of a port that is, or is not, a candidate.
pub(super) fn rule(facts: &Facts, candidate: bool) -> Ruling {
    let mut reasons = lasting(facts);
    if reasons.is_empty() && !candidate {
        reasons.push(Reason::Alone);
    }
    reasons.extend(passing(facts));
    let from = reasons.is_empty() && matches!(facts.xdp, Attached::Native | Attached::Generic);
    let to = from && facts.xdp == Attached::Native && takes_frames(facts);
    if from && facts.xdp == Attached::Generic {
        reasons.push(Reason::Generic);
    } else if from && !to {
        reasons.push(Reason::TakesNoFrames { veth: is_veth(facts) });
    }
    Ruling { from, to, peers: false, reasons }
}

/// What speaks against attaching at all.
fn lasting(facts: &Facts) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = facts.obstacles.iter().cloned().map(Reason::Bypassed).collect();
    reasons.extend(facts.answers_neighbours.then_some(Reason::AnswersNeighbours));
    reasons.extend(facts.vlan_tunnel.then_some(Reason::VlanTunnel));
    if let Vlans::Changed(how) = facts.vlans {
        reasons.push(Reason::TagsChange(how));
    }
    reasons.extend(match &facts.arrival {
        Arrival::Finished { .. } => None,
        Arrival::Unfinished => Some(Reason::Unfinished),
        Arrival::Virtual => Some(Reason::Virtual),
        Arrival::Unknown(why) => Some(Reason::FarEndUnknown(why.clone())),
    });
    if let Attached::Refused(sentence) = &facts.xdp {
        reasons.push(Reason::Refused(sentence.clone()));
    }
    reasons.extend((!facts.numbered).then_some(Reason::TooManyPorts));
    reasons
}

/// What keeps an attached port from being used, for now: it would be a pity to detach for each of these.
fn passing(facts: &Facts) -> Option<Reason> {
    if !facts.running {
        return Some(Reason::NotRunning);
    }
    (facts.state != State::Forwarding).then_some(Reason::NotForwarding(facts.state))
}

/// Where the kernel does not say, a driver with native XDP takes frames; a veth only where its far end does, which is
/// the one case that loses frames without a trace, so there no word means no.
fn takes_frames(facts: &Facts) -> bool {
    facts.takes_frames.unwrap_or(!is_veth(facts))
}

fn is_veth(facts: &Facts) -> bool {
    facts.arrival == Arrival::Finished { veth: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A NIC's port with everything as it should be.
    fn good() -> Facts {
        Facts {
            running: true,
            state: State::Forwarding,
            answers_neighbours: false,
            vlan_tunnel: false,
            vlans: Vlans::Ignored,
            arrival: Arrival::Finished { veth: false },
            takes_frames: Some(true),
            xdp: Attached::Native,
            obstacles: Vec::new(),
            numbered: true,
        }
    }

    /// Every way one thing can be wrong enough that nothing is to be attached, with its reason.
    fn lasting_faults() -> Vec<(Facts, Reason)> {
        let how = "two VLANs are untagged";
        vec![
            (Facts { obstacles: vec!["ebtables".into()], ..good() }, Reason::Bypassed("ebtables".into())),
            (Facts { answers_neighbours: true, ..good() }, Reason::AnswersNeighbours),
            (Facts { vlan_tunnel: true, ..good() }, Reason::VlanTunnel),
            (Facts { vlans: Vlans::Changed(how), ..good() }, Reason::TagsChange(how)),
            (Facts { arrival: Arrival::Unfinished, ..good() }, Reason::Unfinished),
            (Facts { arrival: Arrival::Virtual, ..good() }, Reason::Virtual),
            (Facts { arrival: Arrival::Unknown("x".into()), ..good() }, Reason::FarEndUnknown("x".into())),
            (Facts { xdp: Attached::Refused("MTU".into()), ..good() }, Reason::Refused("MTU".into())),
            (Facts { numbered: false, ..good() }, Reason::TooManyPorts),
        ]
    }

    /// Every way a port can be out of use for now.
    fn passing_faults() -> Vec<(Facts, Reason)> {
        let states = [State::Disabled, State::Listening, State::Learning, State::Blocking];
        let states = states.map(|state| (Facts { state, ..good() }, Reason::NotForwarding(state)));
        let down = Facts { running: false, state: State::Disabled, ..good() };
        states.into_iter().chain([(down, Reason::NotRunning)]).collect()
    }

    #[test]
    fn two_good_ports_are_accelerated_both_ways_without_a_word() {
        for vlans in [Vlans::Ignored, Vlans::Filtered] {
            let facts = Facts { vlans, ..good() };
            assert_eq!(candidates(&[facts.clone(), facts.clone()], false), [true, true]);
            assert_eq!(
                rule(&facts, true),
                Ruling { from: true, to: true, peers: false, reasons: Vec::new() }
            );
        }
    }

    #[test]
    fn a_lasting_fault_keeps_xdp_away_and_is_named() {
        for (facts, reason) in lasting_faults() {
            assert_eq!(candidates(&[good(), facts.clone(), good()], true), [true, false, true], "{reason:?}");
            let ruling = rule(&facts, false);
            assert_eq!(ruling, Ruling { from: false, to: false, peers: false, reasons: vec![reason] });
        }
    }

    #[test]
    fn a_passing_fault_stops_both_directions_and_detaches_nothing() {
        for (facts, reason) in passing_faults() {
            assert_eq!(candidates(&[good(), facts.clone()], false), [true, true], "{reason:?}");
            let ruling = rule(&facts, true);
            assert_eq!(ruling, Ruling { from: false, to: false, peers: false, reasons: vec![reason] });
        }
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let facts = Facts {
            obstacles: vec!["one".into(), "two".into()],
            arrival: Arrival::Unfinished,
            state: State::Blocking,
            ..good()
        };
        let reasons = [
            Reason::Bypassed("one".into()),
            Reason::Bypassed("two".into()),
            Reason::Unfinished,
            Reason::NotForwarding(State::Blocking),
        ];
        assert_eq!(rule(&facts, false).reasons, reasons);
    }

    #[test]
    fn a_port_that_would_be_alone_is_left_in_peace_unless_there_are_peers() {
        let container = Facts { arrival: Arrival::Unfinished, ..good() };
        let ports = [good(), container.clone(), container];
        assert_eq!(candidates(&ports, false), [false; 3]);
        assert_eq!(rule(&good(), false).reasons, [Reason::Alone]);
        assert_eq!(candidates(&ports, true), [true, false, false]);
        assert_eq!(candidates(&[], false), [false; 0]);
    }

    #[test]
    fn what_is_not_attached_yet_is_not_used() {
        let facts = Facts { xdp: Attached::No, ..good() };
        assert_eq!(candidates(&[facts.clone(), facts.clone()], false), [true, true]);
        let ruling = rule(&facts, true);
        assert!(!ruling.from && !ruling.to);
    }

    #[test]
    fn generic_xdp_serves_peers_alone() {
        let ruling = rule(&Facts { xdp: Attached::Generic, ..good() }, true);
        assert_eq!(ruling, Ruling { from: true, to: false, peers: false, reasons: vec![Reason::Generic] });
    }

    #[test]
    fn frames_go_only_to_who_takes_them() {
        let veth = Arrival::Finished { veth: true };
        let nic = Arrival::Finished { veth: false };
        let cases = [
            (&veth, Some(true), true),
            (&veth, Some(false), false),
            (&veth, None, false),
            (&nic, Some(true), true),
            (&nic, Some(false), false),
            (&nic, None, true),
        ];
        for (arrival, takes_frames, to) in cases {
            let facts = Facts { arrival: arrival.clone(), takes_frames, ..good() };
            let ruling = rule(&facts, true);
            assert_eq!((ruling.from, ruling.to), (true, to), "{arrival:?} {takes_frames:?}");
            assert_eq!(ruling.reasons.is_empty(), to);
        }
    }

    #[test]
    fn every_reason_is_a_sentence() {
        let all = lasting_faults().into_iter().chain(passing_faults()).map(|(_, reason)| reason);
        let veths = [true, false].map(|veth| Reason::TakesNoFrames { veth });
        let others = [Reason::Alone, Reason::Generic, Reason::NoPeers("both are isolated".into())];
        for reason in all.chain(veths).chain(others) {
            let own = !matches!(reason, Reason::Bypassed(_) | Reason::Refused(_) | Reason::TagsChange(_));
            let text = reason.to_string();
            assert!(!text.ends_with('.') && (!own || text.len() > 20), "{text}");
        }
    }
}
