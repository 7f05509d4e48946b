//! Fragments over plain memory: what is cut is put together again, in any order, and nothing else is.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::{header::*, reassembly::*};
use crate::{
    drops::{Drop, DropCounters},
    ports::Frames,
};

const FRAMES: usize = 2048;
const CAPACITY: usize = 1792;
const PEER: [u8; 4] = [198, 51, 100, 11];
const GATEWAY: [u8; 4] = [10, 10, 21, 5];

/// The fragments of a packet by offset: whether more follows, and the bytes.
type Parts = BTreeMap<usize, (bool, Vec<u8>)>;

/// What a destination's kernel makes of frames: whole packets stay, fragments are put together. Written anew: the
/// gateway's own must not judge what it sends.
pub(in crate::worker) fn joined(frames: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut under_way: BTreeMap<Vec<u8>, Parts> = BTreeMap::new();
    let mut whole = Vec::new();
    for frame in frames {
        let Some(Told { key, offset, more, headers, part }) = told(&frame) else {
            whole.push(frame);
            continue;
        };
        assert!(!more || part.len() % 8 == 0, "only the last fragment may end anywhere");
        let parts = under_way.entry(key.clone()).or_default();
        parts.insert(offset, (more, part));
        let (mut datagram, mut ended) = (Vec::new(), false);
        for (offset, (more, part)) in &*parts {
            if *offset != datagram.len() {
                break;
            }
            datagram.extend_from_slice(part);
            ended = !more;
        }
        if ended {
            let mut packet = [headers, datagram].concat();
            let is_six = packet[12] == 0x86;
            let (from, at) = if is_six { (54, 18) } else { (14, 16) };
            let total = u16::try_from(packet.len() - from).unwrap();
            packet[at..at + 2].copy_from_slice(&total.to_be_bytes());
            under_way.remove(&key);
            whole.push(packet);
        }
    }
    assert!(under_way.is_empty(), "half a packet was sent");
    whole
}

/// What a fragment tells: its headers are those of the whole, but for the length.
struct Told {
    key: Vec<u8>,
    offset: usize,
    more: bool,
    headers: Vec<u8>,
    part: Vec<u8>,
}

fn told(frame: &[u8]) -> Option<Told> {
    let be16 = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    match frame.get(12..14)? {
        [0x08, 0x00] if be16(20) & 0x3fff != 0 => {
            let mut headers = frame[..34].to_vec();
            headers[20..22].fill(0);
            let key = [&frame[18..20], &frame[26..34]].concat();
            let (offset, more) = ((be16(20) & 0x1fff) * 8, be16(20) & 0x2000 != 0);
            Some(Told { key, offset, more, headers, part: frame[34..].to_vec() })
        }
        [0x86, 0xdd] if frame[20] == 44 => {
            let mut headers = frame[..54].to_vec();
            headers[20] = frame[54];
            let key = [&frame[58..62], &frame[22..54]].concat();
            let (offset, more) = (be16(56) & 0xfff8, be16(56) & 1 != 0);
            Some(Told { key, offset, more, headers, part: frame[62..].to_vec() })
        }
        _ => None,
    }
}

/// One fragment in a frame.
#[derive(Clone, Debug)]
struct Part {
    source: [u8; 4],
    identification: u16,
    offset: usize,
    more: bool,
    options: usize,
    padding: usize,
    payload: Vec<u8>,
}

impl Part {
    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + self.options];
        frame[12] = 0x08;
        frame[14] = 0x45 + u8::try_from(self.options / 4).unwrap();
        let total = u16::try_from(20 + self.options + self.payload.len()).unwrap();
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[18..20].copy_from_slice(&self.identification.to_be_bytes());
        let bits = u16::try_from(self.offset / 8).unwrap() | if self.more { 0x2000 } else { 0 };
        frame[20..22].copy_from_slice(&bits.to_be_bytes());
        frame[23] = 17;
        frame[26..30].copy_from_slice(&self.source);
        frame[30..34].copy_from_slice(&GATEWAY);
        frame.extend_from_slice(&self.payload);
        frame.resize(frame.len() + self.padding, 0xee);
        frame
    }
}

/// A datagram as fragments of `part` bytes.
fn cut(source: [u8; 4], identification: u16, datagram: &[u8], part: usize) -> Vec<Part> {
    let count = datagram.len().div_ceil(part);
    let piece = |(at, payload): (usize, &[u8])| Part {
        source,
        identification,
        offset: at * part,
        more: at + 1 < count,
        options: 0,
        padding: 0,
        payload: payload.to_vec(),
    };
    datagram.chunks(part).enumerate().map(piece).collect()
}

fn datagram(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ seed ^ (at >> 8) as u8).collect()
}

struct Bench {
    frames: Frames,
    reassembly: Reassembly,
    drops: Arc<DropCounters>,
}

impl Bench {
    fn new() -> Self {
        let (frames, drops) = (Frames::in_memory(FRAMES, CAPACITY), Arc::<DropCounters>::default());
        let reassembly = Reassembly::new(FRAMES, 7, Arc::clone(&drops));
        Self { frames, reassembly, drops }
    }

    /// The datagram, if it is whole with this.
    fn add(&mut self, part: &Part, is_trusted: bool, now_ms: u64) -> Option<Vec<u8>> {
        let bytes = part.frame();
        let mut frame = self.frames.take().unwrap();
        self.frames.room(&mut frame)[..bytes.len()].copy_from_slice(&bytes);
        self.frames.set_len(&mut frame, bytes.len());
        let fragment = parse(self.frames.bytes(&frame)).unwrap();
        let arrival = Arrival { is_trusted, now_ms, ..Arrival::default() };
        let whole = self.reassembly.add(&mut self.frames, frame, fragment, arrival);
        let bytes = whole.map(|whole| {
            let bytes = self.frames.bytes(&whole.packet).to_vec();
            self.frames.put(whole.packet);
            assert!(!is_fragment(&bytes));
            let header = usize::from(bytes[14] & 15) * 4;
            assert_eq!(usize::from(u16::from_be_bytes([bytes[16], bytes[17]])), bytes.len() - 14);
            bytes[14 + header..].to_vec()
        });
        assert_eq!(self.frames.free() + self.reassembly.held(), FRAMES, "a frame was lost or doubled");
        bytes
    }

    fn lost(&self) -> Vec<(&'static str, u64)> {
        let all = Drop::ALL.iter().map(|reason| (reason.name(), self.drops.get(*reason)));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

#[test]
fn a_pair_in_order_is_whole_with_its_second_half() {
    let mut bench = Bench::new();
    let sent = datagram(1546, 1);
    let [first, second] = &cut(PEER, 9, &sent, 1480)[..] else { panic!("a pair") };
    assert_eq!(bench.add(first, true, 0), None);
    assert_eq!(bench.reassembly.held(), 1);
    let padded = Part { padding: 13, options: 8, ..second.clone() };
    assert_eq!(bench.add(&padded, false, 1), Some(sent));
    assert_eq!((bench.reassembly.held(), bench.lost()), (0, vec![]));
}

#[test]
fn options_ahead_of_the_first_fragment_stay_and_count_towards_the_room() {
    let mut bench = Bench::new();
    let whole = |bench: &mut Bench, len: usize| {
        let sent = datagram(len, 3);
        let mut parts = cut(PEER, 9, &sent, 1480);
        parts[0].options = 40;
        let got: Vec<_> = parts.iter().filter_map(|part| bench.add(part, true, 0)).collect();
        got == [sent]
    };
    assert!(whole(&mut bench, CAPACITY - 14 - 60));
    assert!(!whole(&mut bench, CAPACITY - 14 - 59));
    assert_eq!(bench.lost(), [("fragment_malformed", 1)]);
    assert_eq!(bench.reassembly.held(), 0);
}

#[test]
fn what_does_not_become_whole_in_half_a_second_is_given_up() {
    let mut bench = Bench::new();
    let parts = cut(PEER, 9, &datagram(1546, 1), 1480);
    bench.add(&parts[0], true, 1000);
    assert!(bench.reassembly.is_sweep_due(1499));
    bench.reassembly.sweep(&mut bench.frames, 1499);
    assert_eq!(bench.reassembly.held(), 1);
    bench.reassembly.sweep(&mut bench.frames, 1500);
    assert_eq!((bench.reassembly.held(), bench.lost()), (0, vec![("fragments_incomplete", 1)]));
    // Also where nobody swept: the next datagram of that number does not get the old one's half.
    bench.add(&parts[1], true, 2000);
    assert_eq!(bench.add(&parts[0], true, 2600), None);
    assert_eq!(bench.lost(), [("fragments_incomplete", 2)]);
    assert!(!Bench::new().reassembly.is_sweep_due(u64::MAX), "nothing is held");
}

#[test]
fn a_duplicate_is_lost_alone_and_an_overlap_takes_all_with_it() {
    let sent = datagram(1546, 1);
    let parts = cut(PEER, 9, &sent, 512);
    let mut bench = Bench::new();
    for part in [&parts[0], &parts[1], &parts[1], &parts[0]] {
        assert_eq!(bench.add(part, true, 0), None);
    }
    assert_eq!(bench.add(&parts[3], true, 0), None);
    assert_eq!(bench.add(&parts[2], true, 0), Some(sent.clone()));
    assert_eq!(bench.lost(), [("replayed", 2)]);

    let overlapping = Part { offset: parts[1].offset + 8, ..parts[1].clone() };
    let shorter = Part { payload: parts[1].payload[..504].to_vec(), ..parts[1].clone() };
    let early_end = Part { more: false, ..parts[1].clone() };
    let beyond = Part { offset: 2048, ..parts[1].clone() };
    let other_end = Part { offset: 4096, ..parts[3].clone() };
    for (what, bad) in [
        ("overlapping", overlapping),
        ("shorter", shorter),
        ("early end", early_end),
        ("beyond the end", beyond),
        ("another end", other_end),
    ] {
        let mut bench = Bench::new();
        for part in [&parts[0], &parts[1], &parts[3]] {
            bench.add(part, true, 0);
        }
        assert_eq!(bench.add(&bad, true, 0), None, "{what}");
        assert_eq!((bench.reassembly.held(), bench.lost()), (0, vec![("fragment_malformed", 1)]), "{what}");
        assert_eq!(bench.add(&parts[2], true, 0), None, "{what}");
    }
}

#[test]
fn a_datagram_in_more_pieces_than_are_held_is_given_up() {
    let mut bench = Bench::new();
    let parts = cut(PEER, 9, &datagram(80, 1), 8);
    for part in &parts[..9] {
        assert_eq!(bench.add(part, true, 0), None);
    }
    assert_eq!((bench.reassembly.held(), bench.lost()), (0, vec![("fragment_malformed", 1)]));
}

#[test]
fn a_flood_of_forged_fragments_is_bounded_and_does_not_disturb_peers() {
    let mut bench = Bench::new();
    for number in 0..20_000_u16 {
        let [a, b] = number.to_be_bytes();
        let parts = cut([203, 0, a, b], number, &datagram(1546, 1), 512);
        // Of three datagrams one has a first fragment only, one a later one, and one all but one.
        let forged = [&parts[..1], &parts[2..3], &parts[..3]][usize::from(number) % 3];
        for part in forged {
            assert_eq!(bench.add(part, false, 0), None);
        }
        assert!(bench.reassembly.held() <= 256, "{}", bench.reassembly.held());
        if number % 50 == 0 {
            let sent = datagram(1546, b);
            let pair = cut(PEER, number, &sent, 1480);
            assert_eq!(bench.add(&pair[0], true, 0), None);
            assert_eq!(bench.add(&pair[1], false, 0), Some(sent));
        }
    }
    let lost: u64 = bench.lost().iter().map(|(_, count)| count).sum();
    assert!(lost > 19_000, "what was given up is counted: {:?}", bench.lost());
    bench.reassembly.sweep(&mut bench.frames, 500);
    assert_eq!((bench.reassembly.held(), bench.frames.free()), (0, FRAMES));
}

#[test]
fn a_peer_that_leaves_halves_gives_up_its_own_before_anothers() {
    let mut bench = Bench::new();
    let waiting = cut(PEER, 1, &datagram(1546, 1), 1480);
    bench.add(&waiting[0], true, 0);
    for number in 0..10_000 {
        let half = cut([198, 51, 100, 12], number, &datagram(1546, 2), 1480);
        bench.add(&half[0], true, 1);
    }
    assert!(bench.add(&waiting[1], false, 2).is_some());
}

#[test]
fn datagrams_are_spread_evenly_by_each_part_of_their_key() {
    let mapped = |address: [u8; 4]| std::net::Ipv4Addr::from(address).to_ipv6_mapped().octets();
    let by_identification =
        |n: u16| Key { source: mapped(PEER), destination: mapped(GATEWAY), identification: n.into() };
    let by_source = |n: u16| {
        let [a, b] = n.to_be_bytes();
        Key { source: mapped([10, a, b, 7]), destination: mapped(GATEWAY), identification: 5 }
    };
    let keys: [&dyn Fn(u16) -> Key; 2] = [&by_identification, &by_source];
    for key in keys {
        for seed in [0, 1, 0xdead_beef_0000_0000] {
            let mut counts = [0; 64];
            (0..6400).for_each(|n| counts[key(n).hash(seed) % 64] += 1);
            assert!(counts.iter().all(|count| (40..200).contains(count)), "{counts:?}");
        }
    }
}

#[test]
fn what_is_no_fragment_of_a_datagram_is_none() {
    let good = cut(PEER, 9, &datagram(1546, 1), 1480)[0].frame();
    assert!(parse(&good).is_some());
    for len in 0..good.len() {
        assert_eq!(parse(&good[..len]), None, "{len} bytes");
    }
    for (what, at, value) in [
        ("whole", 20, 0x00),
        ("IPv6", 14, 0x65),
        ("header of 4 words", 14, 0x44),
        ("TCP", 23, 6),
        ("ARP", 13, 6),
        ("no multiple of 8", 17, 0xdb),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(parse(&bad), None, "{what}");
    }
    let six = [
        &[0; 12][..],
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 44, 64],
        &[1; 32],
        &[17, 0, 0, 1, 0, 0, 0, 9],
        &[5; 16],
    ];
    let six = six.concat();
    let fragment = parse(&six).unwrap();
    assert_eq!((fragment.offset, fragment.len, fragment.begin, fragment.is_last), (0, 16, 62, false));
    for len in 0..six.len() {
        assert_eq!(parse(&six[..len]), None, "{len} bytes");
    }
    for (what, at, value) in [
        ("whole", 57, 0),
        ("IPv4", 14, 0x45),
        ("no fragment header", 20, 17),
        ("TCP", 54, 6),
        ("no multiple of 8", 19, 23),
        ("empty", 19, 8),
        ("shorter than its header", 19, 7),
    ] {
        let mut bad = six.clone();
        bad[at] = value;
        assert_eq!(parse(&bad), None, "{what}");
    }
    let empty = Part { payload: Vec::new(), ..cut(PEER, 9, &datagram(16, 1), 8)[0].clone() };
    assert_eq!(parse(&empty.frame()), None);
}

proptest! {
    #[test]
    fn a_datagram_is_whole_again_in_any_order_among_others(
        lens in prop::collection::vec(2_usize..1600, 1..6),
        part in (1_usize..190).prop_map(|units| units * 8),
        order in any::<u64>(),
    ) {
        let sent: Vec<_> = lens.iter().enumerate().map(|(at, len)| datagram(*len, at as u8)).collect();
        let cuts = sent.iter().enumerate().map(|(at, sent)| cut(PEER, at as u16, sent, part.max(200)));
        let mut parts: Vec<_> = cuts.filter(|parts| parts.len() > 1).flatten().collect();
        shuffle(&mut parts, order);
        let expected = sent.iter().filter(|sent| sent.len() > part.max(200)).count();
        let mut bench = Bench::new();
        let got: Vec<_> = parts.iter().filter_map(|part| bench.add(part, true, 0)).collect();
        prop_assert_eq!(got.len(), expected);
        prop_assert!(got.iter().all(|got| sent.contains(got)));
        prop_assert_eq!((bench.reassembly.held(), bench.lost()), (0, vec![]));
    }

    #[test]
    fn any_fragments_keep_the_bounds_and_every_frame(
        parts in prop::collection::vec(
            (0_u16..4, 0_usize..30, any::<bool>(), 1_usize..40, any::<bool>(), 0_u64..2000), 0..200),
    ) {
        let mut bench = Bench::new();
        for (identification, unit, more, len, is_trusted, now_ms) in parts {
            let len = if more { len * 8 } else { len };
            let payload = vec![0; len];
            if unit == 0 && !more {
                continue;
            }
            let part = Part { source: PEER, identification, offset: unit * 8, more, options: 0, padding: 0, payload };
            bench.add(&part, is_trusted, now_ms);
            prop_assert!(bench.reassembly.held() <= 4 * 8);
        }
        bench.reassembly.sweep(&mut bench.frames, 1 << 40);
        prop_assert_eq!(bench.frames.free(), FRAMES);
    }

    #[test]
    fn no_bytes_make_parsing_panic(frame in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse(&frame);
    }
}

/// Puts `parts` in an order that `seed` chooses.
fn shuffle<T>(parts: &mut [T], mut seed: u64) {
    for at in (1..parts.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        parts.swap(at, (seed >> 33) as usize % (at + 1));
    }
}
