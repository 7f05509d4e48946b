//! `--confirm`: who starts the gateway over the very network it takes over may lock himself out. Unless he says in time
//! that he is still there, everything is taken back.
//!
//! Two clocks run. The control loop's ends the gateway in good order. Behind it stands the kernel's alarm: should the
//! loop hang, SIGALRM ends the process, and the kernel takes back what is held by descriptors.

use std::time::{Duration, Instant};

use nix::unistd::alarm;

use super::Error;
use crate::management::status::Confirmed;

/// How long after its time the gateway may take to end in good order: peers are waited for two seconds, and a NIC
/// that is set up anew takes some more. Too short: settings of the NIC stay changed; too long: the admin waits.
const GRACE: Duration = Duration::from_secs(10);

/// Whether the gateway may stay.
#[derive(Debug)]
pub(super) struct Confirmation {
    asked: Option<Duration>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It may stay.
    Certain,
    /// Until then it may.
    Waiting(Instant),
    /// Nobody confirmed: it goes.
    Late,
}

impl Confirmation {
    /// Before the host is touched: the alarm runs from here on, so that a start that hangs is ended, too.
    pub fn ask(within: Option<Duration>) -> Self {
        if let Some(within) = within {
            set_alarm(within);
        }
        Self { asked: within, state: State::Certain }
    }

    /// The gateway runs: its time begins.
    pub fn begin(&mut self, now: Instant) {
        let Some(within) = self.asked else { return };
        set_alarm(within);
        self.state = State::Waiting(now + within);
        let seconds = within.as_secs();
        tracing::warn!("unless `trestle confirm` comes within {seconds} s, everything is taken back");
    }

    /// Somebody confirms.
    pub fn confirm(&mut self) -> Confirmed {
        match self.state {
            State::Certain => Confirmed::NothingToConfirm,
            State::Late => Confirmed::TooLate,
            State::Waiting(_) => {
                alarm::cancel();
                self.state = State::Certain;
                tracing::info!("confirmed: the gateway stays");
                Confirmed::Confirmed
            }
        }
    }

    /// When somebody must have confirmed; `None`: nobody need.
    pub fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(due) => Some(due),
            State::Certain | State::Late => None,
        }
    }

    /// True once: when the time is over.
    pub fn is_over(&mut self, now: Instant) -> bool {
        let over = self.due().is_some_and(|due| due <= now);
        if over {
            self.state = State::Late;
            tracing::warn!("nobody confirmed: everything is taken back");
        }
        over
    }

    /// Why the gateway ended, if it was for want of a confirmation.
    pub fn outcome(&self) -> Result<(), Error> {
        match (self.state, self.asked) {
            (State::Late, Some(within)) => Err(Error::NotConfirmed(within.as_secs())),
            _ => Ok(()),
        }
    }
}

fn set_alarm(within: Duration) {
    let seconds = within.saturating_add(GRACE).as_secs();
    alarm::set(u32::try_from(seconds).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// The one test that sets the process's alarm: there is only one.
    #[test]
    fn who_confirms_in_time_is_not_asked_again() {
        let now = Instant::now();
        let mut confirmation = Confirmation::ask(Some(MINUTE));
        assert_eq!(alarm::set(1000), Some(70), "a start that hangs is ended");
        confirmation.begin(now);
        assert_eq!(confirmation.due(), Some(now + MINUTE));
        assert!(!confirmation.is_over(now + MINUTE / 2));
        assert_eq!(confirmation.confirm(), Confirmed::Confirmed);
        assert_eq!(alarm::cancel(), None, "the alarm is off");
        assert!(!confirmation.is_over(now + 2 * MINUTE));
        assert_eq!(confirmation.confirm(), Confirmed::NothingToConfirm);
        assert!(confirmation.outcome().is_ok());
    }

    #[test]
    fn when_the_time_is_over_it_is_so_once_and_for_good() {
        let now = Instant::now();
        let state = State::Waiting(now + MINUTE);
        let mut confirmation = Confirmation { asked: Some(MINUTE), state };
        assert!(confirmation.is_over(now + MINUTE));
        assert!(!confirmation.is_over(now + MINUTE), "it is told once");
        assert_eq!(confirmation.confirm(), Confirmed::TooLate);
        let said = confirmation.outcome().unwrap_err().to_string();
        assert!(said.starts_with("nobody confirmed within 60 s"), "{said}");
    }

    #[test]
    fn without_the_option_there_is_nothing_to_confirm() {
        let mut confirmation = Confirmation::ask(None);
        confirmation.begin(Instant::now());
        assert_eq!((confirmation.due(), confirmation.confirm()), (None, Confirmed::NothingToConfirm));
    }
}
