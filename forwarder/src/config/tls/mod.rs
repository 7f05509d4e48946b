//! Certificates, key and revocation list: read, judged one by one, and made into rustls's configuration.
//!
//! rustls would refuse old certificates too, but only when the first client comes and without saying which file is
//! meant. So every file is judged here, at the start, with the cure.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use super::{
    error::{Error, Level, Note},
    server::{Server, Source},
};

mod certificate;
mod files;
mod usage;

pub(super) use files::Material;
use files::Pem;
pub use files::resolve;
pub(crate) use files::{read_bounded, reason};

/// What reading the files gave.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Ready for handshakes: TLS 1.2 or 1.3, client certificates required, no tickets, no resumption.
    pub tls: Arc<ServerConfig>,
    /// What the operator should read although the gateway starts.
    pub notes: Vec<Note>,
}

/// Reads the files that `server` names; `now` is the time in seconds since 1970.
///
/// # Errors
/// Which file cannot be used, why, and what to do.
pub fn load(server: &Server, now: i64) -> Result<Loaded, Error> {
    let mut notes = Vec::new();
    note_missing_dh(server, &mut notes);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = verifier(server, &provider, now)?;
    let identity = identity(server, &provider, now, &mut notes)?;
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(server.tls_versions.list())
        .map_err(|error| Error::new(format!("TLS cannot be set up: {error}"), "please report this"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity)));
    // Clients of OpenVPN never resume, and tickets would stand where they expect key-method 2 (brief A.6).
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Loaded { tls: Arc::new(tls), notes })
}

/// `dh` has no effect with elliptic curves; a missing file is a slip worth a line, not a reason to stay down.
fn note_missing_dh(server: &Server, notes: &mut Vec<Note>) {
    let Some(source) = &server.dh else { return };
    if let Err(error) = Material::read(server, source, "dh") {
        let place = super::Place::line(&server.file, source.line());
        let text = format!("{}: `dh` has no effect, keys are agreed without it", error.sentence);
        notes.push(Note { level: Level::Info, place, text });
    }
}

fn verifier(
    server: &Server,
    provider: &Arc<CryptoProvider>,
    now: i64,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let material = Material::read(server, &server.ca, "ca")?;
    let mut roots = RootCertStore::empty();
    for der in material.sections::<CertificateDer<'static>>(Pem::Certificate)? {
        certificate::judge(&der, certificate::Role::Ca, now)
            .map_err(|fault| material.error(fault.sentence, fault.cure))?;
        roots.add(der).map_err(|error| {
            material.error(format!("cannot be used as a CA: {error}"), "make a new CA certificate")
        })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let (builder, named) = match &server.crl {
        None => (builder, material),
        Some(source) => {
            let crl = Material::read(server, source, "crl-verify")?;
            let lists = crl.sections::<CertificateRevocationListDer<'static>>(Pem::Crl)?;
            (builder.with_crls(lists).only_check_end_entity_revocation(), crl)
        }
    };
    let verifier = builder.build().map_err(|error| {
        named.error(
            format!("cannot be used: {error}"),
            "make it anew; a revocation list must be of version 2: `openssl ca -gencrl -crlexts crl_ext`",
        )
    })?;
    Ok(if server.require_client_usage { Arc::new(usage::ClientUsage::new(verifier)) } else { verifier })
}

/// The server's certificate with its chain and key.
fn identity(
    server: &Server,
    provider: &CryptoProvider,
    now: i64,
    notes: &mut Vec<Note>,
) -> Result<CertifiedKey, Error> {
    let material = Material::read(server, &server.cert, "cert")?;
    let chain = material.sections::<CertificateDer<'static>>(Pem::Certificate)?;
    for (at, der) in chain.iter().enumerate() {
        let role = if at == 0 { certificate::Role::Server } else { certificate::Role::Ca };
        certificate::judge(der, role, now).map_err(|fault| material.error(fault.sentence, fault.cure))?;
    }
    if !chain.first().is_some_and(certificate::is_for_servers) {
        notes.push(Note {
            level: Level::Warning,
            place: material.place(),
            text: format!(
                "{} does not say that it is a server's: clients with `remote-cert-tls server` refuse it",
                material.what()
            ),
        });
    }
    let key = private_key(server, provider)?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let key = Material::read(server, &server.key, "key")?;
            Err(key.error(
                format!("is not the key of {}", material.what()),
                "name the key that the certificate was issued for",
            ))
        }
        Err(error) => Err(material.error(format!("cannot be used: {error}"), "issue it anew")),
    }
}

fn private_key(
    server: &Server,
    provider: &CryptoProvider,
) -> Result<Arc<dyn rustls::sign::SigningKey>, Error> {
    let material = Material::read(server, &server.key, "key")?;
    if material.holds_encrypted_key() {
        return Err(material.error(
            "is encrypted, and nobody is there to type its password",
            "store it without one: `openssl pkey -in KEY -out NEW`, readable by root only",
        ));
    }
    let key = material
        .sections::<PrivateKeyDer<'static>>(Pem::Key)?
        .into_iter()
        .next()
        .ok_or_else(|| material.error("holds no private key in PEM form", "name the server's key"))?;
    provider.key_provider.load_private_key(key).map_err(|_| {
        material.error(
            "holds a key that cannot be used",
            "make an RSA key of 2048 bits or more, or an ECDSA or Ed25519 key, and a certificate for it",
        )
    })
}

impl Source {
    /// The directive's line.
    pub fn line(&self) -> u32 {
        match self {
            Self::File { line, .. } | Self::Inline { line, .. } => *line,
        }
    }
}

#[cfg(test)]
mod tests;
