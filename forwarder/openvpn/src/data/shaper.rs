//! What becomes of a frame before it is sealed, where that takes memory: compressed, cut into parts. Few peers need it.

use super::{
    Profile, SealError,
    fragment::Cutter,
    framing::{self, Compressor, Framing, Plaintext},
};

/// Compresses and cuts the frames of one peer.
pub(super) struct Shaper {
    framing: Framing,
    compressor: Option<Compressor>,
    cutter: Option<Cutter>,
}

impl Shaper {
    /// For frames of up to `max_frame` bytes; `None` where `profile` asks for neither.
    pub(super) fn new(profile: Profile, max_frame: usize) -> Option<Self> {
        let Profile { framing, compresses, fragment, .. } = profile;
        let compressor = if compresses { Compressor::new(framing, max_frame) } else { None };
        let cutter = fragment.map(|longest| Cutter::new(longest, max_frame + framing::ESCAPE));
        let needed = compressor.is_some() || cutter.is_some();
        needed.then_some(Self { framing, compressor, cutter })
    }

    /// What to seal of `frame` first: all of it, unless [`Self::has_rest`].
    pub(super) fn shape<'a>(&'a mut self, frame: &'a [u8]) -> Result<Plaintext<'a>, SealError> {
        let plaintext = match &mut self.compressor {
            Some(compressor) => compressor.compress(frame),
            None => Plaintext::plain(self.framing, frame),
        };
        match &mut self.cutter {
            Some(cutter) => cutter.cut(&plaintext),
            None => Ok(plaintext),
        }
    }

    /// True while more of the last frame is to be sealed.
    pub(super) fn has_rest(&self) -> bool {
        self.cutter.as_ref().is_some_and(Cutter::has_rest)
    }

    /// What to seal next of the last frame; `None` when all of it has been.
    pub(super) fn rest(&mut self) -> Option<Plaintext<'_>> {
        self.cutter.as_mut()?.rest()
    }
}
