//! Packets leave by the sessions' UDP sockets: a burst as one large datagram that the kernel cuts (UDP GSO), or packet by
//! packet where that does not go, for those that have to be fragmented for instance.

use std::{
    fmt,
    io::IoSlice,
    net::UdpSocket,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use trestle::xdp::datagrams::{self, Datagram, Family, Run};

use super::{
    Session,
    cargo::Cargo,
    road::{BURST, Burst},
};

/// Longest UDP payload over IPv4, which the kernel holds large datagrams to as well.
const MAX_PAYLOAD: usize = 65_507;
/// How long a full socket is waited for before its packets are given up.
const PATIENCE: Duration = Duration::from_millis(100);

/// The sockets' way.
pub(super) struct Udp {
    /// Packets of one burst, one behind the other.
    packets: Vec<u8>,
    /// Room for one.
    room: usize,
    gso: bool,
}

impl Udp {
    /// For packets with `cargo` in them.
    pub fn new(cargo: &Cargo) -> Self {
        let room = Burst::room(cargo);
        Self { packets: vec![0; room * BURST], room, gso: true }
    }

    /// Seals and sends `count` frames of `session`, [`BURST`] at most.
    pub fn send(&mut self, session: &mut Session, burst: &mut Burst<'_>, count: usize) {
        let (mut sealed, mut len) = (0, 0);
        while sealed < count.min(BURST) {
            let from = sealed * len;
            let Some(room) = self.packets.get_mut(from..from + self.room) else { break };
            // All frames of a session are of one length, and so are their packets.
            let Ok(packet) = burst.seal(session, room) else { break };
            len = packet;
            sealed += 1;
        }
        let sent = self.transmit(session.socket(), session.remote(), sealed, len);
        burst.tally.sent(session.number(), sent as u64, (count - sent) as u64);
        session.has_sent(burst.now);
    }

    /// Sends the first `count` packets of `len` bytes and returns how many were taken.
    fn transmit(
        &mut self,
        socket: &UdpSocket,
        remote: std::net::SocketAddrV4,
        count: usize,
        len: usize,
    ) -> usize {
        let mut sent = 0;
        let mut deadline = None;
        while sent < count {
            let result = match self.gso && count - sent > 1 {
                true => self.send_large(socket, sent, count, len),
                false => self.send_each(socket, remote, sent, count, len),
            };
            match result {
                Ok(taken) => sent += taken,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    let until = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                    if Instant::now() >= until {
                        break;
                    }
                    wait_writable(socket);
                }
                // Longer than the path's MTU, or a route that cannot have it (`udp_send_skb` in net/ipv4/udp.c).
                Err(Errno::EINVAL | Errno::EMSGSIZE | Errno::EIO) if self.gso && count - sent > 1 => {
                    self.gso = false;
                }
                // An ICMP error of earlier packets, told once: the packet itself was not looked at. The second time
                // it is about this one.
                Err(_) if deadline.is_none() => deadline = Some(Instant::now()),
                Err(_) => break,
            }
        }
        sent
    }

    /// As many packets as one large datagram holds.
    fn send_large(&self, socket: &UdpSocket, from: usize, to: usize, len: usize) -> Result<usize, Errno> {
        let to = to.min(from + MAX_PAYLOAD / len.max(1));
        let segment = u16::try_from(len).map_err(|_| Errno::EMSGSIZE)?;
        let bytes = self.packets.get(from * len..to * len).ok_or(Errno::EINVAL)?;
        let cut = [ControlMessage::UdpGsoSegments(&segment)];
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &cut, MsgFlags::MSG_DONTWAIT, None)?;
        Ok(to - from)
    }

    fn send_each(
        &self,
        socket: &UdpSocket,
        remote: std::net::SocketAddrV4,
        from: usize,
        to: usize,
        len: usize,
    ) -> Result<usize, Errno> {
        let bytes = self.packets.get(from * len..to * len).ok_or(Errno::EINVAL)?;
        let datagram = Datagram { remote: remote.into(), ..Datagram::EMPTY };
        let datagrams = [Run::of_one(datagram); BURST];
        let mut payloads = [IoSlice::new(&[]); BURST];
        for (payload, packet) in payloads.iter_mut().zip(bytes.chunks_exact(len.max(1))) {
            *payload = IoSlice::new(packet);
        }
        let count = to - from;
        let sent = datagrams::send(socket.as_fd(), Family::V4, &datagrams[..count], &payloads[..count]);
        sent.map_err(|error| error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw))
    }
}

impl fmt::Display for Udp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.gso { "UDP sockets with GSO" } else { "UDP sockets, packet by packet" })
    }
}

/// Waits until the socket takes packets again, a moment at most.
fn wait_writable(socket: &UdpSocket) {
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    // Whatever it says, the next attempt shows.
    let _ = poll(&mut sockets, PollTimeout::from(1u8));
}
