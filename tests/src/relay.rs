//! Bad weather: a UDP relay that loses, repeats and reorders what it carries, in both directions. The kernels that these
//! tests run on have no netem.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::netns::Namespace;
use crate::{Fault, Result};

/// Longest UDP payload.
const DATAGRAM: usize = 65_535;
/// Packets held back at once; more are lost.
const HELD: usize = 4096;
/// Clients at once; more are not carried.
const CLIENTS: usize = 64;
/// How long the relay rests when nothing has come.
const REST: Duration = Duration::from_micros(500);

/// How packets fare. Rates are in parts per hundred.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Lost.
    pub loss: u64,
    /// Sent twice.
    pub duplication: u64,
    /// Held back for up to `delay`, so that others overtake them.
    pub reordering: u64,
    /// Longest time a packet is held back.
    pub delay: Duration,
    /// Where the dice begin: the same seed gives the same sequence of fates.
    pub seed: u64,
}

impl Weather {
    /// Nothing happens.
    pub const FINE: Self = Self { loss: 0, duplication: 0, reordering: 0, delay: Duration::ZERO, seed: 1 };
    /// A tenth is lost, a tenth comes twice, a third too late.
    pub const STORM: Self =
        Self { loss: 10, duplication: 10, reordering: 33, delay: Duration::from_millis(30), seed: 1 };
}

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    carried: AtomicU64,
    answers: AtomicU64,
    lost: AtomicU64,
}

impl Relay {
    /// Starts one in `namespace`, on its loopback, for packets to `target`.
    pub fn start(namespace: &Namespace, target: SocketAddr, weather: Weather) -> Result<Self> {
        let front = namespace
            .within(|| bind((Ipv4Addr::LOCALHOST, 0).into()))?
            .map_err(Fault::io("opening a relay"))?;
        let address = front.local_addr().map_err(Fault::io("opening a relay"))?;
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        // Opened ahead: a socket stays in the namespace it was made in.
        let backs =
            (0..CLIENTS).map(|_| namespace.within(|| bind(any))?.map_err(Fault::io("opening a relay")));
        let spare = backs.collect::<Result<Vec<_>>>()?;
        let shared = Arc::new(Shared::default());
        let mut carrier = Carrier {
            front,
            spare,
            backs: HashMap::new(),
            target,
            weather,
            dice: weather.seed,
            held: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            number: 0,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::spawn(move || carrier.run());
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where clients in the namespace find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Packets sent on, those sent twice counted twice.
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Relaxed)
    }

    /// Of these, the ones to clients.
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Relaxed)
    }

    /// Packets thrown away.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends by itself within a rest, and has nothing to say.
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// To whom a packet goes: to the target by a client's socket, or back to the client.
#[derive(Clone, Copy)]
enum To {
    Target(SocketAddr),
    Client(SocketAddr),
}

struct Carrier {
    front: UdpSocket,
    /// Sockets for clients to come.
    spare: Vec<UdpSocket>,
    /// A socket for each client: the target tells clients apart by it.
    backs: HashMap<SocketAddr, UdpSocket>,
    target: SocketAddr,
    weather: Weather,
    dice: u64,
    /// When which packet in `waiting` is due.
    held: BinaryHeap<Reverse<(Instant, u64)>>,
    waiting: BTreeMap<u64, (To, Vec<u8>)>,
    number: u64,
    shared: Arc<Shared>,
}

impl Carrier {
    fn run(&mut self) {
        let mut buffer = vec![0; DATAGRAM];
        while !self.shared.stop.load(Relaxed) {
            let came = self.take_from_clients(&mut buffer) + self.take_from_target(&mut buffer);
            self.send_due(Instant::now());
            if came == 0 {
                std::thread::sleep(REST);
            }
        }
    }

    fn take_from_clients(&mut self, buffer: &mut [u8]) -> usize {
        let mut came = 0;
        while let Some((len, client)) = receive(&self.front, buffer) {
            came += 1;
            if !self.backs.contains_key(&client) {
                let Some(back) = self.spare.pop() else { continue };
                self.backs.insert(client, back);
            }
            self.decide(To::Target(client), &buffer[..len]);
        }
        came
    }

    fn take_from_target(&mut self, buffer: &mut [u8]) -> usize {
        let mut came = 0;
        let clients: Vec<SocketAddr> = self.backs.keys().copied().collect();
        for client in clients {
            while let Some((len, _)) = self.backs.get(&client).and_then(|back| receive(back, buffer)) {
                came += 1;
                self.decide(To::Client(client), &buffer[..len]);
            }
        }
        came
    }

    /// A packet's fate.
    fn decide(&mut self, to: To, packet: &[u8]) {
        if self.happens(self.weather.loss) || self.waiting.len() >= HELD {
            self.shared.lost.fetch_add(1, Relaxed);
            return;
        }
        let copies = 1 + u32::from(self.happens(self.weather.duplication));
        for _ in 0..copies {
            if self.happens(self.weather.reordering) {
                self.hold(to, packet);
            } else {
                self.send(to, packet);
            }
        }
    }

    fn hold(&mut self, to: To, packet: &[u8]) {
        let longest = u64::try_from(self.weather.delay.as_micros()).unwrap_or(u64::MAX).max(1);
        let due = Instant::now() + Duration::from_micros(self.roll() % longest);
        self.number += 1;
        self.held.push(Reverse((due, self.number)));
        self.waiting.insert(self.number, (to, packet.to_vec()));
    }

    fn send_due(&mut self, now: Instant) {
        while let Some(Reverse((due, number))) = self.held.peek().copied()
            && due <= now
        {
            self.held.pop();
            if let Some((to, packet)) = self.waiting.remove(&number) {
                self.send(to, &packet);
            }
        }
    }

    fn send(&self, to: To, packet: &[u8]) {
        // What the kernel does not take is lost, as on any network.
        let _ = match to {
            To::Target(client) => self.backs.get(&client).map(|back| back.send_to(packet, self.target)),
            To::Client(client) => Some(self.front.send_to(packet, client)),
        };
        self.shared.carried.fetch_add(1, Relaxed);
        self.shared.answers.fetch_add(u64::from(matches!(to, To::Client(_))), Relaxed);
    }

    fn happens(&mut self, percent: u64) -> bool {
        percent > 0 && self.roll() % 100 < percent
    }

    /// splitmix64.
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The next datagram, past errors that an earlier one left on the socket.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Ok(received) => return Some(received),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(_) => return None,
        }
    }
}
