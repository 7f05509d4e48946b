//! What is written at the end of a frame, to know it again.
//!
//! ```text
//!   │ Ethernet header, tags │ payload ...          │ tag 8 │ session 4 │ sequence 4 │ sent 8 │
//!                                                  └────── the frame's last 24 bytes ───────┘
//! ```
//! Integers in network order; `sent` is nanoseconds since the run began. The tag is another for every run: frames of
//! an earlier or another run are not ours. Whatever checksum the payload has is not mended.

use std::ops::Range;

/// Length in bytes.
pub(super) const STAMP: usize = 24;

const TAG: Range<usize> = 0..8;
const SESSION: Range<usize> = 8..12;
const SEQUENCE: Range<usize> = 12..16;
const SENT: Range<usize> = 16..24;

/// Says which run a frame belongs to.
pub(super) type Tag = [u8; 8];

/// Which frame it is, and when it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The session that sent it.
    pub session: u32,
    /// Which of its frames, from 0; begins again after 2^32.
    pub sequence: u32,
    /// Since the run began.
    pub sent_ns: u64,
}

impl Stamp {
    /// Writes it over the end of `frame`, which is long enough.
    pub fn write(self, tag: Tag, frame: &mut [u8]) {
        if let Some(room) = frame.last_chunk_mut::<STAMP>() {
            room[TAG].copy_from_slice(&tag);
            room[SESSION].copy_from_slice(&self.session.to_be_bytes());
            room[SEQUENCE].copy_from_slice(&self.sequence.to_be_bytes());
            room[SENT].copy_from_slice(&self.sent_ns.to_be_bytes());
        }
    }

    /// Reads that of a frame of this run.
    pub fn read(tag: Tag, frame: &[u8]) -> Option<Self> {
        let bytes = frame.last_chunk::<STAMP>().filter(|bytes| bytes[TAG] == tag)?;
        Some(Self {
            session: u32::from_be_bytes(bytes[SESSION].try_into().ok()?),
            sequence: u32::from_be_bytes(bytes[SEQUENCE].try_into().ok()?),
            sent_ns: u64::from_be_bytes(bytes[SENT].try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_other_frames_have_none() {
        let stamp = Stamp { session: 7, sequence: u32::MAX, sent_ns: 1 << 40 };
        let mut frame = [0xaa; 60];
        stamp.write(*b"this run", &mut frame);
        assert_eq!(frame[..36], [0xaa; 36]);
        assert_eq!(Stamp::read(*b"this run", &frame), Some(stamp));
        assert_eq!(Stamp::read(*b"another_", &frame), None);
        assert_eq!(Stamp::read(*b"this run", &frame[..59]), None);
        assert_eq!(Stamp::read(*b"this run", &frame[40..]), None);
    }
}
