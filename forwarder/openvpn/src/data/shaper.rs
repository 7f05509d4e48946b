//! What becomes of a frame before it is sealed, where that takes memory: compressed, cut into parts. Few peers need it.

use super::{
    Profile, SealError,
    fragment::Cutter,
    framing::{self, Compressor, Framing, Plaintext},
};

/// Compresses and cuts the frames of one peer.
pub(super) struct Shaper {
    framing: Framing,
    compressor: Option<Compressor>,
    cutter: Option<Cutter>,
}

impl Shaper {
    /// For frames of up to `max_frame` bytes; `None` where `profile` asks for neither.
    pub(super) fn new(profile: Profile, max_frame: usize) -> Option<Self> {
        let Profile { framing, compresses, fragment, .. } = profile;
        let compressor = if compresses { Compressor::new(framing, max_frame) } else { None };
        let cutter = fragment.map(|longest| Cutter::new(longest, max_frame + framing::ESCAPE));
        let needed = compressor.is_some() || cutter.is_some();
        needed.then_some(Self { framing, compressor, cutter })
    }

    /// What to seal of `frame` first: all of it, unless [`Self::has_rest`].
    pub(super) fn shape<'a>(&'a mut self, frame: &'a [u8]) -> Result<Plaintext<'a>, SealError> {
        let plaintext = match &mut self.compressor {
            Some(compressor) => compressor.compress(frame),
            None => Plaintext::plain(self.framing, frame),
        };
        match &mut self.cutter {
            Some(cutter) => cutter.cut(&plaintext),
            None => Ok(plaintext),
        }
    }

    /// True while more of the last frame is to be sealed.
    pub(super) fn has_rest(&self) -> bool {
        self.cutter.as_ref().is_some_and(Cutter::has_rest)
    }

    /// What to seal next of the last frame; `None` when all of it has been.
    pub(super) fn rest(&mut self) -> Option<Plaintext<'_>> {
        self.cutter.as_mut()?.rest()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{
        data::{
            Cipher, DataChannel, DataKeys, Framing, OCC_EXIT, OpenError, Opened, PING, Profile, Role,
            SealError,
        },
        ids::{KeyId, PeerId},
    };

    const MAX_FRAME: usize = 1522;

    struct Pair {
        server: DataChannel,
        client: DataChannel,
    }

    impl Pair {
        fn new(profile: Profile) -> Self {
            let channel = |role| {
                let mut channel = DataChannel::new(PeerId::new(7).unwrap(), profile, MAX_FRAME);
                channel.install(KeyId::FIRST, DataKeys::new(profile, role, &[3; 256]));
                channel.send_with(KeyId::FIRST);
                channel
            };
            Self { server: channel(Role::Server), client: channel(Role::Client) }
        }

        /// All packets of a frame.
        fn seal(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
            let mut out = [0; 2048];
            let len = self.server.seal(frame, &mut out).unwrap();
            let mut packets = vec![out[..len].to_vec()];
            while let Some(sealed) = self.server.seal_rest(&mut out) {
                packets.push(out[..sealed.unwrap()].to_vec());
            }
            assert!(!self.server.has_rest());
            packets
        }

        fn open(&mut self, packet: &[u8]) -> Result<Option<Vec<u8>>, OpenError> {
            let mut out = [0; 2048];
            match self.client.open(packet, &mut out)? {
                Opened::Frame { len } => Ok(Some(out[..len].to_vec())),
                _ => Ok(None),
            }
        }
    }

    fn profiles() -> Vec<Profile> {
        let mut profiles = Vec::new();
        for framing in [Framing::None, Framing::V2, Framing::Prefixed, Framing::Swapped] {
            for cipher in [Cipher::Aes256Gcm, Cipher::Aes128Cbc] {
                for (compresses, fragment) in
                    [(false, Some(500)), (true, None), (true, Some(500)), (true, Some(60_000))]
                {
                    profiles.push(Profile { compresses, fragment, ..Profile::new(cipher, framing) });
                }
            }
        }
        profiles
    }

    /// A frame of `len` bytes that begins with `first`; `seed` 0 compresses well.
    fn frame(len: usize, first: u8, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let mut noise = || {
            // xorshift32: stays 0 from 0.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as u8
        };
        let mut frame: Vec<u8> = (0..len).map(|_| noise()).collect();
        frame[0] = first;
        frame
    }

    #[test]
    fn messages_are_recognised_behind_framing_and_fragment_header() {
        for profile in profiles() {
            let mut pair = Pair::new(profile);
            for (message, expected) in [(&PING[..], Opened::Ping), (&OCC_EXIT, Opened::Exit)] {
                let packets = pair.seal(message);
                assert_eq!(packets.len(), 1);
                assert_eq!(pair.client.open(&packets[0], &mut [0; 2048]), Ok(expected), "{profile:?}");
            }
        }
    }

    #[test]
    fn a_compressible_frame_is_sent_compressed_and_a_short_or_random_one_is_not() {
        for framing in [Framing::V2, Framing::Swapped] {
            let profile = Profile { compresses: true, ..Profile::new(Cipher::Aes256Gcm, framing) };
            let mut pair = Pair::new(profile);
            let plain = |len: usize| len + 24 + usize::from(framing.overhead());
            assert!(pair.seal(&frame(1514, 2, 0))[0].len() < 100);
            assert_eq!(pair.seal(&frame(99, 2, 0))[0].len(), plain(99));
            assert_eq!(pair.seal(&frame(1514, 2, 1))[0].len(), plain(1514));
        }
    }

    #[test]
    fn a_frame_not_sealed_to_its_end_is_forgotten_with_the_next() {
        let mut pair =
            Pair::new(Profile { fragment: Some(500), ..Profile::new(Cipher::Aes256Gcm, Framing::None) });
        let mut out = [0; 2048];
        pair.server.seal(&frame(1514, 2, 1), &mut out).unwrap();
        assert!(pair.server.has_rest());
        let packets = pair.seal(&frame(60, 4, 1));
        assert_eq!(pair.open(&packets[0]), Ok(Some(frame(60, 4, 1))));
        assert_eq!(pair.server.seal(&[0; 4000], &mut out), Err(SealError::TooLong));
        assert!(!pair.server.has_rest());
    }

    #[test]
    fn without_fragment_there_is_never_a_rest() {
        let mut pair = Pair::new(Profile::new(Cipher::Aes256Gcm, Framing::V2));
        assert_eq!(pair.seal(&frame(1514, 0x50, 1)).len(), 1);
    }

    proptest! {
        #[test]
        fn frames_arrive_as_they_were_in_packets_that_fit(
            len in 14_usize..=MAX_FRAME, first: u8, seed in 0_u32..3, at in 0_usize..32,
        ) {
            let profile = profiles()[at];
            let mut pair = Pair::new(profile);
            let frame = frame(len, first, seed);
            let packets = pair.seal(&frame);
            if let Some(longest) = profile.fragment {
                let most = profile.sealed_len(usize::from(longest) + 4);
                prop_assert!(packets.iter().all(|packet| packet.len() <= most));
            }
            let opened: Vec<_> = packets.iter().filter_map(|packet| pair.open(packet).unwrap()).collect();
            prop_assert_eq!(opened, [frame]);
        }
    }
}
