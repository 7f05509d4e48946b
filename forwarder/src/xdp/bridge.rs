//! The ioctls of the kernel bridge that bridge-utils speaks, each as a safe function.
//!
//! Numbers and layouts: `include/uapi/linux/if_bridge.h`, `include/uapi/linux/sockios.h`; what the kernel does with
//! them: `net/bridge/br_ioctl.c`. Netlink says more, but answers some mistakes with other errors than these.

use std::{
    ffi::OsStr,
    io, mem,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
};

use nix::libc::{self, Ioctl, c_ulong};

/// Most bridges and most ports asked for at once, as bridge-utils does. A bridge has at most 1023 ports.
const LIST: usize = 1024;
/// Forwarding entries that fit into a page: the kernel gives no more at once.
const ENTRIES: usize = 256;

const SIOCGIFBR: Ioctl = 0x8940;
const SIOCSIFBR: Ioctl = 0x8941;
const SIOCDEVPRIVATE: Ioctl = 0x89f0;

const BRCTL_GET_BRIDGES: c_ulong = 1;
const BRCTL_GET_BRIDGE_INFO: c_ulong = 6;
const BRCTL_GET_PORT_LIST: c_ulong = 7;
const BRCTL_GET_PORT_INFO: c_ulong = 13;
const BRCTL_GET_FDB_ENTRIES: c_ulong = 18;

/// Requests that name a bridge: with the number of the old way to say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bridge {
    /// `SIOCBRADDBR`
    Add,
    /// `SIOCBRDELBR`
    Delete,
}

/// Requests that name a bridge and an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// `SIOCBRADDIF`
    Add,
    /// `SIOCBRDELIF`
    Delete,
}

/// Old requests whose arguments are numbers: `BRCTL_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Number {
    /// Asks for the interface's version: nothing changes.
    Version = 0,
    /// Adds the interface of this index.
    AddInterface = 4,
    /// Removes the interface of this index.
    DeleteInterface = 5,
    /// Hundredths of a second.
    ForwardDelay = 8,
    /// Hundredths of a second.
    HelloTime = 9,
    /// Hundredths of a second.
    MaxAge = 10,
    /// Hundredths of a second.
    AgeingTime = 11,
    /// 0 or 1.
    StpState = 14,
    /// Of the bridge.
    Priority = 15,
    /// Port number, priority.
    PortPriority = 16,
    /// Port number, cost.
    PathCost = 17,
}

/// What the kernel says of a bridge. Times are in hundredths of a second. Source: `struct __bridge_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "fields of the kernel's own structure")]
pub struct BridgeInfo {
    pub designated_root: [u8; 8],
    pub bridge_id: [u8; 8],
    pub root_path_cost: u32,
    pub max_age: u32,
    pub hello_time: u32,
    pub forward_delay: u32,
    pub bridge_max_age: u32,
    pub bridge_hello_time: u32,
    pub bridge_forward_delay: u32,
    pub topology_change: u8,
    pub topology_change_detected: u8,
    pub root_port: u8,
    pub stp_enabled: u8,
    pub ageing_time: u32,
    pub gc_interval: u32,
    pub hello_timer: u32,
    pub tcn_timer: u32,
    pub topology_change_timer: u32,
    pub gc_timer: u32,
}

/// What the kernel says of a port. Times are in hundredths of a second. Source: `struct __port_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "fields of the kernel's own structure")]
pub struct PortInfo {
    pub designated_root: [u8; 8],
    pub designated_bridge: [u8; 8],
    pub port_id: u16,
    pub designated_port: u16,
    pub path_cost: u32,
    pub designated_cost: u32,
    pub state: u8,
    pub top_change_ack: u8,
    pub config_pending: u8,
    pub unused: u8,
    pub message_age_timer: u32,
    pub forward_delay_timer: u32,
    pub hold_timer: u32,
    /// The kernel's structure is as aligned as 64-bit numbers.
    pub rest: u32,
}

/// One forwarding entry as the kernel lays it out. Source: `struct __fdb_entry`.
pub type FdbBytes = [u8; 16];

// Sizes are the kernel's: it writes that much.
const _: () = assert!(size_of::<BridgeInfo>() == 72 && size_of::<PortInfo>() == 48);

/// A socket to ask the kernel bridge by.
#[derive(Debug)]
pub struct BridgeSocket(UnixDatagram);

impl BridgeSocket {
    /// A new one. Any socket of the network namespace will do.
    ///
    /// # Errors
    /// What `socket` says.
    pub fn open() -> io::Result<Self> {
        UnixDatagram::unbound().map(Self)
    }

    /// Makes or removes a bridge. The kernel cuts a name after 15 bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bridge(&self, request: Bridge, name: &OsStr) -> io::Result<()> {
        let code = match request {
            Bridge::Add => 0x89a0,
            Bridge::Delete => 0x89a1,
        };
        let mut name = interface_name(name);
        // SAFETY: the kernel reads `IFNAMSIZ` bytes, which `name` has.
        checked(unsafe { libc::ioctl(self.0.as_raw_fd(), code, name.as_mut_ptr()) }).map(drop)
    }

    /// The same in the old way.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bridge_by_old_way(&self, request: Bridge, name: &OsStr) -> io::Result<()> {
        let code: c_ulong = match request {
            Bridge::Add => 2,
            Bridge::Delete => 3,
        };
        let mut name = interface_name(name);
        let mut arguments = [code, address(&mut name), 0];
        // SAFETY: the kernel reads three numbers, and `IFNAMSIZ` bytes where the second points: both are live.
        checked(unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCSIFBR, arguments.as_mut_ptr()) }).map(drop)
    }

    /// Indices of all bridges.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bridges(&self) -> io::Result<Vec<u32>> {
        let mut indices = [0u32; LIST];
        let mut arguments = [BRCTL_GET_BRIDGES, address(&mut indices), LIST as c_ulong];
        // SAFETY: the kernel reads three numbers and writes at most `LIST` indices where the second points: both live.
        let found = unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCGIFBR, arguments.as_mut_ptr()) };
        let found = checked(found)?;
        Ok(indices.into_iter().take(found).collect())
    }

    /// Adds or removes an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn port(&self, request: Port, bridge: &OsStr, interface: u32) -> io::Result<()> {
        let code = match request {
            Port::Add => 0x89a2,
            Port::Delete => 0x89a3,
        };
        let mut asked = ifreq(bridge);
        // An index the kernel gave fits; another is none.
        asked.ifr_ifru.ifru_ifindex = interface.try_into().unwrap_or(0);
        // SAFETY: the kernel reads one `struct ifreq`, which is live.
        checked(unsafe { libc::ioctl(self.0.as_raw_fd(), code, &raw mut asked) }).map(drop)
    }

    /// Says `request` with its numbers in the old way.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn number(&self, bridge: &OsStr, request: Number, numbers: [c_ulong; 2]) -> io::Result<()> {
        let [first, second] = numbers;
        // SAFETY: no request of `Number` has a pointer among its arguments.
        unsafe { self.private(bridge, [c_ulong::from(request as u8), first, second, 0]) }.map(drop)
    }

    /// What `bridge` is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bridge_info(&self, bridge: &OsStr) -> io::Result<BridgeInfo> {
        let mut info = BridgeInfo::default();
        // SAFETY: the kernel writes one `struct __bridge_info` where the second argument points, and `info` is one.
        unsafe { self.private(bridge, [BRCTL_GET_BRIDGE_INFO, address(&mut info), 0, 0]) }?;
        Ok(info)
    }

    /// Index of the interface of each port, at the port's number; 0 where there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ports(&self, bridge: &OsStr) -> io::Result<Vec<u32>> {
        let mut indices = vec![0u32; LIST];
        let to = indices.as_mut_ptr().expose_provenance() as c_ulong;
        // SAFETY: the kernel writes at most `LIST` indices where the second argument points, and so many are there.
        unsafe { self.private(bridge, [BRCTL_GET_PORT_LIST, to, LIST as c_ulong, 0]) }?;
        Ok(indices)
    }

    /// What the port of this number is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn port_info(&self, bridge: &OsStr, number: usize) -> io::Result<PortInfo> {
        let mut info = PortInfo::default();
        // SAFETY: the kernel writes one `struct __port_info` where the second argument points, and `info` is one.
        unsafe { self.private(bridge, [BRCTL_GET_PORT_INFO, address(&mut info), number as c_ulong, 0]) }?;
        Ok(info)
    }

    /// Forwarding entries after the first `skip`; empty at the end.
    ///
    /// # Errors
    /// What the kernel says; `EAGAIN` if the table changed meanwhile.
    pub fn entries(&self, bridge: &OsStr, skip: usize) -> io::Result<Vec<FdbBytes>> {
        let mut entries = vec![FdbBytes::default(); ENTRIES];
        let to = entries.as_mut_ptr().expose_provenance() as c_ulong;
        let arguments = [BRCTL_GET_FDB_ENTRIES, to, ENTRIES as c_ulong, skip as c_ulong];
        // SAFETY: the kernel writes at most `ENTRIES` entries where the second argument points, and so many are there.
        let found = unsafe { self.private(bridge, arguments) }?;
        entries.truncate(found);
        Ok(entries)
    }

    /// # Safety
    /// Where `arguments` has a pointer, there must be what the request reads or room for what it writes.
    unsafe fn private(&self, bridge: &OsStr, mut arguments: [c_ulong; 4]) -> io::Result<usize> {
        let mut asked = ifreq(bridge);
        asked.ifr_ifru.ifru_data = arguments.as_mut_ptr().cast();
        // SAFETY: the kernel reads one `struct ifreq` and the four numbers it points to, which are live; for what those
        // point to the caller answers.
        checked(unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCDEVPRIVATE, &raw mut asked) })
    }
}

/// Where `place` is, as the kernel takes it: among numbers.
fn address<T>(place: &mut T) -> c_ulong {
    (&raw mut *place).expose_provenance() as c_ulong
}

/// The name, cut as bridge-utils and the kernel do; the last byte stays zero.
fn interface_name(name: &OsStr) -> [u8; libc::IFNAMSIZ] {
    let mut bytes = [0; libc::IFNAMSIZ];
    for (to, from) in bytes.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.as_bytes()) {
        *to = *from;
    }
    bytes
}

fn ifreq(bridge: &OsStr) -> libc::ifreq {
    // SAFETY: `ifreq` is plain data: bytes, integers and addresses, for which zero is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_name = interface_name(bridge).map(|byte| libc::c_char::from_ne_bytes([byte]));
    request
}

/// What a call returned, unless it failed.
fn checked(code: i32) -> io::Result<usize> {
    usize::try_from(code).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(outcome: io::Result<impl Sized>) -> Option<i32> {
        outcome.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn what_is_no_bridge_is_told_by_the_kernels_own_errors() {
        let socket = BridgeSocket::open().unwrap();
        let (none, loopback) = (OsStr::new("no-such-bridge"), OsStr::new("lo"));
        assert_eq!(code(socket.bridge_info(none)), Some(libc::ENODEV));
        assert_eq!(code(socket.bridge_info(loopback)), Some(libc::EOPNOTSUPP));
        assert_eq!(code(socket.ports(none)), Some(libc::ENODEV));
        assert_eq!(code(socket.entries(loopback, 0)), Some(libc::EOPNOTSUPP));
        assert_eq!(code(socket.number(loopback, Number::Version, [0, 0])), Some(libc::EOPNOTSUPP));
    }

    #[test]
    fn names_are_cut_after_fifteen_bytes() {
        assert_eq!(&interface_name(OsStr::new("abcdefghijklmnopqrs")), b"abcdefghijklmno\0");
        assert_eq!(&interface_name(OsStr::new("br0")), b"br0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }
}
