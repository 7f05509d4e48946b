//! TLS configurations as OpenVPN wants them: TLS 1.2 or 1.3, certificates on both sides, no tickets, no resumption.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Which versions of TLS are spoken. Older ones are broken, and rustls has none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2 only.
    Only12,
    /// 1.3 only.
    Only13,
}

impl Versions {
    /// As rustls wants them.
    pub fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            Self::All => &ALL,
            Self::Only13 => &ALL[..1],
            Self::Only12 => &ALL[1..],
        }
    }
}

/// Why a configuration cannot be made. The sentences name the part; the caller adds the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text cannot be read.
    #[error("{part} holds no readable PEM: {error}; it must contain a BEGIN and an END line")]
    Pem {
        /// Which input.
        part: &'static str,
        /// What the parser says.
        error: rustls::pki_types::pem::Error,
    },
    /// A PEM text has nothing in it.
    #[error("{part} holds no certificate")]
    Empty {
        /// Which input.
        part: &'static str,
    },
    /// A CA certificate is unusable.
    #[error(
        "a CA certificate cannot be used: {0}; X.509 version 1 and SHA-1 signatures are not accepted, renew it"
    )]
    Authority(rustls::Error),
    /// Certificate and key do not work together, or the key's kind is not supported.
    #[error("certificate and key cannot be used together: {0}")]
    Identity(rustls::Error),
    /// The verifier cannot be built.
    #[error("client certificates cannot be verified: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The server's end: client certificates must be signed by `ca_pem`; `certificate_pem` holds the server's own with
/// its chain, `key_pem` its key.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config(
    ca_pem: &[u8],
    certificate_pem: &[u8],
    key_pem: &[u8],
) -> Result<Arc<ServerConfig>, TlsError> {
    server_config_with(Versions::All, ca_pem, certificate_pem, key_pem)
}

/// As [`server_config`], with these versions of TLS alone.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config_with(
    versions: Versions,
    ca_pem: &[u8],
    certificate_pem: &[u8],
    key_pem: &[u8],
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (chain, key) = identity(certificate_pem, key_pem)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(ca_pem)?), Arc::clone(&provider))
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions.list())
        .map_err(TlsError::Identity)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Identity)?;
    // Upstream: no tickets, no cache. Stock clients would take a ticket for a message.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The client's end: the server's certificate must be signed by `ca_pem` and be a server's (`remote-cert-tls server`).
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(
    ca_pem: &[u8],
    certificate_pem: &[u8],
    key_pem: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_with(Versions::All, ca_pem, certificate_pem, key_pem)
}

/// As [`client_config`], with these versions of TLS alone.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config_with(
    versions: Versions,
    ca_pem: &[u8],
    certificate_pem: &[u8],
    key_pem: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (chain, key) = identity(certificate_pem, key_pem)?;
    let verifier = ServerVerifier { roots: authorities(ca_pem)?, provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions.list())
        .map_err(TlsError::Identity)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)
        .map_err(TlsError::Identity)?;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn identity(
    certificate_pem: &[u8],
    key_pem: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(certificate_pem, "the certificate")?;
    let key =
        PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| TlsError::Pem { part: "the key", error })?;
    Ok((chain, key))
}

fn authorities(ca_pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem, "the CA file")? {
        roots.add(certificate).map_err(TlsError::Authority)?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8], part: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem { part, error })?;
    if certificates.is_empty() { Err(TlsError::Empty { part }) } else { Ok(certificates) }
}

/// Verifies a server's chain and purpose, not its name: OpenVPN connects to addresses.
#[derive(Debug)]
struct ServerVerifier {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        // The library checks the purpose only where the certificate states one.
        if states_server_purpose(end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::InvalidPurpose.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn states_server_purpose(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let usage = certificate.extended_key_usage().ok().flatten();
    usage.is_some_and(|usage| usage.value.server_auth)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};

    use super::*;

    fn identity_pem(purpose: Option<ExtendedKeyUsagePurpose>) -> (CertificateDer<'static>, String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = purpose.into_iter().collect();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.der().clone(), certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let (_, pem, key) = identity_pem(None);
        let (_, _, foreign_key) = identity_pem(None);
        let (pem, key, foreign_key) = (pem.as_bytes(), key.as_bytes(), foreign_key.as_bytes());
        assert!(server_config(pem, pem, key).is_ok());
        let cases = [
            (server_config(b"", pem, key), "the CA file holds no certificate"),
            (server_config(pem, key, key), "the certificate holds no certificate"),
            (server_config(pem, pem, pem), "the key holds no readable PEM"),
            (server_config(pem, pem, foreign_key), "cannot be used together"),
        ];
        for (result, words) in cases {
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(words), "{error:?} lacks {words:?}");
        }
    }

    #[test]
    fn a_server_must_state_that_it_is_one() {
        let states = |purpose| states_server_purpose(&identity_pem(purpose).0);
        assert!(states(Some(ExtendedKeyUsagePurpose::ServerAuth)));
        assert!(!states(Some(ExtendedKeyUsagePurpose::ClientAuth)));
        assert!(!states(None));
    }

    #[test]
    fn no_tickets_are_given() {
        let (_, pem, key) = identity_pem(None);
        let config = server_config(pem.as_bytes(), pem.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.session_storage.can_cache());
    }
}
