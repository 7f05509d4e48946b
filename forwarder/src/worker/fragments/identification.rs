//! Identifications of packets: what tells the fragments of one from those of another.
//!
//! A destination puts packets together by addresses, protocol and identification. So numbers are counted for each
//! destination (two peers behind one router are one), and each worker has its own share of them. As the kernel does, a
//! destination's counter is found by a hash, and shared with those of the same hash, which costs nothing but numbers; it
//! begins anywhere, so that a stranger cannot know it. Source: RFC 6864, `ip_idents_reserve` in net/ipv4/route.c.
//!
//! IPv6 has 32 bits, and numbers only what is in fragments. There one counter for all destinations is enough, if what it
//! shows to one tells nothing of the numbers of others (RFC 7739): it is scrambled by a secret, one to one.

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
    /// IPv6 packets numbered so far. Invariant: below `2^32 / workers`.
    count_v6: u32,
    /// All workers' the same.
    secret_v6: [u32; 3],
}

impl Identifications {
    /// Those of worker `index` out of `workers`; all of them are told the same `secret`.
    pub fn new(index: usize, workers: usize, secret: &RandomState) -> Self {
        let workers = u16::try_from(workers).unwrap_or(u16::MAX).max(1);
        let index = u16::try_from(index).unwrap_or(0) % workers;
        let random = RandomState::new();
        let share = Self::share(workers);
        let start = |at: usize| (random.hash_one(at) % share) as u16;
        let counters = Box::new(std::array::from_fn(start));
        let count_v6 = (random.hash_one(COUNTERS) >> 32) as u32 % Self::share_v6(workers);
        let secret_v6 = [0, 1, 2].map(|at| (secret.hash_one(at) >> 32) as u32);
        Self { counters, index, workers, count_v6, secret_v6 }
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

impl Identifications {
    /// The next one for a fragmented packet of IPv6.
    pub fn next_v6(&mut self) -> u32 {
        let own = self.count_v6.wrapping_mul(self.workers.into()).wrapping_add(self.index.into());
        self.count_v6 = (self.count_v6 + 1) % Self::share_v6(self.workers);
        scrambled(own, self.secret_v6)
    }

    /// Numbers each worker has of IPv6.
    fn share_v6(workers: u16) -> u32 {
        u32::MAX / u32::from(workers)
    }
}

/// Another number for each number: sums, products with odd numbers, and exclusive ors with a number's own upper half can
/// all be undone.
fn scrambled(number: u32, [a, b, c]: [u32; 3]) -> u32 {
    [a, b, c].into_iter().fold(number, |number, secret| {
        let mixed = (number ^ secret).wrapping_mul(secret | 1);
        mixed ^ mixed >> 16
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PEER: [u8; 4] = [198, 51, 100, 11];

    #[test]
    fn every_number_comes_once_before_the_first_comes_again() {
        let mut identifications = Identifications::new(0, 1, &RandomState::new());
        let first = identifications.next(PEER);
        let rest: BTreeSet<u16> = (0..65_535).map(|_| identifications.next(PEER)).collect();
        assert_eq!((rest.len(), rest.contains(&first)), (65_535, false));
        assert_eq!(identifications.next(PEER), first);
    }

    #[test]
    fn workers_never_give_the_same_number() {
        let secret = RandomState::new();
        let mut workers: Vec<_> = (0..3).map(|index| Identifications::new(index, 3, &secret)).collect();
        let mut seen = BTreeSet::new();
        for worker in &mut workers {
            for _ in 0..65_536 / 3 {
                assert!(seen.insert(worker.next(PEER)));
            }
        }
    }

    #[test]
    fn peers_behind_one_address_share_their_numbers_and_others_do_not() {
        let mut identifications = Identifications::new(0, 1, &RandomState::new());
        let one = identifications.next(PEER);
        assert_eq!(identifications.next(PEER), one.wrapping_add(1));
        let before = identifications.next([198, 51, 100, 12]);
        identifications.next(PEER);
        assert_eq!(identifications.next([198, 51, 100, 12]), before.wrapping_add(1));
    }

    #[test]
    fn numbers_of_ipv6_come_once_whichever_worker_gives_them() {
        let secret = RandomState::new();
        let mut workers: Vec<_> = (0..3).map(|index| Identifications::new(index, 3, &secret)).collect();
        workers[1].count_v6 = u32::MAX / 3 - 100;
        let mut seen = BTreeSet::new();
        for worker in &mut workers {
            for _ in 0..10_000 {
                assert!(seen.insert(worker.next_v6()));
            }
        }
    }
}
