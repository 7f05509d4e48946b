//! Messages between the two ends that travel as data: keepalives and OCC. They are never frames. Source: brief A.10.

use super::{MIN_FRAME, OpenError, Opened};

/// Plaintext of a keepalive. Source: brief A.10, "Ping".
pub const PING: [u8; 16] =
    [0x2a, 0x18, 0x7b, 0xf3, 0x64, 0x1e, 0xb4, 0xcb, 0x07, 0xed, 0x2d, 0x0a, 0x98, 0x1f, 0xc7, 0x48];

/// What an OCC message begins with; a byte with its type follows. Source: brief A.10, "OCC in data".
pub const OCC_MAGIC: [u8; 16] =
    [0x28, 0x7f, 0x34, 0x6b, 0xd4, 0xef, 0x7a, 0x81, 0x2d, 0x56, 0xb8, 0xd3, 0xaf, 0xc5, 0x45, 0x9c];

/// Plaintext with which a peer says that it leaves.
pub const OCC_EXIT: [u8; 17] = occ(OCC_TYPE_EXIT);

const OCC_TYPE_EXIT: u8 = 6;

/// Says what a plaintext, its framing taken off, is. Frames longer than `max_frame` bytes are refused.
#[inline]
pub(super) fn classify(plaintext: &[u8], max_frame: usize) -> Result<Opened, OpenError> {
    if plaintext == PING {
        return Ok(Opened::Ping);
    }
    match plaintext.strip_prefix(&OCC_MAGIC) {
        Some([OCC_TYPE_EXIT, ..]) => return Ok(Opened::Exit),
        Some(_) => return Ok(Opened::Occ),
        None => {}
    }
    match plaintext.len() {
        ..MIN_FRAME => Err(OpenError::PlaintextMalformed),
        len if len > max_frame => Err(OpenError::TooLong),
        len => Ok(Opened::Frame { len }),
    }
}

const fn occ(kind: u8) -> [u8; 17] {
    let mut message = [kind; 17];
    let mut at = 0;
    while at < OCC_MAGIC.len() {
        message[at] = OCC_MAGIC[at];
        at += 1;
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_a_ping_only_alone() {
        assert_eq!(classify(&PING, 1514), Ok(Opened::Ping));
        let longer = [&PING[..], &[0]].concat();
        assert_eq!(classify(&longer, 1514), Ok(Opened::Frame { len: 17 }));
        assert_eq!(classify(&PING[..15], 1514), Ok(Opened::Frame { len: 15 }));
    }

    #[test]
    fn whatever_begins_with_the_occ_magic_is_no_frame() {
        assert_eq!(classify(&OCC_EXIT, 1514), Ok(Opened::Exit));
        assert_eq!(classify(&OCC_MAGIC, 1514), Ok(Opened::Occ));
        for kind in (0..=u8::MAX).filter(|&kind| kind != 6) {
            assert_eq!(classify(&[&occ(kind)[..], &[1, 2]].concat(), 1514), Ok(Opened::Occ), "type {kind}");
        }
    }

    #[test]
    fn a_frame_has_at_least_a_header_and_at_most_the_longest_length() {
        assert_eq!(classify(&[0; 13], 1514), Err(OpenError::PlaintextMalformed));
        assert_eq!(classify(&[0; 14], 1514), Ok(Opened::Frame { len: 14 }));
        assert_eq!(classify(&[0; 1514], 1514), Ok(Opened::Frame { len: 1514 }));
        assert_eq!(classify(&[0; 1515], 1514), Err(OpenError::TooLong));
        assert_eq!(classify(&[], 1514), Err(OpenError::PlaintextMalformed));
    }
}
