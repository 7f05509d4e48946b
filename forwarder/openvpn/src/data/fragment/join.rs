//! Parts into frames, on the way in. Nothing a peer sends makes this hold more than [`WINDOW`] frames.

use super::{FRAGMENT_HEADER, Header, MAX_PARTS, Part, ROUND};
use crate::data::OpenError;

/// Frames that can be put together at once: parts of that many frames may arrive mixed up. (Upstream has 25.)
const WINDOW: u8 = 16;

/// Puts frames together; has the memory that takes.
pub(in crate::data) struct Joiner {
    /// Longest frame, framing included.
    capacity: usize,
    /// The highest sequence number heard, as they come round.
    newest: u8,
    /// By sequence number, modulo [`WINDOW`]; those before `newest - WINDOW` have been forgotten.
    places: [Place; WINDOW as usize],
    /// What has come of each frame, `capacity` bytes a place: empty until the first part comes.
    memory: Box<[u8]>,
}

/// What has come of one frame.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Length of all parts but the last.
    size: usize,
    /// A bit for each part that has come.
    come: u32,
    /// Once the last part has come: how many parts there are, and the length of all.
    whole: Option<(usize, usize)>,
}

impl Joiner {
    /// For frames of up to `capacity` bytes, framing included.
    pub(in crate::data) fn new(capacity: usize) -> Self {
        let places = [Place::default(); WINDOW as usize];
        Self { capacity, newest: 0, places, memory: Box::default() }
    }

    /// Takes the plaintext in the first `len` bytes of `buffer`. Returns the length of the framed frame that it makes
    /// whole, which then begins `buffer`; `None` while parts are missing.
    pub(in crate::data) fn join(
        &mut self,
        buffer: &mut [u8],
        len: usize,
    ) -> Result<Option<usize>, OpenError> {
        let header =
            buffer.first_chunk().filter(|_| len >= FRAGMENT_HEADER).and_then(|&bytes| Header::parse(bytes));
        match header.ok_or(OpenError::PlaintextMalformed)? {
            Header::Whole => {
                buffer.copy_within(FRAGMENT_HEADER..len, 0);
                Ok(Some(len - FRAGMENT_HEADER))
            }
            Header::Part(part) => {
                let bytes = buffer.get(FRAGMENT_HEADER..len).ok_or(OpenError::TooLong)?;
                let Some(whole) = self.add(part, bytes)? else { return Ok(None) };
                let to = buffer.get_mut(..whole.len()).ok_or(OpenError::TooLong)?;
                to.copy_from_slice(whole);
                Ok(Some(whole.len()))
            }
        }
    }

    /// The frame that `part` makes whole.
    fn add(&mut self, part: Part, bytes: &[u8]) -> Result<Option<&[u8]>, OpenError> {
        let size = part.size.map_or(bytes.len(), usize::from);
        if bytes.is_empty() || bytes.len() > size || !size.is_multiple_of(ROUND) {
            return Err(OpenError::PlaintextMalformed);
        }
        let index = usize::from(part.index) % MAX_PARTS;
        let (start, end) = (index * size, index * size + bytes.len());
        if end > self.capacity {
            return Err(OpenError::TooLong);
        }
        if self.memory.is_empty() {
            self.memory = vec![0; self.capacity * self.places.len()].into_boxed_slice();
        }
        let at = self.place(part.sequence);
        let place = &mut self.places[at];
        let memory = &mut self.memory[at * self.capacity..][..self.capacity];
        place.expect(index, size);
        memory[start..end].copy_from_slice(bytes);
        place.come |= 1 << index;
        if part.size.is_some() {
            place.whole = Some((index + 1, end));
        }
        Ok(place.take_whole().and_then(|len| memory.get(..len)))
    }

    /// Where the frame with that number is put together. A number beyond the window moves it, one long past begins it
    /// anew, as after an outage.
    fn place(&mut self, sequence: u8) -> usize {
        let ahead = sequence.wrapping_sub(self.newest);
        let behind = self.newest.wrapping_sub(sequence);
        if ahead >= WINDOW && behind >= WINDOW {
            self.places.fill(Place::default());
            self.newest = sequence;
        } else if ahead != 0 && ahead < WINDOW {
            for step in 1..=ahead {
                self.places[index(self.newest.wrapping_add(step))] = Place::default();
            }
            self.newest = sequence;
        }
        index(sequence)
    }
}

fn index(sequence: u8) -> usize {
    usize::from(sequence % WINDOW)
}

impl Place {
    /// Begins anew where the part `index` cannot be of the frame begun: parts of it are not as long, or this one has come
    /// already. (No packet is opened twice, so then it is of the frame 256 later, and the rest of this one is lost.)
    fn expect(&mut self, index: usize, size: usize) {
        let beyond = self.whole.is_some_and(|(parts, _)| index >= parts);
        if self.come & (1 << index) != 0 || self.size != size || beyond {
            *self = Self { size, ..Self::default() };
        }
    }

    /// The frame's length, once all of it has come; then the place is free.
    fn take_whole(&mut self) -> Option<usize> {
        let (parts, len) = self.whole?;
        let all = u32::MAX >> (MAX_PARTS - parts);
        if self.come == all {
            *self = Self::default();
            return Some(len);
        }
        // A part behind the last one: what has come is of no frame.
        if self.come & !all != 0 {
            *self = Self::default();
        }
        None
    }
}
