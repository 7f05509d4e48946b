//! Checksums that the sender's stack left to "its NIC", which a veth does not have.
//!
//! What stands in the field then is the sum of the pseudo header, not complemented (`__tcp_v4_send_check` in
//! net/ipv4/tcp_ipv4.c, `udp4_hwcsum` in net/ipv4/udp.c). A finished checksum looks so once in 65,536 times: such a frame
//! takes the slower way and is none the worse for it.

use crate::{
    frame::Frame,
    parse::{Ethernet, IPV4, IPV6, Malformed},
};

const ETHERNET: usize = 14;

const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
/// Where the checksum stands behind the IP header.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// Version 4, five words.
const IPV4_PLAIN: u8 = 0x45;
/// More fragments, or an offset.
const IPV4_FRAGMENT: u16 = 0x3fff;

/// Whether a checksum in the frame may be unfinished: it looks so, or cannot be judged.
#[inline(always)]
pub fn may_be(frame: &impl Frame, ethernet: &Ethernet) -> Result<bool, Malformed> {
    match ethernet.untagged_type {
        IPV4 => may_be_v4(frame),
        IPV6 => may_be_v6(frame),
        // What is behind a tag is not looked at.
        _ => Ok(ethernet.is_tagged()),
    }
}

#[inline(always)]
fn may_be_v4(frame: &impl Frame) -> Result<bool, Malformed> {
    let header = frame.read::<20>(ETHERNET).ok_or(Malformed)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    // All fragments of a datagram go one way, or they would overtake each other.
    if header[0] != IPV4_PLAIN || word(6) & IPV4_FRAGMENT != 0 {
        return Ok(true);
    }
    let length = word(2).checked_sub(20).ok_or(Malformed)?;
    let protocol = header[9];
    let addresses = [12, 14, 16, 18].into_iter().map(|at| u32::from(word(at))).sum::<u32>();
    match protocol {
        TCP => is_sum::<{ ETHERNET + 20 + TCP_CHECKSUM }>(frame, addresses, protocol, length),
        UDP => is_sum::<{ ETHERNET + 20 + UDP_CHECKSUM }>(frame, addresses, protocol, length),
        SCTP | UDP_LITE | DCCP => Ok(true),
        _ => Ok(false),
    }
}

#[inline(always)]
fn may_be_v6(frame: &impl Frame) -> Result<bool, Malformed> {
    let [_, _, _, _, l0, l1, protocol, _] = frame.read::<8>(ETHERNET).ok_or(Malformed)?;
    let length = u16::from_be_bytes([l0, l1]);
    match protocol {
        TCP => is_sum::<{ ETHERNET + 40 + TCP_CHECKSUM }>(frame, addresses_v6(frame)?, protocol, length),
        UDP => is_sum::<{ ETHERNET + 40 + UDP_CHECKSUM }>(frame, addresses_v6(frame)?, protocol, length),
        // A stack sums these itself.
        ICMPV6 => Ok(false),
        // Extension headers, and what comes behind them.
        _ => Ok(true),
    }
}

#[inline(always)]
fn addresses_v6(frame: &impl Frame) -> Result<u32, Malformed> {
    let bytes = frame.read::<32>(ETHERNET + 8).ok_or(Malformed)?;
    Ok(bytes.as_chunks().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum())
}

/// Whether the checksum at `AT` is the sum of the pseudo header with these addresses, protocol and length.
#[inline(always)]
fn is_sum<const AT: usize>(
    frame: &impl Frame,
    addresses: u32,
    protocol: u8,
    length: u16,
) -> Result<bool, Malformed> {
    let checksum = u16::from_be_bytes(frame.read::<2>(AT).ok_or(Malformed)?);
    // At most 18 words: two folds are enough.
    let sum = addresses + u32::from(protocol) + u32::from(length);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    Ok(u32::from(checksum) == sum)
}
