//! The mailbox between the control thread and one worker: commands down, notices up. They share nothing else but
//! counters.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use common::{FdbKey, Mac};
use crossbeam::channel::{Receiver, Sender, TrySendError};
use mio::Waker;
use nix::{errno::Errno, sys::eventfd::EventFd};
use openvpn::{
    data::{DataChannel, DataKeys},
    ids::{KeyId, PeerId},
    server::Path,
};

use super::{Capture, Guards, Outer, PeerCounters};
use crate::{
    ports::nics::NewNic,
    switch::{Change, Ingress, Nonce, PROBE_BYTES, Port, WireId},
};

/// What the control thread wants of a worker.
#[derive(Debug)]
pub enum Command {
    /// A peer connected; the worker owns it from now on.
    AddPeer(Box<NewPeer>),
    /// The peer is gone.
    RemovePeer(PeerId),
    /// See [`DataChannel::install`].
    InstallKey(PeerId, KeyId, Box<DataKeys>),
    /// See [`DataChannel::send_with`].
    SendWith(PeerId, KeyId),
    /// See [`DataChannel::retire`].
    RetireKey(PeerId, KeyId),
    /// Where the peer is, and how packets to it leave; `None`: there is no way.
    SetOuter(PeerId, Path, Option<Box<Outer>>),
    /// Packets that come by the path and name no peer are this peer's; `None`: nobody's. For every worker.
    Unnamed(Path, Option<PeerId>),
    /// A keepalive is due.
    Ping(PeerId),
    /// We leave: the peer is told.
    Exit(PeerId),
    /// The MAC table changed.
    Station(Change),
    /// A queue of a NIC to serve, from now on.
    AddNic(NewNic),
    /// The NIC is given back with all its queues ([`Nics::remove`](crate::ports::nics::Nics::remove)).
    RemoveNic(WireId),
    /// Frames of peers leave by this wire: by a queue of the worker itself, or of that other one. For every worker.
    OpenWire(WireId, usize),
    /// They do not any more, but go by the kernel's bridge.
    ShutWire(WireId),
    /// Whether the kernel's bridge filters VLANs.
    VlanAware(bool),
    /// Copies of frames are wanted, from now on.
    BeginCapture(Box<Capture>),
    /// They are not any more.
    EndCapture(u64),
    /// What to watch for has changed.
    Guards(Guards),
    /// Most stations behind the peer, from now on.
    MacLimit(PeerId, usize),
    /// The loop guard holds the peer down, or lets it go.
    Hold(PeerId, bool),
    /// A probe for the peer, also one that is held down.
    Probe(PeerId, Box<[u8; PROBE_BYTES]>),
    /// The NIC has another hardware address.
    NicMac(Mac),
    /// End the thread.
    Stop,
}

/// A peer as its worker gets it.
#[derive(Debug)]
pub struct NewPeer {
    /// Its number.
    pub peer_id: PeerId,
    /// Its data channel, without keys yet.
    pub channel: DataChannel,
    /// Where it is.
    pub path: Path,
    /// What is counted of it.
    pub counters: Arc<PeerCounters>,
    /// Most stations behind it.
    pub mac_limit: usize,
}

/// What a worker tells the control thread. A notice that finds the mailbox full is lost, and said again when its
/// cause comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A station is new at this port, or is still there.
    Heard(FdbKey, Port),
    /// An authentic packet of the peer came from elsewhere.
    Floated(PeerId, Path),
    /// The peer leaves.
    Exit(PeerId),
    /// The peer's data key nears its limit.
    RekeyDue(PeerId),
    /// A probe of the loop guard came in.
    ProbeReturned(Nonce, Ingress),
}

/// The control thread's end.
#[derive(Debug)]
pub struct Post {
    commands: Sender<Command>,
    bell: Arc<EventFd>,
}

impl Post {
    /// Leaves a command and wakes the worker. A worker that has ended takes no more.
    pub fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            ring(&self.bell);
        }
    }
}

/// The share of the notices' room (one in so many) that is kept for others than stations.
const KEPT_FOR_OTHERS: usize = 8;

/// The worker's end.
#[derive(Debug)]
pub struct Mailbox {
    commands: Receiver<Command>,
    notices: Sender<Notice>,
    bell: Arc<EventFd>,
    control: Arc<Waker>,
    unannounced: bool,
}

impl Mailbox {
    /// A mailbox whose notices go to `notices`, and whose bell is also rung by workers that hand frames over.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn new(notices: Sender<Notice>, control: Arc<Waker>) -> Result<(Post, Self), Errno> {
        // Commands are as many as the control thread makes; it makes them of events that are bounded themselves.
        let (sender, commands) = crossbeam::channel::unbounded();
        let bell = Arc::new(EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_NONBLOCK)?);
        let post = Post { commands: sender, bell: Arc::clone(&bell) };
        Ok((post, Self { commands, notices, bell, control, unannounced: false }))
    }

    /// The next command.
    pub(crate) fn take(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// Tells the control thread; false when it has no room.
    pub(super) fn tell(&mut self, notice: Notice) -> bool {
        if matches!(notice, Notice::Heard(..)) && self.has_room_for_others_only() {
            return false;
        }
        match self.notices.try_send(notice) {
            Ok(()) => {
                self.unannounced = true;
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// There is something for the control thread elsewhere.
    pub(super) fn announce(&mut self) {
        self.unannounced = true;
    }

    /// Stations are told by the thousand where frames go in circles: the news that ends it must find room.
    fn has_room_for_others_only(&self) -> bool {
        let capacity = self.notices.capacity().unwrap_or(usize::MAX);
        self.notices.len() >= capacity - capacity / KEPT_FOR_OTHERS
    }

    /// Once a turn: wakes the control thread if it was told something.
    pub(super) fn wake_control(&mut self) {
        if std::mem::take(&mut self.unannounced)
            && let Err(error) = self.control.wake()
        {
            tracing::debug!(%error, "the control thread was not woken");
        }
    }

    /// What others ring to wake this worker.
    pub fn bell(&self) -> &Arc<EventFd> {
        &self.bell
    }

    /// Readable when someone rang.
    pub(super) fn readable(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Stops the ringing.
    pub(super) fn quiet(&self) {
        // Nothing to read is fine: someone else's turn took it.
        let _ = self.bell.read();
    }
}

/// Rings a bell. It can only fail when it has been rung 2^64 times unheard: then it rings anyway.
pub(crate) fn ring(bell: &EventFd) {
    let _ = bell.write(1);
}
