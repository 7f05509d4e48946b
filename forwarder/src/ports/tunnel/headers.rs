//! The headers ahead of a datagram of the tunnel's socket: made up on the way in, read on the way out.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    ops::Range,
};

use crate::{ports::checksum, xdp::datagrams::Datagram};

/// Ethernet, IPv4 without options, UDP.
pub const LEN: usize = IPV4 + IPV4_LEN + UDP_LEN;

const IPV4: usize = 14;
const IPV4_LEN: usize = 20;
const UDP: usize = IPV4 + IPV4_LEN;
const UDP_LEN: usize = 8;

const ETHER_TYPE: Range<usize> = 12..14;
const VERSION_IHL: usize = IPV4;
const TOTAL_LEN: Range<usize> = IPV4 + 2..IPV4 + 4;
const TTL: usize = IPV4 + 8;
const PROTOCOL: usize = IPV4 + 9;
const IPV4_CHECKSUM: Range<usize> = IPV4 + 10..IPV4 + 12;
const SOURCE: Range<usize> = IPV4 + 12..IPV4 + 16;
const DESTINATION: Range<usize> = IPV4 + 16..IPV4 + 20;
const SOURCE_PORT: Range<usize> = UDP..UDP + 2;
const DESTINATION_PORT: Range<usize> = UDP + 2..UDP + 4;
const UDP_LENGTH: Range<usize> = UDP + 4..UDP + 6;

/// Writes the headers of a datagram that was received with `local` as its destination; its payload stands behind them
/// in `room`. Hardware addresses are zero, the UDP checksum is "none": the kernel has checked it. False if the datagram
/// does not fit.
#[must_use]
pub fn write(room: &mut [u8], datagram: &Datagram, local: SocketAddrV4) -> bool {
    let (Ok(total), Ok(udp)) =
        (u16::try_from(IPV4_LEN + UDP_LEN + datagram.len), u16::try_from(UDP_LEN + datagram.len))
    else {
        return false;
    };
    let Some((header, payload)) = room.split_at_mut_checked(LEN) else { return false };
    if payload.len() < datagram.len {
        return false;
    }
    header.fill(0);
    header[ETHER_TYPE].copy_from_slice(&[0x08, 0x00]);
    header[VERSION_IHL] = 0x45;
    header[TOTAL_LEN].copy_from_slice(&total.to_be_bytes());
    header[TTL] = 64;
    header[PROTOCOL] = 17;
    header[SOURCE].copy_from_slice(&datagram.remote.ip().octets());
    header[DESTINATION].copy_from_slice(&local.ip().octets());
    header[SOURCE_PORT].copy_from_slice(&datagram.remote.port().to_be_bytes());
    header[DESTINATION_PORT].copy_from_slice(&local.port().to_be_bytes());
    header[UDP_LENGTH].copy_from_slice(&udp.to_be_bytes());
    let sum = checksum::finished(checksum::sum(&header[IPV4..UDP]));
    header[IPV4_CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    true
}

/// To whom a frame goes and from which of our addresses, and its payload. `None` for anything but a whole IPv4 UDP
/// packet without options. Bytes behind the packet (padding) do not count.
pub fn read(frame: &[u8]) -> Option<(Datagram, &[u8])> {
    let header: &[u8; LEN] = frame.first_chunk()?;
    if header[ETHER_TYPE] != [0x08, 0x00] || header[VERSION_IHL] != 0x45 || header[PROTOCOL] != 17 {
        return None;
    }
    let len = usize::from(u16_at(header, UDP_LENGTH)).checked_sub(UDP_LEN)?;
    let payload = frame.get(LEN..)?.get(..len)?;
    let remote = SocketAddrV4::new(address_at(header, DESTINATION), u16_at(header, DESTINATION_PORT));
    Some((Datagram { remote, local: address_at(header, SOURCE), len, truncated: false }, payload))
}

/// The address of ours that a frame to be sent leaves from.
pub fn source(frame: &[u8]) -> Option<SocketAddr> {
    let header: &[u8; LEN] = frame.first_chunk()?;
    Some(SocketAddrV4::new(address_at(header, SOURCE), u16_at(header, SOURCE_PORT)).into())
}

fn u16_at(header: &[u8; LEN], field: Range<usize>) -> u16 {
    u16::from_be_bytes([header[field.start], header[field.start + 1]])
}

fn address_at(header: &[u8; LEN], field: Range<usize>) -> Ipv4Addr {
    let at = field.start;
    Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `write` wrote, seen from the other side: the addresses change places.
    fn turned(frame: &[u8]) -> Vec<u8> {
        let mut turned = frame.to_vec();
        turned[SOURCE].copy_from_slice(&frame[DESTINATION]);
        turned[DESTINATION].copy_from_slice(&frame[SOURCE]);
        turned[SOURCE_PORT].copy_from_slice(&frame[DESTINATION_PORT]);
        turned[DESTINATION_PORT].copy_from_slice(&frame[SOURCE_PORT]);
        turned
    }

    proptest! {
        #[test]
        fn an_answer_to_what_was_written_goes_back_the_same_way(
            remote: (u32, u16), local: (u32, u16), payload in prop::collection::vec(any::<u8>(), 0..1600),
        ) {
            let remote = SocketAddrV4::new(remote.0.into(), remote.1);
            let local = SocketAddrV4::new(local.0.into(), local.1);
            let datagram = Datagram { remote, local: *local.ip(), len: payload.len(), truncated: false };
            let mut frame = vec![0xee; LEN];
            frame.extend_from_slice(&payload);
            prop_assert!(write(&mut frame, &datagram, local));
            prop_assert_eq!(checksum::finished(checksum::sum(&frame[IPV4..UDP])), 0);
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
        let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 443);
        let of = |len| Datagram { len, ..Datagram::EMPTY };
        assert!(!write(&mut [0; LEN + 99], &of(100), local));
        assert!(!write(&mut [0; LEN - 1], &of(0), local));
        assert!(!write(&mut vec![0; 70_000], &of(65_508), local));
        assert!(write(&mut vec![0; 70_000], &of(65_507), local));
    }

    #[test]
    fn padding_behind_the_packet_is_not_sent() {
        let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 443);
        let mut frame = vec![0; 60];
        assert!(write(&mut frame, &Datagram { len: 3, ..Datagram::EMPTY }, local));
        assert_eq!(read(&frame).unwrap().1, [0; 3]);
    }
}
