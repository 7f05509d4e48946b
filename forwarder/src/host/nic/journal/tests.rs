use std::fs;

use super::*;
use crate::host::links;
use crate::host::netlink::Requests;
use crate::host::nic::ethtool::Ethtool;
use crate::host::testing::{Folder, Namespace as Host, eventually};

const FEATURE: &str = "rx-vlan-hw-parse";

/// The change that turning [`FEATURE`] off on `name` is, made as a gateway makes it.
fn turn_off(journal: &Journal, name: &str) -> usize {
    let mut requests = Requests::routing().unwrap();
    let link = links::by_name(&mut requests, name).unwrap();
    let namespace = crate::host::nic::namespaces::here().unwrap();
    let change = Change {
        namespace,
        index: link.index,
        name: name.into(),
        mac: link.mac,
        feature: FEATURE.into(),
        was: true,
        set: false,
    };
    let slot = journal.enter(change).unwrap();
    Ethtool::open().unwrap().set_feature(link.index, FEATURE, false).unwrap();
    slot
}

fn is_on(host: &Host, name: &str) -> bool {
    let features = host.command("ethtool", &format!("-k {name}"));
    features.lines().any(|line| line == "rx-vlan-offload: on")
}

/// A host with a veth, whose feature a gateway turned off and then died. `None` without root.
fn left_behind(folder: &Folder) -> Option<Host> {
    let host = Host::new()?;
    host.ip("link add uplink type veth peer name wire");
    assert!(is_on(&host, "uplink"));
    let path = folder.path().to_owned();
    host.run(move || {
        let (journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, []);
        turn_off(&journal, "uplink");
    });
    assert!(!is_on(&host, "uplink"));
    await_death(folder);
    Some(host)
}

/// A process that another test is about to start holds what this one has open, until it executes its program.
fn await_death(folder: &Folder) {
    eventually("the lock of a dead gateway's file is free", || !left(folder.path()).unwrap().is_empty());
}

/// What the next start finds, in the host's namespace.
fn next_start(host: &Host, folder: &Folder) -> Vec<Fate> {
    let path = folder.path().to_owned();
    host.run(move || {
        let (_journal, left) = Journal::open(&path).unwrap();
        left.into_iter().map(|left| left.fate).collect()
    })
}

fn files(folder: &Folder) -> usize {
    fs::read_dir(folder.path()).unwrap().count()
}

#[test]
fn the_next_start_puts_back_what_a_dead_gateway_left_and_does_so_once() {
    let folder = Folder::new();
    let Some(host) = left_behind(&folder) else { return };
    let seen = left(folder.path()).unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].fate.clone(), seen[0].owner.unwrap().pid),
        (Fate::Standing(None), std::process::id())
    );
    assert!(!is_on(&host, "uplink"), "looking changes nothing");
    assert_eq!(next_start(&host, &folder), [Fate::Restored]);
    assert!(is_on(&host, "uplink"));
    assert_eq!(next_start(&host, &folder), []);
    // The second start's own, which ended without a word.
    assert_eq!(files(&folder), 1);
}

#[test]
fn what_a_living_gateway_changed_is_left_alone() {
    let folder = Folder::new();
    let Some(host) = Host::new() else { return };
    host.ip("link add uplink type veth peer name wire");
    let path = folder.path().to_owned();
    let living = host.run(move || {
        let (journal, _) = Journal::open(&path).unwrap();
        turn_off(&journal, "uplink");
        journal
    });
    assert_eq!(left(folder.path()).unwrap(), []);
    assert_eq!(next_start(&host, &folder), []);
    assert!(!is_on(&host, "uplink"));
    drop(living);
    await_death(&folder);
    assert_eq!(next_start(&host, &folder), [Fate::Restored]);
}

#[test]
fn what_the_admin_changed_since_is_not_undone() {
    let folder = Folder::new();
    let Some(host) = left_behind(&folder) else { return };
    host.command("ethtool", "-K uplink rxvlan on");
    assert_eq!(next_start(&host, &folder), [Fate::NotOurs]);
    host.command("ethtool", "-K uplink rxvlan off");
    assert_eq!(next_start(&host, &folder), [], "what he does afterwards is his");
    assert!(!is_on(&host, "uplink"));
}

#[test]
fn an_interface_that_was_renamed_is_found_and_one_that_is_gone_is_let_go() {
    let folder = Folder::new();
    let Some(host) = left_behind(&folder) else { return };
    host.ip("link set uplink name wan0");
    assert_eq!(next_start(&host, &folder), [Fate::Restored]);
    assert!(is_on(&host, "wan0"));
    let Some(host) = left_behind(&folder) else { return };
    host.ip("link del uplink");
    host.ip("link add uplink type veth peer name wire");
    assert_eq!(next_start(&host, &folder), [Fate::Gone], "another of the same name is not the one");
}

#[test]
fn what_was_left_in_another_namespace_is_put_back_from_here_and_let_go_when_that_is_gone() {
    let folder = Folder::new();
    let Some(host) = left_behind(&folder) else { return };
    let Some(here) = Host::new() else { return };
    // A process in it leads to it; threads are not looked at.
    let mut resident = host.run(|| std::process::Command::new("sleep").arg("60").spawn().unwrap());
    let fates = next_start(&here, &folder);
    let _ = resident.kill();
    let _ = resident.wait();
    assert_eq!(fates, [Fate::Restored]);
    assert!(is_on(&host, "uplink"));
    let Some(gone) = left_behind(&folder) else { return };
    drop(gone);
    assert_eq!(next_start(&here, &folder), [Fate::Gone]);
}

#[test]
fn garbage_in_the_folder_harms_nothing() {
    let folder = Folder::new();
    let Some(host) = left_behind(&folder) else { return };
    folder.write("1.2.0", "no journal at all");
    folder.write("3.4.0", "");
    fs::create_dir(folder.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link")).unwrap();
    nix::unistd::mkfifo(&folder.path().join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(next_start(&host, &folder), [Fate::Restored]);
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| !name.to_string_lossy().contains('.'));
    assert_eq!(names.len(), 3, "what is no file of ours stays: {names:?}");
    assert!(!folder.path().join("1.2.0").exists() && !folder.path().join("3.4.0").exists());
}

#[test]
fn a_change_that_is_put_back_gives_its_slot_to_the_next() {
    let folder = Folder::new();
    let (journal, _) = Journal::open(folder.path()).unwrap();
    let changes = || record::Contents::parse(&fs::read(&journal.path).unwrap()).changes;
    let first = journal.enter(record::sample()).unwrap();
    let second = journal.enter(record::sample()).unwrap();
    assert_eq!((first, second, changes().len()), (1, 2, 2));
    journal.strike(first);
    assert_eq!(changes(), [(2, record::sample())]);
    assert_eq!(journal.enter(record::sample()), Some(1));
}

#[test]
fn a_full_journal_refuses_and_does_not_grow() {
    let folder = Folder::new();
    let (journal, _) = Journal::open(folder.path()).unwrap();
    let entered = (0..SLOTS + 5).filter_map(|_| journal.enter(record::sample())).count();
    assert_eq!(entered, SLOTS - 1);
    assert_eq!(fs::metadata(&journal.path).unwrap().len(), (SLOTS * SLOT) as u64);
}
