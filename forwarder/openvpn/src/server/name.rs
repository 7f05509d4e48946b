//! What a peer is called: the common name of its certificate.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Longest name, in characters, as in X.520. A longer one is none: cut off, it could be another's.
const MAX_NAME: usize = 64;

/// The certificate's common name, the last if it has several, with non-printing characters replaced by `_`; `None` if it
/// has none, or one that is too long. Source: ssl_verify_openssl.c `extract_x509_field_ssl`.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().last()?.as_str().ok()?;
    let printable = |c: char| if c.is_control() { '_' } else { c };
    Some(name)
        .filter(|name| (1..=MAX_NAME).contains(&name.chars().count()))
        .map(|name| name.chars().map(printable).collect())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn named(names: &[&str]) -> Option<String> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        // One of each type is kept: the second must be written otherwise.
        for (name, kind) in names.iter().zip([DnType::CommonName, DnType::CustomDnType(vec![2, 5, 4, 3])]) {
            params.distinguished_name.push(kind, *name);
        }
        common_name(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn a_name_has_no_control_characters() {
        assert_eq!(named(&["agent\n\x1bone"]).as_deref(), Some("agent__one"));
        assert_eq!(named(&[""]), None);
        assert_eq!(named(&[]), None);
        assert_eq!(common_name(&CertificateDer::from(vec![0x30, 0x82])), None);
    }

    #[test]
    fn a_name_too_long_is_none_and_never_the_beginning_of_it() {
        let longest = "\u{e4}".repeat(MAX_NAME);
        assert_eq!(named(&[&longest]), Some(longest.clone()));
        assert_eq!(named(&[&(longest + "x")]), None);
    }

    #[test]
    fn of_several_names_the_last_counts_as_with_upstream() {
        assert_eq!(named(&["first", "last"]).as_deref(), Some("last"));
    }
}
