//! The files that `ca`, `cert`, `key` and `crl-verify` name, or the blocks in their place.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustls::pki_types::pem::{self, PemObject};

use crate::config::{
    error::{Error, Place},
    lexer::MAX_BYTES,
    server::{Server, Source},
};

/// What a file should hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pem {
    Certificate,
    Key,
    Crl,
}

impl Pem {
    fn what(self) -> (&'static str, &'static str) {
        match self {
            Self::Certificate => ("certificate", "BEGIN CERTIFICATE"),
            Self::Key => ("private key", "BEGIN PRIVATE KEY"),
            Self::Crl => ("revocation list", "BEGIN X509 CRL"),
        }
    }
}

/// A file's or block's contents, and how to speak of it.
#[derive(Debug)]
pub(in crate::config) struct Material<'a> {
    server: &'a Server,
    line: u32,
    what: String,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Material<'a> {
    /// Reads what directive `name` stands for.
    pub(in crate::config) fn read(server: &'a Server, source: &'a Source, name: &str) -> Result<Self, Error> {
        match source {
            Source::Inline { text, line } => Ok(Self {
                server,
                line: *line,
                what: format!("the block <{name}>"),
                bytes: Cow::Borrowed(text.as_bytes()),
            }),
            Source::File { path, line } => {
                let found = resolve(server, path);
                let bytes = read_bounded(&found)
                    .map_err(|error| unreadable(server, *line, name, path, &found, &error))?;
                let what = format!("`{name}` {}", found.display());
                Ok(Self { server, line: *line, what, bytes: Cow::Owned(bytes) })
            }
        }
    }

    /// What it holds.
    pub(in crate::config) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The directive's place.
    pub(super) fn place(&self) -> Place {
        Place::line(&self.server.file, self.line)
    }

    /// The directive and its file.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// What is wrong with it: `predicate` follows its name.
    pub(in crate::config) fn error(&self, predicate: impl AsRef<str>, cure: impl Into<String>) -> Error {
        Error::at(self.place(), format!("{} {}", self.what, predicate.as_ref()), cure)
    }

    /// True for either form of an encrypted PEM key.
    pub(super) fn holds_encrypted_key(&self) -> bool {
        let text = String::from_utf8_lossy(&self.bytes);
        text.lines().any(|line| {
            line.contains("BEGIN ENCRYPTED PRIVATE KEY") || line.starts_with("Proc-Type: 4,ENCRYPTED")
        })
    }

    /// All PEM sections of one kind, at least one.
    pub(super) fn sections<T: PemObject>(&self, kind: Pem) -> Result<Vec<T>, Error> {
        let (what, begin) = kind.what();
        let sections: Vec<T> =
            T::pem_slice_iter(&self.bytes).collect::<Result<_, pem::Error>>().map_err(|error| {
                self.error(
                    format!("is damaged: {error:?}"),
                    format!("copy the {what} again, from the line `-----{begin}-----` to its end"),
                )
            })?;
        if sections.is_empty() {
            return Err(self.error(
                format!("holds no {what} in PEM form"),
                format!("name a file with a line `-----{begin}-----`; for DER: `openssl x509 -inform DER`"),
            ));
        }
        Ok(sections)
    }
}

fn unreadable(server: &Server, line: u32, name: &str, path: &Path, found: &Path, error: &io::Error) -> Error {
    let cure = match error.kind() {
        io::ErrorKind::NotFound if path.is_relative() => format!(
            "put it into the current directory or beside {}, or write its whole path",
            server.file.display()
        ),
        io::ErrorKind::PermissionDenied => "start the gateway as root".to_owned(),
        _ => "correct the path".to_owned(),
    };
    Error::at(
        Place::line(&server.file, line),
        format!("`{name}` {} cannot be read: {}", found.display(), reason(error)),
        cure,
    )
}

/// An error's words without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    let words = error.to_string();
    match words.find(" (os error ") {
        Some(end) => words.get(..end).unwrap_or(&words).to_owned(),
        None => words,
    }
}

/// Where a path of the configuration leads: a relative one to the current directory (or that of `cd`) as upstream
/// has it; where nothing stands there, beside the configuration.
pub fn resolve(server: &Server, path: &Path) -> PathBuf {
    let first = match &server.directory {
        Some(directory) => directory.join(path),
        None => path.to_owned(),
    };
    if first.is_absolute() && server.directory.is_none() || first.exists() {
        return first;
    }
    let beside = server.file.parent().map(|directory| directory.join(path));
    beside.filter(|beside| beside.exists()).unwrap_or(first)
}

/// Reads a file of at most 1 MiB: no configuration or certificate is longer, and `/dev/zero` is.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}
