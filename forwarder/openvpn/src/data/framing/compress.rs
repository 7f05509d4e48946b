//! Frames compressed, on the way out: only where the configuration asks for it. Source: comp-lz4.c.

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::{Framing, INDICATOR, LZ4, Plaintext, SWAP_LZ4};

/// Shorter frames are not worth it. Source: comp.h `COMPRESS_THRESHOLD`.
const THRESHOLD: usize = 100;

/// Compresses frames, one at a time; has the memory that takes.
pub(in crate::data) struct Compressor {
    framing: Framing,
    table: CompressTable,
    block: Box<[u8]>,
}

impl Compressor {
    /// For frames of up to `max_frame` bytes. `None` for a framing without LZ4.
    pub(in crate::data) fn new(framing: Framing, max_frame: usize) -> Option<Self> {
        let block = || vec![0; get_maximum_output_size(max_frame)].into_boxed_slice();
        match framing {
            Framing::V2 | Framing::Swapped => {
                Some(Self { framing, table: CompressTable::small(), block: block() })
            }
            Framing::None | Framing::Prefixed => None,
        }
    }

    /// `frame` in its framing, compressed if that makes it shorter.
    pub(in crate::data) fn compress<'a>(&'a mut self, frame: &'a [u8]) -> Plaintext<'a> {
        let head: &[u8] = if self.framing == Framing::Swapped { &[SWAP_LZ4] } else { &[INDICATOR, LZ4] };
        match self.block_of(frame) {
            // The byte that is swapped is one more in plain frames, too.
            Some(len) if self.framing == Framing::Swapped && len < frame.len() => {
                Plaintext::swapped(head, &self.block[..len])
            }
            Some(len) if self.framing == Framing::V2 && len + head.len() < frame.len() => {
                Plaintext { head, body: &self.block[..len], tail: &[] }
            }
            _ => Plaintext::plain(self.framing, frame),
        }
    }

    /// The length of the block that `frame` becomes; `None` if it is too short or too long.
    fn block_of(&mut self, frame: &[u8]) -> Option<usize> {
        if frame.len() < THRESHOLD || get_maximum_output_size(frame.len()) > self.block.len() {
            return None;
        }
        compress_into_with_table(frame, &mut self.block, &mut self.table).ok()
    }
}
