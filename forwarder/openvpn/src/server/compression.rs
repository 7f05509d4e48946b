//! Which compression framing each client gets: what the file wants, of that what the client survives. Source: brief
//! A.11, C.11; comp.c, multi.c `multi_client_connect_compress_migrate`.
//!
//! Upstream pushes what the file says to everyone, and a client that refuses it restarts for ever. Here a client is only
//! pushed what it announces. Framings without compression are on the wire the same as those with, so nothing is lost
//! but the compressing.

use super::{AllowCompression, Compress, Config};
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

/// What the client with `info` gets; `has_some` if its options string says that its own file names some framing.
pub(super) fn offer(config: &Config, info: &PeerInfo, has_some: bool) -> Offer {
    let fits = |candidate: &&Candidate| {
        (candidate.survives)(&info.framings)
            && !(candidate.with && config.allow_compression == AllowCompression::No)
    };
    let wanted = candidates(config.compress, has_some).iter().find(fits);
    // One that has some and announces none is older than announcing: it can only have `comp-lzo`.
    let chosen = wanted.or(has_some.then_some(&LZO_NO));
    let framing = chosen.map_or(Framing::None, |candidate| candidate.framing);
    let compresses = config.allow_compression == AllowCompression::Yes
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
