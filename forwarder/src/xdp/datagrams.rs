//! Many packets with one system call: `recvmmsg` and `sendmmsg`.
//!
//! nix has both, but shares one set of control messages between all packets sent, does not reset lengths between
//! calls, and keeps headers that cannot go to another thread. Here all headers stand on the stack of one call.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use nix::libc;

/// Most packets one call receives or sends.
pub const BATCH: usize = 64;

/// A UDP datagram: what stands around its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The other side.
    pub remote: SocketAddrV4,
    /// Our address that it came to, or leaves from; unspecified: not known, or for the kernel to choose.
    pub local: Ipv4Addr,
    /// Length of the payload in bytes, as much of it as there was room for.
    pub len: usize,
    /// The payload was longer than its room: what is there is its beginning.
    pub truncated: bool,
}

impl Datagram {
    /// One without meaning, to fill an array with.
    pub const EMPTY: Self = Self {
        remote: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        local: Ipv4Addr::UNSPECIFIED,
        len: 0,
        truncated: false,
    };
}

/// Payloads of one length, from and to the same addresses, that stand one behind the other. The kernel takes them as one
/// long datagram, and cuts it up at the end of its way (`UDP_SEGMENT`, since Linux 4.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What stands around each of the payloads, and how long it is.
    pub datagram: Datagram,
    /// How many there are, at least 1.
    pub count: usize,
}

impl Run {
    /// One payload.
    pub const fn of_one(datagram: Datagram) -> Self {
        Self { datagram, count: 1 }
    }
}

/// Most bytes in the payloads of a run: what fits an IPv4 packet behind its own and the UDP header.
pub const LONGEST_RUN: usize = 65_535 - 20 - 8;

/// `IP_PKTINFO`, laid out as `CMSG_DATA` and `CMSG_SPACE` have it.
#[derive(Clone, Copy)]
#[repr(C)]
struct PacketInfo {
    header: libc::cmsghdr,
    info: libc::in_pktinfo,
}

/// `UDP_SEGMENT`, laid out in the same way.
#[derive(Clone, Copy)]
#[repr(C)]
struct SegmentSize {
    header: libc::cmsghdr,
    size: u16,
}

/// What goes with a run; with a run of one only the first goes.
#[derive(Clone, Copy)]
#[repr(C)]
struct RunInfo {
    packet: PacketInfo,
    segment: SegmentSize,
}

/// `CMSG_LEN` of the message.
const PACKET_INFO_LEN: usize = mem::offset_of!(PacketInfo, info) + size_of::<libc::in_pktinfo>();
/// `CMSG_LEN` of the other.
const SEGMENT_SIZE_LEN: usize = mem::offset_of!(SegmentSize, size) + size_of::<u16>();

/// Receives up to [`BATCH`] datagrams of an IPv4 UDP socket with `IP_PKTINFO`, one into each of `rooms`, and says in
/// `datagrams` what they are. Never waits.
///
/// # Errors
/// What `recvmmsg` says; `WouldBlock` when there is nothing.
pub fn receive(
    socket: BorrowedFd<'_>,
    rooms: &mut [IoSliceMut<'_>],
    datagrams: &mut [Datagram],
) -> io::Result<usize> {
    let mut names = [const { unspecified() }; BATCH];
    let mut infos = [const { packet_info(Ipv4Addr::UNSPECIFIED) }; BATCH];
    let mut headers = [const { empty_header() }; BATCH];
    let count = rooms.len().min(datagrams.len()).min(BATCH);
    for (at, header) in headers[..count].iter_mut().enumerate() {
        address(&mut header.msg_hdr, &mut names[at]);
        control(&mut header.msg_hdr, &mut infos[at]);
        header.msg_hdr.msg_iov = ptr::from_mut(&mut rooms[at]).cast();
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` headers point to locals and to the caller's rooms, with their true sizes; all of them
    // outlive the call. `IoSliceMut` is guaranteed to be laid out as an iovec. No time-out is given.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for at in 0..received {
        datagrams[at] = described(&headers[at], &names[at], &infos[at]);
    }
    Ok(received)
}

fn described(header: &libc::mmsghdr, name: &libc::sockaddr_in, info: &PacketInfo) -> Datagram {
    let complete = header.msg_hdr.msg_controllen >= PACKET_INFO_LEN;
    let told =
        complete && info.header.cmsg_level == libc::IPPROTO_IP && info.header.cmsg_type == libc::IP_PKTINFO;
    Datagram {
        remote: SocketAddrV4::new(from_network(name.sin_addr), u16::from_be(name.sin_port)),
        local: if told { from_network(info.info.ipi_spec_dst) } else { Ipv4Addr::UNSPECIFIED },
        len: header.msg_len as usize,
        truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
    }
}

/// Sends up to [`BATCH`] runs on an IPv4 UDP socket, their payloads one behind the other in `payloads`, and returns how
/// many payloads the kernel took. Never waits.
///
/// # Errors
/// What `sendmmsg` says about the first run; an error about a later one shows when that is the first.
pub fn send(socket: BorrowedFd<'_>, runs: &[Run], payloads: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut names = [const { unspecified() }; BATCH];
    let mut infos = [const { run_info(Ipv4Addr::UNSPECIFIED, 0) }; BATCH];
    let mut headers = [const { empty_header() }; BATCH];
    let mut rest = payloads;
    let mut count = 0;
    for run in runs.iter().take(BATCH) {
        let Some((own, others)) = rest.split_at_checked(run.count) else { break };
        rest = others;
        let (name, info, header) = (&mut names[count], &mut infos[count], &mut headers[count].msg_hdr);
        *name = socket_address(run.datagram.remote);
        // A payload is no longer than a UDP datagram can be; a longer one would be refused by the kernel.
        *info = run_info(run.datagram.local, u16::try_from(run.datagram.len).unwrap_or(u16::MAX));
        address(header, name);
        header.msg_control = ptr::from_mut(info).cast();
        header.msg_controllen =
            if run.count > 1 { size_of::<RunInfo>() } else { size_of::<PacketInfo>() } as _;
        payload(header, own);
        count += 1;
    }
    let sent = submit(socket, &mut headers[..count])?;
    Ok(runs[..sent].iter().map(|run| run.count).sum())
}

/// Sends up to [`BATCH`] whole frames on a packet socket that is bound to an interface, and returns how many the kernel
/// took. Never waits.
///
/// # Errors
/// As for [`send`].
pub fn send_frames(socket: BorrowedFd<'_>, frames: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut headers = [const { empty_header() }; BATCH];
    let count = frames.len().min(BATCH);
    for (header, frame) in headers[..count].iter_mut().zip(frames) {
        payload(&mut header.msg_hdr, std::slice::from_ref(frame));
    }
    submit(socket, &mut headers[..count])
}

fn submit(socket: BorrowedFd<'_>, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    // SAFETY: each header points to names, control messages and payloads that its maker above keeps alive during the
    // call, with their true sizes; the kernel only reads them.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            headers.len() as libc::c_uint,
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn address(header: &mut libc::msghdr, name: &mut libc::sockaddr_in) {
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
}

fn control(header: &mut libc::msghdr, info: &mut PacketInfo) {
    header.msg_control = ptr::from_mut(info).cast();
    header.msg_controllen = size_of::<PacketInfo>() as _;
}

fn payload(header: &mut libc::msghdr, slices: &[IoSlice<'_>]) {
    // The kernel reads them only; `IoSlice` is guaranteed to be laid out as an iovec.
    header.msg_iov = slices.as_ptr().cast_mut().cast();
    header.msg_iovlen = slices.len() as _;
}

const fn empty_header() -> libc::mmsghdr {
    // SAFETY: integers and pointers only, for which zero is a value: no name, no buffers, no flags.
    unsafe { mem::zeroed() }
}

const fn unspecified() -> libc::sockaddr_in {
    // SAFETY: integers only.
    unsafe { mem::zeroed() }
}

const fn packet_info(local: Ipv4Addr) -> PacketInfo {
    PacketInfo {
        header: libc::cmsghdr {
            cmsg_len: PACKET_INFO_LEN as _,
            cmsg_level: libc::IPPROTO_IP,
            cmsg_type: libc::IP_PKTINFO,
        },
        info: libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: to_network(local),
            ipi_addr: libc::in_addr { s_addr: 0 },
        },
    }
}

const fn run_info(local: Ipv4Addr, size: u16) -> RunInfo {
    RunInfo {
        packet: packet_info(local),
        segment: SegmentSize {
            header: libc::cmsghdr {
                cmsg_len: SEGMENT_SIZE_LEN as _,
                cmsg_level: libc::SOL_UDP,
                cmsg_type: libc::UDP_SEGMENT,
            },
            size,
        },
    }
}

fn socket_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: to_network(*address.ip()),
        ..unspecified()
    }
}

const fn to_network(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) }
}

fn from_network(address: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(address.s_addr.to_ne_bytes())
}
