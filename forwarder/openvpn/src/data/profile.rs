//! What a peer's data packets look like: agreed once a session.

use super::{
    Cipher, Digest, FRAGMENT_HEADER, Framing, cbc, epoch, framing,
    packet::{PACKET_ID, TAG, V1_PREFIX, V2_PREFIX},
};

/// What was agreed with a peer about its data packets. Holds for all keys of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// How packets are sealed.
    pub cipher: Cipher,
    /// What authenticates them where the cipher does not; without meaning for others.
    pub digest: Digest,
    /// What stands around the sealed part.
    pub layout: Layout,
    /// What stands between frame and cipher.
    pub framing: Framing,
    /// Frames that get smaller by it are sent compressed. Only by a framing that has LZ4: [`Framing::V2`] and
    /// [`Framing::Swapped`].
    pub compresses: bool,
    /// `fragment`: every plaintext begins with a fragment header, and none has more than so many bytes behind it.
    /// `None`: no such headers.
    pub fragment: Option<u16>,
    /// `mssfix`: the largest TCP segment over IPv4 that a SYN may ask for, in bytes; over IPv6 20 less.
    pub mssfix: Option<u16>,
}

/// The layout of data packets. Source: brief A.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `P_DATA_V1`: no peer id; the sender's address says whose packet it is. 32-bit packet ids.
    V1,
    /// `P_DATA_V2`: a peer id, 32-bit packet ids.
    V2,
    /// `P_DATA_V2` with epochs: a peer id, the key's epoch, 48-bit packet ids, the tag at the end. Only AEADs have
    /// epochs: with another cipher this is [`Layout::V2`].
    Epoch,
}

impl Profile {
    /// `P_DATA_V2` packets under `cipher`, upstream's default digest, frames framed by `framing`, neither compressed nor
    /// cut.
    pub const fn new(cipher: Cipher, framing: Framing) -> Self {
        Self {
            cipher,
            digest: Digest::Sha1,
            layout: Layout::V2,
            framing,
            compresses: false,
            fragment: None,
            mssfix: None,
        }
    }

    /// Length of the data packet (the UDP payload) in which a plaintext travels; framing and a fragment header are part of
    /// that.
    pub const fn sealed_len(self, plaintext_len: usize) -> usize {
        self.around() + if self.cipher.is_aead() { plaintext_len } else { cbc::padded_len(plaintext_len) }
    }

    /// The longest plaintext whose packet has at most `packet` bytes.
    pub const fn longest_plaintext(self, packet: usize) -> usize {
        let room = packet.saturating_sub(self.around());
        if self.cipher.is_aead() { room } else { cbc::longest_plaintext(room) }
    }

    /// Most bytes that sealing and framing add to a frame.
    pub const fn max_overhead(self) -> usize {
        let fragment = if self.fragment.is_some() { FRAGMENT_HEADER } else { 0 };
        let framing = match self.framing {
            Framing::V2 => framing::ESCAPE,
            other => other.overhead() as usize,
        };
        let padding = if self.cipher.is_aead() { 0 } else { cbc::MOST_PADDED };
        self.around() + padding + framing + fragment
    }

    /// Bytes of a packet besides the ciphertext.
    const fn around(self) -> usize {
        let prefix = match self.layout {
            Layout::V1 => V1_PREFIX,
            Layout::V2 | Layout::Epoch => V2_PREFIX,
        };
        prefix
            + match self.layout {
                _ if !self.cipher.is_aead() => self.digest.tag_len() + cbc::BLOCK,
                Layout::Epoch => epoch::PACKET_ID + TAG,
                Layout::V1 | Layout::V2 => PACKET_ID + TAG,
            }
    }
}

/// The profile whose packets are the longest.
pub(super) const LONGEST: Profile = Profile {
    digest: Digest::Sha512,
    fragment: Some(u16::MAX),
    ..Profile::new(Cipher::Aes256Cbc, Framing::V2)
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overheads_are_those_the_protocol_says() {
        let plain = Profile::new(Cipher::Aes256Gcm, Framing::None);
        for (layout, overhead) in [(Layout::V1, 21), (Layout::V2, 24), (Layout::Epoch, 28)] {
            assert_eq!(Profile { layout, ..plain }.sealed_len(1514), 1514 + overhead);
        }
        let cbc = Profile::new(Cipher::Aes256Cbc, Framing::None);
        // Prefix, HMAC-SHA1, IV, and 4 + 1514 bytes in whole blocks.
        assert_eq!(cbc.sealed_len(1514), 4 + 20 + 16 + 1520);
        assert_eq!(LONGEST.max_overhead(), 4 + 64 + 16 + 4 + 16 + 4 + 2);
    }

    #[test]
    fn the_longest_plaintext_fits_and_one_byte_more_does_not() {
        for (cipher, layout) in [
            (Cipher::Aes256Gcm, Layout::V1),
            (Cipher::Aes256Gcm, Layout::V2),
            (Cipher::Aes256Gcm, Layout::Epoch),
            (Cipher::Aes128Cbc, Layout::V1),
            (Cipher::Aes128Cbc, Layout::V2),
        ] {
            let profile = Profile { layout, ..Profile::new(cipher, Framing::None) };
            for packet in 70..1600 {
                let longest = profile.longest_plaintext(packet);
                assert!(profile.sealed_len(longest) <= packet, "{profile:?} {packet}");
                assert!(profile.sealed_len(longest + 1) > packet, "{profile:?} {packet}");
            }
            assert_eq!(profile.longest_plaintext(20), 0);
        }
    }
}
