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
        let profile = Profile {
            layout: draft.layout(),
            digest: config.digest,
            ..Profile::new(cipher, draft.framing.unwrap_or(Framing::None))
        };
        // Packets without a peer id have none to be wrong.
        let peer_id = draft.peer_id.unwrap_or(PeerId::new(0));
        let connected = Connected {
            peer_id: peer_id.ok_or_else(|| incompatible("no valid `peer-id`"))?,
            address: draft.address,
            profile,
            options,
        };
        let Draft { ping, ping_restart, exit_notify, exporter, .. } = draft;
        let derivation = if exporter { Derivation::Exporter } else { Derivation::Prf };
        Ok(Self { connected, ping, ping_restart, exit_notify, derivation })
    }
}

/// What has been read so far.
#[derive(Default)]
struct Draft {
    /// What was pushed, and whether it can be used.
    peer_id: Option<Option<PeerId>>,
    cipher: Option<Option<Cipher>>,
    epochs: bool,
    address: Option<(Ipv4Addr, Ipv4Addr)>,
    framing: Option<Framing>,
    exporter: bool,
    exit_notify: bool,
    ping: Option<Duration>,
    ping_restart: Option<Duration>,
}

impl Draft {
    fn layout(&self) -> Layout {
        match self.peer_id {
            None => Layout::V1,
            Some(_) if self.epochs => Layout::Epoch,
            Some(_) => Layout::V2,
        }
    }

    fn read(&mut self, option: &str) -> Result<(), CloseReason> {
        let words: Vec<&str> = option.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["peer-id", number] => self.peer_id = Some(number.parse().ok().and_then(PeerId::new)),
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
            ["protocol-flags", flags @ ..] => return self.read_flags(option, flags),
            _ => {}
        }
        Ok(())
    }

    fn read_flags(&mut self, option: &str, flags: &[&str]) -> Result<(), CloseReason> {
        if flags.iter().any(|flag| *flag == "dyn-tls-crypt") {
            return Err(incompatible(option));
        }
        self.exporter |= flags.contains(&"tls-ekm");
        self.epochs |= flags.contains(&"aead-epoch");
        self.exit_notify |= flags.contains(&"cc-exit");
        Ok(())
    }
}

/// What the client says about itself.
pub(super) fn peer_info(config: &Config) -> String {
    let ciphers: Vec<&str> = config.data_ciphers.iter().map(|cipher| cipher.name()).collect();
    let exporter = if config.exporter { proto::TLS_KEY_EXPORT } else { 0 };
    let always = proto::DATA_V2 | proto::REQUEST_PUSH | proto::CC_EXIT_NOTIFY | proto::AUTH_FAIL_TEMP;
    let epochs = if config.epochs { proto::DATA_EPOCH } else { 0 };
    let proto = always | exporter | epochs;
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

    fn parse(options: &[&str]) -> Result<Pushed, CloseReason> {
        let tls =
            rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
        Pushed::parse(&Config::new(tls.into()), None, options.iter().map(|&option| option.into()).collect())
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
    fn packets_are_laid_out_as_the_server_says() {
        let layout = |options: &[&str]| parse(options).unwrap().connected.profile.layout;
        assert_eq!(layout(&LEAST), Layout::V2);
        assert_eq!(layout(&LEAST[1..]), Layout::V1);
        assert_eq!(layout(&[&LEAST[..], &["protocol-flags aead-epoch"]].concat()), Layout::Epoch);
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
    fn what_is_missing_or_cannot_be_done_is_named() {
        assert!(matches!(parse(&LEAST[..1]), Err(CloseReason::Incompatible(_))));
        let impossible = [
            "comp-lzo maybe",
            "compress snappy",
            "peer-id 16777215",
            "protocol-flags dyn-tls-crypt",
            "cipher none",
        ];
        for option in impossible {
            let options = [&LEAST[..], &[option]].concat();
            assert!(matches!(parse(&options), Err(CloseReason::Incompatible(_))), "{option}");
        }
    }
}
