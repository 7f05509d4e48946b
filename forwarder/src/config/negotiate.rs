//! Options that clients are pushed.

use super::{apply::Done, compression, words::Directive};

pub(super) fn exporter_only(d: Directive<'_>) -> Done {
    d.draft.server.exporter_only = true;
    Ok(())
}

/// Options that the server adds itself, after what it has agreed with the client.
const OURS: &[&str] =
    &["ifconfig", "peer-id", "cipher", "protocol-flags", "key-derivation", "tun-mtu", "push-continuation"];

pub(super) fn push(mut d: Directive<'_>) -> Done {
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
        "compress" | "comp-lzo" => compression::pushed(&mut d, name, words.next()),
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
