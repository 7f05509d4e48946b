//! Many sessions at once, on one thread.

mod dialling;

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        resource::{Resource, getrlimit, setrlimit},
        time::TimeSpec,
    },
};

use super::{
    dial::Plan,
    error::{Failure, LoadError, Reason},
    session::{Buffers, Session},
};

/// Timers are looked at this often: fine enough for the shortest, a retransmission after half a second.
const TICK: Duration = Duration::from_millis(10);
/// Sockets that are told to have something, at a time.
const EVENTS: usize = 64;
/// Descriptors besides the sessions' sockets.
const OTHER_FILES: u64 = 64;
/// What epoll calls a descriptor that is no session's.
const NOBODY: u64 = u64::MAX;
/// How long last words are repeated.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The sessions that are up. Dropping it leaves without a word; see [`Fleet::leave`].
pub struct Fleet {
    sessions: Vec<Session>,
    failures: Vec<Failure>,
    wanted: usize,
    epoll: Epoll,
    buffers: Buffers,
    ticked: Instant,
}

impl Fleet {
    /// Connects what `plan` asks for. Sessions that fail are listed in [`Fleet::failures`]; the others are here, in the
    /// order of their numbers. Raising `stop` ends it early.
    ///
    /// # Errors
    /// Not one session was connected, or the kernel or TLS refuses what all of them need.
    pub fn connect(plan: &Plan, stop: &AtomicBool) -> Result<Self, LoadError> {
        allow_files(plan.sessions);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(LoadError::os("wait for sockets"))?;
        let (sessions, failures) = (Vec::with_capacity(plan.sessions), Vec::new());
        let (wanted, buffers, ticked) = (plan.sessions, Buffers::new(), Instant::now());
        let mut fleet = Self { sessions, failures, wanted, epoll, buffers, ticked };
        fleet.dial(plan, stop)?;
        fleet.failures.sort_by_key(|failure| failure.number);
        if fleet.sessions.is_empty() {
            // The first one was tried longest: it knows most.
            let first = fleet.failures.into_iter().next();
            let why = first.map_or(Reason::Interrupted, |failure| failure.reason);
            return Err(LoadError::NotConnected { remote: plan.remote, why });
        }
        Ok(fleet)
    }

    /// The sessions that were connected; some may be over since, see [`Session::over`].
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// How many of them are not over.
    pub fn live(&self) -> usize {
        self.sessions.iter().filter(|session| session.over().is_none()).count()
    }

    /// How many sessions were asked for.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// The sessions, to send with.
    pub fn sessions_mut(&mut self) -> &mut [Session] {
        &mut self.sessions
    }

    /// Why sessions were not connected or are over, and how many for each reason.
    pub fn reasons(&self) -> BTreeMap<String, usize> {
        let over = self.sessions.iter().filter_map(Session::over);
        let mut reasons = BTreeMap::new();
        for reason in self.failures.iter().map(|failure| &failure.reason).chain(over) {
            *reasons.entry(reason.to_string()).or_default() += 1;
        }
        reasons
    }

    /// Session `number`, if it was connected.
    pub fn session_mut(&mut self, number: usize) -> Option<&mut Session> {
        let at = self.sessions.binary_search_by_key(&number, Session::number).ok()?;
        self.sessions.get_mut(at)
    }

    /// The sessions that were not connected.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Has [`Fleet::turn`] wake up when `file` is readable; what is there is the caller's to read.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn watch(&self, file: BorrowedFd<'_>) -> Result<(), LoadError> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, NOBODY);
        self.epoll.add(file, event).map_err(LoadError::os("wait for frames"))
    }

    /// Waits at most `wait` for packets, hands the frames in them to `sink` with the number of the session that
    /// received them, and sees to the timers. Call it again and again.
    pub fn turn(&mut self, wait: Duration, mut sink: impl FnMut(usize, &[u8])) {
        self.receive(wait, &mut sink);
        let now = Instant::now();
        if now.saturating_duration_since(self.ticked) >= TICK {
            self.ticked = now;
            self.sessions.iter_mut().for_each(|session| session.tick(now));
        }
    }

    /// Keeps the sessions alive, with little CPU, until `until` or until `stop` is raised. Frames are counted.
    pub fn hold(&mut self, until: Instant, stop: &AtomicBool) -> u64 {
        let mut frames = 0;
        while !stop.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.turn(left.min(Duration::from_millis(100)), |_, _| frames += 1);
        }
        frames
    }

    /// Tells the server that all leave, and waits a moment for it to have heard.
    pub fn leave(mut self) {
        let now = Instant::now();
        self.sessions.iter_mut().for_each(|session| session.leave(now));
        let until = now + LAST_WORDS;
        while Instant::now() < until && !self.sessions.iter().all(Session::has_left) {
            self.turn(TICK, |_, _| {});
        }
    }

    fn receive(&mut self, wait: Duration, sink: &mut impl FnMut(usize, &[u8])) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = self.wait(wait, &mut events);
        let now = Instant::now();
        for event in &events[..count] {
            let number = usize::try_from(event.data()).unwrap_or(usize::MAX);
            let Ok(at) = self.sessions.binary_search_by_key(&number, Session::number) else { continue };
            // Level-triggered: what a batch leaves comes with the next turn.
            self.sessions[at].receive(now, &mut self.buffers, sink);
        }
    }

    /// Waits for sockets, to the nanosecond, which `epoll_wait` does not.
    fn wait(&self, wait: Duration, events: &mut [EpollEvent]) -> usize {
        if !wait.is_zero() {
            let mut epoll = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
            // Interrupted or not, the next look shows what there is.
            let _ = ppoll(&mut epoll, Some(TimeSpec::from_duration(wait)), None);
        }
        self.epoll.wait(events, EpollTimeout::ZERO).unwrap_or(0)
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("sessions", &self.sessions.len())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// Every session has a socket: as many descriptors as the hard limit allows. What does not suffice shows at opening.
fn allow_files(sessions: usize) {
    let wanted = (sessions as u64).saturating_add(OTHER_FILES);
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < wanted
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard);
    }
}

#[cfg(test)]
mod tests;
