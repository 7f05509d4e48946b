//! What the server pushed, as far as the protocol itself is concerned.

use std::{net::Ipv4Addr, time::Duration};

use super::{CloseReason, Config, Connected};
use crate::{
    data::{Cipher, Framing, Layout, Profile},
    ids::PeerId,
    session::Derivation,
    wire::peer_info::proto,
};

/// A push reply, understood.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) connected: Connected,
    pub(super) ping: Option<Duration>,
    pub(super) ping_restart: Option<Duration>,
    pub(super) exit_notify: bool,
    /// Later negotiations are wrapped with a key of the first one.
    pub(super) dynamic_wrapping: bool,
    pub(super) derivation: Derivation,
}

impl Pushed {
    /// Reads the options; those that do not concern the protocol are kept as text. A server that pushes no cipher uses
    /// `its_own`, which its options string names. Source: ssl_ncp.c `tls_poor_mans_ncp`.
    pub(super) fn parse(
        config: &Config,
        its_own: Option<Cipher>,
        options: Vec<String>,
    ) -> Result<Self, CloseReason> {
        let mut draft = Draft::default();
        for option in &options {
            draft.read(option)?;
        }
        let cipher = draft.cipher.unwrap_or(its_own).filter(|cipher| config.data_ciphers.contains(cipher));
        let cipher = cipher.ok_or_else(|| incompatible("no `cipher` that was offered"))?;
        let layout = draft.layout(config, cipher)?;
        let connected = Connected {
            peer_id: draft.peer_id.unwrap_or(UNNAMED),
            address: draft.address,
            profile: Profile {
                layout,
                digest: config.digest,
                ..Profile::new(cipher, draft.framing.unwrap_or(config.framing))
            },
            options,
        };
        let Draft { ping, ping_restart, exit_notify, dynamic_wrapping, exporter, .. } = draft;
        let derivation = if exporter { Derivation::Exporter } else { Derivation::Prf };
        Ok(Self { connected, ping, ping_restart, exit_notify, dynamic_wrapping, derivation })
    }
}

/// What the client's own configuration adds.
impl Pushed {
    /// Times that the server did not push are the configuration's; pushed zeros mean never.
    pub(super) fn or_config(mut self, config: &Config) -> Self {
        let is_pushed = |name: &str| {
            self.connected.options.iter().any(|option| option.split_ascii_whitespace().next() == Some(name))
        };
        let (ping, ping_restart) = (is_pushed("ping"), is_pushed("ping-restart"));
        self.ping = if ping { self.ping } else { config.ping };
        self.ping_restart = if ping_restart { self.ping_restart } else { config.ping_restart };
        self
    }
}
/// Stands for the peer id where there is none.
const UNNAMED: PeerId = PeerId::new(0).expect("it fits 24 bits");

/// What has been read so far.
#[derive(Default)]
struct Draft {
    peer_id: Option<PeerId>,
    /// What was pushed, if we have it.
    cipher: Option<Option<Cipher>>,
    address: Option<(Ipv4Addr, Ipv4Addr)>,
    framing: Option<Framing>,
    exporter: bool,
    epochs: bool,
    exit_notify: bool,
    dynamic_wrapping: bool,
    ping: Option<Duration>,
    ping_restart: Option<Duration>,
}

impl Draft {
    /// What data packets look like by what was pushed. Source: ssl.c `tls_session_update_crypto_params`, brief A.10.
    fn layout(&self, config: &Config, cipher: Cipher) -> Result<Layout, CloseReason> {
        match (self.peer_id, self.epochs) {
            (Some(_), true) if config.layout == Layout::Epoch && cipher.is_aead() => Ok(Layout::Epoch),
            (_, true) => {
                Err(incompatible("`aead-epoch` that was not offered, or does not go with the others"))
            }
            (Some(_), false) => Ok(Layout::V2),
            (None, false) => Ok(Layout::V1),
        }
    }

    fn read(&mut self, option: &str) -> Result<(), CloseReason> {
        let words: Vec<&str> = option.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["peer-id", number] => {
                let peer_id = number.parse().ok().and_then(PeerId::new);
                self.peer_id = Some(peer_id.ok_or_else(|| incompatible(option))?);
            }
            ["cipher", name] => self.cipher = Some(Cipher::from_name(name)),
            ["ifconfig", address, netmask] => self.address = parse_address(address, netmask),
            ["ping", seconds] => self.ping = parse_seconds(seconds),
            ["ping-restart", seconds] => self.ping_restart = parse_seconds(seconds),
            ["compress", "lz4-v2" | "stub-v2"] => self.framing = Some(Framing::V2),
            ["compress"] | ["compress", "stub" | "lz4"] => self.framing = Some(Framing::Swapped),
            ["comp-lzo"] | ["comp-lzo", "no" | "yes" | "adaptive"] | ["compress", "lzo"] => {
                self.framing = Some(Framing::Prefixed);
            }
            ["compress" | "comp-lzo", ..] => return Err(incompatible(option)),
            ["key-derivation", "tls-ekm"] => self.exporter = true,
            ["protocol-flags", flags @ ..] => self.read_flags(flags),
            _ => {}
        }
        Ok(())
    }

    fn read_flags(&mut self, flags: &[&str]) {
        self.epochs |= flags.contains(&"aead-epoch");
        self.exporter |= flags.contains(&"tls-ekm");
        self.exit_notify |= flags.contains(&"cc-exit");
        self.dynamic_wrapping |= flags.contains(&"dyn-tls-crypt");
    }
}

/// What the client says about itself.
pub(super) fn peer_info(config: &Config) -> String {
    let ciphers: Vec<&str> = config.data_ciphers.iter().map(|cipher| cipher.name()).collect();
    let exporter = if config.exporter { proto::TLS_KEY_EXPORT } else { 0 };
    let layout = match config.layout {
        Layout::V1 => 0,
        Layout::V2 => proto::DATA_V2,
        Layout::Epoch => proto::DATA_V2 | proto::DATA_EPOCH,
    };
    let always = proto::REQUEST_PUSH | proto::CC_EXIT_NOTIFY | proto::AUTH_FAIL_TEMP | proto::DYN_TLS_CRYPT;
    let proto = always | layout | exporter;
    let compression = if config.compression { "IV_LZ4v2=1\nIV_COMP_STUBv2=1\n" } else { "" };
    format!(
        "IV_VER=trestle_{}\nIV_PLAT=linux\nIV_MTU=1600\nIV_NCP=2\nIV_CIPHERS={}\nIV_PROTO={proto}\n{compression}",
        env!("CARGO_PKG_VERSION"),
        ciphers.join(":"),
    )
}

fn parse_address(address: &str, netmask: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    Some((address.parse().ok()?, netmask.parse().ok()?))
}

/// Zero means never.
fn parse_seconds(text: &str) -> Option<Duration> {
    text.parse().ok().filter(|seconds| *seconds > 0).map(|seconds: u32| Duration::from_secs(seconds.into()))
}

fn incompatible(what: &str) -> CloseReason {
    CloseReason::Incompatible(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let tls =
            rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
        Config::new(tls.into())
    }

    fn parse(options: &[&str]) -> Result<Pushed, CloseReason> {
        Pushed::parse(&config(), None, options.iter().map(|&option| option.into()).collect())
    }

    const LEAST: [&str; 2] = ["peer-id 7", "cipher aes-128-gcm"];

    #[test]
    fn the_least_a_server_must_push_is_enough() {
        let pushed = parse(&LEAST).unwrap();
        assert_eq!(pushed.connected.peer_id.value(), 7);
        assert_eq!(pushed.connected.profile, Profile::new(Cipher::Aes128Gcm, Framing::None));
        assert_eq!((pushed.ping, pushed.ping_restart, pushed.exit_notify), (None, None, false));
    }

    #[test]
    fn data_keys_come_from_the_exporter_only_where_the_server_says_so() {
        let derivation = |option: &str| parse(&[&LEAST[..], &[option]].concat()).unwrap().derivation;
        assert_eq!(derivation("key-derivation tls-ekm"), Derivation::Exporter);
        assert_eq!(derivation("protocol-flags cc-exit tls-ekm"), Derivation::Exporter);
        assert_eq!(derivation("protocol-flags cc-exit"), Derivation::Prf);
        assert_eq!(derivation("ping 10"), Derivation::Prf);
    }

    #[test]
    fn the_layout_is_what_the_server_says_and_the_client_offered() {
        let layout = |options: &[&str]| parse(options).unwrap().connected.profile.layout;
        assert_eq!(layout(&LEAST), Layout::V2);
        assert_eq!(layout(&LEAST[1..]), Layout::V1, "no `peer-id`");
        assert_eq!(layout(&[LEAST[0], LEAST[1], "protocol-flags aead-epoch"]), Layout::Epoch);
        let offered = |layout| peer_info(&Config { layout, ..config() });
        assert!(offered(Layout::V1).contains("IV_PROTO=908\n"), "{}", offered(Layout::V1));
        assert!(offered(Layout::V2).contains("IV_PROTO=910\n"));
        assert!(offered(Layout::Epoch).contains("IV_PROTO=1934\n"));
    }

    #[test]
    fn a_server_that_pushes_no_cipher_uses_its_own() {
        let parse = |its_own, options: &[&str]| {
            let options = options.iter().map(|&option| option.into()).collect();
            Pushed::parse(&config(), its_own, options).map(|pushed| pushed.connected.profile.cipher).ok()
        };
        assert_eq!(parse(Some(Cipher::Aes128Gcm), &LEAST[..1]), Some(Cipher::Aes128Gcm));
        assert_eq!(parse(Some(Cipher::Aes256Cbc), &LEAST[..1]), None, "it was not offered");
        assert_eq!(parse(Some(Cipher::Aes256Gcm), &[LEAST[0], "cipher none"]), None);
    }

    #[test]
    fn what_is_missing_or_cannot_be_done_is_named() {
        assert!(matches!(parse(&LEAST[..1]), Err(CloseReason::Incompatible(_))), "no cipher");
        let impossible =
            ["comp-lzo maybe", "compress snappy", "cipher none", "peer-id 16777215", "peer-id seven"];
        for option in impossible {
            let options = [&LEAST[..], &[option]].concat();
            assert!(matches!(parse(&options), Err(CloseReason::Incompatible(_))), "{option}");
        }
        let without_peer_id = parse(&[LEAST[1], "protocol-flags aead-epoch"]);
        assert!(matches!(without_peer_id, Err(CloseReason::Incompatible(_))));
        let config = Config { layout: Layout::V2, ..config() };
        let options = [LEAST[0], LEAST[1], "protocol-flags aead-epoch"].map(str::to_owned);
        let not_offered = Pushed::parse(&config, None, options.to_vec());
        assert!(matches!(not_offered, Err(CloseReason::Incompatible(_))));
    }
}
