//! What is going to be made of this host: looked up once, before anything is touched.

use std::{collections::BTreeSet, fs};

use common::Mac;
use openvpn::data::MAX_OVERHEAD;

use super::surroundings::Place;
use crate::{
    config::{Config, Datapath, HostAddress, Role, UplinkMode, XdpMode},
    host::{
        self,
        links::{self, Link},
        netlink::Requests,
    },
    switch::{Joined, Segment, Wires},
    worker::outer::LONGEST_OUTER_HEADER,
    xdp::{attach::XdpChoice, frames::chunk_bytes_for, sys},
};

/// Ethernet header and two VLAN tags, on top of `tun-mtu`.
const LINK_HEADER_BYTES: usize = 14 + 2 * 4;

/// What the gateway will use of the host.
#[derive(Debug)]
pub(super) struct Plan {
    /// The NIC; `None` without `--uplink`.
    pub nic: Option<Link>,
    /// The NIC's wire is a port of the segment.
    pub bridge: bool,
    /// XDP and AF_XDP on the NIC; `None`: the kernel's sockets.
    pub xdp: Option<XdpChoice>,
    /// The kernel bridge whose ports are accelerated.
    pub accelerates: Option<String>,
    /// The kernel bridge that the host port is a port of; `None` without peers, or without a bridge.
    pub joins: Option<Link>,
    /// Number of workers; none where there are no tunnels.
    pub workers: usize,
    /// Where worker `n` is pinned: `cpus[n % len]`.
    pub cpus: Vec<usize>,
    /// Name of the host port; `tap` for one the kernel chooses.
    pub host_port: String,
    /// The host port is there already, made persistent by the operator.
    pub host_port_exists: bool,
    /// What address the host has on its port, where the gateway gives it one.
    pub host_address: Option<HostAddress>,
    /// The segment's largest frame, in bytes.
    pub max_frame: usize,
    /// Ports and filters of the segment.
    pub segment: Segment,
}

impl Plan {
    /// Looks at the host.
    pub fn of(config: &Config, requests: &mut Requests) -> host::Result<Self> {
        let name = config.uplink.as_ref().map(|uplink| uplink.nic.as_str());
        let nic = name.map(|name| links::by_name(requests, name)).transpose()?;
        let bridge = config.uplink.as_ref().is_some_and(|uplink| uplink.mode == UplinkMode::Bridge);
        let joins = joined_bridge(config, requests)?;
        let xdp = wanted_xdp(config, nic.as_ref().or(joins.as_ref()));
        let host_port = config.server.device.clone().unwrap_or_else(|| "tap".into());
        let all = links::all(requests)?;
        let is_port = |link: &&Link| {
            link.master.is_some()
                && link.master == joins.as_ref().map(|bridge| bridge.index)
                && link.name != host_port
        };
        let queues: Vec<usize> = nic.iter().chain(all.values().filter(is_port)).map(receive_queues).collect();
        Ok(Self {
            bridge,
            workers: workers(config, &queues, xdp.is_some()),
            accelerates: config.bridge.clone().filter(|_| config.datapath != Datapath::Socket),
            cpus: cpus(config),
            host_port_exists: all.values().any(|link| link.name == host_port),
            host_port,
            host_address: config.server.host_address,
            max_frame: usize::from(config.server.tun_mtu) + LINK_HEADER_BYTES,
            segment: Segment {
                wires: match &joins {
                    Some(_) => Wires::Joined(Joined::default()),
                    None if bridge => Wires::Uplink,
                    None => Wires::None,
                },
                peer_to_peer: config.server.client_to_client,
            },
            nic,
            joins,
            xdp,
        })
    }

    /// Without XDP and without a wire nothing has to be steered.
    pub fn needs_programs(&self) -> bool {
        self.xdp.is_some() || self.bridge || self.accelerates.is_some()
    }

    /// Where the gateway stands, for what follows its surroundings.
    pub fn place(&self, config: &Config, host_port: Option<Mac>) -> Place {
        Place {
            nic: self.outer().map(|nic| nic.index),
            bridge: self.bridge,
            joined: self.joins.is_some(),
            host_port: host_port.filter(|_| !self.bridge),
            listeners: config.listeners().copied().collect(),
        }
    }

    /// The interface whose address tunnel packets come to: the NIC, or the bridge.
    pub fn outer(&self) -> Option<&Link> {
        self.nic.as_ref().or(self.joins.as_ref())
    }

    /// The host port's MTU: on a wire what the NIC carries, so that nothing it receives is too long to be cloned; else
    /// the segment's, so that the host sends nothing the peers cannot take.
    pub fn host_port_mtu(&self) -> u32 {
        let wire = self.nic.as_ref().filter(|_| self.bridge).or(self.joins.as_ref());
        wire.map_or(self.tun_mtu(), |nic| nic.mtu)
    }

    fn tun_mtu(&self) -> u32 {
        u32::try_from(self.max_frame - LINK_HEADER_BYTES).unwrap_or(u32::MAX)
    }

    /// The longest frame sealed and addressed, in bytes: what a worker's chunk of memory must hold.
    pub fn longest_packet(&self) -> usize {
        self.max_frame + LONGEST_OUTER_HEADER + MAX_OVERHEAD
    }

    /// Every receive queue of the NIC has a worker.
    pub fn serves_every_queue(&self) -> bool {
        self.nic.as_ref().is_some_and(|nic| self.xdp.is_some() && self.workers >= receive_queues(nic))
    }

    /// Size of the chunks of memory shared with the NIC.
    pub fn chunk_bytes(&self) -> u32 {
        let packet = u32::try_from(self.longest_packet()).unwrap_or(u32::MAX);
        chunk_bytes_for(self.outer().map_or(0, |nic| nic.mtu).max(packet))
    }
}

/// The bridge of `--bridge`, where there is somebody to join it.
fn joined_bridge(config: &Config, requests: &mut Requests) -> host::Result<Option<Link>> {
    let joined = config.bridge.as_deref().filter(|_| !matches!(config.role, Role::Accelerator));
    let Some(name) = joined else { return Ok(None) };
    let link = links::by_name(requests, name)?;
    if link.is_bridge() {
        return Ok(Some(link));
    }
    Err(host::Error::Unfit(format!(
        "{name} is no bridge: name one for --bridge (`ip link show type bridge`), or a NIC for --uplink"
    )))
}

fn wanted_xdp(config: &Config, nic: Option<&Link>) -> Option<XdpChoice> {
    nic?;
    if config.datapath == Datapath::Auto && !sys::has_af_xdp() {
        tracing::warn!(
            "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS): frames go by the kernel's sockets, several times slower"
        );
        return None;
    }
    (config.datapath != Datapath::Socket).then_some(match config.xdp {
        XdpMode::Auto => XdpChoice::Auto,
        XdpMode::Native => XdpChoice::Native,
        XdpMode::Generic => XdpChoice::Generic,
    })
}

/// One a receive queue in use (of a bridge, of the port that has most), or as many as were asked for; more than queues have nothing to do.
fn workers(config: &Config, queues: &[usize], af_xdp: bool) -> usize {
    if matches!(config.role, Role::Accelerator) {
        return 0;
    }
    let asked = config.workers.map(usize::from);
    match queues.iter().max().filter(|_| af_xdp) {
        // Ports of a bridge are of all kinds; a veth may have a queue for each CPU of another machine.
        Some(most) if config.bridge.is_some() => {
            asked.unwrap_or_else(|| allowed_cpus().len()).clamp(1, (*most).max(1))
        }
        Some(most) => asked.unwrap_or(usize::MAX).min(*most),
        None => asked.unwrap_or(1),
    }
}

/// Receive queues in use. The kernel shows exactly those in sysfs; where sysfs is another namespace's, those reserved.
pub(super) fn receive_queues(nic: &Link) -> usize {
    let queues = fs::read_dir(format!("/sys/class/net/{}/queues", nic.name));
    let in_use = queues.map_or(0, |queues| {
        let names = queues.flatten().map(|queue| queue.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("rx-")).count()
    });
    if in_use > 0 { in_use } else { usize::try_from(nic.receive_queues).unwrap_or(1).max(1) }
}

/// Those of `--cpus`, else all this process may use.
fn cpus(config: &Config) -> Vec<usize> {
    if !config.cpus.is_empty() {
        return config.cpus.clone();
    }
    allowed_cpus()
}

/// The CPUs this process may use.
pub(super) fn allowed_cpus() -> Vec<usize> {
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0));
    let allowed = allowed.map(|set| {
        let count = nix::sched::CpuSet::count();
        (0..count).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect::<BTreeSet<_>>()
    });
    allowed.unwrap_or_default().into_iter().collect()
}
