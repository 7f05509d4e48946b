//! `--fix`: what can be changed without harm.

use std::{fs, path::Path};

use super::finding::Mend;
use crate::host::{
    Error, Result,
    links::LinkChange,
    netlink::Requests,
    nic::journal::{self, Fate},
};

/// Does it, and says what was done.
///
/// # Errors
/// What stands against it.
pub fn mend(mend: &Mend) -> Result<String> {
    match mend {
        Mend::Journal => put_back(),
        Mend::Up(link) => {
            change(LinkChange::of(link.index).up()).map(|()| format!("{} is set up", link.name))
        }
        Mend::Mtu(link, mtu) => change(LinkChange::of(link.index).mtu(*mtu))
            .map(|()| format!("{} has an MTU of {mtu}", link.name)),
        Mend::KeepAddress(link) => {
            let mac =
                link.mac.ok_or_else(|| Error::Unfit(format!("{} has no hardware address", link.name)))?;
            change(LinkChange::of(link.index).mac(mac))
                .map(|()| format!("{} keeps its hardware address", link.name))
        }
        Mend::Setting(name, value) => {
            let path = Path::new("/proc/sys").join(name);
            fs::write(&path, value.to_string()).map_err(Error::os(format!("write {}", path.display())))?;
            Ok(format!("{} is {value}", name.replace('/', ".")))
        }
    }
}

fn change(change: LinkChange) -> Result<()> {
    let mut requests = Requests::routing().map_err(Error::os("talk to netlink"))?;
    change.apply(&mut requests)
}

fn put_back() -> Result<String> {
    let left = journal::recover(Path::new(journal::FOLDER))?;
    let standing = left.iter().find(|left| matches!(left.fate, Fate::Standing(_)));
    match standing {
        Some(left) => Err(Error::Unfit(left.to_string())),
        None => Ok(left.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}
