//! Clients over TCP. Slow path by nature: one thread owns all connections, and no other waits for it.
//!
//! ```text
//!                     ┌────────────────────── the streams' thread ─────────────────────┐
//!  connections ─ bytes ─ unframe ─┬─ control packets ─ reports ──► control thread
//!                                 └─ data packets ─── a lane ────► the peer's worker
//!  connections ◄─ write ─ outbox ─┬─ control packets ◄─ orders ─── control thread
//!                                 └─ sealed packets ◄─ a lane ──── the peer's worker
//! ```
//! - A connection is one peer's path: its data packets go to the peer that the control thread says is behind it, and
//!   nothing that comes in by another connection is that peer's.
//! - Nobody is stopped by a slow one: what does not fit its outbox is dropped and counted; a packet for a lane or a mailbox
//!   that is full stays where it is, and its connection is read again later.
//! - A turn takes at most one buffer from each connection, so that they are served in turn.
//! - Who says nothing, or nothing that OpenVPN says, is closed after seconds; who does not become a peer, within
//!   `hand-window`. Of those at most so many are kept ([`MAX_UNCLAIMED`]).

mod connection;
mod doors;
mod listen;
mod outbox;
mod run;
#[cfg(test)]
mod tests;
/// A byte stream into packets.
pub mod unframe;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use mio::Waker;
use nix::sys::eventfd::{EfdFlags, EventFd};
use openvpn::{ids::PeerId, server::Path};

pub use self::{
    listen::{OpenError, allow_many_files, open},
    run::Streams,
};
use crate::drops::DropCounters;

/// Most connections that are nobody's yet, as many as the server has sessions that begin. Beyond it one gives way. Too low
/// cuts off clients that come back all at once after a restart, and again when they have waited; too high costs memory.
pub const MAX_UNCLAIMED: usize = 1024;
/// Reports that may wait for the control thread; what comes beyond waits in its connection.
const REPORTS: usize = 1024;

/// A connection's number. Not used again while anyone can still mean the former one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// What the control thread wants of the streams' thread.
#[derive(Debug)]
pub enum Order {
    /// A control packet to send.
    Send(StreamId, Vec<u8>),
    /// The connection is this peer's path from now on.
    Claim(StreamId, PeerId),
    /// Its session is over.
    Close(StreamId),
    /// End the thread, and with it all connections.
    Stop,
}

/// What the streams' thread tells the control thread.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// A control packet came.
    Packet(StreamId, Path, Vec<u8>),
    /// The connection is closed, from whichever side. The last report of it.
    Closed(StreamId, Path),
}

/// What the streams' thread is told at birth.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Longest packet.
    pub longest: usize,
    /// `tcp-queue-limit`.
    pub queue_limit: usize,
    /// `hand-window`: who is no peer after that is closed.
    pub hand_window: Duration,
    /// Most connections that are nobody's yet.
    pub unclaimed_limit: usize,
}

/// The control thread's end.
#[derive(Debug)]
pub struct Desk {
    orders: Sender<Order>,
    reports: Receiver<Report>,
    bell: Arc<EventFd>,
    drops: Arc<DropCounters>,
}

/// The streams' thread's end.
#[derive(Debug)]
pub struct Counter {
    orders: Receiver<Order>,
    reports: Sender<Report>,
    bell: Arc<EventFd>,
    drops: Arc<DropCounters>,
    control: Arc<Waker>,
}

impl Desk {
    /// Both ends. `control` is woken after reports.
    ///
    /// # Errors
    /// The system has no more file descriptors.
    pub fn new(control: Arc<Waker>) -> nix::Result<(Self, Counter)> {
        // Orders are as many as the control thread makes of events and packets, which are bounded themselves.
        let (orders, taken) = unbounded();
        let (reported, reports) = bounded(REPORTS);
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let drops = Arc::new(DropCounters::default());
        let desk = Self { orders, reports, bell: Arc::clone(&bell), drops: Arc::clone(&drops) };
        Ok((desk, Counter { orders: taken, reports: reported, bell, drops, control }))
    }

    /// Leaves an order and wakes the thread. One that has ended takes no more.
    pub fn send(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            crate::worker::ring(&self.bell);
        }
    }

    /// The next report.
    pub fn take(&self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// What the thread has lost.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }
}

impl Counter {
    /// What wakes the thread; workers ring it too.
    pub fn bell(&self) -> &Arc<EventFd> {
        &self.bell
    }
}

/// An address as paths have it: an IPv4 address is never written as an IPv6 one.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
