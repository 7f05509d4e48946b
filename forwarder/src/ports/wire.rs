//! A NIC without AF_XDP: a packet socket to transmit on, and the membership that makes a NIC promiscuous.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use nix::{
    errno::Errno,
    libc,
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{BATCH, Frame, Frames, Port};
use crate::{
    drops::{Drop, DropCounters},
    xdp::{datagrams, sys},
};

/// `PACKET_QDISC_BYPASS` of `include/uapi/linux/if_packet.h`.
const PACKET_QDISC_BYPASS: i32 = 20;
/// An Ethernet header: less is no frame.
const MIN_HEADER: usize = 14;

/// Why a NIC has no packet socket.
#[derive(Debug, thiserror::Error)]
#[error("no packet socket on {nic} ({source}): {cure}")]
pub struct WireError {
    nic: String,
    cure: &'static str,
    source: io::Error,
}

/// Transmits whole frames onto a NIC by a packet socket, past its queueing discipline, so that the TC program on the
/// NIC does not take them for the host's. Receives nothing: for that there is XDP and TC.
#[derive(Debug)]
pub struct WirePort {
    socket: OwnedFd,
    drops: Arc<DropCounters>,
}

impl WirePort {
    /// A packet socket bound to the NIC.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn open(nic: &str, drops: Arc<DropCounters>) -> Result<Self, WireError> {
        let open = || {
            let (socket, interface) = packet_socket(nic)?;
            sys::set_socket_option(socket.as_fd(), libc::SOL_PACKET, PACKET_QDISC_BYPASS, 1)?;
            sys::bind_packet_socket(socket.as_fd(), interface, 0)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| refused(nic, source))?;
        Ok(Self { socket, drops })
    }

    /// Sends the first frames of `queue`, at most [`BATCH`], and returns how many are dealt with.
    fn send_batch(&self, frames: &Frames, queue: &[Frame]) -> usize {
        let mut slices = [IoSlice::new(&[]); BATCH];
        let mut count = 0;
        for frame in queue.iter().take(BATCH) {
            slices[count] = IoSlice::new(frames.bytes(frame));
            count += 1;
        }
        match datagrams::send_frames(self.socket.as_fd(), &slices[..count]) {
            Ok(sent) => sent,
            Err(error) => self.refuse(&error),
        }
    }

    /// Counts the one frame that the kernel did not take.
    fn refuse(&self, error: &io::Error) -> usize {
        let reason = match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            // Longer than the NIC's MTU, or shorter than a header.
            Errno::EMSGSIZE | Errno::EINVAL => Drop::FrameMalformed,
            _ => Drop::TransmitQueueFull,
        };
        self.drops.count(reason);
        1
    }
}

impl Port for WirePort {
    fn receive(&mut self, _frames: &mut Frames, _received: &mut Vec<Frame>, _limit: usize) {}

    fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        for frame in queue.extract_if(.., |frame| frame.len() < MIN_HEADER) {
            frames.put(frame);
            self.drops.count(Drop::FrameMalformed);
        }
        let mut done = 0;
        while done < queue.len() {
            done += self.send_batch(frames, &queue[done..]).max(1);
        }
        queue.drain(..).for_each(|frame| frames.put(frame));
    }

    fn wake(&mut self, _frames: &mut Frames) {}

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn held(&self) -> usize {
        0
    }
}

/// A NIC that receives what is addressed to others, for as long as this is kept: the membership is the socket's, and
/// goes with it, however the process ends.
#[derive(Debug)]
pub struct Promiscuous {
    _socket: OwnedFd,
}

impl Promiscuous {
    /// Makes the NIC promiscuous.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn on(nic: &str) -> Result<Self, WireError> {
        let join = || {
            let (socket, interface) = packet_socket(nic)?;
            sys::add_promiscuous(socket.as_fd(), interface)?;
            Ok(socket)
        };
        let socket = join().map_err(|source| refused(nic, source))?;
        Ok(Self { _socket: socket })
    }
}

/// A packet socket of no protocol, which receives nothing, and the NIC's index.
fn packet_socket(nic: &str) -> io::Result<(OwnedFd, u32)> {
    let interface = if_nametoindex(nic)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok((socket(AddressFamily::Packet, SockType::Raw, flags, None)?, interface))
}

fn refused(nic: &str, source: io::Error) -> WireError {
    let cure = match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run as root or with CAP_NET_RAW",
        Some(libc::ENODEV | libc::ENXIO) => "there is no interface of that name here",
        _ => "see the system's log",
    };
    WireError { nic: nic.to_owned(), cure, source }
}

#[cfg(test)]
mod tests {
    use aya::programs::{SchedClassifier, TcAttachType};

    use super::*;
    use crate::ports::testing::{
        Station, assert_same, in_namespace, link_number, numbered, programs, transmit, veth_pair,
    };

    #[test]
    fn frames_go_onto_the_wire_past_the_host_s_traffic_control() {
        in_namespace(|| {
            veth_pair();
            let Some(mut programs) = programs() else { return };
            let refuse: &mut SchedClassifier = programs.program_mut("refuse").unwrap().try_into().unwrap();
            refuse.load().unwrap();
            refuse.attach("near", TcAttachType::Egress).unwrap();
            let far = Station::on("far");
            let host = Station::on("near");
            assert!(!host.send(&numbered(99, 60)), "the host's own frames are refused");

            let drops = Arc::new(DropCounters::default());
            let mut port = WirePort::open("near", Arc::clone(&drops)).unwrap();
            let mut frames = Frames::in_memory(300, 1792);
            let sent: Vec<_> = (0..300).map(|number| numbered(number, 60 + number as usize * 4)).collect();
            transmit(&mut port, &mut frames, &sent.iter().map(Vec::as_slice).collect::<Vec<_>>());
            assert_same(&far.receive(300), &sent);
            assert_eq!(frames.free(), frames.total());
        });
    }

    #[test]
    fn what_is_no_frame_or_too_long_is_counted_and_what_is_behind_it_is_sent() {
        in_namespace(|| {
            veth_pair();
            let far = Station::on("far");
            let drops = Arc::new(DropCounters::default());
            let mut port = WirePort::open("near", Arc::clone(&drops)).unwrap();
            let mut frames = Frames::in_memory(8, 1792);
            let (short, long) = ([1; 13], numbered(2, 1700));
            let good = numbered(3, 1514);
            transmit(&mut port, &mut frames, &[&short, &long, &good]);
            assert_eq!(far.receive(1), [good]);
            assert_eq!(drops.get(Drop::FrameMalformed), 2);
            assert_eq!(frames.free(), frames.total());
        });
    }

    #[test]
    fn an_interface_that_is_not_there_is_said_so() {
        let error = WirePort::open("nosuchnic", Arc::default()).unwrap_err();
        assert!(error.to_string().contains("nosuchnic"), "{error}");
        assert!(error.to_string().contains("no interface of that name"), "{error}");
    }

    #[test]
    fn a_nic_is_promiscuous_as_long_as_somebody_holds_it_so() {
        in_namespace(|| {
            veth_pair();
            assert_eq!(link_number("near", "promiscuity"), 0);
            let first = Promiscuous::on("near").unwrap();
            let second = Promiscuous::on("near").unwrap();
            assert_eq!(link_number("near", "promiscuity"), 2);
            drop(first);
            drop(second);
            assert_eq!(link_number("near", "promiscuity"), 0);
        });
    }
}
