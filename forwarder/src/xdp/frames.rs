//! The memory frames live in. (Signatures agreed; bodies to come.)

/// One chunk of a worker's memory with a frame in it: a token that is moved, never copied, and given back.
#[derive(Debug)]
#[must_use = "a frame that is dropped is memory lost: give it back with Frames::put"]
pub struct Frame {
    index: u32,
    len: u32,
}

impl Frame {
    /// Length of the frame in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Which chunk it is.
    pub fn index(&self) -> usize {
        self.index as usize
    }
}

/// A worker's memory: a UMEM shared with the kernel, or plain memory.
#[derive(Debug)]
pub struct Frames {
    free: Vec<Frame>,
}

impl Frames {
    /// Plain memory for `count` frames of up to `capacity` bytes: no privileges needed.
    pub fn in_memory(_count: usize, _capacity: usize) -> Self {
        todo!()
    }

    /// A free frame of length 0, contents unspecified.
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Gives a frame back.
    pub fn put(&mut self, frame: Frame) {
        self.free.push(frame);
    }

    /// The frame's bytes.
    pub fn bytes<'a>(&'a self, _frame: &'a Frame) -> &'a [u8] {
        todo!()
    }

    /// The whole chunk, to write a frame into; follow with [`Frames::set_len`].
    pub fn room<'a>(&'a self, _frame: &'a mut Frame) -> &'a mut [u8] {
        todo!()
    }

    /// Says how long the frame is, at most [`Frames::capacity`].
    pub fn set_len(&self, _frame: &mut Frame, _len: usize) {
        todo!()
    }

    /// Longest frame a chunk holds, in bytes.
    pub fn capacity(&self) -> usize {
        todo!()
    }

    /// Chunks not in use.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// All chunks.
    pub fn total(&self) -> usize {
        todo!()
    }
}
