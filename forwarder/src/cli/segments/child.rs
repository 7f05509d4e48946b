//! A segment's process: started, watched, stopped.

use std::{
    io,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::accepted::Accepted;
use crate::{
    cli::{Error, ask},
    management::status::Request,
};

/// How an answer begins that says so.
const TAKEN: &str = "{\"reload\"";
/// Peers are told within 2 s, and what was attached is taken back: twice that and a busy machine.
const STOP: Duration = Duration::from_secs(6);
/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// A segment that died is started again after so long, doubled each time up to the most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A segment that ran so long has proved itself: its next end is a first one.
const PROVED: Duration = Duration::from_secs(60);

fn taken(answer: Result<String, Error>) -> bool {
    answer.is_ok_and(|answer| answer.starts_with(TAKEN))
}

/// One segment, as accepted, and its process if it has one.
pub(super) struct Segment {
    pub accepted: Accepted,
    child: Option<Child>,
    begun: Instant,
    pause: Duration,
    next: Instant,
    /// Times it was started again because it had died.
    pub restarts: u32,
}

impl Segment {
    /// To be started at the next [`Self::watch`].
    pub fn new(accepted: Accepted, now: Instant) -> Self {
        Self { accepted, child: None, begun: now, pause: FIRST_PAUSE, next: now, restarts: 0 }
    }

    /// Its process, while it has one.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Has the running gateway take what it can without losing a peer; false: it must be restarted. Without the right to
    /// read its key again (`user`) it says so.
    pub fn takes_live(&self, wanted: &Accepted) -> bool {
        self.child.is_some()
            && self.accepted.can_become(wanted)
            && (self.accepted.has_certificates_of(wanted)
                || taken(ask::ask(&wanted.control, Request::Reload)))
            && (self.accepted.guards == wanted.guards
                || taken(ask::change_guards(&wanted.control, &wanted.guards)))
    }

    /// Finds out whether it has died, and starts it when it is time.
    pub fn watch(&mut self, name: &str, now: Instant) {
        if let Some(how) = self.ended() {
            let proved = now.saturating_duration_since(self.begun) >= PROVED;
            self.pause = if proved { FIRST_PAUSE } else { self.pause };
            self.next = now + self.pause;
            tracing::error!(segment = name, %how, "the segment died; it is started again in {:?}", self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            self.restarts = self.restarts.saturating_add(1);
        }
        if self.child.is_none() && now >= self.next {
            self.start(name, now);
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let how = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(how)
    }

    fn start(&mut self, name: &str, now: Instant) {
        self.begun = now;
        match self.spawn() {
            Ok(child) => {
                tracing::info!(segment = name, pid = child.id(), "segment started");
                self.child = Some(child);
            }
            Err(error) => {
                self.next = now + LONGEST_PAUSE;
                tracing::error!(segment = name, %error, "the segment cannot be started; tried again in {LONGEST_PAUSE:?}");
            }
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(self.accepted.command_line()).stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
        command.envs(self.accepted.log.map(|level| ("TRESTLE_LOG", level)));
        command.spawn()
    }

    /// Tells it to stop.
    pub fn tell_to_stop(&self) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        // It may have ended by itself: then there is nobody to tell.
        if let Some(Err(error)) = pid.map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM)) {
            tracing::debug!(%error, "the segment was not told to stop");
        }
    }

    /// Tells it to stop, and waits until it has.
    #[expect(clippy::disallowed_methods, reason = "the supervisor waits by the clock")]
    pub fn stop(&mut self) {
        self.tell_to_stop();
        let until = Instant::now() + STOP;
        while self.child.is_some() && self.ended().is_none() {
            if Instant::now() >= until {
                return self.kill();
            }
            thread::sleep(LOOK);
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            tracing::error!(pid = child.id(), "the segment does not stop: killed");
            // Both fail only where it has ended.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
