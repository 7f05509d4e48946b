//! Certificates, key and revocation list: read, judged one by one, and made into rustls's configuration.
//!
//! rustls would refuse old certificates too, but only when the first client comes and without saying which file is
//! meant. So every file is judged here, at the start, with the cure.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use super::{
    client::Client,
    error::{Error, Level, Note},
    server::{Server, Source},
};

mod certificate;
mod files;
mod server_check;
mod usage;

pub(super) use files::Material;
use files::Pem;
pub use files::resolve;
pub(crate) use files::{read_bounded, reason};
use server_check::ServerCheck;

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
    let (identity, material) = identity(server, &provider, certificate::Role::Server, now)?;
    if !identity.cert.first().is_some_and(certificate::is_for_servers) {
        let what = material.what();
        notes.push(Note {
            level: Level::Warning,
            place: material.place(),
            text: format!(
                "{what} does not say that it is a server's: clients with `remote-cert-tls server` refuse it"
            ),
        });
    }
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

/// What reading a client's files gave.
#[derive(Clone, Debug)]
pub struct LoadedClient {
    /// Ready for handshakes: no resumption, no server name indicated.
    pub tls: Arc<ClientConfig>,
    /// What the operator should read although the gateway starts.
    pub notes: Vec<Note>,
}

/// Reads the files that `client` names; `now` is the time in seconds since 1970.
///
/// # Errors
/// Which file cannot be used, why, and what to do.
pub fn load_client(client: &Client, now: i64) -> Result<LoadedClient, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let check = ServerCheck {
        roots: roots(&Material::read(&client.common, &client.common.ca, "ca")?, now)?,
        provider: Arc::clone(&provider),
        require_usage: client.require_server_usage,
        name: client.server_name.clone(),
    };
    let (identity, material) = identity(&client.common, &provider, certificate::Role::Client, now)?;
    let mut notes = Vec::new();
    if !identity.cert.first().is_some_and(certificate::is_for_clients) {
        let what = material.what();
        notes.push(Note {
            level: Level::Warning,
            place: material.place(),
            text: format!(
                "{what} does not say that it is a client's: servers with `remote-cert-tls client` refuse it"
            ),
        });
    }
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(client.common.tls_versions.list())
        .map_err(|error| Error::new(format!("TLS cannot be set up: {error}"), "please report this"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check))
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity)));
    tls.resumption = Resumption::disabled();
    // Names of servers are their certificates' subjects, not hosts'.
    tls.enable_sni = false;
    Ok(LoadedClient { tls: Arc::new(tls), notes })
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
    let roots = roots(&material, now)?;
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

/// The authorities in `material`.
fn roots(material: &Material<'_>, now: i64) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for der in material.sections::<CertificateDer<'static>>(Pem::Certificate)? {
        certificate::judge(&der, certificate::Role::Ca, now)
            .map_err(|fault| material.error(fault.sentence, fault.cure))?;
        roots.add(der).map_err(|error| {
            material.error(format!("cannot be used as a CA: {error}"), "make a new CA certificate")
        })?;
    }
    Ok(roots)
}

/// Our own certificate with its chain and key, and what it was read from.
fn identity<'a>(
    server: &'a Server,
    provider: &CryptoProvider,
    own: certificate::Role,
    now: i64,
) -> Result<(CertifiedKey, Material<'a>), Error> {
    let material = Material::read(server, &server.cert, "cert")?;
    let chain = material.sections::<CertificateDer<'static>>(Pem::Certificate)?;
    for (at, der) in chain.iter().enumerate() {
        let role = if at == 0 { own } else { certificate::Role::Ca };
        certificate::judge(der, role, now).map_err(|fault| material.error(fault.sentence, fault.cure))?;
    }
    let key = private_key(server, provider)?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok((identity, material))
        }
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
