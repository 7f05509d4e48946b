//! What the server pushed, as far as the protocol itself is concerned.

use std::{net::Ipv4Addr, time::Duration};

use super::{CloseReason, Config, Connected};
use crate::{
    data::{Cipher, Framing},
    ids::PeerId,
    wire::peer_info::{cipher_from_name, cipher_name, proto},
};

/// A push reply, understood.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) connected: Connected,
    pub(super) ping: Option<Duration>,
    pub(super) ping_restart: Option<Duration>,
    pub(super) exit_notify: bool,
}

impl Pushed {
    /// Reads the options; those that do not concern the protocol are kept as text.
    pub(super) fn parse(config: &Config, options: Vec<String>) -> Result<Self, CloseReason> {
        let mut cipher = None;
        let mut peer_id = None;
        let mut exporter = false;
        let mut pushed = Self {
            connected: Connected {
                peer_id: PeerId::new(0).ok_or(CloseReason::RekeyFailed)?,
                address: None,
                cipher: Cipher::Aes256Gcm,
                framing: Framing::None,
                options: Vec::new(),
            },
            ping: None,
            ping_restart: None,
            exit_notify: false,
        };
        for option in &options {
            let words: Vec<&str> = option.split_ascii_whitespace().collect();
            match words.as_slice() {
                ["peer-id", number] => peer_id = number.parse().ok().and_then(PeerId::new),
                ["cipher", name] => {
                    cipher = cipher_from_name(name).filter(|have| config.data_ciphers.contains(have))
                }
                ["ifconfig", address, netmask] => pushed.connected.address = parse_address(address, netmask),
                ["ping", seconds] => pushed.ping = parse_seconds(seconds),
                ["ping-restart", seconds] => pushed.ping_restart = parse_seconds(seconds),
                ["compress", "lz4-v2" | "stub-v2"] => pushed.connected.framing = Framing::V2,
                ["compress" | "comp-lzo", ..] => return Err(incompatible(option)),
                ["key-derivation", "tls-ekm"] => exporter = true,
                ["protocol-flags", flags @ ..] => {
                    exporter |= flags.contains(&"tls-ekm");
                    pushed.exit_notify = flags.contains(&"cc-exit");
                    if flags.contains(&"aead-epoch") {
                        return Err(incompatible(option));
                    }
                }
                _ => {}
            }
        }
        if !exporter {
            return Err(incompatible("no `tls-ekm`: data keys must come from the TLS exporter"));
        }
        pushed.connected.peer_id = peer_id.ok_or_else(|| incompatible("no valid `peer-id`"))?;
        pushed.connected.cipher = cipher.ok_or_else(|| incompatible("no `cipher` that was offered"))?;
        pushed.connected.options = options;
        Ok(pushed)
    }
}

/// What the client says about itself.
pub(super) fn peer_info(config: &Config) -> String {
    let ciphers: Vec<&str> = config.data_ciphers.iter().map(|cipher| cipher_name(*cipher)).collect();
    let proto = proto::DATA_V2 | proto::REQUEST_PUSH | proto::TLS_KEY_EXPORT | proto::CC_EXIT_NOTIFY;
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
