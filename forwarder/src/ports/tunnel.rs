//! The tunnel's UDP sockets: data packets that XDP left to the kernel, and all of them with `--datapath socket`.
//!
//! The kernel reassembles fragments on the way in and makes them on the way out. All sockets of a listener are one
//! `SO_REUSEPORT` group, and a classic BPF program sorts what arrives by the first bytes of the payload:
//!
//! ```text
//!   opcode 9 (data)       → worker peer_id % workers
//!   opcode 6 (data)       → the first worker, for it names no peer
//!   all else              → the control thread
//! ```
//!
//! So no thread passes packets on to another, and a flood of control packets does not starve data, nor data control.
//!
//! To the worker a datagram is a whole frame, `Ethernet │ IPv4 or IPv6 │ UDP │ payload`, whose headers are made up here
//! ([`headers`]) or, on the way out, read for the addresses and left behind. A socket of IPv6 serves IPv4 as well, unless
//! it was opened for IPv6 only; nobody but [`datagrams`] can tell.

mod group;
/// The headers ahead of a datagram.
pub mod headers;

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::Arc,
};

use mio::{Interest, Registry, Token, event::Source, unix::SourceFd};
use nix::errno::Errno;

pub use self::group::{Bind, OpenError, open};
use super::{BATCH, Frame, Frames, Port};
use crate::{
    drops::{Drop, DropCounters},
    xdp::{
        datagrams::{self, Datagram, Family, LONGEST_RUN, Run},
        sys,
    },
};

/// A worker's socket of the tunnel's group, as a port.
#[derive(Debug)]
pub struct TunnelPort {
    socket: UdpSocket,
    family: Family,
    /// The socket's own port.
    port: u16,
    drops: Arc<DropCounters>,
    /// Frames to receive into; empty between calls, kept for its memory.
    rooms: Vec<Frame>,
    refusals: Refusals,
    /// Payloads no longer than this are sent in runs: it shrinks when the kernel refuses one, for it does not make
    /// fragments of a run's payloads, and some interfaces take no runs at all.
    longest_in_run: usize,
}

impl TunnelPort {
    /// A port over one of the worker sockets that [`open`] made.
    ///
    /// # Errors
    /// The socket has no address of its own.
    pub fn new(socket: UdpSocket, drops: Arc<DropCounters>) -> io::Result<Self> {
        let bound = socket.local_addr()?;
        Ok(Self {
            socket,
            family: Family::of(bound),
            port: bound.port(),
            drops,
            rooms: Vec::with_capacity(BATCH),
            refusals: Refusals::default(),
            longest_in_run: LONGEST_RUN,
        })
    }

    /// The address the socket is bound to.
    ///
    /// # Errors
    /// What `getsockname` says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Receives into the payload's place of each of `rooms`.
    fn receive_batch(&self, frames: &Frames, rooms: &mut [Frame], datagrams: &mut [Datagram]) -> usize {
        let mut slices = [const { None }; BATCH];
        let count = rooms.len().min(BATCH);
        for (slice, frame) in slices.iter_mut().zip(rooms) {
            *slice = frames.room(frame).get_mut(headers::len(self.family)..).map(IoSliceMut::new);
        }
        let mut slices = slices.map(|slice| slice.unwrap_or_else(|| IoSliceMut::new(&mut [])));
        // An error is `WouldBlock`, or of a moment (a queued ICMP error): what is there is read in the next turn.
        datagrams::receive(self.socket.as_fd(), &mut slices[..count], datagrams).unwrap_or(0)
    }

    /// Writes the headers ahead of one datagram; its frame goes to `received` or, if it is of no use, back.
    fn deliver(&self, frames: &mut Frames, mut frame: Frame, datagram: &Datagram, received: &mut Vec<Frame>) {
        let local = SocketAddr::new(datagram.local, self.port);
        let room = frames.room(&mut frame);
        let written = !datagram.truncated && headers::write(room, self.family, datagram, local);
        if written {
            frames.set_len(&mut frame, headers::len(self.family) + datagram.len);
            received.push(frame);
        } else {
            self.drops.count(Drop::FrameMalformed);
            frames.put(frame);
        }
    }

    /// Sends the first frames of `queue`, at most [`BATCH`], and returns how many are dealt with. None are when a run was
    /// refused: they are sent one by one when asked again.
    fn send_batch(&mut self, frames: &Frames, queue: &[Frame]) -> usize {
        let mut runs = [Run::of_one(Datagram::EMPTY); BATCH];
        let mut payloads = [IoSlice::new(&[]); BATCH];
        let (mut count, mut run_count) = (0, 0);
        for frame in queue.iter().take(BATCH) {
            let read = headers::read(frames.bytes(frame));
            let Some((datagram, payload)) = read.filter(|(datagram, _)| self.family.reaches(datagram.remote))
            else {
                break;
            };
            payloads[count] = IoSlice::new(payload);
            count += 1;
            match runs[..run_count].last_mut() {
                Some(run) if self.extends(run, &datagram) => run.count += 1,
                _ => {
                    runs[run_count] = Run::of_one(datagram);
                    run_count += 1;
                }
            }
        }
        if count == 0 {
            self.drops.count(Drop::FrameMalformed);
            return 1;
        }
        match datagrams::send(self.socket.as_fd(), self.family, &runs[..run_count], &payloads[..count]) {
            Ok(sent) => sent.max(1),
            Err(error) => self.refuse(&error, &runs[0], queue.len()),
        }
    }

    /// Whether one more datagram can go with the run.
    fn extends(&self, run: &Run, datagram: &Datagram) -> bool {
        run.datagram == *datagram
            && (1..=self.longest_in_run).contains(&datagram.len)
            && (run.count + 1) * datagram.len <= LONGEST_RUN
    }

    /// Counts what the kernel did not take and returns how many frames that were.
    fn refuse(&mut self, error: &io::Error, run: &Run, waiting: usize) -> usize {
        match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            Errno::EAGAIN | Errno::ENOBUFS => {
                self.drops.add(Drop::TransmitQueueFull, waiting as u64);
                return waiting;
            }
            // `udp_send_skb` in net/ipv4/udp.c: longer than the path's MTU, or no runs on this way.
            Errno::EINVAL | Errno::EMSGSIZE | Errno::EIO if run.count > 1 => {
                self.longest_in_run = run.datagram.len - 1;
                return 0;
            }
            _ => {}
        }
        self.drops.add(Drop::SocketSendFailed, run.count as u64);
        self.refusals.log(error, run.datagram.remote);
        run.count
    }
}

impl Port for TunnelPort {
    fn missed(&self) -> u64 {
        sys::socket_drops(self.socket.as_fd()).unwrap_or(0)
    }

    fn receive(&mut self, frames: &mut Frames, received: &mut Vec<Frame>, limit: usize) {
        let mut datagrams = [Datagram::EMPTY; BATCH];
        let mut rooms = std::mem::take(&mut self.rooms);
        rooms.extend(std::iter::from_fn(|| frames.take()).take(limit.min(BATCH)));
        let count = if rooms.is_empty() { 0 } else { self.receive_batch(frames, &mut rooms, &mut datagrams) };
        rooms.drain(count..).rev().for_each(|frame| frames.put(frame));
        for (frame, datagram) in rooms.drain(..).zip(&datagrams) {
            self.deliver(frames, frame, datagram, received);
        }
        self.rooms = rooms;
    }

    fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        let mut done = 0;
        while done < queue.len() {
            done += self.send_batch(frames, &queue[done..]);
        }
        queue.drain(..).for_each(|frame| frames.put(frame));
    }

    fn wake(&mut self, _frames: &mut Frames) {}

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn held(&self) -> usize {
        0
    }
}

impl AsFd for TunnelPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Logs each kind of refusal once in a row, not once a packet.
#[derive(Debug, Default)]
struct Refusals {
    last: Option<i32>,
}

impl Refusals {
    fn log(&mut self, error: &io::Error, remote: SocketAddr) {
        if self.last != error.raw_os_error() {
            self.last = error.raw_os_error();
            tracing::warn!(%error, %remote, "the kernel does not take tunnel packets to this address");
        }
    }
}

/// The control thread's socket of the tunnel's group.
#[derive(Debug)]
pub struct ControlSocket {
    socket: UdpSocket,
    family: Family,
    /// The socket's own port.
    port: u16,
}

impl ControlSocket {
    /// Over the control socket that [`open`] made.
    ///
    /// # Errors
    /// The socket has no address of its own.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let bound = socket.local_addr()?;
        Ok(Self { socket, family: Family::of(bound), port: bound.port() })
    }

    /// Receives one datagram: its payload's length in `buffer`, the sender, and our address that it came to. A longer
    /// datagram than `buffer` is cut. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing, else what the kernel says.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, SocketAddr)> {
        let mut datagram = [Datagram::EMPTY];
        let received =
            datagrams::receive(self.socket.as_fd(), &mut [IoSliceMut::new(buffer)], &mut datagram)?;
        if received == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let [datagram] = datagram;
        Ok((datagram.len, datagram.remote, SocketAddr::new(datagram.local, self.port)))
    }

    /// Sends `payload` to `remote` from our address `local` (unspecified: the kernel chooses). Never waits.
    ///
    /// # Errors
    /// `WouldBlock` when the socket's buffer is full, `Unsupported` for IPv6 by a socket of IPv4, else what the kernel
    /// says.
    pub fn send(&self, payload: &[u8], remote: SocketAddr, local: IpAddr) -> io::Result<()> {
        if !self.family.reaches(remote) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let run = Run::of_one(Datagram { remote, local, ..Datagram::EMPTY });
        datagrams::send(self.socket.as_fd(), self.family, &[run], &[IoSlice::new(payload)]).map(|_| ())
    }

    /// Packets since the start that the kernel dropped because they were not received fast enough.
    pub fn missed(&self) -> u64 {
        sys::socket_drops(self.socket.as_fd()).unwrap_or(0)
    }

    /// The address the socket is bound to.
    ///
    /// # Errors
    /// What `getsockname` says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Source for ControlSocket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.socket.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.socket.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.socket.as_raw_fd()).deregister(registry)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_v6;
