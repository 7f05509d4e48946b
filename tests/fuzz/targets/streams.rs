//! Arbitrary bytes of a TCP connection, cut anywhere: what comes out as packets is what stands behind their lengths.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trestle::streams::unframe::{NoLength, PREFIX, Unframer};

fuzz_target!(|input: &[u8]| {
    let Some((&[kind, longest], rest)) = input.split_first_chunk() else { return };
    let longest = usize::from(longest) * 16 + 1;
    let bytes: Vec<u8> = trestle_fuzz::records(rest).flat_map(|(_, bytes)| bytes.to_vec()).collect();
    let pieces: Vec<usize> = trestle_fuzz::records(rest).map(|(piece, _)| usize::from(piece) + 1).collect();
    let mut unframer = Unframer::new(longest);
    let (mut fed, mut taken) = (0, 0);
    let mut piece = pieces.iter().copied().cycle().skip(kind.into());
    while fed < bytes.len() {
        let room = unframer.room();
        let count = piece.next().unwrap_or(1).min(room.len()).min(bytes.len() - fed);
        assert!(count > 0, "there is no room, and no whole packet");
        room[..count].copy_from_slice(&bytes[fed..fed + count]);
        unframer.filled(count);
        fed += count;
        loop {
            match unframer.next() {
                Ok(Some(packet)) => {
                    let length = packet.len();
                    assert!((1..=longest).contains(&length));
                    assert_eq!(bytes[taken..taken + PREFIX], u16::try_from(length).unwrap().to_be_bytes());
                    assert_eq!(bytes[taken + PREFIX..taken + PREFIX + length], *packet);
                    taken += PREFIX + length;
                }
                Ok(None) => break,
                Err(NoLength) => return,
            }
            unframer.consume();
        }
        assert!(taken <= fed && fed - taken < PREFIX + longest, "more is kept than one packet");
    }
});
