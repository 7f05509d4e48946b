//! The two facts about a network interface that attaching needs.

use std::{
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
};

use nix::{libc, net::if_::if_nametoindex};

use super::refusal::AttachError;

/// Index of the interface with this name.
pub(super) fn index(interface: &str) -> Result<u32, AttachError> {
    if_nametoindex(interface).map_err(|_| AttachError::NoInterface { interface: interface.to_owned() })
}

/// Its MTU in bytes, or `None` if there is no such interface.
pub(super) fn mtu(interface: &str) -> Option<u32> {
    // By ioctl and not from /sys, which may show another network namespace's interfaces.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    let mut request = request_for(interface)?;
    // SAFETY: SIOCGIFMTU reads the name, which ends in a zero byte, and writes the MTU, both within the `ifreq` that
    // `request` is; the socket is open.
    let failed = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &mut request) } != 0;
    if failed {
        return None;
    }
    // SAFETY: the kernel has written this member of the union, and any integer is valid in it.
    unsafe { request.ifr_ifru.ifru_mtu }.try_into().ok()
}

fn request_for(interface: &str) -> Option<libc::ifreq> {
    // SAFETY: `ifreq` is plain data: bytes, integers and addresses, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    // One byte stays zero, to end the name.
    let room = request.ifr_name.len().checked_sub(1)?;
    for (to, from) in request.ifr_name.get_mut(..room)?.get_mut(..name.len())?.iter_mut().zip(name) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_an_index_and_a_large_mtu() {
        assert!(index("lo").is_ok());
        assert!(mtu("lo").is_some_and(|mtu| mtu >= 16_384));
    }

    #[test]
    fn a_name_that_is_none_has_neither() {
        assert!(matches!(index("no-such-interface-here"), Err(AttachError::NoInterface { .. })));
        assert_eq!(mtu("none0"), None);
        assert_eq!(mtu("a-name-longer-than-sixteen-bytes"), None);
    }
}
