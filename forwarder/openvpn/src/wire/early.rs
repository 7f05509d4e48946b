//! What a server's hard reset may carry: types, lengths and values. Source: brief A.5, "Early negotiation".
//!
//! ```text
//! type (2) | length (2) | value (length)      type 1: flags (2), of which bit 0: tell the wrapped client key again
//! ```

use super::{Malformed, cursor::Cursor};

const FLAGS: u16 = 1;
const RESEND_WRAPPED_KEY: u16 = 1;

/// The payload that asks a client to tell its wrapped key once more.
pub const RESEND: [u8; 6] = {
    let ([a, b], [e, f]) = (FLAGS.to_be_bytes(), RESEND_WRAPPED_KEY.to_be_bytes());
    [a, b, 0, 2, e, f]
};

/// Whether a reset's payload asks the client to tell its wrapped key once more. Types nobody knows are skipped.
///
/// # Errors
/// A value is cut off, or the flags are not two bytes.
pub fn wants_wrapped_key(payload: &[u8]) -> Result<bool, Malformed> {
    let mut cursor = Cursor::new(payload);
    let mut wants = false;
    while !cursor.is_empty() {
        let (kind, len) = (cursor.u16()?, cursor.u16()?);
        let mut value = Cursor::new(cursor.bytes(usize::from(len))?);
        if kind == FLAGS {
            wants |= value.u16()? & RESEND_WRAPPED_KEY != 0;
            value.is_empty().then_some(()).ok_or(Malformed)?;
        }
    }
    Ok(wants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_for_the_wrapped_key_is_found_among_others() {
        assert_eq!(RESEND, [0, 1, 0, 2, 0, 1]);
        let read = |parts: &[&[u8]]| wants_wrapped_key(&parts.concat()).ok();
        assert_eq!(read(&[]), Some(false));
        assert_eq!(read(&[&RESEND]), Some(true));
        assert_eq!(read(&[&[0, 9, 0, 3, 1, 2, 3], &RESEND]), Some(true));
        assert_eq!(read(&[&[0, 1, 0, 2, 0, 2]]), Some(false));
        for broken in [&[0][..], &[0, 1, 0], &[0, 1, 0, 2, 0], &[0, 1, 0, 1, 0], &[0, 1, 0, 3, 0, 1, 0]] {
            assert_eq!(read(&[broken]), None, "{broken:?}");
        }
    }
}
