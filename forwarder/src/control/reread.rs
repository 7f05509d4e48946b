//! The server's file read again while the gateway runs: certificates and revocations change under connected peers.

use std::sync::Arc;

use serde_json::{Value, json};

use super::gateway::Gateway;
use crate::config::{self, Server};

/// What can be read again: the servers' files as they were at the start.
#[derive(Debug)]
pub(super) struct Reread(Vec<Server>);

impl Reread {
    /// Of a gateway with these settings.
    pub fn of(config: &config::Config) -> Self {
        let is_server = matches!(config.role, config::Role::Server { .. });
        Self(config.servers().filter(|_| is_server).cloned().collect())
    }

    /// Certificates as they are now, if nothing else has changed.
    fn tls(&self) -> Option<Result<Vec<Arc<rustls::ServerConfig>>, String>> {
        (!self.0.is_empty()).then(|| self.0.iter().map(read).collect())
    }
}

fn read(running: &Server) -> Result<Arc<rustls::ServerConfig>, String> {
    let found = config::read(&running.file).map_err(|error| error.to_string())?;
    if found != *running {
        return Err(format!(
            "{} says something else than at the start, and only certificates and revocations can change while peers are \
             connected; restart the gateway",
            running.file.display()
        ));
    }
    let now = i64::try_from(config::protocol::unix_s()).unwrap_or(i64::MAX);
    let loaded = config::tls::load(&found, now).map_err(|error| error.to_string())?;
    loaded.notes.iter().for_each(|note| tracing::info!("{note}"));
    Ok(loaded.tls)
}

impl Gateway {
    /// Carries out what has changed, or nothing; `None` without a server's file. The answer is also in the log.
    pub fn reread(&mut self) -> Option<Value> {
        Some(match self.reread.tls()? {
            Ok(tls) => {
                self.role.set_tls(&tls);
                tracing::info!(
                    "certificates and revocations read again: they count from the next handshake of each peer"
                );
                json!({ "reload": { "certificates": "applied live" } })
            }
            Err(error) => {
                tracing::error!("nothing was changed: {error}");
                json!({ "error": error })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_says_something_else_or_nothing_is_refused() {
        let path = std::env::temp_dir().join(format!("trestle-reread-{}", std::process::id()));
        let text = "mode server\ndev tap\nca a\ncert b\nkey c\n";
        let running = config::parse(text.as_bytes(), &path).unwrap();
        std::fs::write(&path, format!("{text}max-clients 5\n")).unwrap();
        assert!(read(&running).unwrap_err().contains("restart the gateway"));
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(read(&running).unwrap_err().contains(":1: `nonsense`"));
        std::fs::remove_file(&path).unwrap();
        assert!(read(&running).unwrap_err().contains("cannot be read"));
        let accelerator = Reread(Vec::new());
        assert!(accelerator.tls().is_none());
    }
}
