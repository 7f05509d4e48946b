//! The host port: a TAP, by which the gateway's own host stands on the segment.
//!
//! With `IFF_VNET_HDR` each packet has a header ahead that tells which checksum is unfinished, and that a TCP segment
//! is a large one. The worker gets finished frames only: here checksums are completed and large segments cut.
//!
//! ```text
//!   virtio_net_hdr  │ flags │ gso_type │ hdr_len │ gso_size │ csum_start │ csum_offset │   native byte order
//!                   0       1          2         4          6            8             10
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::Arc,
};

use nix::libc;

use super::{
    Frame, Frames, Port,
    checksum::complete,
    layers::Version,
    segment::{Cut, Malformed},
};
use crate::{
    drops::{Drop, DropCounters},
    xdp::sys,
};

/// Size of a `struct virtio_net_hdr`, what a TAP uses unless told otherwise.
const VNET_LEN: usize = 10;
/// No checksum to finish, no large segment.
const PLAIN: [u8; VNET_LEN] = [0; VNET_LEN];
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`, `..._TCPV6` and the flag `..._ECN` on either.
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// What we can be handed: `TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN` of `include/uapi/linux/if_tun.h`.
const OFFLOADS: u32 = 0x01 | 0x02 | 0x04 | 0x08;
/// Longest packet of the host's stack: an IP packet behind an Ethernet header with two tags.
const MAX_PACKET: usize = 65_535 + 22;
/// An Ethernet header: less is no frame.
const MIN_HEADER: usize = 14;

/// Why there is no host port.
#[derive(Debug, thiserror::Error)]
pub enum HostPortError {
    /// No tun driver.
    #[error(
        "/dev/net/tun cannot be opened ({0}): load the kernel's tun module, or give the container the device"
    )]
    NoDevice(io::Error),
    /// The interface is refused.
    #[error("the TAP {name} cannot be used ({source}): {cure}")]
    Refused {
        /// The name asked for.
        name: String,
        /// What to do.
        cure: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A TAP as a port.
#[derive(Debug)]
pub struct HostPort {
    tap: File,
    name: String,
    drops: Arc<DropCounters>,
    /// What was read last: `virtio_net_hdr`, then the packet.
    buffer: Box<[u8]>,
    /// A large segment in `buffer` that is not cut up yet.
    pending: Option<Pending>,
}

/// Invariant: `next < cut.count()`.
#[derive(Debug)]
struct Pending {
    cut: Cut,
    /// The next frame to write.
    next: usize,
    /// The packet's length, behind the `virtio_net_hdr`.
    len: usize,
}

/// Why nothing more is received in this turn.
enum Stop {
    /// Nothing is there.
    Empty,
    /// There is no memory.
    NoFrame,
}

impl HostPort {
    /// Makes the TAP `name`, which goes with the process, or takes over an existing one of that name that nobody has
    /// open (`openvpn --mktun`). `tap` means that the kernel chooses the number. Settings and setting it up are others'.
    ///
    /// With `multi_queue` more ports can be opened under the same name, one a worker.
    ///
    /// # Errors
    /// See [`HostPortError`].
    pub fn open(name: &str, multi_queue: bool, drops: Arc<DropCounters>) -> Result<Self, HostPortError> {
        let tap = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(HostPortError::NoDevice)?;
        let pattern = if name == "tap" { "tap%d" } else { name };
        let refused = |source| refused(name, source);
        let name = attach(&tap, pattern, multi_queue).map_err(refused)?;
        sys::set_tap_offload(&tap, OFFLOADS).map_err(refused)?;
        let buffer = vec![0; VNET_LEN + MAX_PACKET].into_boxed_slice();
        Ok(Self { tap, name, drops, buffer, pending: None })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one packet: a frame goes to `received`, a large segment to `pending`, what is of no use is counted.
    fn read(&mut self, frames: &mut Frames, received: &mut Vec<Frame>) -> Result<(), Stop> {
        let frame = frames.take().ok_or(Stop::NoFrame)?;
        // An error is that there is nothing, or that the interface is gone and nothing comes any more.
        let read = self.tap.read(&mut self.buffer).unwrap_or(0);
        let Some((header, packet)) = self.buffer[..read].split_first_chunk::<VNET_LEN>() else {
            frames.put(frame);
            return Err(Stop::Empty);
        };
        match accept(&Header::of(header), packet, frames, frame) {
            Ok(Accepted::Frame(frame)) => received.push(frame),
            Ok(Accepted::Large(cut, frame)) => {
                frames.put(frame);
                self.pending = Some(Pending { cut, next: 0, len: packet.len() });
            }
            Err((reason, frame)) => {
                frames.put(frame);
                self.drops.count(reason);
            }
        }
        Ok(())
    }

    /// Cuts one frame off the pending large segment.
    fn cut(&mut self, frames: &mut Frames, received: &mut Vec<Frame>) -> Result<(), Stop> {
        let Some(pending) = &mut self.pending else { return Ok(()) };
        let mut frame = frames.take().ok_or(Stop::NoFrame)?;
        let packet = &self.buffer[VNET_LEN..VNET_LEN + pending.len];
        match pending.cut.write(packet, pending.next, frames.room(&mut frame)) {
            Some(len) => {
                frames.set_len(&mut frame, len);
                received.push(frame);
            }
            None => {
                frames.put(frame);
                self.drops.count(Drop::SegmentMalformed);
            }
        }
        pending.next += 1;
        if pending.next >= pending.cut.count() {
            self.pending = None;
        }
        Ok(())
    }
}

/// What became of a packet from the host.
enum Accepted {
    Frame(Frame),
    /// A large segment, and the frame that was not needed yet.
    Large(Cut, Frame),
}

fn accept(
    header: &Header,
    packet: &[u8],
    frames: &Frames,
    mut frame: Frame,
) -> Result<Accepted, (Drop, Frame)> {
    if header.gso_type != 0 {
        return match header.cut(packet) {
            Ok(cut) if cut.frame_len() <= frames.capacity() => Ok(Accepted::Large(cut, frame)),
            Ok(_) | Err(Malformed) => Err((Drop::SegmentMalformed, frame)),
        };
    }
    let Some(room) = frames.room(&mut frame).get_mut(..packet.len()).filter(|room| room.len() >= MIN_HEADER)
    else {
        return Err((Drop::FrameMalformed, frame));
    };
    room.copy_from_slice(packet);
    let unfinished = header.flags & NEEDS_CHECKSUM != 0;
    if unfinished && complete(room, header.checksum_start, header.checksum_offset).is_err() {
        return Err((Drop::ChecksumUnfinishable, frame));
    }
    frames.set_len(&mut frame, packet.len());
    Ok(Accepted::Frame(frame))
}

/// A `struct virtio_net_hdr`, as far as it matters here.
struct Header {
    flags: u8,
    gso_type: u8,
    gso_size: usize,
    checksum_start: usize,
    checksum_offset: usize,
}

impl Header {
    fn of(bytes: &[u8; VNET_LEN]) -> Self {
        let [flags, gso_type, _, _, s0, s1, c0, c1, o0, o1] = *bytes;
        let number = |low, high| usize::from(u16::from_ne_bytes([low, high]));
        Self {
            flags,
            gso_type,
            gso_size: number(s0, s1),
            checksum_start: number(c0, c1),
            checksum_offset: number(o0, o1),
        }
    }

    /// A large segment always has an unfinished checksum, whose start is the TCP header's.
    fn cut(&self, packet: &[u8]) -> Result<Cut, Malformed> {
        let version = match self.gso_type & !GSO_ECN {
            GSO_TCPV4 => Version::V4,
            GSO_TCPV6 => Version::V6,
            _ => return Err(Malformed),
        };
        Cut::new(packet, version, self.checksum_start, self.gso_size)
    }
}

impl Port for HostPort {
    fn receive(&mut self, frames: &mut Frames, received: &mut Vec<Frame>, limit: usize) {
        let full = received.len() + limit;
        // What is of no use does not fill the batch: the number of reads is bounded, too.
        let mut reads = 0;
        while received.len() < full && reads < limit {
            let step = if self.pending.is_some() {
                self.cut(frames, received)
            } else {
                reads += 1;
                self.read(frames, received)
            };
            if let Err(Stop::Empty | Stop::NoFrame) = step {
                return;
            }
        }
    }

    fn transmit(&mut self, frames: &mut Frames, queue: &mut Vec<Frame>) {
        for frame in queue.drain(..) {
            let bytes = frames.bytes(&frame);
            if bytes.len() < MIN_HEADER {
                self.drops.count(Drop::FrameMalformed);
            } else if self.tap.write_vectored(&[IoSlice::new(&PLAIN), IoSlice::new(bytes)]).is_err() {
                self.drops.count(Drop::HostPortFull);
            }
            frames.put(frame);
        }
    }

    fn wake(&mut self, _frames: &mut Frames) {}

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tap.as_fd())
    }

    fn held(&self) -> usize {
        0
    }

    fn has_leftovers(&self) -> bool {
        self.pending.is_some()
    }
}

/// Makes or takes over the TAP. An existing one must be opened with the queue mode it was made with, which only its
/// maker knows: the other is tried as well.
fn attach(tap: &File, name: &str, multi_queue: bool) -> io::Result<String> {
    let base = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let many = base | libc::IFF_MULTI_QUEUE;
    if multi_queue {
        return sys::set_tap(tap, name, many);
    }
    match sys::set_tap(tap, name, base) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            sys::set_tap(tap, name, many).map_err(|_| error)
        }
        other => other,
    }
}

fn refused(name: &str, source: io::Error) -> HostPortError {
    let cure = match source.raw_os_error() {
        Some(libc::EBUSY) => "another program has it open; stop that, or choose another name with `dev`",
        Some(libc::EPERM | libc::EACCES) => "run as root or with CAP_NET_ADMIN",
        Some(libc::EINVAL) => {
            "an interface of that name exists and is no TAP; choose another name with `dev`"
        }
        _ => "choose another name with `dev`, at most 15 letters and digits",
    };
    HostPortError::Refused { name: name.to_owned(), cure, source }
}

#[cfg(test)]
mod tests;
