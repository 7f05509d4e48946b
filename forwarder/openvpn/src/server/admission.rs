//! Whether a client may in, and on which terms: from its certificate and its key-method message.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Config, compression};
use crate::{
    data::{Cipher, Profile},
    session::Derivation,
    wire::{
        key_method::KeyMethod,
        occ,
        peer_info::{PeerInfo, proto},
    },
};

/// Longest name kept. X.520 allows 64 characters.
const MAX_NAME: usize = 64;

/// What was agreed with a client.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) name: String,
    pub(super) info: PeerInfo,
    pub(super) profile: Profile,
    /// What `compress` or `comp-lzo` it is pushed.
    pub(super) compress: Option<&'static str>,
}

impl Terms {
    /// The exporter where the client has it. Source: multi.c `multi_client_set_protocol_options`.
    pub(super) fn derivation(&self) -> Derivation {
        if self.info.supports(proto::TLS_KEY_EXPORT) { Derivation::Exporter } else { Derivation::Prf }
    }
}

/// Why a client may not in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What the client is told behind `AUTH_FAILED`; upstream's words where it has some.
    pub(super) told: &'static str,
    /// Cause and cure, for the server's log.
    pub(super) reason: String,
}

/// Judges a client.
pub(super) fn judge(config: &Config, name: &str, message: &KeyMethod) -> Result<Terms, Refusal> {
    let info = PeerInfo::parse(&message.peer_info);
    if occ::device_type(&message.options) == Some("tun") {
        return Err(refusal(
            "device type mismatch",
            "it uses `dev tun`; this server carries Ethernet: put `dev tap` into its profile".into(),
        ));
    }
    require(&info, proto::DATA_V2, "data packets with a peer id (DATA_V2)")?;
    let cipher = choose_cipher(config, &info, message)?;
    let offer = compression::offer(config, &info, occ::has_compression(&message.options));
    let profile = Profile {
        digest: config.digest,
        compresses: offer.compresses,
        ..Profile::new(cipher, offer.framing)
    };
    Ok(Terms { name: name.to_owned(), info, profile, compress: offer.pushed })
}

fn require(info: &PeerInfo, bit: u32, what: &str) -> Result<(), Refusal> {
    if info.supports(bit) {
        return Ok(());
    }
    let reason = format!("it does not support {what}: it needs OpenVPN 2.4 or later");
    Err(refusal("Data channel negotiation failed (client too old)", reason))
}

/// The first of our ciphers that the client has. Source: brief A.7.
fn choose_cipher(config: &Config, info: &PeerInfo, message: &KeyMethod) -> Result<Cipher, Refusal> {
    let fallback = occ::cipher(&message.options).filter(|_| info.ciphers.is_empty());
    let has = |cipher: &Cipher| info.ciphers.contains(cipher) || fallback == Some(*cipher);
    config.data_ciphers.iter().copied().find(has).ok_or_else(|| {
        let ours: Vec<&str> = config.data_ciphers.iter().map(|cipher| cipher.name()).collect();
        let ours = ours.join(":");
        let reason =
            format!("it has none of the server's ciphers {ours}: add one to `data-ciphers` in its profile");
        refusal("Data channel cipher negotiation failed (no shared cipher)", reason)
    })
}

pub(super) fn refusal(told: &'static str, reason: String) -> Refusal {
    Refusal { told, reason }
}

/// The certificate's common name with non-printing characters replaced by `_`; `None` if it has none.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    let printable = |c: char| if c.is_control() { '_' } else { c };
    Some(name.chars().take(MAX_NAME).map(printable).collect()).filter(|name: &String| !name.is_empty())
}

/// The options pushed to a client, in upstream's order. Source: brief 0, A.8.
pub(super) fn push_options(
    config: &Config,
    terms: &Terms,
    address: Option<std::net::Ipv4Addr>,
    peer_id: crate::ids::PeerId,
) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    options.extend(terms.compress.map(str::to_owned));
    options.extend(config.push.iter().cloned());
    if let (Some(address), Some(pool)) = (address, &config.pool) {
        options.push(format!("ifconfig {address} {}", pool.netmask));
    }
    options.push(format!("peer-id {peer_id}"));
    options.push(format!("cipher {}", terms.profile.cipher.name()));
    options.extend(protocol_flags(&terms.info));
    if terms.info.has_mtu {
        options.push(format!("tun-mtu {}", config.tun_mtu));
    }
    options
}

/// A client that knows `protocol-flags` says so by its exit notice. Source: push.c `prepare_push_reply`.
fn protocol_flags(info: &PeerInfo) -> Option<String> {
    let exporter = info.supports(proto::TLS_KEY_EXPORT);
    match (info.supports(proto::CC_EXIT_NOTIFY), exporter) {
        (true, true) => Some("protocol-flags cc-exit tls-ekm".into()),
        (true, false) => Some("protocol-flags cc-exit".into()),
        (false, true) => Some("key-derivation tls-ekm".into()),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        data::Digest,
        ids::PeerId,
        server::{AllowCompression, Compress, Pool, Sizes},
    };

    fn config() -> Config {
        let tls =
            rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        let address = |host| std::net::Ipv4Addr::new(10, 10, 21, host);
        Config {
            tls: Arc::new(tls),
            data_ciphers: vec![Cipher::Aes256Gcm, Cipher::Aes128Gcm],
            digest: Digest::Sha1,
            ping: None,
            ping_restart: None,
            push: vec!["route-gateway 10.10.21.5".into()],
            compress: Compress::Lz4V2,
            allow_compression: AllowCompression::Asym,
            pool: Some(Pool {
                gateway: address(5),
                netmask: std::net::Ipv4Addr::new(255, 255, 255, 0),
                first: address(100),
                last: address(255),
            }),
            max_clients: 10,
            duplicate_cn: false,
            reneg: None,
            hand_window: Duration::from_secs(60),
            tran_window: Duration::from_secs(3600),
            connect_freq_initial: (100, Duration::from_secs(10)),
            exit_notify: None,
            tun_mtu: 1500,
            sizes: Sizes::default(),
            port: 443,
        }
    }

    fn message(options: &str, peer_info: &str) -> KeyMethod {
        KeyMethod {
            pre_master: Some([0; 48]),
            random1: [0; 32],
            random2: [0; 32],
            options: options.into(),
            username: Vec::new(),
            password: Vec::new(),
            peer_info: peer_info.into(),
        }
    }

    #[track_caller]
    fn refusal_of(options: &str, peer_info: &str) -> Refusal {
        judge(&config(), "agent", &message(options, peer_info)).unwrap_err()
    }

    /// Brief A.7.
    const STOCK_2_6: &str =
        "IV_PROTO=990\nIV_CIPHERS=AES-256-GCM:AES-128-GCM\nIV_MTU=1600\nIV_COMP_STUBv2=1\n";

    #[test]
    fn keys_come_from_the_exporter_only_where_the_client_has_it() {
        let derivation = |peer_info: &str| {
            judge(&config(), "agent", &message("V4,dev-type tap", peer_info)).map(|terms| terms.derivation())
        };
        assert_eq!(derivation("IV_PROTO=2\nIV_NCP=2\n"), Ok(Derivation::Prf));
        assert_eq!(derivation("IV_PROTO=6\nIV_CIPHERS=AES-256-GCM\n"), Ok(Derivation::Prf));
        assert_eq!(derivation(STOCK_2_6), Ok(Derivation::Exporter));
    }

    #[test]
    fn a_client_without_data_v2_is_told_that_it_is_too_old() {
        let refusal = refusal_of("V4,dev-type tap", "");
        assert!(refusal.told.contains("too old"), "{refusal:?}");
        assert!(refusal.reason.contains("OpenVPN 2.4"), "{refusal:?}");
    }

    #[test]
    fn a_tun_client_is_told_to_use_tap() {
        assert!(refusal_of("V4,dev-type tun", STOCK_2_6).reason.contains("dev tap"));
    }

    #[test]
    fn without_a_common_cipher_upstreams_words_are_used() {
        let refusal = refusal_of("V4,dev-type tap", "IV_PROTO=990\nIV_CIPHERS=CHACHA20-POLY1305\n");
        assert_eq!(refusal.told, "Data channel cipher negotiation failed (no shared cipher)");
    }

    #[test]
    fn the_servers_order_of_ciphers_decides_and_occ_serves_clients_without_a_list() {
        let choice = |options: &str, ciphers: &str| {
            let peer_info = format!("IV_PROTO=990\n{ciphers}");
            judge(&config(), "agent", &message(options, &peer_info)).map(|terms| terms.profile.cipher).ok()
        };
        assert_eq!(choice("", "IV_CIPHERS=AES-128-GCM:AES-256-GCM\n"), Some(Cipher::Aes256Gcm));
        assert_eq!(choice("", "IV_CIPHERS=AES-128-GCM\n"), Some(Cipher::Aes128Gcm));
        assert_eq!(choice("V4,cipher AES-128-GCM,x", ""), Some(Cipher::Aes128Gcm));
        assert_eq!(choice("V4,cipher BF-CBC", ""), None);
    }

    #[test]
    fn options_are_pushed_in_upstreams_order_and_only_where_understood() {
        let pushed = |peer_info: &str| {
            let terms = judge(&config(), "agent", &message("", peer_info)).unwrap();
            let address = Some(std::net::Ipv4Addr::new(10, 10, 21, 100));
            push_options(&config(), &terms, address, PeerId::new(3).unwrap())
        };
        assert_eq!(
            pushed(STOCK_2_6),
            [
                "compress stub-v2",
                "route-gateway 10.10.21.5",
                "ifconfig 10.10.21.100 255.255.255.0",
                "peer-id 3",
                "cipher AES-256-GCM",
                "protocol-flags cc-exit tls-ekm",
                "tun-mtu 1500"
            ]
        );
        let small = pushed("IV_PROTO=14\nIV_CIPHERS=AES-128-GCM\n");
        assert_eq!(small[2..], ["peer-id 3", "cipher AES-128-GCM", "key-derivation tls-ekm"]);
        let older = pushed("IV_PROTO=6\nIV_CIPHERS=AES-128-GCM\n");
        assert_eq!(older[2..], ["peer-id 3", "cipher AES-128-GCM"]);
    }

    #[test]
    fn a_name_is_bounded_and_has_no_control_characters() {
        let named = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            common_name(params.self_signed(&key).unwrap().der())
        };
        assert_eq!(named("agent\n\x1bone").as_deref(), Some("agent__one"));
        assert_eq!(named(&"x".repeat(200)).map(|name| name.len()), Some(MAX_NAME));
        assert_eq!(named(""), None);
        assert_eq!(common_name(&CertificateDer::from(vec![0x30, 0x82])), None);
    }
}
