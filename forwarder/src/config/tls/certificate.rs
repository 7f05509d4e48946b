//! Whether a certificate can be used, and if not, why. What is refused here is what rustls refuses in a handshake:
//! X.509 before version 3, signatures over SHA-1 or MD5, RSA keys below 2048 bits (brief C.12), and wrong dates.

use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate, parse_x509_certificate, public_key::PublicKey, x509::X509Version,
};

/// What the certificate is for: decides the cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Ca,
    Server,
    Client,
}

/// Why a certificate cannot be used: a predicate, and the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) sentence: String,
    pub(super) cure: String,
}

fn fault(sentence: impl Into<String>, cure: impl Into<String>) -> Fault {
    Fault { sentence: sentence.into(), cure: cure.into() }
}

/// Judges one certificate at time `now` (seconds since 1970).
pub(super) fn judge(der: &CertificateDer<'_>, role: Role, now: i64) -> Result<(), Fault> {
    let (_, certificate) = parse_x509_certificate(der)
        .map_err(|_| fault("holds a certificate that cannot be parsed", "copy it again or issue it anew"))?;
    check_version(&certificate, role)?;
    check_signature(&certificate, role)?;
    check_key(&certificate, role)?;
    check_dates(&certificate, role, now)
}

/// True when the certificate says that it is for TLS servers.
pub(super) fn is_for_servers(der: &CertificateDer<'_>) -> bool {
    usage(der).is_some_and(|(server, _)| server)
}

/// True when the certificate says that it is for TLS clients.
pub(super) fn is_for_clients(der: &CertificateDer<'_>) -> bool {
    usage(der).is_some_and(|(_, client)| client)
}

/// Extended key usage: for servers, for clients.
fn usage(der: &CertificateDer<'_>) -> Option<(bool, bool)> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let usage = certificate.extended_key_usage().ok()??;
    Some((usage.value.server_auth, usage.value.client_auth))
}

fn reissue(role: Role, how: &str) -> String {
    match role {
        Role::Ca => {
            format!("renew the CA's certificate {how} with its old key, so that what it issued stays valid")
        }
        Role::Server => format!("issue the server's certificate anew {how}"),
        Role::Client => format!("issue this client's certificate anew {how}"),
    }
}

fn check_version(certificate: &X509Certificate<'_>, role: Role) -> Result<(), Fault> {
    let version = match certificate.version() {
        X509Version::V3 => return Ok(()),
        X509Version(number) => number.saturating_add(1),
    };
    let how = match role {
        Role::Ca => "as version 3 (`openssl req -x509 -sha256 -key ca.key`)",
        Role::Server => {
            "as version 3 (`openssl x509 -req -sha256 -extfile` with `extendedKeyUsage=serverAuth`)"
        }
        Role::Client => {
            "as version 3 (`openssl x509 -req -sha256 -extfile` with `extendedKeyUsage=clientAuth`)"
        }
    };
    Err(fault(format!("is X.509 version {version}, which TLS libraries no longer take"), reissue(role, how)))
}

/// Signature algorithms that rustls verifies.
const STRONG: &[&str] = &[
    "1.2.840.113549.1.1.10", // RSASSA-PSS
    "1.2.840.113549.1.1.11", // SHA-256 with RSA
    "1.2.840.113549.1.1.12", // SHA-384 with RSA
    "1.2.840.113549.1.1.13", // SHA-512 with RSA
    "1.2.840.10045.4.3.2",   // ECDSA with SHA-256
    "1.2.840.10045.4.3.3",   // ECDSA with SHA-384
    "1.2.840.10045.4.3.4",   // ECDSA with SHA-512
    "1.3.101.112",           // Ed25519
];

/// Algorithms of old certificates, with the name of what is weak in them.
const WEAK: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.2", "MD2"),
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.3.14.3.2.29", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
    ("1.2.840.10040.4.3", "SHA-1 and DSA"),
    ("1.2.840.113549.1.1.14", "SHA-224"),
    ("1.2.840.10045.4.3.1", "SHA-224"),
];

fn check_signature(certificate: &X509Certificate<'_>, role: Role) -> Result<(), Fault> {
    let oid = certificate.signature_algorithm.algorithm.to_id_string();
    if STRONG.contains(&oid.as_str()) {
        return Ok(());
    }
    let how = match role {
        Role::Ca => "with SHA-256 (`openssl req -x509 -sha256 -key ca.key`)",
        Role::Server | Role::Client => "with SHA-256 (`openssl x509 -req -sha256`)",
    };
    let sentence = match WEAK.iter().find(|(weak, _)| *weak == oid) {
        Some((_, name)) => format!("is signed with {name}, which TLS libraries no longer take"),
        None => format!("is signed by an algorithm that is not known here ({oid})"),
    };
    Err(fault(sentence, reissue(role, how)))
}

fn check_key(certificate: &X509Certificate<'_>, role: Role) -> Result<(), Fault> {
    let new_key = match role {
        Role::Ca => {
            "make a new CA with a key of 2048 bits or more, and new certificates for server and clients"
        }
        Role::Server | Role::Client => "make a new key of 2048 bits or more and a certificate for it",
    };
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < 2048 => Err(fault(
            format!("has an RSA key of {} bits, and less than 2048 are no longer safe", key.key_size()),
            new_key,
        )),
        Ok(PublicKey::DSA(_)) => Err(fault("has a DSA key, which TLS libraries no longer take", new_key)),
        Ok(_) => Ok(()),
        Err(_) => Err(fault("has a public key that cannot be parsed", new_key)),
    }
}

fn check_dates(certificate: &X509Certificate<'_>, role: Role, now: i64) -> Result<(), Fault> {
    let validity = certificate.validity();
    if now > validity.not_after.timestamp() {
        let how = match role {
            Role::Ca => "(`openssl req -x509 -sha256 -days 3650 -key ca.key`)",
            Role::Server | Role::Client => "with your CA",
        };
        return Err(fault(format!("expired on {}", validity.not_after), reissue(role, how)));
    }
    if now < validity.not_before.timestamp() {
        return Err(fault(
            format!("is not valid before {}", validity.not_before),
            "set this machine's clock, or issue the certificate anew",
        ));
    }
    Ok(())
}
