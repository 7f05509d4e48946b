//! Fragments until they are whole packets, bounded in memory and time.
//!
//! ```text
//!            way 0   way 1   way 2   way 3
//!   set 0  ┌───────┬───────┬───────┬───────┐    a datagram under way: key, age, and its fragments as they came,
//!   set 1  │       │       │       │       │    each in the frame it came in
//!    ...   └───────┴───────┴───────┴───────┘
//! ```
//!
//! A datagram's set is a keyed hash of addresses and identification, so nobody can choose it. Nothing of a fragment is
//! authentic, and its source may be forged, so in a full set
//!
//! - strangers' datagrams have two ways at most, and give way to one that says it is a peer's and comes from where that
//!   peer is;
//! - a source gives up its own oldest datagram before another's.
//!
//! A fragment's bytes stay where they are until all are there. Then those of the later ones are copied behind the
//! first's: decryption needs them in one piece, and of a full-size frame that is a copy of less than 100 bytes.
//!
//! As in the kernel (net/ipv4/ip_fragment.c) an exact duplicate is lost alone, and an overlap loses the datagram, which
//! RFC 5722 asks for IPv6. Unlike there: half a second instead of 30, and eight fragments at most.

use std::sync::Arc;

use super::header::{self, Fragment, Key};
use crate::{
    drops::{Drop, DropCounters},
    ports::{Frame, Frames},
};

/// Sets, and ways in each: 256 datagrams under way. Fragments of one packet come back to back, so at a million a second,
/// all of them forged, an honest one still has 0.25 ms.
const SETS: usize = 64;
const WAYS: usize = 4;
/// Ways of a set that strangers may have.
const STRANGERS_WAYS: usize = WAYS / 2;
/// Most fragments of a datagram: a full-size frame on a path of 576 bytes, the least IPv4 promises, has three.
const MOST_FRAGMENTS: usize = 8;
/// Most frames held, and never more than a quarter of the worker's memory.
const MOST_HELD: usize = 512;
/// How long the rest of a datagram may take. Too low loses packets on paths that delay one fragment (a radio link that
/// repeats it); too high keeps memory, and mixes fragments of different packets once identifications come round: at
/// 100,000 a second in 0.65 s. XDP's marks last as long.
const PATIENCE_MS: u64 = common::FRAGMENT_AGE_NS / 1_000_000;
/// How long a datagram waits where its first fragment came before it is handed on to where those of other queues are
/// sent, too. Longer than a batch takes; what it costs is borne once, until the worker knows that the NIC does this.
const WAIT_HERE_MS: u64 = 2;

/// Datagrams of which not all fragments have come.
#[derive(Debug)]
pub struct Reassembly {
    /// Invariant: `SETS * WAYS` of them.
    slots: Box<[Slot]>,
    /// Invariant: the fragments in all slots, at most `most_held`.
    held: usize,
    most_held: usize,
    /// When to look for what has waited too long.
    next_sweep_ms: u64,
    seed: u64,
    drops: Arc<DropCounters>,
}

/// A datagram under way; free while it has no pieces.
#[derive(Debug, Default)]
struct Slot {
    key: Key,
    began_ms: u64,
    /// It says it is a peer's, and comes from where that is.
    is_trusted: bool,
    /// It waits at the worker where its fragments meet.
    is_settled: bool,
    /// Length of the datagram, once the last fragment is there.
    total: Option<usize>,
    /// Bytes that have come.
    received: usize,
    /// Never grows beyond the capacity it was made with. No two overlap.
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    fragment: Fragment,
    was_handed_on: bool,
    frame: Frame,
}

/// A packet that has become whole.
#[derive(Debug)]
pub struct Whole {
    /// The packet, as if it had come unfragmented.
    pub packet: Frame,
    /// Some fragments came here, and some to another worker.
    pub came_by_several: bool,
}

/// How a fragment came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    /// [`crate::worker`] believes it to be of a peer.
    pub is_trusted: bool,
    /// Another worker handed it on.
    pub was_handed_on: bool,
    /// [`crate::worker::Clock::millis`].
    pub now_ms: u64,
}

impl Reassembly {
    /// Holds nothing. `frames` is the number of all the worker has.
    pub fn new(frames: usize, seed: u64, drops: Arc<DropCounters>) -> Self {
        let slot = |_| Slot { pieces: Vec::with_capacity(MOST_FRAGMENTS), ..Slot::default() };
        let slots = (0..SETS * WAYS).map(slot).collect();
        Self { slots, held: 0, most_held: MOST_HELD.min(frames / 4), next_sweep_ms: 0, seed, drops }
    }

    /// Frames held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes a fragment in; the packet, if it is whole with that. What is lost is counted.
    pub fn add(
        &mut self,
        frames: &mut Frames,
        frame: Frame,
        fragment: Fragment,
        arrival: Arrival,
    ) -> Option<Whole> {
        let slot = self.place(frames, &fragment.key, arrival);
        let slot = slot.filter(|at| self.has_room(*at, arrival));
        let Some(at) = slot else {
            self.lose(frames, frame, Drop::FragmentsCrowdedOut);
            return None;
        };
        match self.slots[at].check(&fragment, frames.capacity()) {
            Ok(()) => {}
            Err(Fault::Duplicate) => {
                self.lose(frames, frame, Drop::Replayed);
                return None;
            }
            Err(Fault::Contradiction) => {
                frames.put(frame);
                self.give_up(frames, at, Drop::FragmentMalformed);
                return None;
            }
        }
        self.held += 1;
        self.slots[at].take_in(Piece { fragment, was_handed_on: arrival.was_handed_on, frame }, arrival);
        self.slots[at].is_whole().then(|| self.finish(frames, at))?
    }

    /// True if [`Reassembly::sweep`] would find something to do by its clock.
    pub fn is_sweep_due(&self, now_ms: u64) -> bool {
        self.held > 0 && now_ms >= self.next_sweep_ms
    }

    /// Gives up what has waited too long.
    pub fn sweep(&mut self, frames: &mut Frames, now_ms: u64) {
        self.next_sweep_ms = now_ms + 1;
        for at in 0..self.slots.len() {
            if self.slots[at].is_stale(now_ms) {
                self.give_up(frames, at, Drop::FragmentsIncomplete);
            }
        }
    }

    /// True while a datagram waits that is not where its fragments meet.
    pub fn has_unsettled(&self) -> bool {
        self.held > 0 && self.slots.iter().any(|slot| !slot.pieces.is_empty() && !slot.is_settled)
    }

    /// Takes out a fragment of a datagram that has waited here long enough, unless its fragments meet here.
    pub fn next_lone(&mut self, now_ms: u64, meets_here: impl Fn(&Key) -> bool) -> Option<(Key, Frame)> {
        for slot in &mut self.slots {
            if slot.pieces.is_empty() || slot.is_settled || now_ms < slot.began_ms + WAIT_HERE_MS {
                continue;
            }
            if meets_here(&slot.key) {
                slot.is_settled = true;
                continue;
            }
            self.held -= 1;
            return slot.pieces.pop().map(|piece| (slot.key, piece.frame));
        }
        None
    }

    /// Whether a fragment more may be held: strangers' only while less than half of what may be is.
    fn has_room(&self, at: usize, arrival: Arrival) -> bool {
        let is_trusted = self.slots[at].is_trusted || arrival.is_trusted;
        self.held < if is_trusted { self.most_held } else { self.most_held / 2 }
    }

    /// The slot for a datagram: its own, a free one, or another's that gives way.
    fn place(&mut self, frames: &mut Frames, key: &Key, arrival: Arrival) -> Option<usize> {
        let first = key.hash(self.seed) % SETS * WAYS;
        let set = first..first + WAYS;
        if let Some(own) = set.clone().find(|at| self.slots[*at].is_of(key)) {
            if !self.slots[own].is_stale(arrival.now_ms) {
                return Some(own);
            }
            self.give_up(frames, own, Drop::FragmentsIncomplete);
        }
        let at = self.vacancy(set.clone(), arrival).or_else(|| self.victim(set, key, arrival))?;
        let slot = &self.slots[at];
        if !slot.pieces.is_empty() {
            let reason = if slot.is_stale(arrival.now_ms) {
                Drop::FragmentsIncomplete
            } else {
                Drop::FragmentsCrowdedOut
            };
            self.give_up(frames, at, reason);
        }
        self.slots[at].begin(*key, arrival);
        Some(at)
    }

    /// A slot that is free, or as good as free, if there is one for this kind.
    fn vacancy(&self, mut set: std::ops::Range<usize>, arrival: Arrival) -> Option<usize> {
        let may_have_more =
            arrival.is_trusted || self.strangers(set.clone(), arrival.now_ms) < STRANGERS_WAYS;
        let is_free =
            |at: &usize| self.slots[*at].pieces.is_empty() || self.slots[*at].is_stale(arrival.now_ms);
        set.find(is_free).filter(|_| may_have_more)
    }

    fn strangers(&self, set: std::ops::Range<usize>, now_ms: u64) -> usize {
        let lives = |slot: &&Slot| !slot.pieces.is_empty() && !slot.is_stale(now_ms);
        self.slots[set].iter().filter(lives).filter(|slot| !slot.is_trusted).count()
    }

    /// Who gives way in a full set: for a stranger only another; for a peer its own oldest, else a stranger, else the
    /// oldest.
    fn victim(&self, set: std::ops::Range<usize>, key: &Key, arrival: Arrival) -> Option<usize> {
        let is_candidate = |at: &usize| !self.slots[*at].pieces.is_empty();
        let rank = |at: &usize| {
            let slot = &self.slots[*at];
            let is_own = arrival.is_trusted && slot.is_trusted && slot.key.source == key.source;
            (!is_own, slot.is_trusted, slot.began_ms)
        };
        let gives_way = |at: &usize| arrival.is_trusted || !self.slots[*at].is_trusted;
        set.filter(is_candidate).filter(gives_way).min_by_key(rank)
    }

    /// Puts the whole datagram into the frame of its first fragment.
    fn finish(&mut self, frames: &mut Frames, at: usize) -> Option<Whole> {
        let slot = &mut self.slots[at];
        self.held -= slot.pieces.len();
        let came_by_several = slot.came_by_several();
        let total = slot.total.take().unwrap_or(0);
        let first = slot.pieces.iter().position(|piece| piece.fragment.offset == 0)?;
        let Piece { fragment, frame: mut packet, .. } = slot.pieces.swap_remove(first);
        let end = fragment.begin + total;
        let fits = end <= frames.capacity();
        for piece in slot.pieces.drain(..) {
            if fits {
                copy(frames, &piece, &mut packet, fragment.begin);
            }
            frames.put(piece.frame);
        }
        if !fits {
            self.lose(frames, packet, Drop::FragmentMalformed);
            return None;
        }
        header::make_whole(frames.room(&mut packet), end);
        frames.set_len(&mut packet, end);
        Some(Whole { packet, came_by_several })
    }

    fn give_up(&mut self, frames: &mut Frames, at: usize, reason: Drop) {
        let slot = &mut self.slots[at];
        self.held -= slot.pieces.len();
        slot.pieces.drain(..).for_each(|piece| frames.put(piece.frame));
        self.drops.count(reason);
    }

    fn lose(&self, frames: &mut Frames, frame: Frame, reason: Drop) {
        self.drops.count(reason);
        frames.put(frame);
    }
}

/// Copies what a fragment brought behind what is in `packet`.
fn copy(frames: &Frames, piece: &Piece, packet: &mut Frame, begin: usize) {
    let Piece { fragment, frame, .. } = piece;
    let source = frames.bytes(frame).get(fragment.begin..fragment.begin + fragment.len);
    let target = frames.room(packet).get_mut(begin + fragment.offset..begin + fragment.end());
    if let (Some(source), Some(target)) = (source, target) {
        target.copy_from_slice(source);
    }
}

/// Why a fragment is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It is there already.
    Duplicate,
    /// It cannot be of the same datagram as the others, which are as doubtful.
    Contradiction,
}

impl Slot {
    fn is_of(&self, key: &Key) -> bool {
        !self.pieces.is_empty() && self.key == *key
    }

    fn is_stale(&self, now_ms: u64) -> bool {
        !self.pieces.is_empty() && now_ms.saturating_sub(self.began_ms) >= PATIENCE_MS
    }

    fn begin(&mut self, key: Key, arrival: Arrival) {
        self.key = key;
        self.began_ms = arrival.now_ms;
        self.is_trusted = false;
        self.is_settled = false;
        self.total = None;
        self.received = 0;
    }

    /// `room` is what a frame holds.
    fn check(&self, fragment: &Fragment, room: usize) -> Result<(), Fault> {
        let (begin, end) = (fragment.offset, fragment.end());
        let same = |other: &Fragment| {
            (other.offset, other.len, other.is_last) == (begin, fragment.len, fragment.is_last)
        };
        let pieces = || self.pieces.iter().map(|piece| &piece.fragment);
        if pieces().any(same) {
            return Err(Fault::Duplicate);
        }
        let overlaps = pieces().any(|other| begin < other.end() && other.offset < end);
        let goes_on = pieces().any(|other| other.offset >= end);
        let has_end_elsewhere = fragment.is_last && (self.total.is_some() || goes_on);
        let is_behind_the_end = self.total.is_some_and(|total| end > total);
        let is_one_too_many = self.pieces.len() >= MOST_FRAGMENTS;
        let is_good =
            !overlaps && !has_end_elsewhere && !is_behind_the_end && !is_one_too_many && end <= room;
        if is_good { Ok(()) } else { Err(Fault::Contradiction) }
    }

    fn take_in(&mut self, piece: Piece, arrival: Arrival) {
        let fragment = &piece.fragment;
        self.received += fragment.len;
        self.is_trusted |= arrival.is_trusted;
        self.is_settled |= arrival.was_handed_on;
        if fragment.is_last {
            self.total = Some(fragment.end());
        }
        self.pieces.push(piece);
    }

    /// No two pieces overlap and none goes beyond the end: all bytes are there when there are as many.
    fn is_whole(&self) -> bool {
        self.total == Some(self.received)
    }

    fn came_by_several(&self) -> bool {
        let handed_on = self.pieces.iter().filter(|piece| piece.was_handed_on).count();
        handed_on > 0 && handed_on < self.pieces.len()
    }
}
