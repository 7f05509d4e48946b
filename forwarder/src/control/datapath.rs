//! The data path as the control thread holds it: the workers, the eBPF programs, and what both are told.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
};

use common::{FdbKey, Mac, Settings, bridge::PortCounters};
use crossbeam::channel::Receiver;
use openvpn::ids::PeerId;

use super::{
    Error,
    crew::{Crew, Working},
    peer_entries::PeerEntries,
    plan::Plan,
    stations::Copies,
    wires::Wires,
};
use crate::{
    drops::{Drop, DropCounters},
    host::nic::Preparation,
    ports::{nics::NewNic, wire::Promiscuous},
    switch::{Port, WireId},
    worker::{Command, Post, WorkerCounters},
    xdp::{
        attach::{Attachment, Uplink, XdpGot},
        programs::Programs,
        xsk::XskMode,
    },
};

/// Where programs outlive the process they pass everything when the heartbeat is this old: four missed beats.
const HEARTBEAT_TIMEOUT_NS: u64 = 2_000_000_000;

/// Workers and programs.
pub(super) struct Datapath {
    /// The workers' mailboxes, by worker.
    pub posts: Vec<Post>,
    threads: Vec<JoinHandle<()>>,
    counters: Vec<Arc<WorkerCounters>>,
    /// What the control thread counts itself.
    own_drops: Arc<DropCounters>,
    /// `None` when nothing has to be steered: underlay by the kernel's sockets.
    pub(super) kernel: Option<Kernel>,
    /// `None` with `--datapath socket`.
    xsk: Option<XskMode>,
    /// What the NIC must not do meanwhile; put back at the end.
    preparation: Option<Preparation>,
    /// Ports of a bridge that workers have given back.
    removed_nics: Receiver<NewNic>,
    /// Those they serve.
    pub(super) wires: Wires,
    /// Where a kernel bridge is joined.
    peer_entries: Option<PeerEntries>,
}

/// What is in the kernel.
pub(super) struct Kernel {
    // Dropped first: frames go the host's way before anything else is taken down.
    attachment: Option<Attachment>,
    /// Held so that the NIC hands over frames for others.
    promiscuous: Option<Promiscuous>,
    pub(super) programs: Programs,
    settings: Settings,
    listeners: BTreeSet<SocketAddr>,
}

impl Datapath {
    pub fn new(
        working: Working,
        kernel: Option<Kernel>,
        xsk: Option<XskMode>,
        preparation: Option<Preparation>,
        wires: Wires,
        peer_entries: Option<PeerEntries>,
    ) -> Self {
        let Working { posts, threads, counters, streams: _, removed_nics } = working;
        Self {
            posts,
            threads,
            counters,
            own_drops: Arc::default(),
            kernel,
            xsk,
            preparation,
            removed_nics,
            wires,
            peer_entries,
        }
    }

    /// Attaches the programs: frames begin to flow.
    pub fn attach(&mut self, plan: &Plan, host_port: Option<&str>) -> Result<(), Error> {
        let (Some(kernel), Some(nic)) = (&mut self.kernel, &plan.nic) else { return Ok(()) };
        let uplink = Uplink { nic: &nic.name, xdp: plan.xdp, host_port: host_port.filter(|_| plan.bridge) };
        let attachment = kernel.programs.attach(&uplink)?;
        if attachment.needs_heartbeat() {
            kernel.programs.heartbeat.beat()?;
            kernel.settings.heartbeat_timeout_ns = HEARTBEAT_TIMEOUT_NS;
            kernel.programs.settings.set(kernel.settings)?;
        }
        if let Some(refused) = attachment.native_refused() {
            tracing::warn!("native XDP was not got, generic XDP is used: {refused}");
        }
        kernel.attachment = Some(attachment);
        kernel.promiscuous = plan.bridge.then(|| Promiscuous::on(&nic.name)).transpose()?;
        Ok(())
    }

    /// What the control thread counts its own losses with.
    pub fn drops(&self) -> Arc<DropCounters> {
        Arc::clone(&self.own_drops)
    }

    /// Frames lost for `reason`, by all threads and by the kernel ahead of their ports.
    pub fn lost(&self, reason: Drop) -> u64 {
        let of = |count: fn(&WorkerCounters) -> u64| {
            self.counters.iter().map(|counters| count(counters)).sum::<u64>()
        };
        let missed = match reason {
            Drop::ReceiveQueueFull => of(|counters| counters.missed_by_nic.load(Relaxed)),
            Drop::TunnelSocketFull => of(|counters| counters.missed_by_tunnel.load(Relaxed)),
            _ => 0,
        };
        let workers: u64 = self.counters.iter().map(|counters| counters.drops.get(reason)).sum();
        workers + self.own_drops.get(reason) + missed
    }

    pub fn counters(&self) -> &[Arc<WorkerCounters>] {
        &self.counters
    }

    /// Closes the ports of a bridge that workers have given back, which waits for the kernel a little.
    pub fn close_removed(&self) {
        self.removed_nics.try_iter().for_each(drop);
    }

    /// The copies of the MAC table.
    pub fn copies(&mut self) -> Copies<'_> {
        let map = self.kernel.as_mut().map(|kernel| &mut kernel.programs.fdb);
        Copies { posts: &self.posts, map, bridge: self.peer_entries.as_mut() }
    }

    /// The mailbox of the worker that owns the peer; the rule is [`crate::worker::Handovers::owner`]'s.
    pub fn post(&self, peer_id: PeerId) -> &Post {
        &self.posts[peer_id.index() % self.posts.len()]
    }

    /// Peers' stations in the kernel bridge that is joined.
    pub fn peer_entries(&mut self) -> Option<&mut PeerEntries> {
        self.peer_entries.as_mut()
    }

    /// True when workers have a NIC queue to send tunnel packets by.
    pub fn sends_by_nic(&self) -> bool {
        self.xsk.is_some() || self.wires.are_some_open()
    }

    /// The wire that packets to a next hop leave by: the uplink's, or that of the port of a bridge where the hop `stands`.
    pub fn wire_towards(&self, stands: Option<Port>) -> Option<WireId> {
        match stands {
            _ if self.xsk.is_some() => Some(WireId::UPLINK),
            Some(Port::Wire(wire)) => Some(wire).filter(|wire| self.wires.is_open(*wire)),
            _ => None,
        }
    }

    /// A worker has ended although nobody told it to.
    pub fn has_lost_a_worker(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Readable when TC has reported sources.
    pub fn sources(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.as_ref().map(Kernel::sources)
    }

    pub fn xsk(&self) -> Option<XskMode> {
        self.xsk.or(self.wires.mode())
    }

    pub fn xdp(&self) -> Option<XdpGot> {
        self.kernel.as_ref()?.attachment.as_ref()?.xdp()
    }

    /// What the NIC does to frames and should not: a sentence each.
    pub fn unprepared(&self) -> &[String] {
        self.preparation.as_ref().map_or(&[], Preparation::refused)
    }

    /// The next source that TC saw where the MAC table does not have it.
    pub fn next_source(&mut self) -> Option<FdbKey> {
        self.kernel.as_mut()?.programs.sources.next_source()
    }

    /// Readable when XDP has copied frames.
    pub fn captured(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.as_ref().map(|kernel| kernel.programs.captures.as_fd())
    }

    /// Tells the eBPF programs where tunnel packets are addressed to.
    pub fn set_listeners(&mut self, listeners: BTreeSet<SocketAddr>) {
        if let Some(kernel) = &mut self.kernel {
            kernel.set_listeners(listeners);
        }
    }

    /// The NIC has another hardware address: tunnel packets come to it.
    pub fn set_nic_mac(&mut self, mac: Mac) {
        let Some(kernel) = &mut self.kernel else { return };
        if kernel.settings.mac == mac {
            return;
        }
        tracing::info!(?mac, "the NIC has another hardware address");
        kernel.settings.mac = mac;
        if let Err(error) = kernel.programs.settings.set(kernel.settings) {
            tracing::warn!("{error}");
        }
        for post in &self.posts {
            post.send(Command::NicMac(mac));
        }
    }

    /// The programs and their maps.
    pub fn programs(&mut self) -> Option<&mut Programs> {
        self.kernel.as_mut().map(|kernel| &mut kernel.programs)
    }

    /// What XDP has done with frames of a port of the bridge.
    pub fn port_counts(&self, wire: WireId) -> Option<PortCounters> {
        self.kernel.as_ref()?.programs.port_counts.read(wire).ok()
    }

    /// Frames that captures of ports have missed, since the programs were loaded: the ring was full.
    pub fn uncaptured(&self) -> u64 {
        let wires = (0..).map_while(WireId::new);
        wires.filter_map(|wire| self.port_counts(wire)).map(|counts| counts.uncaptured).sum()
    }

    /// What XDP was told of it.
    pub fn filters_vlans(&self) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.settings.vlan_filtering != 0)
    }

    /// Whether the bridge looks at VLAN tags.
    pub fn set_vlan_filtering(&mut self, filters: bool) {
        let Some(kernel) = &mut self.kernel else { return };
        if kernel.settings.vlan_filtering == u32::from(filters) {
            return;
        }
        kernel.settings.vlan_filtering = u32::from(filters);
        if let Err(error) = kernel.programs.settings.set(kernel.settings) {
            tracing::warn!("{error}");
        }
    }

    /// Where programs outlive the process, they must hear that it lives.
    pub fn beat(&mut self) {
        if let Some(kernel) = &mut self.kernel
            && kernel.attachment.as_ref().is_some_and(Attachment::needs_heartbeat)
            && let Err(error) = kernel.programs.heartbeat.beat()
        {
            tracing::warn!("{error}");
        }
    }
}

/// Detaches the programs, then ends the workers.
impl std::ops::Drop for Datapath {
    fn drop(&mut self) {
        self.kernel = None;
        for post in &self.posts {
            post.send(Command::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked: please report the lines above");
            }
        }
    }
}

impl Kernel {
    /// Loads the programs and tells them what they are for; nothing is attached yet.
    pub fn load(plan: &Plan, crew: &Crew, host_port: u32) -> Result<Self, Error> {
        let mut programs = Programs::load()?;
        let nic = plan.outer();
        let settings = Settings {
            nic: nic.map_or(0, |nic| nic.index),
            host_port,
            bridge: u32::from(plan.bridge),
            max_frame: u32::try_from(crew.capacity).unwrap_or(u32::MAX),
            mac: nic.and_then(|nic| nic.mac).unwrap_or_default(),
            fragments: u16::from(plan.serves_every_queue() || plan.joins.is_some()),
            heartbeat_timeout_ns: 0,
            ..Settings::default()
        };
        programs.settings.set(settings)?;
        crew.register(&mut programs.sockets)?;
        Ok(Self { attachment: None, promiscuous: None, programs, settings, listeners: BTreeSet::new() })
    }

    /// Readable when TC has reported sources.
    pub fn sources(&self) -> BorrowedFd<'_> {
        self.programs.sources.as_fd()
    }

    fn set_listeners(&mut self, wanted: BTreeSet<SocketAddr>) {
        let map = &mut self.programs.listeners;
        let added = wanted.difference(&self.listeners).map(|address| map.insert(*address));
        let failed = added.filter_map(Result::err).collect::<Vec<_>>();
        let gone = self.listeners.difference(&wanted).map(|address| map.remove(*address));
        for error in gone.filter_map(Result::err).chain(failed) {
            tracing::warn!("{error}");
        }
        self.listeners = wanted;
    }
}
