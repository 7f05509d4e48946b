//! What the machine's facts mean.

use super::{
    HOST,
    facts::{Attempt, Host, Proof},
    finding::{Finding, Level, Mend},
};
use crate::host::{
    nic::journal::{Fate, Left},
    preflight::Kernel,
};

/// A worker's memory where the NIC's MTU is ordinary: three rings of 2048 chunks of 2048 bytes.
const WORKER_BYTES: u64 = 3 * 2048 * 2048;
/// Receive buffers below this lose bursts of control packets: some milliseconds of a full uplink.
const RECEIVE_BYTES: u64 = 4 << 20;

/// All that is to be said of the machine.
pub fn host(facts: &Host) -> Vec<Finding> {
    let mut findings =
        vec![kernel(facts.kernel), af_xdp(facts), privileges(facts), memory(facts), tun(facts)];
    findings.extend(missing_features(facts.kernel));
    findings.extend(speed(facts));
    findings.extend(receive_limit(facts.receive_limit));
    findings.push(journal(&facts.journal));
    findings.extend(proofs(&facts.proof));
    findings
}

fn found(check: &'static str, level: Level, sentence: impl Into<String>) -> Finding {
    Finding::new(HOST, check, level, sentence)
}

fn kernel(kernel: Option<Kernel>) -> Finding {
    let Some(kernel) = kernel else {
        return found("kernel", Level::Warning, "the kernel's version cannot be read");
    };
    match kernel.check() {
        Ok(()) => found("kernel", Level::Ok, format!("kernel {kernel}")),
        Err(why) => found("kernel", Level::Fault, why.to_string()).cure("install a kernel of 6.1 or newer"),
    }
}

fn missing_features(kernel: Option<Kernel>) -> Vec<Finding> {
    let missing = kernel.iter().flat_map(|kernel| kernel.features()).filter(|(_, there)| !there);
    let note = |name, since, without| {
        found("features", Level::Note, format!("no {name} before kernel {since}: {without}"))
    };
    missing.map(|(feature, _)| note(feature.name, feature.since, feature.without)).collect()
}

fn af_xdp(facts: &Host) -> Finding {
    if facts.af_xdp {
        return found("af-xdp", Level::Ok, "the kernel has AF_XDP");
    }
    let sentence = "the kernel has no AF_XDP: frames go by the kernel's sockets, several times slower";
    found("af-xdp", Level::Warning, sentence).cure("a kernel with CONFIG_XDP_SOCKETS=y")
}

fn privileges(facts: &Host) -> Finding {
    if facts.missing.is_empty() {
        return found("privileges", Level::Ok, "all capabilities that a start uses are there");
    }
    let words: Vec<String> = facts.missing.iter().map(|(name, what)| format!("{name} ({what})")).collect();
    // Without these it starts all the same.
    let optional = |name: &str| matches!(name, "CAP_IPC_LOCK" | "CAP_SYS_ADMIN");
    let level = if facts.missing.iter().all(|(name, _)| optional(name)) { Level::Note } else { Level::Fault };
    let sentence = format!("this process lacks {}, and cannot see all that is said below", words.join(", "));
    found("privileges", level, sentence).cure("sudo trestle doctor")
}

fn memory(facts: &Host) -> Finding {
    let mib = |bytes: u64| bytes >> 20;
    match facts.lockable {
        None => found("locked-memory", Level::Ok, "memory shared with NICs is not limited"),
        Some(limit) if limit >= WORKER_BYTES => {
            let workers = limit / WORKER_BYTES;
            found(
                "locked-memory",
                Level::Note,
                format!("{} MiB may be locked: enough for {workers} workers", mib(limit)),
            )
        }
        Some(limit) => {
            let sentence = format!(
                "{} MiB of memory may be locked, and one worker takes {}",
                mib(limit),
                mib(WORKER_BYTES)
            );
            found("locked-memory", Level::Fault, sentence)
                .cure("start as root or with CAP_IPC_LOCK; in a systemd unit LimitMEMLOCK=infinity")
        }
    }
}

fn tun(facts: &Host) -> Finding {
    if facts.tun {
        return found("tun", Level::Ok, "the host port can be made: /dev/net/tun is there");
    }
    let sentence = "there is no /dev/net/tun, and no host port without";
    found("tun", Level::Fault, sentence).cure("modprobe tun")
}

fn speed(facts: &Host) -> Vec<Finding> {
    let interpreted = (facts.compiled == Some(false)).then(|| {
        found("jit", Level::Warning, "BPF programs are interpreted, several times slower than compiled")
            .cure("sysctl -w net.core.bpf_jit_enable=1")
            .mend(Mend::Setting("net/core/bpf_jit_enable", 1))
    });
    let typeless = (!facts.types).then(|| {
        found(
            "types",
            Level::Note,
            "the kernel does not show its types (BTF): bpftool shows maps and programs without names",
        )
    });
    interpreted.into_iter().chain(typeless).collect()
}

fn receive_limit(limit: Option<u64>) -> Option<Finding> {
    let limit = limit.filter(|limit| *limit < RECEIVE_BYTES)?;
    // With CAP_NET_ADMIN the gateway goes beyond it.
    let sentence = format!(
        "net.core.rmem_max is {limit} bytes: started without CAP_NET_ADMIN, or beside other tunnels, bursts are lost"
    );
    let cure = format!("sysctl -w net.core.rmem_max={RECEIVE_BYTES}");
    let mend = Mend::Setting("net/core/rmem_max", RECEIVE_BYTES);
    Some(found("receive-buffer", Level::Note, sentence).cure(cure).mend(mend))
}

fn journal(journal: &Result<Vec<Left>, String>) -> Finding {
    let left = match journal {
        Ok(left) => left,
        Err(why) => {
            return found(
                "journal",
                Level::Note,
                format!("what killed gateways have left cannot be read: {why}"),
            );
        }
    };
    let standing: Vec<String> =
        left.iter().filter(|left| matches!(left.fate, Fate::Standing(_))).map(ToString::to_string).collect();
    if standing.is_empty() {
        return found("journal", Level::Ok, "no gateway was killed and left settings changed");
    }
    found("journal", Level::Warning, standing.join("; "))
        .cure("trestle doctor --fix, or the next start")
        .mend(Mend::Journal)
}

fn proofs(proof: &Proof) -> Vec<Finding> {
    vec![by("native", &proof.native), by("generic", &proof.generic)]
}

fn by(mode: &str, attempt: &Attempt<()>) -> Finding {
    let way = format!("by {mode} XDP into an AF_XDP socket, on a veth made for that");
    match attempt {
        Attempt::Works(()) => found("probe", Level::Ok, format!("a probe frame came {way}")),
        Attempt::NotTried(why) => {
            found("probe", Level::Note, format!("no probe frame was sent {way}: {why}"))
        }
        Attempt::Fails(why) => found("probe", Level::Warning, format!("no probe frame comes {way}: {why}"))
            .cure("run with --datapath socket, and report it with the kernel's version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::nic::journal::{Change, Namespace};

    fn fit() -> Host {
        Host {
            kernel: Some(Kernel { major: 6, minor: 12 }),
            af_xdp: true,
            types: true,
            compiled: Some(true),
            tun: true,
            journal: Ok(Vec::new()),
            proof: Proof { native: Attempt::Works(()), generic: Attempt::Works(()) },
            receive_limit: Some(64 << 20),
            missing: Vec::new(),
            lockable: None,
        }
    }

    /// What is worse than ok: check, level, cure.
    fn ills(facts: &Host) -> Vec<(&'static str, Level, String)> {
        let ill = host(facts).into_iter().filter(|finding| finding.level > Level::Ok);
        ill.map(|finding| (finding.check, finding.level, finding.cure.unwrap_or_default())).collect()
    }

    #[test]
    fn a_fit_machine_has_nothing_to_be_cured() {
        assert_eq!(ills(&fit()), []);
        assert!(host(&fit()).len() >= 7, "what is well is said, too");
    }

    #[test]
    fn each_ill_has_its_level_and_its_cure() {
        let old = Host { kernel: Some(Kernel { major: 5, minor: 15 }), ..fit() };
        assert_eq!(ills(&old)[0].0, "kernel");
        assert_eq!(ills(&old)[0].1, Level::Fault);
        let [tun] = &ills(&Host { tun: false, ..fit() })[..] else { panic!() };
        assert_eq!(tun, &("tun", Level::Fault, "modprobe tun".into()));
        let [jit] = &ills(&Host { compiled: Some(false), ..fit() })[..] else { panic!() };
        assert_eq!((jit.0, jit.1), ("jit", Level::Warning));
        let [memory] = &ills(&Host { lockable: Some(8 << 20), ..fit() })[..] else { panic!() };
        assert_eq!((memory.0, memory.1), ("locked-memory", Level::Fault));
        let enough = host(&Host { lockable: Some(40 << 20), ..fit() });
        assert!(
            enough.iter().any(|finding| finding.sentence == "40 MiB may be locked: enough for 3 workers")
        );
        let [buffer] = &ills(&Host { receive_limit: Some(212_992), ..fit() })[..] else { panic!() };
        assert_eq!((buffer.0, buffer.1), ("receive-buffer", Level::Note));
    }

    #[test]
    fn what_can_be_done_without_is_no_fault() {
        let lacking = |names: &[&str]| {
            let missing = names.iter().map(|name| ((*name).to_owned(), "for it")).collect();
            ills(&Host { missing, ..fit() })[0].1
        };
        assert_eq!(lacking(&["CAP_SYS_ADMIN", "CAP_IPC_LOCK"]), Level::Note);
        assert_eq!(lacking(&["CAP_SYS_ADMIN", "CAP_BPF"]), Level::Fault);
    }

    #[test]
    fn what_a_killed_gateway_left_is_told_and_can_be_mended() {
        let change = Change {
            namespace: Namespace { inode: 1, cookie: 1 },
            index: 2,
            name: "ens5".into(),
            mac: None,
            feature: "rx-lro".into(),
            was: true,
            set: false,
        };
        let left = vec![Left { change, owner: None, fate: Fate::Standing(None) }];
        let findings = host(&Host { journal: Ok(left), ..fit() });
        let finding = findings.iter().find(|finding| finding.check == "journal").unwrap();
        assert_eq!((finding.level, finding.mend.clone()), (Level::Warning, Some(Mend::Journal)));
        assert!(finding.sentence.starts_with("rx-lro of ens5 was turned off by a gateway that was killed"));
    }
}
