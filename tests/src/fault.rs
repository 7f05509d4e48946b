use std::path::Path;
use std::time::Duration;

/// What a harness function gives back.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// Why the harness could not do what a scenario asked: says nothing yet about the gateway.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A command ended with an error, or could not be started.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it wrote, or why it did not start.
        output: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {waited:?}\n{evidence}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        waited: Duration,
        /// The end of the log that should have shown it.
        evidence: String,
    },
    /// A file or socket could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Fault {
    /// An input or output error while doing `what`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// A system call error while doing `what`.
    pub fn os(what: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let what = what.into();
        move |errno| Self::Io { what, source: errno.into() }
    }

    /// A plain sentence.
    pub fn other(sentence: impl Into<String>) -> Self {
        Self::Other(sentence.into())
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.to_string()
    }
}

/// Writes `contents` to `path`, or says which file could not be written.
pub fn write_file(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, contents).map_err(Fault::io(format!("writing {}", path.display())))
}
