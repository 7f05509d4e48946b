//! When `ifconfig-pool-persist`'s file is read and written.

use std::time::{Duration, Instant};

use openvpn::server::{Former, Server};

use crate::{
    config,
    management::pool_file::{self, PoolFile},
};

/// A file that is written now and then.
#[derive(Debug)]
pub(super) struct PoolSchedule {
    file: PoolFile,
    interval: Duration,
    due: Instant,
}

/// What the file says, and, unless it is only read, the file; to be called before privileges are dropped. A file that
/// cannot be had is no reason not to start: clients get other addresses then.
pub(super) fn open(server: &config::Server, now: Instant) -> (Former, Option<PoolSchedule>) {
    let Some(named) = &server.pool_file else { return (Former::default(), None) };
    let path = config::tls::resolve(server, &named.path);
    let found = match named.interval {
        None => pool_file::read_only(&path).map(|holders| (Former { holders, fixed: true }, None)),
        Some(interval) => PoolFile::open(&path).and_then(|mut file| {
            let holders = file.read()?;
            let schedule = PoolSchedule { file, interval, due: now + interval };
            Ok((Former { holders, fixed: false }, Some(schedule)))
        }),
    };
    found.unwrap_or_else(|error| {
        tracing::warn!(
            path = %path.display(), %error,
            "`ifconfig-pool-persist` cannot be used, and clients may get other addresses than before: make its directory"
        );
        (Former::default(), None)
    })
}

impl PoolSchedule {
    /// Writes the file if it is time.
    pub fn keep(&mut self, server: &Server, now: Instant) {
        if self.due <= now {
            self.due = now + self.interval;
            self.write(server);
        }
    }

    /// Writes the file.
    pub fn write(&mut self, server: &Server) {
        if let Err(error) = self.file.write(server.holders()) {
            tracing::warn!(%error, "`ifconfig-pool-persist` was not written");
        }
    }
}
