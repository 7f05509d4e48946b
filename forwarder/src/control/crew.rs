//! The workers, from their memory and ports to running threads.

use std::{
    io,
    net::UdpSocket,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam::channel::{Receiver, Sender, unbounded};
use mio::Waker;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::eventfd::EventFd,
    unistd::Pid,
};

use super::{Error, plan::Plan};
use crate::{
    drops::DropCounters,
    host::huge_pages,
    ports::{
        Frames,
        host::HostPort,
        nic::NicPort,
        nics::{NewNic, Nics},
        tunnel::TunnelPort,
        tunnels::Tunnels,
        wire::WirePort,
        xsk::XskPort,
    },
    switch::WireId,
    worker::{Clock, Guards, Handovers, Mailbox, Notice, Ports, Post, Settings, Worker, WorkerCounters},
    xdp::{
        attach::XdpChoice,
        frames::FramesError,
        maps::Sockets,
        xsk::{RING, XskMode},
    },
};

/// A queue that another socket holds is asked for so often, and so far apart: two seconds, longer than the kernel was seen
/// to take on a busy machine, and short enough to say soon that somebody does hold it.
const BUSY_ATTEMPTS: u32 = 40;
const BUSY_INTERVAL: Duration = Duration::from_millis(50);

/// Chunks of a worker's memory: what is lent to receive into, what waits to be sent, and as much in hand.
const FRAMES: u32 = 3 * RING;
/// Least room of a frame in plain memory: what AF_XDP's larger chunks have.
const PLAIN_CAPACITY: usize = 3840;
/// A station is reported to be alive this many times within the ageing time.
const REPORTS: u32 = 4;

/// Memory all workers share with the NIC, in bytes.
pub(super) fn memory_bytes(plan: &Plan) -> u64 {
    u64::from(FRAMES) * u64::from(plan.chunk_bytes()) * plan.workers as u64
}

/// One worker that has not begun.
#[derive(Debug)]
struct Recruit {
    ports: Ports<NicPort, Tunnels, HostPort>,
    frames: Frames,
    counters: Arc<WorkerCounters>,
}

/// All workers, with everything opened that needs privileges.
#[derive(Debug)]
pub(super) struct Crew {
    recruits: Vec<Recruit>,
    /// Longest frame their memory holds.
    pub capacity: usize,
    /// Ports that workers have given back, to be closed.
    removed_nics: Receiver<NewNic>,
}

/// The workers at work.
pub(super) struct Working {
    pub posts: Vec<Post>,
    pub threads: Vec<JoinHandle<()>>,
    pub counters: Vec<Arc<WorkerCounters>>,
    /// The streams' thread's end of the lanes, where there is to be one.
    pub streams: Option<Handovers>,
    /// Ports that workers have given back, to be closed.
    pub removed_nics: Receiver<NewNic>,
}

impl Crew {
    /// Opens memory and ports: one worker for each of `tunnels`, its sockets. The first gets the host port.
    pub fn enlist(plan: &Plan, tunnels: Vec<Vec<UdpSocket>>) -> Result<Self, Error> {
        let mut recruits = Vec::new();
        // As many as ports are taken out, which the control thread does and counts.
        let (removed, removed_nics) = unbounded();
        for (index, tunnel) in tunnels.into_iter().enumerate() {
            recruits.push(Recruit::enlist(plan, index, tunnel, &removed)?);
        }
        let capacity = recruits.first().map_or(0, |recruit| recruit.frames.capacity());
        Ok(Self { recruits, capacity, removed_nics })
    }

    /// Name of the host port's interface; `None` without workers.
    pub fn host_port(&self) -> Option<&str> {
        self.recruits.iter().find_map(|recruit| recruit.ports.host.as_ref()).map(HostPort::name)
    }

    /// What AF_XDP the NIC gave.
    pub fn xsk(&self) -> Option<XskMode> {
        self.recruits.iter().find_map(|recruit| match &recruit.ports.nic {
            NicPort::Xsk(port) => Some(port.mode()),
            NicPort::Several(_) | NicPort::Socket(_) | NicPort::None => None,
        })
    }

    /// Tells XDP where to steer each queue's frames.
    pub fn register(&self, sockets: &mut Sockets) -> Result<(), Error> {
        for (queue, recruit) in (0..).zip(&self.recruits) {
            if let NicPort::Xsk(port) = &recruit.ports.nic {
                sockets.insert(WireId::UPLINK, queue, port.fd())?;
            }
        }
        Ok(())
    }

    /// Starts the threads. `streams` wakes the streams' thread, where there is to be one.
    pub fn begin(
        self,
        plan: &Plan,
        ageing: Duration,
        notices: &Sender<Notice>,
        control: &Arc<Waker>,
        clock: Clock,
        streams: Option<&Arc<EventFd>>,
    ) -> Result<Working, Error> {
        let mailboxes: Vec<(Post, Mailbox)> = (0..self.recruits.len())
            .map(|_| Mailbox::new(notices.clone(), Arc::clone(control)))
            .collect::<Result<_, _>>()
            .map_err(|error| Error::os("wake its workers", error))?;
        let bells: Vec<_> = mailboxes.iter().map(|(_, mailbox)| Arc::clone(mailbox.bell())).collect();
        let (lanes, streams) = match streams.map(|streams| Handovers::with_streams(&bells, streams)) {
            Some((lanes, streams)) => (lanes, Some(streams)),
            None => (Handovers::between(&bells), None),
        };
        let (posts, threads, counters) = (Vec::new(), Vec::new(), Vec::new());
        let removed_nics = self.removed_nics;
        let mut working = Working { posts, threads, counters, streams, removed_nics };
        let crew = self.recruits.into_iter().zip(mailboxes).zip(lanes).enumerate();
        for (index, ((recruit, (post, mailbox)), handovers)) in crew {
            let settings = settings(plan, index, ageing);
            working.counters.push(Arc::clone(&recruit.counters));
            let Recruit { ports, frames, counters } = recruit;
            let worker = Worker::new(settings, ports, frames, mailbox, handovers, counters, clock);
            working.threads.push(spawn(plan, index, worker)?);
            working.posts.push(post);
        }
        Ok(working)
    }
}

impl Recruit {
    fn enlist(
        plan: &Plan,
        index: usize,
        sockets: Vec<UdpSocket>,
        removed: &Sender<NewNic>,
    ) -> Result<Self, Error> {
        let counters = Arc::new(WorkerCounters::default());
        let drops = || Arc::clone(&counters.drops);
        let (nic, frames) = match (&plan.nic, plan.xdp) {
            (Some(link), Some(choice)) => {
                let queue = u32::try_from(index).unwrap_or(u32::MAX);
                let copy_only = choice == XdpChoice::Generic;
                let (port, frames) = patiently(|| open_queue(plan, &link.name, queue, copy_only, drops()))?;
                (NicPort::Xsk(Box::new(port)), frames)
            }
            (Some(link), None) if plan.bridge => {
                (NicPort::Socket(WirePort::open(&link.name, drops())?), plain_memory(plan))
            }
            (None, Some(_)) if plan.joins.is_some() => (several(removed, drops())?, plain_memory(plan)),
            _ => (NicPort::None, plain_memory(plan)),
        };
        let ports: io::Result<_> =
            sockets.into_iter().map(|socket| TunnelPort::new(socket, drops())).collect();
        let tunnel = ports.and_then(|ports| Tunnels::new(ports, drops()));
        let tunnel = tunnel.map_err(|error| Error::os("use its UDP sockets", error))?;
        let host = (index == 0).then(|| HostPort::open(&plan.host_port, false, drops())).transpose()?;
        Ok(Self { ports: Ports { nic, tunnel, host }, frames, counters })
    }
}

/// Tries again while another socket holds the queue: of a gateway that was killed a moment ago the kernel lets go in its
/// own time.
fn patiently<T>(mut open: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 0..BUSY_ATTEMPTS {
        match open() {
            Err(Error::Xsk(error)) if error.is_busy() => thread::sleep(BUSY_INTERVAL),
            outcome => return outcome,
        }
    }
    open()
}

fn open_queue(
    plan: &Plan,
    nic: &str,
    queue: u32,
    copy_only: bool,
    drops: Arc<DropCounters>,
) -> Result<(XskPort, Frames), Error> {
    let mut frames = shared_memory(plan)?;
    let port = XskPort::open(&mut frames, nic, queue, copy_only, drops)?;
    Ok((port, frames))
}

/// Memory to share with the NIC, in huge pages where there are some.
fn shared_memory(plan: &Plan) -> Result<Frames, FramesError> {
    let chunk_bytes = plan.chunk_bytes();
    if huge_pages::are_free_for(u64::from(FRAMES) * u64::from(chunk_bytes))
        && let Ok(frames) = Frames::for_nic(FRAMES, chunk_bytes, true)
    {
        return Ok(frames);
    }
    Frames::for_nic(FRAMES, chunk_bytes, false)
}

/// No port of the bridge yet: each brings memory of its own.
fn several(removed: &Sender<NewNic>, drops: Arc<DropCounters>) -> Result<NicPort, Error> {
    let nics = Nics::new(removed.clone(), drops).map_err(|error| Error::os("wait for its ports", error))?;
    Ok(NicPort::Several(Box::new(nics)))
}

fn plain_memory(plan: &Plan) -> Frames {
    Frames::in_memory(FRAMES as usize, plan.longest_packet().max(PLAIN_CAPACITY))
}

fn settings(plan: &Plan, index: usize, ageing: Duration) -> Settings {
    Settings {
        index,
        segment: plan.segment,
        nic_mac: plan.outer().and_then(|nic| nic.mac).unwrap_or_default(),
        max_frame: plan.max_frame,
        // Without ageing nobody waits for reports but the operator who reads ages.
        report_interval: if ageing.is_zero() { Duration::from_secs(60) } else { ageing / REPORTS },
        guards: Guards::default(),
    }
}

fn spawn(
    plan: &Plan,
    index: usize,
    worker: Worker<NicPort, Tunnels, HostPort>,
) -> Result<JoinHandle<()>, Error> {
    let cpu = plan.cpus.get(index % plan.cpus.len().max(1)).copied();
    thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            pin(index, cpu);
            worker.run();
        })
        .map_err(|error| Error::os("start a worker", error))
}

fn pin(worker: usize, cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    let mut set = CpuSet::new();
    let pinned = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        tracing::warn!(worker, cpu, %error, "the worker is not pinned; correct --cpus");
    }
}
