//! What an interface's facts mean.

use super::{
    facts::{Attempt, Nic},
    finding::{Finding, Level, Mend},
};
use crate::{
    host::nic::{Look, cloud::Cloud, mtu},
    xdp::{frames::LARGE_CHUNK_BYTES, xsk::XskMode},
};

/// Most receive queues that are served.
const QUEUES: usize = common::QUEUES as usize;

/// All that is to be said of an interface.
pub fn nic(facts: &Nic) -> Vec<Finding> {
    if !facts.link.ethernet {
        let sentence = format!("{} is no Ethernet interface", facts.link.name);
        return vec![
            found(facts, "link", Level::Fault, sentence).cure("name another: `trestle doctor` shows them"),
        ];
    }
    let mut findings = vec![driver(facts)];
    findings.extend(stands(facts));
    findings.push(length(facts));
    findings.extend(foreign_program(facts));
    findings.extend(traffic_control(facts));
    findings.extend(modes(facts));
    findings.extend(sockets(facts));
    findings.extend(queues(facts));
    findings.extend(features(facts));
    findings.extend(facts.cloud.map(|cloud| in_cloud(facts, cloud)));
    findings
}

fn found(facts: &Nic, check: &'static str, level: Level, sentence: impl Into<String>) -> Finding {
    Finding::new(&facts.link.name, check, level, sentence)
}

fn driver(facts: &Nic) -> Finding {
    let driver = facts.driver.as_deref().unwrap_or("not to be seen");
    let queues = facts.sockets.len();
    let queues = if queues == 1 { "1 receive queue".into() } else { format!("{queues} receive queues") };
    found(facts, "driver", Level::Ok, format!("driver {driver}, {queues}, MTU {}", facts.link.mtu))
}

/// Up, with a carrier, and no part of something that XDP must stand on instead.
fn stands(facts: &Nic) -> Vec<Finding> {
    let name = &facts.link.name;
    let mut findings = Vec::new();
    if !facts.link.up {
        let finding = found(facts, "link", Level::Fault, format!("{name} is down"))
            .cure(format!("ip link set dev {name} up"));
        // A bridge's port may be down to cut a loop.
        findings.push(match &facts.master {
            Some(_) => finding,
            None => finding.mend(Mend::Up(facts.link.clone())),
        });
    } else if !facts.link.running {
        let sentence = format!("{name} has no carrier: is the cable in, is the other end up?");
        findings.push(found(facts, "link", Level::Warning, sentence));
    }
    if let Some(master) = &facts.master {
        let part_of = &master.name;
        findings.push(if master.bridge {
            let sentence = format!(
                "{name} is a port of the bridge {part_of}; `trestle doctor {part_of}` says what is done with it"
            );
            found(facts, "master", Level::Note, sentence).cure(format!("trestle run --bridge {part_of}"))
        } else {
            let sentence = format!("{name} is a part of {part_of}: XDP must stand there");
            found(facts, "master", Level::Fault, sentence).cure(format!("use --uplink {part_of}"))
        });
    }
    findings
}

fn length(facts: &Nic) -> Finding {
    let (nic, driver) = (&facts.link, facts.driver.as_deref());
    let name = &nic.name;
    // The larger chunks are what the gateway takes for a larger MTU.
    if let Err(why) = mtu::check(nic, driver, true, LARGE_CHUNK_BYTES, 0) {
        let why = why.to_string();
        // What follows is the cure.
        let sentence = why.split(": `").next().unwrap_or(&why);
        let finding =
            found(facts, "mtu", Level::Fault, sentence).cure(format!("ip link set dev {name} mtu 1500"));
        // Those who talk with the host by it would notice.
        return if facts.addressed { finding } else { finding.mend(Mend::Mtu(nic.clone(), 1500)) };
    }
    found(facts, "mtu", Level::Ok, format!("native XDP and AF_XDP take its MTU of {}", nic.mtu))
}

fn foreign_program(facts: &Nic) -> Option<Finding> {
    let program = facts.link.xdp?;
    let name = &facts.link.name;
    let id = program.program_id;
    if facts.ours == Some(true) {
        return Some(found(
            facts,
            "program",
            Level::Ok,
            format!("a gateway's XDP program is on {name} (id {id})"),
        ));
    }
    let sentence = format!("another XDP program is on {name} (id {id}): there is room for one");
    Some(found(facts, "program", Level::Fault, sentence).cure(format!(
        "`bpftool prog show id {id}` says whose it is: stop its owner, or run with --datapath socket; as a bridge's port \
         {name} stays with the kernel"
    )))
}

/// XDP comes before all of it, and AF_XDP sends behind it.
fn traffic_control(facts: &Nic) -> Vec<Finding> {
    /// Those that neither filter nor hold back.
    const HARMLESS: &[&str] = &["noqueue", "mq", "pfifo_fast", "pfifo", "bfifo", "fq_codel", "fq", "sfq"];
    let (name, control) = (&facts.link.name, &facts.traffic_control);
    let (filters, shapers): (Vec<_>, Vec<_>) = control
        .qdiscs
        .iter()
        .map(String::as_str)
        .filter(|kind| !HARMLESS.contains(kind))
        .partition(|kind| matches!(*kind, "clsact" | "ingress"));
    // The gateway's own filters, on old kernels, are held by clsact as well.
    let filters = if facts.ours == Some(true) { Vec::new() } else { filters };
    let by: Vec<&str> = filters.into_iter().chain(control.programs.iter().map(String::as_str)).collect();
    let filtered = (!by.is_empty()).then(|| {
        let sentence = format!(
            "TC filters or programs are on {name} ({}): they do not see what XDP takes; as a bridge's port it stays with \
             the kernel",
            by.join(", ")
        );
        found(facts, "traffic-control", Level::Warning, sentence)
            .cure(format!("`tc filter show dev {name} ingress` and `bpftool net show dev {name}` say whose they are"))
    });
    let shaped = (!shapers.is_empty()).then(|| {
        let sentence =
            format!("{name} is shaped ({}): what AF_XDP sends goes round that", shapers.join(", "));
        found(facts, "traffic-control", Level::Warning, sentence)
            .cure("run with --datapath socket, whose packets are shaped")
    });
    filtered.into_iter().chain(shaped).collect()
}

fn modes(facts: &Nic) -> Vec<Finding> {
    let native = match &facts.native {
        Attempt::Works(()) => found(facts, "native", Level::Ok, "native XDP: tried, and got"),
        Attempt::NotTried(why) => {
            let says = match facts.says_native {
                Some(true) => "; its driver says that it has it",
                Some(false) => {
                    "; its driver says that it has none: generic XDP is used, several times slower"
                }
                None => "",
            };
            found(facts, "native", Level::Note, format!("native XDP: not tried: {why}{says}"))
        }
        Attempt::Fails(why) => found(facts, "native", Level::Warning, format!("no native XDP: {why}"))
            .cure("a NIC or kernel whose driver has it; till then generic XDP is used, several times slower"),
    };
    let generic = match &facts.generic {
        Attempt::Works(()) => found(facts, "generic", Level::Ok, "generic XDP: tried, and got"),
        Attempt::NotTried(why) => {
            found(facts, "generic", Level::Note, format!("generic XDP: not tried: {why}"))
        }
        Attempt::Fails(why) => {
            let level = if matches!(facts.native, Attempt::Works(())) { Level::Note } else { Level::Fault };
            found(facts, "generic", level, format!("no generic XDP: {why}"))
                .cure("run with --datapath socket")
        }
    };
    vec![native, generic]
}

fn sockets(facts: &Nic) -> Option<Finding> {
    let count = facts.sockets.len();
    let first = |pick: fn(&Attempt<XskMode>) -> Option<&String>| facts.sockets.iter().find_map(pick);
    let fails = first(|attempt| if let Attempt::Fails(why) = attempt { Some(why) } else { None });
    let untried = first(|attempt| if let Attempt::NotTried(why) = attempt { Some(why) } else { None });
    Some(match (fails, untried) {
        (Some(why), _) => {
            let bad = facts.sockets.iter().filter(|attempt| matches!(attempt, Attempt::Fails(_))).count();
            found(
                facts,
                "sockets",
                Level::Fault,
                format!("{bad} of {count} queues take no AF_XDP socket: {why}"),
            )
            .cure("stop who holds them (`ss --xdp -p`), or run with --datapath socket")
        }
        (None, Some(why)) => {
            found(facts, "sockets", Level::Note, format!("AF_XDP sockets: not tried: {why}"))
        }
        (None, None) => {
            let direct = facts.sockets.contains(&Attempt::Works(XskMode::ZeroCopy));
            let mode = if direct { "zero-copy" } else { "copy mode" };
            found(
                facts,
                "sockets",
                Level::Ok,
                format!("each of {count} queues takes an AF_XDP socket, {mode}"),
            )
        }
    })
}

fn queues(facts: &Nic) -> Option<Finding> {
    let (count, name) = (facts.sockets.len(), &facts.link.name);
    let more = (count > QUEUES).then(|| {
        let sentence = format!(
            "{count} receive queues, of which {QUEUES} are served: frames of the others go by the kernel"
        );
        found(facts, "queues", Level::Warning, sentence).cure(format!("ethtool -L {name} combined {QUEUES}"))
    });
    let one = (count == 1 && facts.link.kind.is_none()).then(|| {
        let sentence = "one receive queue means one worker, on one core";
        found(facts, "queues", Level::Note, sentence)
            .cure(format!("ethtool -L {name} combined N, if `ethtool -l {name}` shows more"))
    });
    more.or(one)
}

fn features(facts: &Nic) -> Vec<Finding> {
    let name = &facts.link.name;
    match &facts.look {
        Err(why) => vec![found(
            facts,
            "offloads",
            Level::Note,
            format!("the features of {name} cannot be read: {why}"),
        )],
        Ok(look) => {
            let mut findings: Vec<Finding> = look
                .in_the_way
                .iter()
                .map(|way| {
                    let feature = way.feature;
                    if way.fixed {
                        let sentence = format!("{feature} cannot be turned off: {}", way.harm);
                        return found(facts, "offloads", Level::Fault, sentence)
                            .cure("run with --datapath socket");
                    }
                    let sentence =
                        format!("{feature} is on ({}): a gateway turns it off while it runs", way.harm);
                    found(facts, "offloads", Level::Note, sentence)
                })
                .collect();
            if findings.is_empty() {
                findings.push(found(
                    facts,
                    "offloads",
                    Level::Ok,
                    "no feature of it changes frames ahead of XDP",
                ));
            }
            findings.extend(far_side(facts, look));
            findings
        }
    }
}

fn far_side(facts: &Nic, look: &Look) -> Option<Finding> {
    let port = facts.master.as_ref().is_some_and(|master| master.bridge);
    Some(match look.far_side.as_ref()? {
        Ok(far) if far.unfinished.is_empty() => found(
            facts,
            "far-end",
            Level::Ok,
            format!("the far end, {}, sends finished frames, as a wire does", far.name),
        ),
        Ok(far) if port => {
            let sentence = format!(
                "the far end, {}, leaves its frames unfinished ({}), as containers do: the port stays with the kernel \
                 bridge, which is fastest for them",
                far.name,
                far.unfinished.join(", ")
            );
            let cure = format!(
                "if it stands for a wire: `ethtool -K {} tx off txvlan off` in its network namespace",
                far.name
            );
            found(facts, "far-end", Level::Note, sentence).cure(cure)
        }
        Ok(far) => {
            let sentence = format!(
                "the far end, {}, leaves its frames unfinished ({}): a gateway turns that off while it runs",
                far.name,
                far.unfinished.join(", ")
            );
            found(facts, "far-end", Level::Note, sentence)
        }
        Err(why) => {
            let sentence = format!("the far end cannot be looked at: {why}");
            found(facts, "far-end", Level::Warning, sentence)
                .cure("as root; or in its network namespace `ethtool -K FAR tx off txvlan off tx-vlan-stag-hw-insert off`")
        }
    })
}

fn in_cloud(facts: &Nic, cloud: Cloud) -> Finding {
    let needs = match cloud {
        Cloud::Ec2 => {
            "the tunnel's port open in the security group and the network ACL; source/destination check off only if the \
             host routes for others"
        }
        Cloud::Azure => {
            "the tunnel's port open in the network security group; on Hyper-V MAC address spoofing on, to bridge; IP \
             forwarding of the NIC only if the host routes for others"
        }
        Cloud::Hetzner => "the tunnel's port open in the cloud's firewall",
        Cloud::Google => {
            "a firewall rule for the tunnel's port; canIpForward, which can be set when the machine is made only, if the \
             host routes for others"
        }
    };
    let name = &facts.link.name;
    let sentence = format!("{}. Cloud side: {needs}", cloud.bridge_warning(name));
    found(facts, "cloud", Level::Warning, sentence).cure(format!("--uplink {name}:underlay"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::facts::{Master, TrafficControl},
        host::{
            links::{Link, Xdp, XdpMode, sample},
            nic::{FarSide, InTheWay},
        },
    };

    fn ens5() -> Nic {
        Nic {
            link: Link { name: "ens5".into(), ..sample(2, [2; 6]) },
            driver: Some("ixgbe".into()),
            cloud: None,
            master: None,
            addressed: true,
            ours: None,
            says_native: Some(true),
            traffic_control: TrafficControl::default(),
            look: Ok(Look::default()),
            native: Attempt::Works(()),
            generic: Attempt::Works(()),
            sockets: vec![Attempt::Works(XskMode::ZeroCopy), Attempt::Works(XskMode::Copy)],
        }
    }

    fn ills(facts: &Nic) -> Vec<(&'static str, Level)> {
        let ill = nic(facts).into_iter().filter(|finding| finding.level > Level::Ok);
        ill.map(|finding| (finding.check, finding.level)).collect()
    }

    fn finding(facts: &Nic, check: &str) -> Finding {
        nic(facts).into_iter().find(|finding| finding.check == check).unwrap()
    }

    #[test]
    fn a_nic_that_is_well_has_no_ills() {
        assert_eq!(ills(&ens5()), []);
        assert!(finding(&ens5(), "sockets").sentence.ends_with("zero-copy"));
    }

    #[test]
    fn an_mtu_that_is_too_large_is_mended_only_where_the_host_is_not_reached_by_it() {
        let jumbo = Nic { link: Link { mtu: 9000, ..ens5().link }, ..ens5() };
        assert_eq!(ills(&jumbo), [("mtu", Level::Fault)]);
        assert_eq!(finding(&jumbo, "mtu").mend, None);
        let port = Nic { addressed: false, ..jumbo };
        assert_eq!(finding(&port, "mtu").mend, Some(Mend::Mtu(port.link.clone(), 1500)));
        assert_eq!(finding(&port, "mtu").cure.unwrap(), "ip link set dev ens5 mtu 1500");
    }

    #[test]
    fn an_interface_that_is_down_can_be_set_up_and_one_in_a_bond_is_the_wrong_one() {
        let down = Nic { link: Link { up: false, ..ens5().link }, ..ens5() };
        assert_eq!(ills(&down), [("link", Level::Fault)]);
        assert_eq!(finding(&down, "link").mend, Some(Mend::Up(down.link.clone())));
        let master = |bridge| Nic { master: Some(Master { name: "m0".into(), bridge }), ..ens5() };
        assert_eq!(ills(&master(false)), [("master", Level::Fault)]);
        assert_eq!(finding(&master(true), "master").cure.unwrap(), "trestle run --bridge m0");
    }

    #[test]
    fn generic_xdp_is_missed_only_where_native_is_not_there_either() {
        let no = || Attempt::Fails("the kernel refuses".into());
        assert_eq!(ills(&Nic { native: no(), ..ens5() }), [("native", Level::Warning)]);
        assert_eq!(ills(&Nic { generic: no(), ..ens5() }), [("generic", Level::Note)]);
        let neither = Nic { native: no(), generic: no(), ..ens5() };
        assert_eq!(ills(&neither), [("native", Level::Warning), ("generic", Level::Fault)]);
    }

    #[test]
    fn a_program_that_is_there_and_a_queue_that_is_held_are_told() {
        let xdp = Some(Xdp { program_id: 42, mode: XdpMode::Native });
        let taken = Nic { link: Link { xdp, ..ens5().link }, ..ens5() };
        assert_eq!(ills(&taken), [("program", Level::Fault)]);
        assert!(finding(&taken, "program").cure.unwrap().starts_with("`bpftool prog show id 42`"));
        assert_eq!(ills(&Nic { ours: Some(true), ..taken }), []);
        let held = vec![Attempt::Works(XskMode::Copy), Attempt::Fails("busy".into())];
        let held = Nic { sockets: held, ..ens5() };
        assert_eq!(ills(&held), [("sockets", Level::Fault)]);
        assert!(finding(&held, "sockets").sentence.starts_with("1 of 2 queues take no AF_XDP socket: busy"));
    }

    #[test]
    fn offloads_are_turned_off_by_a_gateway_unless_they_cannot_be() {
        let way = |fixed| InTheWay { feature: "rx-lro", harm: "it joins segments", fixed };
        let look = |fixed| Ok(Look { in_the_way: vec![way(fixed)], far_side: None });
        assert_eq!(ills(&Nic { look: look(false), ..ens5() }), [("offloads", Level::Note)]);
        assert_eq!(ills(&Nic { look: look(true), ..ens5() }), [("offloads", Level::Fault)]);
    }

    #[test]
    fn filters_and_shaping_are_told_and_ordinary_queues_are_not() {
        let with = |qdiscs: &[&str], programs: &[&str]| {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            Nic {
                traffic_control: TrafficControl { qdiscs: owned(qdiscs), programs: owned(programs) },
                ..ens5()
            }
        };
        assert_eq!(ills(&with(&["mq", "fq_codel"], &[])), []);
        assert_eq!(ills(&with(&["htb", "clsact"], &[])).len(), 2);
        assert!(
            finding(&with(&[], &["cil_from_netdev"]), "traffic-control")
                .sentence
                .contains("(cil_from_netdev)")
        );
        let own = Nic { ours: Some(true), ..with(&["clsact"], &[]) };
        assert_eq!(ills(&own), []);
    }

    #[test]
    fn a_container_s_veth_stays_with_the_kernel_and_a_wire_s_is_well() {
        let far = |unfinished| Nic {
            look: Ok(Look {
                in_the_way: vec![],
                far_side: Some(Ok(FarSide { name: "eth0".into(), unfinished })),
            }),
            master: Some(Master { name: "br0".into(), bridge: true }),
            ..ens5()
        };
        assert_eq!(finding(&far(vec![]), "far-end").level, Level::Ok);
        let said = finding(&far(vec!["tx-checksum-ip-generic"]), "far-end");
        assert!(said.sentence.contains("stays with the kernel bridge"), "{said:?}");
        assert_eq!(said.mend, None, "a container would get slower");
    }

    #[test]
    fn a_cloud_s_nic_is_told_what_the_cloud_needs() {
        for (cloud, word) in
            [(Cloud::Ec2, "security group"), (Cloud::Azure, "spoofing"), (Cloud::Google, "canIpForward")]
        {
            let said = finding(&Nic { cloud: Some(cloud), ..ens5() }, "cloud");
            assert!(said.sentence.contains(word) && said.cure.unwrap() == "--uplink ens5:underlay");
        }
    }
}
