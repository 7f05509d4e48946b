//! `mssfix`: TCP connections through the tunnel are told to make segments that fit one packet each. Source: RFC 9293,
//! 3.7.1; brief A.13.
//!
//! Only SYNs say how long segments may be, so only they are changed: the number in the option, and the checksum by the
//! difference. Every other frame is recognised as none by a few bytes of its first cache line.

use crate::ports::{
    checksum,
    layers::{self, Layers, TCP, Version},
};

/// Bytes of a TCP header without options; where its fields are.
const TCP_HEADER: usize = 20;
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;

const SYN: u8 = 0x02;
/// Kinds of options.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// An IPv6 header is so much longer than one of IPv4 without options.
const IPV6_LONGER: u16 = 20;

/// Lowers what a SYN in `frame`, tagged or not, asks for to `most` bytes a segment over IPv4, 20 less over IPv6. Changes
/// nothing else, and no broadcasts.
#[inline]
pub(super) fn limit(frame: &mut [u8], most: u16) {
    if may_be_syn(frame) {
        limit_syn(frame, most);
    }
}

/// False for nearly every frame that is none; frames with tags, options or extension headers are looked at closely.
#[inline]
fn may_be_syn(frame: &[u8]) -> bool {
    // As long as the shortest TCP packet over IPv4.
    let Some(head) = frame.first_chunk::<54>() else { return false };
    if head[0] & 1 != 0 {
        return false;
    }
    match [head[12], head[13]] {
        [0x08, 0x00] if head[14] == 0x45 => head[23] == TCP && head[47] & SYN != 0,
        [0x08, 0x00] => head[23] == TCP,
        [0x86, 0xdd] => match head[20] {
            TCP => frame.get(67).is_some_and(|flags| flags & SYN != 0),
            // Hop-by-hop and destination options.
            0 | 60 => true,
            _ => false,
        },
        [0x81, 0x00] | [0x88, 0xa8] => true,
        _ => false,
    }
}

#[cold]
fn limit_syn(frame: &mut [u8], most: u16) {
    let Some(layers) = layers::layers(frame).filter(|layers| layers.protocol == TCP) else { return };
    let most = match layers.version {
        Version::V4 => most,
        Version::V6 => most.saturating_sub(IPV6_LONGER),
    };
    if let Some(segment) = segment(frame, &layers) {
        lower(segment, most);
    }
}

/// The TCP packet in `frame`, if it is a SYN.
fn segment<'a>(frame: &'a mut [u8], layers: &Layers) -> Option<&'a mut [u8]> {
    let segment = frame.get_mut(layers.transport..layers.end)?;
    (segment.len() >= TCP_HEADER && segment[FLAGS] & SYN != 0).then_some(segment)
}

/// Lowers the option of a SYN that is at least a header long.
fn lower(segment: &mut [u8], most: u16) {
    let header = (usize::from(segment[DATA_OFFSET] >> 4) * 4).min(segment.len());
    let Some(at) = segment.get(..header).and_then(find_option) else { return };
    let asked = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if asked <= most {
        return;
    }
    segment[at..at + 2].copy_from_slice(&most.to_be_bytes());
    let checksum = u16::from_be_bytes([segment[CHECKSUM], segment[CHECKSUM + 1]]);
    // An option may begin anywhere: a number at an odd place counts with its bytes swapped.
    let [from, to] = [asked, most].map(|value| if at % 2 == 0 { value } else { value.swap_bytes() });
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&updated(checksum, from, to).to_be_bytes());
}

/// Where in a TCP header with its options the maximum segment size stands.
fn find_option(header: &[u8]) -> Option<usize> {
    let mut at = TCP_HEADER;
    loop {
        match *header.get(at..)? {
            [NO_OPERATION, ..] => at += 1,
            [MAXIMUM_SEGMENT_SIZE, 4, _, _, ..] => return Some(at + 2),
            [END, ..] | [_] | [] => return None,
            [_, len, ..] if len < 2 => return None,
            [_, len, ..] => at += usize::from(len),
        }
    }
}

/// The checksum after one of the words it covers has changed. (RFC 1624, equation 3)
fn updated(checksum: u16, from: u16, to: u16) -> u16 {
    checksum::finished(u64::from(!checksum) + u64::from(!from) + u64::from(to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A TCP packet with `options`, padded to whole words, and `flags`; its checksum is right.
    fn packet(six: bool, tags: usize, flags: u8, options: &[u8]) -> Vec<u8> {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), END);
        let header = TCP_HEADER + options.len();
        let mut frame = [[2; 6], [4; 6]].concat();
        (0..tags).for_each(|_| frame.extend_from_slice(&[0x81, 0, 0, 7]));
        if six {
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&(header as u16).to_be_bytes());
            frame.extend_from_slice(&[TCP, 64]);
            frame.extend(1..=32);
        } else {
            frame.extend_from_slice(&[0x08, 0, 0x45, 0]);
            frame.extend_from_slice(&(20 + header as u16).to_be_bytes());
            frame.extend_from_slice(&[0, 1, 0x40, 0, 64, TCP, 0, 0, 10, 1, 2, 3, 10, 9, 8, 7]);
        }
        let transport = frame.len();
        let mut segment = vec![0x35; TCP_HEADER];
        segment[DATA_OFFSET] = (header as u8 / 4) << 4;
        segment[FLAGS] = flags;
        segment[CHECKSUM..CHECKSUM + 2].fill(0);
        segment.extend_from_slice(&options);
        frame.extend_from_slice(&segment);
        let checksum = checksum::finished(whole_sum(&frame));
        frame[transport + CHECKSUM..transport + CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    fn whole_sum(frame: &[u8]) -> u64 {
        let layers = layers::layers(frame).unwrap();
        let addresses = &frame[layers.version.addresses(layers.network)];
        checksum::pseudo_header(addresses, TCP, layers.end - layers.transport)
            + checksum::sum(&frame[layers.transport..layers.end])
    }

    #[track_caller]
    fn asked(frame: &[u8]) -> u16 {
        let layers = layers::layers(frame).unwrap();
        let at = find_option(&frame[layers.transport..layers.end]).unwrap() + layers.transport;
        u16::from_be_bytes([frame[at], frame[at + 1]])
    }

    /// What Linux sends in a SYN for 1500-byte links: MSS 1460, SACK permitted, timestamps, NOP, window scale.
    const LINUX: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

    #[test]
    fn syns_are_lowered_tagged_or_not_and_verify() {
        for (six, expected) in [(false, 1368), (true, 1348)] {
            for tags in 0..=2 {
                for flags in [SYN, SYN | 0x10] {
                    let mut frame = packet(six, tags, flags, &LINUX);
                    limit(&mut frame, 1368);
                    assert_eq!(asked(&frame), expected, "six {six}, {tags} tags");
                    assert_eq!(checksum::fold(whole_sum(&frame)), 0xffff);
                }
            }
        }
    }

    #[test]
    fn an_option_at_an_odd_place_is_lowered_too() {
        let mut frame = packet(false, 0, SYN, &[1, 2, 4, 5, 0xb4, 0]);
        limit(&mut frame, 1368);
        assert_eq!((asked(&frame), checksum::fold(whole_sum(&frame))), (1368, 0xffff));
    }

    #[test]
    fn what_asks_for_less_or_is_no_syn_stays_as_it_is() {
        let unchanged = |mut frame: Vec<u8>, most| {
            let before = frame.clone();
            limit(&mut frame, most);
            assert_eq!(frame, before);
        };
        unchanged(packet(false, 0, SYN, &LINUX), 1460);
        unchanged(packet(false, 0, 0x10, &LINUX), 1000);
        unchanged(packet(true, 1, 0x18, &LINUX), 1000);
        unchanged(packet(false, 0, SYN, &[]), 1000);
        unchanged(packet(false, 0, SYN, &[2, 3, 5, 0xb4]), 1000);
        unchanged(packet(false, 0, SYN, &[8, 0, 2, 4, 5, 0xb4]), 1000);
        let mut broadcast = packet(false, 0, SYN, &LINUX);
        broadcast[..6].fill(0xff);
        unchanged(broadcast, 1000);
        let mut fragment = packet(false, 0, SYN, &LINUX);
        fragment[20] = 0x20;
        unchanged(fragment, 1000);
        let mut profinet = packet(false, 0, SYN, &LINUX);
        profinet[12..14].copy_from_slice(&[0x88, 0x92]);
        unchanged(profinet, 1000);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            six: bool, tags in 0_usize..4, flags: u8, options in prop::collection::vec(any::<u8>(), 0..40),
            changed in prop::collection::vec((0_usize..90, any::<u8>()), 0..4), cut in 0_usize..140, most: u16,
        ) {
            let mut frame = packet(six, tags.min(2), flags, &options);
            for (at, value) in changed {
                let at = at % frame.len();
                frame[at] = value;
            }
            let cut = cut.min(frame.len());
            limit(&mut frame[..cut], most);
            limit_syn(&mut frame, most);
        }

        #[test]
        fn a_lowered_syn_verifies(six: bool, asks: u16, most: u16, odd: bool) {
            let [high, low] = asks.to_be_bytes();
            let options = if odd { vec![1, 2, 4, high, low] } else { vec![2, 4, high, low] };
            let mut frame = packet(six, 0, SYN, &options);
            limit(&mut frame, most);
            let most = if six { most.saturating_sub(20) } else { most };
            prop_assert_eq!(asked(&frame), asks.min(most));
            prop_assert_eq!(checksum::fold(whole_sum(&frame)) % 0xffff, 0);
        }
    }
}
