//! `tls-version-min` and `tls-version-max`: which versions of TLS are spoken. There are 1.2 and 1.3.

use openvpn::tls::Versions;

use super::{
    apply::Done,
    error::{Error, Level},
    words::Directive,
};

/// A version that a directive can name, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// What the file says of versions so far.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    least: Option<Version>,
    most: Option<Version>,
}

/// `tls-version-min VERSION [or-highest]`: with the word, a version not known stands for the highest there is.
/// Source: options.c, ssl.c `tls_version_parse`.
pub(super) fn min(d: Directive<'_>) -> Done {
    let or_highest = match d.optional(1) {
        None => false,
        Some("or-highest") => true,
        Some(_) => return Err(d.not_among(1, "`or-highest` or nothing behind the version")),
    };
    let known = version(d.word(0)?).or(or_highest.then_some(Version::Tls13));
    let least = known.ok_or_else(|| d.not_among(0, "`tls-version-min 1.2` or `1.3`"))?;
    if is_old(d.word(0)?) {
        let text = "TLS before 1.2 is not spoken: the lowest version is 1.2";
        d.draft.note(Level::Info, d.line.number, text);
    }
    d.draft.tls_bounds.least = Some(least);
    agree(d)
}

/// `tls-version-max VERSION`.
pub(super) fn max(d: Directive<'_>) -> Done {
    let most = version(d.word(0)?).ok_or_else(|| d.not_among(0, "`tls-version-max 1.2` or `1.3`"))?;
    if is_old(d.word(0)?) {
        let text = "TLS before 1.2 is not spoken: the highest version is 1.2";
        d.draft.note(Level::Warning, d.line.number, text);
    }
    d.draft.tls_bounds.most = Some(most);
    agree(d)
}

fn version(word: &str) -> Option<Version> {
    match word {
        "1.3" => Some(Version::Tls13),
        "1.2" => Some(Version::Tls12),
        old if is_old(old) => Some(Version::Tls12),
        _ => None,
    }
}

fn is_old(word: &str) -> bool {
    matches!(word, "1.0" | "1.1")
}

/// Both bounds together.
fn agree(d: Directive<'_>) -> Done {
    let (least, most) = (d.draft.tls_bounds.least, d.draft.tls_bounds.most);
    d.draft.server.tls_versions = between(least, most).ok_or_else(|| nothing_left(&d))?;
    Ok(())
}

fn between(least: Option<Version>, most: Option<Version>) -> Option<Versions> {
    match (least.unwrap_or(Version::Tls12), most.unwrap_or(Version::Tls13)) {
        (Version::Tls12, Version::Tls13) => Some(Versions::All),
        (Version::Tls12, Version::Tls12) => Some(Versions::Only12),
        (Version::Tls13, Version::Tls13) => Some(Versions::Only13),
        (Version::Tls13, Version::Tls12) => None,
    }
}

fn nothing_left(d: &Directive<'_>) -> Error {
    d.error(
        "`tls-version-min` is above `tls-version-max`: no version is left",
        "take one of the two lines out",
    )
}
