//! The thread around the turns: it turns while there is work, and sleeps while there is none.

use std::{
    os::fd::BorrowedFd,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Ports, Worker};
use crate::ports::Port;

/// An upper bound on sleep, against a wake-up lost by a driver. Costs nothing at once a second.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Turns without work in which leftovers are tried at once. Too low delays the end of a burst that the NIC takes
/// slowly; too high costs CPU time.
const PATIENCE: u64 = 64;

/// How long leftovers are left alone that nobody takes: a NIC without a carrier takes no frames for as long as it lasts.
const NAP: Duration = Duration::from_millis(1);

/// How often the kernel's own counters of losses are read.
const SURVEY: Duration = Duration::from_secs(1);

/// Milliseconds that the others are slept on while a port is broken: its interface was removed, and all it has to say, at once
/// and for ever, is that. Too low costs CPU time, too high delays what a port has that is broken for a moment only.
const BROKEN_SLEEP_MS: u8 = 10;

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    /// Turns until told to stop, then sends what is left.
    #[expect(clippy::disallowed_methods, reason = "the worker's clock is read here, once a turn")]
    pub fn run(mut self) {
        let mut next_survey = Instant::now();
        let mut idle_turns = 0_u64;
        while !self.stopped {
            let now = Instant::now();
            let received = self.turn(now);
            if now >= next_survey {
                self.survey();
                next_survey = now + SURVEY;
            }
            idle_turns = if received == 0 { idle_turns + 1 } else { 0 };
            if received == 0
                && !self.stopped
                && let Some(longest) = self.rest(idle_turns)
            {
                self.sleep(longest);
            }
        }
        self.turn(Instant::now());
    }

    /// How long to sleep at most after so many turns without work; `None`: another turn comes first.
    pub(super) fn rest(&self, idle_turns: u64) -> Option<Duration> {
        match (self.has_leftovers(), idle_turns) {
            // Fragments whose others may have come to another worker.
            (false, _) if self.handovers.workers() > 1 && self.reassembly.has_unsettled() => Some(NAP),
            (false, _) => Some(LONGEST_SLEEP),
            (true, ..PATIENCE) => None,
            (true, _) => Some(NAP),
        }
    }

    /// Asks the kernel what it lost ahead of the ports: system calls, so only now and then.
    fn survey(&self) {
        self.counters.missed_by_nic.store(self.ports.nic.missed(), Relaxed);
        self.counters.missed_by_tunnel.store(self.ports.tunnel.missed(), Relaxed);
    }

    /// A port has more for the next turn, although nothing will become readable for it.
    fn has_leftovers(&self) -> bool {
        let Ports { nic, tunnel, host } = &self.ports;
        nic.has_leftovers() || tunnel.has_leftovers() || host.as_ref().is_some_and(Port::has_leftovers)
    }

    /// Sleeps until a port has something or the bell rings.
    fn sleep(&self, longest: Duration) {
        let host = self.ports.host.as_ref().and_then(Port::readable);
        let ports = [self.ports.nic.readable(), self.ports.tunnel.readable(), host];
        let bell = self.mailbox.readable();
        let watched = ports.into_iter().flatten().chain([bell]);
        let mut watched: Vec<PollFd<'_>> = watched.map(watch).collect();
        let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
        // An interrupted or failed poll is a short sleep: the next turn looks at everything anyway.
        let _ = poll(&mut watched, timeout);
        if watched.iter().any(is_broken) && !watched.iter().any(is_ready) {
            watched.retain(|watched| !is_broken(watched));
            let _ = poll(&mut watched, BROKEN_SLEEP_MS);
        }
        self.mailbox.quiet();
    }
}

fn is_ready(watched: &PollFd<'_>) -> bool {
    watched.revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
}

fn is_broken(watched: &PollFd<'_>) -> bool {
    let broken = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    !is_ready(watched) && watched.revents().is_some_and(|events| events.intersects(broken))
}

fn watch(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}
