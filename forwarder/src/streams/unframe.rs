//! A byte stream into packets: each stands behind its length, two bytes, big-endian.
//!
//! Source: socket.c `stream_buf_added`: a length of zero, or of more than any packet has, ends the connection.

use std::ops::Range;

/// Bytes ahead of each packet.
pub const PREFIX: usize = 2;
/// Bytes asked of the kernel at once, or as many as the longest packet needs: some ten full packets. Too low costs system
/// calls, too high costs memory for every connection and lets one take long turns.
const ROOM: usize = 16 * 1024;

/// What stands where a length should is none: whoever speaks is no OpenVPN client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLength;

/// The bytes of one connection that have arrived and are not dealt with.
///
/// Invariant: `start <= end <= buffer.len()`.
#[derive(Debug)]
pub struct Unframer {
    /// Empty until the first byte is asked for.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    longest: usize,
}

impl Unframer {
    /// For packets of at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0, longest: longest.min(usize::from(u16::MAX)) }
    }

    /// Where the next bytes go: at least one, once [`Self::next`] has said that there is no whole packet.
    pub fn room(&mut self) -> &mut [u8] {
        self.buffer.resize(ROOM.max(PREFIX + self.longest), 0);
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    /// The first `count` bytes of the room were written.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// The next whole packet, which stays until [`Self::consume`]; `None` while it is not all there.
    ///
    /// # Errors
    /// There is no going on after this.
    pub fn next(&self) -> Result<Option<&[u8]>, NoLength> {
        Ok(self.whole()?.map(|packet| &self.buffer[packet]))
    }

    /// The packet that [`Self::next`] gave is dealt with.
    pub fn consume(&mut self) {
        if let Ok(Some(packet)) = self.whole() {
            self.start = packet.end;
        }
    }

    fn whole(&self) -> Result<Option<Range<usize>>, NoLength> {
        let Some(prefix) = self.buffer[self.start..self.end].first_chunk::<PREFIX>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*prefix));
        if length == 0 || length > self.longest {
            return Err(NoLength);
        }
        let packet = self.start + PREFIX..self.start + PREFIX + length;
        Ok((packet.end <= self.end).then_some(packet))
    }
}

/// `packet` behind its length; `None` for one that has none.
pub fn framed(packet: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(packet.len()).ok().filter(|length| *length > 0)?;
    Some([&length.to_be_bytes(), packet].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` in pieces, and returns the packets and whether the stream is sound.
    fn unframed(bytes: &[u8], pieces: &[usize], longest: usize) -> (Vec<Vec<u8>>, bool) {
        let mut unframer = Unframer::new(longest);
        let (mut packets, mut rest) = (Vec::new(), bytes);
        let mut pieces = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
        while !rest.is_empty() {
            let room = unframer.room();
            let count = pieces.next().unwrap_or(1).clamp(1, room.len()).min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            unframer.filled(count);
            rest = &rest[count..];
            loop {
                match unframer.next() {
                    Ok(Some(packet)) => packets.push(packet.to_vec()),
                    Ok(None) => break,
                    Err(NoLength) => return (packets, false),
                }
                unframer.consume();
            }
        }
        (packets, true)
    }

    proptest! {
        #[test]
        fn packets_come_out_as_they_went_in_however_the_stream_is_cut(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 0..40),
            pieces in prop::collection::vec(1_usize..5000, 0..60),
        ) {
            let bytes: Vec<u8> = packets.iter().flat_map(|packet| framed(packet).unwrap()).collect();
            prop_assert_eq!(unframed(&bytes, &pieces, 2000), (packets, true));
        }

        #[test]
        fn no_bytes_make_it_panic_or_keep_a_packet_longer_than_the_longest(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
            pieces in prop::collection::vec(1_usize..100, 0..60),
        ) {
            let (packets, _) = unframed(&bytes, &pieces, 300);
            prop_assert!(packets.iter().all(|packet| (1..=300).contains(&packet.len())));
        }
    }

    #[test]
    fn a_length_of_zero_or_beyond_the_longest_is_none() {
        assert_eq!(unframed(&[0, 0], &[], 100), (vec![], false));
        assert_eq!(unframed(&[0, 101, 1], &[], 100), (vec![], false));
        assert_eq!(unframed(&[0, 2, 7, 8, 0xff, 0xff], &[], 100), (vec![vec![7, 8]], false));
        assert_eq!(unframed(b"GET / HTTP/1.1\r\n", &[], 1600), (vec![], false));
    }

    #[test]
    fn the_longest_packet_there_is_fits() {
        let longest = vec![5; usize::from(u16::MAX)];
        let bytes = framed(&longest).unwrap();
        assert_eq!(unframed(&bytes, &[1, 1, 40_000], usize::MAX), (vec![longest], true));
        assert_eq!(framed(&vec![0; 65_536]), None);
        assert_eq!(framed(&[]), None);
    }
}
