//! Whether a server's certificate is the one a client means: its chain, its purpose, its name.
//!
//! Not its host's name: OpenVPN connects to addresses, and `verify-x509-name` says what the server is called.

use std::sync::Arc;

use openvpn::server::common_name;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate;
use crate::config::client::NameRule;

/// A verifier of server certificates as OpenVPN's clients have it.
#[derive(Debug)]
pub(super) struct ServerCheck {
    /// `ca`.
    pub(super) roots: RootCertStore,
    pub(super) provider: Arc<CryptoProvider>,
    /// `remote-cert-tls server`.
    pub(super) require_usage: bool,
    /// `verify-x509-name`.
    pub(super) name: Option<NameRule>,
}

impl ServerCheck {
    fn check_name(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let Some(rule) = &self.name else { return Ok(()) };
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        match rule.admits(&parsed.subject().to_string(), &common_name(certificate).unwrap_or_default()) {
            true => Ok(()),
            false => Err(CertificateError::NotValidForName.into()),
        }
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        // The library checks the purpose only where the certificate states one.
        if self.require_usage && !certificate::is_for_servers(end_entity) {
            return Err(CertificateError::InvalidPurpose.into());
        }
        self.check_name(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use rustls::crypto::aws_lc_rs;

    use super::*;

    #[test]
    fn of_several_common_names_the_last_is_the_servers() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        // One of each type is kept: the second is written by its number.
        for (kind, name) in
            [(DnType::CommonName, "server"), (DnType::CustomDnType(vec![2, 5, 4, 3]), "agent")]
        {
            params.distinguished_name.push(kind, name);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let admitted = |name: &str| {
            let check = ServerCheck {
                roots: RootCertStore::empty(),
                provider: Arc::new(aws_lc_rs::default_provider()),
                require_usage: false,
                name: Some(NameRule::CommonName(name.into())),
            };
            check.check_name(certificate.der()).is_ok()
        };
        assert_eq!((admitted("agent"), admitted("server")), (true, false));
    }
}
