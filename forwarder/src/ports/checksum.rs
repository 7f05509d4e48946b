//! Internet checksums (RFC 1071), and finishing those that a sender left to its NIC. Pure, and no bytes make it panic.
//!
//! What Linux leaves when the NIC is to finish the job (`CHECKSUM_PARTIAL`): the field of TCP or UDP holds the folded
//! sum of the pseudo header, not inverted, and the header says so nowhere. A TAP tells ([`complete`]); a veth's other
//! end does not, so there it is guessed ([`finish`]).

use super::layers::{Layers, TCP, UDP, Version, layers};

/// Where the checksum stands in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// Where the checksum stands in a UDP header.
const UDP_CHECKSUM: usize = 6;

/// A checksum was said to be unfinished where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the checksum to finish is not within the frame")]
pub struct Unfinishable;

/// The one's complement sum of `bytes` as big-endian 16-bit words, not inverted. Sums of parts may be added up, if no
/// part but the last has an odd length.
pub fn sum(bytes: &[u8]) -> u64 {
    // The sum does not depend on byte order but for the order of its own two bytes (RFC 1071, 2B): native words are
    // added, four bytes at a time into eight, which cannot overflow below 2^34 bytes.
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    u64::from(u16::from_be(fold(total)))
}

/// A sum as 16 bits.
pub const fn fold(mut sum: u64) -> u16 {
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// The checksum to write where `sum` covers all of the rest, the field as zero. Over all of it with a right field it is
/// zero.
pub const fn finished(sum: u64) -> u16 {
    !fold(sum)
}

/// The sum of the pseudo header that the checksums of TCP and UDP cover besides their own `len` bytes; `addresses` are
/// those of the IP header. (RFC 9293, 3.1; RFC 8200, 8.1)
pub fn pseudo_header(addresses: &[u8], protocol: u8, len: usize) -> u64 {
    sum(addresses) + u64::from(protocol) + len as u64
}

/// Finishes the checksum that a TAP's header says is unfinished: it covers the frame from `start` to its end, and
/// stands `offset` bytes behind `start`.
///
/// # Errors
/// [`Unfinishable`] when there is nothing there; the frame is unchanged.
pub fn complete(frame: &mut [u8], start: usize, offset: usize) -> Result<(), Unfinishable> {
    let covered = frame.get_mut(start..).ok_or(Unfinishable)?;
    let checksum = never_none(finished(sum(covered)));
    let field = covered.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()).ok_or(Unfinishable)?;
    *field = checksum.to_be_bytes();
    Ok(())
}

/// Finishes the TCP or UDP checksum of a frame from a veth, if it is unfinished: the field is the bare pseudo header's
/// sum, and the checksum is not right as it stands. True if the frame was changed.
///
/// The pseudo header is looked at first: it is short, and a finished checksum equals its sum once in 65,536 frames.
pub fn finish(frame: &mut [u8]) -> bool {
    let Some((layers, at)) = layers(frame).and_then(|layers| Some((layers, checksum_at(&layers)?))) else {
        return false;
    };
    let Some(&field) = frame.get(at..layers.end).and_then(|rest| rest.first_chunk()) else { return false };
    let value = u16::from_be_bytes(field);
    if layers.protocol == UDP && layers.version == Version::V4 && value == 0 {
        return false;
    }
    let pseudo = pseudo_header(
        &frame[layers.version.addresses(layers.network)],
        layers.protocol,
        layers.end - layers.transport,
    );
    if value != fold(pseudo) {
        return false;
    }
    // The field holds the pseudo header's sum, so this covers both.
    let covered = sum(&frame[layers.transport..layers.end]);
    if finished(covered + pseudo) == 0 {
        return false;
    }
    frame[at..at + 2].copy_from_slice(&never_none(finished(covered)).to_be_bytes());
    true
}

fn checksum_at(layers: &Layers) -> Option<usize> {
    match layers.protocol {
        TCP => Some(layers.transport + TCP_CHECKSUM),
        UDP => Some(layers.transport + UDP_CHECKSUM),
        _ => None,
    }
}

/// In UDP a field of 0 means "none" (RFC 768); ffff is the same sum. Linux does so for TCP, too.
pub const fn never_none(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}
