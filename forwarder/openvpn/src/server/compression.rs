//! Which compression framing each client gets: what the file wants, of that what the client survives. Source: brief
//! A.11, C.11; comp.c, multi.c `multi_client_connect_compress_migrate`.
//!
//! Upstream pushes what the file says to everyone, and a client that refuses it restarts for ever. Here a client is only
//! pushed what it announces. Framings without compression are on the wire the same as those with, so nothing is lost
//! but the compressing.

use super::{AllowCompression, Compress};
use crate::{
    data::Framing,
    wire::peer_info::{Framings, PeerInfo},
};

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// The option it is pushed.
    pub(super) pushed: Option<&'static str>,
    /// What that means on the wire.
    pub(super) framing: Framing,
    /// What is sent to it is compressed.
    pub(super) compresses: bool,
}

/// One option that can be pushed.
struct Candidate {
    pushed: &'static str,
    framing: Framing,
    /// The other side may compress by it.
    with: bool,
    survives: fn(&Framings) -> bool,
}

const LZ4_V2: Candidate =
    Candidate { pushed: "compress lz4-v2", framing: Framing::V2, with: true, survives: |f| f.lz4_v2 };
const STUB_V2: Candidate =
    Candidate { pushed: "compress stub-v2", framing: Framing::V2, with: false, survives: |f| f.stub_v2 };
const STUB: Candidate =
    Candidate { pushed: "compress stub", framing: Framing::Swapped, with: false, survives: |f| f.stub };
const LZ4: Candidate =
    Candidate { pushed: "compress lz4", framing: Framing::Swapped, with: true, survives: |f| f.lz4 };
const LZO: Candidate =
    Candidate { pushed: "comp-lzo yes", framing: Framing::Prefixed, with: true, survives: |f| f.lzo };
const LZO_NO: Candidate = Candidate {
    pushed: "comp-lzo no",
    framing: Framing::Prefixed,
    with: false,
    survives: |f| f.lzo || f.lzo_stub || f.stub,
};

/// What the client with `info` gets where `wanted` is to be used; `has_some` if its options string says that its own
/// file names some framing.
pub(super) fn offer(wanted: Compress, allowed: AllowCompression, info: &PeerInfo, has_some: bool) -> Offer {
    let fits = |candidate: &&Candidate| {
        (candidate.survives)(&info.framings) && !(candidate.with && allowed == AllowCompression::No)
    };
    let wanted = candidates(wanted, has_some).iter().find(fits);
    // One that has some and announces none is older than announcing: it can only have `comp-lzo`.
    let chosen = wanted.or(has_some.then_some(&LZO_NO));
    let framing = chosen.map_or(Framing::None, |candidate| candidate.framing);
    let compresses = allowed == AllowCompression::Yes
        && chosen.is_some_and(|candidate| candidate.with && candidate.framing != Framing::Prefixed);
    Offer { pushed: chosen.map(|candidate| candidate.pushed), framing, compresses }
}

/// In order of preference: what the file wants, then what comes nearest.
fn candidates(compress: Compress, has_some: bool) -> &'static [Candidate] {
    match compress {
        Compress::Off if has_some => &[STUB_V2],
        Compress::Off => &[],
        Compress::Lz4V2 => &[LZ4_V2, STUB_V2],
        Compress::StubV2 => &[STUB_V2],
        Compress::Stub => &[STUB, STUB_V2],
        Compress::Lz4 => &[LZ4, STUB_V2],
        Compress::Lzo => &[LZO, STUB_V2, LZO_NO],
        Compress::LzoNo => &[LZO_NO, STUB_V2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(compress: Compress, allowed: AllowCompression, info: &str, has_some: bool) -> Offer {
        offer(compress, allowed, &PeerInfo::parse(info.as_bytes()), has_some)
    }

    #[track_caller]
    fn pushed(compress: Compress, info: &str, has_some: bool) -> Option<&'static str> {
        offered(compress, AllowCompression::Asym, info, has_some).pushed
    }

    /// What stock clients announce. Source: brief A.7, comp.c.
    const ALL: &str = "IV_LZ4=1\nIV_LZ4v2=1\nIV_LZO=1\nIV_COMP_STUB=1\nIV_COMP_STUBv2=1\n";
    const STUBS: &str = "IV_LZO_STUB=1\nIV_COMP_STUB=1\nIV_COMP_STUBv2=1\n";
    const EVERY: [Compress; 7] = [
        Compress::Off,
        Compress::Lz4V2,
        Compress::StubV2,
        Compress::Stub,
        Compress::Lz4,
        Compress::Lzo,
        Compress::LzoNo,
    ];

    #[test]
    fn who_announces_everything_is_pushed_what_the_file_says() {
        let all: Vec<_> = EVERY.iter().map(|&compress| pushed(compress, ALL, false)).collect();
        assert_eq!(
            all,
            [
                None,
                Some("compress lz4-v2"),
                Some("compress stub-v2"),
                Some("compress stub"),
                Some("compress lz4"),
                Some("comp-lzo yes"),
                Some("comp-lzo no")
            ]
        );
    }

    #[test]
    fn a_stock_client_of_2_6_is_pushed_stubs_only() {
        for compress in [Compress::Lz4V2, Compress::StubV2, Compress::Lz4, Compress::Lzo] {
            assert_eq!(pushed(compress, STUBS, false), Some("compress stub-v2"), "{compress:?}");
        }
        assert_eq!(pushed(Compress::Stub, STUBS, false), Some("compress stub"));
        assert_eq!(pushed(Compress::LzoNo, STUBS, false), Some("comp-lzo no"));
    }

    #[test]
    fn who_announces_nothing_is_pushed_nothing_unless_its_file_has_some() {
        for compress in EVERY {
            assert_eq!(pushed(compress, "", false), None, "{compress:?}");
            let offer = offered(compress, AllowCompression::Asym, "", true);
            assert_eq!(
                (offer.pushed, offer.framing),
                (Some("comp-lzo no"), Framing::Prefixed),
                "{compress:?}"
            );
        }
    }

    #[test]
    fn whose_file_has_some_is_led_away_by_a_server_without() {
        assert_eq!(pushed(Compress::Off, STUBS, true), Some("compress stub-v2"));
        assert_eq!(pushed(Compress::Off, "IV_LZO=1\n", true), Some("comp-lzo no"));
    }

    #[test]
    fn nothing_that_compresses_is_offered_where_that_is_forbidden() {
        for compress in EVERY.into_iter().skip(1) {
            let offer = offered(compress, AllowCompression::No, ALL, false);
            assert!(offer.pushed.is_some_and(|pushed| pushed.contains("stub") || pushed.ends_with("no")));
            assert!(!offer.compresses);
        }
    }

    #[test]
    fn frames_are_compressed_only_where_it_is_allowed_and_agreed() {
        let compresses = |compress, info| offered(compress, AllowCompression::Yes, info, false).compresses;
        for compress in [Compress::Lz4V2, Compress::Lz4] {
            assert!(compresses(compress, ALL));
            assert!(!compresses(compress, STUBS), "a stub does not decompress");
            assert!(!offered(compress, AllowCompression::Asym, ALL, false).compresses);
        }
        assert!(!compresses(Compress::Lzo, ALL), "LZO is only decompressed");
    }
}
