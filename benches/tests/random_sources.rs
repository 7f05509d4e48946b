//! Addresses are free to invent: a million of them cost no more memory than the limits say, whoever invents them.

use std::io;
use std::time::{Duration, Instant};

use common::{FDB_ENTRIES, FdbKey, Mac};
use trestle::{
    drops::Drop,
    ports::BATCH,
    switch::{Change, Heard, Port, Table, WireId, Wires},
    worker::Notice,
};
use trestle_bench::memory::{Client, Gateway};

const FRAMES: u32 = 1_000_000;
/// Frames after which every limit has been reached.
const WARM: u32 = FRAMES / 4;
/// Stations behind the peer, at most.
const MAC_LIMIT: usize = 1024;
/// What a station may take in the control thread's table and in one worker's copy together: some 50 bytes of an ordered
/// tree's entry and 45 of a hash table's, each half empty at worst, and the hash table's former half while it grows.
const STATION_BYTES: u64 = 256;
/// Frames, notices and commands that are under way: rings and mailboxes, however few stations.
const UNDER_WAY_BYTES: u64 = 1 << 20;
/// Growth once every limit is reached: what is under way differs from one moment to the next.
const STEADY_BYTES: u64 = 64 << 10;
/// Turns of the worker between two of the control thread: more than there is room for notices, as when it is late.
const LATE: u32 = 100;
/// Known to stand where the frames come from, so that they go nowhere: learning is what is watched.
const NEIGHBOUR: Mac = [2, 0, 0, 0, 0, 0x20];

/// Where the frames come in.
enum Door {
    Peer(Box<Client>),
    Uplink,
    Host,
}

/// A worker, and the control thread's table as it keeps it.
struct Flooded {
    gateway: Gateway,
    table: Table,
    door: Door,
    now: Instant,
    sent: u32,
}

impl Flooded {
    fn new(wires: Wires, open: impl FnOnce(&mut Gateway) -> io::Result<Door>) -> io::Result<Self> {
        let (mut gateway, now) = (Gateway::joining(wires, 1)?, Instant::now());
        let door = open(&mut gateway)?;
        let port = if wires == Wires::None { Port::Host } else { Port::Wire(WireId::UPLINK) };
        gateway.station(NEIGHBOUR, port);
        let mut table = Table::new(Duration::from_secs(300), MAC_LIMIT, FDB_ENTRIES as usize);
        let known = |table: &mut Table, mac, port| table.hear(FdbKey::new(0, mac), port, now);
        known(&mut table, NEIGHBOUR, port);
        if let Door::Peer(client) = &door {
            known(&mut table, client.mac(), Port::Peer(client.peer_id()));
        }
        Ok(Self { gateway, table, door, now, sent: 0 })
    }

    /// Lets in as many frames, each from an address of its own.
    fn flood(&mut self, frames: u32) -> io::Result<()> {
        for turn in 0..frames.div_ceil(BATCH as u32) {
            (0..BATCH).try_for_each(|_| self.let_in())?;
            self.gateway.turn();
            self.gateway.collect();
            if turn % LATE == 0 {
                self.listen();
            }
        }
        self.listen();
        self.gateway.turn();
        Ok(())
    }

    fn let_in(&mut self) -> io::Result<()> {
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&NEIGHBOUR);
        frame[6..12].copy_from_slice(&invented(self.sent));
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        self.sent += 1;
        let gateway = &self.gateway;
        let taken = |taken: bool| if taken { Ok(()) } else { Err(io::Error::other("the wire is full")) };
        match &mut self.door {
            Door::Peer(client) => client.send(&frame, |packet| taken(gateway.arrive(0, packet))),
            Door::Uplink => taken(gateway.arrive(0, &frame)),
            Door::Host => taken(gateway.arrive_from_host(&frame)),
        }
    }

    /// The control thread's turn: what it takes and what it refuses, it tells.
    fn listen(&mut self) {
        let Self { gateway, table, now, .. } = self;
        for notice in gateway.notices() {
            let Notice::Heard(key, port) = notice else { continue };
            match table.hear(key, port, *now) {
                Heard::Refreshed => {}
                Heard::Changed(change) => gateway.tell(change),
                Heard::Refused(_) => gateway.tell(Change { key, station: table.get(key) }),
            }
        }
    }
}

/// The so-many-th address: they differ, and come in no order (Fibonacci hashing; the multiplier is odd).
fn invented(number: u32) -> Mac {
    let [a, b, c, d] = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
    [2, 1, a, b, c, d]
}

/// Floods, and asserts that memory stays under what `stations` may take, and stops growing when they are reached.
fn stays_within(stations: usize, mut flooded: Flooded) -> io::Result<Flooded> {
    let (mut first, mut rest) = (Ok(()), Ok(()));
    let filled = allocation_counter::measure(|| first = flooded.flood(WARM));
    let steady = allocation_counter::measure(|| rest = flooded.flood(FRAMES - WARM));
    first.and(rest)?;
    let bound = stations as u64 * STATION_BYTES + UNDER_WAY_BYTES;
    assert!(filled.bytes_max <= bound, "{} bytes where {bound} are the bound", filled.bytes_max);
    assert!(steady.bytes_max <= bound, "{} bytes where {bound} are the bound", steady.bytes_max);
    let grown = steady.bytes_current;
    assert!(grown <= STEADY_BYTES as i64, "{grown} bytes more after all limits were reached");
    assert_eq!(flooded.table.len(), stations, "the limit was not reached, or was passed");
    Ok(flooded)
}

#[test]
fn a_million_sources_behind_a_peer_take_the_memory_of_its_limit() -> io::Result<()> {
    let open = |gateway: &mut Gateway| {
        let client = gateway.connect_with(1, MAC_LIMIT)?;
        Ok(Door::Peer(Box::new(client)))
    };
    // And the neighbour.
    let flooded = stays_within(MAC_LIMIT + 1, Flooded::new(Wires::Uplink, open)?)?;
    assert!(flooded.gateway.lost_by(Drop::MacLimit) > u64::from(FRAMES - WARM));
    Ok(())
}

#[test]
fn a_million_sources_on_the_wire_take_the_memory_of_a_full_table() -> io::Result<()> {
    let flooded = stays_within(FDB_ENTRIES as usize, Flooded::new(Wires::Uplink, |_| Ok(Door::Uplink))?)?;
    let known = FdbKey::new(0, invented(0));
    assert!(flooded.table.get(known).is_some(), "who came first is still known");
    Ok(())
}

#[test]
fn a_million_sources_behind_the_host_port_take_the_memory_of_a_full_table() -> io::Result<()> {
    stays_within(FDB_ENTRIES as usize, Flooded::new(Wires::None, |_| Ok(Door::Host))?).map(drop)
}
