//! What a kernel bridge's facts mean.

use super::{
    facts::Bridge,
    finding::{Finding, Level, Mend},
};
use crate::control::Outlook;

/// All that is to be said of a bridge itself; its ports are looked at one by one.
pub fn bridge(facts: &Bridge) -> Vec<Finding> {
    let mut findings = vec![ports(facts)];
    findings.extend(stands(facts));
    findings.extend(address(facts));
    findings.extend(vlans(facts));
    findings.extend(outlooks(facts));
    findings
}

fn found(facts: &Bridge, check: &'static str, level: Level, sentence: impl Into<String>) -> Finding {
    Finding::new(&facts.link.name, check, level, sentence)
}

fn ports(facts: &Bridge) -> Finding {
    let name = &facts.link.name;
    if facts.ports.is_empty() {
        let sentence = format!("the bridge {name} has no ports: there is nothing to accelerate");
        return found(facts, "ports", Level::Warning, sentence)
            .cure(format!("ip link set dev NIC master {name}"));
    }
    found(facts, "ports", Level::Ok, format!("a bridge with the ports {}", facts.ports.join(", ")))
}

fn stands(facts: &Bridge) -> Option<Finding> {
    let name = &facts.link.name;
    let finding = found(facts, "link", Level::Fault, format!("{name} is down"));
    let mended = finding.cure(format!("ip link set dev {name} up")).mend(Mend::Up(facts.link.clone()));
    (!facts.link.up).then_some(mended)
}

/// Unless it was set, a bridge's address is the lowest of its ports': one that joins may change it, and neighbours send to
/// the old one. Kernel: `br_stp_recalculate_bridge_id`, net/bridge/br_stp_if.c.
fn address(facts: &Bridge) -> Option<Finding> {
    let name = &facts.link.name;
    let [a, b, c, d, e, f] = facts.link.mac?;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    match facts.address_set? {
        true => Some(found(facts, "address", Level::Ok, format!("{name} keeps its hardware address, {mac}"))),
        false if !facts.addressed => None,
        false => {
            let sentence = format!(
                "the hardware address of {name}, {mac}, is that of a port and may change with every port that comes or \
                 goes: the host is not reached then until its neighbours have asked again"
            );
            let cure = format!(
                "ip link set dev {name} address {mac} (and in the network's configuration, to stay so)"
            );
            Some(
                found(facts, "address", Level::Warning, sentence)
                    .cure(cure)
                    .mend(Mend::KeepAddress(facts.link.clone())),
            )
        }
    }
}

fn vlans(facts: &Bridge) -> Option<Finding> {
    let sentence =
        "it keeps VLANs apart: frames whose tag would have to be changed stay with the kernel bridge";
    (facts.vlan_filtering == Some(true)).then(|| found(facts, "vlans", Level::Note, sentence))
}

/// What a start would do with each port.
fn outlooks(facts: &Bridge) -> Vec<Finding> {
    match &facts.outlooks {
        Ok(outlooks) => outlooks.iter().flat_map(|outlook| port(&facts.link.name, outlook)).collect(),
        Err(why) => {
            let sentence = format!("what would be done with its ports cannot be said: {why}");
            vec![found(facts, "acceleration", Level::Warning, sentence).cure("sudo trestle doctor")]
        }
    }
}

fn port(bridge: &str, outlook: &Outlook) -> Vec<Finding> {
    let about = |level, sentence: String| Finding::new(&outlook.port, "acceleration", level, sentence);
    if outlook.from && outlook.to {
        let sentence =
            format!("`trestle run --bridge {bridge}` forwards what it knows, from and to it, by XDP");
        return vec![about(Level::Ok, sentence)];
    }
    let what = if outlook.from { "by XDP only in part" } else { "stays with the kernel bridge" };
    let peers =
        if outlook.peers && !outlook.from { "; with a SERVER.CONF, peers' frames go by XDP" } else { "" };
    let reasons = outlook.reasons.iter().map(|said| {
        let level = if said.is_loss { Level::Warning } else { Level::Note };
        let finding = about(level, format!("{what}: {}{peers}", said.cause));
        Finding { cure: said.cure.clone(), ..finding }
    });
    reasons.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Said;
    use crate::host::links::{Link, sample};

    fn br0() -> Bridge {
        Bridge {
            link: Link { name: "br0".into(), kind: Some("bridge".into()), ..sample(3, [2, 0, 0, 0, 0, 9]) },
            ports: vec!["eth1".into(), "eth2".into()],
            addressed: true,
            address_set: Some(true),
            vlan_filtering: Some(false),
            outlooks: Ok(Vec::new()),
        }
    }

    fn ills(facts: &Bridge) -> Vec<(&'static str, Level, Option<Mend>)> {
        let ill = bridge(facts).into_iter().filter(|finding| finding.level > Level::Ok);
        ill.map(|finding| (finding.check, finding.level, finding.mend)).collect()
    }

    #[test]
    fn a_bridge_that_is_well_has_no_ills() {
        assert_eq!(ills(&br0()), []);
    }

    #[test]
    fn an_address_that_follows_the_ports_is_told_where_the_host_is_reached_by_it() {
        let loose = Bridge { address_set: Some(false), ..br0() };
        assert_eq!(ills(&loose), [("address", Level::Warning, Some(Mend::KeepAddress(loose.link.clone())))]);
        let cure = bridge(&loose).into_iter().find_map(|finding| finding.cure).unwrap();
        assert!(cure.starts_with("ip link set dev br0 address 02:00:00:00:00:09"), "{cure}");
        assert_eq!(ills(&Bridge { addressed: false, ..loose }), []);
    }

    fn outlook(from: bool, to: bool, is_loss: bool) -> Outlook {
        let said = Said { cause: "a rule sees its frames".into(), cure: Some("remove it".into()), is_loss };
        let reasons = if from && to { Vec::new() } else { vec![said] };
        Outlook { port: "eth2".into(), from, to, peers: from, reasons }
    }

    #[test]
    fn what_becomes_of_a_port_is_told_under_its_name_with_the_cure() {
        let levels = [
            (outlook(true, true, false), Level::Ok, None),
            (outlook(false, false, false), Level::Note, Some("remove it")),
            (outlook(false, false, true), Level::Warning, Some("remove it")),
            (outlook(true, false, true), Level::Warning, Some("remove it")),
        ];
        for (outlook, level, cure) in levels {
            let findings = bridge(&Bridge { outlooks: Ok(vec![outlook]), ..br0() });
            let found = findings.iter().find(|finding| finding.check == "acceleration").unwrap();
            assert_eq!((found.about.as_str(), found.level, found.cure.as_deref()), ("eth2", level, cure));
            assert_eq!(found.mend, None, "what somebody may rely on is his to change");
        }
        let blind = Bridge { outlooks: Err("no netlink".into()), ..br0() };
        assert_eq!(ills(&blind), [("acceleration", Level::Warning, None)]);
    }

    #[test]
    fn a_port_that_serves_peers_alone_is_told() {
        let outlook = Outlook { peers: true, ..outlook(false, false, false) };
        let findings = bridge(&Bridge { outlooks: Ok(vec![outlook]), ..br0() });
        let said = &findings.last().unwrap().sentence;
        assert!(said.starts_with("stays with the kernel bridge") && said.contains("SERVER.CONF"), "{said}");
    }

    #[test]
    fn a_bridge_that_is_down_or_empty_is_told() {
        let down = Bridge { link: Link { up: false, ..br0().link }, ..br0() };
        assert_eq!(ills(&down)[0].1, Level::Fault);
        assert_eq!(ills(&Bridge { ports: Vec::new(), ..br0() })[0].0, "ports");
    }
}
