//! Opening the tunnel's sockets as one `SO_REUSEPORT` group that sorts control from data.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
};

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::xdp::sys::{self, Instruction};

/// Asked for in each direction: a batch of full-size packets for every peer of a busy server. Too low loses packets
/// when a thread is late, too high only costs memory while it is late.
const BUFFER_BYTES: usize = 4 << 20;

/// Opcodes, the high five bits of a packet's first byte. Source: brief A.1.
const P_DATA_V1: u32 = 6;
const P_DATA_V2: u32 = 9;

/// Why the tunnel's port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The port is taken.
    #[error(
        "UDP port {} of {} is in use: stop the other server (`ss -lunp` names it), or choose another with `port`",
        .0.port(), .0.ip()
    )]
    InUse(SocketAddr),
    /// The address is not ours.
    #[error("{} is no address of this host: correct `local`, or leave it out to listen on every address", .0.ip())]
    NotOurs(SocketAddr),
    /// A privileged port.
    #[error("UDP port {} may not be opened: ports below 1024 need root or CAP_NET_BIND_SERVICE", .0.port())]
    Forbidden(SocketAddr),
    /// IPv6 is wanted of a kernel that has none.
    #[error("this kernel has no IPv6: write `proto udp` and IPv4 addresses behind `local`, or turn IPv6 on")]
    NoIpv6,
    /// Anything else.
    #[error("UDP port {} cannot be opened on {} ({source}): see the system's log", .address.port(), .address.ip())]
    Other {
        /// What was to be opened.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What the tunnel's sockets are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Address and port; `[::]` is every address of the host, those of IPv4 included.
    pub address: SocketAddr,
    /// `bind ipv6only`: `[::]` without those of IPv4.
    pub v6_only: bool,
}

impl From<SocketAddr> for Bind {
    fn from(address: SocketAddr) -> Self {
        Self { address, v6_only: false }
    }
}

/// Opens `bind` for one control thread and `workers` workers: the control thread's socket, then the workers', in the
/// order that the packets are sorted by (worker number `peer_id % workers`). With port 0 the kernel chooses one.
///
/// # Errors
/// See [`OpenError`].
pub fn open(bind: impl Into<Bind>, workers: usize) -> Result<(UdpSocket, Vec<UdpSocket>), OpenError> {
    let bind = bind.into();
    let bind = available(bind).map_err(|error| refused(bind.address, error))?;
    open_group(bind, workers).map_err(|error| refused(bind.address, error))
}

/// Binds without sharing once: a group of our own would join that of another server, which then loses its packets.
fn available(bind: Bind) -> io::Result<Bind> {
    let alone = unbound(bind)?;
    alone.bind(&bind.address.into())?;
    let mut address = bind.address;
    address.set_port(UdpSocket::from(alone).local_addr()?.port());
    Ok(Bind { address, ..bind })
}

fn open_group(bind: Bind, workers: usize) -> io::Result<(UdpSocket, Vec<UdpSocket>)> {
    // The order of binding is the number in the group.
    let control = member(bind)?;
    let others = (0..workers).map(|_| member(bind)).collect::<io::Result<_>>()?;
    if let Some(program) = sorter(workers) {
        sys::attach_reuseport_program(control.as_fd(), &program)?;
    }
    Ok((control, others))
}

fn unbound(bind: Bind) -> io::Result<Socket> {
    let domain = Domain::for_address(bind.address);
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(bind.v6_only)?;
    }
    Ok(socket)
}

fn member(bind: Bind) -> io::Result<UdpSocket> {
    let socket = unbound(bind)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    // DF 0, and fragments are made here: a packet longer than the path takes must still arrive. A socket of IPv6 takes
    // both options: IPv4's for what it sends there.
    let never = |level, name, value| sys::set_socket_option(socket.as_fd(), level, name, value);
    never(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    if bind.address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        never(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    enlarge_buffers(&socket);
    socket.bind(&bind.address.into())?;
    Ok(socket.into())
}

/// As large as allowed: beyond `net.core.rmem_max` with CAP_NET_ADMIN only. Smaller ones work, and lose more.
fn enlarge_buffers(socket: &Socket) {
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    }
    if setsockopt(socket, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    }
}

/// The program that sorts: it sees the UDP payload, returns a number in the group, and a payload too short to read is
/// number 0, as is everything without workers (`None`).
fn sorter(workers: usize) -> Option<[Instruction; 11]> {
    let workers = u32::try_from(workers).ok().filter(|workers| *workers > 0)?;
    Some([
        Instruction::load_byte(0),
        Instruction::shift_right(3),
        Instruction::jump_if_equal(P_DATA_V2, 2, 0),
        Instruction::jump_if_equal(P_DATA_V1, 6, 0),
        Instruction::return_value(0),
        // The peer id is the low 24 bits of the first word.
        Instruction::load_word(0),
        Instruction::and(0x00ff_ffff),
        Instruction::modulo(workers),
        Instruction::add(1),
        Instruction::return_accumulator(),
        // No peer is named: one worker sees them all, so that a peer's stay in order, and hands them over.
        Instruction::return_value(1),
    ])
}

fn refused(address: SocketAddr, source: io::Error) -> OpenError {
    if source.raw_os_error() == Some(libc::EAFNOSUPPORT) && address.is_ipv6() {
        return OpenError::NoIpv6;
    }
    match source.kind() {
        io::ErrorKind::AddrInUse => OpenError::InUse(address),
        io::ErrorKind::AddrNotAvailable => OpenError::NotOurs(address),
        io::ErrorKind::PermissionDenied => OpenError::Forbidden(address),
        _ => OpenError::Other { address, source },
    }
}
