//! What goes over the control socket for `trestle capture`.
//!
//! ```text
//!   client   capture SNAP NAME\n
//!   gateway  {"capture": {...}}\n              an Opening, or {"error": "..."}\n
//!            record, record, ...              until one of the two goes
//!
//!   record   | size of what follows: u32 | kind: u8 | body |          integers in network order
//!     frame  | 1 | nanoseconds since 1970: u64 | interface: u16 | way: u8 | drop: u8 | length: u32 | bytes |
//!     lost   | 2 | frames not copied since the beginning: u64 |
//! ```

use serde::{Deserialize, Serialize};

use crate::{drops::Drop, worker::Direction};

/// Longest frame of which a copy is kept whole, in bytes: what the worker's memory holds at most.
pub const SNAP: u32 = 4096;
/// Longest record but for its size, in bytes.
pub const RECORD_BYTES: u32 = SNAP + 64;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// A port, or a peer by its name, its number or its address.
    pub name: String,
    /// Bytes kept of each frame, at most [`SNAP`].
    pub snap: u32,
}

impl Ask {
    /// As it goes over the socket.
    pub fn line(&self) -> String {
        format!("capture {} {}", self.snap, self.name)
    }

    /// From such a line; `None` for another.
    pub fn from_line(line: &str) -> Option<Self> {
        let (snap, name) = line.strip_prefix("capture ")?.split_once(' ')?;
        let snap: u32 = snap.parse().ok()?;
        (!name.is_empty()).then(|| Self { name: name.to_owned(), snap: snap.min(SNAP) })
    }
}

/// The first line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Records follow.
    Capture(Opening),
    /// Why not.
    Error(String),
}

/// What the numbers in records mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Where frames come in and go out, by number.
    pub interfaces: Vec<Interface>,
    /// Bytes kept of each frame.
    pub snap: u32,
    /// Names of reasons why a frame was lost, by number from 1.
    pub drops: Vec<String>,
}

/// One peer or port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The peer's common name, or the interface's.
    pub name: String,
    /// Which peer or port that is, in words.
    pub description: String,
}

impl Opening {
    /// Of these interfaces.
    pub fn new(interfaces: Vec<Interface>, snap: u32) -> Self {
        let drops = Drop::ALL.iter().map(|drop| drop.name().to_owned()).collect();
        Self { interfaces, snap, drops }
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A frame.
    Frame(FrameRecord),
    /// So many frames were not copied since the beginning: the reader is too slow.
    Lost(u64),
}

/// A copy of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameRecord {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Which of the opening's interfaces.
    pub interface: u16,
    /// Which way it went there.
    pub direction: Direction,
    /// 0: it went on; else which of the opening's reasons, from 1.
    pub drop: u8,
    /// Length of the frame in bytes.
    pub length: u32,
    /// As much of it as was asked for.
    pub bytes: Vec<u8>,
}

const FRAME: u8 = 1;
const LOST: u8 = 2;

impl Record {
    /// Appends the record with its size.
    pub fn write(&self, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend([0; 4]);
        match self {
            Self::Frame(frame) => frame.write(to),
            Self::Lost(frames) => {
                to.push(LOST);
                to.extend(frames.to_be_bytes());
            }
        }
        let size = u32::try_from(to.len() - start - 4).unwrap_or(u32::MAX);
        to[start..start + 4].copy_from_slice(&size.to_be_bytes());
    }

    /// From what follows the size; `None`: of another version.
    pub fn read(record: &[u8]) -> Option<Self> {
        let (kind, body) = record.split_first()?;
        match *kind {
            FRAME => FrameRecord::read(body).map(Self::Frame),
            LOST => Some(Self::Lost(u64::from_be_bytes(body.try_into().ok()?))),
            _ => None,
        }
    }
}

impl FrameRecord {
    fn write(&self, to: &mut Vec<u8>) {
        to.push(FRAME);
        to.extend(self.time_ns.to_be_bytes());
        to.extend(self.interface.to_be_bytes());
        to.push(u8::from(self.direction == Direction::Out));
        to.push(self.drop);
        to.extend(self.length.to_be_bytes());
        to.extend(&self.bytes);
    }

    fn read(body: &[u8]) -> Option<Self> {
        let (time_ns, rest) = body.split_first_chunk()?;
        let (interface, rest) = rest.split_first_chunk()?;
        let ([direction, drop], rest) = rest.split_first_chunk()?;
        let (length, bytes) = rest.split_first_chunk()?;
        Some(Self {
            time_ns: u64::from_be_bytes(*time_ns),
            interface: u16::from_be_bytes(*interface),
            direction: if *direction == 0 { Direction::In } else { Direction::Out },
            drop: *drop,
            length: u32::from_be_bytes(*length),
            bytes: bytes.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_asked() {
        let ask = Ask { name: "agent 7 of the office".into(), snap: 96 };
        assert_eq!(Ask::from_line(&ask.line()), Some(ask));
        let long = Ask::from_line("capture 4000000000 tap0").unwrap();
        assert_eq!(long.snap, SNAP);
        for line in ["capture", "capture 96", "capture 96 ", "capture x tap0", "status"] {
            assert_eq!(Ask::from_line(line), None, "{line}");
        }
    }

    #[test]
    fn every_reason_has_a_number() {
        assert!(Drop::ALL.len() < usize::from(u8::MAX));
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(
            (time_ns, interface, out, drop, length) in any::<(u64, u16, bool, u8, u32)>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let direction = if out { Direction::Out } else { Direction::In };
            let frame = Record::Frame(FrameRecord { time_ns, interface, direction, drop, length, bytes });
            let mut written = Vec::new();
            frame.write(&mut written);
            Record::Lost(time_ns).write(&mut written);
            let size = u32::from_be_bytes(written[..4].try_into().unwrap()) as usize;
            prop_assert_eq!(Record::read(&written[4..4 + size]), Some(frame));
            prop_assert_eq!(Record::read(&written[8 + size..]), Some(Record::Lost(time_ns)));
        }

        #[test]
        fn what_is_no_record_is_none(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Record::read(&bytes);
        }
    }
}
