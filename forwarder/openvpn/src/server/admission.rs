//! Whether a client may in, and on which terms: from its certificate and its key-method message.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Compress, Config};
use crate::{
    data::{Cipher, Framing},
    wire::{
        key_method::KeyMethod,
        occ,
        peer_info::{PeerInfo, cipher_name, proto},
    },
};

/// Longest name kept. X.520 allows 64 characters.
const MAX_NAME: usize = 64;

/// What was agreed with a client.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) name: String,
    pub(super) info: PeerInfo,
    pub(super) cipher: Cipher,
    pub(super) framing: Framing,
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
    require(&info, proto::TLS_KEY_EXPORT, "data keys from the TLS exporter")?;
    let cipher = choose_cipher(config, &info, message)?;
    let framing = compression(config.compress, &info).map_or(Framing::None, |_| Framing::V2);
    Ok(Terms { name: name.to_owned(), info, cipher, framing })
}

fn require(info: &PeerInfo, bit: u32, what: &str) -> Result<(), Refusal> {
    if info.supports(bit) {
        return Ok(());
    }
    let reason = format!("it does not support {what}: it needs OpenVPN 2.6 or later");
    Err(refusal("Data channel negotiation failed (client too old)", reason))
}

/// The first of our ciphers that the client has. Source: brief A.7.
fn choose_cipher(config: &Config, info: &PeerInfo, message: &KeyMethod) -> Result<Cipher, Refusal> {
    let fallback = occ::cipher(&message.options).filter(|_| info.ciphers.is_empty());
    let has = |cipher: &Cipher| info.ciphers.contains(cipher) || fallback == Some(*cipher);
    config.data_ciphers.iter().copied().find(has).ok_or_else(|| {
        let ours: Vec<&str> = config.data_ciphers.iter().map(|cipher| cipher_name(*cipher)).collect();
        let ours = ours.join(":");
        let reason =
            format!("it has none of the server's ciphers {ours}: add one to `data-ciphers` in its profile");
        refusal("Data channel cipher negotiation failed (no shared cipher)", reason)
    })
}

/// What `compress` is pushed, if any. Source: brief A.11.
pub(super) fn compression(compress: Compress, info: &PeerInfo) -> Option<&'static str> {
    match compress {
        Compress::PerClient if info.lz4_v2 => Some("compress lz4-v2"),
        Compress::PerClient if info.stub_v2 => Some("compress stub-v2"),
        Compress::PerClient | Compress::Off => None,
    }
}

pub(super) fn refusal(told: &'static str, reason: String) -> Refusal {
    Refusal { told, reason }
}

/// The certificate's common name with non-printing characters replaced by `_`; `None` if it has none.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
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
    options.extend(compression(config.compress, &terms.info).map(str::to_owned));
    options.extend(config.push.iter().cloned());
    if let (Some(address), Some(pool)) = (address, &config.pool) {
        options.push(format!("ifconfig {address} {}", pool.netmask));
    }
    options.push(format!("peer-id {peer_id}"));
    options.push(format!("cipher {}", cipher_name(terms.cipher)));
    let derivation = match terms.info.supports(proto::CC_EXIT_NOTIFY) {
        true => "protocol-flags cc-exit tls-ekm",
        false => "key-derivation tls-ekm",
    };
    options.push(derivation.into());
    if terms.info.has_mtu {
        options.push(format!("tun-mtu {}", config.tun_mtu));
    }
    options
}
