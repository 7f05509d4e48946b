//! What a kernel bridge's facts mean.

use super::{
    facts::Bridge,
    finding::{Finding, Level, Mend},
};

/// All that is to be said of a bridge itself; its ports are looked at one by one.
pub fn bridge(facts: &Bridge) -> Vec<Finding> {
    let mut findings = vec![ports(facts)];
    findings.extend(stands(facts));
    findings.extend(address(facts));
    findings.extend(vlans(facts));
    findings.extend(closed(facts));
    findings.extend(filters(facts));
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

fn closed(facts: &Bridge) -> Option<Finding> {
    let words: Vec<String> = facts.closed.iter().map(|(name, why)| format!("{name} {why}")).collect();
    let sentence = format!("not every port forwards: {}; XDP obeys that", words.join(", "));
    (!words.is_empty()).then(|| found(facts, "closed", Level::Note, sentence))
}

fn filters(facts: &Bridge) -> Option<Finding> {
    if facts.filters.is_empty() {
        return None;
    }
    let settings = facts.filters.join(", ");
    let sentence = format!(
        "frames that cross {} meet the host's packet filter ({settings} is 1): its ports stay with the kernel, so that \
         nothing is bypassed",
        facts.link.name
    );
    let words: Vec<String> = facts.filters.iter().map(|name| format!("net.bridge.{name}=0")).collect();
    Some(
        found(facts, "filters", Level::Warning, sentence)
            .cure(format!("if nobody relies on that: sysctl -w {}", words.join(" "))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::links::{Link, sample};

    fn br0() -> Bridge {
        Bridge {
            link: Link { name: "br0".into(), kind: Some("bridge".into()), ..sample(3, [2, 0, 0, 0, 0, 9]) },
            ports: vec!["eth1".into(), "eth2".into()],
            addressed: true,
            address_set: Some(true),
            vlan_filtering: Some(false),
            filters: Vec::new(),
            closed: Vec::new(),
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

    #[test]
    fn what_is_not_bypassed_is_told_with_the_setting() {
        let filtered = Bridge { filters: vec!["bridge-nf-call-iptables".into()], ..br0() };
        let findings = bridge(&filtered);
        let finding = findings.iter().find(|finding| finding.check == "filters").unwrap();
        assert!(finding.cure.as_ref().unwrap().ends_with("sysctl -w net.bridge.bridge-nf-call-iptables=0"));
        assert_eq!(finding.mend, None, "what somebody may rely on is his to change");
    }

    #[test]
    fn a_port_that_the_spanning_tree_closes_is_told() {
        let closed = vec![("eth2".to_owned(), "is blocked by the spanning tree")];
        let findings = bridge(&Bridge { closed, ..br0() });
        let finding = findings.iter().find(|finding| finding.check == "closed").unwrap();
        assert!(finding.sentence.contains(": eth2 is blocked by the spanning tree;"), "{finding:?}");
    }

    #[test]
    fn a_bridge_that_is_down_or_empty_is_told() {
        let down = Bridge { link: Link { up: false, ..br0().link }, ..br0() };
        assert_eq!(ills(&down)[0].1, Level::Fault);
        assert_eq!(ills(&Bridge { ports: Vec::new(), ..br0() })[0].0, "ports");
    }
}
