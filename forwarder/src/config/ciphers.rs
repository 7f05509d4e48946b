//! How data packets are sealed: `data-ciphers` and `auth`.

use openvpn::data::{Cipher, Digest};

use super::{
    apply::Done,
    error::Level,
    words::{Directive, shown},
};

/// Ciphers of OpenVPN that are not here, by the beginning of their names: none of them authenticates, those of 64-bit
/// blocks leak besides (SWEET32), and every OpenVPN since 2.4 has a better one.
const NOT_HERE: &[&str] =
    &["BF-", "DES", "CAST5-", "RC2-", "IDEA-", "SEED-", "CAMELLIA-", "ARIA-", "SM4-", "AES-", "none"];
/// What to write instead.
const CURE: &str = "write `data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305`, and for clients older than 2.4 add \
                    AES-256-CBC, here and as `cipher AES-256-CBC` in their files";

/// `data-ciphers A:B:C`, also by its former name `ncp-ciphers`. Those that are not here are left out, unless none is left.
pub(super) fn data_ciphers(d: Directive<'_>) -> Done {
    let mut chosen = Vec::new();
    let mut left_out = Vec::new();
    for word in d.word(0)?.split(':') {
        // `?NAME`: may be missing. Source: openvpn(8).
        let (name, may_be_missing) = word.strip_prefix('?').map_or((word, false), |name| (name, true));
        match Cipher::from_name(name) {
            Some(cipher) => chosen.push(cipher),
            None if name == "DEFAULT" => chosen.extend(Cipher::DEFAULT),
            None if may_be_missing || is_not_here(name) => left_out.push(shown(name)),
            None => return Err(d.error(format!("`{}` is not a cipher OpenVPN has", shown(name)), CURE)),
        }
    }
    if chosen.is_empty() {
        return Err(d.error(format!("{} is not offered here", left_out.join(", ")), CURE));
    }
    if !left_out.is_empty() {
        d.draft.note(Level::Info, d.line.number, format!("not offered here: {}", left_out.join(", ")));
    }
    d.draft.server.data_ciphers = without_repetitions(chosen);
    Ok(())
}

fn is_not_here(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    NOT_HERE.iter().any(|prefix| name.starts_with(&prefix.to_ascii_uppercase()))
}

fn without_repetitions(ciphers: Vec<Cipher>) -> Vec<Cipher> {
    let mut kept = Vec::new();
    for cipher in ciphers {
        if !kept.contains(&cipher) {
            kept.push(cipher);
        }
    }
    kept
}

/// `auth DIGEST`: what authenticates packets whose cipher does not.
pub(super) fn auth(d: Directive<'_>) -> Done {
    let name = d.word(0)?;
    let digest = Digest::from_name(name).ok_or_else(|| {
        let cure = "write `auth SHA256`, here and in the files of clients that use a CBC cipher or tls-auth";
        match name.eq_ignore_ascii_case("none") {
            true => d.error("packets would not be authenticated", cure),
            false => d.error(format!("`{}` is not a digest there is here", shown(name)), cure),
        }
    })?;
    d.draft.server.digest = digest;
    Ok(())
}

#[cfg(test)]
mod tests {
    use openvpn::data::{Cipher::*, Digest};

    use crate::config::tests::{notes, parsed, refused};

    #[test]
    fn data_ciphers_keep_their_order_and_what_is_not_there_is_noted() {
        let server =
            parsed("data-ciphers aes-128-gcm:CHACHA20-POLY1305:?FOO:BF-CBC:AES-256-GCM:AES-128-GCM\n");
        assert_eq!(server.data_ciphers, [Aes128Gcm, ChaCha20Poly1305, Aes256Gcm]);
        assert_eq!(notes(&server), ["s.conf:9: not offered here: FOO, BF-CBC"]);
        let cbc = parsed("ncp-ciphers AES-192-GCM:aes-256-cbc:AES-192-CBC:AES-128-CBC\n");
        assert_eq!(cbc.data_ciphers, [Aes192Gcm, Aes256Cbc, Aes192Cbc, Aes128Cbc]);
        assert_eq!(
            parsed("data-ciphers AES-128-GCM:DEFAULT\n").data_ciphers,
            [Aes128Gcm, Aes256Gcm, ChaCha20Poly1305]
        );
    }

    #[test]
    fn a_list_without_a_cipher_of_ours_is_refused_with_the_cure() {
        for name in ["BF-CBC", "DES-EDE3-CBC:none", "des-cbc", "AES-256-CFB", "?FOO"] {
            let text = refused(&format!("data-ciphers {name}"));
            assert!(text.contains("not offered here") && text.contains("AES-256-CBC"), "{text}");
        }
        assert!(refused("data-ciphers ROT13").contains("not a cipher"));
    }

    #[test]
    fn the_digest_is_read_and_one_that_is_none_is_refused() {
        assert_eq!(parsed("").digest, Digest::Sha1);
        assert_eq!(parsed("auth SHA512\n").digest, Digest::Sha512);
        assert_eq!(parsed("auth sha2-256\n").digest, Digest::Sha256);
        assert!(refused("auth none").contains("would not be authenticated"));
        assert!(refused("auth MD4").contains("not a digest"));
    }
}
