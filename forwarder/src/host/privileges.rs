//! Privileges: what is needed is there at the start, and all else is given up before the first packet.
//!
//! Kept are CAP_NET_ADMIN (interfaces, NIC features, attaching programs), CAP_NET_RAW (AF_XDP and packet sockets) and
//! CAP_BPF (maps, programs); by an accelerator also what [`LOOKING`] takes. Order matters to the caller:
//!
//! 1. Files opened, ports bound, XDP attached, UMEM registered: locked memory is counted when it is registered, and
//!    CAP_IPC_LOCK, which lifts its limit, is given up here.
//! 2. [`drop_privileges`].
//! 3. Threads started. Capabilities belong to a thread and are inherited by those it starts: a thread that is already
//!    there would keep its own, so that is refused.

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{
    Gid, Group, Uid, User, getegid, geteuid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid,
};

use super::{Error, Result};

/// What is kept.
pub const KEPT: [Capability; 3] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_BPF];

/// Those of the capabilities a start uses that are missing, with what each is for.
pub fn missing() -> Result<Vec<(String, &'static str)>> {
    const USED: [(Capability, &str); 5] = [
        (Capability::CAP_NET_ADMIN, "to attach programs and to change interfaces"),
        (Capability::CAP_NET_RAW, "for AF_XDP and packet sockets"),
        (Capability::CAP_BPF, "to load programs"),
        (Capability::CAP_IPC_LOCK, "to lock memory beyond the limit"),
        (Capability::CAP_SYS_ADMIN, "to look at the far end of a veth in another network namespace"),
    ];
    let effective = read(CapSet::Effective)?;
    let missing = USED.iter().filter(|(capability, _)| !effective.contains(capability));
    Ok(missing.map(|(capability, what)| (capability.to_string(), *what)).collect())
}

/// What is kept besides by an accelerator of a bridge, where it has it: to look at the far ends of veths, which come and go
/// with containers, in their network namespaces. Nobody remote talks to an accelerator.
pub const LOOKING: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE];

/// What is kept besides by who joins a kernel bridge with peers: memory that is shared with a port is locked when the port
/// comes. It lifts a limit, and opens nothing.
pub const LOCKING: [Capability; 1] = [Capability::CAP_IPC_LOCK];

/// Whether what is needed is there; to be asked before anything is opened.
pub fn check() -> Result<()> {
    let effective = read(CapSet::Effective)?;
    let missing: Vec<_> =
        KEPT.iter().filter(|kept| !effective.contains(kept)).map(ToString::to_string).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Unfit(format!(
        "{} missing: start as root, or in a systemd unit with AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF \
         CAP_IPC_LOCK CAP_NET_BIND_SERVICE",
        missing.join(", ")
    )))
}

/// Whether locked memory is unlimited for this process.
pub fn may_lock_memory() -> Result<bool> {
    Ok(read(CapSet::Effective)?.contains(&Capability::CAP_IPC_LOCK))
}

/// Whom to run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    uid: Uid,
    gid: Gid,
}

impl Identity {
    /// Looks up the names of `user` and `group`; the group is the user's own unless named. `None` without either.
    pub fn resolve(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>> {
        let user = user.map(user_named).transpose()?;
        let group = group.map(group_named).transpose()?;
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let uid = user.as_ref().map_or_else(geteuid, |user| user.uid);
        let gid = group.map(|group| group.gid).or(user.map(|user| user.gid)).unwrap_or_else(getegid);
        Ok(Some(Self { uid, gid }))
    }
}

fn user_named(name: &str) -> Result<User> {
    let found = User::from_name(name).map_err(Error::os(format!("look up the user {name}")))?;
    found.ok_or_else(|| {
        Error::Unfit(format!("there is no user {name}: create it, or name another with `user`"))
    })
}

fn group_named(name: &str) -> Result<Group> {
    let found = Group::from_name(name).map_err(Error::os(format!("look up the group {name}")))?;
    found.ok_or_else(|| {
        Error::Unfit(format!("there is no group {name}: create it, or name another with `group`"))
    })
}

/// Becomes `identity` (or stays who it is), keeping exactly [`KEPT`], and of `also` what it has, for good: nothing it
/// executes gains privileges. Reads back what came of it; an error means that the process must not go on.
pub fn drop_privileges(identity: Option<Identity>, also: &[Capability]) -> Result<()> {
    refuse_other_threads()?;
    give_up(identity, also)
}

fn give_up(identity: Option<Identity>, also: &[Capability]) -> Result<()> {
    let permitted = read(CapSet::Permitted)?;
    let also = also.iter().copied().filter(|capability| permitted.contains(capability));
    let kept: CapsHashSet = KEPT.into_iter().chain(also).collect();
    drop_bounding_set(&kept)?;
    if let Some(identity) = identity {
        become_identity(identity)?;
    }
    reduce_capabilities(&kept)?;
    prctl::set_no_new_privs().map_err(Error::os("forbid new privileges"))?;
    verify(identity, &kept)
}

fn refuse_other_threads() -> Result<()> {
    let threads =
        std::fs::read_dir("/proc/self/task").map_err(Error::os("count this process's threads"))?.count();
    if threads == 1 {
        return Ok(());
    }
    Err(Error::Unfit(format!(
        "{threads} threads run already, and each would keep its privileges: this is a fault in trestle, please report it"
    )))
}

/// What a program executed later could have at most. Needs CAP_SETPCAP; who starts without it (a systemd unit with
/// just the capabilities above) is held by `no_new_privs` alone.
fn drop_bounding_set(kept: &CapsHashSet) -> Result<()> {
    if !read(CapSet::Effective)?.contains(&Capability::CAP_SETPCAP) {
        return Ok(());
    }
    for capability in read(CapSet::Bounding)?.into_iter().filter(|capability| !kept.contains(capability)) {
        caps::drop(None, CapSet::Bounding, capability).map_err(failed("reduce the bounding set"))?;
    }
    Ok(())
}

fn become_identity(Identity { uid, gid }: Identity) -> Result<()> {
    // Without it the kernel takes all capabilities from who ceases to be root.
    prctl::set_keepcaps(true).map_err(Error::os("keep capabilities"))?;
    let outcome =
        setgroups(&[gid]).and_then(|()| setresgid(gid, gid, gid)).and_then(|()| setresuid(uid, uid, uid));
    prctl::set_keepcaps(false).map_err(Error::os("stop keeping capabilities"))?;
    outcome.map_err(|error| match error {
        Errno::EPERM => Error::Unfit(format!(
            "cannot become user {uid} and group {gid}: start as root, or leave `user` and `group` away"
        )),
        other => Error::os(format!("become user {uid} and group {gid}"))(other),
    })
}

/// Effective first: it may never hold what the permitted set lacks.
fn reduce_capabilities(kept: &CapsHashSet) -> Result<()> {
    caps::clear(None, CapSet::Ambient).map_err(failed("clear the ambient capabilities"))?;
    caps::set(None, CapSet::Effective, kept).map_err(failed("reduce the effective capabilities"))?;
    caps::set(None, CapSet::Permitted, kept).map_err(failed("reduce the permitted capabilities"))?;
    caps::clear(None, CapSet::Inheritable).map_err(failed("clear the inheritable capabilities"))
}

fn verify(identity: Option<Identity>, kept: &CapsHashSet) -> Result<()> {
    expect(read(CapSet::Effective)? == *kept, "the effective capabilities")?;
    expect(read(CapSet::Permitted)? == *kept, "the permitted capabilities")?;
    expect(read(CapSet::Inheritable)?.is_empty(), "the inheritable capabilities")?;
    expect(read(CapSet::Ambient)?.is_empty(), "the ambient capabilities")?;
    expect(prctl::get_no_new_privs().map_err(Error::os("read no_new_privs"))?, "no_new_privs")?;
    identity.map_or(Ok(()), verify_identity)
}

fn verify_identity(Identity { uid, gid }: Identity) -> Result<()> {
    let users = getresuid().map_err(Error::os("read the user ids"))?;
    let groups = getresgid().map_err(Error::os("read the group ids"))?;
    expect([users.real, users.effective, users.saved] == [uid; 3], "the user ids")?;
    expect([groups.real, groups.effective, groups.saved] == [gid; 3], "the group ids")?;
    expect(getgroups().map_err(Error::os("read the groups"))? == [gid], "the supplementary groups")
}

fn expect(holds: bool, what: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Unfit(format!(
        "{what} are not what they were set to: refusing to go on with other privileges than meant"
    )))
}

fn read(set: CapSet) -> Result<CapsHashSet> {
    caps::read(None, set).map_err(failed("read this process's capabilities"))
}

fn failed(doing: &str) -> impl FnOnce(caps::errors::CapsError) -> Error {
    let doing = doing.to_owned();
    move |error| Error::Os { doing, source: std::io::Error::other(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::Requests;
    use crate::host::routes::Outside;
    use crate::host::testing::skip;
    use std::process::Command;

    /// Set in the child that gives up its privileges.
    const CHILD: &str = "TRESTLE_TEST_PRIVILEGES";

    /// In place of a user: an accelerator.
    const LOOKER: &str = "(looker)";

    /// Runs [`child_gives_up_privileges`] in a process of its own.
    fn in_child(user: &str) {
        if !geteuid().is_root() {
            skip("it gives up root's privileges, which needs root");
            return;
        }
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["host::privileges::tests::child_gives_up_privileges", "--exact", "--ignored"])
            .env(CHILD, user)
            .output()
            .unwrap();
        let told =
            String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && told.contains("1 passed"), "{told}");
    }

    #[test]
    #[ignore = "run in a child process by privileges_are_given_up"]
    fn child_gives_up_privileges() {
        let Ok(user) = std::env::var(CHILD) else { return };
        let (user, also) = match user.as_str() {
            LOOKER => ("", LOOKING.to_vec()),
            user => (user, Vec::new()),
        };
        let user = Some(user).filter(|user| !user.is_empty());
        check().unwrap();
        let identity = Identity::resolve(user, None).unwrap();
        let mut before = Outside::open(&[]).unwrap();
        // The test harness has a thread of its own; so it is this thread's privileges that are looked at.
        let refused = drop_privileges(identity, &[]).unwrap_err().to_string();
        assert!(refused.starts_with("2 threads run already"), "{refused}");
        give_up(identity, &also).unwrap();

        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        // Bits 12, 13 and 39; of a looker 19 and 21, too.
        let expected = if also.is_empty() { "0000008000003000" } else { "0000008000283000" };
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            assert_eq!(line(set), expected, "{set}");
        }
        assert_eq!((line("CapInh:"), line("CapAmb:")), ("0".repeat(16), "0".repeat(16)));
        assert_eq!(line("NoNewPrivs:"), "1");
        if user.is_some() {
            assert_eq!(line("Uid:"), "65534\t65534\t65534\t65534");
            assert!(line("Groups:") == line("Gid:").split('\t').next().unwrap(), "{status}");
            assert!(setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_err(), "no way back");
            assert!(std::fs::read("/etc/shadow").is_err());
        }
        assert!(nix::unistd::chroot("/").is_err(), "CAP_SYS_CHROOT is gone");
        // What was opened before and what needs the kept ones goes on.
        before.handle_netlink().unwrap();
        Outside::open(&[]).unwrap();
        let mut requests = Requests::routing().unwrap();
        let lo = crate::host::links::by_name(&mut requests, "lo").unwrap();
        crate::host::links::LinkChange::of(lo.index).mtu(lo.mtu).apply(&mut requests).unwrap();
    }

    #[test]
    fn privileges_are_given_up() {
        in_child("nobody");
    }

    #[test]
    fn without_a_user_capabilities_are_reduced_all_the_same() {
        in_child("");
    }

    #[test]
    fn who_looks_at_far_ends_keeps_what_that_takes() {
        in_child(LOOKER);
    }

    #[test]
    fn an_unknown_name_is_said() {
        let error = Identity::resolve(Some("no-such-user"), None).unwrap_err().to_string();
        assert_eq!(error, "there is no user no-such-user: create it, or name another with `user`");
        assert!(Identity::resolve(None, Some("no-such-group")).is_err());
        assert_eq!(Identity::resolve(None, None).unwrap(), None);
    }
}
