//! What a journal's file holds: slots of [`SLOT`] bytes, each blank or one record as a line of JSON.
//!
//! ```text
//!   │ {"owner":{"pid":4242,"started":123}}                      ...spaces... \n │   slot 0: whose it is
//!   │ {"change":{"namespace":{..},"index":2,"name":"ens5",..}}  ...spaces... \n │   a change that stands
//!   │                                                           ...spaces... \n │   one that was put back
//! ```
//!
//! A slot never lies across two pages, and the kernel copies a page at once: whenever the writer is killed, a slot is
//! as it was or as it should be.

use common::Mac;
use serde::{Deserialize, Serialize};

/// Bytes of a slot. The longest record there can be has some 300.
pub const SLOT: usize = 512;
/// Most slots of a file: four features of two ends of 255 ports, and as much again.
pub const SLOTS: usize = 4096;
/// `IFNAMSIZ - 1`.
const LONGEST_NAME: usize = 15;
/// `ETH_GSTRING_LEN - 1`.
const LONGEST_FEATURE: usize = 31;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Record {
    /// Who writes the file.
    Owner(Owner),
    /// A setting that is not as it was found.
    Change(Change),
}

/// The gateway that writes the file: for people, as the lock on the file says whether it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Its process, in its own pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub started: u64,
}

/// A feature of an interface that a gateway has turned on or off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Where the interface is.
    pub namespace: Namespace,
    /// Its number there.
    pub index: u32,
    /// Its name there.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// The feature, by the kernel's name.
    pub feature: String,
    /// How it was found.
    pub was: bool,
    /// How it was left.
    pub set: bool,
}

/// A network namespace. Inode numbers are used again when a namespace is gone, cookies never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Inode of `/proc/PID/ns/net`: by which it is found.
    pub inode: u64,
    /// `SO_NETNS_COOKIE`: by which it is known for certain.
    pub cookie: u64,
}

impl Record {
    /// As a slot; `None`: it does not fit, which no record of ours does.
    pub fn to_slot(&self) -> Option<[u8; SLOT]> {
        let text = serde_json::to_vec(self).ok()?;
        let mut slot = blank();
        // The last byte stays the line's end.
        slot.get_mut(..SLOT - 1)?.get_mut(..text.len())?.copy_from_slice(&text);
        Some(slot)
    }

    /// Of a slot's bytes; `None`: it is blank, damaged, or says what cannot be.
    pub fn from_slot(slot: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(slot).ok()?;
        match &record {
            Self::Change(change) if !change.is_possible() => None,
            _ => Some(record),
        }
    }
}

impl Change {
    fn is_possible(&self) -> bool {
        let name = (1..=LONGEST_NAME).contains(&self.name.len())
            && !self.name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
        let feature = (1..=LONGEST_FEATURE).contains(&self.feature.len())
            && self
                .feature
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        name && feature && self.index > 0 && self.was != self.set
    }
}

/// A slot without a record.
pub fn blank() -> [u8; SLOT] {
    let mut slot = [b' '; SLOT];
    slot[SLOT - 1] = b'\n';
    slot
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Whose it is, if that can be read.
    pub owner: Option<Owner>,
    /// Changes that stand, with their slots, in the order of slots.
    pub changes: Vec<(usize, Change)>,
    /// Slots that are neither blank nor understood.
    pub damaged: usize,
}

impl Contents {
    /// Reads a file; whatever it holds, this ends, and holds no more than [`SLOTS`] changes.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut contents = Self::default();
        for (number, slot) in bytes.chunks(SLOT).take(SLOTS).enumerate() {
            match Record::from_slot(slot) {
                Some(Record::Owner(owner)) => contents.owner = Some(owner),
                Some(Record::Change(change)) => contents.changes.push((number, change)),
                None if slot.iter().all(|byte| matches!(byte, b' ' | b'\n' | 0)) => {}
                None => contents.damaged += 1,
            }
        }
        contents
    }
}

#[cfg(test)]
pub(super) fn sample() -> Change {
    Change {
        namespace: Namespace { inode: 4_026_531_840, cookie: 1 },
        index: 2,
        name: "ens5".into(),
        mac: Some([2, 0, 0, 0, 0, 1]),
        feature: "rx-vlan-hw-parse".into(),
        was: true,
        set: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(change: Change) -> [u8; SLOT] {
        Record::Change(change).to_slot().unwrap()
    }

    #[test]
    fn what_is_written_is_read_again_with_its_slot() {
        let owner = Owner { pid: 4242, started: 99 };
        let mut file = Record::Owner(owner).to_slot().unwrap().to_vec();
        file.extend(blank());
        file.extend(slot(sample()));
        let contents = Contents::parse(&file);
        assert_eq!(contents, Contents { owner: Some(owner), changes: vec![(2, sample())], damaged: 0 });
        assert!(file.split(|byte| *byte == b'\n').count() == 4, "a line a slot, for whoever looks at it");
    }

    #[test]
    fn the_longest_record_fits_its_slot() {
        let change = Change {
            namespace: Namespace { inode: u64::MAX, cookie: u64::MAX },
            index: u32::MAX,
            name: "\u{1f9ff}\u{1f9ff}\u{1f9ff}abc".into(),
            mac: Some([255; 6]),
            feature: "x".repeat(LONGEST_FEATURE),
            was: false,
            set: true,
        };
        assert_eq!(Record::from_slot(&slot(change.clone())), Some(Record::Change(change)));
        assert_eq!(4096 % SLOT, 0, "no slot lies across two pages");
    }

    #[test]
    fn what_cannot_be_is_damage() {
        let impossible = [
            Change { name: String::new(), ..sample() },
            Change { name: "../../etc".into(), ..sample() },
            Change { name: "sixteen-letters-".into(), ..sample() },
            Change { feature: "rx vlan".into(), ..sample() },
            Change { feature: "x".repeat(LONGEST_FEATURE + 1), ..sample() },
            Change { index: 0, ..sample() },
            Change { set: true, ..sample() },
        ];
        for change in impossible {
            let contents = Contents::parse(&slot(change.clone()));
            assert_eq!((contents.changes.len(), contents.damaged), (0, 1), "{change:?}");
        }
    }

    #[test]
    fn a_slot_that_is_cut_off_or_overwritten_harms_no_other() {
        let mut file = slot(sample()).to_vec();
        file[40] = 0xff;
        file.extend(slot(sample()));
        file.extend(&slot(sample())[..100]);
        let contents = Contents::parse(&file);
        assert_eq!((contents.changes, contents.damaged), (vec![(1, sample())], 2));
    }

    #[test]
    fn no_more_is_read_than_a_file_may_hold() {
        let file = slot(sample()).repeat(SLOTS + 7);
        assert_eq!(Contents::parse(&file).changes.len(), SLOTS);
    }
}
