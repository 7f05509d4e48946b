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
///
/// # Errors
/// The log file cannot be opened, or TRESTLE_LOG is not a filter.
pub fn start(server: &Server) -> Result<(), Error> {
    let filter = EnvFilter::builder()
        .with_default_directive(level(server.verb).into())
        .with_env_var("TRESTLE_LOG")
        .from_env()
        .map_err(|error| Error::new(format!("TRESTLE_LOG is not understood: {error}; unset it")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let started = match &server.log {
        Some(file) => log.with_ansi(false).with_writer(Mutex::new(open(server, file)?)).try_init(),
        None => log.with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).try_init(),
    };
    // A log that runs already (tests) goes on.
    drop(started);
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
                "the log {} cannot be opened: {}; make its directory, or take `log` out of {}",
                path.display(),
                tls::reason(&error),
                server.file.display()
            ))
        },
    )
}
