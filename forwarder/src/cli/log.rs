//! The log: to stderr, or to the file that `log` or `log-append` names.

use std::{
    fs::{File, OpenOptions},
    io::IsTerminal,
    sync::Mutex,
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::Error;
use crate::config::{LogFile, Server, tls};

/// Starts logging as `server` wants it. TRESTLE_LOG, in the form of tracing's filters, has the last word on levels.
/// A log file that cannot be opened is no reason to stay down: as upstream, a line says so and stderr takes its place.
///
/// # Errors
/// TRESTLE_LOG is not a filter.
pub fn start(server: &Server) -> Result<(), Error> {
    let filter = EnvFilter::builder()
        .with_default_directive(level(server.verb).into())
        .with_env_var("TRESTLE_LOG")
        .from_env()
        .map_err(|error| Error::new(format!("TRESTLE_LOG is not understood: {error}; unset it")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let opened = server.log.as_ref().map(|file| open(server, file)).transpose();
    let started = match &opened {
        Ok(Some(file)) => {
            let file =
                file.try_clone().map_err(|error| Error::new(format!("the log fails: {error}; try again")))?;
            log.with_ansi(false).with_writer(Mutex::new(file)).try_init()
        }
        Ok(None) | Err(_) => {
            log.with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).try_init()
        }
    };
    // A log that runs already (tests) goes on.
    drop(started);
    if let Err(error) = opened {
        tracing::warn!("{error}");
    }
    Ok(())
}

/// `verb` as a level: 3 is upstream's ordinary log, packets one by one are never above `trace`.
fn level(verb: u8) -> LevelFilter {
    match verb {
        0 => LevelFilter::ERROR,
        1..=3 => LevelFilter::INFO,
        4..=5 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

fn open(server: &Server, log: &LogFile) -> Result<File, Error> {
    let path = tls::resolve(server, &log.path);
    OpenOptions::new().create(true).append(log.append).write(true).truncate(!log.append).open(&path).map_err(
        |error| {
            Error::new(format!(
                "the log {} cannot be opened: {}; stderr takes its place until its directory is made, or `log` taken out of {}",
                path.display(),
                tls::reason(&error),
                server.file.display()
            ))
        },
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn server(log: &str) -> Server {
        let text = format!("mode server\ndev tap\nca a\ncert b\nkey c\n{log}\n");
        parse(text.as_bytes(), Path::new("s.conf")).unwrap()
    }

    fn opened(server: &Server) -> Result<File, Error> {
        open(server, server.log.as_ref().unwrap())
    }

    #[test]
    fn log_empties_its_file_and_log_append_does_not() {
        let path = std::env::temp_dir().join(format!("trestle-log-{}", std::process::id()));
        std::fs::write(&path, "before").unwrap();
        opened(&server(&format!("log-append {}", path.display()))).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        opened(&server(&format!("log {}", path.display()))).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_log_without_its_directory_says_what_happens_instead() {
        assert_eq!(
            opened(&server("log /nonexistent/x.log")).unwrap_err().to_string(),
            "the log /nonexistent/x.log cannot be opened: No such file or directory; \
             stderr takes its place until its directory is made, or `log` taken out of s.conf"
        );
    }

    #[test]
    fn verb_3_is_an_ordinary_log() {
        assert_eq!(
            [0, 3, 4, 11].map(level),
            [LevelFilter::ERROR, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE]
        );
    }
}
