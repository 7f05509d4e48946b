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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 as it is written.
    fn naive(bytes: &[u8]) -> u16 {
        let mut total: u64 = 0;
        for pair in bytes.chunks(2) {
            total += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while total > 0xffff {
            total = (total >> 16) + (total & 0xffff);
        }
        total as u16
    }

    /// A packet of TCP or UDP with its checksum left as Linux leaves it to the NIC, and the checksum's place.
    fn unfinished(six: bool, tcp: bool, tags: usize, payload: &[u8]) -> (Vec<u8>, usize) {
        let (header, at, protocol) = if tcp { (20, TCP_CHECKSUM, TCP) } else { (8, UDP_CHECKSUM, UDP) };
        let len = header + payload.len();
        let mut frame = vec![2; 12];
        (0..tags).for_each(|_| frame.extend_from_slice(&[0x81, 0, 0, 7]));
        let addresses = if six {
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
            frame.extend_from_slice(&[protocol, 64]);
            (1..=32).collect::<Vec<u8>>()
        } else {
            frame.extend_from_slice(&[0x08, 0, 0x45, 0]);
            frame.extend_from_slice(&(20 + len as u16).to_be_bytes());
            frame.extend_from_slice(&[0, 1, 0x40, 0, 64, protocol, 0, 0]);
            vec![10, 1, 2, 3, 10, 9, 8, 7]
        };
        frame.extend_from_slice(&addresses);
        let transport = frame.len();
        let pseudo = [&addresses[..], &[0, protocol], &(len as u16).to_be_bytes()].concat();
        let mut segment = vec![3; header];
        segment[at..at + 2].copy_from_slice(&naive(&pseudo).to_be_bytes());
        frame.append(&mut segment);
        frame.extend_from_slice(payload);
        (frame, transport + at)
    }

    /// True if the packet that begins `before` bytes ahead of the checksum verifies, by the naive sum.
    fn verifies(frame: &[u8], tags: usize, six: bool, tcp: bool) -> bool {
        let network = 14 + 4 * tags;
        let (addresses, transport) =
            if six { (network + 8, network + 40) } else { (network + 12, network + 20) };
        let len = (frame.len() - transport) as u16;
        let protocol = if tcp { TCP } else { UDP };
        let pseudo = [&frame[addresses..transport], &[0, protocol], &len.to_be_bytes()].concat();
        naive(&[&pseudo[..], &frame[transport..]].concat()) == 0xffff
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_rfc(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(fold(sum(&bytes)), naive(&bytes));
        }

        #[test]
        fn sums_of_even_parts_add_up(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0_usize..200) {
            let at = (at * 2).min(bytes.len() / 2 * 2);
            let parts = sum(&bytes[..at]) + sum(&bytes[at..]);
            // 0 and ffff are the same sum.
            prop_assert_eq!(fold(parts) % 0xffff, naive(&bytes) % 0xffff);
        }

        #[test]
        fn an_unfinished_checksum_is_finished_and_then_left_alone(
            six: bool, tcp: bool, tags in 0_usize..3, payload in prop::collection::vec(any::<u8>(), 0..1500),
        ) {
            let (mut frame, at) = unfinished(six, tcp, tags, &payload);
            let before = frame.clone();
            // Once in 65,536 cases the pseudo header's sum is the right checksum as it stands.
            let right = verifies(&frame, tags, six, tcp);
            prop_assert_eq!(finish(&mut frame), !right);
            prop_assert!(verifies(&frame, tags, six, tcp));
            prop_assert_ne!(&frame[at..at + 2], [0, 0]);
            let done = frame.clone();
            prop_assert!(!finish(&mut frame));
            prop_assert_eq!(&frame, &done);
            // Nothing else has changed.
            frame[at..at + 2].copy_from_slice(&before[at..at + 2]);
            prop_assert_eq!(frame, before);
        }

        #[test]
        fn padding_is_not_summed(six: bool, tcp: bool, padding in 0_usize..20) {
            let (mut bare, _) = unfinished(six, tcp, 0, b"!");
            let mut padded = [&bare[..], &vec![0xaa; padding]].concat();
            prop_assert_eq!(finish(&mut bare), finish(&mut padded));
            prop_assert_eq!(&padded[..bare.len()], &bare[..]);
        }

        #[test]
        fn a_wrong_checksum_stays_wrong(six: bool, tcp: bool, delta in 1_u16..0xffff) {
            let (mut frame, at) = unfinished(six, tcp, 0, b"some payload");
            let value = u16::from_be_bytes([frame[at], frame[at + 1]]);
            let wrong = value.wrapping_add(delta);
            frame[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
            let before = frame.clone();
            prop_assert!(!finish(&mut frame));
            prop_assert_eq!(frame, before);
        }

        #[test]
        fn what_a_tap_says_and_what_is_guessed_give_the_same(
            six: bool, tcp: bool, tags in 0_usize..3, payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let (mut told, at) = unfinished(six, tcp, tags, &payload);
            let mut guessed = told.clone();
            let offset = if tcp { TCP_CHECKSUM } else { UDP_CHECKSUM };
            complete(&mut told, at - offset, offset).unwrap();
            finish(&mut guessed);
            prop_assert_eq!(told, guessed);
        }

        #[test]
        fn no_bytes_make_finishing_panic(
            mut frame in prop::collection::vec(any::<u8>(), 0..120), start: usize, offset: usize, cut in 0_usize..100,
        ) {
            finish(&mut frame);
            let _ = complete(&mut frame, start, offset);
            let _ = complete(&mut frame, start % 128, offset % 128);
            let (mut packet, _) = unfinished(start % 2 == 0, offset % 2 == 0, start % 3, b"payload");
            packet.truncate(cut);
            finish(&mut packet);
        }
    }

    #[test]
    fn udp_over_ipv4_without_a_checksum_is_left_without() {
        let (mut frame, at) = unfinished(false, false, 0, b"payload");
        frame[at..at + 2].fill(0);
        assert!(!finish(&mut frame));
        assert_eq!(frame[at..at + 2], [0, 0]);
    }

    #[test]
    fn fragments_are_left_alone() {
        for flags in [[0x20, 0], [0, 1], [0x20, 185]] {
            let (mut frame, _) = unfinished(false, true, 0, b"payload");
            frame[20..22].copy_from_slice(&flags);
            assert!(!finish(&mut frame), "{flags:?}");
        }
    }

    #[test]
    fn a_checksum_behind_the_end_is_unfinishable() {
        let mut frame = [0; 60];
        assert_eq!(complete(&mut frame, 61, 0), Err(Unfinishable));
        assert_eq!(complete(&mut frame, 34, 25), Err(Unfinishable));
        assert_eq!(complete(&mut frame, 34, usize::MAX), Err(Unfinishable));
        assert_eq!(complete(&mut frame, 34, 24), Ok(()));
    }
}
