//! Compression framing between frame and cipher. Source: brief A.11.
//!
//! ```text
//!            plain                                          compressed
//! None       F
//! V2         F, or 50 00 F if F begins with 50              50 01 LZ4      (one block, without its size)
//! Prefixed   fa F                                           66 LZO1X
//! Swapped    fb F[1..] F[0]                                 69 B[1..] B[0], where B is one LZ4 block
//! ```
//!
//! In v2 framing a plaintext stands as it is, unless its first byte is 0x50, which says that an algorithm's number
//! follows. So a frame to a MAC that begins with 0x50 must be escaped. Stock OpenVPN writes `50 0a` there and reads only
//! `50 00`; we write `50 00`, which everybody reads, and read both.

mod compress;
mod unframe;

#[cfg(test)]
mod tests;

pub(super) use compress::Compressor;
pub(super) use unframe::Unframer;

/// Most bytes that framing adds to a frame: indicator and algorithm number of [`Framing::V2`].
pub(super) const ESCAPE: usize = 2;

/// Says that an algorithm's number follows.
const INDICATOR: u8 = 0x50;
/// Algorithm numbers.
const PLAIN: u8 = 0x00;
const LZ4: u8 = 0x01;
const PLAIN_AS_UPSTREAM_WRITES_IT: u8 = 0x0a;
/// First bytes of [`Framing::Prefixed`].
const PREFIX_PLAIN: u8 = 0xfa;
const PREFIX_LZO: u8 = 0x66;
/// First bytes of [`Framing::Swapped`].
const SWAP_PLAIN: u8 = 0xfb;
const SWAP_LZ4: u8 = 0x69;

/// How frames are framed for compression. Source: brief A.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No compression framing.
    None,
    /// `compress stub-v2`, `compress lz4-v2`: a frame stands as it is unless it begins with 0x50.
    V2,
    /// `comp-lzo` of any kind, `compress lzo`: a byte ahead of the frame.
    Prefixed,
    /// `compress`, `compress stub`, `compress lz4`: a byte in place of the frame's first, which goes behind it.
    Swapped,
}

impl Framing {
    /// Bytes added to a frame, as upstream counts them: the rare escape of [`Self::V2`] does not count.
    /// Source: mtu.c `frame_calculate_payload_overhead`.
    pub const fn overhead(self) -> u16 {
        match self {
            Self::None | Self::V2 => 0,
            Self::Prefixed | Self::Swapped => 1,
        }
    }
}

/// A plaintext to be sealed: its three parts, one behind the other. Nearly always only the body has bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plaintext<'a> {
    /// Ahead of the body: what framing adds.
    pub(super) head: &'a [u8],
    /// The frame, or most of it.
    pub(super) body: &'a [u8],
    /// Behind the body: a first byte that was swapped with framing's.
    pub(super) tail: &'a [u8],
}

impl<'a> Plaintext<'a> {
    /// `frame` in `framing`, not compressed.
    pub(super) fn plain(framing: Framing, frame: &'a [u8]) -> Self {
        let whole = |head| Self { head, body: frame, tail: &[] };
        match (framing, frame) {
            (Framing::V2, [INDICATOR, ..]) => whole(&[INDICATOR, PLAIN]),
            (Framing::None | Framing::V2, _) => whole(&[]),
            (Framing::Prefixed, _) => whole(&[PREFIX_PLAIN]),
            (Framing::Swapped, frame) => Self::swapped(&[SWAP_PLAIN], frame),
        }
    }

    /// `bytes` with their first one behind the others.
    fn swapped(head: &'a [u8], bytes: &'a [u8]) -> Self {
        let (tail, body) = bytes.split_at(bytes.len().min(1));
        Self { head, body, tail }
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }

    /// The body, if that is all there is.
    pub(super) fn whole(&self) -> Option<&'a [u8]> {
        (self.head.is_empty() && self.tail.is_empty()).then_some(self.body)
    }

    /// Writes the parts to the beginning of `out`; `None` if they do not fit, and then `out` is unspecified.
    pub(super) fn write(&self, out: &mut [u8]) -> Option<()> {
        let mut rest = out;
        for part in [self.head, self.body, self.tail] {
            let (to, behind) = rest.split_at_mut_checked(part.len())?;
            to.copy_from_slice(part);
            rest = behind;
        }
        Some(())
    }
}
