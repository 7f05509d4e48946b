//! What names single clients: `client-config-dir`, `ccd-exclusive`, `ifconfig-pool-persist`.

use std::time::Duration;

use super::{
    apply::Done,
    error::{Error, Level, Place},
    server::{ClientFiles, Draft, PoolFile},
    words::Directive,
};

/// How often the pool's file is written, in seconds, without the second word. Source: options.c.
const POOL_FILE_SECONDS: u32 = 600;

pub(super) fn client_config_dir(d: Directive<'_>) -> Done {
    let files = ClientFiles { directory: d.path()?, exclusive: false };
    d.draft.server.client_files = Some(files);
    Ok(())
}

pub(super) fn ccd_exclusive(d: Directive<'_>) -> Done {
    d.draft.ccd_exclusive = Some(d.line.number);
    Ok(())
}

/// `ifconfig-pool-persist FILE [SECONDS]`; 0: only read, and nobody else gets these addresses.
pub(super) fn pool_persist(d: Directive<'_>) -> Done {
    let seconds = d.number_or(1, 0..=86_400_u32, POOL_FILE_SECONDS)?;
    let interval = Some(Duration::from_secs(seconds.into())).filter(|interval| !interval.is_zero());
    d.draft.server.pool_file = Some(PoolFile { path: d.path()?, interval });
    d.draft.pool_file_line = d.line.number;
    Ok(())
}

impl Draft {
    pub(super) fn apply_per_client(&mut self) -> Result<(), Error> {
        if let Some(line) = self.ccd_exclusive {
            let files = self.server.client_files.as_mut().ok_or_else(|| {
                Error::at(
                    Place::line(&self.server.file, line),
                    "`ccd-exclusive` stands without `client-config-dir`",
                    "name the directory with the clients' files",
                )
            })?;
            files.exclusive = true;
        }
        if self.server.pool_file.is_some() {
            self.note_idle_pool_file();
        }
        Ok(())
    }

    fn note_idle_pool_file(&mut self) {
        let because = if self.server.pool.is_none() {
            "no addresses are leased"
        } else if self.server.duplicate_cn {
            "with `duplicate-cn` a name is no identity"
        } else {
            return;
        };
        let text = format!("`ifconfig-pool-persist` has no effect: {because}");
        self.note(Level::Warning, self.pool_file_line, text);
        self.server.pool_file = None;
    }
}
