//! Compression framing between frame and AEAD. Source: brief A.11.
//!
//! In v2 framing a plaintext stands as it is, unless its first byte is 0x50, which says that an algorithm's number
//! follows:
//!
//! ```text
//! 50 00 F    plain          50 0a F    plain, as stock OpenVPN writes it and no stock OpenVPN reads it
//! 50 01 B    one LZ4 block, without its size
//! ```
//!
//! So a frame to a MAC that begins with 0x50 must be escaped. We write `50 00`, which everybody reads, and read both.
//! We never compress: no 2.5+ server does by default and 2.7 cannot.

use lz4_flex::block::{DecompressError, decompress_into};

use super::{Framing, OpenError};

/// Length of an indicator and algorithm number.
pub(super) const ESCAPE: usize = 2;

const INDICATOR: u8 = 0x50;
const PLAIN: u8 = 0x00;
const LZ4: u8 = 0x01;
const PLAIN_AS_UPSTREAM_WRITES_IT: u8 = 0x0a;

/// What goes ahead of `frame` in the plaintext.
pub(super) fn prefix(framing: Framing, frame: &[u8]) -> &'static [u8] {
    match (framing, frame.first()) {
        (Framing::V2, Some(&INDICATOR)) => &[INDICATOR, PLAIN],
        _ => &[],
    }
}

/// Takes framing off on the way in; has the memory that decompression needs.
pub(super) struct Unframer {
    framing: Framing,
    max_frame: usize,
    /// Where blocks are decompressed: empty until the first comes, for most peers never send one, then as long as the
    /// longest frame, which bounds what a block can grow to.
    scratch: Box<[u8]>,
}

impl Unframer {
    /// `max_frame` is the longest decompressed plaintext in bytes.
    pub(super) fn new(framing: Framing, max_frame: usize) -> Self {
        Self { framing, max_frame, scratch: Box::default() }
    }

    /// Which framing is taken off, and put on by [`prefix`].
    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// Turns the plaintext in the first `len` bytes of `buffer` into the frame or message it stands for, in the same
    /// place, and returns its length.
    pub(super) fn unframe(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, OpenError> {
        let plaintext = buffer.get(..len).ok_or(OpenError::TooLong)?;
        match (self.framing, plaintext) {
            (Framing::V2, [INDICATOR, PLAIN | PLAIN_AS_UPSTREAM_WRITES_IT, ..]) => {
                buffer.copy_within(ESCAPE..len, 0);
                Ok(len - ESCAPE)
            }
            (Framing::V2, [INDICATOR, LZ4, block @ ..]) => {
                if self.scratch.is_empty() {
                    self.scratch = vec![0; self.max_frame].into_boxed_slice();
                }
                let len = decompress_into(block, &mut self.scratch).map_err(decompression_failed)?;
                let (from, to) = (self.scratch.get(..len), buffer.get_mut(..len));
                to.zip(from).map(|(to, from)| to.copy_from_slice(from)).ok_or(OpenError::TooLong)?;
                Ok(len)
            }
            (Framing::V2, [INDICATOR, ..]) => Err(OpenError::PlaintextMalformed),
            _ => Ok(len),
        }
    }
}

fn decompression_failed(error: DecompressError) -> OpenError {
    match error {
        DecompressError::OutputTooSmall { .. } => OpenError::TooLong,
        _ => OpenError::PlaintextMalformed,
    }
}

#[cfg(test)]
mod tests {
    use lz4_flex::block::compress;
    use proptest::prelude::*;

    use super::*;

    const MAX_FRAME: usize = 1514;

    fn unframe(framing: Framing, plaintext: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut buffer = vec![0xee; MAX_FRAME + ESCAPE];
        buffer[..plaintext.len()].copy_from_slice(plaintext);
        let len = Unframer::new(framing, MAX_FRAME).unframe(&mut buffer, plaintext.len())?;
        Ok(buffer[..len].to_vec())
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
        assert_eq!(prefix(Framing::None, frame), b"");
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

    proptest! {
        #[test]
        fn framed_frames_come_out_as_they_were(frame in prop::collection::vec(any::<u8>(), 1..MAX_FRAME)) {
            for first in [frame[0], INDICATOR] {
                let frame = [&[first], &frame[1..]].concat();
                let plaintext = [prefix(Framing::V2, &frame), &frame].concat();
                prop_assert_eq!(unframe(Framing::V2, &plaintext), Ok(frame));
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
}
