//! The few system calls no library wraps safely, each as a small safe function.

use std::{
    ffi::CString,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::libc;

/// `XDP_OPTIONS_ZEROCOPY` of `include/uapi/linux/if_xdp.h`.
const XDP_OPTIONS_ZEROCOPY: u32 = 1;

/// True if the AF_XDP socket got zero-copy. (On any error: it did not.)
pub fn is_zero_copy(xsk: BorrowedFd<'_>) -> bool {
    let mut options: u32 = 0;
    let mut size = size_of_val(&options) as libc::socklen_t;
    // SAFETY: the pointers are to live locals, and `size` says how large the first is; `struct xdp_options` is one u32.
    let code = unsafe {
        libc::getsockopt(
            xsk.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_OPTIONS,
            (&raw mut options).cast(),
            &raw mut size,
        )
    };
    code == 0 && options & XDP_OPTIONS_ZEROCOPY != 0
}

/// Sets a socket option that is an `int`.
///
/// # Errors
/// What `setsockopt` says.
pub fn set_socket_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set(socket, level, name, &value)
}

/// Sets a socket option from plain data.
fn set<T: Copy>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is to a live value of `size` bytes, which the kernel only reads.
    let code = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), size) };
    checked(code)
}

/// Whether the kernel knows AF_XDP sockets at all.
pub fn has_af_xdp() -> bool {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return io::Error::last_os_error().raw_os_error() != Some(libc::EAFNOSUPPORT);
    }
    // SAFETY: the descriptor was just made here and has no other owner.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    true
}

/// Lets the calling thread give way to others: 0 as before, 19 most.
///
/// # Errors
/// What `setpriority` says.
pub fn be_nice(niceness: i32) -> io::Result<()> {
    // On Linux a "process" of number 0 is the calling thread. Source: setpriority(2), "C library/kernel differences".
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) })
}

/// Packets the kernel dropped because nobody read the socket fast enough (`SK_MEMINFO_DROPS`, include/uapi/linux/sock_diag.h).
///
/// # Errors
/// What `getsockopt` says.
pub fn socket_drops(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SK_MEMINFO_DROPS: usize = 8;
    let mut memory = [0u32; SK_MEMINFO_DROPS + 1];
    let mut size = size_of_val(&memory) as libc::socklen_t;
    let (fd, values) = (socket.as_raw_fd(), memory.as_mut_ptr());
    // SAFETY: `values` is valid for `size` bytes, and the kernel writes no more than that.
    let code =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, values.cast(), &raw mut size) };
    checked(code)?;
    Ok(memory[SK_MEMINFO_DROPS].into())
}

/// The number of the network namespace a socket belongs to: unique since the machine started. (Linux 5.14)
///
/// # Errors
/// What `getsockopt` says.
pub fn network_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    /// Of `include/uapi/asm-generic/socket.h`; the libraries have it not yet.
    const SO_NETNS_COOKIE: i32 = 71;
    let mut cookie = 0u64;
    let mut size = size_of_val(&cookie) as libc::socklen_t;
    let (fd, value) = (socket.as_raw_fd(), (&raw mut cookie).cast());
    // SAFETY: `value` is valid for `size` bytes, and the kernel writes no more than that.
    checked(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, value, &raw mut size) })?;
    Ok(cookie)
}

/// One instruction of a classic BPF program. Source: `include/uapi/linux/filter.h`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Instruction(libc::sock_filter);

impl Instruction {
    const fn new(code: u32, jt: u8, jf: u8, k: u32) -> Self {
        Self(libc::sock_filter { code: code as u16, jt, jf, k })
    }

    /// Loads the byte at `offset`; behind the packet's end the program returns 0.
    pub const fn load_byte(offset: u32) -> Self {
        Self::new(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, offset)
    }

    /// Loads the big-endian word at `offset`; behind the packet's end the program returns 0.
    pub const fn load_word(offset: u32) -> Self {
        Self::new(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
    }

    /// Shifts what is loaded.
    pub const fn shift_right(bits: u32) -> Self {
        Self::new(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 0, 0, bits)
    }

    /// Masks what is loaded.
    pub const fn and(mask: u32) -> Self {
        Self::new(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask)
    }

    /// Keeps the remainder by `divisor`.
    pub const fn modulo(divisor: u32) -> Self {
        Self::new(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, divisor)
    }

    /// Adds to what is loaded.
    pub const fn add(value: u32) -> Self {
        Self::new(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, 0, 0, value)
    }

    /// Skips `then` instructions if what is loaded equals `value`, else `otherwise` instructions.
    pub const fn jump_if_equal(value: u32, then: u8, otherwise: u8) -> Self {
        Self::new(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, then, otherwise, value)
    }

    /// Ends with `value`.
    pub const fn return_value(value: u32) -> Self {
        Self::new(libc::BPF_RET | libc::BPF_K, 0, 0, value)
    }

    /// Ends with what is loaded.
    pub const fn return_accumulator() -> Self {
        Self::new(libc::BPF_RET | libc::BPF_A, 0, 0, 0)
    }
}

/// Has `program` choose the socket of a `SO_REUSEPORT` group for each packet. The kernel checks the program.
///
/// # Errors
/// What `setsockopt` says; `InvalidInput` for a program of more than 65,535 instructions.
pub fn attach_reuseport_program(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel copies the program, whose pointer and length are those of one live slice.
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

/// Binds a packet socket to an interface. `protocol` is an EtherType; 0: it receives nothing.
///
/// # Errors
/// What `bind` says.
pub fn bind_packet_socket(socket: BorrowedFd<'_>, interface: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: integers only, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index(interface)?;
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer is to a live sockaddr_ll of `size` bytes, which the kernel only reads.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) })
}

/// Makes the interface receive what is addressed to others, for as long as the packet socket lives.
///
/// # Errors
/// What `setsockopt` says.
pub fn add_promiscuous(socket: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    let membership = libc::packet_mreq {
        mr_ifindex: index(interface)?,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
}

fn index(interface: u32) -> io::Result<i32> {
    i32::try_from(interface).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

/// Makes a file opened from `/dev/net/tun` into the interface `name` (`tap%d`: the kernel numbers it) and returns the
/// name it got. `flags` are `IFF_TAP` and so on.
///
/// # Errors
/// What the kernel says; `InvalidInput` for a name longer than 15 bytes.
pub fn set_tap(file: &impl AsFd, name: &str, flags: i32) -> io::Result<String> {
    // SAFETY: integers only, for which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero: it ends the name.
    let room = &mut request.ifr_name[..libc::IFNAMSIZ - 1];
    if name.len() > room.len() || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in room.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which is live.
    checked(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8 as char).collect())
}

/// Says which offloads the reader of a TAP knows: `TUN_F_CSUM` and so on.
///
/// # Errors
/// What the kernel says.
pub fn set_tap_offload(file: &impl AsFd, offload: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes a number, no pointer.
    checked(unsafe {
        libc::ioctl(file.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offload))
    })
}

/// Has a write to a closed pipe end the process, as it does programs in C: Rust's start-up code ignores the signal.
pub fn end_at_broken_pipe() {
    // SAFETY: the default action replaces "ignore"; no handler of ours is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// The number at the start of `text` as C's `scanf` reads `%i`: white space, sign, `0x` or `0`, and what overflows is
/// cut. `None` if there is none.
pub fn scan_integer(text: &[u8]) -> Option<i32> {
    let text = c_text(text)?;
    let mut value = 0;
    // SAFETY: both strings end in zero, and `%i` has `value` to write to, an `int`.
    let found = unsafe { libc::sscanf(text.as_ptr(), c"%i".as_ptr(), &raw mut value) };
    (found == 1).then_some(value)
}

/// The number at the start of `text` as C's `scanf` reads `%lf`: also `1e3`, `0x1p3`, `inf`. `None` if there is none.
pub fn scan_decimal(text: &[u8]) -> Option<f64> {
    let text = c_text(text)?;
    let mut value = 0.0;
    // SAFETY: both strings end in zero, and `%lf` has `value` to write to, a `double`.
    let found = unsafe { libc::sscanf(text.as_ptr(), c"%lf".as_ptr(), &raw mut value) };
    (found == 1).then_some(value)
}

/// What a C program sees of `text`: up to the first zero.
fn c_text(text: &[u8]) -> Option<CString> {
    CString::new(text.split(|byte| *byte == 0).next()?).ok()
}

fn checked(code: i32) -> io::Result<()> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
