//! Data keys from TLS 1.0's pseudo-random function, for peers that do not know the exporter: OpenVPN 2.4 and 2.5.
//! Source: brief A.9, RFC 2246 section 5.
//!
//! ```text
//! PRF(secret, seed) = P_MD5(first half of secret, seed) xor P_SHA1(second half, seed)
//! P_hash(secret, seed) = HMAC(secret, A1 | seed) | HMAC(secret, A2 | seed) | ...    A0 = seed, Ai = HMAC(secret, Ai-1)
//!
//! master (48) = PRF(pre_master, "OpenVPN master secret" | client.random1 | server.random1)
//! key2 (256)  = PRF(master, "OpenVPN key expansion" | client.random2 | server.random2 | client sid | server sid)
//! ```

use aws_lc_rs::hmac::{Context, HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key};
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;

use super::KeyBlock;
use crate::wire::{SessionId, key_method::KeyMethod};

/// Length of the secret that the client chooses, and of the one made from it.
const SECRET: usize = 48;

/// One end's part of the keys: what its key-method message says. Never printed; overwritten when dropped.
pub(super) struct Source {
    pre_master: Option<[u8; SECRET]>,
    random1: [u8; 32],
    random2: [u8; 32],
}

impl Source {
    pub(super) fn of(message: &KeyMethod) -> Self {
        Self { pre_master: message.pre_master, random1: message.random1, random2: message.random2 }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.pre_master.iter_mut().for_each(|secret| secret.fill(0));
        self.random1.fill(0);
        self.random2.fill(0);
        // Makes the compiler believe that somebody looks at the zeros.
        std::hint::black_box((&self.pre_master, &self.random1, &self.random2));
    }
}

/// The key block of both ends' sources and session ids, client's first; `None` if the client's has no secret.
pub(super) fn data_keys(
    (client, client_id): (&Source, SessionId),
    (server, server_id): (&Source, SessionId),
) -> Option<KeyBlock> {
    let mut master = [0; SECRET];
    let pre_master = client.pre_master.as_ref()?;
    prf(pre_master, &[b"OpenVPN master secret", &client.random1, &server.random1], &mut master)?;
    let mut block = KeyBlock::empty();
    let seed: [&[u8]; 5] =
        [b"OpenVPN key expansion", &client.random2, &server.random2, &client_id.bytes(), &server_id.bytes()];
    prf(&master, &seed, block.bytes_mut())?;
    master.fill(0);
    std::hint::black_box(&master);
    Some(block)
}

/// Fills `out`; the seed is the parts one after another. `None` if HMAC refuses its key, which it takes in any length.
fn prf(secret: &[u8], seed: &[&[u8]], out: &mut [u8]) -> Option<()> {
    // With an odd length the byte in the middle belongs to both halves.
    let half = secret.len().div_ceil(2);
    let first = Hmac::<Md5>::new_from_slice(secret.get(..half)?).ok()?;
    let second = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.get(secret.len() - half..)?);
    out.fill(0);
    expand::<16>(|parts| md5(&first, parts), seed, out);
    expand::<20>(|parts| sha1(&second, parts), seed, out);
    Some(())
}

/// `out` xor P_hash.
fn expand<const N: usize>(hmac: impl Fn(&[&[u8]]) -> [u8; N], seed: &[&[u8]], out: &mut [u8]) {
    let mut link = hmac(seed);
    for chunk in out.chunks_mut(N) {
        let parts: Vec<&[u8]> = std::iter::once(link.as_slice()).chain(seed.iter().copied()).collect();
        let block = hmac(&parts);
        chunk.iter_mut().zip(block).for_each(|(out, byte)| *out ^= byte);
        link = hmac(&[&link]);
    }
}

fn md5(keyed: &Hmac<Md5>, parts: &[&[u8]]) -> [u8; 16] {
    let mut hmac = keyed.clone();
    parts.iter().for_each(|part| hmac.update(part));
    hmac.finalize().into_bytes().into()
}

fn sha1(key: &Key, parts: &[&[u8]]) -> [u8; 20] {
    let mut hmac = Context::with_key(key);
    parts.iter().for_each(|part| hmac.update(part));
    let mut out = [0; 20];
    out.iter_mut().zip(hmac.sign().as_ref()).for_each(|(out, byte)| *out = *byte);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenVPN's own known answer, `crypto_test_tls_prf` of test_crypto.c.
    #[test]
    fn the_pseudo_random_function_is_that_of_tls_1_0() {
        let secret =
            b"Lorem ipsum dolor sit amet, consectetur adipisici elit, sed eiusmod tempor incidunt ut labore \
                       et dolore magna aliqua.";
        let seed = b"Quis aute iure reprehenderit in voluptate velit esse cillum dolore";
        let mut out = [0; 32];
        prf(secret, &[&seed[..20], &seed[20..]], &mut out).unwrap();
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "d98c8518c85e946927916acfc2d592fbb1567e4b4b1459e6a904ac2ddab72d67");
    }

    fn source(pre_master: Option<[u8; SECRET]>, byte: u8) -> Source {
        Source { pre_master, random1: [byte; 32], random2: [byte + 1; 32] }
    }

    #[test]
    fn every_ingredient_of_the_keys_matters() {
        let id = |byte| SessionId::new([byte; 8]).unwrap();
        let keys = |secret, client, server, ids: (u8, u8)| {
            let (client, server) = (source(Some([secret; SECRET]), client), source(None, server));
            *data_keys((&client, id(ids.0)), (&server, id(ids.1))).unwrap().bytes()
        };
        let all = [
            keys(1, 2, 3, (4, 5)),
            keys(9, 2, 3, (4, 5)),
            keys(1, 9, 3, (4, 5)),
            keys(1, 2, 9, (4, 5)),
            keys(1, 2, 3, (9, 5)),
            keys(1, 2, 3, (4, 9)),
            keys(1, 2, 3, (5, 4)),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert!(data_keys((&source(None, 2), id(4)), (&source(None, 3), id(5))).is_none());
    }
}
