//! Whether a client may in, and on which terms: from its certificate and its key-method message.

use super::{Barred, Compress, Config, Particulars, Path, compression, instance::Address};
use crate::{
    data::{Cipher, Layout, Profile},
    session::Derivation,
    wire::{
        key_method::KeyMethod,
        occ,
        peer_info::{PeerInfo, proto},
    },
};

/// What was agreed with a client.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) name: String,
    pub(super) info: PeerInfo,
    pub(super) profile: Profile,
    pub(super) particulars: Particulars,
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
    pub(super) told: Told,
    /// Cause and cure, for the server's log.
    pub(super) reason: String,
}

/// What a refused client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// `AUTH_FAILED`: it gives up. The reason behind it has upstream's words where it has some, or is empty.
    Failed(&'static str),
    /// It is welcome another time. Clients that do not know this are told nothing, as by upstream, and try again when
    /// their handshake has taken too long: `AUTH_FAILED` alone would end them.
    Later(&'static str),
}

impl Told {
    /// The message to a client that says `info` about itself.
    pub(super) fn message(self, info: &PeerInfo) -> Option<String> {
        match self {
            Self::Failed("") => Some("AUTH_FAILED".into()),
            Self::Failed(reason) => Some(format!("AUTH_FAILED,{reason}")),
            Self::Later(reason) if info.supports(proto::AUTH_FAIL_TEMP) => {
                Some(format!("AUTH_FAILED,TEMP:{reason}"))
            }
            Self::Later(_) => None,
        }
    }
}

/// Judges a client at `path`.
pub(super) fn judge(config: &Config, name: &str, path: &Path, message: &KeyMethod) -> Result<Terms, Refusal> {
    let info = PeerInfo::parse(&message.peer_info);
    if occ::device_type(&message.options) == Some("tun") {
        return Err(refusal(
            "device type mismatch",
            "it uses `dev tun`; this server carries Ethernet: put `dev tap` into its profile".into(),
        ));
    }
    let particulars = particulars(config, name)?;
    require_exporter(config, &info)?;
    let cipher = choose_cipher(config, &info, message)?;
    let wanted = match particulars.removes("compress") {
        true => Compress::Off,
        false => particulars.compress.unwrap_or(config.compress),
    };
    let offer =
        compression::offer(wanted, config.allow_compression, &info, occ::has_compression(&message.options));
    let profile = Profile {
        digest: config.digest,
        layout: layout(&info, cipher),
        compresses: offer.compresses,
        ..Profile::new(cipher, offer.framing)
    };
    let profile = config.sizes.agree(profile, path, occ::fragments(&message.options));
    Ok(Terms { name: name.to_owned(), info, profile, compress: offer.pushed, particulars })
}

/// The client's own file. Source: multi.c `multi_client_connect_source_ccd`, ssl_verify.c for `ccd-exclusive`.
fn particulars(config: &Config, name: &str) -> Result<Particulars, Refusal> {
    let particulars =
        config.directory.as_ref().map_or_else(Particulars::default, |directory| directory.particulars(name));
    let reason = match particulars.barred {
        None => return Ok(particulars),
        Some(Barred::Disabled) => "says `disable`: take that out to let it in",
        Some(Barred::Unclear) => "cannot be understood: the line before says why",
        Some(Barred::Unlisted) => "is not there, and `ccd-exclusive` wants it: make one, even an empty one",
    };
    // Upstream gives no reason either.
    Err(refusal("", format!("its file in `client-config-dir` {reason}")))
}

/// `force-tls-key-material-export`. Source: multi.c `multi_client_set_protocol_options`, whose words they are.
fn require_exporter(config: &Config, info: &PeerInfo) -> Result<(), Refusal> {
    if !config.exporter_only || info.supports(proto::TLS_KEY_EXPORT) {
        return Ok(());
    }
    let told = "Client incompatible with this server. Keying Material Exporters (RFC 5705) support missing. Upgrade to a \
                client that supports this feature (OpenVPN 2.6.0+).";
    let reason = "its data keys would not come from the TLS exporter, as `force-tls-key-material-export` wants: it needs \
                  OpenVPN 2.6 or later";
    Err(refusal(told, reason.into()))
}

/// Epochs where the client has them and the cipher too, a peer id where it has that. Source: multi.c
/// `multi_client_set_protocol_options`.
fn layout(info: &PeerInfo, cipher: Cipher) -> Layout {
    match info.supports(proto::DATA_V2) {
        true if info.supports(proto::DATA_EPOCH) && cipher.is_aead() => Layout::Epoch,
        true => Layout::V2,
        false => Layout::V1,
    }
}

/// The first of our ciphers that the client has; for one that names none at all, the fallback. Source: brief A.7,
/// ssl_ncp.c `ncp_get_best_cipher`.
fn choose_cipher(config: &Config, info: &PeerInfo, message: &KeyMethod) -> Result<Cipher, Refusal> {
    let named = occ::cipher_name(&message.options);
    // A client with a list takes nothing else, whatever it says there.
    let also = named.filter(|_| !info.has_cipher_list).and_then(Cipher::from_name);
    let has = |cipher: &Cipher| info.ciphers.contains(cipher) || also == Some(*cipher);
    let fallback = config.fallback_cipher.filter(|_| named.is_none() && !info.negotiates);
    let cipher = config.data_ciphers.iter().copied().find(has).or(fallback);
    cipher.ok_or_else(|| no_shared_cipher(config, named.is_none() && !info.negotiates))
}

fn no_shared_cipher(config: &Config, names_none: bool) -> Refusal {
    let ours: Vec<&str> = config.data_ciphers.iter().map(|cipher| cipher.name()).collect();
    let ours = ours.join(":");
    let reason = if names_none {
        "it names no cipher: say in the server's file by `data-ciphers-fallback` which one it uses".to_owned()
    } else {
        format!("it has none of the server's ciphers {ours}: add one to `data-ciphers` in its profile")
    };
    refusal("Data channel cipher negotiation failed (no shared cipher)", reason)
}

pub(super) fn refusal(told: &'static str, reason: String) -> Refusal {
    Refusal { told: Told::Failed(told), reason }
}

/// The options pushed to a client, in upstream's order. Source: brief 0, A.8.
pub(super) fn push_options(
    config: &Config,
    terms: &Terms,
    address: Option<Address>,
    peer_id: crate::ids::PeerId,
) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    options.extend(terms.compress.map(str::to_owned));
    options.extend(terms.particulars.edit(&config.push));
    if let Some(Address { address, netmask, .. }) = address.filter(|_| !terms.particulars.removes("ifconfig"))
    {
        options.push(format!("ifconfig {address} {netmask}"));
    }
    if terms.profile.layout != Layout::V1 {
        options.push(format!("peer-id {peer_id}"));
    }
    if terms.info.negotiates {
        options.push(format!("cipher {}", terms.profile.cipher.name()));
    }
    options.extend(protocol_flags(&terms.info, terms.profile.layout));
    if terms.info.has_mtu {
        options.push(format!("tun-mtu {}", config.tun_mtu));
    }
    options
}

/// `protocol-flags`, or, where the client knows only that, `key-derivation`: by its exit notice it says that it knows
/// `tls-ekm` among the flags. Source: push.c `prepare_push_reply`.
fn protocol_flags(info: &PeerInfo, layout: Layout) -> Vec<String> {
    let exit = info.supports(proto::CC_EXIT_NOTIFY);
    let exporter = info.supports(proto::TLS_KEY_EXPORT);
    let flags = [
        (exit, " cc-exit"),
        (exit && exporter, " tls-ekm"),
        (info.supports(proto::DYN_TLS_CRYPT), " dyn-tls-crypt"),
        (layout == Layout::Epoch, " aead-epoch"),
    ];
    let flags: String = flags.into_iter().filter_map(|(has, flag)| has.then_some(flag)).collect();
    let derivation = (exporter && !exit).then(|| "key-derivation tls-ekm".to_owned());
    derivation.into_iter().chain((!flags.is_empty()).then(|| format!("protocol-flags{flags}"))).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr, SocketAddr},
        sync::Arc,
    };

    use super::*;
    use crate::{
        ids::PeerId,
        server::{Directory, PushEdit},
    };

    fn config() -> Config {
        let tls =
            rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        Config {
            push: vec!["route-gateway 10.10.21.5".into()],
            compress: Compress::Lz4V2,
            ..Config::new(Arc::new(tls))
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

    const HERE: Path = Path::udp(
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 40_000),
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443),
    );

    fn judge(config: &Config, name: &str, message: &KeyMethod) -> Result<Terms, Refusal> {
        super::judge(config, name, &HERE, message)
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
    fn packets_have_epochs_or_a_peer_id_only_where_the_client_has_them() {
        let layout = |peer_info: &str, cipher: &str| {
            let text = format!("{peer_info}IV_CIPHERS={cipher}\n");
            let config = Config { data_ciphers: Cipher::ALL.to_vec(), ..config() };
            super::judge(&config, "agent", &HERE, &message("", &text)).map(|terms| terms.profile.layout)
        };
        assert_eq!(layout("IV_PROTO=8094\n", "AES-256-GCM"), Ok(Layout::Epoch));
        assert_eq!(layout("IV_PROTO=8094\n", "AES-256-CBC"), Ok(Layout::V2));
        assert_eq!(layout("IV_PROTO=990\n", "AES-256-GCM"), Ok(Layout::V2));
        assert_eq!(layout("IV_PROTO=1024\n", "AES-256-GCM"), Ok(Layout::V1));
        assert_eq!(layout("", "AES-128-CBC"), Ok(Layout::V1));
    }

    #[test]
    fn a_tun_client_is_told_to_use_tap() {
        assert!(refusal_of("V4,dev-type tun", STOCK_2_6).reason.contains("dev tap"));
    }

    #[test]
    fn without_a_common_cipher_upstreams_words_are_used() {
        let refusal = refusal_of("V4,dev-type tap", "IV_PROTO=990\nIV_CIPHERS=AES-256-CBC\n");
        assert_eq!(refusal.told, Told::Failed("Data channel cipher negotiation failed (no shared cipher)"));
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
    fn a_client_that_names_no_cipher_gets_the_fallback_and_no_other_does() {
        let config = Config { fallback_cipher: Some(Cipher::Aes128Gcm), ..config() };
        let choice = |options: &str, ciphers: &str| {
            let peer_info = format!("IV_PROTO=2\n{ciphers}");
            judge(&config, "agent", &message(options, &peer_info)).map(|terms| terms.profile.cipher).ok()
        };
        assert_eq!(choice("", ""), Some(Cipher::Aes128Gcm));
        assert_eq!(choice("V4,dev-type tap", ""), Some(Cipher::Aes128Gcm));
        assert_eq!(choice("V4,cipher BF-CBC", ""), None);
        assert_eq!(choice("", "IV_CIPHERS=ROT13\n"), None);
        assert_eq!(choice("", "IV_CIPHERS=ROT13\nIV_NCP=2\n"), None);
        assert_eq!(choice("", "IV_NCP=2\n"), Some(Cipher::Aes256Gcm));
        assert!(refusal_of("", "IV_PROTO=2\n").reason.contains("data-ciphers-fallback"));
    }

    fn pushed_to(config: &Config, peer_info: &str) -> Vec<String> {
        let terms = judge(config, "agent", &message("", peer_info)).unwrap();
        let address = Address {
            address: Ipv4Addr::new(10, 10, 21, 100),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            pooled: true,
        };
        push_options(config, &terms, Some(address), PeerId::new(3).unwrap())
    }

    #[test]
    fn options_are_pushed_in_upstreams_order_and_only_where_understood() {
        let pushed = |peer_info: &str| pushed_to(&config(), peer_info);
        assert_eq!(
            pushed(STOCK_2_6),
            [
                "compress stub-v2",
                "route-gateway 10.10.21.5",
                "ifconfig 10.10.21.100 255.255.255.0",
                "peer-id 3",
                "cipher AES-256-GCM",
                "protocol-flags cc-exit tls-ekm dyn-tls-crypt",
                "tun-mtu 1500"
            ]
        );
        let small = pushed("IV_PROTO=14\nIV_CIPHERS=AES-128-GCM\n");
        assert_eq!(small[2..], ["peer-id 3", "cipher AES-128-GCM", "key-derivation tls-ekm"]);
        let epochs = pushed("IV_PROTO=8094\nIV_CIPHERS=AES-128-GCM\n");
        assert_eq!(epochs[4], "protocol-flags cc-exit tls-ekm dyn-tls-crypt aead-epoch");
        let no_peer_id = pushed("IV_PROTO=4\nIV_CIPHERS=AES-128-GCM\n");
        assert_eq!(no_peer_id[2..], ["cipher AES-128-GCM"]);
        let older = pushed("IV_PROTO=6\nIV_CIPHERS=AES-128-GCM\n");
        assert_eq!(older[2..], ["peer-id 3", "cipher AES-128-GCM"]);
    }

    #[test]
    fn a_client_without_the_exporter_is_refused_where_it_must_be_used() {
        let config = Config { exporter_only: true, ..config() };
        assert!(judge(&config, "agent", &message("", STOCK_2_6)).is_ok());
        let older = message("", "IV_PROTO=6\nIV_CIPHERS=AES-256-GCM\n");
        let refusal = judge(&config, "agent", &older).unwrap_err();
        assert!(refusal.reason.contains("force-tls-key-material-export"), "{refusal:?}");
    }

    #[test]
    fn a_client_without_negotiation_is_pushed_no_cipher() {
        let mut with_fallback = config();
        with_fallback.fallback_cipher = Some(Cipher::Aes256Gcm);
        let pushed = pushed_to(&with_fallback, "IV_PROTO=2\n");
        assert_eq!(pushed, ["route-gateway 10.10.21.5", "ifconfig 10.10.21.100 255.255.255.0", "peer-id 3"]);
    }

    /// The same for all.
    #[derive(Debug)]
    struct Everyone(Particulars);

    impl Directory for Everyone {
        fn particulars(&self, _name: &str) -> Particulars {
            self.0.clone()
        }
    }

    #[test]
    fn a_clients_file_changes_what_it_is_pushed_or_keeps_it_out() {
        let with = |particulars| Config { directory: Some(Arc::new(Everyone(particulars))), ..config() };
        let push = vec![PushEdit::Reset, PushEdit::Add("x".into()), PushEdit::Remove("ifconfig".into())];
        let pushed = pushed_to(&with(Particulars { push, ..Particulars::default() }), STOCK_2_6);
        assert_eq!(pushed[..3], ["compress stub-v2", "x", "peer-id 3"]);
        for (barred, word) in [(Barred::Disabled, "disable"), (Barred::Unlisted, "ccd-exclusive")] {
            let config = with(Particulars { barred: Some(barred), ..Particulars::default() });
            let refusal = judge(&config, "agent", &message("", STOCK_2_6)).unwrap_err();
            assert!(refusal.reason.contains(word), "{refusal:?}");
            assert_eq!(refusal.told.message(&PeerInfo::default()).as_deref(), Some("AUTH_FAILED"));
        }
    }

    #[test]
    fn who_may_come_later_is_not_told_to_give_up() {
        let told = |peer_info: &str| Told::Later("full").message(&PeerInfo::parse(peer_info.as_bytes()));
        assert_eq!(told(STOCK_2_6).as_deref(), Some("AUTH_FAILED,TEMP:full"));
        assert_eq!(told("IV_PROTO=6\n"), None);
    }
}
