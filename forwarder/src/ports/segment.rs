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
        let tcp: &[u8; TCP_LEN] =
            packet.get(transport..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?;
        let options = usize::from(tcp[DATA_OFFSET] >> 4) * 4;
        let headers = transport + options;
        let payload = packet.len().checked_sub(headers).filter(|len| *len > 0).ok_or(Malformed)?;
        let follows = match version {
            Version::V4 => follows_ipv4(packet, network, transport),
            Version::V6 => follows_ipv6(packet, network, transport),
        };
        let fits = headers - network + size <= usize::from(u16::MAX);
        if found != version || !follows || options < TCP_LEN || size == 0 || !fits {
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
