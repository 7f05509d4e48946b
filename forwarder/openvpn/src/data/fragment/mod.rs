//! `fragment`: frames cut into several packets, and put together again. Source: brief A.13; upstream's fragment.h.
//!
//! Every plaintext begins with a header; what is cut is the framed, perhaps compressed frame:
//!
//! ```text
//!  bit 31                29     15        10           2      0
//!  ├ 0 ┼ size / 4, if last ─────┼─ index ──┼─ sequence ─┼─ kind ┤     kind: 0 whole, 1 not the last, 2 the last
//! ```
//! All parts but the last are equally long, a multiple of four bytes; the last one says how long they are, so that its
//! place is known wherever it comes. A frame has at most 32 parts.

mod cut;
mod join;
#[cfg(test)]
mod tests;

pub(super) use cut::Cutter;
pub(super) use join::Joiner;

use super::FRAGMENT_HEADER;

/// Most parts of a frame.
const MAX_PARTS: usize = 32;
/// Sizes of parts are multiples of this.
const ROUND: usize = 4;

const KIND_MASK: u32 = 0x3;
const SEQUENCE_SHIFT: u32 = 2;
const INDEX_SHIFT: u32 = 10;
const INDEX_MASK: u32 = 0x1f;
const SIZE_SHIFT: u32 = 15;
const SIZE_MASK: u32 = 0x3fff;
const WHOLE: u32 = 0;
const NOT_LAST: u32 = 1;
const LAST: u32 = 2;

/// What stands ahead of a plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    /// All of a frame follows.
    Whole,
    /// A part of one follows.
    Part(Part),
}

/// Which part of which frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// The frame's number, which comes round.
    sequence: u8,
    /// The part's number, from 0, at most 31.
    index: u8,
    /// Set on the last part: the length of each of the others, a multiple of four bytes.
    size: Option<u16>,
}

impl Header {
    /// `None` for kinds nobody sends, and for a whole frame that says it is part of one.
    fn parse(bytes: [u8; FRAGMENT_HEADER]) -> Option<Self> {
        let bits = u32::from_be_bytes(bytes);
        let size = ((bits >> SIZE_SHIFT) & SIZE_MASK) as u16 * ROUND as u16;
        let part = |size| {
            let [_, _, _, sequence] = (bits >> SEQUENCE_SHIFT).to_be_bytes();
            let [_, _, _, index] = ((bits >> INDEX_SHIFT) & INDEX_MASK).to_be_bytes();
            Some(Self::Part(Part { sequence, index, size }))
        };
        match bits & KIND_MASK {
            WHOLE => (bits & ((1 << SIZE_SHIFT) - 1) == 0).then_some(Self::Whole),
            NOT_LAST => part(None),
            LAST => part(Some(size)),
            _ => None,
        }
    }

    fn to_bytes(self) -> [u8; FRAGMENT_HEADER] {
        let bits = match self {
            Self::Whole => WHOLE,
            Self::Part(Part { sequence, index, size }) => {
                let kind = if size.is_some() { LAST } else { NOT_LAST };
                let size = u32::from(size.unwrap_or(0)) / ROUND as u32;
                kind | u32::from(sequence) << SEQUENCE_SHIFT
                    | (u32::from(index) & INDEX_MASK) << INDEX_SHIFT
                    | (size & SIZE_MASK) << SIZE_SHIFT
            }
        };
        bits.to_be_bytes()
    }
}
