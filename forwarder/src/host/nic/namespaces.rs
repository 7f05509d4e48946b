//! Other network namespaces: finding one by the number it has here, and doing something inside it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use neli::types::{Buffer, RtBuffer};
use nix::libc;
use nix::sched::{CloneFlags, setns};

use super::super::links::{invalid, put};
use super::super::netlink::wire::{Attributes, body};
use super::super::netlink::{Requests, bytes_of};
use super::super::{Error, Result};

/// Where namespaces have names: those of `ip netns` (and of Kubernetes' network plugins), and Docker's.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];
/// Names and processes looked at: some microseconds each, so that this takes at most a few tenths of a second.
const LOOKED_AT: usize = 65_536;

/// From include/uapi/linux/net_namespace.h.
mod number {
    pub(super) const NETNSA_NSID: u16 = 1;
    pub(super) const NETNSA_FD: u16 = 3;
}

/// `struct rtgenmsg`, padded to where attributes begin.
const GENERAL: [u8; 4] = [0; 4];

/// The namespace whose number here is `id` (`IFLA_LINK_NETNSID`); `None` where neither a name nor a process that this
/// one may look at leads to it.
pub(super) fn by_id(requests: &mut Requests, id: i32) -> Result<Option<File>> {
    let mut seen = BTreeSet::new();
    for path in candidates().take(LOOKED_AT) {
        // What vanishes meanwhile or may not be looked at is not the one, as far as this process can tell.
        let Some(namespace) = open_unseen(&path, &mut seen) else { continue };
        if id_of(requests, &namespace)? == Some(id) {
            return Ok(Some(namespace));
        }
    }
    Ok(None)
}

/// Does `job` in `namespace`; what it opens stays there. Needs CAP_SYS_ADMIN, and the process to have one thread.
///
/// # Errors
/// The inner one: it could not be entered, or the job failed. The outer one: there was no way back, and the process
/// must not go on, for it would use another namespace's interfaces.
pub(super) fn inside<T>(namespace: &File, job: impl FnOnce() -> Result<T>) -> Result<Result<T>> {
    let home = match File::open("/proc/thread-self/ns/net") {
        Ok(home) => home,
        Err(error) => return Ok(Err(Error::os("open its own network namespace")(error))),
    };
    // Entering the own namespace changes nothing, and who may not do that could not come back.
    let entered = enter(&home).and_then(|()| enter(namespace));
    if let Err(error) = entered {
        return Ok(Err(Error::os("enter its network namespace")(error)));
    }
    let outcome = job();
    enter(&home).map_err(Error::os("come back from another network namespace"))?;
    Ok(outcome)
}

fn enter(namespace: &File) -> nix::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET)
}

/// Names first: they are few.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let named = NAMED.into_iter().flat_map(|folder| entries(Path::new(folder)));
    named.chain(entries(Path::new("/proc")).filter(|path| is_process(path)).map(|path| path.join("ns/net")))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn is_process(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

fn open_unseen(path: &Path, seen: &mut BTreeSet<(u64, u64)>) -> Option<File> {
    // Namespaces look like ordinary files; opening a pipe would wait.
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    seen.insert((found.dev(), found.ino())).then(|| File::open(path).ok())?
}

/// The number of `namespace` here, if it has one: `RTM_GETNSID`. What is no network namespace has none.
fn id_of(requests: &mut Requests, namespace: &File) -> Result<Option<i32>> {
    let descriptor = u32::try_from(namespace.as_raw_fd()).map_err(invalid)?;
    let mut question = GENERAL.to_vec();
    question.extend(bytes_of(&put(number::NETNSA_FD, descriptor)?).map_err(invalid)?);
    let answer =
        requests.request(libc::RTM_GETNSID, 0, &Buffer::from(question), |id: &mut Option<i32>, _, rest| {
            *id = id.or_else(|| parse_id(rest));
        });
    match answer {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        answer => answer.map_err(Error::os("read the number of a network namespace")),
    }
}

fn parse_id(rest: &[u8]) -> Option<i32> {
    let attributes: RtBuffer<u16, Buffer> = body(rest.get(GENERAL.len()..)?)?;
    let id = Attributes::of(&attributes).array(number::NETNSA_NSID).map(i32::from_ne_bytes);
    // NETNSA_NSID_NOT_ASSIGNED is -1.
    id.filter(|id| *id >= 0)
}
