//! What server and client agree on: data ciphers, compression framing, pushed options.

use openvpn::{data::Cipher, server::Compress};

use super::{
    apply::Done,
    error::Level,
    words::{Directive, shown},
};

/// A cipher by its name, whatever its case.
fn cipher_by_name(name: &str) -> Option<Cipher> {
    match name.to_ascii_uppercase().as_str() {
        "AES-256-GCM" => Some(Cipher::Aes256Gcm),
        "AES-128-GCM" => Some(Cipher::Aes128Gcm),
        _ => None,
    }
}

/// Ciphers of OpenVPN that are not here yet, by the beginning of their names.
const LATER: &[&str] = &["CHACHA20-POLY1305", "AES-192-GCM", "AES-", "BF-", "DES-", "CAMELLIA-", "CAST5-"];

/// `cipher` is not negotiated since 2.6; it names what clients without negotiation use.
/// Source: options.c `options_postprocess_cipher`.
pub(super) fn cipher(d: Directive<'_>) -> Done {
    let name = d.word(0)?;
    if cipher_by_name(name).is_none() {
        let text = format!(
            "`cipher {}` is for clients that cannot negotiate, which come later: `data-ciphers` counts",
            shown(name)
        );
        d.draft.note(Level::Info, d.line.number, text);
    }
    Ok(())
}

pub(super) fn data_ciphers(d: Directive<'_>) -> Done {
    let mut chosen = Vec::new();
    let mut later = Vec::new();
    for word in d.word(0)?.split(':') {
        // `?NAME`: may be missing. Source: openvpn(8).
        let name = word.strip_prefix('?').unwrap_or(word);
        match cipher_by_name(name) {
            Some(cipher) if !chosen.contains(&cipher) => chosen.push(cipher),
            Some(_) => {}
            None if name == "DEFAULT" => chosen.extend([Cipher::Aes256Gcm, Cipher::Aes128Gcm]),
            None if word.starts_with('?') || is_later(name) => later.push(shown(name)),
            None => {
                return Err(d.error(
                    format!("`{}` is not a cipher OpenVPN has", shown(name)),
                    "write `data-ciphers AES-256-GCM:AES-128-GCM`",
                ));
            }
        }
    }
    chosen.dedup();
    if chosen.is_empty() {
        return Err(d.error(
            format!("{} comes later", later.join(", ")),
            "write `data-ciphers AES-256-GCM:AES-128-GCM` for now",
        ));
    }
    if !later.is_empty() {
        d.draft.note(Level::Info, d.line.number, format!("not offered yet: {}", later.join(", ")));
    }
    d.draft.server.data_ciphers = chosen;
    Ok(())
}

fn is_later(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    LATER.iter().any(|prefix| name.starts_with(prefix))
}

pub(super) fn compress(d: Directive<'_>) -> Done {
    d.draft.server.compress = framing(&d, d.optional(0))?;
    Ok(())
}

/// Only v2 framing, which leaves frames as they are. Source: brief A.11.
fn framing(d: &Directive<'_>, algorithm: Option<&str>) -> Result<Compress, super::error::Error> {
    match algorithm {
        Some("lz4-v2") => Ok(Compress::Lz4V2),
        Some("stub-v2") => Ok(Compress::StubV2),
        None | Some("stub" | "lz4" | "lzo" | "migrate") => Err(d.error(
            "this compression framing comes later",
            "take the line out, or write `compress lz4-v2`, which is offered to each client that can take it",
        )),
        Some(other) => Err(d.error(
            format!("`{}` is not a compression OpenVPN has", shown(other)),
            "take the line out: frames are never compressed here",
        )),
    }
}

/// Options that the server adds itself, after what it has agreed with the client.
const OURS: &[&str] =
    &["ifconfig", "peer-id", "cipher", "protocol-flags", "key-derivation", "tun-mtu", "push-continuation"];

pub(super) fn push(d: Directive<'_>) -> Done {
    let option = d.word(0)?.to_owned();
    let mut words = option.split_ascii_whitespace();
    let name = words.next().unwrap_or_default();
    if option.contains(',') || option.chars().any(char::is_control) || !option.is_ascii() {
        return Err(d.error(
            "a pushed option cannot hold a comma, a control character or other than ASCII",
            "push several options in several lines",
        ));
    }
    match name {
        "" => Err(d.error("nothing stands between the quotes", "take the line out")),
        "compress" => {
            d.draft.server.compress = framing(&d, words.next())?;
            Ok(())
        }
        "comp-lzo" => {
            Err(d.error("`comp-lzo` comes later", "take the line out here and in the clients' files"))
        }
        ours if OURS.contains(&ours) => Err(d.error(
            format!("`{ours}` is agreed with each client and pushed by the server itself"),
            "take the line out",
        )),
        _ if option.len() > MAX_PUSH => {
            Err(d.error("the option is longer than one message carries", "push something shorter"))
        }
        _ => {
            d.draft.server.push.push(option);
            Ok(())
        }
    }
}

/// Longest option pushed, in bytes: a message's part stays below 940 (brief A.8) with room for what surrounds it.
const MAX_PUSH: usize = 255;
