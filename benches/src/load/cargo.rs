//! The frame that is sent, in each session's dress.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use common::Mac;
use openvpn::data::MIN_FRAME;

use super::stamp::{STAMP, Stamp, Tag};

/// Longest frame that can be sent, in bytes: a jumbo frame with a header and two tags.
pub const MAX_FRAME: usize = 9022;
/// Where a source address is.
const SOURCE: std::ops::Range<usize> = 6..12;
/// EtherTypes of VLAN tags.
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
/// EtherType for experiments in a site (IEEE 802, local experimental 1): what announces a session.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
/// To everybody.
const BROADCAST: Mac = [0xff; 6];

/// Why a file is no frame.
#[derive(Debug, thiserror::Error)]
pub enum CargoError {
    /// It cannot be read.
    #[error("the frame file cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is of no use.
    #[error(
        "the frame file holds {} bytes, but a frame has {MIN_FRAME} to {MAX_FRAME}: write the raw bytes of one Ethernet \
         frame into it, from the destination address on and without the checksum",
        if *.0 > MAX_FRAME { format!("more than {MAX_FRAME}") } else { .0.to_string() }
    )]
    Length(usize),
    /// Frames to the next session need one.
    #[error("`--to session` needs two sessions at least that are connected")]
    Alone,
}

/// Where frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Each session's to the next one.
    Session,
    /// To everybody.
    Broadcast,
    /// To the address that stands in the frame.
    Frame,
}

impl To {
    /// As the command line says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Broadcast => "broadcast",
            Self::Frame => "frame",
        }
    }
}

/// Which sessions a frame should reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// One.
    One,
    /// All but the sender.
    Others,
    /// Nobody knows.
    Unknown,
}

/// The frame as it is sent next.
#[derive(Clone, Debug)]
pub struct Cargo {
    frame: Vec<u8>,
    tag: Tag,
    stamped: bool,
    to: To,
    macs: Macs,
}

/// The sessions' addresses: four bytes that all have in common, two with the session's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Macs(pub [u8; 4]);

impl Macs {
    /// Address of session `number`.
    pub fn of(self, number: usize) -> Mac {
        let Self([a, b, c, d]) = self;
        let [.., e, f] = number.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// Whose address it is, if it is of a session.
    pub fn number(self, mac: Mac) -> Option<usize> {
        let [a, b, c, d, e, f] = mac;
        ([a, b, c, d] == self.0).then(|| usize::from(u16::from_be_bytes([e, f])))
    }
}

impl Cargo {
    /// Reads a frame.
    ///
    /// # Errors
    /// See [`CargoError`].
    pub fn read(path: &Path, to: To, macs: Macs, tag: [u8; 8], stamp: bool) -> Result<Self, CargoError> {
        // No more than shows that it is too long: the file may be without end.
        let mut frame = Vec::new();
        File::open(path)?.take(MAX_FRAME as u64 + 1).read_to_end(&mut frame)?;
        Self::new(frame, to, macs, tag, stamp)
    }

    pub(super) fn new(frame: Vec<u8>, to: To, macs: Macs, tag: Tag, stamp: bool) -> Result<Self, CargoError> {
        if !(MIN_FRAME..=MAX_FRAME).contains(&frame.len()) {
            return Err(CargoError::Length(frame.len()));
        }
        let stamped = stamp && frame.len() >= header_bytes(&frame) + STAMP;
        Ok(Self { frame, tag, stamped, to, macs })
    }

    /// Length of the frame in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// Whether frames carry number and time.
    pub fn is_stamped(&self) -> bool {
        self.stamped
    }

    /// Where frames go.
    pub fn to(&self) -> To {
        self.to
    }

    /// The sessions' addresses.
    pub fn macs(&self) -> Macs {
        self.macs
    }

    pub(super) fn tag(&self) -> Tag {
        self.tag
    }

    /// Which of `count` sessions frames should reach.
    pub(super) fn audience(&self) -> Audience {
        let destination = self.frame.first_chunk().copied().unwrap_or(BROADCAST);
        match self.to {
            To::Session => Audience::One,
            To::Broadcast => Audience::Others,
            To::Frame if destination[0] & 1 != 0 => Audience::Others,
            To::Frame => Audience::Unknown,
        }
    }

    /// Puts on the addresses of session `number`; `next` is the session after it.
    pub(super) fn dress(&mut self, number: usize, next: usize) {
        self.frame[SOURCE].copy_from_slice(&self.macs.of(number));
        let destination = match self.to {
            To::Session => self.macs.of(next),
            To::Broadcast => BROADCAST,
            To::Frame => return,
        };
        self.frame[..6].copy_from_slice(&destination);
    }

    /// The frame with its stamp on, in the dress it has.
    pub(super) fn stamped(&mut self, stamp: Stamp) -> &[u8] {
        if self.stamped {
            stamp.write(self.tag, &mut self.frame);
        }
        &self.frame
    }

    /// A frame from session `number` to itself: the gateway learns where it is, and nobody else hears of it.
    pub(super) fn announcement(&self, number: usize) -> [u8; 60] {
        let mut frame = [0; 60];
        let mac = self.macs.of(number);
        frame[..6].copy_from_slice(&mac);
        frame[SOURCE].copy_from_slice(&mac);
        frame[12..14].copy_from_slice(&EXPERIMENT);
        frame
    }
}

/// Length of the Ethernet header with its tags.
fn header_bytes(frame: &[u8]) -> usize {
    let is_tag = |at: usize| frame.get(at..at + 2).is_some_and(|kind| TAGS.iter().any(|tag| tag == kind));
    let tags = [12, 16].into_iter().take_while(|&at| is_tag(at)).count();
    14 + 4 * tags
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: Macs = Macs([0x02, 1, 2, 3]);

    fn cargo(frame: &[u8], to: To) -> Result<Cargo, CargoError> {
        Cargo::new(frame.to_vec(), to, MACS, [9; 8], true)
    }

    #[test]
    fn a_file_of_another_length_than_a_frame_is_refused_with_its_length() {
        for (len, words) in
            [(0, "holds 0 bytes"), (13, "holds 13 bytes"), (9023, "holds more than 9022 bytes")]
        {
            let error = cargo(&vec![0; len], To::Frame).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(cargo(&[0; 14], To::Frame).is_ok_and(|cargo| !cargo.is_stamped()));
        assert!(cargo(&[0; 9022], To::Frame).is_ok());
    }

    #[test]
    fn a_stamp_never_touches_header_or_tags() {
        let mut tagged = [0; 42];
        tagged[12..14].copy_from_slice(&[0x81, 0x00]);
        assert!(cargo(&tagged, To::Frame).unwrap().is_stamped());
        assert!(!cargo(&tagged[..41], To::Frame).unwrap().is_stamped());
        tagged[16..18].copy_from_slice(&[0x81, 0x00]);
        assert!(!cargo(&tagged, To::Frame).unwrap().is_stamped());
        assert!(cargo(&[0; 38], To::Frame).unwrap().is_stamped());
        assert!(!cargo(&[0; 37], To::Frame).unwrap().is_stamped());
    }

    #[test]
    fn every_session_has_an_address_of_its_own_that_names_it() {
        for number in [0, 1, 255, 256, 65_535] {
            let mac = MACS.of(number);
            assert_eq!(mac[..4], [2, 1, 2, 3]);
            assert_eq!(MACS.number(mac), Some(number));
        }
        assert_eq!(MACS.number([2, 1, 2, 4, 0, 0]), None);
    }

    #[test]
    fn frames_go_where_they_are_told_to() {
        let frame = [0x0a; 60];
        for (to, destination) in
            [(To::Session, MACS.of(6)), (To::Broadcast, [0xff; 6]), (To::Frame, [0x0a; 6])]
        {
            let mut cargo = cargo(&frame, to).unwrap();
            cargo.dress(5, 6);
            let stamp = Stamp { session: 5, sequence: 1, sent_ns: 2 };
            let sent = cargo.stamped(stamp).to_vec();
            assert_eq!((&sent[..6], &sent[6..12]), (&destination[..], &MACS.of(5)[..]));
            assert_eq!(Stamp::read([9; 8], &sent), Some(stamp));
        }
        assert_eq!(cargo(&[0x0a; 60], To::Frame).unwrap().audience(), Audience::Unknown);
        assert_eq!(cargo(&[0x0b; 60], To::Frame).unwrap().audience(), Audience::Others);
    }
}
