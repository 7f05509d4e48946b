//! Before anything is touched: can this host do what is asked? Each answer is a sentence with its cure.

use std::collections::BTreeMap;
use std::fmt;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::utsname::uname;

use super::links::{Link, Xdp, XdpMode};
use super::{Error, Result, privileges};

/// A kernel's version, as far as features depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel {
    /// 6 of 6.1.
    pub major: u32,
    /// 1 of 6.1.
    pub minor: u32,
}

/// The oldest kernel the gateway is tested with.
pub const OLDEST: Kernel = Kernel { major: 6, minor: 1 };

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Kernel {
    /// The running one.
    pub fn running() -> Result<Self> {
        let name = uname().map_err(Error::os("read the kernel's version"))?;
        let release = name.release().to_string_lossy();
        Self::parse(&release)
            .ok_or_else(|| Error::Unfit(format!("the kernel's version, {release}, cannot be understood")))
    }

    /// From a release name (`6.1.0-18-amd64`).
    pub fn parse(release: &str) -> Option<Self> {
        let (major, rest) = release.split_once('.')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest[..digits].parse().ok()? })
    }

    /// Whether it is new enough at all.
    pub fn check(self) -> Result<()> {
        if self >= OLDEST {
            return Ok(());
        }
        Err(Error::Unfit(format!(
            "kernel {self} is too old, trestle needs {OLDEST} or newer: Debian 12 and Ubuntu 24.04 have it"
        )))
    }

    /// What it has of what the gateway can use.
    pub fn features(self) -> impl Iterator<Item = (&'static Feature, bool)> {
        FEATURES.iter().map(move |feature| (feature, self >= feature.since))
    }
}

/// Something newer kernels have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// The kernel it came with.
    pub since: Kernel,
    /// What is done without.
    pub without: &'static str,
}

/// Kernels' features that change what the gateway does, oldest first. Distributions' kernels may have more.
pub const FEATURES: &[Feature] = &[
    Feature {
        name: "XDP feature flags over netlink",
        since: Kernel { major: 6, minor: 3 },
        without: "whether an interface takes redirected frames is found out by trying",
    },
    Feature {
        name: "TCX links",
        since: Kernel { major: 6, minor: 6 },
        without: "TC programs are held by netlink filters, which pass everything once the gateway's heartbeat stops",
    },
];

/// Whether `bytes` of memory shared with NICs can be locked; to be asked before privileges are given up.
pub fn check_locked_memory(bytes: u64) -> Result<()> {
    let (limit, _) =
        getrlimit(Resource::RLIMIT_MEMLOCK).map_err(Error::os("read the limit of locked memory"))?;
    locked_memory(bytes, limit, privileges::may_lock_memory()?)
}

/// Bytes of memory this process may lock; `None`: as much as there is.
pub fn lockable_memory() -> Result<Option<u64>> {
    let (limit, _) =
        getrlimit(Resource::RLIMIT_MEMLOCK).map_err(Error::os("read the limit of locked memory"))?;
    Ok((!privileges::may_lock_memory()? && limit != nix::libc::RLIM_INFINITY).then_some(limit))
}

fn locked_memory(bytes: u64, limit: u64, unlimited: bool) -> Result<()> {
    if unlimited || bytes <= limit {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    Err(Error::Unfit(format!(
        "the workers' frames need {} MiB of locked memory, and only {} MiB are allowed: start as root or with \
         CAP_IPC_LOCK, set LimitMEMLOCK={}M in the systemd unit, or use fewer --workers",
        mib(bytes),
        limit / (1024 * 1024),
        mib(bytes),
    )))
}

/// Whether `nic` can be an uplink: an Ethernet interface that is up, no bridge, in no bridge or bond.
pub fn check_uplink(nic: &Link, links: &BTreeMap<u32, Link>) -> Result<()> {
    let name = &nic.name;
    let sentence = if !nic.ethernet {
        format!("{name} is no Ethernet interface: name another with --uplink")
    } else if nic.is_bridge() {
        format!("{name} is a bridge: joining one comes later; name a NIC that is in no bridge")
    } else if let Some(master) = nic.master {
        in_master(name, links.get(&master), master)
    } else if !nic.up {
        format!(
            "{name} is down: `ip link set dev {name} up`, and see that the network's configuration does so"
        )
    } else {
        return Ok(());
    };
    Err(Error::Unfit(sentence))
}

fn in_master(name: &str, master: Option<&Link>, index: u32) -> String {
    match master {
        Some(bridge) if bridge.is_bridge() => format!(
            "{name} is a port of the bridge {bridge}: joining one comes later; take {name} out of it with \
             `ip link set dev {name} nomaster` and give it the bridge's address",
            bridge = bridge.name
        ),
        Some(other) => format!("{name} is a part of {other}: use --uplink {other}", other = other.name),
        None => format!(
            "{name} is a port of interface {index}: take it out with `ip link set dev {name} nomaster`"
        ),
    }
}

/// Whether `nic` is free of other XDP programs.
pub fn check_no_xdp(nic: &Link) -> Result<()> {
    let Some(Xdp { program_id, mode }) = nic.xdp else { return Ok(()) };
    let name = &nic.name;
    let (mode, off) = match mode {
        XdpMode::Native => ("native", "xdpdrv off"),
        XdpMode::Generic => ("generic", "xdpgeneric off"),
        XdpMode::Offload => ("offloaded", "xdpoffload off"),
        XdpMode::Several => ("more than one", "xdp off"),
    };
    Err(Error::Unfit(format!(
        "{name} has another XDP program (id {program_id}, {mode}): `bpftool prog show id {program_id}` says whose it \
         is; stop its owner, or remove it with `ip link set dev {name} {off}` (`bpftool link` if a link holds it), or \
         run with --datapath socket"
    )))
}

/// What works, but perhaps not as meant: a sentence each.
pub fn warnings(nic: &Link) -> Vec<String> {
    let name = &nic.name;
    let no_carrier = nic.up && !nic.running;
    no_carrier
        .then(|| format!("{name} has no carrier: is the cable in, is the other end up?"))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::links::{self, sample};
    use crate::host::netlink::Requests;
    use crate::host::testing::{Folder, Namespace, passing_program};

    #[test]
    fn release_names_are_read_and_nonsense_is_not() {
        let kernel = |major, minor| Some(Kernel { major, minor });
        assert_eq!(Kernel::parse("6.1.0-18-amd64"), kernel(6, 1));
        assert_eq!(Kernel::parse("6.18.44-fc"), kernel(6, 18));
        assert_eq!(Kernel::parse("7.0-rc1"), kernel(7, 0));
        assert_eq!(Kernel::parse("5.15"), kernel(5, 15));
        for nonsense in ["", "6", "6.", "six.one", "6.x", "99999999999.1"] {
            assert_eq!(Kernel::parse(nonsense), None, "{nonsense}");
        }
        assert!(Kernel::running().unwrap() >= Kernel { major: 4, minor: 0 });
    }

    #[test]
    fn an_old_kernel_is_refused_and_an_older_one_lacks_tcx() {
        let old = Kernel { major: 5, minor: 15 };
        assert!(
            old.check()
                .unwrap_err()
                .to_string()
                .starts_with("kernel 5.15 is too old, trestle needs 6.1 or newer")
        );
        assert!(OLDEST.check().is_ok());
        let lacking = |kernel: Kernel| kernel.features().filter(|(_, there)| !there).count();
        assert_eq!((lacking(OLDEST), lacking(Kernel { major: 6, minor: 12 })), (2, 0));
    }

    #[test]
    fn too_little_locked_memory_is_said_in_numbers() {
        const MIB: u64 = 1024 * 1024;
        let error = locked_memory(33 * MIB - 5, 8 * MIB, false).unwrap_err().to_string();
        assert!(
            error.contains("need 33 MiB")
                && error.contains("only 8 MiB")
                && error.contains("LimitMEMLOCK=33M")
        );
        assert!(locked_memory(33 * MIB, 8 * MIB, true).is_ok());
        assert!(locked_memory(8 * MIB, 8 * MIB, false).is_ok());
    }

    #[test]
    fn an_interface_that_cannot_be_an_uplink_is_refused_with_the_cure() {
        let said = |nic: &Link, links: &[Link]| {
            let links = links.iter().map(|link| (link.index, link.clone())).collect();
            check_uplink(nic, &links).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let nic = Link { name: "ens5".into(), ..sample(2, [2; 6]) };
        assert_eq!(said(&nic, &[]), "");
        assert!(said(&Link { up: false, ..nic.clone() }, &[]).contains("`ip link set dev ens5 up`"));
        assert!(said(&Link { ethernet: false, ..nic.clone() }, &[]).contains("no Ethernet interface"));
        assert!(
            said(&Link { kind: Some("bridge".into()), ..nic.clone() }, &[])
                .contains("ens5 is a bridge: joining one comes later")
        );
        let port = Link { master: Some(3), ..nic };
        let bridge = Link { name: "br0".into(), kind: Some("bridge".into()), ..sample(3, [2; 6]) };
        assert!(said(&port, std::slice::from_ref(&bridge)).contains("a port of the bridge br0"));
        let bond = Link { name: "bond0".into(), kind: Some("bond".into()), ..bridge };
        assert!(said(&port, &[bond]).ends_with("use --uplink bond0"));
        assert!(said(&port, &[]).contains("nomaster"));
    }

    #[test]
    fn what_the_kernel_tells_of_bridges_and_carriers_is_understood() {
        let Some(host) = Namespace::new() else { return };
        host.ip("link add br0 type bridge");
        host.ip("link add uplink type veth peer name wire");
        host.ip("link set uplink up");
        host.run(|| {
            let nic = links::by_name(&mut Requests::routing().unwrap(), "uplink").unwrap();
            assert_eq!(warnings(&nic), ["uplink has no carrier: is the cable in, is the other end up?"]);
        });
        host.ip("link set wire up");
        host.ip("link set uplink master br0");
        host.run(|| {
            let mut requests = Requests::routing().unwrap();
            let links = links::all(&mut requests).unwrap();
            let nic = links::by_name(&mut requests, "uplink").unwrap();
            assert!(warnings(&nic).is_empty());
            assert!(check_uplink(&nic, &links).unwrap_err().to_string().contains("a port of the bridge br0"));
            let bridge = links.values().find(|link| link.name == "br0").unwrap();
            assert!(check_uplink(bridge, &links).unwrap_err().to_string().starts_with("br0 is a bridge"));
            assert!(check_no_xdp(&nic).is_ok());
        });
    }

    #[test]
    fn another_xdp_program_is_found_and_named() {
        let folder = Folder::new();
        let (Some(host), Some(program)) = (Namespace::new(), passing_program(&folder)) else { return };
        host.ip("link add uplink type veth peer name wire");
        for (how, mode) in [("xdpgeneric", XdpMode::Generic), ("xdpdrv", XdpMode::Native)] {
            host.ip(&format!("link set dev uplink {how} obj {} sec xdp", program.display()));
            let shown = host.command("ip", "link show uplink");
            host.run(move || {
                let nic = links::by_name(&mut Requests::routing().unwrap(), "uplink").unwrap();
                let found = nic.xdp.unwrap();
                assert_eq!(found.mode, mode);
                assert!(shown.contains(&format!("prog/xdp id {}", found.program_id)), "{shown}");
                let refused = check_no_xdp(&nic).unwrap_err().to_string();
                assert!(refused.contains(&format!("`ip link set dev uplink {how} off`")), "{refused}");
            });
            host.ip(&format!("link set dev uplink {how} off"));
        }
    }
}
