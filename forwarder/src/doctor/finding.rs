//! What the doctor says.

use serde::Serialize;

use crate::host::links::Link;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing need be done.
    Note,
    /// It runs, but slower or otherwise than perhaps meant.
    Warning,
    /// It does not run.
    Fault,
}

impl Level {
    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// One thing looked at. The names are the keys of `trestle doctor -j`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The interface, or "host".
    pub about: String,
    /// What was looked at: one word, the same in every version.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub sentence: String,
    /// A command, or what else to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
    /// What `--fix` did about it, or why it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    /// What `--fix` can do about it.
    #[serde(skip)]
    pub mend: Option<Mend>,
}

/// What can be changed without harm: nobody loses a connection by it, and it is what the cure says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    /// Puts back what dead gateways have left.
    Journal,
    /// Sets an interface up.
    Up(Link),
    /// Gives an interface that the host is not reached by another MTU.
    Mtu(Link, u32),
    /// Sets a bridge's hardware address to the one it has, so that it keeps it.
    KeepAddress(Link),
    /// Writes a number to a file below `/proc/sys`.
    Setting(&'static str, u64),
}

/// What stands against a start on an interface leaves a bridge's port to the kernel, and the others start.
pub fn of_port(finding: Finding) -> Finding {
    Finding { level: finding.level.min(Level::Warning), ..finding }
}

impl Finding {
    /// Something found.
    pub fn new(about: &str, check: &'static str, level: Level, sentence: impl Into<String>) -> Self {
        let (about, sentence) = (about.to_owned(), sentence.into());
        Self { about, check, level, sentence, cure: None, fixed: None, mend: None }
    }

    /// With what to do.
    pub fn cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }

    /// With what `--fix` can do.
    pub fn mend(self, mend: Mend) -> Self {
        Self { mend: Some(mend), ..self }
    }
}
