use std::collections::HashSet;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg,
    sendmsg, setsockopt, socket, sockopt::RcvBufForce,
};
use nix::{setsockopt_impl, sockopt_impl};

use crate::frame::{self, ETHERTYPE_VLAN, HEADER, Mac};
use crate::netns::Namespace;
use crate::process::patient;
use crate::{Fault, Result};

sockopt_impl!(
    /// Ask for the 802.1Q tag, which the kernel has taken out of the bytes.
    PacketAuxdata, SetOnly, libc::SOL_PACKET, libc::PACKET_AUXDATA, bool
);

/// Room for received frames: a test must not lose frames by being slow itself.
const RECEIVE_BUFFER: usize = 16 << 20;
/// `tp_status` bit that says the tag fields are valid (linux/if_packet.h).
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;

/// A packet socket on one device: sends and receives whole frames.
#[derive(Debug)]
pub struct RawPort {
    socket: OwnedFd,
    name: String,
}

impl RawPort {
    /// Opens `device` of `namespace`. The device is made promiscuous only if someone else did.
    pub fn open(namespace: &Namespace, device: &str) -> Result<Self> {
        let socket = namespace.within(|| open_inside(device))??;
        Ok(Self { socket, name: format!("{}:{device}", namespace.name()) })
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(frame)], &[], MsgFlags::empty(), None)
            .map(drop)
            .map_err(Fault::os(format!("sending {} bytes on {}", frame.len(), self.name)))
    }

    /// The next frame that arrives before `deadline`, its 802.1Q tag back in place. Frames this host sent do not
    /// count.
    pub fn receive(&self, deadline: Instant) -> Option<Vec<u8>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if poll(&mut waiting, patience).unwrap_or(0) > 0
                && let Some(frame) = self.take()
            {
                return Some(frame);
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    /// The first frame within `limit` that `wanted` accepts.
    pub fn expect(&self, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patient(limit);
        std::iter::from_fn(|| self.receive(deadline)).find(|frame| wanted(frame))
    }

    /// Every frame that arrives within `time` and that `wanted` accepts.
    pub fn collect(&self, time: Duration, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + patient(time);
        std::iter::from_fn(|| self.receive(deadline)).filter(|frame| wanted(frame)).collect()
    }

    /// Forgets what has arrived so far.
    pub fn drain(&self) {
        let now = Instant::now();
        while self.receive(now).is_some() {}
    }

    /// One frame if one waits; `None` also for a frame this host sent.
    fn take(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 65_536];
        let mut control = nix::cmsg_space!([u8; 64]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT).ok()?;
        if message.address.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING) {
            return None;
        }
        let tag = message.cmsgs().ok()?.find_map(|part| vlan_tag(&part));
        let length = message.bytes;
        bytes.truncate(length);
        Some(match tag {
            Some((protocol, tci)) => retagged(&bytes, protocol, tci),
            None => bytes,
        })
    }
}

fn open_inside(device: &str) -> Result<OwnedFd> {
    let refused = |what: &str| Fault::os(format!("{what} for {device}"));
    let kind = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, kind, SockProtocol::EthAll)
        .map_err(refused("opening a packet socket"))?;
    setsockopt(&socket, PacketAuxdata, &true).map_err(refused("asking for VLAN tags"))?;
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).map_err(refused("enlarging the receive buffer"))?;
    bind(socket.as_raw_fd(), &link_address(device)?).map_err(refused("binding a packet socket"))?;
    Ok(socket)
}

/// The device's address as `getifaddrs` gives it: the one safe way to a `sockaddr_ll` with its index.
fn link_address(device: &str) -> Result<LinkAddr> {
    let mut all = getifaddrs().map_err(Fault::os("listing devices"))?;
    all.find_map(|entry| (entry.interface_name == device).then_some(*entry.address?.as_link_addr()?))
        .ok_or_else(|| Fault::other(format!("there is no device {device}")))
}

/// Tag protocol and control information out of `struct tpacket_auxdata` (linux/if_packet.h).
fn vlan_tag(part: &ControlMessageOwned) -> Option<(u16, u16)> {
    let ControlMessageOwned::Unknown(part) = part else { return None };
    let [s0, s1, s2, s3, _lengths @ .., t0, t1, p0, p1] = part.data_bytes.get(..20)? else { return None };
    let status = u32::from_ne_bytes([*s0, *s1, *s2, *s3]);
    let (tci, protocol) = (u16::from_ne_bytes([*t0, *t1]), u16::from_ne_bytes([*p0, *p1]));
    (status & TP_STATUS_VLAN_VALID != 0)
        .then_some((if protocol == 0 { ETHERTYPE_VLAN } else { protocol }, tci))
}

fn retagged(frame: &[u8], protocol: u16, tci: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(frame.len().min(12));
    [addresses, &protocol.to_be_bytes(), &tci.to_be_bytes(), rest].concat()
}

/// What became of a number of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were sent.
    pub sent: u32,
    /// How many different ones arrived.
    pub received: u32,
    /// How many arrived again.
    pub duplicates: u32,
    /// How many arrived after a later one.
    pub disordered: u32,
    /// How many arrived with other bytes than were sent.
    pub altered: u32,
}

impl Tally {
    /// How long to wait for the next one: for what is missing a second, for copies a moment.
    fn patience(&self) -> Duration {
        patient(Duration::from_millis(if self.received < self.sent { 1000 } else { 50 }))
    }

    /// Whether every frame arrived once and unaltered; their order is not judged.
    pub fn complete(&self) -> bool {
        self.received == self.sent && self.duplicates == 0 && self.altered == 0
    }
}

/// Frames to be sent and counted: `count` of `length` bytes from `source` to `destination`.
#[derive(Clone, Copy, Debug)]
pub struct Volley {
    /// Destination of each.
    pub destination: Mac,
    /// Source of each.
    pub source: Mac,
    /// EtherType of each.
    pub ethertype: u16,
    /// 802.1Q tag, if any.
    pub vlan: Option<u16>,
    /// Length of each with header, without tag.
    pub length: usize,
    /// How many.
    pub count: u32,
    /// How many in a row before a millisecond's rest.
    pub burst: u32,
}

/// Frames under way at most: fewer than any queue on the way holds, so that a client that the busy machine leaves
/// without a processor for a while is late, and loses nothing.
const UNDER_WAY: u32 = 48;

/// Waits until fewer than [`UNDER_WAY`] of the `sent` frames are under way. Returns how many were given up, where none
/// arrives any more.
fn wait_for_room(sent: u32, arrived: &AtomicU32) -> u32 {
    let under_way = || sent.saturating_sub(arrived.load(Ordering::Relaxed));
    let deadline = Instant::now() + patient(Duration::from_millis(200));
    while under_way() >= UNDER_WAY {
        if Instant::now() >= deadline {
            return under_way();
        }
        sleep(Duration::from_micros(200));
    }
    0
}

impl Volley {
    /// A handful of frames of the experimental EtherType, of the shortest length, at an easy pace.
    pub fn new(destination: Mac, source: Mac) -> Self {
        let ethertype = frame::ETHERTYPE_EXPERIMENT;
        Self { destination, source, ethertype, vlan: None, length: frame::MIN_SIZE, count: 20, burst: 4 }
    }

    /// The same with frames of `length` bytes.
    pub fn of_length(self, length: usize) -> Self {
        Self { length, ..self }
    }

    /// The same with `count` frames.
    pub fn of_count(self, count: u32) -> Self {
        Self { count, ..self }
    }

    /// The same with an 802.1Q tag.
    pub fn in_vlan(self, vlan: u16) -> Self {
        Self { vlan: Some(vlan), ..self }
    }

    /// Sends all and counts what arrives at `to`, until a second passes without any.
    pub fn fly(&self, from: &RawPort, to: &RawPort) -> Result<Tally> {
        to.drain();
        let volley = next_volley();
        let arrived = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let counting = scope.spawn(|| self.count_arrivals(to, volley, &arrived));
            let sending = self.send_all(from, volley, &arrived);
            let tally = counting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sending.map(|()| tally)
        })
    }

    fn send_all(&self, from: &RawPort, volley: u32, arrived: &AtomicU32) -> Result<()> {
        let mut given_up = 0;
        for number in 0..self.count {
            given_up += wait_for_room(number - given_up, arrived);
            from.send(&self.frame(volley, number))?;
            if number % self.burst.max(1) == self.burst.max(1) - 1 {
                sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    fn count_arrivals(&self, to: &RawPort, volley: u32, received: &AtomicU32) -> Tally {
        let mut tally = Tally { sent: self.count, ..Tally::default() };
        let mut seen = HashSet::new();
        let mut newest = None;
        let mut last = Instant::now();
        while let Some(arrived) = to.receive(last + tally.patience()) {
            let Some(number) = self.number_of(&arrived, volley) else { continue };
            last = Instant::now();
            tally.altered += u32::from(arrived != self.frame(volley, number));
            tally.disordered += u32::from(newest.is_some_and(|newest| number < newest));
            newest = newest.max(Some(number));
            match seen.insert(number) {
                true => {
                    tally.received += 1;
                    received.fetch_add(1, Ordering::Relaxed);
                }
                false => tally.duplicates += 1,
            }
        }
        tally
    }

    /// Bytes of frame `number`: header, volley, number, then a pattern that shows every change.
    fn frame(&self, volley: u32, number: u32) -> Vec<u8> {
        let mut payload = [volley.to_be_bytes(), number.to_be_bytes()].concat();
        let pattern =
            (0..self.length.saturating_sub(HEADER + payload.len())).map(|at| (at as u32 ^ number) as u8);
        payload.extend(pattern);
        let plain = frame::frame(self.destination, self.source, self.ethertype, &payload);
        self.vlan.map_or(plain.clone(), |vlan| frame::tagged(&plain, vlan))
    }

    fn number_of(&self, arrived: &[u8], volley: u32) -> Option<u32> {
        let header = if self.vlan.is_some() { HEADER + 4 } else { HEADER };
        let (mark, rest) = arrived.get(header..)?.split_first_chunk()?;
        let number = u32::from_be_bytes(*rest.first_chunk()?);
        (u32::from_be_bytes(*mark) == volley && number < self.count).then_some(number)
    }
}

/// A number no other volley of this process has; its first byte is no IP version.
fn next_volley() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0xf1a9_0000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
