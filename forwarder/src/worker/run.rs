//! The thread around the turns: it turns while there is work, and sleeps while there is none.

use std::{
    os::fd::BorrowedFd,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    Expected, Ports, Worker,
    waking::{Next, Waking},
};
use crate::ports::Port;

/// A worker with fragments that it may have to hand on sleeps no longer.
const UNSETTLED: Duration = Duration::from_millis(1);

/// How often the kernel's own counters of losses are read.
const SURVEY: Duration = Duration::from_secs(1);

/// Milliseconds that the others are slept on while a port is broken: its interface was removed, and all it has to say, at once
/// and for ever, is that. Too low costs CPU time, too high delays what a port has that is broken for a moment only.
const BROKEN_SLEEP_MS: u8 = 10;

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    /// Turns until told to stop, then sends what is left.
    #[expect(clippy::disallowed_methods, reason = "the worker's clock is read here, once a turn")]
    pub fn run(mut self) {
        let mut waking = Waking::new(Instant::now());
        let mut next_survey = Instant::now();
        while !self.stopped {
            let now = Instant::now();
            let received = self.turn(now);
            if now >= next_survey {
                self.survey();
                next_survey = now + SURVEY;
            }
            match waking.after_turn(now, received, self.has_leftovers()) {
                Next::Turn => std::hint::spin_loop(),
                Next::Ask => self.watch(Duration::ZERO),
                Next::Sleep(longest) if !self.stopped => self.watch(longest.min(self.longest_sleep())),
                Next::Sleep(_) => {}
            }
        }
        self.expected = Expected::default();
        self.turn(Instant::now());
    }

    /// Fragments whose others may have come to another worker are looked at again soon.
    pub(super) fn longest_sleep(&self) -> Duration {
        if self.handovers.workers() > 1 && self.reassembly.has_unsettled() {
            UNSETTLED
        } else {
            Duration::MAX
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

    /// Sleeps until a port has something or the bell rings, at most for `longest`, and notes where to look.
    fn watch(&mut self, longest: Duration) {
        let Self { ports: Ports { nic, tunnel, host }, mailbox, expected, .. } = self;
        let bell = mailbox.readable();
        // A port that does not tell is looked at anyway: the bell stands in its place.
        let host = host.as_ref().and_then(Port::readable);
        let ports = [nic.readable(), tunnel.readable(), host, None];
        let mut watched = ports.map(|port| watch(port.unwrap_or(bell)));
        // An interrupted or failed poll is a short sleep that says nothing: the next one does.
        let _ = poll(&mut watched, PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX));
        expected.note(&watched);
        if !longest.is_zero() && watched.iter().any(is_broken) && !watched.iter().any(is_ready) {
            watched.iter_mut().filter(|port| is_broken(port)).for_each(|port| *port = watch(bell));
            let _ = poll(&mut watched, BROKEN_SLEEP_MS);
            expected.note(&watched);
        }
        if watched.last().is_some_and(is_ready) {
            mailbox.quiet();
        }
    }
}

impl Expected {
    /// Notes what `poll` said of NIC, tunnel, host port and bell. An error is something to look at: that takes it away.
    fn note(&mut self, watched: &[PollFd<'_>; 4]) {
        let [_, tunnel, host, _] = watched.each_ref().map(|port| port.any().unwrap_or(true));
        self.tunnel |= tunnel;
        self.host |= host;
    }
}

fn watch(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

fn is_ready(watched: &PollFd<'_>) -> bool {
    watched.revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
}

fn is_broken(watched: &PollFd<'_>) -> bool {
    let broken = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    !is_ready(watched) && watched.revents().is_some_and(|events| events.intersects(broken))
}
