//! What `trestle run --bridge` would do with each port, found out without doing it.

use std::path::Path;

use super::{
    look::Looked,
    policy::{self, Attached, Facts, Reason},
    sentences, unstrange,
};
use crate::{
    host::{
        self,
        bridge::{Mirror, Obstacles, Port},
        nic::{
            self, SYSFS,
            mtu::{self, max_mtu},
            xdp_features::AllXdpFeatures,
        },
    },
    xdp::frames::LARGE_CHUNK_BYTES,
};

/// Ports that can have numbers, see [`super::numbers`].
const NUMBERS: usize = 255;

/// What would become of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// The port's name.
    pub port: String,
    /// What comes by it would be forwarded by XDP.
    pub from: bool,
    /// What is for it would be, too.
    pub to: bool,
    /// With a SERVER.CONF, what comes by it for peers would go past the bridge.
    pub peers: bool,
    /// Why not all of that.
    pub reasons: Vec<Said>,
}

/// A reason, as `trestle ports` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The cause.
    pub cause: String,
    /// What to do, where the sentence says it.
    pub cure: Option<String>,
    /// It is a loss that somebody may not have meant.
    pub is_loss: bool,
}

impl Said {
    fn of(reason: &Reason) -> Self {
        let sentence = reason.to_string();
        // Every sentence ends with its cure.
        let (cause, cure) = match sentence.rsplit_once(": ") {
            Some((cause, cure)) => (cause.to_owned(), Some(cure.to_owned())),
            None => (sentence, None),
        };
        let is_as_meant = matches!(
            reason,
            Reason::NotRunning
                | Reason::NotForwarding(_)
                | Reason::Unfinished
                | Reason::Virtual
                | Reason::Alone
                | Reason::Generic
        );
        Self { cause, cure, is_loss: !is_as_meant }
    }
}

/// Looks at a bridge and all its ports. Nothing is attached or changed.
///
/// # Errors
/// There is no such bridge, or netlink does not answer.
pub fn forecast(bridge: &str) -> host::Result<Vec<Outlook>> {
    let mirror = Mirror::open(bridge)?;
    let known = mirror.known();
    let Some(bridge) = known.bridge() else { return Ok(Vec::new()) };
    let devices = AllXdpFeatures::open()?;
    let obstacles = sentences(Obstacles::open()?.look(known, &unstrange(&mirror)));
    let ports = known.ports().values().enumerate().map(|(number, port)| {
        let mut looked = Looked::at(port);
        looked.look_at_device(port, devices.as_ref());
        let expected = expected(port, devices.as_ref());
        let facts = looked.facts(port, bridge, &obstacles, expected, number < NUMBERS);
        (port.link.name.clone(), facts)
    });
    Ok(outlooks(ports.collect()))
}

fn outlooks(ports: Vec<(String, Facts)>) -> Vec<Outlook> {
    let (names, facts): (Vec<String>, Vec<Facts>) = ports.into_iter().unzip();
    let alone = policy::candidates(&facts, false);
    let with_peers = policy::candidates(&facts, true);
    let candidates = alone.into_iter().zip(with_peers);
    names
        .into_iter()
        .zip(&facts)
        .zip(candidates)
        .map(|((port, facts), (alone, with_peers))| {
            let ruling = policy::rule(facts, alone);
            Outlook {
                port,
                from: ruling.from,
                to: ruling.to,
                peers: policy::rule(facts, with_peers).from,
                reasons: ruling.reasons.iter().map(Said::of).collect(),
            }
        })
        .collect()
}

/// What would come of attaching, by what the driver says of itself. Where the kernel does not say (before 6.3), trying alone
/// can tell.
fn expected(port: &Port, devices: Option<&AllXdpFeatures>) -> Attached {
    let nic = &port.link;
    let name = &nic.name;
    if devices.and_then(|all| all.of(nic.index)).is_some_and(|can| !can.basic() || !can.redirect()) {
        return Attached::Refused(format!(
            "the driver of {name} has no native XDP, and generic gains nothing between ports: another driver or NIC would"
        ));
    }
    let driver = nic::driver(Path::new(SYSFS), nic);
    let driver = driver.as_deref();
    let limited = driver.and_then(|driver| max_mtu(driver, true)).is_some();
    match mtu::check(nic, driver, true, LARGE_CHUNK_BYTES, 0) {
        Err(too_large) if limited => Attached::Refused(too_large.to_string()),
        _ => Attached::Native,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::policy::{Arrival, State, Vlans},
        *,
    };

    fn wire() -> Facts {
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

    fn of(facts: &[Facts]) -> Vec<Outlook> {
        outlooks(facts.iter().enumerate().map(|(n, facts)| (format!("p{n}"), facts.clone())).collect())
    }

    #[test]
    fn two_wires_would_be_accelerated_and_a_container_not() {
        let container = Facts { arrival: Arrival::Unfinished, ..wire() };
        let found = of(&[wire(), container, wire()]);
        let ways: Vec<_> = found.iter().map(|of| (of.from, of.to, of.peers)).collect();
        assert_eq!(ways, [(true, true, true), (false, false, false), (true, true, true)]);
        let [said] = &found[1].reasons[..] else { panic!("{found:?}") };
        assert!(!said.is_loss && said.cure.as_ref().unwrap().contains("ethtool -K FAR tx off"), "{said:?}");
    }

    #[test]
    fn a_wire_that_is_alone_serves_peers() {
        let found = of(&[wire()]);
        assert_eq!((found[0].from, found[0].peers, found[0].reasons.len()), (false, true, 1));
    }

    #[test]
    fn what_xdp_would_bypass_is_a_loss_with_its_cure() {
        let rule = "a chain sees its frames: remove it".to_owned();
        let found = of(&[Facts { obstacles: vec![rule], ..wire() }, wire()]);
        let said =
            Said { cause: "a chain sees its frames".into(), cure: Some("remove it".into()), is_loss: true };
        assert_eq!(found[0].reasons, [said]);
        assert!(!found[0].peers, "a rule holds for peers as well");
    }
}
