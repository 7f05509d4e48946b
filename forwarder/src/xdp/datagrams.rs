//! Many packets with one system call: `recvmmsg` and `sendmmsg`.
//!
//! nix has both, but shares one set of control messages between all packets sent, does not reset lengths between
//! calls, and keeps headers that cannot go to another thread. Here all headers stand on the stack of one call.
//!
//! A socket of IPv6 that serves IPv4, too, knows IPv4 addresses in the form `::ffff:a.b.c.d`. That form is not seen
//! outside of this module: a [`Datagram`]'s addresses are IPv4 or IPv6, never the one as the other.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
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
    pub remote: SocketAddr,
    /// Our address that it came to, or leaves from; unspecified: not known, or for the kernel to choose.
    pub local: IpAddr,
    /// Length of the payload in bytes, as much of it as there was room for.
    pub len: usize,
    /// The payload was longer than its room: what is there is its beginning.
    pub truncated: bool,
}

impl Datagram {
    /// One without meaning, to fill an array with.
    pub const EMPTY: Self = Self {
        remote: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        local: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        len: 0,
        truncated: false,
    };
}

/// What a socket's addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6, and IPv4 where the socket was not opened for IPv6 only.
    V6,
}

impl Family {
    /// Of a socket bound to this address.
    pub fn of(bound: SocketAddr) -> Self {
        if bound.is_ipv6() { Self::V6 } else { Self::V4 }
    }

    /// Whether a socket can have such a peer.
    pub const fn reaches(self, remote: SocketAddr) -> bool {
        remote.is_ipv4() || matches!(self, Self::V6)
    }
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

/// A name of either family, as the kernel reads and writes it: `sockaddr_in` is the shorter one, and lies at the
/// beginning of the other's bytes.
#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    four: libc::sockaddr_in,
    six: libc::sockaddr_in6,
}

/// `IP_PKTINFO` or `IPV6_PKTINFO`, laid out as `CMSG_DATA` and `CMSG_SPACE` have it.
#[derive(Clone, Copy)]
#[repr(C)]
struct PacketInfo<I> {
    header: libc::cmsghdr,
    info: I,
}

type Four = PacketInfo<libc::in_pktinfo>;
type Six = PacketInfo<libc::in6_pktinfo>;

/// `UDP_SEGMENT`, laid out in the same way.
#[derive(Clone, Copy)]
#[repr(C)]
struct SegmentSize {
    header: libc::cmsghdr,
    size: u16,
}

/// What goes with a run; with a run of one only the first goes. `CMSG_SPACE` of the first is a multiple of eight, as is
/// the place of what follows it here.
#[derive(Clone, Copy)]
#[repr(C)]
struct RunInfo<I> {
    packet: PacketInfo<I>,
    segment: SegmentSize,
}

/// The control messages of a run, of either family.
#[derive(Clone, Copy)]
#[repr(C)]
union Control {
    four: RunInfo<libc::in_pktinfo>,
    six: RunInfo<libc::in6_pktinfo>,
}

/// `CMSG_LEN` of each of them.
const FOUR_LEN: usize = mem::offset_of!(Four, info) + size_of::<libc::in_pktinfo>();
const SIX_LEN: usize = mem::offset_of!(Six, info) + size_of::<libc::in6_pktinfo>();
const SEGMENT_SIZE_LEN: usize = mem::offset_of!(SegmentSize, size) + size_of::<u16>();

/// Receives up to [`BATCH`] datagrams of a UDP socket with `IP_PKTINFO` or `IPV6_RECVPKTINFO`, one into each of `rooms`,
/// and says in `datagrams` what they are. Never waits.
///
/// # Errors
/// What `recvmmsg` says; `WouldBlock` when there is nothing.
pub fn receive(
    socket: BorrowedFd<'_>,
    rooms: &mut [IoSliceMut<'_>],
    datagrams: &mut [Datagram],
) -> io::Result<usize> {
    let mut names = [const { unnamed() }; BATCH];
    let mut infos = [const { nothing() }; BATCH];
    let mut headers = [const { empty_header() }; BATCH];
    let count = rooms.len().min(datagrams.len()).min(BATCH);
    for (at, header) in headers[..count].iter_mut().enumerate() {
        name(&mut header.msg_hdr, &mut names[at], size_of::<Name>());
        control(&mut header.msg_hdr, &mut infos[at], size_of::<Six>());
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

fn described(header: &libc::mmsghdr, name: &Name, info: &Control) -> Datagram {
    Datagram {
        remote: from_name(name),
        local: from_control(info, header.msg_hdr.msg_controllen),
        len: header.msg_len as usize,
        truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
    }
}

/// Sends up to [`BATCH`] runs on a UDP socket of `family`, their payloads one behind the other in `payloads`, and returns
/// how many payloads the kernel took. Never waits.
///
/// # Errors
/// What `sendmmsg` says about the first run; an error about a later one shows when that is the first.
pub fn send(
    socket: BorrowedFd<'_>,
    family: Family,
    runs: &[Run],
    payloads: &[IoSlice<'_>],
) -> io::Result<usize> {
    let mut names = [const { unnamed() }; BATCH];
    let mut infos = [const { nothing() }; BATCH];
    let mut headers = [const { empty_header() }; BATCH];
    let mut rest = payloads;
    let mut count = 0;
    for run in runs.iter().take(BATCH) {
        let Some((own, others)) = rest.split_at_checked(run.count) else { break };
        rest = others;
        let header = &mut headers[count].msg_hdr;
        describe(header, &mut names[count], &mut infos[count], family, run);
        payload(header, own);
        count += 1;
    }
    let sent = submit(socket, &mut headers[..count])?;
    Ok(runs[..sent].iter().map(|run| run.count).sum())
}

/// Writes where a run goes and from which address.
fn describe(header: &mut libc::msghdr, to: &mut Name, info: &mut Control, family: Family, run: &Run) {
    let Datagram { remote, local, len, .. } = run.datagram;
    // A payload is no longer than a UDP datagram can be; a longer one would be refused by the kernel.
    let segment = segment_size(u16::try_from(len).unwrap_or(u16::MAX));
    match family {
        Family::V4 => {
            *to = Name { four: name_v4(remote) };
            *info = Control { four: RunInfo { packet: packet_info_v4(local), segment } };
            name(header, to, size_of::<libc::sockaddr_in>());
            control(header, info, control_len::<libc::in_pktinfo>(run));
        }
        Family::V6 => {
            *to = Name { six: name_v6(remote) };
            *info = Control { six: RunInfo { packet: packet_info_v6(local_v6(local, remote)), segment } };
            name(header, to, size_of::<libc::sockaddr_in6>());
            control(header, info, control_len::<libc::in6_pktinfo>(run));
        }
    }
}

fn control_len<I>(run: &Run) -> usize {
    if run.count > 1 { size_of::<RunInfo<I>>() } else { size_of::<PacketInfo<I>>() }
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

fn name(header: &mut libc::msghdr, name: &mut Name, len: usize) {
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_namelen = len as libc::socklen_t;
}

fn control(header: &mut libc::msghdr, control: &mut Control, len: usize) {
    header.msg_control = ptr::from_mut(control).cast();
    header.msg_controllen = len as _;
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

const fn unnamed() -> Name {
    // SAFETY: integers only, in either family.
    unsafe { mem::zeroed() }
}

const fn nothing() -> Control {
    // SAFETY: integers only, in either family.
    unsafe { mem::zeroed() }
}

fn packet_info_v4(local: IpAddr) -> Four {
    let local = if let IpAddr::V4(local) = local { local } else { Ipv4Addr::UNSPECIFIED };
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: to_network(local),
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    PacketInfo { header: message(FOUR_LEN, libc::IPPROTO_IP, libc::IP_PKTINFO), info }
}

fn packet_info_v6(local: Ipv6Addr) -> Six {
    let info = libc::in6_pktinfo { ipi6_addr: to_network_v6(local), ipi6_ifindex: 0 };
    PacketInfo { header: message(SIX_LEN, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info }
}

fn segment_size(size: u16) -> SegmentSize {
    SegmentSize { header: message(SEGMENT_SIZE_LEN, libc::SOL_UDP, libc::UDP_SEGMENT), size }
}

fn message(len: usize, level: i32, kind: i32) -> libc::cmsghdr {
    libc::cmsghdr { cmsg_len: len as _, cmsg_level: level, cmsg_type: kind }
}

/// Our address as an IPv6 socket is told it: in the form that fits the other side's, also where the kernel chooses
/// (`ip_cmsg_send` in net/ipv4/ip_sockglue.c refuses `::` ahead of IPv4).
fn local_v6(local: IpAddr, remote: SocketAddr) -> Ipv6Addr {
    match (local, remote) {
        (IpAddr::V6(local), _) => local,
        (IpAddr::V4(local), SocketAddr::V4(_)) => local.to_ipv6_mapped(),
        (IpAddr::V4(_), SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED,
    }
}

fn name_v4(address: SocketAddr) -> libc::sockaddr_in {
    let ip = if let IpAddr::V4(ip) = address.ip() { ip } else { Ipv4Addr::UNSPECIFIED };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: to_network(ip),
        sin_zero: [0; 8],
    }
}

fn name_v6(address: SocketAddr) -> libc::sockaddr_in6 {
    let (ip, scope) = match address {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
        SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
    };
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: address.port().to_be(),
        sin6_flowinfo: 0,
        sin6_addr: to_network_v6(ip),
        sin6_scope_id: scope,
    }
}

fn from_name(name: &Name) -> SocketAddr {
    // SAFETY: integers only, all of them written: by the kernel, or as zero before.
    let (four, six) = unsafe { (name.four, name.six) };
    if i32::from(six.sin6_family) != libc::AF_INET6 {
        return SocketAddrV4::new(from_network(four.sin_addr), u16::from_be(four.sin_port)).into();
    }
    let (ip, port) = (Ipv6Addr::from(six.sin6_addr.s6_addr), u16::from_be(six.sin6_port));
    match ip.to_ipv4_mapped() {
        Some(ip) => SocketAddrV4::new(ip, port).into(),
        None => SocketAddrV6::new(ip, port, 0, six.sin6_scope_id).into(),
    }
}

/// Our address as the kernel wrote it into `len` bytes of control messages; unspecified when it did not.
fn from_control(control: &Control, len: usize) -> IpAddr {
    // SAFETY: integers only, all of them written: by the kernel, or as zero before.
    let (four, six) = unsafe { (control.four.packet, control.six.packet) };
    match (four.header.cmsg_level, four.header.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) if len >= FOUR_LEN => {
            from_network(four.info.ipi_spec_dst).into()
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if len >= SIX_LEN => {
            Ipv6Addr::from(six.info.ipi6_addr.s6_addr).to_canonical()
        }
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

const fn to_network(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) }
}

const fn to_network_v6(address: Ipv6Addr) -> libc::in6_addr {
    libc::in6_addr { s6_addr: address.octets() }
}

fn from_network(address: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(address.s_addr.to_ne_bytes())
}
