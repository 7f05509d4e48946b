//! The 256 bytes that both ends of a wrapping share: `key2`, two halves of a cipher's and an HMAC's key.
//!
//! ```text
//! key2:  half 0 (128)              half 1 (128)
//!        cipher (64) | hmac (64)   cipher (64) | hmac (64)
//! ```

use std::fmt;

use zeroize::Zeroizing;

use super::key_file::KeyFileError;

const BEGIN: &str = "-----BEGIN OpenVPN Static key V1-----";
const END: &str = "-----END OpenVPN Static key V1-----";
/// Length of one half.
pub(super) const HALF: usize = 128;
/// Length of the cipher's part of a half; the HMAC's follows.
const CIPHER_PART: usize = 64;

/// A static key. Never printed; overwritten when dropped.
#[derive(Clone)]
pub struct StaticKey(Box<Zeroizing<[u8; Self::LEN]>>);

/// One half of a [`StaticKey`], or the whole of a tls-crypt-v2 server key.
#[derive(Clone, Copy)]
pub(super) struct Half<'a>(pub(super) &'a [u8; HALF]);

impl StaticKey {
    /// Bytes of a key.
    pub const LEN: usize = 2 * HALF;

    /// From the bytes, which remain the caller's to wipe.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut key = Self::zero();
        key.0.copy_from_slice(bytes);
        key
    }

    /// Reads a file as `openvpn --genkey secret` writes it: hexadecimal digits between two lines, comments around.
    ///
    /// # Errors
    /// No such section, other characters in it, or another length.
    pub fn parse(text: &[u8]) -> Result<Self, KeyFileError> {
        let damaged = KeyFileError::Damaged;
        let text = std::str::from_utf8(text).map_err(|_| damaged)?;
        let mut lines = text.lines().map(str::trim);
        lines.find(|line| *line == BEGIN).ok_or(KeyFileError::Missing("OpenVPN Static key V1"))?;
        let mut key = Self::zero();
        let mut found = 0;
        for line in lines {
            if line == END {
                return if found == Self::LEN { Ok(key) } else { Err(wrong_length(found)) };
            }
            for pair in line.as_bytes().chunks(2) {
                let byte = hex_byte(pair).ok_or(damaged)?;
                if let Some(slot) = key.0.get_mut(found) {
                    *slot = byte;
                }
                found += 1;
            }
        }
        Err(damaged)
    }

    /// This key XOR `other`.
    pub(super) fn mixed_with(&self, other: &[u8; Self::LEN]) -> Self {
        let mut key = self.clone();
        key.0.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
        key
    }

    /// The two halves.
    pub(super) fn halves(&self) -> [Half<'_>; 2] {
        let (first, second) = self.0.split_at(HALF);
        [first, second].map(|half| Half(half.first_chunk().unwrap_or(&[0; HALF])))
    }

    pub(super) fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    fn zero() -> Self {
        Self(Box::new(Zeroizing::new([0; Self::LEN])))
    }
}

impl<'a> Half<'a> {
    /// The 64 bytes that a cipher's key begins.
    pub(super) fn cipher(self) -> &'a [u8] {
        self.0.get(..CIPHER_PART).unwrap_or_default()
    }

    /// The 64 bytes that an HMAC's key begins.
    pub(super) fn hmac(self) -> &'a [u8] {
        self.0.get(CIPHER_PART..).unwrap_or_default()
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticKey(hidden)")
    }
}

fn hex_byte(pair: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

fn wrong_length(found: usize) -> KeyFileError {
    KeyFileError::Length { found, expected: StaticKey::LEN }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(digits: &str) -> String {
        format!("#\n# 2048 bit OpenVPN static key\n#\n{BEGIN}\n{digits}\n{END}\n")
    }

    #[test]
    fn a_key_file_is_read_with_its_comments_and_any_line_ends() {
        let digits: String = (0..=255).map(|byte| format!("{byte:02x}")).collect();
        let lines: Vec<&str> = (0..16).map(|at| &digits[at * 32..][..32]).collect();
        for text in [
            file(&digits),
            file(&lines.join("\n")),
            file(&lines.join("\r\n")).replace(BEGIN, &format!(" {BEGIN}\r")),
        ] {
            let key = StaticKey::parse(text.as_bytes()).unwrap();
            assert!(key.bytes().iter().enumerate().all(|(at, byte)| at == usize::from(*byte)));
            assert_eq!((key.halves()[1].cipher()[0], key.halves()[1].hmac()[0]), (128, 192));
        }
    }

    #[test]
    fn what_is_wrong_with_a_key_file_is_said() {
        let parse = |text: &str| StaticKey::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(parse(""), KeyFileError::Missing(_)));
        assert_eq!(parse(&file("0g")), KeyFileError::Damaged);
        assert_eq!(parse(&file("012")), KeyFileError::Damaged);
        assert_eq!(parse(&file("0123")), KeyFileError::Length { found: 2, expected: 256 });
        assert_eq!(parse(&file(&"00".repeat(257))), KeyFileError::Length { found: 257, expected: 256 });
        assert_eq!(parse(&format!("{BEGIN}\n00\n")), KeyFileError::Damaged);
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", StaticKey::from_bytes(&[0x5a; 256])), "StaticKey(hidden)");
    }
}
