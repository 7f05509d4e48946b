//! `trestle` called as `brctl`, on real kernel bridges: against what bridge-utils' own was captured to say, and against
//! that one itself, step by step in two namespaces that begin alike.
#![allow(clippy::disallowed_methods, reason = "tests begin at some moment")]

use std::{
    ffi::OsString,
    io::Write,
    os::unix::{ffi::OsStringExt, process::CommandExt},
    path::Path,
    process::Command,
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

const OURS: &str = env!("CARGO_BIN_EXE_trestle");
const REAL: &str = "/usr/sbin/brctl";
const CAPTURED: &str = include_str!("data/brctl-1.7.txt");

/// Network and mount namespaces of their own, which end with the thread in them.
struct Room {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

/// How a command ended, in bytes.
#[derive(PartialEq, Eq)]
struct Said {
    out: String,
    err: String,
    code: Option<i32>,
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {:?}\n{}{}", self.code, self.out, self.err)
    }
}

impl Room {
    /// `None` where it cannot be had, which is said.
    fn new(test: &str) -> Option<Self> {
        let able = geteuid().is_root() && Path::new(REAL).exists();
        let (jobs, inbox) = channel::<Job>();
        let (ready, is_ready) = channel();
        let thread = thread::spawn(move || {
            if able && unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).is_ok() {
                ready.send(()).expect("the test waits");
                inbox.into_iter().for_each(|job| job());
            }
        });
        if is_ready.recv().is_err() {
            let line = format!("SKIPPED {test}: needs root, namespaces and bridge-utils\n");
            std::io::stderr().write_all(line.as_bytes()).expect("standard error");
            return None;
        }
        let room = Self { jobs: Some(jobs), thread: Some(thread) };
        room.shell("mount --make-rprivate / && mount -t sysfs none /sys && ip link set lo up");
        // The stack's own frames would come into the forwarding tables at times of their own.
        room.shell("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6");
        Some(room)
    }

    fn run(&self, mut command: Command) -> Said {
        let (done, outcome) = channel();
        let job = move || done.send(command.output()).expect("the test waits");
        self.jobs.as_ref().expect("it is open").send(Box::new(job)).expect("its thread runs");
        let output = outcome.recv().expect("its thread answers").expect("the program starts");
        // Latin-1 keeps every byte apart.
        let text = |bytes: Vec<u8>| bytes.into_iter().map(char::from).collect();
        Said { out: text(output.stdout), err: text(output.stderr), code: output.status.code() }
    }

    #[track_caller]
    fn shell(&self, line: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-ec", line]);
        let said = self.run(command);
        assert_eq!(said.code, Some(0), "{line}: {}", said.err);
        said.out
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn ours(words: &[OsString]) -> Command {
    let mut command = Command::new(OURS);
    command.arg0("brctl").args(words);
    command
}

fn real(words: &[OsString]) -> Command {
    let mut command = Command::new(REAL);
    command.arg0("brctl").args(words);
    command
}

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// Without what depends on when it was asked: timers that run, ages of entries that were learnt.
fn still(text: &str) -> String {
    const RUNNING: [&str; 7] = [
        "hello timer\t\t",
        "tcn timer\t\t",
        "topology change timer\t",
        "gc timer\t\t",
        "message age timer\t",
        "forward delay timer\t",
        "hold timer\t\t",
    ];
    let masked = |line: &str| {
        let mut line = line.to_owned();
        for label in RUNNING {
            if let Some(at) = line.find(label) {
                let value = at + label.len();
                line.replace_range(value..value + "   0.00".len(), "   *.**");
            }
        }
        match line.split_once("\tno\t\t") {
            Some((before, age)) if age.trim().parse::<f64>().is_ok_and(|age| age < 60.0) => {
                format!("{before}\tno\t\t   *.**")
            }
            _ => line,
        }
    };
    text.split('\n').map(masked).collect::<Vec<_>>().join("\n")
}

fn settled(said: &Said) -> Said {
    Said { out: still(&said.out), err: said.err.clone(), code: said.code }
}

/// One captured command and what it said.
struct Captured<'a> {
    line: &'a str,
    said: Said,
}

#[test]
fn what_was_captured_is_said_again() {
    let Some(room) = Room::new("what_was_captured_is_said_again") else { return };
    let mut open: Option<Captured<'_>> = None;
    let mut replayed = 0;
    for line in CAPTURED.lines().filter(|line| !line.starts_with('#')) {
        let (sign, rest) = line.split_at_checked(2).unwrap_or((line, ""));
        match (sign, &mut open) {
            ("! ", None) => drop(room.shell(rest)),
            ("$ ", None) => {
                let said = Said { out: String::new(), err: String::new(), code: None };
                open = Some(Captured { line: rest, said });
            }
            ("1 " | "1", Some(captured)) => captured.said.out += &format!("{rest}\n"),
            ("2 ", Some(captured)) => captured.said.err += &format!("{rest}\n"),
            ("= ", Some(captured)) => {
                captured.said.code = rest.parse().ok();
                let got = room.run(ours(&words(captured.line)[1..]));
                assert_eq!(settled(&got), settled(&captured.said), "{}", captured.line);
                replayed += 1;
                open = None;
            }
            _ => panic!("not a line of a capture: {line:?}"),
        }
    }
    assert_eq!(replayed, 35);
}

/// The same steps with the real one and with ours, each in a room of its own.
struct Twins {
    real: Room,
    ours: Room,
    /// What stands before both, for those who may less.
    prefix: Vec<OsString>,
    compared: usize,
}

impl Twins {
    fn new(test: &str) -> Option<Self> {
        let (real, ours) = (Room::new(test)?, Room::new(test)?);
        let twins = Self { real, ours, prefix: Vec::new(), compared: 0 };
        twins.shell(LAID_OUT);
        Some(twins)
    }

    #[track_caller]
    fn shell(&self, line: &str) {
        self.real.shell(line);
        self.ours.shell(line);
    }

    #[track_caller]
    fn words(&mut self, words: &[OsString]) {
        let under = |program: &str, words: Command| {
            let Some((first, rest)) = self.prefix.split_first() else { return words };
            let mut command = Command::new(first);
            command.args(rest).arg(program).args(words.get_args());
            command
        };
        // With a prefix each is called by its path, which its messages then begin with.
        let real = self.real.run(under(REAL, real(words)));
        let ours = self.ours.run(under("/run/brctl/brctl", ours(words)));
        let again = |said: &Said| Said {
            err: said.err.replace(REAL, "brctl").replace("/run/brctl/brctl", "brctl"),
            ..settled(said)
        };
        assert_eq!(again(&ours), again(&real), "brctl {words:?}");
        self.compared += 1;
    }

    #[track_caller]
    fn line(&mut self, line: &str) {
        self.words(&words(line));
    }

    /// Every setting of every bridge and port, as the kernel has it.
    #[track_caller]
    fn end_alike(&self) {
        let [real, ours] = [&self.real, &self.ours].map(|room| room.shell(SETTINGS));
        assert!(real.lines().count() > 100, "{real}");
        assert_eq!(ours, real);
    }
}

/// Twelve veths in br0, one in br1, the rest free; a thousand entries.
const LAID_OUT: &str = r#"
for i in $(seq 16); do
    printf 'link add v%d address 02:00:00:01:00:%02x type veth peer name w%d address 02:00:00:02:00:%02x\n' $i $i $i $i
done | ip -batch -
for b in br0 br-long br1 Br2; do echo "link add $b type bridge"; done | ip -batch -
for i in $(seq 12); do echo "link set v$i master br0"; done | ip -batch -
ip link set v13 master br1
for i in br0 $(seq -f v%g 12) $(seq -f w%g 12); do echo "link set $i up"; done | ip -batch -
for i in $(seq 0 999); do
    printf 'fdb add 06:00:00:00:%02x:%02x dev v%d master static\n' $((i / 256)) $((i % 256)) $((i % 12 + 1))
done | bridge -batch -
bridge fdb add 06:00:00:01:00:00 dev v3 master dynamic
mount -t tmpfs none /run
mkdir /run/brctl
"#;

const SETTINGS: &str = r#"
cd /sys/class/net
for i in *; do
    echo "$i"
    for f in $i/bridge/* $i/brport/*; do
        case $f in *timer|*flush|*/bridge/bridge|*\**) ;; *) [ -f $f ] && echo "$f $(cat $f 2>/dev/null)" ;; esac
    done
    ls $i/brif 2>/dev/null || true
done
"#;

const COMMANDS: [&str; 16] = [
    "addbr",
    "delbr",
    "addif",
    "delif",
    "hairpin",
    "setageing",
    "setbridgeprio",
    "setfd",
    "sethello",
    "setmaxage",
    "setpathcost",
    "setportprio",
    "show",
    "showmacs",
    "showstp",
    "stp",
];

#[test]
fn every_word_is_taken_as_the_real_one_takes_it() {
    let Some(mut twins) = Twins::new("every_word_is_taken_as_the_real_one_takes_it") else { return };
    for line in [
        "",
        "-h",
        "-V",
        "--he",
        "--vers",
        "--=x",
        "--=",
        "--help=",
        "--version=1",
        "--frob",
        "-x",
        "-hV",
        "-Vh",
        "show -h",
        "-- show",
        "show --",
        "-",
        "--",
        "-- -h",
        "frob",
        "frob -z",
        "-- --help",
        "show -Vx",
        "help",
    ] {
        twins.line(line);
    }
    let odd: [&[&[u8]]; 13] = [
        &[],
        &[b"nosuch"],
        &[b"nosuch", b"a"],
        &[b"nosuch", b"a", b"b"],
        &[b"lo"],
        &[b"lo", b"lo"],
        &[b"lo", b"lo", b"1", b"more", b"and more"],
        &[b""],
        &[b"", b"", b""],
        &[b"abcdefghijklmno", b"1", b"1"],
        &[b"abcdefghijklmnopqrs", b"1", b"1"],
        &[b"\xff\xfe", b"\xff", b"\xff"],
        &[b"../lo", b"1", b"-1"],
    ];
    for command in COMMANDS {
        for arguments in odd {
            let words = arguments.iter().map(|word| OsString::from_vec(word.to_vec()));
            twins.words(&std::iter::once(command.into()).chain(words).collect::<Vec<_>>());
        }
    }
    twins.end_alike();
    assert!(twins.compared > 200);
}

#[test]
fn every_change_is_made_and_refused_as_by_the_real_one() {
    let Some(mut twins) = Twins::new("every_change_is_made_and_refused_as_by_the_real_one") else { return };
    for line in [
        "addif br0 v1",
        "addif br0 br1",
        "addif br0 lo",
        "addif lo v14",
        "addif br1 nosuch v14",
        "addif nosuch v15",
        "addif br1 v14 v15 v1 v16",
        "delif br0 v13",
        "delif br1 v1 v13",
        "delif br1 v13 v14",
        "delif br1 v16",
        "delif nosuch v1",
        "delif lo v1",
        "addbr br0",
        "addbr v1",
        "delbr v1",
        "delbr br0",
        "delbr Br2",
        "addbr new",
        "show",
        "show br1 nosuch br0 lo",
        "showstp br1",
        "show br-long",
    ] {
        twins.line(line);
    }
    for command in ["setageing", "setfd", "sethello", "setmaxage"] {
        for value in
            ["5", "20.5", "abc", "0x10", "1e1", "1e", "inf", "nan", "", " 6", ".5", "0", "99999999999999999"]
        {
            for value in [value.to_owned(), format!("-{value}")] {
                for bridge in ["br0", "lo"] {
                    twins.words(&[command, bridge, "--", &value].map(OsString::from));
                }
            }
        }
    }
    for value in
        ["5", "0x10", "010", "abc", "99999999999", "65536", "4294967295", "", "1x", "0x", "-1", "-32769"]
    {
        for target in ["setbridgeprio br1", "setbridgeprio lo", "setpathcost br0 v1", "setpathcost br1 v1"] {
            twins.words(&[words(target), vec!["--".into(), value.into()]].concat());
        }
        for target in ["br0 v2", "br0 v13", "br0 v16", "br0 nosuch", "nosuch v1", "lo v16"] {
            twins.words(&[words("setportprio"), words(target), vec!["--".into(), value.into()]].concat());
        }
    }
    for value in ["on", "off", "yes", "no", "1", "0", "On", "maybe", ""] {
        for target in
            ["stp br1", "stp lo", "hairpin br0 v3", "hairpin br0 v13", "hairpin br0 v16", "hairpin lo v16"]
        {
            twins.words(&[words(target), vec![value.into()]].concat());
        }
    }
    twins.line("hairpin br0 v2 on");
    twins.line("stp br1 on");
    twins.line("show");
    twins.line("showstp br1");
    twins.end_alike();
}

#[test]
fn a_thousand_entries_and_many_ports_are_shown_alike() {
    let Some(mut twins) = Twins::new("a_thousand_entries_and_many_ports_are_shown_alike") else { return };
    let shown = twins.ours.run(ours(&words("showmacs br0")));
    assert!(shown.out.lines().count() > 1000, "{}", shown.out);
    for line in ["showmacs br0", "showmacs br-long", "show", "showstp br0", "showstp br-long"] {
        twins.line(line);
    }
    twins.line("stp br0 on");
    twins.line("showstp br0");
}

#[test]
fn without_sys_the_old_ioctls_are_asked() {
    let Some(mut twins) = Twins::new("without_sys_the_old_ioctls_are_asked") else { return };
    twins.shell("mount -t tmpfs none /sys");
    for line in [
        "show",
        "show br1",
        "show nosuch lo br0",
        "showstp br0",
        "showstp br1",
        "showstp nosuch",
        "showstp lo",
        "showmacs br0",
        "showmacs lo",
        "showmacs nosuch",
        "setageing br0 7",
        "setfd lo 6",
        "setfd br1 9.5",
        "hairpin br0 v1 on",
        "hairpin br0 v16 on",
        "setpathcost br0 v2 3",
        "setpathcost br1 v2 3",
        "setportprio br0 v2 3",
        "setportprio br0 v2 99",
        "setportprio br0 v16 99",
        "setpathcost br0 v3 70000",
        "stp br1 on",
        "setbridgeprio br0 5",
        "addif br1 v14",
        "delif br1 v13",
        "addbr new",
        "delbr br-long",
        "show",
    ] {
        twins.line(line);
    }
    twins.shell("umount /sys");
    twins.end_alike();
}

#[test]
fn without_rights_the_refusals_are_the_same() {
    let Some(mut twins) = Twins::new("without_rights_the_refusals_are_the_same") else { return };
    twins.shell(&format!("ln -s {OURS} /run/brctl/brctl"));
    let changes = [
        "addbr x",
        "delbr br1",
        "addif br0 v16",
        "delif br0 v1",
        "setageing br0 5",
        "setfd br0 5",
        "setpathcost br0 v1 4",
        "setportprio br0 v1 4",
        "hairpin br0 v1 on",
        "stp br0 on",
        "setbridgeprio br0 4",
    ];
    for prefix in
        ["setpriv --bounding-set=-all --inh-caps=-all --no-new-privs", "unshare --user --map-root-user"]
    {
        for sys in [true, false] {
            twins.prefix = words(prefix);
            if !sys {
                twins.shell("mount -t tmpfs none /sys");
            }
            for line in changes.iter().chain(&["show", "showmacs br0", "showstp br1", "", "-x"]) {
                twins.line(line);
            }
            if !sys {
                twins.shell("umount /sys");
            }
        }
    }
    twins.end_alike();
}

#[test]
fn it_answers_to_its_name_and_as_a_subcommand() {
    let Some(room) = Room::new("it_answers_to_its_name_and_as_a_subcommand") else { return };
    room.shell("mount -t tmpfs none /run && ip link add br0 type bridge");
    room.shell(&format!("ln -s {OURS} /run/brctl"));
    let by = |program: &str, line: &str| {
        let mut command = Command::new(program);
        command.args(words(line));
        room.run(command)
    };
    let header = "bridge name\tbridge id\t\tSTP enabled\tinterfaces\n";
    for (program, line) in [("/run/brctl", "show br0"), (OURS, "brctl show br0"), (OURS, "brctl -- show br0")]
    {
        let said = by(program, line);
        assert_eq!(
            (said.out, said.err.as_str()),
            (format!("{header}br0\t\t8000.000000000000\tno\t\t\n"), "")
        );
    }
    assert_eq!(by(OURS, "brctl --version").out, "bridge-utils, 1.7\n");
    assert_eq!(by("/run/brctl", "-x").err, "/run/brctl: invalid option -- 'x'\nUnknown option '?'\n");
    assert!(by(OURS, "--version").out.starts_with("trestle "));
}

#[test]
fn json_tells_the_same() {
    let Some(room) = Room::new("json_tells_the_same") else { return };
    room.shell(LAID_OUT);
    room.shell("brctl hairpin br0 v1 on; brctl setageing br0 120.5");
    let json = |line: &str| -> serde_json::Value {
        let said = room.run(ours(&words(line)));
        assert_eq!((said.err.as_str(), said.code), ("", Some(0)), "{line}");
        serde_json::from_str(&said.out).expect("JSON")
    };
    let bridges = json("show -j");
    let names: Vec<_> =
        bridges.as_array().expect("a list").iter().map(|bridge| bridge["name"].as_str()).collect();
    assert_eq!(names, [Some("Br2"), Some("br-long"), Some("br0"), Some("br1")]);
    assert_eq!(bridges[3]["ports"], serde_json::json!(["v13"]));
    assert_eq!(bridges[3]["stp"], false);
    let macs = json("--json showmacs br0");
    assert_eq!(macs.as_array().expect("a list").len(), 1013);
    let stp = json("-j showstp br0");
    assert_eq!(stp["ageing_time_s"], 120.5);
    assert_eq!(stp["ports"].as_array().expect("a list").len(), 12);
    assert_eq!(stp["ports"][0]["hairpin"], true);
    assert_eq!(stp["ports"][0]["state"], "forwarding");
    let refused = room.run(ours(&words("show -j nosuch br1")));
    assert_eq!((refused.err.as_str(), refused.code), ("bridge nosuch does not exist!\n", Some(1)));
    assert!(refused.out.starts_with("[{\"id\":"), "{}", refused.out);
    let not_known = room.run(ours(&words("-j addbr x")));
    assert_eq!(not_known.err, "brctl: invalid option -- 'j'\nUnknown option '?'\n");
    assert!(!room.shell("ls /sys/class/net").contains('x'));
}
