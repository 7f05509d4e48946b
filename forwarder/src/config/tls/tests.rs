use std::{fs, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls::pki_types::UnixTime;

use super::*;
use crate::config::parse;

/// 2026-01-01, within the validity of what rcgen makes by default.
const NOW: i64 = 1_767_225_600;

/// A CA with the server's certificate, written into a directory of its own.
struct Pki {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("trestle-tls-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pki = Self { directory, issuer: Issuer::new(ca.clone(), key) };
        pki.write("ca.crt", &ca.self_signed(pki.issuer.key()).unwrap().pem());
        let (cert, key) = pki.issue(&[ExtendedKeyUsagePurpose::ServerAuth], |_| ());
        pki.write("server.crt", &cert);
        pki.write("server.key", &key.serialize_pem());
        pki
    }

    fn issue(
        &self,
        usages: &[ExtendedKeyUsagePurpose],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, KeyPair) {
        let mut params = CertificateParams::new(vec!["gateway".into()]).unwrap();
        params.extended_key_usages = usages.to_vec();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).unwrap();
    }

    /// Loads a file in the directory that has `more` after its certificates.
    fn load(&self, more: &str) -> Result<Loaded, String> {
        let text = format!("dev tap\nserver-bridge nogw\nca ca.crt\ncert server.crt\nkey server.key\n{more}");
        let server = parse(text.as_bytes(), &self.directory.join("s.conf")).unwrap();
        load(&server, NOW).map_err(|error| self.plain(&error.to_string()))
    }

    /// Without the directory's name.
    fn plain(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.directory.display()), "")
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

const OLD: &[(&str, &str, &str)] = &[
    ("v1", include_str!("../testdata/v1.crt"), "is X.509 version 1"),
    ("sha1", include_str!("../testdata/sha1.crt"), "is signed with SHA-1"),
    ("md5", include_str!("../testdata/md5.crt"), "is signed with MD5"),
    ("rsa1024", include_str!("../testdata/rsa1024.crt"), "has an RSA key of 1024 bits"),
];

#[test]
fn good_files_beside_the_configuration_are_loaded() {
    let loaded = Pki::new("good").load("dh none\n").unwrap();
    assert!(loaded.notes.is_empty());
    assert_eq!(loaded.tls.send_tls13_tickets, 0);
    assert!(!loaded.tls.ticketer.enabled() && !loaded.tls.session_storage.can_cache());
}

#[test]
fn a_missing_dh_file_is_noted_only() {
    let loaded = Pki::new("dh").load("dh dh2048.pem\n").unwrap();
    assert_eq!(loaded.notes.len(), 1);
    assert!(loaded.notes[0].text.contains("No such file or directory: `dh` has no effect"));
}

#[test]
fn blocks_stand_in_place_of_files() {
    let pki = Pki::new("inline");
    let block = |name: &str, file: &str| {
        format!("<{name}>\n{}</{name}>\n", fs::read_to_string(pki.directory.join(file)).unwrap())
    };
    let text = format!(
        "dev tap\nserver-bridge nogw\n{}{}{}",
        block("ca", "ca.crt"),
        block("cert", "server.crt"),
        block("key", "server.key")
    );
    let server = parse(text.as_bytes(), std::path::Path::new("elsewhere.conf")).unwrap();
    assert!(load(&server, NOW).is_ok());
    let broken = text.replace("BEGIN CERTIFICATE", "BEGIN SOMETHING");
    let server = parse(broken.as_bytes(), std::path::Path::new("s.conf")).unwrap();
    assert!(load(&server, NOW).unwrap_err().sentence.starts_with("the block <ca> "));
}

#[test]
fn a_missing_file_is_named_with_the_line_that_names_it() {
    let pki = Pki::new("missing");
    fs::remove_file(pki.directory.join("server.key")).unwrap();
    assert_eq!(
        pki.load("").unwrap_err(),
        "s.conf:5: `key` server.key cannot be read: No such file or directory; \
         put it into the current directory or beside s.conf, or write its whole path"
    );
}

#[test]
fn old_certificates_of_the_server_are_refused_with_the_reason() {
    for (name, pem, reason) in OLD {
        let pki = Pki::new(&format!("server-{name}"));
        pki.write("server.crt", pem);
        let error = pki.load("").unwrap_err();
        assert!(error.starts_with(&format!("s.conf:4: `cert` server.crt {reason}")), "{error}");
    }
}

#[test]
fn old_certificates_of_the_ca_are_refused_with_the_reason() {
    for (name, pem, reason) in OLD {
        let pki = Pki::new(&format!("ca-{name}"));
        pki.write("ca.crt", pem);
        let error = pki.load("").unwrap_err();
        assert!(error.starts_with(&format!("s.conf:3: `ca` ca.crt {reason}")), "{error}");
    }
}

#[test]
fn dates_are_checked() {
    let pki = Pki::new("dates");
    let server_auth = [ExtendedKeyUsagePurpose::ServerAuth];
    let (cert, _) = pki.issue(&server_auth, |params| params.not_after = date_time_ymd(2025, 1, 1));
    pki.write("server.crt", &cert);
    assert_eq!(
        pki.load("").unwrap_err(),
        "s.conf:4: `cert` server.crt expired on Jan  1 00:00:00 2025 +00:00; \
         issue the server's certificate anew with your CA"
    );
    let (cert, _) = pki.issue(&server_auth, |params| params.not_before = date_time_ymd(2027, 1, 1));
    pki.write("server.crt", &cert);
    assert!(pki.load("").unwrap_err().contains("is not valid before"));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let pki = Pki::new("mismatch");
    pki.write("server.key", &KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(
        pki.load("").unwrap_err(),
        "s.conf:5: `key` server.key is not the key of `cert` server.crt; \
         name the key that the certificate was issued for"
    );
}

#[test]
fn an_encrypted_key_is_refused() {
    let pki = Pki::new("encrypted");
    pki.write("server.key", include_str!("../testdata/encrypted.key"));
    assert!(pki.load("").unwrap_err().starts_with("s.conf:5: `key` server.key is encrypted"));
}

#[test]
fn a_file_without_what_it_should_hold_is_refused() {
    let pki = Pki::new("empty");
    pki.write("server.key", "nothing\n");
    assert!(pki.load("").unwrap_err().contains("`key` server.key holds no private key in PEM form"));
    pki.write("ca.crt", "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n");
    assert!(pki.load("").unwrap_err().contains("`ca` ca.crt is damaged"));
    pki.write("ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(pki.load("").unwrap_err().contains("`ca` ca.crt holds a certificate that cannot be parsed"));
}

#[test]
fn a_certificate_that_is_not_a_servers_is_noted() {
    let pki = Pki::new("usage");
    let (cert, key) = pki.issue(&[ExtendedKeyUsagePurpose::ClientAuth], |_| ());
    pki.write("server.crt", &cert);
    pki.write("server.key", &key.serialize_pem());
    let notes = pki.load("").unwrap().notes;
    assert!(notes[0].text.contains("does not say that it is a server's"), "{notes:?}");
}

/// What the configuration's verifier says of a client's certificate.
fn verify(pki: &Pki, more: &str, pem: &str) -> Result<(), rustls::Error> {
    use rustls::pki_types::pem::PemObject;
    let text = format!("dev tap\nserver-bridge nogw\nca ca.crt\ncert server.crt\nkey server.key\n{more}");
    let server = parse(text.as_bytes(), &pki.directory.join("s.conf")).unwrap();
    let verifier = verifier(&server, &Arc::new(aws_lc_rs::default_provider()), NOW).unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(NOW).unwrap()));
    verifier.verify_client_cert(&der, &[], now).map(|_| ())
}

#[test]
fn only_with_remote_cert_tls_a_client_must_say_that_it_is_one() {
    let pki = Pki::new("client-usage");
    let (plain, _) = pki.issue(&[], |_| ());
    let (client, _) = pki.issue(&[ExtendedKeyUsagePurpose::ClientAuth], |_| ());
    let (server, _) = pki.issue(&[ExtendedKeyUsagePurpose::ServerAuth], |_| ());
    assert!(verify(&pki, "", &plain).is_ok());
    assert!(verify(&pki, "", &server).is_err());
    let more = "remote-cert-tls client\n";
    assert!(verify(&pki, more, &plain).is_err());
    assert!(verify(&pki, more, &client).is_ok());
    assert!(verify(&Pki::new("client-foreign"), "", &client).is_err());
}

#[test]
fn a_revoked_certificate_is_refused() {
    let pki = Pki::new("crl");
    let usages = [ExtendedKeyUsagePurpose::ClientAuth];
    let (good, _) = pki.issue(&usages, |params| params.serial_number = Some(SerialNumber::from(7_u64)));
    let (bad, _) = pki.issue(&usages, |params| params.serial_number = Some(SerialNumber::from(8_u64)));
    let crl = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 1, 1),
        next_update: date_time_ymd(2030, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: SerialNumber::from(8_u64),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    pki.write("crl.pem", &crl.signed_by(&pki.issuer).unwrap().pem().unwrap());
    let more = "crl-verify crl.pem\n";
    assert!(verify(&pki, more, &good).is_ok());
    assert!(verify(&pki, more, &bad).is_err());
    assert!(verify(&pki, "", &bad).is_ok());
}

/// Lets both ends talk until neither has anything to say.
fn shake(
    client: &mut rustls::ClientConnection,
    server: &mut rustls::ServerConnection,
) -> Result<(), rustls::Error> {
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// A handshake of the loaded configuration with a client that has this certificate, or none.
fn handshake(pki: &Pki, identity: Option<(String, KeyPair)>) -> Result<(), rustls::Error> {
    use rustls::pki_types::pem::PemObject;
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der(&fs::read_to_string(pki.directory.join("ca.crt")).unwrap())).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let client = match identity {
        Some((cert, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
            client.with_client_auth_cert(vec![der(&cert)], key).unwrap()
        }
        None => client.with_no_client_auth(),
    };
    let mut client = rustls::ClientConnection::new(Arc::new(client), "gateway".try_into().unwrap()).unwrap();
    let mut server = rustls::ServerConnection::new(pki.load("").unwrap().tls).unwrap();
    shake(&mut client, &mut server)?;
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.tls13_tickets_received(), 0);
    Ok(())
}

#[test]
fn only_a_client_with_a_certificate_of_the_ca_gets_through_the_handshake() {
    let pki = Pki::new("handshake");
    let usages = [ExtendedKeyUsagePurpose::ClientAuth];
    handshake(&pki, Some(pki.issue(&usages, |_| ()))).unwrap();
    let stranger = Pki::new("handshake-stranger").issue(&usages, |_| ());
    assert!(handshake(&pki, Some(stranger)).is_err());
    assert_eq!(handshake(&pki, None).unwrap_err(), rustls::Error::NoCertificatesPresented);
}
