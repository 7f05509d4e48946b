//! Frames into parts, on the way out.

use super::{FRAGMENT_HEADER, Header, MAX_PARTS, Part, ROUND};
use crate::data::{SealError, framing::Plaintext};

/// Cuts plaintexts, one at a time; has the memory that takes.
pub(in crate::data) struct Cutter {
    /// Most bytes of a part.
    longest: usize,
    /// The number of the frame cut last.
    sequence: u8,
    /// The plaintext being cut, and where.
    plaintext: Box<[u8]>,
    cut: Cut,
    /// The header of the part handed out last.
    header: [u8; FRAGMENT_HEADER],
}

/// How far a plaintext has been cut. Invariant: `at <= len <= plaintext.len()`.
#[derive(Default)]
struct Cut {
    len: usize,
    at: usize,
    /// Length of all parts but the last.
    size: usize,
    index: u8,
}

impl Cutter {
    /// Plaintexts of up to `capacity` bytes, framing included, into parts of up to `longest` bytes behind a header.
    pub(in crate::data) fn new(longest: u16, capacity: usize) -> Self {
        Self {
            longest: usize::from(longest),
            sequence: 0,
            plaintext: vec![0; capacity].into_boxed_slice(),
            cut: Cut::default(),
            header: [0; FRAGMENT_HEADER],
        }
    }

    /// The first part of `plaintext`, perhaps all of it; [`Self::rest`] has the others. What was left of the plaintext
    /// before is forgotten.
    pub(in crate::data) fn cut(&mut self, plaintext: &Plaintext<'_>) -> Result<Plaintext<'_>, SealError> {
        self.cut = Cut::default();
        let len = plaintext.len();
        plaintext.write(&mut self.plaintext).ok_or(SealError::TooLong)?;
        let size = part_size(len, self.longest);
        if len > self.longest && len > size * MAX_PARTS {
            return Err(SealError::TooLong);
        }
        if len <= self.longest {
            self.header = Header::Whole.to_bytes();
            return Ok(Plaintext { head: &self.header, body: &self.plaintext[..len], tail: &[] });
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.cut = Cut { len, at: 0, size, index: 0 };
        self.rest().ok_or(SealError::TooLong)
    }

    /// True while parts are left.
    pub(in crate::data) fn has_rest(&self) -> bool {
        self.cut.at < self.cut.len
    }

    /// The next part; `None` when there are no more.
    pub(in crate::data) fn rest(&mut self) -> Option<Plaintext<'_>> {
        if !self.has_rest() {
            return None;
        }
        let Cut { len, at, size, index } = self.cut;
        let end = len.min(at + size);
        let last = (end == len).then(|| u16::try_from(size).unwrap_or(u16::MAX));
        self.header = Header::Part(Part { sequence: self.sequence, index, size: last }).to_bytes();
        self.cut = Cut { at: end, index: index.wrapping_add(1), ..self.cut };
        Some(Plaintext { head: &self.header, body: self.plaintext.get(at..end)?, tail: &[] })
    }
}

/// How long parts are: as few as can be, and the last not much shorter than the others. Zero if nothing can be sent.
/// Source: fragment.c `optimal_fragment_size`.
fn part_size(len: usize, longest: usize) -> usize {
    let most = longest / ROUND * ROUND;
    let parts = len.div_ceil(most.max(1));
    len.div_ceil(parts.max(1)).next_multiple_of(ROUND).min(most)
}
