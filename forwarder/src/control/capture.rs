//! `trestle capture`: from whoever asks to the workers, and their copies back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crossbeam::channel::{Receiver, bounded};

use super::gateway::Gateway;
use crate::{
    management::{
        capture::{Ask, FrameRecord, Interface, Opening, Record, Reply},
        socket::{ClientId, Streamed},
    },
    switch::{Port, WireId},
    worker::{Capture, Captured, Command, Post},
};

/// Captures at once: each costs copies.
const CAPTURES: usize = 4;
/// Copies under way from the workers to the control thread: some 10 MB of full frames.
const COPIES: usize = 8192;
/// Copies taken in one go, so that sessions are not kept waiting.
const BATCH: usize = 2048;

/// The captures there are.
#[derive(Debug)]
pub(super) struct Captures {
    running: Vec<Running>,
    next_id: u64,
    /// The same moment twice, to give copies the time of day.
    began: (Instant, SystemTime),
}

#[derive(Debug)]
struct Running {
    id: u64,
    client: ClientId,
    places: Vec<Port>,
    copies: Receiver<Captured>,
    /// Copies that the workers had no room for.
    lost: Arc<AtomicU64>,
    /// Copies that the client was too slow for.
    withheld: u64,
    /// What the client was told of both.
    told: u64,
}

impl Captures {
    pub fn new(now: Instant) -> Self {
        #[expect(clippy::disallowed_methods, reason = "copies bear the time of day")]
        let today = SystemTime::now();
        Self { running: Vec::new(), next_id: 0, began: (now, today) }
    }

    fn begin(&mut self, client: ClientId, places: Vec<Port>, snap: u32, posts: &[Post]) {
        let (copies, received) = bounded(COPIES);
        let (id, lost) = (self.next_id, Arc::<AtomicU64>::default());
        self.next_id += 1;
        let snap = usize::try_from(snap).unwrap_or(usize::MAX);
        let capture = Capture { id, places: places.clone(), snap, copies, lost: Arc::clone(&lost) };
        for post in posts {
            post.send(Command::BeginCapture(Box::new(capture.clone())));
        }
        self.running.push(Running { id, client, places, copies: received, lost, withheld: 0, told: 0 });
    }

    fn time_ns(&self, at: Instant) -> u64 {
        let (began, today) = self.began;
        let since = today.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let time = since + at.saturating_duration_since(began);
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Running {
    /// What is ready for the client, and how many frames that are.
    fn records(&self, time_ns: impl Fn(Instant) -> u64) -> (Vec<u8>, u64) {
        let (mut records, mut frames) = (Vec::new(), 0);
        for copy in self.copies.try_iter().take(BATCH) {
            let Some(interface) = self.places.iter().position(|place| *place == copy.place) else { continue };
            frames += 1;
            Record::Frame(FrameRecord {
                time_ns: time_ns(copy.at),
                interface: u16::try_from(interface).unwrap_or(u16::MAX),
                direction: copy.direction,
                drop: copy.drop.map_or(0, |drop| u8::try_from(drop as usize + 1).unwrap_or(u8::MAX)),
                length: u32::try_from(copy.length).unwrap_or(u32::MAX),
                bytes: copy.bytes,
            })
            .write(&mut records);
        }
        (records, frames)
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed) + self.withheld
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
            Ok(found) => {
                let (places, interfaces): (Vec<_>, Vec<_>) = found.into_iter().unzip();
                tracing::info!(name = %ask.name, "a capture begins");
                self.management.reply(client, &Reply::Capture(Opening::new(interfaces, ask.snap)));
                self.captures.begin(client, places, ask.snap, &self.datapath.posts);
            }
            Err(sentence) => self.management.reply(client, &Reply::Error(sentence)),
        }
    }

    /// Copies that have come, to whoever wants them. Ends captures that nobody reads any more.
    pub(super) fn handle_captures(&mut self, now: Instant) {
        let mut running = std::mem::take(&mut self.captures.running);
        running.retain_mut(|capture| {
            let kept = self.pass_on(capture, now);
            if !kept {
                for post in &self.datapath.posts {
                    post.send(Command::EndCapture(capture.id));
                }
            }
            kept
        });
        self.captures.running = running;
    }

    fn pass_on(&mut self, capture: &mut Running, now: Instant) -> bool {
        let (mut records, frames) = capture.records(|at| self.captures.time_ns(at));
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
    fn capturable(&self, name: &str) -> Result<Vec<(Port, Interface)>, String> {
        let ports = self.capturable_ports();
        let port = ports.iter().find(|(_, interface)| interface.name == name);
        let found: Vec<_> = match port {
            Some(port) => vec![port.clone()],
            None => self.capturable_peers(name),
        };
        if found.is_empty() { Err(self.nothing_of(name, &ports)) } else { Ok(found) }
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
        let mut names: Vec<&str> = ports.iter().map(|(_, port)| port.name.as_str()).chain(peers).collect();
        let more = if names.len() > SHOWN { ", and more: see `trestle peers`" } else { "" };
        names.truncate(SHOWN);
        if names.is_empty() {
            return format!("there is no port or peer {name} here, nor any other that can be captured");
        }
        format!("there is no port or peer {name} here; there are {}{more}", names.join(", "))
    }
}
