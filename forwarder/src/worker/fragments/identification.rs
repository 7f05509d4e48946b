//! Identifications of IPv4 packets: what tells the fragments of one from those of another.
//!
//! A destination puts packets together by addresses, protocol and identification. So numbers are counted for each
//! destination (two peers behind one router are one), and each worker has its own share of them. As the kernel does, a
//! destination's counter is found by a hash, and shared with those of the same hash, which costs nothing but numbers; it
//! begins anywhere, so that a stranger cannot know it. Source: RFC 6864, `ip_idents_reserve` in net/ipv4/route.c.

use std::hash::{BuildHasher, RandomState};

/// Counters of one worker: 2 KiB. Fewer would be shared by more peers, and so come round sooner.
const COUNTERS: usize = 1024;

/// The identifications one worker gives.
#[derive(Debug)]
pub struct Identifications {
    counters: Box<[u16; COUNTERS]>,
    /// Invariant: `index < workers`, and every counter is below `65536 / workers`.
    index: u16,
    workers: u16,
}

impl Identifications {
    /// Those of worker `index` out of `workers`.
    pub fn new(index: usize, workers: usize) -> Self {
        let workers = u16::try_from(workers).unwrap_or(u16::MAX).max(1);
        let index = u16::try_from(index).unwrap_or(0) % workers;
        let random = RandomState::new();
        let share = Self::share(workers);
        let start = |at: usize| (random.hash_one(at) % share) as u16;
        Self { counters: Box::new(std::array::from_fn(start)), index, workers }
    }

    /// Numbers each worker has.
    fn share(workers: u16) -> u64 {
        (u64::from(u16::MAX) + 1) / u64::from(workers)
    }

    /// The next one for packets to `destination`.
    pub fn next(&mut self, destination: [u8; 4]) -> u16 {
        let hash = u32::from_be_bytes(destination).wrapping_mul(0x9e37_79b9) >> 22;
        let counter = &mut self.counters[hash as usize % COUNTERS];
        let next = *counter;
        let is_end = u64::from(next) + 1 >= Self::share(self.workers);
        *counter = if is_end { 0 } else { next + 1 };
        next.wrapping_mul(self.workers).wrapping_add(self.index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PEER: [u8; 4] = [198, 51, 100, 11];

    #[test]
    fn every_number_comes_once_before_the_first_comes_again() {
        let mut identifications = Identifications::new(0, 1);
        let first = identifications.next(PEER);
        let rest: BTreeSet<u16> = (0..65_535).map(|_| identifications.next(PEER)).collect();
        assert_eq!((rest.len(), rest.contains(&first)), (65_535, false));
        assert_eq!(identifications.next(PEER), first);
    }

    #[test]
    fn workers_never_give_the_same_number() {
        let mut workers: Vec<_> = (0..3).map(|index| Identifications::new(index, 3)).collect();
        let mut seen = BTreeSet::new();
        for worker in &mut workers {
            for _ in 0..65_536 / 3 {
                assert!(seen.insert(worker.next(PEER)));
            }
        }
    }

    #[test]
    fn peers_behind_one_address_share_their_numbers_and_others_do_not() {
        let mut identifications = Identifications::new(0, 1);
        let one = identifications.next(PEER);
        assert_eq!(identifications.next(PEER), one.wrapping_add(1));
        let before = identifications.next([198, 51, 100, 12]);
        identifications.next(PEER);
        assert_eq!(identifications.next([198, 51, 100, 12]), before.wrapping_add(1));
    }
}
