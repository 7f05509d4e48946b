//! `compress`, `comp-lzo` and `allow-compression`. Source: options.c, brief A.11.
//!
//! What the file sets and what it pushes are one thing here: the framing that each client is offered, if it announces it.

use openvpn::server::{AllowCompression, Compress};

use super::{
    apply::Done,
    error::{Error, Level, Place},
    words::{Directive, shown},
};

/// What of compression is checked at the file's end.
#[derive(Debug, Default)]
pub(super) struct Compressing {
    /// The line that sets an algorithm that compresses.
    set_at: Option<u32>,
    /// `allow-compression` stood.
    allowed: Option<AllowCompression>,
}

pub(super) fn compress(d: Directive<'_>) -> Done {
    set(d, compress_of)
}

pub(super) fn comp_lzo(d: Directive<'_>) -> Done {
    set(d, comp_lzo_of)
}

/// What a line sets for this end: the same as if it were pushed, but that `allow-compression no` contradicts it.
fn set(d: Directive<'_>, of: fn(&Directive<'_>, Option<&str>) -> Result<Compress, Error>) -> Done {
    let compress = of(&d, d.optional(0))?;
    d.draft.server.compress = compress;
    d.draft.compressing.set_at = compresses(compress).then_some(d.line.number);
    Ok(())
}

/// `push "compress ..."` and `push "comp-lzo ..."`.
pub(super) fn pushed(d: &mut Directive<'_>, name: &str, algorithm: Option<&str>) -> Done {
    let of = if name == "compress" { compress_of } else { comp_lzo_of };
    d.draft.server.compress = of(d, algorithm)?;
    Ok(())
}

pub(super) fn allow_compression(d: Directive<'_>) -> Done {
    let allowed = match d.word(0)? {
        "no" => AllowCompression::No,
        "asym" => AllowCompression::Asym,
        "yes" => AllowCompression::Yes,
        _ => return Err(d.not_among(0, "`no`, `asym` or `yes`")),
    };
    if d.draft.compressing.allowed == Some(AllowCompression::No) && allowed != AllowCompression::No {
        return Err(d.error("an earlier line says `allow-compression no`", "keep one of them"));
    }
    if allowed == AllowCompression::Yes {
        let text = "compressed together, what an attacker chooses tells of what is secret by the packets' lengths \
                    (VORACLE): take `allow-compression yes` out unless the clients' line is very slow";
        d.draft.note(Level::Warning, d.line.number, text);
    }
    d.draft.compressing.allowed = Some(allowed);
    d.draft.server.allow_compression = allowed;
    Ok(())
}

impl Compressing {
    /// Source: comp.c `check_compression_settings_valid`.
    pub(super) fn check(&self, place: impl Fn(u32) -> Place) -> Done {
        match (self.allowed, self.set_at) {
            (Some(AllowCompression::No), Some(line)) => Err(Error::at(
                place(line),
                "this compresses, and `allow-compression no` forbids it",
                "write `compress stub-v2`, or take one of the two lines out",
            )),
            _ => Ok(()),
        }
    }
}

fn compresses(compress: Compress) -> bool {
    matches!(compress, Compress::Lz4V2 | Compress::Lz4 | Compress::Lzo)
}

fn compress_of(d: &Directive<'_>, algorithm: Option<&str>) -> Result<Compress, Error> {
    match algorithm {
        None | Some("stub") => Ok(Compress::Stub),
        Some("stub-v2") => Ok(Compress::StubV2),
        Some("lz4") => Ok(Compress::Lz4),
        Some("lz4-v2") => Ok(Compress::Lz4V2),
        Some("lzo") => Ok(Compress::Lzo),
        // Clients are led away from compression anyway.
        Some("migrate") => Ok(Compress::Off),
        Some("snappy") => Err(d.error("OpenVPN itself has given snappy up", "take the line out")),
        Some(other) => Err(d.error(
            format!("`{}` is not a compression OpenVPN has", shown(other)),
            "take the line out, or write `compress migrate`",
        )),
    }
}

fn comp_lzo_of(d: &Directive<'_>, mode: Option<&str>) -> Result<Compress, Error> {
    match mode {
        Some("no") => Ok(Compress::LzoNo),
        None | Some("yes" | "adaptive") => Ok(Compress::Lzo),
        Some(other) => Err(d.error(
            format!("`comp-lzo` does not take `{}`", shown(other)),
            "write `comp-lzo no`, or take the line out",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{parsed, refused},
        *,
    };

    #[test]
    fn every_form_is_read_set_or_pushed() {
        for (line, expected) in [
            ("compress", Compress::Stub),
            ("compress stub", Compress::Stub),
            ("compress stub-v2", Compress::StubV2),
            ("compress lz4", Compress::Lz4),
            ("compress lz4-v2", Compress::Lz4V2),
            ("compress lzo", Compress::Lzo),
            ("compress migrate", Compress::Off),
            ("comp-lzo", Compress::Lzo),
            ("comp-lzo yes", Compress::Lzo),
            ("comp-lzo adaptive", Compress::Lzo),
            ("comp-lzo no", Compress::LzoNo),
        ] {
            assert_eq!(parsed(&format!("{line}\n")).compress, expected, "{line}");
            let server = parsed(&format!("push \"{line}\"\n"));
            assert_eq!((server.compress, server.push.len()), (expected, 0), "{line}");
        }
        assert!(refused("compress zip").contains("not a compression"));
        assert!(refused("push \"compress snappy\"").contains("given snappy up"));
        assert!(refused("comp-lzo maybe").contains("does not take `maybe`"));
    }

    #[test]
    fn what_compresses_contradicts_allow_compression_no() {
        assert!(refused("allow-compression no\ncompress lz4-v2").contains("forbids it"));
        assert!(refused("comp-lzo\nallow-compression no").contains("forbids it"));
        assert!(refused("allow-compression no\nallow-compression asym").contains("earlier line"));
        let server = parsed("allow-compression no\ncompress stub-v2\n");
        assert_eq!(server.allow_compression, AllowCompression::No);
        let server = parsed("allow-compression no\npush \"compress lz4-v2\"\n");
        assert_eq!(server.compress, Compress::Lz4V2, "offered as stub-v2");
    }

    #[test]
    fn compressing_is_allowed_with_a_warning() {
        let server = parsed("compress lz4-v2\nallow-compression yes\n");
        assert_eq!(server.allow_compression, AllowCompression::Yes);
        assert!(
            server.notes.iter().any(|note| note.level == Level::Warning && note.text.contains("VORACLE"))
        );
        assert_eq!(parsed("").allow_compression, AllowCompression::Asym);
    }
}
