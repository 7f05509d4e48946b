//! Messages to and from the kernel: requests with their answers, and subscriptions.
//!
//! The sockets are nix's, the message bodies neli's (docs/decisions/netlink.md): a request blocks for at most
//! [`ANSWER_WITHIN`], a subscription never.

use std::io::{self, Cursor, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use neli::ToBytes;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Generic netlink's families.
pub mod generic;
/// Attributes read where they lie.
pub mod nested;
/// Reading and writing messages and attributes.
pub mod wire;

use crate::xdp::sys;
use wire::{Header, messages};

/// How long the kernel may take for an answer. It answers at once, unless the lock on all interfaces is held (a NIC
/// being reset can hold it for some hundred milliseconds).
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// More than the largest datagram the kernel sends (32 KiB in a dump, or one message).
const RECEIVE_BYTES: usize = 64 * 1024;

/// Orders sent in one datagram. Their answers, about a kilobyte of the kernel's memory each, must fit the socket's
/// buffer (`net.core.rmem_default`, 208 KiB).
const ORDERS_AT_ONCE: usize = 64;

/// How often a dump that changed under the kernel's hands is begun again.
const DUMP_ATTEMPTS: usize = 8;

/// Space for news not yet read, in bytes: some thousand messages.
const SUBSCRIPTION_BYTES: usize = 1024 * 1024;

/// A socket for requests, each waiting for its answer.
#[derive(Debug)]
pub struct Requests {
    socket: OwnedFd,
    sequence: u32,
    received: Vec<u8>,
}

impl Requests {
    /// To the routing family: interfaces, addresses, routes, neighbours.
    pub fn routing() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// To generic netlink: ethtool.
    pub fn generic() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkGeneric)
    }

    /// To netfilter: nftables.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let socket = open(protocol, SockFlag::empty(), 0)?;
        let within = TimeVal::milliseconds(i64::try_from(ANSWER_WITHIN.as_millis()).unwrap_or(i64::MAX));
        setsockopt(&socket, sockopt::ReceiveTimeout, &within)?;
        Ok(Self { socket, sequence: 0, received: vec![0; RECEIVE_BYTES] })
    }

    /// Sends one request and waits until the kernel has acknowledged it.
    ///
    /// `collect` is shown each message of the answer: its type and what follows its header.
    pub fn request<C: Default>(
        &mut self,
        kind: u16,
        flags: i32,
        body: &impl ToBytes,
        collect: impl Fn(&mut C, u16, &[u8]),
    ) -> io::Result<C> {
        self.send(kind, libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags, body)?;
        let mut collected = C::default();
        while self.receive(|header, rest| collect(&mut collected, header.kind, rest))? == Answer::Unfinished {
        }
        Ok(collected)
    }

    /// The same for a request whose answer holds nothing.
    pub fn order(&mut self, kind: u16, flags: i32, body: &impl ToBytes) -> io::Result<()> {
        self.request(kind, flags, body, |(): &mut (), _, _| ())
    }

    /// The same for many, without waiting for one before the next is sent: the kernel's answer to each, in their order.
    ///
    /// # Errors
    /// The kernel did not answer at all; some may have been carried out.
    pub fn order_all<B: ToBytes>(
        &mut self,
        kind: u16,
        flags: i32,
        bodies: &[B],
    ) -> io::Result<Vec<io::Result<()>>> {
        let mut answers = Vec::with_capacity(bodies.len());
        for bodies in bodies.chunks(ORDERS_AT_ONCE) {
            answers.extend(self.order_some(kind, flags, bodies)?);
        }
        Ok(answers)
    }

    fn order_some<B: ToBytes>(
        &mut self,
        kind: u16,
        flags: i32,
        bodies: &[B],
    ) -> io::Result<Vec<io::Result<()>>> {
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags)
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        for body in bodies {
            self.sequence = self.sequence.wrapping_add(1);
            datagram.extend(wire::message(kind, flags, self.sequence, body)?);
            datagram.resize(datagram.len().next_multiple_of(4), 0);
        }
        send(self.socket.as_raw_fd(), &datagram, MsgFlags::empty())?;
        let mut answers: Vec<_> = bodies.iter().map(|_| None).collect();
        while answers.iter().any(Option::is_none) {
            self.receive_answers(first, &mut answers)?;
        }
        Ok(answers.into_iter().flatten().collect())
    }

    fn receive_answers(&mut self, first: u32, answers: &mut [Option<io::Result<()>>]) -> io::Result<()> {
        let len = self.receive_datagram()?;
        for (header, rest) in messages(&self.received[..len]) {
            let number = usize::try_from(header.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
            if i32::from(header.kind) != libc::NLMSG_ERROR {
                continue;
            }
            if let Some(answer) = answers.get_mut(number) {
                *answer = Some(header.outcome(rest));
            }
        }
        Ok(())
    }

    /// Asks for a whole table. What changed while the kernel wrote it out is asked for again from the beginning.
    pub fn dump<C: Default>(
        &mut self,
        kind: u16,
        body: &impl ToBytes,
        collect: impl Fn(&mut C, u16, &[u8]),
    ) -> io::Result<C> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(kind, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, body)?;
            let mut collected = C::default();
            let mut interrupted = false;
            while self.receive(|header, rest| {
                interrupted |= header.dump_interrupted();
                collect(&mut collected, header.kind, rest);
            })? == Answer::Unfinished
            {}
            if !interrupted {
                return Ok(collected);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the table changes faster than it can be read"))
    }

    fn send(&mut self, kind: u16, flags: i32, body: &impl ToBytes) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = u16::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
        let message = wire::message(kind, flags, self.sequence, body)?;
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }

    /// One datagram; answers to requests given up earlier are passed over.
    fn receive(&mut self, mut each: impl FnMut(&Header, &[u8])) -> io::Result<Answer> {
        let len = self.receive_datagram()?;
        for (header, rest) in messages(&self.received[..len]) {
            if header.sequence != self.sequence {
                continue;
            }
            match i32::from(header.kind) {
                libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                    return header.outcome(rest).map(|()| Answer::Complete);
                }
                libc::NLMSG_NOOP => {}
                libc::NLMSG_OVERRUN => return Err(Errno::ENOBUFS.into()),
                _ => each(&header, rest),
            }
        }
        Ok(Answer::Unfinished)
    }

    fn receive_datagram(&mut self) -> io::Result<usize> {
        match receive(self.socket.as_fd(), &mut self.received) {
            Err(Errno::EAGAIN) => Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer")),
            other => Ok(other?),
        }
    }
}

impl AsFd for Requests {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[derive(PartialEq, Eq)]
enum Answer {
    Unfinished,
    Complete,
}

/// A socket that is told of changes. Reading never waits.
#[derive(Debug)]
pub struct Subscription {
    socket: OwnedFd,
    received: Vec<u8>,
}

/// What one look at a [`Subscription`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Messages were shown.
    Some,
    /// Nothing there.
    None,
    /// The kernel had more to tell than there was room for: everything may have changed.
    Lost,
}

impl Subscription {
    /// Subscribes to `groups` of the routing family, by number (`RTNLGRP_…`, 1 to 31).
    pub fn open(groups: &[u32]) -> io::Result<Self> {
        let mask = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        Self::of(open(SockProtocol::NetlinkRoute, SockFlag::SOCK_NONBLOCK, mask)?)
    }

    /// Subscribes to a group of a generic family, by the number that the kernel gave it ([`generic::Family`]).
    pub fn generic(group: u32) -> io::Result<Self> {
        let socket = open(SockProtocol::NetlinkGeneric, SockFlag::SOCK_NONBLOCK, 0)?;
        let group = i32::try_from(group).map_err(|_| io::ErrorKind::InvalidInput)?;
        sys::set_socket_option(socket.as_fd(), libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)?;
        Self::of(socket)
    }

    fn of(socket: OwnedFd) -> io::Result<Self> {
        // Without privileges the limit of net.core.rmem_max holds, and less room only means more often `Lost`.
        if setsockopt(&socket, sockopt::RcvBufForce, &SUBSCRIPTION_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &SUBSCRIPTION_BYTES)?;
        }
        Ok(Self { socket, received: vec![0; RECEIVE_BYTES] })
    }

    /// Reads one datagram and shows its messages: type and what follows the header.
    pub fn look(&mut self, mut each: impl FnMut(u16, &[u8])) -> io::Result<News> {
        let len = match receive(self.socket.as_fd(), &mut self.received) {
            Err(Errno::EAGAIN) => return Ok(News::None),
            Err(Errno::ENOBUFS | Errno::EMSGSIZE) => return Ok(News::Lost),
            other => other?,
        };
        for (header, rest) in messages(&self.received[..len]) {
            each(header.kind, rest);
        }
        Ok(News::Some)
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(protocol: SockProtocol, flags: SockFlag, groups: u32) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags | SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// One datagram from the kernel; what other processes send is passed over.
fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<usize> {
    loop {
        let mut slices = [IoSliceMut::new(buffer)];
        let received = match recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut slices, None, MsgFlags::empty())
        {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if received.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(Errno::EMSGSIZE);
        }
        if received.address.is_some_and(|sender| sender.pid() == 0) {
            return Ok(received.bytes);
        }
    }
}

/// Bytes of a neli structure.
pub(crate) fn bytes_of(body: &impl ToBytes) -> io::Result<Vec<u8>> {
    let mut cursor = Cursor::new(Vec::new());
    body.to_bytes(&mut cursor).map_err(io::Error::other)?;
    Ok(cursor.into_inner())
}
