//! Handshakes done elsewhere: the expensive step of each leaves the server as a job and comes back as its result.
//!
//! ```text
//!   packet ─► Session ─► Job ─► poll_job ─► any thread: run ─► handle_job ─► Session goes on
//! ```
//! Meanwhile the session may be closed, repeat what it said, or time out like any other.

use std::{collections::VecDeque, time::Instant};

use super::{InstanceId, Server};
use crate::session;

/// Most jobs under way, abandoned ones included. Too low refuses some of many clients that come at once, too high lets
/// a flood of them keep others waiting: 2048 are done in about a second of one core.
const MAX_JOBS: usize = 2048;

/// The expensive step of one session's handshake.
pub struct Job {
    instance: InstanceId,
    job: session::Job,
}

/// What came of a [`Job`].
pub struct JobDone {
    instance: InstanceId,
    done: session::JobDone,
}

impl Job {
    /// Does the work, about half a millisecond of CPU with RSA-2048; next to nothing if the session is gone.
    #[must_use]
    pub fn run(self) -> JobDone {
        JobDone { instance: self.instance, done: self.job.run() }
    }
}

/// Jobs of all sessions.
#[derive(Default)]
pub(super) struct Jobs {
    /// Whether somebody carries them out.
    pub(super) wanted: bool,
    ready: VecDeque<Job>,
    /// Those in `ready` and those carried out at the moment.
    under_way: usize,
}

impl Jobs {
    pub(super) fn add(&mut self, instance: InstanceId, job: session::Job) {
        self.ready.push_back(Job { instance, job });
        self.under_way += 1;
    }

    /// False while more would only wait.
    pub(super) fn has_room(&self) -> bool {
        self.under_way < MAX_JOBS
    }
}

impl Server {
    /// From now on the expensive steps of new sessions' handshakes come out of [`Self::poll_job`]; without this they are
    /// done within `handle_datagram`.
    pub fn offload_handshakes(&mut self) {
        self.jobs.wanted = true;
    }

    /// The next job. Each must come back by [`Self::handle_job`], in any order.
    #[must_use]
    pub fn poll_job(&mut self) -> Option<Job> {
        self.jobs.ready.pop_front()
    }

    /// A job is done. That of a session that is gone comes to nothing.
    pub fn handle_job(&mut self, now: Instant, done: JobDone) {
        self.jobs.under_way = self.jobs.under_way.saturating_sub(1);
        self.visit(now, done.instance, |_, instance| instance.session.handle_job(now, done.done));
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for JobDone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobDone").field("instance", &self.instance).finish_non_exhaustive()
    }
}
