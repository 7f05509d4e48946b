//! What is wrong with a configuration, said in one line: `file:line: sentence; cure`.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Where something stands: a file, and the line where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as the operator named it.
    pub file: PathBuf,
    /// Line, counted from 1; `None` when the whole file is meant.
    pub line: Option<u32>,
}

impl Place {
    /// A line of a file.
    pub fn line(file: &Path, line: u32) -> Self {
        Self { file: file.to_owned(), line: Some(line) }
    }

    /// A file as a whole.
    pub fn file(file: &Path) -> Self {
        Self { file: file.to_owned(), line: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file.display()),
            None => write!(f, "{}", self.file.display()),
        }
    }
}

/// Why a configuration cannot be used: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{sentence}; {cure}", place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default())]
pub struct Error {
    /// Where it stands; `None` for the command line.
    pub place: Option<Place>,
    /// What is wrong.
    pub sentence: String,
    /// What to do about it.
    pub cure: String,
}

impl Error {
    /// Something wrong at `place`.
    pub fn at(place: Place, sentence: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { place: Some(place), sentence: sentence.into(), cure: cure.into() }
    }

    /// Something wrong that stands in no file.
    pub fn new(sentence: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { place: None, sentence: sentence.into(), cure: cure.into() }
    }
}

/// Something the operator should read although the gateway starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How much it matters.
    pub level: Level,
    /// Where it stands.
    pub place: Place,
    /// What, in a sentence.
    pub text: String,
}

/// How much a [`Note`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The line has no effect here, and needs none.
    Info,
    /// The gateway does something else than the line says.
    Warning,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}
