//! The headers ahead of a datagram of the tunnel's socket: made up on the way in, read on the way out.
//!
//! ```text
//!   socket of IPv4, from IPv4   Ethernet 14 │ IPv4 20              │ UDP 8 │ payload from 42 on
//!   socket of IPv6, from IPv6   Ethernet 14 │ IPv6 40              │ UDP 8 │ payload from 62 on
//!   socket of IPv6, from IPv4   Ethernet 14 │ IPv4 20 + 20 options │ UDP 8 │ payload from 62 on
//! ```
//!
//! Hardware addresses are zero, but for the scope of a link-local IPv6 address (the number of its interface) in the last
//! four bytes of the first.
//!
//! A payload's place must be known before it is received, and from whom it is only afterwards. So what an IPv6 socket
//! receives over IPv4 gets options that say nothing, as long as the difference.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    ops::Range,
};

use crate::{
    ports::checksum,
    xdp::datagrams::{Datagram, Family},
};

const ETHERNET: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;

/// Bytes ahead of a payload over IPv4.
pub const LEN: usize = ETHERNET + IPV4_LEN + UDP_LEN;
/// Bytes ahead of a payload over IPv6.
pub const LEN_V6: usize = ETHERNET + IPV6_LEN + UDP_LEN;

/// Where a socket's payloads are received.
pub const fn len(family: Family) -> usize {
    match family {
        Family::V4 => LEN,
        Family::V6 => LEN_V6,
    }
}

/// Where a link-local address's scope stands.
pub const SCOPE: Range<usize> = 2..6;
const ETHER_TYPE: Range<usize> = 12..14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const HOPS: u8 = 64;
const PROTOCOL_UDP: u8 = 17;

/// Writes the headers of a datagram that was received on a socket of `family`, with `local` as its destination; its
/// payload stands behind them in `room`, from [`len`] on. The UDP checksum is "none": the kernel has checked it. False
/// if the datagram does not fit.
#[must_use]
pub fn write(room: &mut [u8], family: Family, datagram: &Datagram, local: SocketAddr) -> bool {
    let Ok(udp) = u16::try_from(UDP_LEN + datagram.len) else { return false };
    let Some((header, payload)) = room.split_at_mut_checked(len(family)) else { return false };
    if payload.len() < datagram.len {
        return false;
    }
    header.fill(0);
    let (packet, ports) = header.split_at_mut(len(family) - UDP_LEN);
    match (datagram.remote, local) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) if write_ipv4(packet, *from.ip(), *to.ip(), udp) => {}
        (SocketAddr::V6(from), SocketAddr::V6(to)) if family == Family::V6 => {
            packet[SCOPE].copy_from_slice(&from.scope_id().to_be_bytes());
            write_ipv6(packet, *from.ip(), *to.ip(), udp)
        }
        _ => return false,
    }
    ports[0..2].copy_from_slice(&datagram.remote.port().to_be_bytes());
    ports[2..4].copy_from_slice(&local.port().to_be_bytes());
    ports[4..6].copy_from_slice(&udp.to_be_bytes());
    true
}

/// False for a packet longer than IPv4 has. `packet` is Ethernet and IP header, zero, and as long as it is to become.
fn write_ipv4(packet: &mut [u8], from: Ipv4Addr, to: Ipv4Addr, udp: u16) -> bool {
    packet[ETHER_TYPE].copy_from_slice(&IPV4);
    let header = &mut packet[ETHERNET..];
    // At most 40 bytes.
    let Some(total) = udp.checked_add(header.len() as u16) else { return false };
    header[0] = 4 << 4 | (header.len() / 4) as u8;
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[8] = HOPS;
    header[9] = PROTOCOL_UDP;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum = checksum::finished(checksum::sum(header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    true
}

fn write_ipv6(packet: &mut [u8], from: Ipv6Addr, to: Ipv6Addr, udp: u16) {
    packet[ETHER_TYPE].copy_from_slice(&IPV6);
    let header = &mut packet[ETHERNET..];
    header[0] = 6 << 4;
    header[4..6].copy_from_slice(&udp.to_be_bytes());
    header[6] = PROTOCOL_UDP;
    header[7] = HOPS;
    header[8..24].copy_from_slice(&from.octets());
    header[24..40].copy_from_slice(&to.octets());
}

/// To whom a frame goes and from which of our addresses, and its payload. `None` for anything but a whole UDP packet
/// over IPv4 without options, or over IPv6 without extension headers. Bytes behind the packet (padding) do not count.
pub fn read(frame: &[u8]) -> Option<(Datagram, &[u8])> {
    let (local, remote, udp) = ends(frame)?;
    let (&[_, _, p, q, l0, l1, _, _], behind) = frame.get(udp..)?.split_first_chunk::<UDP_LEN>()?;
    let len = usize::from(u16::from_be_bytes([l0, l1])).checked_sub(UDP_LEN)?;
    let port = u16::from_be_bytes([p, q]);
    let remote = match remote {
        IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope(ip, frame)).into(),
    };
    Some((Datagram { remote, local, len, truncated: false }, behind.get(..len)?))
}

/// The address of ours that a frame to be sent leaves from.
pub fn source(frame: &[u8]) -> Option<SocketAddr> {
    let (local, _, udp) = ends(frame)?;
    let port = frame.get(udp..)?.first_chunk().copied().map(u16::from_be_bytes)?;
    Some(SocketAddr::new(local, port))
}

/// The scope of an address of a frame that [`write`] made, or that leaves by the socket.
pub fn scope(address: Ipv6Addr, frame: &[u8]) -> u32 {
    let scope = frame.get(SCOPE).and_then(<[u8]>::first_chunk).filter(|_| address.is_unicast_link_local());
    scope.map_or(0, |scope| u32::from_be_bytes(*scope))
}

/// Source, destination, and where the UDP header begins.
fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr, usize)> {
    let packet = frame.get(ETHERNET..)?;
    match *frame.get(ETHER_TYPE)?.first_chunk()? {
        IPV4 => read_ipv4(packet.first_chunk()?),
        IPV6 => read_ipv6(packet.first_chunk()?),
        _ => None,
    }
}

fn read_ipv4(header: &[u8; IPV4_LEN]) -> Option<(IpAddr, IpAddr, usize)> {
    let [0x45, _, _, _, _, _, _, _, _, PROTOCOL_UDP, _, _, addresses @ ..] = header else { return None };
    let ([a, b, c, d, e, f, g, h], _) = addresses.split_first_chunk()?;
    Some(([*a, *b, *c, *d].into(), [*e, *f, *g, *h].into(), ETHERNET + IPV4_LEN))
}

fn read_ipv6(header: &[u8; IPV6_LEN]) -> Option<(IpAddr, IpAddr, usize)> {
    let (&[first, _, _, _, _, _, PROTOCOL_UDP, _], addresses) = header.split_first_chunk()? else {
        return None;
    };
    let (source, destination) = (addresses.first_chunk::<16>()?, addresses.last_chunk::<16>()?);
    (first >> 4 == 6).then(|| ((*source).into(), (*destination).into(), ETHERNET + IPV6_LEN))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `write` wrote, seen from the other side: addresses and ports change places, and options are left out.
    fn turned(frame: &[u8]) -> Vec<u8> {
        let is_six = frame[ETHER_TYPE] == IPV6;
        let header = if is_six { IPV6_LEN } else { usize::from(frame[ETHERNET] & 15) * 4 };
        let (ip, size) = if is_six { (ETHERNET + 8, 16) } else { (ETHERNET + 12, 4) };
        let mut turned = frame.to_vec();
        turned[ip..ip + 2 * size].rotate_left(size);
        let ports = ETHERNET + header;
        turned[ports..ports + 4].rotate_left(2);
        if !is_six {
            turned[ETHERNET] = 0x45;
            turned.drain(ETHERNET + IPV4_LEN..ports);
        }
        turned
    }

    fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let four = |(ip, port): (u32, u16)| SocketAddr::from((Ipv4Addr::from(ip), port));
        // Not link-local: those have a scope, at one end only.
        let six = |(ip, port): (u128, u16)| SocketAddr::from((Ipv6Addr::from(ip >> 3 | 1 << 125), port));
        prop_oneof![
            (any::<(u32, u16)>(), any::<(u32, u16)>()).prop_map(move |(a, b)| (four(a), four(b))),
            (any::<(u128, u16)>(), any::<(u128, u16)>()).prop_map(move |(a, b)| (six(a), six(b))),
        ]
    }

    proptest! {
        #[test]
        fn an_answer_to_what_was_written_goes_back_the_same_way(
            (remote, local) in addresses(), six: bool, payload in prop::collection::vec(any::<u8>(), 0..1600),
        ) {
            let family = if six || remote.is_ipv6() { Family::V6 } else { Family::V4 };
            let datagram = Datagram { remote, local: local.ip(), len: payload.len(), truncated: false };
            let mut frame = vec![0xee; len(family)];
            frame.extend_from_slice(&payload);
            prop_assert!(write(&mut frame, family, &datagram, local));
            let arrived = crate::worker::outer::parse(&frame).unwrap();
            prop_assert_eq!((arrived.path.remote, arrived.path.local), (remote, local));
            prop_assert_eq!(&frame[arrived.payload], &payload[..]);
            let answer = turned(&frame);
            let (read, seen) = read(&answer).unwrap();
            prop_assert_eq!(read, datagram);
            prop_assert_eq!(seen, &payload[..]);
        }

        #[test]
        fn no_bytes_make_reading_panic(frame in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&frame);
        }
    }

    #[test]
    fn a_datagram_longer_than_its_room_or_than_any_packet_is_refused() {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
        let of = |len| Datagram { len, ..Datagram::EMPTY };
        let write = |room: &mut [u8], len| write(room, Family::V4, &of(len), local);
        assert!(!write(&mut [0; LEN + 99], 100));
        assert!(!write(&mut [0; LEN - 1], 0));
        assert!(!write(&mut vec![0; 70_000], 65_508));
        assert!(write(&mut vec![0; 70_000], 65_507));
    }

    #[test]
    fn padding_behind_the_packet_is_not_sent() {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
        let mut frame = vec![0; 60];
        assert!(write(&mut frame, Family::V4, &Datagram { len: 3, ..Datagram::EMPTY }, local));
        assert_eq!(read(&frame).unwrap().1, [0; 3]);
    }

    #[test]
    fn a_link_local_address_keeps_its_scope() {
        let address =
            |host, scope| SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host), 443, 0, scope);
        let datagram = Datagram { remote: address(1, 7).into(), len: 1, ..Datagram::EMPTY };
        let mut frame = vec![0; LEN_V6 + 1];
        assert!(write(&mut frame, Family::V6, &datagram, address(2, 0).into()));
        let path = crate::worker::outer::parse(&frame).unwrap().path;
        assert_eq!(path.remote, SocketAddr::from(address(1, 7)));
        crate::worker::Outer::by_socket(path.local, path.remote).write(&mut frame, 0);
        assert_eq!(read(&frame).unwrap().0.remote, path.remote);
    }
}
