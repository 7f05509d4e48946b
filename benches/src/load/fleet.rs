//! Many sessions at once, on one thread.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    resource::{Resource, getrlimit, setrlimit},
};

use super::{
    dial::{Attempt, Plan, Progress},
    error::{Failure, LoadError, Reason},
    session::{Buffers, Session},
};

/// Timers are looked at this often: fine enough for the shortest, a retransmission after half a second.
const TICK: Duration = Duration::from_millis(10);
/// Sockets that are told to have something, at a time.
const EVENTS: usize = 64;
/// Descriptors besides the sessions' sockets.
const OTHER_FILES: u64 = 64;
/// How long last words are repeated.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The sessions that are up. Dropping it leaves without a word; see [`Fleet::leave`].
pub struct Fleet {
    sessions: Vec<Session>,
    failures: Vec<Failure>,
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
        let mut fleet = Self { sessions, failures, epoll, buffers: Buffers::new(), ticked: Instant::now() };
        fleet.dial(plan, stop)?;
        fleet.sessions.sort_by_key(Session::number);
        fleet.failures.sort_by_key(|failure| failure.number);
        if fleet.sessions.is_empty() {
            let why = fleet.failures.pop().map_or(Reason::Interrupted, |failure| failure.reason);
            return Err(LoadError::NotConnected { remote: plan.remote, why });
        }
        Ok(fleet)
    }

    /// The sessions that were connected; some may be over since, see [`Session::over`].
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// The sessions, to send with.
    pub fn sessions_mut(&mut self) -> &mut [Session] {
        &mut self.sessions
    }

    /// The sessions that were not connected.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
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

    /// Finds out whether the server still knows the sessions that came first. One that allows a certificate once only
    /// drops them without a word; they are ended here as [`Reason::Replaced`]. Takes `patience` in that case, and a
    /// rekey of one session in any.
    pub fn check_kept(&mut self, patience: Duration) {
        let [first, .., _] = self.sessions.as_mut_slice() else { return };
        let rekeys = first.rekeys();
        first.rekey(Instant::now());
        let until = Instant::now() + patience;
        while Instant::now() < until && self.sessions.first().is_some_and(|first| first.rekeys() == rekeys) {
            self.turn(TICK, |_, _| {});
        }
        if self.sessions.first().is_some_and(|first| first.rekeys() == rekeys)
            && let Some((_, earlier)) = self.sessions.split_last_mut()
        {
            earlier.iter_mut().for_each(|session| session.end(Reason::Replaced));
        }
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
        let count = self.epoll.wait(&mut events, time_out(wait)).unwrap_or(0);
        let now = Instant::now();
        for event in &events[..count] {
            let number = usize::try_from(event.data()).unwrap_or(usize::MAX);
            let Ok(at) = self.sessions.binary_search_by_key(&number, Session::number) else { continue };
            // Level-triggered: what a batch leaves comes with the next turn.
            self.sessions[at].receive(now, &mut self.buffers, sink);
        }
    }

    fn dial(&mut self, plan: &Plan, stop: &AtomicBool) -> Result<(), LoadError> {
        let mut dialling = Dialling { attempts: BTreeMap::new(), next: 0 };
        let began = Instant::now();
        while dialling.next < plan.sessions || !dialling.attempts.is_empty() {
            let waited = began.elapsed();
            if stop.load(Ordering::Relaxed) || waited >= plan.time_out {
                break;
            }
            self.begin(plan, &mut dialling)?;
            self.advance(&mut dialling);
        }
        self.give_up(plan, &dialling, began.elapsed(), stop.load(Ordering::Relaxed));
        Ok(())
    }

    fn begin(&mut self, plan: &Plan, dialling: &mut Dialling) -> Result<(), LoadError> {
        while dialling.next < plan.sessions && dialling.attempts.len() < plan.at_once.max(1) {
            let number = dialling.next;
            let attempt = Attempt::begin(plan, number, Instant::now())?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
            self.epoll.add(attempt.socket.as_fd(), event).map_err(LoadError::os("wait for a socket"))?;
            dialling.attempts.insert(number, Box::new(attempt));
            dialling.next += 1;
        }
        Ok(())
    }

    /// Waits for packets of any session, for a tick at most.
    fn advance(&mut self, dialling: &mut Dialling) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = self.epoll.wait(&mut events, time_out(TICK)).unwrap_or(0);
        for event in &events[..count] {
            let number = usize::try_from(event.data()).unwrap_or(usize::MAX);
            match dialling.attempts.remove(&number) {
                Some(attempt) => self.step(dialling, number, attempt),
                None => self.serve(number),
            }
        }
        let now = Instant::now();
        if now.saturating_duration_since(self.ticked) >= TICK {
            self.ticked = now;
            self.sessions.iter_mut().for_each(|session| session.tick(now));
            let due = |attempt: &Attempt| attempt.client.poll_timeout().is_some_and(|(at, _)| at <= now);
            let numbers: Vec<usize> = dialling
                .attempts
                .iter()
                .filter(|(_, attempt)| due(attempt))
                .map(|(&number, _)| number)
                .collect();
            for number in numbers {
                if let Some(attempt) = dialling.attempts.remove(&number) {
                    self.step(dialling, number, attempt);
                }
            }
        }
    }

    fn step(&mut self, dialling: &mut Dialling, number: usize, attempt: Box<Attempt>) {
        match attempt.advance(Instant::now(), &mut self.buffers.frame) {
            Progress::Pending(attempt) => {
                dialling.attempts.insert(number, attempt);
            }
            Progress::Up(session) => self.sessions.push(*session),
            Progress::Failed(reason) => self.failures.push(Failure { number, reason }),
        }
    }

    /// A session that is up already, while others shake hands: `sessions` is not in order yet.
    fn serve(&mut self, number: usize) {
        if let Some(session) = self.sessions.iter_mut().find(|session| session.number() == number) {
            session.receive(Instant::now(), &mut self.buffers, &mut |_, _| {});
        }
    }

    fn give_up(&mut self, plan: &Plan, dialling: &Dialling, waited: Duration, stopped: bool) {
        for number in 0..plan.sessions {
            let attempt = dialling.attempts.get(&number);
            let reason = match attempt {
                _ if number < dialling.next && attempt.is_none() => continue,
                _ if stopped => Reason::Interrupted,
                Some(attempt) => attempt.late(waited),
                None => Reason::Late { waited },
            };
            self.failures.push(Failure { number, reason });
        }
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

/// Handshakes under way.
struct Dialling {
    attempts: BTreeMap<usize, Box<Attempt>>,
    /// The first session that has not begun.
    next: usize,
}

/// A wait of less than a millisecond is none: the caller is in a hurry.
fn time_out(wait: Duration) -> EpollTimeout {
    u16::try_from(wait.as_millis()).map_or(EpollTimeout::from(u16::MAX), EpollTimeout::from)
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
#[path = "fleet_tests.rs"]
mod tests;
