//! Framing off, on the way in; decompression is bounded by the longest frame.

use lz4_flex::block::{DecompressError, decompress_into};

use super::{
    ESCAPE, Framing, INDICATOR, LZ4, PLAIN, PLAIN_AS_UPSTREAM_WRITES_IT, PREFIX_LZO, PREFIX_PLAIN, SWAP_LZ4,
    SWAP_PLAIN,
};
use crate::data::OpenError;

/// Takes framing off on the way in; has the memory that decompression needs.
pub(in crate::data) struct Unframer {
    framing: Framing,
    max_frame: usize,
    /// Where blocks are decompressed: empty until the first comes, for most peers never send one, then as long as the
    /// longest frame, which bounds what a block can grow to.
    scratch: Box<[u8]>,
}

impl Unframer {
    /// `max_frame` is the longest decompressed plaintext in bytes.
    pub(in crate::data) fn new(framing: Framing, max_frame: usize) -> Self {
        Self { framing, max_frame, scratch: Box::default() }
    }

    /// Which framing is taken off.
    pub(in crate::data) fn framing(&self) -> Framing {
        self.framing
    }

    /// Turns the plaintext in the first `len` bytes of `buffer` into the frame or message it stands for, in the same
    /// place, and returns its length.
    pub(in crate::data) fn unframe(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, OpenError> {
        let plaintext = buffer.get(..len).ok_or(OpenError::TooLong)?;
        match (self.framing, plaintext) {
            (Framing::None, _) => Ok(len),
            (Framing::V2, [INDICATOR, PLAIN | PLAIN_AS_UPSTREAM_WRITES_IT, ..]) => {
                buffer.copy_within(ESCAPE..len, 0);
                Ok(len - ESCAPE)
            }
            (Framing::V2, [INDICATOR, LZ4, ..]) => self.expand(buffer, ESCAPE..len, lz4),
            (Framing::V2, [first, ..]) if *first != INDICATOR => Ok(len),
            (Framing::Prefixed, [PREFIX_PLAIN, ..]) => {
                buffer.copy_within(1..len, 0);
                Ok(len - 1)
            }
            (Framing::Prefixed, [PREFIX_LZO, ..]) => self.expand(buffer, 1..len, lzo),
            (Framing::Swapped, [SWAP_PLAIN, ..]) => Ok(swap_back(buffer, len)),
            (Framing::Swapped, [SWAP_LZ4, ..]) => {
                let len = swap_back(buffer, len);
                self.expand(buffer, 0..len, lz4)
            }
            (Framing::V2 | Framing::Prefixed | Framing::Swapped, _) => Err(OpenError::PlaintextMalformed),
        }
    }

    /// Decompresses the block that stands at `block` of `buffer` to the buffer's beginning.
    fn expand(
        &mut self,
        buffer: &mut [u8],
        block: std::ops::Range<usize>,
        decompress: fn(&[u8], &mut [u8]) -> Result<usize, OpenError>,
    ) -> Result<usize, OpenError> {
        if self.scratch.is_empty() {
            self.scratch = vec![0; self.max_frame].into_boxed_slice();
        }
        let block = buffer.get(block).ok_or(OpenError::PlaintextMalformed)?;
        let len = decompress(block, &mut self.scratch)?;
        let (from, to) = (self.scratch.get(..len), buffer.get_mut(..len));
        to.zip(from).map(|(to, from)| to.copy_from_slice(from)).ok_or(OpenError::TooLong)?;
        Ok(len)
    }
}

/// Puts the last of `len` bytes, at least one, in place of the first.
fn swap_back(buffer: &mut [u8], len: usize) -> usize {
    buffer[0] = buffer[len - 1];
    len - 1
}

fn lz4(block: &[u8], out: &mut [u8]) -> Result<usize, OpenError> {
    decompress_into(block, out).map_err(|error| match error {
        DecompressError::OutputTooSmall { .. } => OpenError::TooLong,
        _ => OpenError::PlaintextMalformed,
    })
}

fn lzo(block: &[u8], out: &mut [u8]) -> Result<usize, OpenError> {
    lzokay::decompress::decompress(block, out).map_err(|error| match error {
        lzokay::Error::OutputOverrun => OpenError::TooLong,
        _ => OpenError::PlaintextMalformed,
    })
}
