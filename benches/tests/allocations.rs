//! Memory is found once: in steady state no frame costs an allocation, on any way through the worker.

use std::io;

use trestle_bench::memory::{Round, Work};

/// Turns that are watched, after those that warm up.
const TURNS: usize = 32;

/// Asserts that turns of `work` allocate nothing, with frames of all lengths.
fn allocates_nothing(work: Work) -> io::Result<()> {
    for &length in work.lengths() {
        let mut round = Round::new(work, length)?;
        for turn in 0..TURNS {
            round.offer()?;
            let seen = allocation_counter::measure(|| round.turn());
            assert_eq!(
                seen.count_total, 0,
                "{work} of {length} bytes, turn {turn}: {} bytes",
                seen.bytes_total
            );
            round.collect()?;
        }
    }
    Ok(())
}

#[test]
fn frames_from_the_wire_to_peers_allocate_nothing() -> io::Result<()> {
    allocates_nothing(Work::LanToPeer)
}

#[test]
fn frames_from_peers_to_the_wire_allocate_nothing() -> io::Result<()> {
    allocates_nothing(Work::PeerToLan)
}

#[test]
fn frames_from_peer_to_peer_allocate_nothing() -> io::Result<()> {
    allocates_nothing(Work::PeerToPeer)
}

#[test]
fn a_flood_to_a_hundred_peers_allocates_nothing() -> io::Result<()> {
    allocates_nothing(Work::Flood)
}

#[test]
fn frames_handed_over_between_workers_allocate_nothing() -> io::Result<()> {
    allocates_nothing(Work::FrameHandover)
}

#[test]
fn packets_handed_over_between_workers_allocate_nothing() -> io::Result<()> {
    allocates_nothing(Work::PacketHandover)
}

#[test]
fn the_counter_counts() {
    let seen = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(7_u64))));
    assert_eq!(seen.count_total, 1);
}
