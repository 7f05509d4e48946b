//! Framing on and off.

use lz4_flex::block::compress;
use proptest::prelude::*;

use super::*;
use crate::data::OpenError;

const MAX_FRAME: usize = 1514;

fn unframe(framing: Framing, plaintext: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut buffer = vec![0xee; MAX_FRAME + ESCAPE];
    buffer[..plaintext.len()].copy_from_slice(plaintext);
    let len = Unframer::new(framing, MAX_FRAME).unframe(&mut buffer, plaintext.len())?;
    Ok(buffer[..len].to_vec())
}

fn framed(framing: Framing, frame: &[u8]) -> Vec<u8> {
    let plaintext = Plaintext::plain(framing, frame);
    let mut out = vec![0; plaintext.len()];
    plaintext.write(&mut out).unwrap();
    out
}

fn lz4(plain: &[u8]) -> Vec<u8> {
    [&[INDICATOR, LZ4], &compress(plain)[..]].concat()
}

#[test]
fn both_spellings_of_plain_are_read() {
    for escape in [[0x50, 0x00], [0x50, 0x0a]] {
        let frame = b"\x50\x01\x02\x03\x04\x05 and so on";
        assert_eq!(unframe(Framing::V2, &[&escape[..], frame].concat()).unwrap(), frame);
    }
}

#[test]
fn an_unknown_algorithm_is_no_frame() {
    for algorithm in (0x02..=u8::MAX).filter(|&algorithm| algorithm != 0x0a) {
        let plaintext = [&[0x50, algorithm][..], &[7; 60]].concat();
        assert_eq!(unframe(Framing::V2, &plaintext), Err(OpenError::PlaintextMalformed));
    }
    assert_eq!(unframe(Framing::V2, &[0x50]), Err(OpenError::PlaintextMalformed));
}

#[test]
fn without_framing_0x50_is_an_address() {
    let frame = b"\x50\x01\x02\x03\x04\x05 and so on";
    assert_eq!(framed(Framing::None, frame), frame);
    assert_eq!(unframe(Framing::None, frame).unwrap(), frame);
}

#[test]
fn a_block_may_grow_to_the_longest_frame_and_no_further() {
    assert_eq!(unframe(Framing::V2, &lz4(&[9; MAX_FRAME])).unwrap(), [9; MAX_FRAME]);
    assert_eq!(unframe(Framing::V2, &lz4(&[9; MAX_FRAME + 1])), Err(OpenError::TooLong));
}

#[test]
fn a_bomb_of_a_block_is_too_long() {
    let bomb = lz4(&vec![0; 300_000]);
    assert!(bomb.len() < MAX_FRAME);
    assert_eq!(unframe(Framing::V2, &bomb), Err(OpenError::TooLong));
}

#[test]
fn a_block_that_is_none_is_no_frame() {
    for block in [&b""[..], b"\xff", b"\x0f\x00\x00", b"\x1fa\xff\xff\x00"] {
        let plaintext = [&[INDICATOR, LZ4], block].concat();
        assert_eq!(unframe(Framing::V2, &plaintext), Err(OpenError::PlaintextMalformed), "{block:x?}");
    }
}

#[test]
fn prefixed_frames_and_swapped_ones_are_on_the_wire_as_upstream_has_them() {
    let frame = b"\x02\x03\x04 and so on";
    assert_eq!(framed(Framing::Prefixed, frame), b"\xfa\x02\x03\x04 and so on");
    assert_eq!(framed(Framing::Swapped, frame), b"\xfb\x03\x04 and so on\x02");
    assert_eq!(framed(Framing::Swapped, b"x"), b"\xfbx");
    assert_eq!(unframe(Framing::Swapped, b"\xfb"), Ok(Vec::new()));
}

#[test]
fn compressed_blocks_of_both_older_framings_are_read() {
    let frame = [7; 1000];
    let block = compress(&frame);
    let swapped = [&[SWAP_LZ4], &block[1..], &block[..1]].concat();
    assert_eq!(unframe(Framing::Swapped, &swapped).unwrap(), frame);
    // One literal, a match of 999 bytes right behind it, the end: as LZO1X writes 1000 equal bytes.
    let mut lzo = vec![PREFIX_LZO, 18, 7, 0x20, 0, 0, 0, 224, 0, 0, 0x11, 0, 0];
    assert_eq!(unframe(Framing::Prefixed, &lzo).map(|frame| frame.len()), Ok(1 + 2 + 31 + 3 * 255 + 224));
    for cut in 1..lzo.len() {
        assert_eq!(unframe(Framing::Prefixed, &lzo[..cut]), Err(OpenError::PlaintextMalformed), "{cut}");
    }
    lzo[4..7].fill(0);
    lzo.splice(4..4, [0; 9]);
    assert_eq!(unframe(Framing::Prefixed, &lzo), Err(OpenError::TooLong));
}

#[test]
fn a_first_byte_of_another_framing_is_no_frame() {
    for (framing, known) in
        [(Framing::Prefixed, [PREFIX_PLAIN, PREFIX_LZO]), (Framing::Swapped, [SWAP_PLAIN, SWAP_LZ4])]
    {
        for first in (0..=u8::MAX).filter(|first| !known.contains(first)) {
            let plaintext = [&[first][..], &[2; 60]].concat();
            assert_eq!(unframe(framing, &plaintext), Err(OpenError::PlaintextMalformed), "{first:x}");
        }
    }
}

proptest! {
    #[test]
    fn framed_frames_come_out_as_they_were(frame in prop::collection::vec(any::<u8>(), 1..MAX_FRAME)) {
        for framing in [Framing::None, Framing::V2, Framing::Prefixed, Framing::Swapped] {
            for first in [frame[0], INDICATOR, PREFIX_PLAIN, SWAP_PLAIN] {
                let frame = [&[first], &frame[1..]].concat();
                prop_assert_eq!(unframe(framing, &framed(framing, &frame)), Ok(frame));
            }
        }
    }

    #[test]
    fn compressed_frames_come_out_as_they_were(pattern in prop::collection::vec(any::<u8>(), 1..99)) {
        let frame: Vec<u8> = pattern.iter().copied().cycle().take(1400).collect();
        prop_assert_eq!(unframe(Framing::V2, &lz4(&frame)), Ok(frame));
    }

    #[test]
    fn any_block_decompresses_within_bounds_or_not_at_all(block in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(out) = unframe(Framing::V2, &[&[INDICATOR, LZ4], &block[..]].concat()) {
            prop_assert!(out.len() <= MAX_FRAME);
        }
    }
}
