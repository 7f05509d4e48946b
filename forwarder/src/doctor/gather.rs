//! Looking at the machine. Nothing is left changed; what might disturb somebody is not tried unless it is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::{
    facts::{Attempt, Bridge, Host, Master, Nic, Proof, TrafficControl},
    probe,
};
use crate::{
    control::forecast,
    host::{
        self,
        bridge::{Known, Mirror},
        links::{self, Link},
        netlink::Requests,
        nic::{self, Look, SYSFS, cloud::Cloud, ethtool::Ethtool, journal, xdp_features::AllXdpFeatures},
        preflight::{self, Kernel},
        privileges,
    },
    xdp::{
        attach::{self, XdpGot},
        frames::{Frames, SMALL_CHUNK_BYTES},
        programs::{self, Programs},
        sys,
        xsk::{Rings, XskMode},
    },
};

/// Chunks of the memory that an AF_XDP socket is tried with.
const CHUNKS: u32 = 16;
/// Most queues tried: those that are served.
const QUEUES: usize = common::QUEUES as usize;

/// The host's interfaces and who is reached by them.
pub struct Surroundings {
    links: BTreeMap<u32, Link>,
    /// Interfaces with an address of the host's.
    addressed: BTreeSet<u32>,
}

impl Surroundings {
    /// Reads them.
    pub fn read() -> host::Result<Self> {
        let mut requests = Requests::routing().map_err(host::Error::os("talk to netlink"))?;
        let links = links::all(&mut requests)?;
        let addressed = links::addresses(&mut requests)?.into_iter();
        // Those are everywhere, and nobody logs in by them from afar.
        let of_note = addressed
            .filter(|at| !matches!(at.address, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local()));
        Ok(Self { links, addressed: of_note.map(|at| at.index).collect() })
    }

    /// The interface of that name.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// Ethernet interfaces, in the order of their numbers.
    pub fn all(&self) -> impl Iterator<Item = &Link> {
        self.links.values().filter(|link| link.ethernet)
    }

    /// The ports of a bridge.
    pub fn ports(&self, bridge: &Link) -> impl Iterator<Item = &Link> {
        self.links.values().filter(move |link| link.master == Some(bridge.index))
    }

    /// The host has an address on it, or on what stands on it: its bridge or bond, a VLAN, a macvlan.
    fn is_addressed(&self, link: &Link) -> bool {
        let above = links::uppers(&self.links, link.index);
        self.addressed.contains(&link.index) || above.iter().any(|index| self.addressed.contains(index))
    }

    /// It is a bridge's port.
    pub fn is_port(&self, link: &Link) -> bool {
        self.master(link).is_some_and(|master| master.bridge)
    }

    fn master(&self, link: &Link) -> Option<Master> {
        let master = self.links.get(&link.master?)?;
        Some(Master { name: master.name.clone(), bridge: master.is_bridge() })
    }
}

/// Looks at the machine.
pub fn host() -> Host {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let missing = privileges::missing().unwrap_or_default();
    Host {
        kernel: Kernel::running().ok(),
        af_xdp: sys::has_af_xdp(),
        types: Path::new("/sys/kernel/btf/vmlinux").exists(),
        compiled: number("/proc/sys/net/core/bpf_jit_enable").map(|on| on > 0),
        tun: Path::new("/dev/net/tun").exists(),
        proof: if missing.is_empty() { probe::prove() } else { Proof::default() },
        missing,
        lockable: preflight::lockable_memory().ok().flatten(),
        receive_limit: number("/proc/sys/net/core/rmem_max"),
        journal: journal::left(Path::new(journal::FOLDER)).map_err(|error| error.to_string()),
    }
}

/// Looks at an interface. `boldly`: what may take its link down for a moment is tried as well.
pub fn nic(link: &Link, around: &Surroundings, loaded: Option<&mut Programs>, boldly: bool) -> Nic {
    let sysfs = Path::new(SYSFS);
    let driver = nic::driver(sysfs, link);
    let addressed = around.is_addressed(link);
    let look = Look::at(link).map_err(|error| error.to_string());
    let soft = link.kind.as_deref() == Some("veth");
    let bold = boldly || soft || !addressed;
    let (native, generic) = match loaded {
        Some(programs) => modes(programs, link, bold, look.as_ref().ok()),
        None => (privileged(), privileged()),
    };
    Nic {
        cloud: Cloud::of(driver.as_deref(), sysfs),
        driver,
        master: around.master(link),
        addressed,
        ours: link.xdp.and_then(|program| programs::is_gateways(program.program_id)),
        look,
        traffic_control: traffic_control(link),
        says_native: says_native(link),
        native,
        generic,
        sockets: sockets(link, bold),
        link: link.clone(),
    }
}

/// What cannot be read is nothing: the gateway does not stumble over it.
fn traffic_control(link: &Link) -> TrafficControl {
    let kinds =
        Requests::routing().ok().and_then(|mut requests| links::qdiscs(&mut requests, link.index).ok());
    TrafficControl {
        qdiscs: kinds.into_iter().flatten().collect(),
        programs: attach::foreign_tc_programs(&link.name),
    }
}

fn says_native(link: &Link) -> Option<bool> {
    let can = AllXdpFeatures::open().ok().flatten()?.of(link.index)?;
    Some(can.basic() && can.redirect())
}

fn privileged<T>() -> Attempt<T> {
    Attempt::NotTried("that takes root".into())
}

fn modes(
    programs: &mut Programs,
    link: &Link,
    bold: bool,
    look: Option<&Look>,
) -> (Attempt<()>, Attempt<()>) {
    let name = &link.name;
    if link.xdp.is_some() {
        let why = || Attempt::NotTried("an XDP program is there".into());
        return (why(), why());
    }
    let mut attempt = |place| match programs.try_pass(name, place) {
        Ok(()) => Attempt::Works(()),
        Err(why) => Attempt::Fails(why.to_string()),
    };
    let timid = |what: &str| {
        Attempt::NotTried(format!(
            "the host is reached by {name}, and {what}; `trestle doctor {name} --try` does"
        ))
    };
    // Turning these off is what generic XDP does, and it leaves them off. Kernel: `dev_xdp_install`, net/core/dev.c.
    let joins = look.is_none_or(|look| {
        look.in_the_way.iter().any(|way| way.feature == "rx-lro" || way.feature == "rx-gro-hw")
    });
    (
        if bold { attempt(XdpGot::Native) } else { timid("its driver may take the link down for seconds") },
        if joins {
            Attempt::NotTried("it would leave LRO and hardware GRO turned off".into())
        } else {
            attempt(XdpGot::Generic)
        },
    )
}

/// One for each queue in use. In copy mode the driver does not notice.
fn sockets(link: &Link, bold: bool) -> Vec<Attempt<XskMode>> {
    let queues = receive_queues(link);
    let tried = (0..queues.min(QUEUES)).map(|queue| match u32::try_from(queue) {
        _ if link.xdp.is_some() => Attempt::NotTried("an XDP program is there".into()),
        _ if !link.up => Attempt::NotTried("the interface is down".into()),
        Ok(queue) => socket(link, queue, !bold),
        Err(_) => Attempt::NotTried("there are too many".into()),
    });
    let rest = (QUEUES..queues).map(|_| Attempt::NotTried("it is not served".into()));
    tried.chain(rest).collect()
}

/// Those in use; where the driver does not say, those reserved.
fn receive_queues(link: &Link) -> usize {
    let asked = Ethtool::open().and_then(|mut ethtool| ethtool.receive_queues(link.index));
    let queues = asked.ok().flatten().unwrap_or(link.receive_queues);
    usize::try_from(queues).unwrap_or(1).max(1)
}

fn socket(link: &Link, queue: u32, copy_only: bool) -> Attempt<XskMode> {
    let frames = match Frames::for_nic(CHUNKS, SMALL_CHUNK_BYTES, false) {
        Ok(frames) => frames,
        Err(why) => return Attempt::Fails(why.to_string()),
    };
    match Rings::open(&frames, &link.name, queue, copy_only) {
        Ok(rings) => Attempt::Works(rings.mode()),
        Err(why) => Attempt::Fails(why.to_string()),
    }
}

/// Looks at a kernel bridge.
pub fn bridge(link: &Link, around: &Surroundings) -> Bridge {
    let folder = Path::new(SYSFS).join("class/net").join(&link.name);
    let number = |path: &str| fs::read_to_string(folder.join(path)).ok()?.trim().parse::<u64>().ok();
    // Sysfs shows the namespace it was mounted in.
    let shown = number("ifindex") == Some(link.index.into());
    let number = |path| number(path).filter(|_| shown);
    /// `NET_ADDR_SET`, include/uapi/linux/netdevice.h.
    const SET: u64 = 3;
    let mirror = Mirror::open(&link.name).ok();
    let known = mirror.as_ref().map(Mirror::known);
    let bridge = known.and_then(Known::bridge);
    Bridge {
        ports: around.ports(link).map(|port| port.name.clone()).collect(),
        addressed: around.is_addressed(link),
        address_set: number("addr_assign_type").map(|kind| kind == SET),
        vlan_filtering: bridge.as_ref().map(|bridge| bridge.vlan_filtering),
        outlooks: forecast(&link.name).map_err(|error| error.to_string()),
        link: link.clone(),
    }
}
