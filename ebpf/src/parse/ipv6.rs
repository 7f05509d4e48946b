//! UDP over IPv6. Of the extension headers only the fragment header is known, and only where it comes first: packets with
//! others are the kernel's. So everything stands at constant offsets.
//!
//! ```text
//!  0          14     54                62
//!  ├ Ethernet ┼ IPv6 ┼ UDP ────────────┼ OpenVPN packet
//!  ├ Ethernet ┼ IPv6 ┼ fragment header ┼ a part of the datagram
//! ```

use common::ListenerKeyV6;

use super::{Datagram, ETHERNET, Ethernet, FRAGMENT_UNIT, Malformed, PROTOCOL_UDP, UDP, is_data};
use crate::frame::Frame;

/// Type of an IPv6 packet.
pub const IPV6: u16 = 0x86dd;
/// Where the addresses stand.
const ADDRESSES: usize = ETHERNET + 8;
/// Where the IPv6 header ends.
const PAYLOAD: usize = ETHERNET + 40;

//= rfc8200 section 4.5
const NEXT_FRAGMENT: u8 = 44;
const FRAGMENT: usize = 8;
const MORE_FRAGMENTS: u16 = 1;
/// In bytes: units of 8, counted from bit 3.
const OFFSET: u16 = 0xfff8;

/// The IPv6 header of a UDP packet, or of a fragment of something, in an untagged frame.
pub struct Ipv6 {
    payload_len: usize,
    /// A fragment header follows, not a UDP header.
    pub has_fragment_header: bool,
}

impl Ipv6 {
    /// `Ok(None)`: something else.
    #[inline(always)]
    pub fn parse(frame: &impl Frame, ethernet: &Ethernet) -> Result<Option<Self>, Malformed> {
        if ethernet.untagged_type != IPV6 {
            return Ok(None);
        }
        let [first, _, _, _, l0, l1, next, _] = frame.read::<8>(ETHERNET).ok_or(Malformed)?;
        let payload_len = usize::from(u16::from_be_bytes([l0, l1]));
        if first >> 4 != 6 || (frame.length() as usize) < PAYLOAD + payload_len {
            return Err(Malformed);
        }
        let has_fragment_header = next == NEXT_FRAGMENT;
        Ok((has_fragment_header || next == PROTOCOL_UDP).then_some(Self { payload_len, has_fragment_header }))
    }
}

/// A whole UDP datagram over IPv6 in an untagged frame.
pub struct UdpV6 {
    source_port: [u8; 2],
    destination_port: [u8; 2],
    has_payload: bool,
}

impl UdpV6 {
    /// `Ok(None)`: something else, or a fragment.
    #[inline(always)]
    pub fn parse(frame: &impl Frame, ethernet: &Ethernet) -> Result<Option<Self>, Malformed> {
        match Ipv6::parse(frame, ethernet)? {
            Some(ip) if !ip.has_fragment_header => Self::behind(frame, &ip).map(Some),
            _ => Ok(None),
        }
    }

    /// The datagram behind `ip`, which has no fragment header.
    #[inline(always)]
    pub fn behind(frame: &impl Frame, ip: &Ipv6) -> Result<Self, Malformed> {
        let [s0, s1, d0, d1, l0, l1, _, _] = frame.read::<UDP>(PAYLOAD).ok_or(Malformed)?;
        let udp_len = usize::from(u16::from_be_bytes([l0, l1]));
        if udp_len < UDP || ip.payload_len < udp_len {
            return Err(Malformed);
        }
        Ok(Self { source_port: [s0, s1], destination_port: [d0, d1], has_payload: udp_len > UDP })
    }

    /// Address and port it comes from.
    #[inline(always)]
    pub fn source(&self, frame: &impl Frame) -> Result<ListenerKeyV6, Malformed> {
        let address = frame.read::<16>(ADDRESSES).ok_or(Malformed)?;
        Ok(ListenerKeyV6 { address, port: self.source_port, reserved: [0; 2] })
    }

    /// Address and port it goes to.
    #[inline(always)]
    pub fn destination(&self, frame: &impl Frame) -> Result<ListenerKeyV6, Malformed> {
        destination(frame, self.destination_port)
    }

    /// Whether the payload is an OpenVPN data packet, by its opcode.
    #[inline(always)]
    pub fn is_data(&self, frame: &impl Frame) -> Result<bool, Malformed> {
        if !self.has_payload {
            return Ok(false);
        }
        let [.., first] = frame.read::<{ UDP + 1 }>(PAYLOAD).ok_or(Malformed)?;
        Ok(is_data(first))
    }
}

/// A fragment of a UDP datagram over IPv6 in an untagged frame.
pub struct FragmentV6 {
    /// Which datagram it is of.
    pub datagram: Datagram,
    /// The datagram begins here: this fragment has the UDP header.
    pub is_first: bool,
    payload_len: usize,
}

impl FragmentV6 {
    /// What comes behind `ip`, which has a fragment header. `Ok(None)`: not UDP, or a fragment that is all there is.
    #[inline(always)]
    pub fn behind(frame: &impl Frame, ip: &Ipv6) -> Result<Option<Self>, Malformed> {
        let [next, _, b0, b1, i0, i1, i2, i3] = frame.read::<FRAGMENT>(PAYLOAD).ok_or(Malformed)?;
        let bits = u16::from_be_bytes([b0, b1]);
        let payload_len = ip.payload_len.checked_sub(FRAGMENT).ok_or(Malformed)?;
        if next != PROTOCOL_UDP || bits & (OFFSET | MORE_FRAGMENTS) == 0 {
            return Ok(None);
        }
        if payload_len == 0 || (bits & MORE_FRAGMENTS != 0 && payload_len % FRAGMENT_UNIT != 0) {
            return Err(Malformed);
        }
        let source = fold(frame.read(ADDRESSES).ok_or(Malformed)?) ^ u32::from_be_bytes([i0, i1, 0, 0]);
        let destination = fold(frame.read(ADDRESSES + 16).ok_or(Malformed)?);
        let datagram = Datagram { source, destination, identification: u16::from_be_bytes([i2, i3]) };
        Ok(Some(Self { datagram, is_first: bits & OFFSET == 0, payload_len }))
    }

    /// Where the datagram goes and whether it is an OpenVPN data packet, by its opcode; of a first fragment.
    #[inline(always)]
    pub fn leads(&self, frame: &impl Frame) -> Result<(ListenerKeyV6, bool), Malformed> {
        // Behind a shorter payload there may be padding, which is not to be read as one.
        if self.payload_len <= UDP {
            return Err(Malformed);
        }
        let [_, _, p, q, _, _, _, _, first] =
            frame.read::<{ UDP + 1 }>(PAYLOAD + FRAGMENT).ok_or(Malformed)?;
        Ok((destination(frame, [p, q])?, is_data(first)))
    }
}

#[inline(always)]
fn destination(frame: &impl Frame, port: [u8; 2]) -> Result<ListenerKeyV6, Malformed> {
    let address = frame.read::<16>(ADDRESSES + 16).ok_or(Malformed)?;
    Ok(ListenerKeyV6 { address, port, reserved: [0; 2] })
}

#[inline(always)]
fn fold([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [u8; 16]) -> u32 {
    u32::from_be_bytes([a, b, c, d])
        ^ u32::from_be_bytes([e, f, g, h])
        ^ u32::from_be_bytes([i, j, k, l])
        ^ u32::from_be_bytes([m, n, o, p])
}
