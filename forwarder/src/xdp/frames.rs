//! The memory frames live in.
//!
//! A worker has one [`Frames`]: a UMEM that its AF_XDP sockets share with the kernel, or plain memory where there are
//! none. It is cut into chunks of one size, and a [`Frame`] is the token for one chunk: whoever holds it may touch the
//! chunk, nobody else. Tokens are moved, never copied, so at any time
//!
//! ```text
//!   free + held by the worker + held inside its ports == total
//! ```
//!
//! ```text
//!   chunk of a UMEM    │ 256 bytes of XDP headroom │ capacity: the frame begins here │
//!   chunk of memory    │ capacity │
//! ```

use std::{
    io,
    num::NonZeroU32,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU32, Ordering},
};

use xsk_rs::{
    FrameDesc, Umem,
    config::{FrameSize, UmemConfig, UmemConfigBuilderError},
};

use super::xsk::RING;
use crate::switch::WireId;

/// Smallest chunk the kernel takes (`XDP_UMEM_MIN_CHUNK_SIZE`): holds frames up to 1792 bytes, enough for an MTU of
/// 1500 and a VLAN tag or two.
pub const SMALL_CHUNK_BYTES: u32 = 2048;
/// Largest chunk the kernel takes, one page: holds frames up to 3840 bytes.
pub const LARGE_CHUNK_BYTES: u32 = 4096;
/// Room XDP keeps ahead of each frame (`XDP_PACKET_HEADROOM` in `include/uapi/linux/bpf.h`).
pub const XDP_HEADROOM_BYTES: u32 = 256;
/// Ethernet header and two VLAN tags: what a frame may be longer than its NIC's MTU.
const LINK_HEADER_BYTES: u32 = 22;

/// Chunks of plain memory begin on a cache line.
const CACHE_LINE: usize = 64;
/// Lines that headers take: 66 bytes of a tunnel packet, fewer of others. (A UMEM's chunks begin on a line, too.)
const HEAD_LINES: usize = 2;

/// The chunk size for a NIC of that MTU: the smaller one if it does.
pub fn chunk_bytes_for(mtu: u32) -> u32 {
    let frame = mtu.saturating_add(LINK_HEADER_BYTES);
    if frame <= SMALL_CHUNK_BYTES - XDP_HEADROOM_BYTES { SMALL_CHUNK_BYTES } else { LARGE_CHUNK_BYTES }
}

/// One chunk of a worker's memory with a frame in it: a token that is moved, never copied, and given back.
#[derive(Debug)]
#[must_use = "a frame that is dropped is memory lost: give it back with Frames::put"]
pub struct Frame {
    /// Invariant: `index < total` of the [`Frames`] it belongs to, and no other token has it.
    index: u32,
    /// Invariant: `len <= capacity`.
    len: u32,
    /// Which [`Frames`] it belongs to.
    home: u32,
    /// The NIC it came by, or is to leave by. The uplink unless somebody says otherwise.
    wire: WireId,
}

impl Frame {
    /// Length of the frame in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// The NIC it came by, or is to leave by.
    pub fn wire(&self) -> WireId {
        self.wire
    }

    /// Says by which NIC it came, or is to leave.
    pub fn set_wire(&mut self, wire: WireId) {
        self.wire = wire;
    }

    /// Which chunk it is.
    pub fn index(&self) -> usize {
        self.index as usize
    }
}

/// Why there is no memory to share with a NIC.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    /// Of no size the kernel takes.
    #[error("chunks of {0} bytes cannot be shared with a NIC: it takes 2048 or 4096")]
    ChunkSize(u32),
    /// None asked for.
    #[error("memory for no frames at all cannot be shared with a NIC: ask for at least one")]
    NoFrames,
    /// The kernel refuses.
    #[error("the kernel does not share {bytes} bytes of memory for AF_XDP ({source}): {cure}")]
    Refused {
        /// How much was asked for.
        bytes: u64,
        /// What to do.
        cure: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A worker's memory: a UMEM shared with the kernel, or plain memory.
#[derive(Debug)]
pub struct Frames {
    free: Vec<Frame>,
    /// Where each chunk's frame begins. Invariant: valid for `capacity` bytes for as long as `memory` lives, and no
    /// two overlap.
    chunks: Box<[NonNull<u8>]>,
    capacity: usize,
    home: u32,
    memory: Memory,
}

/// Keeps the chunks alive.
#[derive(Debug)]
enum Memory {
    Umem(UmemMemory),
    Plain(#[expect(dead_code, reason = "held for its Drop")] Plain),
}

#[derive(Debug)]
struct UmemMemory {
    umem: Umem,
    /// By chunk: xsk-rs lets nobody make a descriptor, so those it gave are kept. Their length is 0.
    templates: Box<[FrameDesc]>,
    chunk_bytes: usize,
}

// SAFETY: the pointers in `chunks` are to memory that `memory` owns and that moves with it; nothing is tied to a thread.
// (`Frames` is not `Sync`: `NonNull` sees to that, and nothing here says otherwise.)
unsafe impl Send for Frames {}

impl Frames {
    /// Plain memory for `count` frames of up to `capacity` bytes: no privileges needed.
    pub fn in_memory(count: usize, capacity: usize) -> Self {
        let count = count.min(u32::MAX as usize);
        let stride = capacity.next_multiple_of(CACHE_LINE).max(CACHE_LINE);
        let plain = Plain::new(count * stride);
        let chunks = (0..count).map(|index| plain.at(index * stride)).collect();
        Self::new(chunks, capacity, Memory::Plain(plain))
    }

    /// Memory for `count` frames in chunks of `chunk_bytes` (2048 or 4096), to be shared with the kernel by the AF_XDP
    /// sockets that [`super::xsk::Rings::open`] binds to it. Huge pages must have been reserved (`vm.nr_hugepages`).
    ///
    /// # Errors
    /// See [`FramesError`].
    pub fn for_nic(count: u32, chunk_bytes: u32, huge_pages: bool) -> Result<Self, FramesError> {
        let count = NonZeroU32::new(count).ok_or(FramesError::NoFrames)?;
        let config = umem_config(chunk_bytes)?;
        let bytes = u64::from(count.get()) * u64::from(chunk_bytes);
        let (umem, mut templates) =
            Umem::new(config, count, huge_pages).map_err(|error| refused(bytes, huge_pages, &error))?;
        let chunks = templates.iter_mut().map(|desc| chunk_of(&umem, desc)).collect();
        let capacity = (chunk_bytes - XDP_HEADROOM_BYTES) as usize;
        let templates = templates.into_boxed_slice();
        let memory = UmemMemory { umem, templates, chunk_bytes: chunk_bytes as usize };
        Ok(Self::new(chunks, capacity, Memory::Umem(memory)))
    }

    fn new(chunks: Box<[NonNull<u8>]>, capacity: usize, memory: Memory) -> Self {
        static HOMES: AtomicU32 = AtomicU32::new(0);
        let home = HOMES.fetch_add(1, Ordering::Relaxed);
        // The first chunks are taken first, and again and again: they stay in the cache.
        let free = (0..chunks.len() as u32)
            .rev()
            .map(|index| Frame { index, len: 0, home, wire: WireId::UPLINK })
            .collect();
        Self { free, chunks, capacity, home, memory }
    }

    /// A free frame of length 0, contents unspecified.
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// A free frame with `bytes` in it; `None` without a free one, or if they do not fit.
    pub fn take_with(&mut self, bytes: &[u8]) -> Option<Frame> {
        if bytes.len() > self.capacity {
            return None;
        }
        let mut frame = self.take()?;
        self.room(&mut frame)[..bytes.len()].copy_from_slice(bytes);
        self.set_len(&mut frame, bytes.len());
        Some(frame)
    }

    /// Gives a frame back.
    pub fn put(&mut self, mut frame: Frame) {
        debug_assert_eq!(frame.home, self.home, "a frame is given back where it was taken");
        if frame.home == self.home {
            frame.len = 0;
            frame.wire = WireId::UPLINK;
            self.free.push(frame);
        }
    }

    /// The frame's bytes. (None for a frame of another [`Frames`].)
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let Some(start) = self.start(frame) else { return &[] };
        // SAFETY: `start` is valid for `capacity >= len` bytes while `self` lives (invariants of `chunks` and `Frame`),
        // which were initialised when the memory was made. The borrow of the only token for this chunk keeps `room`
        // away, and the kernel writes only to chunks whose token a port has swallowed.
        unsafe { slice::from_raw_parts(start.as_ptr(), frame.len()) }
    }

    /// The whole chunk from the frame's first byte on, to write a frame into or to change one; follow with
    /// [`Frames::set_len`]. (Nothing for a frame of another [`Frames`].)
    pub fn room<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let Some(start) = self.start(frame) else { return &mut [] };
        // SAFETY: as in `bytes`; the token is borrowed mutably, so there is no other slice of this chunk.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), self.capacity) }
    }

    /// Has the CPU fetch the frame's first bytes, where its headers are: what a NIC, or another CPU, has written is in
    /// no cache of this one's. Changes nothing but time.
    pub fn prefetch_head(&self, frame: &Frame) {
        self.prefetch(frame, HEAD_LINES);
    }

    /// The same for all of the frame, which is to be read next.
    pub fn prefetch_all(&self, frame: &Frame) {
        self.prefetch(frame, frame.len().div_ceil(CACHE_LINE));
    }

    fn prefetch(&self, frame: &Frame, lines: usize) {
        let Some(start) = self.start(frame) else { return };
        for line in 0..lines.min(self.capacity / CACHE_LINE) {
            fetch(start.as_ptr().wrapping_add(line * CACHE_LINE));
        }
    }

    /// Says how long the frame is, at most [`Frames::capacity`].
    pub fn set_len(&self, frame: &mut Frame, len: usize) {
        debug_assert!(len <= self.capacity, "{len} bytes do not fit a chunk of {}", self.capacity);
        frame.len = len.min(self.capacity) as u32;
    }

    /// Longest frame a chunk holds, in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Chunks not in use.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// All chunks.
    pub fn total(&self) -> usize {
        self.chunks.len()
    }

    /// Where the frame's chunk begins; `None` for a frame of another [`Frames`], whose index means nothing here.
    fn start(&self, frame: &Frame) -> Option<NonNull<u8>> {
        debug_assert_eq!(frame.home, self.home, "a frame is used where it was taken");
        if frame.home == self.home { self.chunks.get(frame.index()).copied() } else { None }
    }
}

/// For the rings in [`super::xsk`].
impl Frames {
    /// The memory as xsk-rs knows it; `None` if it is plain.
    pub(super) fn umem(&self) -> Option<&Umem> {
        match &self.memory {
            Memory::Umem(memory) => Some(&memory.umem),
            Memory::Plain(_) => None,
        }
    }

    /// Which memory this is, different for each.
    pub(super) fn home(&self) -> u32 {
        self.home
    }

    /// Turns a token into the descriptor to hand to the kernel. `None`, and the token is gone, if it is of other memory.
    pub(super) fn lend(&self, frame: Frame) -> Option<FrameDesc> {
        let Memory::Umem(memory) = &self.memory else { return None };
        if frame.home != self.home {
            return None;
        }
        let mut desc = *memory.templates.get(frame.index())?;
        // SAFETY: the descriptor is of this UMEM, and we hold the only token for its chunk. The slice made here is gone
        // at the end of the statement; only the length in the descriptor stays.
        unsafe { memory.umem.data_mut(&mut desc) }.cursor().set_pos(frame.len());
        Some(desc)
    }

    /// Turns a descriptor that came back from the kernel into its token again.
    ///
    /// A frame that does not begin where the chunk's room does (an XDP program has moved it) is moved there.
    ///
    /// # Safety
    /// `desc` was [lent](Self::lend) from these `Frames`, and has come back once since.
    pub(super) unsafe fn take_back(&self, mut desc: FrameDesc) -> Option<Frame> {
        let Memory::Umem(memory) = &self.memory else { return None };
        let index = desc.addr() / memory.chunk_bytes;
        let template = memory.templates.get(index)?;
        let len = desc.lengths().data().min(self.capacity);
        if len != 0 && desc.addr() != template.addr() {
            let start = self.chunks.get(index)?;
            // SAFETY: the caller vouches that the kernel is done with the chunk and no token for it exists, so both
            // places are ours; the source is bounded by the slice, the target by `capacity`. They may overlap.
            unsafe {
                let source = memory.umem.data_mut(&mut desc);
                let source = source.contents();
                let len = len.min(source.len());
                source.as_ptr().copy_to(start.as_ptr(), len);
            }
        }
        Some(Frame { index: index as u32, len: len as u32, home: self.home, wire: WireId::UPLINK })
    }
}

/// Only a hint: the address need not even be mapped.
#[cfg(target_arch = "x86_64")]
#[inline]
fn fetch(line: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: an instruction of the baseline (SSE) that reads nothing and never faults, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

/// Stable Rust has no hint for other CPUs.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn fetch(_line: *const u8) {}

fn umem_config(chunk_bytes: u32) -> Result<UmemConfig, FramesError> {
    let wrong_size = |_: UmemConfigBuilderError| FramesError::ChunkSize(chunk_bytes);
    if chunk_bytes > LARGE_CHUNK_BYTES {
        return Err(FramesError::ChunkSize(chunk_bytes));
    }
    let size = FrameSize::new(chunk_bytes).map_err(|_| FramesError::ChunkSize(chunk_bytes))?;
    let mut builder = UmemConfig::builder();
    builder.frame_size(size);
    if let Ok(ring) = RING.try_into() {
        builder.fill_queue_size(ring).comp_queue_size(ring);
    }
    builder.build().map_err(wrong_size)
}

fn refused(bytes: u64, huge_pages: bool, error: &dyn std::error::Error) -> FramesError {
    let code = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    let source = code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error);
    let cure = match source.kind() {
        io::ErrorKind::PermissionDenied => "run as root or with CAP_NET_RAW",
        io::ErrorKind::OutOfMemory if huge_pages => "reserve huge pages (vm.nr_hugepages) or do without them",
        io::ErrorKind::OutOfMemory => {
            "free memory, or raise the limit of locked memory (CAP_IPC_LOCK lifts it)"
        }
        _ => "the kernel needs CONFIG_XDP_SOCKETS; --datapath socket does without",
    };
    FramesError::Refused { bytes, cure, source }
}

/// Where the chunk that `desc` describes begins, after the XDP headroom.
fn chunk_of(umem: &Umem, desc: &mut FrameDesc) -> NonNull<u8> {
    // SAFETY: the descriptor is of this UMEM, which is new: neither the kernel nor anybody here uses the chunk yet. The
    // pointer keeps the extent of this chunk, and the UMEM lives in the same `Frames`.
    let mut chunk = unsafe { umem.data_mut(desc) };
    let mut cursor = chunk.cursor();
    let capacity = cursor.buf_len();
    cursor.set_pos(capacity);
    let start = NonNull::from(chunk.contents_mut()).cast();
    chunk.cursor().set_pos(0);
    start
}

/// Zeroed memory that is reached by raw pointers only, so that chunks can be lent one by one.
#[derive(Debug)]
struct Plain(NonNull<[u8]>);

impl Plain {
    fn new(bytes: usize) -> Self {
        Self(NonNull::from(Box::leak(vec![0_u8; bytes].into_boxed_slice())))
    }

    fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.0.len());
        // SAFETY: `in_memory` allocates `count * stride` bytes and asks for offsets `index * stride`, index < count.
        unsafe { self.0.cast::<u8>().add(offset) }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: the pointer is from `Box::leak` in `new`, and freed only here; the chunks made of it go with it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_free_at_first_and_none_is_made_out_of_nothing() {
        let mut frames = Frames::in_memory(3, 100);
        let taken: Vec<_> = std::iter::from_fn(|| frames.take()).collect();
        assert_eq!((taken.len(), frames.free(), frames.total()), (3, 0, 3));
        for frame in taken {
            frames.put(frame);
        }
        assert_eq!(frames.free(), 3);
    }

    #[test]
    fn what_is_written_into_one_frame_is_not_seen_in_another() {
        let mut frames = Frames::in_memory(2, 100);
        let (mut one, mut two) = (frames.take().unwrap(), frames.take().unwrap());
        let (room_one, room_two) = (frames.room(&mut one), frames.room(&mut two));
        room_one.fill(1);
        room_two.fill(2);
        frames.set_len(&mut one, 100);
        frames.set_len(&mut two, 60);
        assert_eq!(frames.bytes(&one), [1; 100]);
        assert_eq!(frames.bytes(&two), [2; 60]);
        frames.put(one);
        frames.put(two);
    }

    #[test]
    fn a_frame_given_back_is_empty_when_it_is_taken_again() {
        let mut frames = Frames::in_memory(1, 100);
        let mut frame = frames.take().unwrap();
        frames.set_len(&mut frame, 14);
        frames.put(frame);
        let frame = frames.take().unwrap();
        assert_eq!(frame.len(), 0);
        frames.put(frame);
    }

    #[test]
    fn memory_goes_to_another_thread_with_its_contents() {
        let mut frames = Frames::in_memory(1, 8);
        let mut frame = frames.take().unwrap();
        frames.room(&mut frame).copy_from_slice(b"contents");
        frames.set_len(&mut frame, 8);
        let seen = std::thread::spawn(move || frames.bytes(&frame).to_vec()).join().unwrap();
        assert_eq!(seen, b"contents");
    }

    #[test]
    fn a_frame_does_not_open_the_memory_of_another_worker() {
        let (mut mine, other) = (Frames::in_memory(1, 8), Frames::in_memory(1, 8));
        let frame = mine.take().unwrap();
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| other.bytes(&frame).len()));
        assert!(opened.is_err() || opened.is_ok_and(|len| len == 0));
        mine.put(frame);
    }

    #[test]
    fn the_smaller_chunk_is_chosen_while_a_tagged_frame_fits() {
        assert_eq!(chunk_bytes_for(1500), SMALL_CHUNK_BYTES);
        assert_eq!(chunk_bytes_for(1770), SMALL_CHUNK_BYTES);
        assert_eq!(chunk_bytes_for(1771), LARGE_CHUNK_BYTES);
        assert_eq!(chunk_bytes_for(u32::MAX), LARGE_CHUNK_BYTES);
    }

    #[test]
    fn chunks_that_the_kernel_does_not_take_are_refused_in_words() {
        for size in [0, 1024, 3000, 8192] {
            let error = Frames::for_nic(4, size, false).unwrap_err();
            assert!(matches!(error, FramesError::ChunkSize(refused) if refused == size), "{size}: {error}");
        }
        assert!(matches!(Frames::for_nic(0, 2048, false), Err(FramesError::NoFrames)));
    }

    #[test]
    fn a_umem_lends_its_chunks_and_takes_them_back() {
        let mut frames = match Frames::for_nic(8, SMALL_CHUNK_BYTES, false) {
            Ok(frames) => frames,
            Err(error) => return eprintln!("SKIPPED: needs CAP_NET_RAW and AF_XDP: {error}"),
        };
        assert_eq!(frames.capacity(), 1792);
        let mut all: Vec<_> = std::iter::from_fn(|| frames.take()).collect();
        for (at, frame) in all.iter_mut().enumerate() {
            frames.room(frame).fill(at as u8);
            frames.set_len(frame, 1000 + at);
        }
        for (at, frame) in all.into_iter().enumerate() {
            assert!(frames.bytes(&frame).iter().all(|byte| *byte == at as u8));
            let desc = frames.lend(frame).unwrap();
            assert_eq!(desc.lengths().data(), 1000 + at);
            // SAFETY: it was lent on the line above, to nobody.
            let frame = unsafe { frames.take_back(desc) }.unwrap();
            assert_eq!(frames.bytes(&frame), vec![at as u8; 1000 + at]);
            frames.put(frame);
        }
        assert_eq!(frames.free(), frames.total());
    }
}
