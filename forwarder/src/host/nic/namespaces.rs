//! Other network namespaces: finding one by the number it has here, and doing something inside it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use neli::types::{Buffer, RtBuffer};
use nix::libc;
use nix::sched::{CloneFlags, setns};

use super::super::links::{invalid, put};
use super::super::netlink::wire::{Attributes, body};
use super::super::netlink::{Requests, bytes_of};
use super::super::{Error, Result};
use super::journal::Namespace;
use crate::xdp::sys;

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

/// What came of looking for a network namespace.
pub(super) enum Sought<T> {
    /// The job was done there, with its outcome; or it could not be entered.
    Visited(Result<T>),
    /// There is none any more, as far as a process can tell that sees all others.
    Gone,
    /// It may be there, but not for this process's eyes.
    Unseen,
}

/// Does `job` in the namespace that is `wanted`, this one or another; see [`inside`].
pub(super) fn visit<T>(wanted: Namespace, job: impl FnOnce() -> Result<T>) -> Result<Sought<T>> {
    let is_wanted = || Ok(here()? == wanted);
    if is_wanted()? {
        return Ok(Sought::Visited(job()));
    }
    let mut sees_all = sees_all_processes();
    for path in candidates().take(LOOKED_AT) {
        let found = fs::metadata(&path);
        // What is denied might be the one; what vanishes meanwhile is not. The first process, which may have more
        // privileges than root, is in the namespace that most others are in.
        let denied = found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        sees_all &= !denied || path.starts_with("/proc/1");
        if !found.is_ok_and(|found| found.is_file() && found.ino() == wanted.inode) {
            continue;
        }
        let Ok(namespace) = File::open(&path) else { continue };
        // The same number, but perhaps of another that came after it.
        match inside(&namespace, is_wanted)? {
            Ok(true) => return inside(&namespace, job).map(Sought::Visited),
            Ok(false) => return Ok(Sought::Gone),
            Err(error) => return Ok(Sought::Visited(Err(error))),
        }
    }
    Ok(if sees_all { Sought::Gone } else { Sought::Unseen })
}

/// Whether /proc shows every process of the machine: the first pid namespace always has this number.
/// Kernel: `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
fn sees_all_processes() -> bool {
    const FIRST: u64 = 0xEFFF_FFFC;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|found| found.ino() == FIRST)
}

/// The calling thread's namespace.
///
/// # Errors
/// No socket, or a kernel before 5.14.
pub(super) fn here() -> Result<Namespace> {
    let failed = |error: io::Error| Error::os("tell its network namespace from others")(error);
    let found = fs::metadata("/proc/thread-self/ns/net").map_err(failed)?;
    let socket = Requests::routing().map_err(failed)?;
    Ok(Namespace { inode: found.ino(), cookie: sys::network_cookie(socket.as_fd()).map_err(failed)? })
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
