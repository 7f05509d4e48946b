//! Cutting and joining.

use proptest::prelude::*;

use super::*;
use crate::data::{OpenError, SealError, framing::Plaintext};

const CAPACITY: usize = 1520;

fn bytes(plaintext: Plaintext<'_>) -> Vec<u8> {
    [plaintext.head, plaintext.body, plaintext.tail].concat()
}

fn parts(cutter: &mut Cutter, frame: &[u8]) -> Vec<Vec<u8>> {
    let whole = Plaintext { head: &[], body: frame, tail: &[] };
    let mut parts = vec![bytes(cutter.cut(&whole).unwrap())];
    while let Some(part) = cutter.rest() {
        parts.push(bytes(part));
    }
    parts
}

fn join(joiner: &mut Joiner, part: &[u8]) -> Result<Option<Vec<u8>>, OpenError> {
    let mut buffer = vec![0xee; 2048];
    buffer[..part.len()].copy_from_slice(part);
    Ok(joiner.join(&mut buffer, part.len())?.map(|len| buffer[..len].to_vec()))
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect()
}

#[test]
fn headers_are_those_of_upstream() {
    assert_eq!(Header::Whole.to_bytes(), [0; 4]);
    let first = Header::Part(Part { sequence: 0x81, index: 0, size: None });
    assert_eq!(first.to_bytes(), (1_u32 | 0x81 << 2).to_be_bytes());
    let last = Header::Part(Part { sequence: 0x81, index: 1, size: Some(760) });
    assert_eq!(last.to_bytes(), (2_u32 | 0x81 << 2 | 1 << 10 | 190 << 15).to_be_bytes());
    for header in [Header::Whole, first, last] {
        assert_eq!(Header::parse(header.to_bytes()), Some(header));
    }
    assert_eq!(Header::parse([0, 0, 0, 3]), None);
    assert_eq!(Header::parse([0, 0, 0, 4]), None, "a whole frame has no sequence");
}

#[test]
fn a_frame_that_fits_stays_whole() {
    let mut cutter = Cutter::new(1000, CAPACITY);
    assert_eq!(parts(&mut cutter, &[7; 1000]), [[&[0; 4][..], &[7; 1000]].concat()]);
    assert!(!cutter.has_rest());
}

#[test]
fn parts_are_about_equally_long() {
    let mut cutter = Cutter::new(1172, CAPACITY);
    let lengths: Vec<usize> = parts(&mut cutter, &[7; 1514]).iter().map(Vec::len).collect();
    assert_eq!(lengths, [760 + 4, 754 + 4]);
}

#[test]
fn what_takes_more_than_32_parts_is_too_long() {
    for (longest, len) in [(40, 1281), (0, 60), (3, 60)] {
        let mut cutter = Cutter::new(longest, CAPACITY);
        let frame = vec![0; len];
        let whole = Plaintext { head: &[], body: &frame, tail: &[] };
        assert_eq!(cutter.cut(&whole).err(), Some(SealError::TooLong), "{longest}");
        assert!(!cutter.has_rest());
    }
    let mut cutter = Cutter::new(40, CAPACITY);
    let (mut joiner, frame) = (Joiner::new(CAPACITY), frame(1280, 1));
    let joined = parts(&mut cutter, &frame).iter().filter_map(|part| join(&mut joiner, part).unwrap()).next();
    assert_eq!(joined, Some(frame));
}

#[test]
fn parts_of_a_frame_that_never_ends_are_forgotten() {
    let (mut cutter, mut joiner) = (Cutter::new(400, CAPACITY), Joiner::new(CAPACITY));
    let begun = parts(&mut cutter, &frame(1000, 1));
    assert_eq!(join(&mut joiner, &begun[0]), Ok(None));
    for seed in 0..16 {
        let next = frame(1000, seed);
        let joined: Vec<_> = parts(&mut cutter, &next).iter().map(|part| join(&mut joiner, part)).collect();
        assert_eq!(joined, [Ok(None), Ok(None), Ok(Some(next))]);
    }
    assert_eq!(join(&mut joiner, &begun[1]), Ok(None));
    assert_eq!(join(&mut joiner, &begun[2]), Ok(None), "its first part is forgotten");
}

#[test]
fn a_part_that_comes_again_is_of_another_frame() {
    let (mut cutter, mut joiner) = (Cutter::new(800, CAPACITY), Joiner::new(CAPACITY));
    let old = parts(&mut cutter, &frame(1500, 1));
    // 255 further frames are lost.
    let mut cutter = Cutter::new(800, CAPACITY);
    let new = parts(&mut cutter, &frame(1500, 2));
    assert_eq!(join(&mut joiner, &old[0]), Ok(None));
    assert_eq!(join(&mut joiner, &new[0]), Ok(None));
    assert_eq!(join(&mut joiner, &new[1]), Ok(Some(frame(1500, 2))));
}

#[test]
fn parts_that_cannot_be_are_refused() {
    let mut joiner = Joiner::new(CAPACITY);
    let part = |index, size, body: &[u8]| {
        [&Header::Part(Part { sequence: 1, index, size }).to_bytes()[..], body].concat()
    };
    assert_eq!(join(&mut joiner, &[0; 3]), Err(OpenError::PlaintextMalformed));
    assert_eq!(join(&mut joiner, &part(0, None, b"")), Err(OpenError::PlaintextMalformed));
    assert_eq!(join(&mut joiner, &part(0, None, b"12345")), Err(OpenError::PlaintextMalformed));
    assert_eq!(join(&mut joiner, &part(0, Some(0), b"")), Err(OpenError::PlaintextMalformed));
    assert_eq!(join(&mut joiner, &part(1, Some(4), b"12345")), Err(OpenError::PlaintextMalformed));
    assert_eq!(join(&mut joiner, &part(31, None, &[0; 1000])), Err(OpenError::TooLong));
    assert_eq!(join(&mut joiner, &part(31, Some(65_532), &[0; 8])), Err(OpenError::TooLong));
}

proptest! {
    #[test]
    fn frames_come_out_as_they_were_in_any_order(
        longest in 52_u16..1600, len in 1_usize..CAPACITY, order in any::<u64>(),
    ) {
        let (mut cutter, mut joiner) = (Cutter::new(longest, CAPACITY), Joiner::new(CAPACITY));
        let frames: Vec<_> = (0..8).map(|seed| frame(len, seed)).collect();
        let mut mixed: Vec<_> = frames.iter().flat_map(|frame| parts(&mut cutter, frame)).collect();
        for part in &mixed {
            prop_assert!(part.len() <= usize::from(longest) + FRAGMENT_HEADER);
        }
        let mut state = order;
        for at in (1..mixed.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            mixed.swap(at, (state >> 33) as usize % (at + 1));
        }
        let mut joined: Vec<_> = mixed.iter().filter_map(|part| join(&mut joiner, part).unwrap()).collect();
        joined.sort_by_key(|frame| frame[0]);
        let mut expected = frames;
        expected.sort_by_key(|frame| frame[0]);
        prop_assert_eq!(joined, expected);
    }

    #[test]
    fn no_parts_make_a_frame_longer_than_the_longest(
        packets in prop::collection::vec((0_u8..4, 0_u8..2, 0_u16..500, prop::collection::vec(any::<u8>(), 0..90)), 0..60),
    ) {
        let mut joiner = Joiner::new(300);
        for (index, last, size, body) in packets {
            let size = (last == 1).then_some(size / 4 * 4);
            let part = [&Header::Part(Part { sequence: 1, index, size }).to_bytes()[..], &body].concat();
            if let Ok(Some(frame)) = join(&mut joiner, &part) {
                prop_assert!(frame.len() <= 300);
            }
        }
    }
}
