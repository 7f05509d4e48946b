//! A worker's sockets of all UDP listeners, as one port.
//!
//! Most gateways have one listener, and everything goes straight to it. With several, what is to be sent is sorted by the
//! address and port it leaves from; one epoll descriptor stands for the readability of all.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::{
    Frame, Frames, Port,
    tunnel::{TunnelPort, headers},
};
use crate::drops::{Drop, DropCounters};

/// The tunnel's sockets of one worker.
#[derive(Debug)]
pub struct Tunnels {
    ports: Vec<TunnelPort>,
    /// What each is bound to.
    bound: Vec<SocketAddr>,
    /// What leaves by each; empty between calls, kept for their memory.
    queues: Vec<Vec<Frame>>,
    /// Readable when one of them is; `None` with fewer than two.
    any: Option<Epoll>,
    drops: Arc<DropCounters>,
    /// The one that is asked first.
    turn: usize,
}

impl Tunnels {
    /// Over one port for each UDP listener; none where there are only TCP listeners.
    ///
    /// # Errors
    /// A socket has no address of its own, or the system has no more file descriptors.
    pub fn new(ports: Vec<TunnelPort>, drops: Arc<DropCounters>) -> io::Result<Self> {
        let bound = ports.iter().map(TunnelPort::local_addr).collect::<io::Result<_>>()?;
        let any = (ports.len() > 1).then(|| watch_all(&ports)).transpose()?;
        let queues = ports.iter().map(|_| Vec::new()).collect();
        Ok(Self { ports, bound, queues, any, drops, turn: 0 })
    }

    /// Sorts `queue` by the sockets that its packets leave by.
    fn sort(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        for frame in queue.drain(..) {
            let local = headers::source(frames.bytes(&frame));
            match local.and_then(|local| bound_for(&self.bound, local)) {
                Some(index) => self.queues[index].push(frame),
                None => {
                    self.drops.count(Drop::SocketSendFailed);
                    frames.put(frame);
                }
            }
        }
    }
}

/// Which of the sockets bound to `bound` packets from `local` leave by: of those with the right port the one bound to that
/// address, else one bound to every address of its family, else one bound to every address of both.
pub fn bound_for(bound: &[SocketAddr], local: SocketAddr) -> Option<usize> {
    let position = |fits: &dyn Fn(IpAddr) -> bool| {
        bound.iter().position(|bound| bound.port() == local.port() && fits(bound.ip()))
    };
    position(&|ip| ip == local.ip())
        .or_else(|| position(&|ip| ip.is_unspecified() && ip.is_ipv4() == local.is_ipv4()))
        .or_else(|| position(&|ip| ip.is_unspecified() && ip.is_ipv6()))
}

fn watch_all(ports: &[TunnelPort]) -> io::Result<Epoll> {
    let any = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for port in ports {
        any.add(port, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    }
    Ok(any)
}

impl Port for Tunnels {
    fn receive(&mut self, frames: &mut Frames, received: &mut Vec<Frame>, limit: usize) {
        let count = self.ports.len();
        let first = self.turn;
        // The next one first next time: none is starved by another that always fills the batch.
        self.turn = (first + 1).checked_rem(count).unwrap_or(0);
        let before = received.len();
        for index in (0..count).map(|ahead| (first + ahead) % count) {
            let left = limit.saturating_sub(received.len() - before);
            if left == 0 {
                return;
            }
            self.ports[index].receive(frames, received, left);
        }
    }

    fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        if let [only] = self.ports.as_mut_slice() {
            return only.transmit(frames, queue);
        }
        self.sort(frames, queue);
        for (port, queue) in self.ports.iter_mut().zip(&mut self.queues) {
            port.transmit(frames, queue);
        }
    }

    fn wake(&mut self, frames: &mut Frames) {
        self.ports.iter_mut().for_each(|port| port.wake(frames));
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        match &self.any {
            Some(any) => Some(any.0.as_fd()),
            None => self.ports.first()?.readable(),
        }
    }

    fn held(&self) -> usize {
        self.ports.iter().map(Port::held).sum()
    }

    fn missed(&self) -> u64 {
        self.ports.iter().map(Port::missed).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;
    use crate::ports::{
        testing::{receive, transmit},
        tunnel,
    };

    fn listener() -> (UdpSocket, TunnelPort) {
        let (control, mut workers) = tunnel::open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), 1).unwrap();
        (control, TunnelPort::new(workers.remove(0), Arc::default()).unwrap())
    }

    /// The frame that goes back to where `frame` came from.
    fn answer(frame: &[u8]) -> Vec<u8> {
        let mut answer = frame.to_vec();
        answer[26..30].copy_from_slice(&frame[30..34]);
        answer[30..34].copy_from_slice(&frame[26..30]);
        answer[34..36].copy_from_slice(&frame[36..38]);
        answer[36..38].copy_from_slice(&frame[34..36]);
        answer
    }

    #[test]
    fn answers_leave_by_the_listener_their_question_came_to() {
        let (listeners, ports): (Vec<_>, Vec<_>) = (0..3).map(|_| listener()).unzip();
        let drops = Arc::new(DropCounters::default());
        let mut tunnels = Tunnels::new(ports, Arc::clone(&drops)).unwrap();
        let mut frames = Frames::in_memory(64, 2048);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
        for listener in listeners.iter().chain(listeners.iter().rev()) {
            let to = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
            client.send_to(&[0x48, 0, 0, 0, 9], to).unwrap();
            let seen = receive(&mut tunnels, &mut frames, 1);
            transmit(&mut tunnels, &mut frames, &[&answer(&seen[0])]);
            let (len, from) = client.recv_from(&mut [0; 100]).unwrap();
            assert_eq!((len, from), (5, to));
        }
        let mut stray = vec![0; headers::LEN];
        stray[12..15].copy_from_slice(&[8, 0, 0x45]);
        transmit(&mut tunnels, &mut frames, &[&stray]);
        assert_eq!(drops.get(Drop::SocketSendFailed), 1, "nobody listens on port 0");
        assert_eq!(frames.free() + tunnels.held(), frames.total());
    }

    #[test]
    fn the_more_exact_address_is_preferred() {
        let bound: Vec<SocketAddr> =
            ["0.0.0.0:443", "10.0.0.5:443", "[::]:444"].map(|text| text.parse().unwrap()).into();
        let of = |local: &str| bound_for(&bound, local.parse().unwrap());
        assert_eq!([of("10.0.0.5:443"), of("10.0.0.6:443"), of("10.0.0.5:444")], [Some(1), Some(0), Some(2)]);
        assert_eq!([of("10.0.0.5:445"), of("[2001:db8::1]:445")], [None, None]);
        assert_eq!([of("[2001:db8::1]:444"), of("[2001:db8::1]:443")], [Some(2), None]);
        let both: Vec<SocketAddr> = ["[::]:443", "0.0.0.0:443"].map(|text| text.parse().unwrap()).into();
        assert_eq!(bound_for(&both, "10.0.0.5:443".parse().unwrap()), Some(1));
        assert_eq!(bound_for(&both, "[2001:db8::1]:443".parse().unwrap()), Some(0));
    }

    #[test]
    fn without_udp_listeners_there_is_nothing_to_wait_for() {
        let mut tunnels = Tunnels::new(Vec::new(), Arc::default()).unwrap();
        let mut frames = Frames::in_memory(4, 64);
        let mut received = Vec::new();
        tunnels.receive(&mut frames, &mut received, 64);
        assert!(received.is_empty() && tunnels.readable().is_none());
    }
}
