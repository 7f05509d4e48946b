//! What the doctor has seen. Plain data: what it means is said elsewhere, from made-up facts as well as from these.

use crate::{
    control::Outlook,
    host::{
        links::Link,
        nic::{Look, cloud::Cloud, journal::Left},
        preflight::Kernel,
    },
    xdp::xsk::XskMode,
};

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The kernel's version; `None` where it cannot be read.
    pub kernel: Option<Kernel>,
    /// It has AF_XDP.
    pub af_xdp: bool,
    /// It shows its types (`/sys/kernel/btf/vmlinux`).
    pub types: bool,
    /// Programs are compiled (`net.core.bpf_jit_enable`); `None` where that is not to be seen.
    pub compiled: Option<bool>,
    /// `/dev/net/tun` is there.
    pub tun: bool,
    /// Capabilities this process lacks, with what each is for.
    pub missing: Vec<(String, &'static str)>,
    /// Bytes of memory it may lock; `None`: all there is.
    pub lockable: Option<u64>,
    /// `net.core.rmem_max`, in bytes; `None` where that is not to be seen.
    pub receive_limit: Option<u64>,
    /// What dead gateways have left; or why that cannot be read.
    pub journal: Result<Vec<Left>, String>,
    /// Whether a frame came through an AF_XDP socket, on a veth made for that.
    pub proof: Proof,
}

/// Whether a frame really came through, natively and generically.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// By native XDP.
    pub native: Attempt<()>,
    /// By generic XDP.
    pub generic: Attempt<()>,
}

impl Default for Proof {
    fn default() -> Self {
        Self { native: Attempt::NotTried(String::new()), generic: Attempt::NotTried(String::new()) }
    }
}

/// What came of trying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt<T> {
    /// It works.
    Works(T),
    /// It does not; a sentence.
    Fails(String),
    /// Nobody tried; why, as what follows "not tried: ".
    NotTried(String),
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// As the kernel shows it.
    pub link: Link,
    /// Its driver, or what software made it.
    pub driver: Option<String>,
    /// The cloud whose NIC it is.
    pub cloud: Option<Cloud>,
    /// What it, or what stands on it, is a part of.
    pub master: Option<Master>,
    /// The host is reached by it: it, or what stands on it, has an address.
    pub addressed: bool,
    /// The XDP program on it is a gateway's; `None`: there is none, or its name cannot be read.
    pub ours: Option<bool>,
    /// Its features; or why they cannot be read.
    pub look: Result<Look, String>,
    /// What TC does with its frames.
    pub traffic_control: TrafficControl,
    /// The driver says that it has native XDP; `None`: the kernel does not tell.
    pub says_native: Option<bool>,
    /// Attaching a program natively.
    pub native: Attempt<()>,
    /// Attaching a program generically.
    pub generic: Attempt<()>,
    /// An AF_XDP socket on each receive queue in use.
    pub sockets: Vec<Attempt<XskMode>>,
}

/// What the kernel's traffic control does with an interface's frames; a gateway's own programs are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficControl {
    /// Kinds of its queueing disciplines.
    pub qdiscs: Vec<String>,
    /// Names of programs held by TCX links.
    pub programs: Vec<String>,
}

/// What an interface is a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its name.
    pub name: String,
    /// A bridge, and not a bond or another.
    pub bridge: bool,
}

/// A kernel bridge, without its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// As the kernel shows it.
    pub link: Link,
    /// Names of its ports.
    pub ports: Vec<String>,
    /// It, or what stands on it, has an address.
    pub addressed: bool,
    /// Its hardware address was set by hand, and does not follow its ports'; `None` where that is not to be seen.
    pub address_set: Option<bool>,
    /// It keeps VLANs apart; `None` where that is not to be seen.
    pub vlan_filtering: Option<bool>,
    /// What a start would do with its ports; or why that cannot be said.
    pub outlooks: Result<Vec<Outlook>, String>,
}
