//! Network namespaces for tests: each lives as long as its thread.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{geteuid, getpid, gettid};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace of its own, and the thread that is in it.
pub(crate) struct Namespace {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    path: String,
}

impl Namespace {
    /// A new namespace with loopback up, or `None` without root, said aloud.
    pub(crate) fn new() -> Option<Self> {
        if !geteuid().is_root() {
            skip("it makes network namespaces, which needs root");
            return None;
        }
        let (jobs, inbox) = channel::<Job>();
        let (ready, path) = channel();
        let thread = std::thread::spawn(move || {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            ready.send(format!("/proc/{}/task/{}/ns/net", getpid(), gettid())).unwrap();
            inbox.into_iter().for_each(|job| job());
        });
        let Ok(path) = path.recv() else {
            skip("it makes network namespaces, which this root may not");
            return None;
        };
        let namespace = Self { jobs: Some(jobs), thread: Some(thread), path };
        namespace.ip("link set lo up");
        Some(namespace)
    }

    /// Runs `job` in the namespace. A panic in it is a panic here.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job = move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let _ = done.send(outcome);
        };
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        result.recv().unwrap().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// `ip ARGUMENTS` in the namespace.
    pub(crate) fn ip(&self, arguments: &str) {
        self.command("ip", arguments);
    }

    /// Any command in the namespace; what it printed.
    pub(crate) fn command(&self, program: &str, arguments: &str) -> String {
        let (program, arguments) = (program.to_owned(), arguments.to_owned());
        self.run(move || {
            let output = Command::new(&program).args(arguments.split_whitespace()).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments}: {error}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    /// Whether `ip ARGUMENTS` succeeds in the namespace.
    pub(crate) fn ip_takes(&self, arguments: &str) -> bool {
        let arguments = arguments.to_owned();
        self.run(move || {
            Command::new("ip").args(arguments.split_whitespace()).output().unwrap().status.success()
        })
    }

    /// Moves an interface here.
    pub(crate) fn take(&self, from: &Self, interface: &str) {
        from.ip(&format!("link set {interface} netns {}", self.path));
    }

    /// Joins two namespaces by a veth: `near` here, `far` there, both up.
    pub(crate) fn join(&self, near: &str, there: &Self, far: &str) {
        self.ip(&format!("link add {near} type veth peer name {far}"));
        there.take(self, far);
        self.ip(&format!("link set {near} up"));
        there.ip(&format!("link set {far} up"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A folder of its own, removed with what is in it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("trestle-host-{}-{number}", getpid()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An object file whose section `xdp` holds a program that passes everything; `None` without clang, said aloud.
pub(crate) fn passing_program(folder: &Folder) -> Option<PathBuf> {
    let source = "__attribute__((section(\"xdp\"), used)) int pass(void *frame) { return 2; }";
    folder.write("pass.c", source);
    let object = folder.path().join("pass.o");
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-target", "bpf", "-c", "-o"]).arg(&object).arg(folder.path().join("pass.c"));
    if clang.status().is_ok_and(|status| status.success()) {
        return Some(object);
    }
    skip("it attaches an XDP program, which needs clang to make one");
    None
}

/// Says, past the test harness's capture, that a test did not run.
pub(crate) fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Waits until `holds`, at most five seconds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < end, "not within five seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
