//! The expensive part of a handshake as a thing of its own, so that whoever owns the server may have it done by another
//! thread. The TLS connection moves into the job and comes back with it: nothing is shared, nothing is locked.

use std::sync::Weak;

use super::tls::Tls;

/// A TLS connection and the bytes it has to digest: signing, verifying, agreeing on keys.
pub(crate) struct Job {
    pub(super) tls: Box<Tls>,
    pub(super) input: Vec<u8>,
    /// Whose it is; gone with its negotiation, and then nobody wants the result.
    pub(super) wanted: Weak<()>,
}

/// What came of a [`Job`].
pub(crate) struct JobDone {
    pub(super) tls: Box<Tls>,
    pub(super) outcome: Result<(), rustls::Error>,
    pub(super) wanted: Weak<()>,
}

impl Job {
    /// Does the work: about half a millisecond of CPU with RSA-2048.
    pub(crate) fn run(self) -> JobDone {
        let Self { mut tls, input, wanted } = self;
        let outcome = if wanted.strong_count() > 0 { tls.read(&input) } else { Ok(()) };
        JobDone { tls, outcome, wanted }
    }
}
