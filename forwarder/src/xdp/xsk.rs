//! AF_XDP rings: frames go in and come out as tokens.
//!
//! ```text
//!    Frames ──fill──▶ ┌────────┐ ──receive──▶ worker
//!                     │ kernel │
//!    Frames ◀complete─└────────┘ ◀──transmit─ worker
//!
//!    fill ring        chunks the kernel may receive into      (ours to write)
//!    rx ring          chunks with a received frame            (ours to read)
//!    tx ring          chunks with a frame to send             (ours to write)
//!    completion ring  chunks whose frame has been sent        (ours to read)
//! ```
//!
//! Here is what needs `unsafe`; when to do what is decided in [`crate::ports::xsk`].

use std::{
    fmt, io,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{MsgFlags, send, setsockopt, sockopt},
};
use xsk_rs::{
    CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue,
    config::{BindFlags, Interface, LibxdpFlags, SocketConfig},
    socket::XdpStatistics,
};

use super::{
    frames::{Frame, Frames},
    sys,
};

/// Entries of each ring, a power of two. Lower loses frames in bursts (at 2 Mpps 2048 entries are one millisecond),
/// higher costs cache.
pub const RING: u32 = 2048;

/// Frames moved between a ring and its user at a time.
const BATCH: usize = 64;

/// What the kernel may keep in flight for one socket in copy mode, where each frame costs an skb. The default
/// (`net.core.wmem_default`, 208 KiB) is about a hundred frames, less than a ring.
const SEND_BUFFER_BYTES: usize = 8 << 20;

/// How frames get from the NIC into the chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XskMode {
    /// The NIC reads and writes the chunks itself.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

impl XskMode {
    /// As `trestle status -j` says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        }
    }
}

impl fmt::Display for XskMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no AF_XDP socket on a NIC's queue.
#[derive(Debug, thiserror::Error)]
pub enum XskError {
    /// The worker's memory is not a UMEM.
    #[error(
        "queue {queue} of {nic} cannot have an AF_XDP socket over plain memory: make the memory for a NIC"
    )]
    PlainMemory {
        /// The NIC's name.
        nic: String,
        /// The receive queue.
        queue: u32,
    },
    /// The kernel refuses.
    #[error("no AF_XDP socket on queue {queue} of {nic} ({source}): {cure}")]
    Refused {
        /// The NIC's name.
        nic: String,
        /// The receive queue.
        queue: u32,
        /// What to do.
        cure: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl XskError {
    /// True when another socket holds the queue.
    pub fn is_busy(&self) -> bool {
        let Self::Refused { source, .. } = self else { return false };
        source.raw_os_error() == Some(libc::EBUSY)
    }
}

/// How a kick of the transmit ring went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// The kernel has taken what there was, or sends in its own time.
    Done,
    /// The kernel has sent part and wants to be asked again.
    Again,
    /// The kernel dropped one frame, and wants to be asked again for those behind it.
    Lost,
    /// The NIC is down or gone: frames stay where they are.
    Down,
}

/// The four rings of one AF_XDP socket. They live and die with the [`Frames`] they were opened on.
#[derive(Debug)]
pub struct Rings {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    mode: XskMode,
    /// The [`Frames`] they were opened on.
    home: u32,
    /// Chunks lent for receiving: in the fill ring, in the kernel, or in the rx ring.
    receiving: usize,
    /// Chunks lent for sending: in the tx ring, in the kernel, or in the completion ring.
    sending: usize,
    scratch: Box<[FrameDesc; BATCH]>,
}

impl Rings {
    /// An AF_XDP socket on receive queue `queue` of the NIC, without an XDP program: somebody else attaches one and
    /// puts [`Rings::fd`] into its map. Zero-copy is tried unless `copy_only`.
    ///
    /// # Errors
    /// See [`XskError`].
    pub fn open(frames: &Frames, nic: &str, queue: u32, copy_only: bool) -> Result<Self, XskError> {
        let Some(umem) = frames.umem() else {
            return Err(XskError::PlainMemory { nic: nic.to_owned(), queue });
        };
        let interface = nic.parse::<Interface>().map_err(|_| refused(nic, queue, Errno::ENODEV.into()))?;
        // SAFETY: asked for is only that no program is loaded where several sockets share a queue, and we never load any.
        let opened = unsafe { Socket::new(socket_config(copy_only), umem, &interface, queue) };
        let (tx, rx, rings) = opened.map_err(|error| refused(nic, queue, source_of(&error)))?;
        // No rings: this memory already has a socket on this queue.
        let (fill, completion) = rings.ok_or_else(|| refused(nic, queue, Errno::EBUSY.into()))?;
        let mut rings = Self {
            rx,
            tx,
            fill,
            completion,
            mode: XskMode::Copy,
            home: frames.home(),
            receiving: 0,
            sending: 0,
            scratch: Box::new([FrameDesc::default(); BATCH]),
        };
        rings.mode = if sys::is_zero_copy(rings.fd()) { XskMode::ZeroCopy } else { XskMode::Copy };
        // Needs CAP_NET_ADMIN; without it sends of more than a hundred frames at once are taken in parts.
        let _ = setsockopt(&rings.fd(), sockopt::SndBufForce, &SEND_BUFFER_BYTES);
        Ok(rings)
    }

    /// What to put into the XSKMAP, and what becomes readable when a frame has arrived.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is closed when the last of the four rings is dropped, and `self` has them all.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }

    /// How frames get into the chunks.
    pub fn mode(&self) -> XskMode {
        self.mode
    }

    /// Chunks lent to the kernel, to receive into.
    pub fn receiving(&self) -> usize {
        self.receiving
    }

    /// Chunks lent to the kernel, to send.
    pub fn sending(&self) -> usize {
        self.sending
    }

    /// What the kernel counted on this socket.
    ///
    /// # Errors
    /// What `getsockopt` says.
    pub fn statistics(&self) -> io::Result<XdpStatistics> {
        self.rx.fd().xdp_statistics()
    }

    /// Lends chunks until the kernel has `target` to receive into, as far as there are free ones.
    pub fn fill(&mut self, frames: &mut Frames, target: usize) {
        while self.is_of(frames) && self.receiving < target.min(RING as usize) {
            let wanted = (target - self.receiving).min(BATCH).min(self.fill.nb_free(BATCH as u32) as usize);
            let mut lent = 0;
            while lent < wanted {
                let Some(desc) = frames.take().and_then(|frame| frames.lend(frame)) else { break };
                self.scratch[lent] = desc;
                lent += 1;
            }
            // SAFETY: the descriptors were lent from the UMEM this socket is bound to (`is_of`): nobody here touches them.
            let filled = unsafe { self.fill.produce(&self.scratch[..lent]) };
            self.receiving += filled;
            self.put_back(frames, filled, lent);
            if filled < BATCH {
                return;
            }
        }
    }

    /// Appends frames that have arrived to `received`, at most `limit`.
    pub fn receive(&mut self, frames: &Frames, received: &mut Vec<Frame>, limit: usize) {
        let mut wanted = if self.is_of(frames) { limit } else { 0 };
        while wanted > 0 {
            let batch = wanted.min(BATCH);
            // SAFETY: the ring is of the UMEM of `frames`, as `is_of` has made sure.
            let count = unsafe { self.rx.consume(&mut self.scratch[..batch]) };
            self.receiving = self.receiving.saturating_sub(count);
            // SAFETY: a chunk comes over the rx ring once for each time it was lent over the fill ring.
            received
                .extend(self.scratch[..count].iter().filter_map(|desc| unsafe { frames.take_back(*desc) }));
            wanted -= count;
            if count < batch {
                return;
            }
        }
    }

    /// Moves frames from the head of `queue` to the tx ring, as many as it has room for.
    pub fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        while self.is_of(frames) && !queue.is_empty() {
            let room = self.tx.nb_free(BATCH as u32) as usize;
            let batch = queue.len().min(BATCH).min(room);
            let mut lent = 0;
            for desc in queue.drain(..batch).filter_map(|frame| frames.lend(frame)) {
                self.scratch[lent] = desc;
                lent += 1;
            }
            // SAFETY: the descriptors were lent from the UMEM this socket is bound to (`is_of`): nobody here touches them.
            let sent = unsafe { self.tx.produce(&self.scratch[..lent]) };
            self.sending += sent;
            self.put_back(frames, sent, lent);
            if batch < BATCH {
                return;
            }
        }
    }

    /// Takes back the chunks whose frames have been sent.
    pub fn complete(&mut self, frames: &mut Frames) {
        while self.is_of(frames) && self.sending > 0 {
            // SAFETY: the ring is of the UMEM of `frames`, as `is_of` has made sure.
            let count = unsafe { self.completion.consume(&mut self.scratch[..]) };
            self.sending = self.sending.saturating_sub(count);
            self.put_back(frames, 0, count);
            if count < BATCH {
                return;
            }
        }
    }

    /// True when the kernel sleeps and frames in the tx ring wait for a kick.
    pub fn transmit_needs_kick(&mut self) -> bool {
        self.sending > 0 && self.tx.needs_wakeup() && self.unsent() > 0
    }

    /// Frames in the tx ring that the kernel has not taken yet.
    pub fn unsent(&mut self) -> usize {
        RING.saturating_sub(self.tx.nb_free_exact()) as usize
    }

    /// Has the kernel send what is in the tx ring. Never waits.
    pub fn kick(&self) -> Kick {
        // The kernel takes no data from this call, it only looks at the ring: `xsk_sendmsg` in net/xdp/xsk.c.
        match send(self.fd().as_raw_fd(), &[], MsgFlags::MSG_DONTWAIT) {
            Ok(_) => Kick::Done,
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => Kick::Again,
            // `xsk_generic_xmit`: "SKB completed but not sent".
            Err(Errno::EBUSY) => Kick::Lost,
            // ENETDOWN: down. ENXIO: gone. What else there may be is no reason to ask again at once.
            Err(_) => Kick::Down,
        }
    }

    /// Tells the driver that there are chunks to receive into again, where it asks for that: then true.
    pub fn kick_fill(&mut self) -> bool {
        let is_asked = self.fill.needs_wakeup();
        if is_asked {
            // An error means that the NIC is gone; nothing arrives then, which the host's side of us notices.
            let _ = self.fill.wakeup(self.rx.fd_mut(), 0);
        }
        is_asked
    }

    /// True for the memory the rings were opened on: another's chunks have other addresses.
    fn is_of(&self, frames: &Frames) -> bool {
        debug_assert_eq!(frames.home(), self.home, "rings are used with the memory they were opened on");
        frames.home() == self.home
    }

    /// Gives back chunks `from..to` of the scratch that the kernel has not taken, or is done with.
    fn put_back(&self, frames: &mut Frames, from: usize, to: usize) {
        for desc in &self.scratch[from..to] {
            // SAFETY: lent and not taken by the ring, or back over the completion ring: once each.
            if let Some(frame) = unsafe { frames.take_back(*desc) } {
                frames.put(frame);
            }
        }
    }
}

fn socket_config(copy_only: bool) -> SocketConfig {
    let mut flags = BindFlags::XDP_USE_NEED_WAKEUP;
    if copy_only {
        flags |= BindFlags::XDP_COPY;
    }
    let mut builder = SocketConfig::builder();
    builder.libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD).bind_flags(flags);
    if let Ok(ring) = RING.try_into() {
        builder.rx_queue_size(ring).tx_queue_size(ring);
    }
    builder.build()
}

/// What the kernel said, out of an error that says only where.
fn source_of(error: &dyn std::error::Error) -> io::Error {
    let code = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

fn refused(nic: &str, queue: u32, source: io::Error) -> XskError {
    let cure = match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => {
            "another AF_XDP socket holds the queue; stop its program (`ss --xdp -p` names it)"
        }
        Some(Errno::EPERM | Errno::EACCES) => "run as root or with CAP_NET_RAW",
        Some(Errno::ENODEV) => "there is no interface of that name here",
        Some(Errno::EINVAL) => {
            "the NIC has no such queue (`ethtool -l` shows how many), or its MTU is too large"
        }
        Some(Errno::ENETDOWN) => "set the interface up first",
        Some(Errno::EOPNOTSUPP) => {
            "the driver does not take AF_XDP here; try --xdp generic or --datapath socket"
        }
        Some(Errno::ENOMEM | Errno::ENOBUFS) => "free memory, or use fewer workers",
        _ => "--datapath socket does without",
    };
    XskError::Refused { nic: nic.to_owned(), queue, cure, source }
}
