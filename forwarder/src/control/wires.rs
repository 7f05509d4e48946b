//! Ports of a kernel bridge as the workers have them: AF_XDP sockets that come and go while the gateway runs.

use std::{collections::BTreeMap, sync::Arc};

use common::QUEUES;

use super::{Error, datapath::Datapath, plan::Plan};
use crate::{
    host::links::Link,
    ports::{Frames, nics::NewNic, own_memory::OwnMemory, xsk::XskPort},
    switch::WireId,
    worker::Command,
    xdp::xsk::XskMode,
};

/// Chunks of memory of a NIC's queue: half of them are lent to receive into, 1024 frames, which at a million a second last
/// a millisecond. Fewer lose frames in bursts, more cost locked memory for each queue of each port.
const NIC_FRAMES: u32 = 2048;
/// The same of a port in software, of which there may be hundreds: the other end waits for the same CPU.
const SOFTWARE_FRAMES: u32 = 512;

/// The ports that workers serve, and what it takes to open one.
#[derive(Debug)]
pub(super) struct Wires {
    served: BTreeMap<WireId, Served>,
    chunk_bytes: u32,
    /// What the last one was given.
    mode: Option<XskMode>,
}

#[derive(Clone, Copy, Debug)]
struct Served {
    queues: u32,
    open: bool,
}

impl Wires {
    pub fn new(plan: &Plan) -> Self {
        Self { served: BTreeMap::new(), chunk_bytes: plan.chunk_bytes(), mode: None }
    }

    /// Whether frames of the workers leave by the wire.
    pub fn is_open(&self, wire: WireId) -> bool {
        self.served.get(&wire).is_some_and(|served| served.open)
    }

    /// What AF_XDP is got at the ports.
    pub fn mode(&self) -> Option<XskMode> {
        self.mode.filter(|_| !self.served.is_empty())
    }

    /// Whether they leave by any.
    pub fn are_some_open(&self) -> bool {
        self.served.values().any(|served| served.open)
    }
}

impl Datapath {
    /// Opens AF_XDP sockets on `queues` receive queues of a port, gives them to the workers and tells XDP where they are.
    /// Frames of peers leave by the port from [`Datapath::let_peers_out`] on.
    ///
    /// # Errors
    /// A socket is refused: the port is the kernel's then, as before. One that was closed a moment ago, by us or by a gateway
    /// that was killed, still holds its queue for a while (`XskError::is_busy`): ask again.
    pub fn serve_wire(&mut self, wire: WireId, port: &Link, queues: usize) -> Result<(), Error> {
        if self.posts.is_empty() || self.wires.served.contains_key(&wire) {
            return Ok(());
        }
        let queues = u32::try_from(queues).unwrap_or(QUEUES).clamp(1, QUEUES);
        let mut opened = Vec::new();
        for queue in 0..queues {
            let (worker, socket) = self.open_queue(port, queue)?;
            if let Some(kernel) = &mut self.kernel {
                kernel.programs.sockets.insert(wire, queue, socket.0.fd())?;
            }
            opened.push((worker, socket));
        }
        for (worker, (socket, frames)) in opened {
            self.wires.mode = Some(socket.mode());
            let drops = Arc::clone(&self.counters()[worker].drops);
            let port = Box::new(OwnMemory::new(socket, frames, drops));
            self.posts[worker].send(Command::AddNic(NewNic { wire, port }));
        }
        self.wires.served.insert(wire, Served { queues, open: false });
        Ok(())
    }

    fn open_queue(&self, port: &Link, queue: u32) -> Result<(usize, (XskPort, Frames)), Error> {
        let worker = queue as usize % self.posts.len();
        let count = if port.kind.is_none() { NIC_FRAMES } else { SOFTWARE_FRAMES };
        let mut frames = Frames::for_nic(count, self.wires.chunk_bytes, false)?;
        let drops = Arc::clone(&self.counters()[worker].drops);
        let socket = XskPort::open(&mut frames, &port.name, queue, false, drops)?;
        Ok((worker, (socket, frames)))
    }

    /// Whether frames of peers for stations on the wire leave by it, or go by the bridge.
    pub fn let_peers_out(&mut self, wire: WireId, open: bool) {
        let Some(served) = self.wires.served.get_mut(&wire).filter(|served| served.open != open) else {
            return;
        };
        served.open = open;
        let queues = served.queues as usize;
        for (index, post) in self.posts.iter().enumerate() {
            // A worker with a queue of its own sends by that.
            let worker = if index < queues { index } else { index % queues };
            post.send(if open { Command::OpenWire(wire, worker) } else { Command::ShutWire(wire) });
        }
    }

    /// Takes a port out: XDP hands over nothing of it any more, and its sockets are closed.
    pub fn abandon_wire(&mut self, wire: WireId) {
        self.let_peers_out(wire, false);
        let Some(Served { queues, .. }) = self.wires.served.remove(&wire) else { return };
        let sockets = self.kernel.as_mut().map(|kernel| &mut kernel.programs.sockets);
        if let Some(sockets) = sockets {
            let removed = (0..queues).map(|queue| sockets.remove(wire, queue));
            removed.filter_map(Result::err).for_each(|error| tracing::warn!("{error}"));
        }
        for post in &self.posts {
            post.send(Command::RemoveNic(wire));
        }
    }
}
