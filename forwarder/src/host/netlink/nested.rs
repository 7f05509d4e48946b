//! Attributes of any kernel table, read where they lie: for messages that come by the ten thousand, and for tables whose
//! numbers neli does not name.
//!
//! ```text
//!   0        2        4                 length      next multiple of 4
//!   │ length │ type   │ value           │ padding   │ …              include/uapi/linux/netlink.h, struct nlattr
//! ```

/// Size of `struct nlattr`.
const HEADER: usize = 4;
/// Two bits of the type say how the value is laid out (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`): no part of its number.
const TYPE_MASK: u16 = 0x3fff;

/// A row of attributes.
#[derive(Clone, Copy, Debug)]
pub struct Nested<'a>(&'a [u8]);

impl<'a> Nested<'a> {
    /// Those in `bytes`.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Those behind the first `header` bytes of a message.
    pub fn behind(header: usize, message: &'a [u8]) -> Self {
        Self(message.get(header..).unwrap_or_default())
    }

    /// Each with its type; ends at the first that is not whole.
    pub fn each(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let [l0, l1, t0, t1] = *left.first_chunk::<HEADER>()?;
            let len = usize::from(u16::from_ne_bytes([l0, l1]));
            let value = left.get(HEADER..len)?;
            // The last one's padding may be missing.
            left = left.get(len.next_multiple_of(4)..).unwrap_or_default();
            Some((u16::from_ne_bytes([t0, t1]) & TYPE_MASK, value))
        })
    }

    /// The bytes of one.
    pub fn bytes(self, kind: u16) -> Option<&'a [u8]> {
        self.each().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// One that is an array of `N` bytes.
    pub fn array<const N: usize>(self, kind: u16) -> Option<[u8; N]> {
        self.bytes(kind)?.try_into().ok()
    }

    /// One that is a number of one byte.
    pub fn byte(self, kind: u16) -> Option<u8> {
        self.array(kind).map(u8::from_ne_bytes)
    }

    /// One that is a number of two bytes.
    pub fn short(self, kind: u16) -> Option<u16> {
        self.array(kind).map(u16::from_ne_bytes)
    }

    /// One that is a number of four bytes.
    pub fn number(self, kind: u16) -> Option<u32> {
        self.array(kind).map(u32::from_ne_bytes)
    }

    /// One that is a number of four bytes in network order: netfilter's.
    pub fn network_number(self, kind: u16) -> Option<u32> {
        self.array(kind).map(u32::from_be_bytes)
    }

    /// One that is a text, ended by zero or not.
    pub fn text(self, kind: u16) -> Option<String> {
        let bytes = self.bytes(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// Those within one; none where it is not there.
    pub fn nested(self, kind: u16) -> Self {
        Self(self.bytes(kind).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_by_their_numbers_whatever_their_flags() {
        let nested_flag = 0x8000u16 | 12;
        let inner = [5u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat();
        let mut bytes = [8u16.to_ne_bytes(), 7u16.to_ne_bytes()].concat();
        bytes.extend(1500u32.to_ne_bytes());
        bytes.extend([12u16.to_ne_bytes(), nested_flag.to_ne_bytes()].concat());
        bytes.extend(inner);
        bytes.extend([3, 0, 0, 0]);
        let attributes = Nested::of(&bytes);
        assert_eq!(attributes.number(7), Some(1500));
        assert_eq!(attributes.short(7), None, "another length is not there");
        assert_eq!(attributes.nested(12).byte(1), Some(3));
        assert_eq!(attributes.each().count(), 2);
    }

    #[test]
    fn what_is_cut_or_shorter_than_its_header_ends_the_row() {
        for bytes in [&[4u8, 0][..], &[3, 0, 1, 0, 9], &[0; 8], &[9, 0, 1, 0, 1, 2]] {
            assert_eq!(Nested::of(bytes).each().count(), 0, "{bytes:?}");
        }
        assert_eq!(Nested::behind(9, &[0; 8]).each().count(), 0);
    }
}
