//! Putting back what dead gateways left.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use tracing::{info, warn};

use super::super::super::links::{self, Link};
use super::super::super::netlink::Requests;
use super::super::super::{Error, Result};
use super::super::ethtool::Ethtool;
use super::super::namespaces::{self, Sought};
use super::record::{Contents, SLOT, SLOTS, blank};
use super::{Change, Owner, lock_folder, write_slot};

/// Most files looked at: one a gateway that died and could not be put back, or that lives.
const FILES: usize = 1024;

/// What a dead gateway left, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The change.
    pub change: Change,
    /// Who made it, if that can be read.
    pub owner: Option<Owner>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a change that a dead gateway left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was put back.
    Restored,
    /// It is no longer as the gateway left it: somebody else has changed it since, and it is his.
    NotOurs,
    /// The interface or its namespace is gone, and the setting with it.
    Gone,
    /// It stands as it was left: nobody has tried yet, or it could not be put back; the sentence says why.
    Standing(Option<String>),
}

impl Left {
    /// Tells the operator.
    pub fn log(&self) {
        match &self.fate {
            Fate::Standing(_) => warn!("{self}"),
            Fate::Restored | Fate::NotOurs | Fate::Gone => info!("{self}"),
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { name, feature, was, set, .. } = &self.change;
        let word = |on: bool| if on { "on" } else { "off" };
        write!(f, "{feature} of {name} was turned {} by a gateway that was killed", word(*set))?;
        match &self.fate {
            Fate::Restored => write!(f, ": it is {} again", word(*was)),
            Fate::NotOurs => write!(f, ", and changed since by somebody else: it stays as it is"),
            Fate::Gone => write!(f, ": the interface is gone"),
            Fate::Standing(None) => write!(f, ": the next start turns it {}", word(*was)),
            Fate::Standing(Some(why)) => {
                write!(
                    f,
                    " and cannot be turned {} ({why}): `ethtool -K {name} {feature} {}`",
                    word(*was),
                    word(*was)
                )
            }
        }
    }
}

/// What dead gateways left in `folder`; nothing is changed. Empty where there is no such folder.
///
/// # Errors
/// The folder cannot be read, for want of privileges most often.
pub fn left(folder: &Path) -> Result<Vec<Left>> {
    let failed = |error| Error::os(format!("read the journal in {}", folder.display()))(error);
    if !folder.try_exists().map_err(failed)? {
        return Ok(Vec::new());
    }
    // Looking takes the locks for a moment: without this one a start would think the dead alive.
    let _lock = lock_folder(folder).map_err(failed)?;
    let found = dead(folder).map_err(failed)?;
    let of = |dead: Dead| {
        let owner = dead.contents.owner;
        let fate = Fate::Standing(None);
        dead.contents.changes.into_iter().map(move |(_, change)| Left { change, owner, fate: fate.clone() })
    };
    Ok(found.into_iter().flat_map(of).collect())
}

/// Puts back what dead gateways left in `folder`. What cannot be put back stays in its file. Interfaces in other
/// network namespaces need CAP_SYS_ADMIN, and the process to have one thread.
///
/// # Errors
/// The folder cannot be read or locked.
pub fn recover(folder: &Path) -> Result<Vec<Left>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let _lock =
        lock_folder(folder).map_err(Error::os(format!("lock the journal in {}", folder.display())))?;
    Ok(recover_locked(folder))
}

/// The same, with the folder's lock held.
pub(super) fn recover_locked(folder: &Path) -> Vec<Left> {
    let found = dead(folder).unwrap_or_else(|error| {
        warn!("the journal in {} cannot be read ({error})", folder.display());
        Vec::new()
    });
    found.into_iter().flat_map(Dead::recover).collect()
}

/// A file whose gateway is dead; its lock is ours.
struct Dead {
    file: File,
    path: PathBuf,
    contents: Contents,
}

fn dead(folder: &Path) -> io::Result<Vec<Dead>> {
    let entries = fs::read_dir(folder)?.take(FILES);
    Ok(entries.filter_map(|entry| Dead::open(entry.ok()?.path()).ok()?).collect())
}

impl Dead {
    /// `None`: its gateway lives, or it is no file.
    fn open(path: PathBuf) -> io::Result<Option<Self>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path)?;
        if !file.metadata()?.is_file() || file.try_lock().is_err() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let most = u64::try_from(SLOT * SLOTS).unwrap_or(u64::MAX);
        (&mut file).take(most).read_to_end(&mut bytes)?;
        Ok(Some(Self { contents: Contents::parse(&bytes), file, path }))
    }

    /// The last change first, as features hang together.
    fn recover(self) -> Vec<Left> {
        if self.contents.damaged > 0 {
            warn!(
                "{} holds {} records that cannot be read: they are passed over",
                self.path.display(),
                self.contents.damaged
            );
        }
        let owner = self.contents.owner;
        let mut left = Vec::new();
        for (slot, change) in self.contents.changes.into_iter().rev() {
            let fate = fate_of(&change);
            if !matches!(fate, Fate::Standing(_)) {
                // What stays written is tried again, and found not ours then.
                let _ = write_slot(&self.file, slot, &blank());
            }
            left.push(Left { change, owner, fate });
        }
        if !left.iter().any(|left| matches!(left.fate, Fate::Standing(_))) {
            let _ = fs::remove_file(&self.path);
        }
        left
    }
}

fn fate_of(change: &Change) -> Fate {
    restore(change).unwrap_or_else(|error| Fate::Standing(Some(error.to_string())))
}

/// Puts one change back, wherever its interface is.
fn restore(change: &Change) -> Result<Fate> {
    let mut fate = Ok(Fate::Gone);
    let sought = namespaces::visit(change.namespace, || {
        fate = restore_here(change);
        Ok(())
    })?;
    match sought {
        Sought::Visited(outcome) => outcome.and(fate),
        Sought::Gone => Ok(Fate::Gone),
        Sought::Unseen => Err(Error::Unfit("its network namespace is not to be seen from here".into())),
    }
}

fn restore_here(change: &Change) -> Result<Fate> {
    let mut requests = Requests::routing().map_err(Error::os("open a routing netlink socket"))?;
    let links = links::all(&mut requests)?;
    let Some(link) = links.values().find(|link| is_of(change, link)) else { return Ok(Fate::Gone) };
    let mut ethtool = Ethtool::open()?;
    let feature = &change.feature;
    if ethtool.active_features(link.index)?.contains(feature) != change.set {
        return Ok(Fate::NotOurs);
    }
    ethtool.set_feature(link.index, feature, change.was)?;
    if ethtool.active_features(link.index)?.contains(feature) == change.was {
        return Ok(Fate::Restored);
    }
    Err(Error::Unfit("its driver does not comply".into()))
}

/// The interface is the same although it was renamed, or its address changed, or it went to another namespace and came
/// back with another number: two of three must be right.
fn is_of(change: &Change, link: &Link) -> bool {
    let same =
        [link.index == change.index, link.name == change.name, link.mac.is_some() && link.mac == change.mac];
    same.into_iter().filter(|same| *same).count() >= 2
}

#[cfg(test)]
mod tests {
    use super::super::record::sample;
    use super::*;
    use crate::host::links::sample as link;

    #[test]
    fn an_interface_is_known_by_two_of_number_name_and_address() {
        let ens5 = Link { name: "ens5".into(), ..link(2, [2, 0, 0, 0, 0, 1]) };
        assert!(is_of(&sample(), &ens5));
        assert!(is_of(&sample(), &Link { name: "wan".into(), ..ens5.clone() }), "renamed");
        assert!(is_of(&sample(), &Link { mac: Some([9; 6]), ..ens5.clone() }), "another address");
        assert!(is_of(&sample(), &Link { index: 7, ..ens5.clone() }), "gone and back");
        assert!(!is_of(&sample(), &Link { index: 7, mac: Some([9; 6]), ..ens5.clone() }), "another ens5");
        assert!(!is_of(&sample(), &Link { index: 7, name: "wan".into(), ..ens5 }), "a clone of its address");
        let nameless = Change { mac: None, ..sample() };
        assert!(
            !is_of(&nameless, &Link { mac: None, name: "wan".into(), ..link(2, [0; 6]) }),
            "no address is none"
        );
    }
}
