//! Packets leave by AF_XDP: with headers of our own, past the kernel's stack. Answers come back the same way where the
//! XDP program could be attached and knows the session's port; all else, fragments for instance, comes to the sockets.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use common::Settings;
use nix::net::if_::if_indextoname;
use openvpn::data::{Cipher, Framing, Layout, Profile};
use trestle::{
    host::routes::{Detour, NextHop, OuterPath, Outside},
    ports::{Frame, Frames},
    switch::WireId,
    worker::{
        Outer,
        outer::{self, OUTER_HEADER},
    },
    xdp::{
        attach::{Attachment, Uplink, XdpChoice},
        frames::chunk_bytes_for,
        programs::Programs,
        xsk::{Kick, RING, Rings, XskMode},
    },
};

use super::{
    Fleet, Session,
    cargo::Cargo,
    fragments,
    road::{BURST, Burst},
};

/// Chunks of memory: a full ring each way, and some in hand.
const FRAMES: u32 = 3 * RING;
/// Frames taken from the ring at a time.
const BATCH: usize = 64;
/// The queue whose rings are used. What the NIC hands to other queues comes to the sockets.
const QUEUE: u32 = 0;
/// An Ethernet header.
const ETHERNET: usize = 14;
/// How long a ring that does not move is waited for before its frames are given up.
const PATIENCE: Duration = Duration::from_millis(100);

/// AF_XDP's way.
pub(super) struct Nic {
    name: String,
    // Dropped first: nothing is steered to rings that are gone.
    programs: Option<(Attachment, Programs)>,
    /// Why answers come to the sockets.
    no_program: Option<String>,
    rings: Rings,
    frames: Frames,
    /// By session number.
    outers: Vec<Option<Outer>>,
    /// Session number by our port.
    ports: HashMap<u16, usize>,
    ready: Vec<Frame>,
    received: Vec<Frame>,
    plaintext: Vec<u8>,
    /// A packet that is to be cut.
    whole: Vec<u8>,
    identification: u16,
    /// Longest IPv4 packet in bytes.
    mtu: u16,
    lost: u64,
}

impl Nic {
    /// Opens the way from `fleet` to its server; `interface` is the one that must be used, else that of the route. Unless
    /// `forced` it must be faster than the sockets.
    ///
    /// # Errors
    /// A sentence: why there is no such way.
    pub fn open(fleet: &Fleet, cargo: &Cargo, interface: Option<u32>, forced: bool) -> Result<Self, String> {
        let first = fleet.sessions().first().ok_or("there is no session")?;
        let hop = next_hop(first, interface)?;
        let name = if_indextoname(hop.nic).map_err(|error| format!("interface {}: {error}", hop.nic))?;
        let name = name.to_string_lossy().into_owned();
        let mut frames =
            Frames::for_nic(FRAMES, chunk_bytes_for(hop.mtu), false).map_err(|error| error.to_string())?;
        let longest = frames.capacity().saturating_sub(ETHERNET);
        let mtu = u16::try_from(longest.min(hop.mtu as usize)).unwrap_or(u16::MAX);
        let mut rings = Rings::open(&frames, &name, QUEUE, false).map_err(|error| error.to_string())?;
        if !forced && !pays(rings.mode()) {
            return Err("without zero-copy AF_XDP is slower".to_owned());
        }
        rings.fill(&mut frames, RING as usize);
        let attached = attach(&name, &hop, &rings, &frames, fleet);
        let (programs, no_program) = match attached {
            Ok(programs) => (Some(programs), None),
            Err(why) => (None, Some(why)),
        };
        let mut nic = Self {
            name,
            programs,
            no_program,
            rings,
            frames,
            outers: Vec::new(),
            ports: HashMap::new(),
            ready: Vec::with_capacity(BURST),
            received: Vec::with_capacity(BATCH),
            plaintext: vec![0; 65_536],
            whole: vec![0; OUTER_HEADER + Burst::room(cargo)],
            identification: 0,
            mtu,
            lost: 0,
        };
        fleet.sessions().iter().for_each(|session| nic.enter(session, &hop));
        if nic.receives() {
            fleet.watch(nic.rings.fd()).map_err(|error| error.to_string())?;
        }
        Ok(nic)
    }

    fn enter(&mut self, session: &Session, hop: &NextHop) {
        // Packets are cut here, so none is too long for the headers.
        let outer = Outer::by_nic(
            WireId::UPLINK,
            session.local(),
            session.remote(),
            hop.source,
            hop.destination,
            u16::MAX,
        );
        let number = session.number();
        self.outers.resize(self.outers.len().max(number + 1), None);
        self.outers[number] = Some(outer);
        self.ports.insert(session.local().port(), number);
    }

    /// Seals `count` frames of `session`, [`BURST`] at most.
    pub fn send(&mut self, session: &mut Session, burst: &mut Burst<'_>, count: usize) {
        let seal = if needs_fragments(burst.cargo, self.mtu) { Self::seal_in_fragments } else { Self::seal };
        let mut sealed = 0;
        while sealed < count && seal(self, session, burst) {
            sealed += 1;
        }
        burst.tally.sent(session.number(), sealed as u64, (count - sealed) as u64);
        session.has_sent(burst.now);
    }

    /// A packet in one frame.
    fn seal(&mut self, session: &mut Session, burst: &mut Burst<'_>) -> bool {
        let Self { frames, rings, ready, lost, .. } = self;
        let Some(outer) = self.outers.get(session.number()).and_then(Option::as_ref) else { return false };
        let Some(mut frame) = take(frames, rings, ready, lost) else { return false };
        let room = frames.room(&mut frame);
        let sealed = room.get_mut(OUTER_HEADER..).and_then(|packet| burst.seal(session, packet).ok());
        let Some(packet) = sealed.and_then(|len| room.get_mut(..OUTER_HEADER + len)) else {
            frames.put(frame);
            return false;
        };
        outer.write(packet, self.identification);
        self.identification = self.identification.wrapping_add(1);
        let end = packet.len();
        frames.set_len(&mut frame, end);
        ready.push(frame);
        true
    }

    /// A packet that is too long for one frame.
    fn seal_in_fragments(&mut self, session: &mut Session, burst: &mut Burst<'_>) -> bool {
        let Self { frames, rings, ready, lost, whole, .. } = self;
        let Some(outer) = self.outers.get(session.number()).and_then(Option::as_ref) else { return false };
        let sealed = whole.get_mut(OUTER_HEADER..).and_then(|packet| burst.seal(session, packet).ok());
        let Some(packet) = sealed.and_then(|len| whole.get_mut(..OUTER_HEADER + len)) else { return false };
        outer.write(packet, self.identification);
        self.identification = self.identification.wrapping_add(1);
        let mut complete = true;
        fragments::cut(packet, self.mtu, |header, part| {
            complete &= push(frames, rings, ready, lost, header, part);
        });
        complete
    }

    /// Sends what is ready; waits for room in the ring.
    pub fn flush(&mut self) {
        flush(&mut self.frames, &mut self.rings, &mut self.ready, &mut self.lost);
    }

    /// Whether answers come here.
    pub fn receives(&self) -> bool {
        self.programs.is_some()
    }

    /// Hands what has arrived to its sessions. True if there was anything.
    pub fn receive(&mut self, fleet: &mut Fleet, sink: &mut impl FnMut(usize, &[u8])) -> bool {
        if !self.receives() {
            return false;
        }
        self.rings.receive(&self.frames, &mut self.received, BATCH);
        let any = !self.received.is_empty();
        let now = Instant::now();
        for frame in self.received.drain(..) {
            if let Some((number, payload)) = arrived(&self.ports, self.frames.bytes(&frame))
                && let Some(session) = fleet.session_mut(number)
            {
                session.handle_packet(now, payload, &mut self.plaintext, sink);
            }
            self.frames.put(frame);
        }
        self.rings.fill(&mut self.frames, RING as usize);
        self.rings.kick_fill();
        any
    }

    /// Frames the kernel dropped after it had taken them.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl fmt::Display for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.rings.mode() {
            XskMode::Copy => "copy",
            XskMode::ZeroCopy => "zero-copy",
        };
        write!(f, "AF_XDP ({mode}) on {}", self.name)?;
        match (&self.programs, &self.no_program) {
            (Some((attachment, _)), _) => {
                let xdp = attachment.xdp().map_or("no", trestle::xdp::attach::XdpGot::name);
                write!(f, ", answers by {xdp} XDP")
            }
            (None, Some(why)) => write!(f, ", answers by the sockets, because {why}"),
            (None, None) => f.write_str(", answers by the sockets"),
        }
    }
}

/// Whether it is faster than the sockets. With a copy AF_XDP has the kernel make an skb a packet, UDP GSO one a burst:
/// measured on veth it costs 1.7 times the CPU a frame at 60 bytes, 1.5 times at 1414, and as much where packets are
/// fragments.
fn pays(mode: XskMode) -> bool {
    mode == XskMode::ZeroCopy
}

fn needs_fragments(cargo: &Cargo, mtu: u16) -> bool {
    /// The longest layout whose packets are as long as their frames allow.
    const PROFILE: Profile =
        Profile { layout: Layout::Epoch, ..Profile::new(Cipher::Aes256Gcm, Framing::V2) };
    fragments::are_needed(OUTER_HEADER + cargo.len() + PROFILE.max_overhead(), mtu)
}

/// A free chunk, if need be after waiting for one to be sent.
fn take(frames: &mut Frames, rings: &mut Rings, ready: &mut Vec<Frame>, lost: &mut u64) -> Option<Frame> {
    if frames.free() == 0 {
        flush(frames, rings, ready, lost);
    }
    frames.take()
}

/// Has a fragment ready.
fn push(
    frames: &mut Frames,
    rings: &mut Rings,
    ready: &mut Vec<Frame>,
    lost: &mut u64,
    header: &[u8],
    part: &[u8],
) -> bool {
    let Some(mut frame) = take(frames, rings, ready, lost) else { return false };
    let end = header.len() + part.len();
    if let Some(room) = frames.room(&mut frame).get_mut(..end) {
        let (to_header, to_part) = room.split_at_mut(header.len());
        to_header.copy_from_slice(header);
        to_part.copy_from_slice(part);
    }
    frames.set_len(&mut frame, end);
    ready.push(frame);
    true
}

fn flush(frames: &mut Frames, rings: &mut Rings, ready: &mut Vec<Frame>, lost: &mut u64) {
    let mut moved = Instant::now();
    loop {
        let before = (ready.len(), rings.unsent());
        rings.transmit(frames, ready);
        if rings.transmit_needs_kick() && rings.kick() == Kick::Lost {
            *lost += 1;
        }
        rings.complete(frames);
        // In copy mode a kick sends what there is. A driver that sends in its own time does so meanwhile.
        if ready.is_empty() && (rings.unsent() == 0 || !rings.transmit_needs_kick()) {
            return;
        }
        if (ready.len(), rings.unsent()) != before {
            moved = Instant::now();
        } else if moved.elapsed() > PATIENCE {
            *lost += ready.len() as u64;
            ready.drain(..).for_each(|frame| frames.put(frame));
            return;
        }
    }
}

fn arrived<'a>(ports: &HashMap<u16, usize>, frame: &'a [u8]) -> Option<(usize, &'a [u8])> {
    /// From the destination port in the UDP header to the payload.
    const PORT_TO_PAYLOAD: usize = 6;
    let arrived = outer::parse(frame)?;
    let port = frame.get(arrived.payload.start.checked_sub(PORT_TO_PAYLOAD)?..)?.first_chunk().copied();
    let port = port.map(u16::from_be_bytes)?;
    Some((*ports.get(&port)?, frame.get(arrived.payload)?))
}

/// The way of `session`'s packets, if it leads out of an Ethernet NIC.
fn next_hop(session: &Session, interface: Option<u32>) -> Result<NextHop, String> {
    let (remote, local) = ((*session.remote().ip()).into(), (*session.local().ip()).into());
    let look = |uplinks: &[u32]| {
        Outside::open(uplinks)
            .and_then(|mut outside| outside.resolve(remote, local))
            .map_err(|error| error.to_string())
    };
    let path = match interface {
        Some(index) => look(&[index])?,
        None => match look(&[])? {
            OuterPath::BySocket(Detour::OtherInterface(index)) => look(&[index])?,
            other => other,
        },
    };
    match path {
        OuterPath::Direct(hop) => Ok(hop),
        OuterPath::BySocket(detour) => Err(format!("the way to {remote} is not direct: {detour}")),
    }
}

/// Has answers to the sessions steered to `rings`: as many sessions as the program has room for.
fn attach(
    name: &str,
    hop: &NextHop,
    rings: &Rings,
    frames: &Frames,
    fleet: &Fleet,
) -> Result<(Attachment, Programs), String> {
    let mut programs = Programs::load().map_err(|error| error.to_string())?;
    let settings = Settings {
        nic: hop.nic,
        max_frame: u32::try_from(frames.capacity()).unwrap_or(u32::MAX),
        mac: hop.source,
        ..Settings::default()
    };
    programs.settings.set(settings).map_err(|error| error.to_string())?;
    programs.sockets.insert(WireId::UPLINK, QUEUE, rings.fd()).map_err(|error| error.to_string())?;
    for session in fleet.sessions().iter().take(common::LISTENERS as usize) {
        programs.listeners.insert(session.local().into()).map_err(|error| error.to_string())?;
    }
    let uplink = Uplink { nic: name, xdp: Some(XdpChoice::Auto), host_port: None };
    let attachment = programs.attach(&uplink).map_err(|error| error.to_string())?;
    Ok((attachment, programs))
}
