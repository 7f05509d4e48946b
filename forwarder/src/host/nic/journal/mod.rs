//! What was changed on NICs, written down before it is changed: a gateway that is killed cannot put it back, the next
//! one does.
//!
//! ```text
//!   /run/trestle/settings        its lock: held while what the dead left is put back, and a new file is made
//!     4242.123456                a gateway's file: its lock says that the gateway lives
//! ```
//!
//! Locks (flock) and not process ids, because the kernel lets go of them whatever ends the process, they are not used
//! again by another, and they mean the same in every container that shares the folder. The file is opened before
//! privileges are given up, and written through its descriptor ever after.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::libc;
use tracing::warn;

use super::super::{Error, Result};

/// What a file holds.
pub mod record;
mod recover;

pub use record::{Change, Namespace, Owner};
pub use recover::{Fate, Left, left, recover};

use record::{Record, SLOT, SLOTS, blank};

/// Where journals are. It is on a file system that a reboot empties, as a reboot resets the settings.
pub const FOLDER: &str = "/run/trestle/settings";
/// While another gateway puts back what a dead one left, one waits: ten seconds, as some NICs take seconds for a
/// setting. Longer, and a start hangs where something is broken; shorter, and it prepares what the other then undoes.
const ATTEMPTS: u32 = 200;
const INTERVAL: Duration = Duration::from_millis(50);

/// This process's journal, once it is opened.
static OWN: OnceLock<Journal> = OnceLock::new();

/// A gateway's file.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Which slots are taken.
    slots: Mutex<Vec<bool>>,
}

/// A change written down. Dropped without [`Entry::strike`] it stays: whatever it tells of was not put back.
#[derive(Debug, Default)]
#[must_use = "strike it when the change is put back"]
pub struct Entry(Option<usize>);

/// Opens this process's journal in [`FOLDER`], once, before anything is changed and before privileges are given up;
/// puts back first what dead gateways left. Without a journal all works but that.
pub fn begin() {
    if OWN.get().is_some() {
        return;
    }
    match Journal::open(Path::new(FOLDER)) {
        Ok((journal, left)) => {
            left.iter().for_each(Left::log);
            // Set by nobody else: this is the process's only thread.
            let _ = OWN.set(journal);
        }
        Err(error) => warn!("{error}; after a kill -9 the NIC's settings will stay changed"),
    }
}

/// Writes down a change about to be made, in this process's journal if there is one.
pub fn enter(change: Change) -> Entry {
    Entry(OWN.get().and_then(|journal| journal.enter(change)))
}

impl Entry {
    /// The change is put back, or was never made.
    pub fn strike(self) {
        if let (Some(journal), Some(slot)) = (OWN.get(), self.0) {
            journal.strike(slot);
        }
    }
}

impl Journal {
    /// Puts back what dead gateways left in `folder` and opens a file there.
    ///
    /// # Errors
    /// The folder or the file cannot be made.
    pub fn open(folder: &Path) -> Result<(Self, Vec<Left>)> {
        let failed = |error| Error::os(format!("keep a journal in {}", folder.display()))(error);
        let lock = lock_folder(folder).map_err(failed)?;
        let left = recover::recover_locked(folder);
        let journal = Self::create(folder).map_err(failed)?;
        drop(lock);
        Ok((journal, left))
    }

    fn create(folder: &Path) -> io::Result<Self> {
        let owner = Owner { pid: std::process::id(), started: started().unwrap_or(0) };
        let (file, path) = new_file(folder, owner)?;
        file.try_lock().map_err(io::Error::from)?;
        let journal = Self { file, path, slots: Mutex::new(vec![true]) };
        journal.write(0, &Record::Owner(owner))?;
        Ok(journal)
    }

    fn enter(&self, change: Change) -> Option<usize> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.iter().position(|taken| !taken).unwrap_or(slots.len());
        if slot >= SLOTS {
            warn!("the journal of settings is full: {} of {} is not in it", change.feature, change.name);
            return None;
        }
        if let Err(error) = self.write(slot, &Record::Change(change)) {
            warn!("the journal of settings is not written ({error}): see to the room on /run");
            return None;
        }
        match slots.get_mut(slot) {
            Some(taken) => *taken = true,
            None => slots.push(true),
        }
        Some(slot)
    }

    fn strike(&self, slot: usize) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match write_slot(&self.file, slot, &blank()) {
            Ok(()) => slots.get_mut(slot).into_iter().for_each(|taken| *taken = false),
            Err(error) => warn!("the journal of settings is not written ({error})"),
        }
    }

    fn write(&self, slot: usize, record: &Record) -> io::Result<()> {
        let bytes = record.to_slot().ok_or(io::ErrorKind::InvalidInput)?;
        write_slot(&self.file, slot, &bytes)
    }
}

/// At the end of the process: a file in which nothing stands is removed. (After privileges were given up to another
/// user it stays, empty, until the next start.)
pub fn end() {
    let Some(journal) = OWN.get() else { return };
    let slots = journal.slots.lock().unwrap_or_else(PoisonError::into_inner);
    if slots.iter().skip(1).any(|taken| *taken) {
        return;
    }
    if fs::remove_file(&journal.path).is_err() {
        let _ = journal.file.set_len(0);
    }
}

fn write_slot(file: &File, slot: usize, bytes: &[u8; SLOT]) -> io::Result<()> {
    let offset = u64::try_from(slot * SLOT).map_err(|_| io::ErrorKind::InvalidInput)?;
    file.write_all_at(bytes, offset)
}

/// Makes the folder, for root's eyes only, and takes its lock.
fn lock_folder(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let lock =
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(folder)?;
    for _ in 0..ATTEMPTS {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(INTERVAL),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => return Ok(lock),
        }
    }
    warn!("{} is locked by another gateway for ten seconds: going on without", folder.display());
    Ok(lock)
}

fn new_file(folder: &Path, owner: Owner) -> io::Result<(File, PathBuf)> {
    let Owner { pid, started } = owner;
    // In containers that share the folder two may have the same number and moment.
    for number in 0..16 {
        let path = folder.join(format!("{pid}.{started}.{number}"));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (file, path)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// When this process started, in clock ticks since boot.
fn started() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests;
