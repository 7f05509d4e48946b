//! `trestle capture`: from whoever asks to the workers and to XDP, and their copies back.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use crossbeam::channel::{Receiver, bounded};
use mio::Poll;

use super::{
    bridge::Bridge,
    gateway::{self, Gateway},
};
use crate::{
    management::{
        capture::{Ask, FrameRecord, Interface, Opening, Record, Reply},
        socket::{ClientId, Streamed},
    },
    switch::{Port, WireId},
    worker::{Capture, Captured, Command, Post},
    xdp::maps::{monotonic_ns, ports::Captures as Ring},
};

mod packet_socket;
mod port;

use packet_socket::PacketSocket;
use port::CapturedPort;

/// Captures at once: each costs copies.
const CAPTURES: usize = 4;
/// Copies under way from the workers to the control thread: some 10 MB of full frames.
const COPIES: usize = 8192;
/// Copies taken in one go, so that sessions are not kept waiting.
const BATCH: usize = 2048;
/// Frames taken from XDP's ring in one go: nearly all that fit there.
const RING_BATCH: usize = 2048;
/// How often XDP's losses are counted, which takes a system call for each port.
const COUNT: Duration = Duration::from_secs(1);

/// The captures there are.
#[derive(Debug)]
pub(super) struct Captures {
    running: Vec<Running>,
    next_id: u64,
    clock: Clock,
    /// When XDP's losses are counted next.
    next_count: Instant,
}

/// The same moment by all clocks, to give copies the time of day.
#[derive(Clone, Copy, Debug)]
struct Clock {
    now: Instant,
    monotonic_ns: u64,
    since_1970: Duration,
}

#[derive(Debug)]
struct Running {
    id: u64,
    client: ClientId,
    /// As the workers have it.
    asked: Capture,
    /// Of a port of the kernel bridge, which may leave and come back as another place.
    port: Option<CapturedPort>,
    copies: Receiver<Captured>,
    /// Copies that the client was too slow for.
    withheld: u64,
    /// What the client was told of both.
    told: u64,
}

/// What was asked for.
#[derive(Debug)]
struct Found {
    places: Vec<Port>,
    interfaces: Vec<Interface>,
    port: Option<CapturedPort>,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "copies bear the time of day")]
    fn read() -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { now: Instant::now(), monotonic_ns: monotonic_ns(), since_1970 }
    }

    fn time_ns(&self, at: Instant) -> u64 {
        nanoseconds(self.since_1970 + at.saturating_duration_since(self.now))
    }

    fn time_of_ring_ns(&self, time_ns: u64) -> u64 {
        nanoseconds(self.since_1970).saturating_add(time_ns).saturating_sub(self.monotonic_ns)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Captures {
    pub fn new(now: Instant) -> Self {
        Self { running: Vec::new(), next_id: 0, clock: Clock::read(), next_count: now }
    }

    fn begin(&mut self, client: ClientId, found: Found, snap: u32, posts: &[Post]) {
        if self.running.is_empty() {
            // The time of day may have been set.
            self.clock = Clock::read();
        }
        let (copies, received) = bounded(COPIES);
        let id = self.next_id;
        self.next_id += 1;
        let snap = usize::try_from(snap).unwrap_or(usize::MAX);
        let asked = Capture { id, places: found.places, snap, copies, lost: Arc::default() };
        let running = Running { id, client, asked, port: found.port, copies: received, withheld: 0, told: 0 };
        running.tell(posts);
        self.running.push(running);
    }
}

impl Running {
    /// Has the workers copy what is asked for.
    fn tell(&self, posts: &[Post]) {
        for post in posts.iter().filter(|_| !self.asked.places.is_empty()) {
            post.send(Command::BeginCapture(Box::new(self.asked.clone())));
        }
    }

    fn end(&self, posts: &[Post]) {
        for post in posts {
            post.send(Command::EndCapture(self.id));
        }
    }

    /// What is ready for the client, and how many frames that are.
    fn records(&mut self, clock: &Clock) -> (Vec<u8>, u64) {
        let places = &self.asked.places;
        let copies = self.copies.try_iter().take(BATCH).filter_map(|copy| {
            let interface = places.iter().position(|place| *place == copy.place)?;
            Some(frame(copy, interface, clock))
        });
        let mut frames: Vec<FrameRecord> = copies.collect();
        if let Some(port) = &mut self.port {
            frames.extend(port.frames());
            frames.sort_by_key(|frame| frame.time_ns);
        }
        let (mut records, count) = (Vec::new(), frames.len());
        frames.into_iter().for_each(|frame| Record::Frame(frame).write(&mut records));
        (records, u64::try_from(count).unwrap_or(u64::MAX))
    }

    fn lost(&self) -> u64 {
        let port = self.port.as_ref().map_or(0, CapturedPort::lost);
        self.asked.lost.load(Ordering::Relaxed) + self.withheld + port
    }
}

fn frame(copy: Captured, interface: usize, clock: &Clock) -> FrameRecord {
    FrameRecord {
        time_ns: clock.time_ns(copy.at),
        interface: u16::try_from(interface).unwrap_or(u16::MAX),
        direction: copy.direction,
        drop: copy.drop.map_or(0, |drop| u8::try_from(drop as usize + 1).unwrap_or(u8::MAX)),
        length: u32::try_from(copy.length).unwrap_or(u32::MAX),
        bytes: copy.bytes,
    }
}

impl Gateway {
    /// Somebody wants copies.
    pub(super) fn begin_capture(&mut self, client: ClientId, ask: &Ask) {
        let found = match self.capturable(&ask.name) {
            Ok(_) if self.captures.running.len() >= CAPTURES => {
                Err(format!("{CAPTURES} captures are running, the most there can be; end one first"))
            }
            found => found,
        };
        match found {
            Ok(mut found) => {
                let interfaces = std::mem::take(&mut found.interfaces);
                self.management.reply(client, &Reply::Capture(Opening::new(interfaces, ask.snap)));
                self.watch_port(found.port.as_ref());
                self.captures.begin(client, found, ask.snap, &self.datapath.posts);
                self.flag_captured_ports();
                tracing::info!(name = %ask.name, "a capture begins");
            }
            Err(sentence) => self.management.reply(client, &Reply::Error(sentence)),
        }
    }

    /// Copies that have come, to whoever wants them. Ends captures that nobody reads any more.
    pub(super) fn handle_captures(&mut self, now: Instant) {
        if self.captures.running.is_empty() {
            return;
        }
        self.follow_captured_ports();
        self.take_from_ports(now);
        let mut running = std::mem::take(&mut self.captures.running);
        let before = running.len();
        running.retain_mut(|capture| {
            let kept = self.pass_on(capture, now);
            if !kept {
                capture.end(&self.datapath.posts);
            }
            kept
        });
        let ended = running.len() < before;
        self.captures.running = running;
        if ended {
            self.flag_captured_ports();
        }
    }

    /// Ports of the bridge leave and come back.
    fn follow_captured_ports(&mut self) {
        let Some(bridge) = &self.bridge else { return };
        let mut moved = false;
        for capture in &mut self.captures.running {
            let Some(port) = &mut capture.port else { continue };
            let standing = bridge.standing(&port.name);
            if standing == port.standing() {
                continue;
            }
            moved = true;
            port.follow(standing);
            watch(&self.poll, port.socket());
            let places = port.wire().map(Port::Wire).into_iter().collect();
            capture.end(&self.datapath.posts);
            capture.asked.places = places;
            capture.tell(&self.datapath.posts);
        }
        if moved {
            self.flag_captured_ports();
        }
    }

    /// Has XDP copy what it takes at the captured ports, and at no others.
    fn flag_captured_ports(&mut self) {
        let ports = self.captures.running.iter().filter_map(|capture| capture.port.as_ref()?.standing());
        let ports: Vec<u32> = ports.map(|standing| standing.port).collect();
        if let Some(bridge) = &mut self.bridge {
            bridge.set_captured(&ports, &mut self.datapath);
        }
    }

    fn take_from_ports(&mut self, now: Instant) {
        let Captures { running, clock, next_count, .. } = &mut self.captures;
        let mut captured: Vec<Taker<'_>> = running
            .iter_mut()
            .filter_map(|capture| Some((capture.port.as_mut()?, capture.asked.snap)))
            .collect();
        if captured.is_empty() {
            return;
        }
        let mut is_all = true;
        for (port, snap) in &mut captured {
            is_all &= port.listen(*snap);
        }
        if let Some(programs) = self.datapath.programs() {
            is_all &= empty_ring(&mut programs.captures, &mut captured, clock);
        }
        if now >= *next_count {
            *next_count = now + COUNT;
            let uncaptured = self.datapath.uncaptured();
            captured.iter_mut().for_each(|(port, _)| port.set_uncaptured(uncaptured));
        }
        if !is_all {
            // Nothing wakes us for what is left.
            self.next_chores = now;
        }
    }

    fn pass_on(&mut self, capture: &mut Running, now: Instant) -> bool {
        let (mut records, frames) = capture.records(&self.captures.clock);
        let lost = capture.lost();
        if lost > capture.told {
            Record::Lost(lost).write(&mut records);
        }
        match self.management.stream(capture.client, &records) {
            Streamed::Taken => capture.told = lost,
            Streamed::Full => capture.withheld += frames,
            Streamed::Gone => return false,
        }
        if !capture.copies.is_empty() {
            // Nothing wakes us for what is left.
            self.next_chores = now;
        }
        true
    }

    /// The ports of that name, or a sentence with those there are.
    fn capturable(&self, name: &str) -> Result<Found, String> {
        if let Some(found) = self.capturable_bridge_port(name) {
            return found;
        }
        let ports = self.capturable_ports();
        let port = ports.iter().find(|(_, interface)| interface.name == name);
        let found: Vec<_> = match port {
            Some(port) => vec![port.clone()],
            None => self.capturable_peers(name),
        };
        if found.is_empty() {
            return Err(self.nothing_of(name, &ports));
        }
        let (places, interfaces) = found.into_iter().unzip();
        Ok(Found { places, interfaces, port: None })
    }

    fn capturable_bridge_port(&self, name: &str) -> Option<Result<Found, String>> {
        let bridge = self.bridge.as_ref()?;
        let (interface, standing) =
            bridge.capturable().find(|port| port.name == name).zip(bridge.standing(name))?;
        let places = standing.wire.map(Port::Wire).into_iter().collect();
        Some(match CapturedPort::open(name, standing, self.datapath.uncaptured()) {
            Ok(port) => Ok(Found { places, interfaces: vec![interface], port: Some(port) }),
            Err(error) => Err(format!(
                "there can be no packet socket on {name} ({error}): the gateway needs CAP_NET_RAW, and {name} to be there"
            )),
        })
    }

    fn watch_port(&self, port: Option<&CapturedPort>) {
        watch(&self.poll, port.and_then(CapturedPort::socket));
    }

    fn capturable_ports(&self) -> Vec<(Port, Interface)> {
        let interface = |name: &str, what: &str| Interface { name: name.into(), description: what.into() };
        let uplink = self.about.nic().filter(|_| self.about.has_wire());
        let uplink = uplink.map(|name| (Port::Wire(WireId::UPLINK), interface(name, "the uplink")));
        let host = self.about.host_port().map(|name| (Port::Host, interface(name, "the host port")));
        uplink.into_iter().chain(host).collect()
    }

    fn capturable_peers(&self, name: &str) -> Vec<(Port, Interface)> {
        let peers = self.sessions.peers.iter().filter(|(peer_id, peer)| {
            peer.name == name
                || peer_id.value().to_string() == name
                || peer.address.is_some_and(|address| address.to_string() == name)
        });
        peers
            .map(|(peer_id, peer)| {
                let description = format!("peer {} at {}", peer_id.value(), peer.path.remote);
                (Port::Peer(*peer_id), Interface { name: peer.name.clone(), description })
            })
            .collect()
    }

    fn nothing_of(&self, name: &str, ports: &[(Port, Interface)]) -> String {
        /// Enough to see what names look like.
        const SHOWN: usize = 20;
        let peers = self.sessions.peers.values().map(|peer| peer.name.as_str());
        let of_bridge: Vec<_> = self.bridge.iter().flat_map(Bridge::capturable).collect();
        let ports = ports.iter().map(|(_, port)| port).chain(&of_bridge);
        let mut names: Vec<&str> = ports.map(|port| port.name.as_str()).chain(peers).collect();
        let more = if names.len() > SHOWN { ", and more: see `trestle peers`" } else { "" };
        names.truncate(SHOWN);
        if names.is_empty() {
            return format!("there is no port or peer {name} here, nor any other that can be captured");
        }
        format!("there is no port or peer {name} here; there are {}{more}", names.join(", "))
    }
}

/// A captured port, and how much of a frame is kept.
type Taker<'a> = (&'a mut CapturedPort, usize);

/// Gives everybody what XDP has copied. False when there is more.
fn empty_ring(ring: &mut Ring, captured: &mut [Taker<'_>], clock: &Clock) -> bool {
    for _ in 0..RING_BATCH {
        let taken = ring.next_frame(|header, bytes| {
            // What an earlier capture left there.
            if header.time_ns < clock.monotonic_ns {
                return;
            }
            let time_ns = clock.time_of_ring_ns(header.time_ns);
            captured.iter_mut().for_each(|(port, snap)| port.take(header, bytes, *snap, time_ns));
        });
        if taken.is_none() {
            return true;
        }
    }
    false
}

/// Has the loop woken when the kernel has frames. A closed socket is not waited for any more.
fn watch(poll: &Poll, socket: Option<&PacketSocket>) {
    let Some(socket) = socket else { return };
    if let Err(error) = gateway::register(poll.registry(), socket.fd(), gateway::token::CAPTURES) {
        tracing::warn!("captured frames are late: {error}");
    }
}
