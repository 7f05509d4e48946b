//! Connecting the sessions of a fleet.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{EVENTS, Fleet, TICK};
use crate::load::{
    Failure, LoadError, Plan, Reason, Session,
    dial::{Attempt, Progress},
};

/// Handshakes under way.
struct Dialling<'a> {
    plan: &'a Plan,
    stop: &'a AtomicBool,
    began: Instant,
    attempts: BTreeMap<usize, Box<Attempt>>,
    /// The first session that has not begun.
    next: usize,
}

impl Dialling<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.is_stopped() || self.began.elapsed() >= self.plan.time_out
    }
}

impl Fleet {
    pub(super) fn dial(&mut self, plan: &Plan, stop: &AtomicBool) -> Result<(), LoadError> {
        let began = Instant::now();
        let mut dialling = Dialling { plan, stop, began, attempts: BTreeMap::new(), next: 0 };
        if let Some(patience) = plan.one_certificate.filter(|_| plan.sessions > 1) {
            self.dial_until(&mut dialling, 1)?;
            self.dial_until(&mut dialling, 2)?;
            if !self.keeps_two(patience) {
                self.give_up(&dialling, |_| Reason::Replaced);
                return Ok(());
            }
        }
        self.dial_until(&mut dialling, plan.sessions)?;
        let waited = began.elapsed();
        let stopped = dialling.is_stopped();
        self.give_up(&dialling, |attempt| match attempt {
            _ if stopped => Reason::Interrupted,
            Some(attempt) => attempt.late(waited),
            None => Reason::Late { waited },
        });
        self.sessions.sort_by_key(Session::number);
        Ok(())
    }

    /// Connects the sessions below `end` that have not begun.
    fn dial_until(&mut self, dialling: &mut Dialling<'_>, end: usize) -> Result<(), LoadError> {
        while (dialling.next < end || !dialling.attempts.is_empty()) && !dialling.is_over() {
            self.begin(dialling, end)?;
            self.advance(dialling);
        }
        Ok(())
    }

    fn begin(&mut self, dialling: &mut Dialling<'_>, end: usize) -> Result<(), LoadError> {
        while dialling.next < end && dialling.attempts.len() < dialling.plan.at_once.max(1) {
            let number = dialling.next;
            dialling.next += 1;
            match Attempt::begin(dialling.plan, number, Instant::now())? {
                Ok(attempt) => self.enter(dialling, number, attempt)?,
                Err(reason) => self.failures.push(Failure { number, reason }),
            }
        }
        Ok(())
    }

    fn enter(&self, dialling: &mut Dialling<'_>, number: usize, attempt: Attempt) -> Result<(), LoadError> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
        self.epoll.add(attempt.socket.as_fd(), event).map_err(LoadError::os("wait for a socket"))?;
        dialling.attempts.insert(number, Box::new(attempt));
        Ok(())
    }

    /// Waits for packets of any session, for a tick at most, and sees to what is due.
    fn advance(&mut self, dialling: &mut Dialling<'_>) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = self.wait(TICK, &mut events);
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
            self.step_due(dialling, now);
        }
    }

    /// Attempts whose time has come: retransmissions, time-outs.
    fn step_due(&mut self, dialling: &mut Dialling<'_>, now: Instant) {
        let due = dialling.attempts.iter().filter(|(_, attempt)| attempt.is_due(now));
        let numbers: Vec<usize> = due.map(|(&number, _)| number).collect();
        for number in numbers {
            if let Some(attempt) = dialling.attempts.remove(&number) {
                self.step(dialling, number, attempt);
            }
        }
    }

    fn step(&mut self, dialling: &mut Dialling<'_>, number: usize, attempt: Box<Attempt>) {
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

    /// False if the server has dropped the first session for the second's sake, which it does without a word: it does
    /// not answer when the first asks for new keys.
    fn keeps_two(&mut self, patience: Duration) -> bool {
        let [first, _] = self.sessions.as_mut_slice() else { return true };
        let rekeys = first.rekeys();
        first.rekey(Instant::now());
        let until = Instant::now() + patience;
        while Instant::now() < until {
            self.turn(TICK, |_, _| {});
            if self.sessions.first().is_some_and(|first| first.rekeys() > rekeys) {
                return true;
            }
        }
        self.sessions.iter_mut().take(1).for_each(|first| first.end(Reason::Replaced));
        false
    }

    /// Enters those that are not up as failures.
    fn give_up(&mut self, dialling: &Dialling<'_>, reason: impl Fn(Option<&Attempt>) -> Reason) {
        for number in 0..dialling.plan.sessions {
            let attempt = dialling.attempts.get(&number).map(Box::as_ref);
            if attempt.is_some() || number >= dialling.next {
                self.failures.push(Failure { number, reason: reason(attempt) });
            }
        }
    }
}
