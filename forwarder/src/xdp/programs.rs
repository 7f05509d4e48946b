//! The eBPF programs, loaded and verified, with the maps they share with us.
//!
//! ```text
//!   Programs::load()            programs verified, maps made, nothing attached; needs CAP_BPF and CAP_NET_ADMIN
//!      │  settings.set(..)      from here on the maps may be written at any time
//!      │  listeners.insert(..)
//!      │  fdb.insert(..)        the host's own addresses and next hops first
//!      │  sockets.insert(..)    workers run: what is steered to a socket must be read
//!      ▼
//!   programs.attach(uplink)     XDP, then TC: a conflict shows before anything of ours is there
//!      │  heartbeat.beat()      every half second, if Attachment::needs_heartbeat()
//!      ▼
//!   drop(attachment)            XDP, then TC: what XDP steered until now goes by TC, then by the host alone
//!   drop(programs)
//! ```
//!
//! Programs and attachment live as long as the process at most: all is held by descriptors, also after SIGKILL. The one
//! exception are TC filters on kernels before 6.6, which pass everything when the heartbeat stops, and are removed at
//! the next start.

use aya::{
    Ebpf,
    maps::{Map, MapError as AyaMapError},
    programs::{Program, SchedClassifier, Xdp},
    util::KernelVersion,
};
use common::names;

use super::{
    maps::{
        Fdb, Heartbeat, Listeners, SettingsMap, Sockets, Sources, Verdicts,
        ports::{Captures, Devmap, PortCounts, Ports, Slots, Vlans},
    },
    refusal::{AttachError, LoadError},
};

/// The object that `cargo xtask build-ebpf` makes of `ebpf/`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/trestle.bpf.o");

/// The loaded programs and their maps.
pub struct Programs {
    /// Where stations stand.
    pub fdb: Fdb,
    /// Where tunnel packets are addressed to.
    pub listeners: Listeners,
    /// What the programs are to do.
    pub settings: SettingsMap,
    /// Who reads what is steered.
    pub sockets: Sockets,
    /// What TC reports.
    pub sources: Sources,
    /// What XDP has decided.
    pub verdicts: Verdicts,
    /// That the gateway lives.
    pub heartbeat: Heartbeat,
    /// What XDP may do at the ports of a bridge.
    pub ports: Ports,
    /// Which NIC is which port.
    pub slots: Slots,
    /// Which VLANs they carry.
    pub vlans: Vlans,
    /// Where redirected frames leave.
    pub devmap: Devmap,
    /// What XDP has done at the ports.
    pub port_counts: PortCounts,
    /// What XDP has copied for a capture.
    pub captures: Captures,
    ebpf: Ebpf,
}

impl Programs {
    /// Makes the maps and has the kernel verify the programs. Takes some 20 ms.
    pub fn load() -> Result<Self, LoadError> {
        // On older kernels aya attaches in a way that outlives the process.
        if KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(5, 9, 0)) {
            return Err(LoadError::TooOld { feature: "XDP links".into() });
        }
        let mut ebpf = Ebpf::load(OBJECT).map_err(LoadError::from_object)?;
        for (name, program) in ebpf.programs_mut() {
            match program {
                Program::Xdp(program) => program.load(),
                Program::SchedClassifier(program) => program.load(),
                _ => continue,
            }
            .map_err(|error| LoadError::from_program(name, error))?;
        }
        Ok(Self {
            fdb: Fdb(take(&mut ebpf, names::FDB)?),
            listeners: Listeners {
                v4: take(&mut ebpf, names::LISTENERS)?,
                v6: take(&mut ebpf, names::LISTENERS_V6)?,
            },
            settings: SettingsMap(take(&mut ebpf, names::SETTINGS)?),
            sockets: Sockets(take(&mut ebpf, names::XSKS)?),
            sources: Sources(take(&mut ebpf, names::EVENTS)?),
            verdicts: Verdicts(take(&mut ebpf, names::VERDICTS)?),
            heartbeat: Heartbeat(take(&mut ebpf, names::HEARTBEAT)?),
            ports: Ports(take(&mut ebpf, names::PORTS)?),
            slots: Slots(take(&mut ebpf, names::SLOTS)?),
            vlans: Vlans(take(&mut ebpf, names::VLANS)?),
            devmap: Devmap(take(&mut ebpf, names::DEVMAP)?),
            port_counts: PortCounts(take(&mut ebpf, names::PORT_COUNTERS)?),
            captures: Captures(take(&mut ebpf, names::CAPTURES)?),
            ebpf,
        })
    }

    pub(super) fn xdp(&mut self, name: &'static str) -> Result<&mut Xdp, AttachError> {
        self.program(name)?.try_into().map_err(|_| AttachError::ObjectWithout { name })
    }

    pub(super) fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, AttachError> {
        self.program(name)?.try_into().map_err(|_| AttachError::ObjectWithout { name })
    }

    fn program(&mut self, name: &'static str) -> Result<&mut Program, AttachError> {
        self.ebpf.program_mut(name).ok_or(AttachError::ObjectWithout { name })
    }
}

/// Whether the XDP program with this id is one of ours, by its name; `None` where that cannot be read.
pub fn is_gateways(id: u32) -> Option<bool> {
    const OURS: [&str; 2] = [names::XDP_NIC, names::XDP_PORT];
    let mut programs = aya::programs::loaded_programs().flatten();
    programs.find(|program| program.id() == id)?.name_as_str().map(|name| OURS.contains(&name))
}

/// Takes a map out of the object. The programs keep theirs in the kernel.
fn take<M: TryFrom<Map, Error = AyaMapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError> {
    let map = ebpf.take_map(name).ok_or(LoadError::ObjectWithout { name })?;
    M::try_from(map).map_err(|error| LoadError::Object(error.to_string()))
}

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Programs>()
};
