//! Cutting a large TCP segment, as the host's stack hands it over (GSO), into frames. Pure, and no bytes make it panic.
//!
//! ```text
//!   Ethernet │ VLAN tags │ IP │ TCP │ payload of up to 64 KiB
//!   └──────────── headers ─────────┘└ size ┘└ size ┘└ rest ┘
//! ```
//!
//! Each frame gets a copy of the headers with its own lengths, IPv4 id, sequence number, flags and checksums, as
//! `tcp_gso_segment` and `inet_gso_segment` of Linux make them.

use super::{
    checksum,
    layers::{IPV6_LEN, TCP, Version, network},
};

/// Where things stand in a TCP header.
const SEQUENCE: usize = 4;
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
const TCP_LEN: usize = 20;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// What was handed over cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the large segment is not TCP over IP as its header says")]
pub struct Malformed;

/// How a large segment is to be cut.
///
/// Invariant: `network < transport < headers < packet.len()`, and all headers are within `headers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    version: Version,
    network: usize,
    transport: usize,
    headers: usize,
    /// Payload of each frame but the last, in bytes; not zero.
    size: usize,
    /// Number of frames.
    count: usize,
}

impl Cut {
    /// Looks at a large segment whose TCP header begins at `transport`, to be cut into frames with `size` bytes of
    /// payload.
    ///
    /// # Errors
    /// [`Malformed`] unless it is TCP over the IP `version` with a payload.
    pub fn new(packet: &[u8], version: Version, transport: usize, size: usize) -> Result<Self, Malformed> {
        let (found, network) = network(packet).ok_or(Malformed)?;
        let follows = match version {
            Version::V4 => follows_ipv4(packet, network, transport),
            Version::V6 => follows_ipv6(packet, network, transport),
        };
        if found != version || !follows || size == 0 {
            return Err(Malformed);
        }
        let tcp = packet.get(transport..).and_then(|rest| rest.first_chunk::<TCP_LEN>()).ok_or(Malformed)?;
        let tcp_len = usize::from(tcp[DATA_OFFSET] >> 4) * 4;
        let headers = transport + tcp_len;
        let payload = packet.len().checked_sub(headers).filter(|len| *len > 0).ok_or(Malformed)?;
        let longest = (headers - network).saturating_add(size);
        if tcp_len < TCP_LEN || longest > usize::from(u16::MAX) {
            return Err(Malformed);
        }
        Ok(Self { version, network, transport, headers, size, count: payload.div_ceil(size) })
    }

    /// Number of frames it makes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Length of the longest of them in bytes.
    pub fn frame_len(&self) -> usize {
        self.headers + self.size
    }

    /// Writes frame `number` (from 0) of `packet`, which the cut was made for, into `out` and returns its length.
    /// `None` if there is no such frame or it does not fit.
    #[must_use]
    pub fn write(&self, packet: &[u8], number: usize, out: &mut [u8]) -> Option<usize> {
        let offset = number.checked_mul(self.size).filter(|_| number < self.count)?;
        let header = packet.get(..self.headers)?;
        let payload = packet.get(self.headers + offset..)?;
        let payload = &payload[..payload.len().min(self.size)];
        let out = out.get_mut(..header.len() + payload.len())?;
        out[..self.headers].copy_from_slice(header);
        out[self.headers..].copy_from_slice(payload);
        match self.version {
            Version::V4 => self.patch_ipv4(out, number),
            Version::V6 => self.patch_ipv6(out),
        }
        self.patch_tcp(out, number, offset);
        Some(out.len())
    }

    fn patch_ipv4(&self, out: &mut [u8], number: usize) {
        let len = (out.len() - self.network) as u16;
        let header = &mut out[self.network..self.transport];
        header[2..4].copy_from_slice(&len.to_be_bytes());
        // The id counts on modulo 2^16.
        let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(number as u16);
        header[4..6].copy_from_slice(&id.to_be_bytes());
        header[10..12].fill(0);
        let checksum = checksum::finished(checksum::sum(header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }

    fn patch_ipv6(&self, out: &mut [u8]) {
        let len = (out.len() - self.network - IPV6_LEN) as u16;
        out[self.network + 4..self.network + 6].copy_from_slice(&len.to_be_bytes());
    }

    fn patch_tcp(&self, out: &mut [u8], number: usize, offset: usize) {
        let pseudo = checksum::pseudo_header(
            &out[self.version.addresses(self.network)],
            TCP,
            out.len() - self.transport,
        );
        let segment = &mut out[self.transport..];
        if let Some(field) = segment[SEQUENCE..].first_chunk_mut::<4>() {
            // Sequence numbers count on modulo 2^32.
            *field = u32::from_be_bytes(*field).wrapping_add(offset as u32).to_be_bytes();
        }
        segment[FLAGS] &= self.flags(number);
        segment[CHECKSUM..CHECKSUM + 2].fill(0);
        let checksum = checksum::finished(pseudo + checksum::sum(segment));
        segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    /// The flags that frame `number` keeps: the end stands on the last, an answer to congestion on the first (RFC 3168,
    /// 6.1.2).
    fn flags(&self, number: usize) -> u8 {
        let not_last = if number + 1 < self.count { FIN | PSH } else { 0 };
        let not_first = if number > 0 { CWR } else { 0 };
        !(not_last | not_first)
    }
}

/// True if the IPv4 header at `network` is well formed and TCP follows it at `transport`.
fn follows_ipv4(packet: &[u8], network: usize, transport: usize) -> bool {
    let Some(header) = packet.get(network..).and_then(|rest| rest.first_chunk::<20>()) else { return false };
    let len = usize::from(header[0] & 0x0f) * 4;
    header[0] >> 4 == 4 && len >= 20 && network + len == transport && header[9] == TCP
}

/// True if the IPv6 header at `network` is well formed and there is room for it before `transport`. What stands between
/// (extension headers) is copied as it is.
fn follows_ipv6(packet: &[u8], network: usize, transport: usize) -> bool {
    let Some(header) = packet.get(network..).and_then(|rest| rest.first_chunk::<IPV6_LEN>()) else {
        return false;
    };
    let direct = network + IPV6_LEN == transport;
    header[0] >> 4 == 6 && if direct { header[6] == TCP } else { network + IPV6_LEN < transport }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ports::layers::layers;

    const ALL_FLAGS: u8 = 0xff;

    /// A large segment as a TAP hands it over, and where TCP begins.
    fn large(version: Version, tags: usize, options: usize, flags: u8, payload: &[u8]) -> (Vec<u8>, usize) {
        let mut packet = vec![2; 12];
        (0..tags).for_each(|_| packet.extend_from_slice(&[0x81, 0, 0, 7]));
        let len = 20 + options + payload.len();
        match version {
            Version::V4 => {
                packet.extend_from_slice(&[0x08, 0, 0x45, 0]);
                packet.extend_from_slice(&((20 + len).min(65_535) as u16).to_be_bytes());
                packet.extend_from_slice(&[0xff, 0xfe, 0x40, 0, 64, TCP, 0, 0, 10, 1, 2, 3, 10, 9, 8, 7]);
            }
            Version::V6 => {
                packet.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
                packet.extend_from_slice(&(len.min(65_535) as u16).to_be_bytes());
                packet.extend_from_slice(&[TCP, 64]);
                packet.extend(1..=32);
            }
        }
        let transport = packet.len();
        let offset = (5 + options as u8 / 4) << 4;
        packet.extend_from_slice(&[
            0, 80, 0, 81, 0xff, 0xff, 0xff, 0, 0, 0, 0, 9, offset, flags, 1, 1, 0xab, 0xcd, 0, 0,
        ]);
        packet.extend(std::iter::repeat_n(1, options));
        packet.extend_from_slice(payload);
        (packet, transport)
    }

    fn cut_up(cut: &Cut, packet: &[u8]) -> Vec<Vec<u8>> {
        let write = |number| {
            let mut out = vec![0xee; cut.frame_len()];
            let len = cut.write(packet, number, &mut out).unwrap();
            out.truncate(len);
            out
        };
        (0..cut.count()).map(write).collect()
    }

    fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_be_bytes([bytes[at], bytes[at + 1]])
    }

    fn sequence_at(bytes: &[u8], transport: usize) -> u32 {
        u32::from_be_bytes(bytes[transport + 4..transport + 8].try_into().unwrap())
    }

    fn version() -> impl Strategy<Value = Version> {
        prop_oneof![Just(Version::V4), Just(Version::V6)]
    }

    proptest! {
        #[test]
        fn the_frames_together_are_the_segment_and_each_is_a_right_packet(
            version in version(), tags in 0_usize..3, options in (0_usize..11).prop_map(|words| words * 4),
            payload in prop::collection::vec(any::<u8>(), 1..6000), size in 1_usize..1500,
        ) {
            let (packet, transport) = large(version, tags, options, ALL_FLAGS, &payload);
            let cut = Cut::new(&packet, version, transport, size).unwrap();
            let frames = cut_up(&cut, &packet);
            let headers = transport + 20 + options;
            let joined: Vec<u8> = frames.iter().flat_map(|frame| frame[headers..].to_vec()).collect();
            prop_assert_eq!(joined, payload);

            for (number, frame) in frames.iter().enumerate() {
                let last = number + 1 == frames.len();
                prop_assert!(frame.len() == cut.frame_len() || last);
                let found = layers(frame).unwrap();
                prop_assert_eq!((found.transport, found.end, found.protocol), (transport, frame.len(), TCP));
                let pseudo = checksum::pseudo_header(
                    &frame[version.addresses(found.network)], TCP, frame.len() - transport,
                );
                prop_assert_eq!(checksum::finished(pseudo + checksum::sum(&frame[transport..])), 0);
                let sequence = 0xffff_ff00_u32.wrapping_add((number * size) as u32);
                prop_assert_eq!(sequence_at(frame, transport), sequence);
                let flags = frame[transport + FLAGS];
                prop_assert_eq!(flags & (FIN | PSH) != 0, last);
                prop_assert_eq!(flags & CWR != 0, number == 0);
                prop_assert_eq!(flags | FIN | PSH | CWR, ALL_FLAGS);
                if version == Version::V4 {
                    prop_assert_eq!(checksum::finished(checksum::sum(&frame[found.network..transport])), 0);
                    prop_assert_eq!(u16_at(frame, found.network + 4), 0xfffe_u16.wrapping_add(number as u16));
                }
            }
        }

        #[test]
        fn no_bytes_make_cutting_panic(
            mut packet in prop::collection::vec(any::<u8>(), 0..200), version in version(), transport: usize,
            size: usize, number: usize, truncate in 0_usize..300, helped: bool,
        ) {
            if helped {
                packet = large(version, transport % 4, size % 11 * 4, 0, &packet).0;
                packet.truncate(truncate);
            }
            for transport in [transport, transport % 128, 34, 54] {
                for size in [size, size % 2000] {
                    if let Ok(cut) = Cut::new(&packet, version, transport, size) {
                        let mut out = [0; 1514];
                        let _ = cut.write(&packet, number % 8, &mut out);
                        let _ = cut.write(&packet, number, &mut out[..number % 1514]);
                    }
                }
            }
        }
    }

    #[test]
    fn what_its_header_does_not_describe_is_malformed() {
        let (packet, transport) = large(Version::V4, 0, 0, 0, &[7; 100]);
        let ok = |packet: &[u8], version, transport, size| Cut::new(packet, version, transport, size).is_ok();
        assert!(ok(&packet, Version::V4, transport, 50));
        assert!(!ok(&packet, Version::V6, transport, 50), "the other IP");
        assert!(!ok(&packet, Version::V4, transport + 4, 50), "another place");
        assert!(!ok(&packet, Version::V4, transport, 0), "frames without payload");
        assert!(!ok(&packet[..transport + 20], Version::V4, transport, 50), "no payload");
        assert!(!ok(&packet, Version::V4, transport, 65_500), "longer than IP takes");
        let mut udp = packet.clone();
        udp[14 + 9] = 17;
        assert!(!ok(&udp, Version::V4, transport, 50), "not TCP");
    }

    #[test]
    fn a_frame_that_does_not_fit_or_is_behind_the_last_is_not_written() {
        let (packet, transport) = large(Version::V4, 0, 0, 0, &[7; 100]);
        let cut = Cut::new(&packet, Version::V4, transport, 50).unwrap();
        let mut out = [0; 200];
        assert_eq!(cut.write(&packet, 2, &mut out), None);
        assert_eq!(cut.write(&packet, usize::MAX, &mut out), None);
        assert_eq!(cut.write(&packet, 0, &mut out[..cut.frame_len() - 1]), None);
        assert_eq!(cut.write(&packet, 1, &mut out), Some(cut.frame_len()));
    }
}
