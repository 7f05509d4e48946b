//! The frame that proves a loop: it goes out to one peer, and nobody but a loop brings it back.
//!
//! ```text
//!  ff:ff:ff:ff:ff:ff │ source of this process │ 88 b6 │ "TRSTLOOP" │ nonce, 16 bytes │ zeros to 60 bytes
//! ```
//!
//! - Broadcast: what carries it carries storms, and what filters it would not. It takes every way that 01:80:C2:00:00:0x is
//!   made not to take.
//! - IEEE 802's second local experimental EtherType: no stack acts on it, and the magic number tells it from the
//!   experiments of others.
//! - The nonce is random, remembered for seconds by who sent it, and said to one peer alone: to know one is to have
//!   received the probe. No key could prove more.

use common::Mac;

/// What names one probe. Nobody guesses it.
pub type Nonce = [u8; 16];

/// Shortest frame of Ethernet without its check sequence: nobody need pad it. Source: IEEE 802.3 clause 4.2.3.3.
pub const PROBE_BYTES: usize = 60;

const MAGIC: [u8; 8] = *b"TRSTLOOP";
const ETHER_TYPE: [u8; 2] = [0x88, 0xb6];
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
const TAG_BYTES: usize = 4;

mod field {
    use std::ops::Range;

    pub const DESTINATION: Range<usize> = 0..6;
    pub const SOURCE: Range<usize> = 6..12;
    pub const ETHER_TYPE: Range<usize> = 12..14;
    pub const MAGIC: Range<usize> = 14..22;
    pub const NONCE: Range<usize> = 22..38;
}

/// The probe from `source` with that nonce.
pub fn probe(source: Mac, nonce: Nonce) -> [u8; PROBE_BYTES] {
    let mut frame = [0; PROBE_BYTES];
    frame[field::DESTINATION].fill(0xff);
    frame[field::SOURCE].copy_from_slice(&source);
    frame[field::ETHER_TYPE].copy_from_slice(&ETHER_TYPE);
    frame[field::MAGIC].copy_from_slice(&MAGIC);
    frame[field::NONCE].copy_from_slice(&nonce);
    frame
}

/// The nonce of a frame that has the form of a probe from `source`; a switch on its way may have put up to two tags in.
/// Any other frame is nobody's business here: `None`.
pub fn probe_nonce(frame: &[u8], source: Mac) -> Option<Nonce> {
    if frame.get(field::SOURCE)? != source {
        return None;
    }
    let mut rest = frame;
    for _ in 0..TAGS.len() {
        if TAGS.iter().any(|tag| rest.get(field::ETHER_TYPE) == Some(tag)) {
            rest = rest.get(TAG_BYTES..)?;
        }
    }
    let is_probe = rest.get(field::ETHER_TYPE)? == ETHER_TYPE && rest.get(field::MAGIC)? == MAGIC;
    rest.get(field::NONCE).filter(|_| is_probe)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOURCE: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn only_the_source_reads_its_probe() {
        let frame = probe(SOURCE, [9; 16]);
        assert_eq!(probe_nonce(&frame, SOURCE), Some([9; 16]));
        assert_eq!(probe_nonce(&frame, [2, 0, 0, 0, 0, 8]), None);
    }

    #[test]
    fn a_probe_is_known_behind_tags_that_a_switch_put_in() {
        let frame = probe(SOURCE, [9; 16]).to_vec();
        let once = [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
        let twice = [&once[..12], &[0x88, 0xa8, 0, 8], &once[12..]].concat();
        let thrice = [&twice[..12], &[0x88, 0xa8, 0, 9], &twice[12..]].concat();
        assert_eq!(probe_nonce(&once, SOURCE), Some([9; 16]));
        assert_eq!(probe_nonce(&twice, SOURCE), Some([9; 16]));
        assert_eq!(probe_nonce(&thrice, SOURCE), None);
    }

    proptest! {
        #[test]
        fn what_is_cut_or_changed_is_no_probe(end in 0..field::NONCE.end, at in 12..field::NONCE.start) {
            let mut frame = probe(SOURCE, [9; 16]);
            prop_assert_eq!(probe_nonce(&frame[..end], SOURCE), None);
            frame[at] ^= 1;
            prop_assert_eq!(probe_nonce(&frame, SOURCE), None);
        }
    }
}
