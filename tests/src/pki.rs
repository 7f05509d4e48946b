use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};

use crate::fault::write_file;
use crate::{Fault, Result};

/// Diffie-Hellman parameters for the stock server, which reads them even where they are not used (RFC 7919,
/// ffdhe2048).
pub const DH2048: &str = include_str!("../data/dh2048.pem");

/// What kind of keys a deployment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// P-256: made in no time.
    Ecdsa,
    /// RSA of 2048 bits, as easy-rsa makes them.
    Rsa2048,
}

/// A certificate authority, with what it takes to sign with it.
#[derive(Debug)]
pub struct Pki {
    authority: Issuer<'static, KeyPair>,
    authority_pem: String,
    keys: Keys,
}

/// A certificate and its key in PEM.
#[derive(Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A server's, as `remote-cert-tls server` wants it.
    Server,
    /// A client's.
    Client,
}

impl Pki {
    /// A new authority.
    pub fn new(keys: Keys) -> Result<Self> {
        let key = new_key(keys)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Proving Ground CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(refused)?;
        Ok(Self { authority_pem: certificate.pem(), authority: Issuer::new(params, key), keys })
    }

    /// The authority's certificate in PEM.
    pub fn ca(&self) -> &str {
        &self.authority_pem
    }

    /// A certificate for `name`.
    pub fn issue(&self, name: &str, purpose: Purpose) -> Result<Identity> {
        let key = new_key(self.keys)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.authority).map_err(refused)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Writes what the reference `server.conf` names into `dir`.
    pub fn write_server(&self, dir: &Path) -> Result<()> {
        write_file(&dir.join("ca.crt"), self.ca())?;
        write_file(&dir.join("dh2048.pem"), DH2048)?;
        self.issue("server", Purpose::Server)?.write(dir, "server")
    }
}

impl Identity {
    /// Writes `NAME.crt` and `NAME.key` into `dir`.
    pub fn write(&self, dir: &Path, name: &str) -> Result<()> {
        write_file(&dir.join(format!("{name}.crt")), &self.certificate)?;
        write_file(&dir.join(format!("{name}.key")), &self.key)
    }
}

fn new_key(keys: Keys) -> Result<KeyPair> {
    match keys {
        Keys::Ecdsa => KeyPair::generate(),
        Keys::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
    }
    .map_err(refused)
}

fn refused(error: rcgen::Error) -> Fault {
    Fault::other(format!("making a certificate: {error}"))
}
