//! The supervisor's loop.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use serde_json::{Value, json};

use super::{
    accepted::{Accepted, accept},
    child::Segment,
    notify,
};
use crate::{
    cli::{Error, log},
    config::Server,
    control::{Signals, Wish},
    management::{
        socket::{Asked, ControlSocket},
        status::Request,
    },
};

/// How often segments are looked after.
const WATCH: Duration = Duration::from_millis(250);
const SIGNALS: Token = Token(0);
const MANAGEMENT: usize = 1;

/// Runs all segments of `file` until told to stop.
///
/// # Errors
/// What is wrong with the file, or the control socket at `control` cannot be made.
pub(in crate::cli) fn run(file: &Path, control: &Path) -> Result<(), Error> {
    log::start(&Server::none())?;
    let directory = control.parent().unwrap_or(Path::new("")).to_owned();
    let accepted = accept(file, &directory)?;
    let signals = Signals::take().map_err(|error| system(&error.into()))?;
    let mut management = ControlSocket::bind(control)?;
    let poll = Poll::new().map_err(|error| system(&error))?;
    management.register(poll.registry(), MANAGEMENT).map_err(|error| system(&error))?;
    let fd = signals.as_fd().as_raw_fd();
    let registered = poll.registry().register(&mut SourceFd(&fd), SIGNALS, Interest::READABLE);
    registered.map_err(|error| system(&error))?;
    let mut supervisor =
        Supervisor { file: file.to_owned(), directory, segments: BTreeMap::new(), signals, management };
    supervisor.apply(accepted);
    notify::ready();
    supervisor.turn(poll)
}

fn system(error: &io::Error) -> Error {
    Error::new(format!(
        "the system does not let the supervisor wait for events ({error}): see the system's log"
    ))
}

struct Supervisor {
    file: PathBuf,
    directory: PathBuf,
    segments: BTreeMap<String, Segment>,
    signals: Signals,
    management: ControlSocket,
}

/// What became of each segment, by name.
type Outcome = BTreeMap<String, &'static str>;

impl Supervisor {
    fn turn(mut self, mut poll: Poll) -> Result<(), Error> {
        let mut events = Events::with_capacity(32);
        loop {
            match poll.poll(&mut events, Some(WATCH)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(system(&error)),
                _ => {}
            }
            for event in &events {
                self.handle_management(event.token());
            }
            while let Some(wish) = self.signals.next() {
                match wish {
                    Wish::Stop => return self.stop(),
                    Wish::Reload => drop(self.reload()),
                    Wish::LogStatus => tracing::info!("{}", self.overview()),
                }
            }
            self.watch();
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the supervisor's clock is read here, once a turn")]
    fn watch(&mut self) {
        let now = Instant::now();
        self.segments.iter_mut().for_each(|(name, segment)| segment.watch(name, now));
    }

    fn handle_management(&mut self, token: Token) {
        for (client, asked) in self.management.handle_ready(token) {
            let answer = match asked {
                Asked::Question(Request::Reload) => self.answer_reload(),
                Asked::Question(Request::Confirm) | Asked::Capture(_) | Asked::Guards(_) => {
                    json!({ "error": "that is asked of one segment: name it by --segment" })
                }
                Asked::Question(_) => self.overview(),
            };
            self.management.reply(client, &answer);
        }
    }

    /// Where each segment answers for itself.
    fn overview(&self) -> Value {
        let row = |segment: &Segment| json!({ "control": segment.accepted.control, "pid": segment.pid(), "restarts": segment.restarts });
        let rows: BTreeMap<_, _> = self.segments.iter().map(|(name, segment)| (name, row(segment))).collect();
        json!({ "segments": rows })
    }

    fn answer_reload(&mut self) -> Value {
        match self.reload() {
            Ok(outcome) => json!({ "reload": outcome }),
            Err(error) => json!({ "error": error.to_string() }),
        }
    }

    /// Judges the file anew, all of it; then, and only then, touches what has changed.
    fn reload(&mut self) -> Result<Outcome, Error> {
        notify::reloading();
        let accepted = accept(&self.file, &self.directory);
        let outcome = accepted.map(|accepted| self.apply(accepted));
        match &outcome {
            Ok(outcome) => tracing::info!(?outcome, "reloaded"),
            Err(error) => tracing::error!("nothing was changed: {error}"),
        }
        notify::ready();
        outcome
    }

    /// Stops come before starts: what one segment gives up another may take.
    fn apply(&mut self, mut accepted: BTreeMap<String, Accepted>) -> Outcome {
        let mut outcome = Outcome::new();
        let mut leaving = Vec::new();
        for (name, segment) in &mut self.segments {
            let verdict = match accepted.get(name) {
                Some(wanted) if *wanted == segment.accepted => "kept",
                Some(wanted) if segment.takes_live(wanted) => "applied live",
                Some(_) => "restarted",
                None => "stopped",
            };
            outcome.insert(name.clone(), verdict);
            if matches!(verdict, "kept" | "applied live") {
                accepted.remove(name).into_iter().for_each(|taken| segment.accepted = taken);
            } else {
                leaving.push(name.clone());
            }
        }
        self.end(leaving);
        self.begin(accepted, &mut outcome);
        outcome
    }

    /// All are told before the first is waited for.
    fn end(&mut self, names: Vec<String>) {
        let mut leaving: Vec<_> = names.iter().filter_map(|name| self.segments.remove(name)).collect();
        leaving.iter().for_each(Segment::tell_to_stop);
        leaving.iter_mut().for_each(Segment::stop);
    }

    #[expect(clippy::disallowed_methods, reason = "waiting may have taken seconds")]
    fn begin(&mut self, accepted: BTreeMap<String, Accepted>, outcome: &mut Outcome) {
        for (name, accepted) in accepted {
            let now = Instant::now();
            let mut segment = Segment::new(accepted, now);
            segment.watch(&name, now);
            outcome.entry(name.clone()).or_insert("started");
            self.segments.insert(name, segment);
        }
    }

    fn stop(mut self) -> Result<(), Error> {
        notify::stopping();
        self.end(self.segments.keys().cloned().collect());
        tracing::info!("stopped");
        Ok(())
    }
}
