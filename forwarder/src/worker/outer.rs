//! The packet around a tunnel packet: Ethernet, IP and UDP headers, whose length depends on the peer's address.
//!
//! ```text
//!  ├ Ethernet ┼ IPv4 20 or IPv6 40 ┼ UDP ┼ OpenVPN data packet
//! ```

pub(super) mod ipv4;
pub(super) mod ipv6;
#[cfg(test)]
mod tests;

use std::{
    net::{SocketAddr, SocketAddrV6},
    ops::Range,
};

use common::Mac;
use openvpn::server::Path;

use crate::{streams::StreamId, switch::WireId};

/// Bytes ahead of the OpenVPN packet to a peer that is reached by IPv4.
pub const OUTER_HEADER: usize = ipv4::LEN;
/// The same by IPv6.
pub const OUTER_HEADER_V6: usize = ipv6::LEN;
/// The most there may be: a packet that came in fragments of IPv6 keeps a fragment header.
pub const LONGEST_OUTER_HEADER: usize = OUTER_HEADER_V6 + ipv6::FRAGMENT_LEN;

const ETHERNET: usize = 14;
const PROTOCOL_UDP: u8 = 17;
/// As Linux sends (`net.ipv4.ip_default_ttl`, `net.ipv6.conf.*.hop_limit`).
const TTL: u8 = 64;

/// How packets to a peer leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a NIC's queue; a packet of more than `mtu` bytes in fragments.
    Nic {
        /// Which NIC.
        wire: WireId,
        /// MTU of the route.
        mtu: u16,
    },
    /// By the tunnel's UDP socket.
    Socket,
    /// By a TCP connection, without any headers of ours.
    Stream(StreamId),
}

/// The headers of packets to one peer, all but lengths, identification and checksums filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    header: Header,
    way: Way,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Header {
    V4([u8; ipv4::LEN]),
    V6([u8; ipv6::LEN]),
    /// Over TCP.
    None,
}

impl Outer {
    /// For packets from `local` to `remote`, sent by the kernel's socket.
    pub fn by_socket(local: impl Into<SocketAddr>, remote: impl Into<SocketAddr>) -> Self {
        Self::new(local.into(), remote.into(), [0; 6], [0; 6], Way::Socket)
    }

    /// For packets from `local` to `remote` that leave by the NIC `wire`, to the next hop's `destination`.
    pub fn by_nic(
        wire: WireId,
        local: impl Into<SocketAddr>,
        remote: impl Into<SocketAddr>,
        source: Mac,
        destination: Mac,
        mtu: u16,
    ) -> Self {
        Self::new(local.into(), remote.into(), source, destination, Way::Nic { wire, mtu })
    }

    /// For packets that leave by a TCP connection.
    pub fn by_stream(stream: StreamId) -> Self {
        Self { header: Header::None, way: Way::Stream(stream) }
    }

    fn new(local: SocketAddr, remote: SocketAddr, source: Mac, destination: Mac, way: Way) -> Self {
        let header = match (local, remote) {
            (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
                Header::V4(ipv4::header(local, remote, source, destination))
            }
            // Both ends of a path are of one family: [`Path`] never holds an IPv4 address in the form of IPv6.
            (local, remote) => Header::V6(ipv6::header(six(local), six(remote), source, destination)),
        };
        Self { header, way }
    }

    /// Bytes ahead of the OpenVPN packet.
    #[inline]
    pub fn header_len(&self) -> usize {
        match self.header {
            Header::V4(_) => ipv4::LEN,
            Header::V6(_) => ipv6::LEN,
            Header::None => 0,
        }
    }

    /// The IPv4 address packets go to, in network order: every one of them needs an identification. `None`: IPv6, where
    /// only fragments have one.
    #[inline]
    pub fn destination_v4(&self) -> Option<[u8; 4]> {
        match &self.header {
            Header::V4(header) => Some(ipv4::destination(header)),
            Header::V6(_) | Header::None => None,
        }
    }

    /// Packets leave by the NIC.
    pub fn leaves_by_nic(&self) -> bool {
        matches!(self.way, Way::Nic { .. })
    }

    /// Writes the headers ahead of the payload that stands in `packet` from [`Outer::header_len`] on, and says by which
    /// way the packet leaves. `packet` ends with its payload; `identification` is IPv4's.
    pub fn write(&self, packet: &mut [u8], identification: u16) -> Way {
        match &self.header {
            Header::V4(header) => ipv4::write(header, self.way, packet, identification),
            Header::V6(header) => ipv6::write(header, self.way, packet),
            Header::None => self.way,
        }
    }
}

fn six(address: SocketAddr) -> SocketAddrV6 {
    match address {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
        SocketAddr::V6(v6) => v6,
    }
}

/// Whether a frame of `len` bytes is longer than a route with `mtu` takes.
pub(super) fn is_too_long(len: usize, mtu: u16) -> bool {
    len > ETHERNET + usize::from(mtu)
}

/// From where a tunnel packet's first fragment comes, and what it has of the OpenVPN packet; `udp` is where its UDP
/// header begins.
pub(super) fn parse_first(frame: &[u8], udp: usize) -> Option<(SocketAddr, &[u8])> {
    let remote = if ipv6::is_ipv6(frame) { ipv6::source(frame, udp) } else { ipv4::source(frame, udp) };
    Some((remote?, frame.get(udp + 8..)?))
}

/// A tunnel packet as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// From where to which address of ours.
    pub path: Path,
    /// Where in the frame the OpenVPN packet stands.
    pub payload: Range<usize>,
}

/// Reads a tunnel packet: an unfragmented UDP packet over IPv4, possibly with options, or IPv6, and Ethernet padding.
/// Checksums are not looked at, the AEAD is stronger. `None` when it is none.
#[inline]
pub fn parse(frame: &[u8]) -> Option<Arrived> {
    ipv4::parse(frame).or_else(|| ipv6::parse(frame))
}

fn be16(bytes: &[u8], at: Range<usize>) -> Option<u16> {
    bytes.get(at)?.try_into().ok().map(u16::from_be_bytes)
}
