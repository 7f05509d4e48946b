//! Ciphers for clients that do not negotiate: `cipher`, `data-ciphers-fallback`, `compat-mode`.

use openvpn::data::Cipher;

use super::{
    apply::Done,
    error::Level,
    server::Draft,
    words::{Directive, shown},
};

/// What the file says of them so far.
#[derive(Debug, Default)]
pub(super) struct Old {
    /// `cipher`, as it stands there, and its line.
    cipher: Option<(String, u32)>,
    /// `compat-mode`, its line.
    compat: Option<(Version, u32)>,
}

/// A version of OpenVPN: major, minor, patch.
type Version = [u32; 3];

/// `cipher` is not negotiated since 2.6; it counts only with `compat-mode`.
/// Source: options.c `options_postprocess_cipher`.
pub(super) fn cipher(d: Directive<'_>) -> Done {
    let name = d.word(0)?.to_owned();
    d.draft.sizing.cipher = Some(name.clone());
    d.draft.old.cipher = Some((name, d.line.number));
    Ok(())
}

/// `data-ciphers-fallback NAME`: for clients that name no cipher at all.
pub(super) fn data_ciphers_fallback(d: Directive<'_>) -> Done {
    let name = d.word(0)?;
    let cipher = Cipher::from_name(name);
    if cipher.is_none() {
        let text = format!(
            "`data-ciphers-fallback {}` has no effect: that cipher is not there, and clients that name none are refused",
            shown(name)
        );
        d.draft.note(Level::Warning, d.line.number, text);
    }
    d.draft.server.fallback_cipher = cipher;
    Ok(())
}

/// `compat-mode VERSION`: what an older version than that did where the file does not say.
pub(super) fn compat_mode(d: Directive<'_>) -> Done {
    let word = d.word(0)?;
    let numbers: Option<Vec<u32>> = word.split('.').map(|part| part.parse().ok()).collect();
    let version = numbers.filter(|numbers| (2..=3).contains(&numbers.len()));
    let version = version.ok_or_else(|| {
        d.error(format!("`{}` is not a version of OpenVPN", shown(word)), "write one as `compat-mode 2.4.0`")
    })?;
    let version = [0, 1, 2].map(|at| version.get(at).copied().unwrap_or(0));
    d.draft.old.compat = Some((version, d.line.number));
    Ok(())
}

impl Draft {
    /// Source: options.c `options_set_backwards_compatible_options`, with what there is here.
    pub(super) fn apply_compat(&mut self) {
        let Old { cipher, compat } = std::mem::take(&mut self.old);
        let version = compat.map_or([u32::MAX; 3], |(version, _)| version);
        let Some((name, line)) = cipher else { return };
        let known = Cipher::from_name(&name);
        if version < [2, 5, 0] {
            match known {
                None => self.note_cipher(&name, line, "is not there: clients that have no other are refused"),
                Some(known) if !self.server.data_ciphers.contains(&known) => {
                    self.server.data_ciphers.push(known)
                }
                Some(_) => {}
            }
        } else if known.is_none_or(|known| !self.server.data_ciphers.contains(&known)) {
            self.note_cipher(
                &name,
                line,
                "is not negotiated: `data-ciphers` counts, and it is not among them",
            );
        }
        if version < [2, 4, 0] && self.server.fallback_cipher.is_none() {
            self.server.fallback_cipher = known;
        }
    }

    fn note_cipher(&mut self, name: &str, line: u32, predicate: &str) {
        self.note(Level::Info, line, format!("`cipher {}` {predicate}", shown(name)));
    }
}
