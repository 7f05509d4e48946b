//! Why a call ended, and what follows from it.

use std::time::Duration;

use openvpn::{client::CloseReason, server::GoneReason};

use super::targets::Next;

/// Before a server that starts anew is called again. A stock one says RESTART and ends 2 s later (multi.c
/// `multi_push_restart_schedule_exit`); until then it lets in whom it knows by address and port, who must not be caught in
/// its end: a second too early costs `hand-window`.
const RESTART_PAUSE: Duration = Duration::from_secs(3);

/// Why a call ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ending {
    /// The session is over.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The server said on the data channel that it leaves.
    #[error("the server leaves")]
    Left,
    /// Nothing came back.
    #[error("no answer: see whether the server runs, and whether its UDP port is reached from here")]
    NoAnswer,
    /// The remote's name stands for no address.
    #[error("its name is not found ({0}): correct `remote`, or see to the resolver")]
    Unresolved(String),
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sequel {
    /// Somebody is called again, after at least so long.
    Call(Next, Duration),
    /// The gateway ends, as the sentence says.
    GiveUp(String),
}

impl Ending {
    /// What follows, if the session was up before, and `ping-exit` rather than `ping-restart` was asked for.
    pub(super) fn sequel(&self, was_connected: bool, exit_on_silence: bool) -> Sequel {
        // Source: init.c, `next_connection_entry` and where `no_advance` is set.
        let by_default = if was_connected { Next::Same } else { Next::Address };
        match self {
            Self::Closed(CloseReason::Refused(text)) => refused(text),
            Self::Closed(CloseReason::Halted(text)) => {
                Sequel::GiveUp(format!("the server tells us to go: {}", words(text)))
            }
            Self::Closed(CloseReason::PingTimeout) if exit_on_silence => {
                Sequel::GiveUp("the server has fallen silent, and `ping-exit` says to end then".into())
            }
            Self::Closed(CloseReason::Restart(text)) => {
                let next = if flags(text).contains('N') { Next::Remote } else { Next::Same };
                Sequel::Call(next, RESTART_PAUSE)
            }
            _ => Sequel::Call(by_default, Duration::ZERO),
        }
    }

    /// How the peer's end is told in the log of peers.
    pub(super) fn gone(&self) -> GoneReason {
        match self {
            Self::Closed(CloseReason::PingTimeout) => GoneReason::PingTimeout,
            Self::Closed(CloseReason::RekeyFailed) => GoneReason::RekeyFailed,
            Self::Closed(CloseReason::Restart(_) | CloseReason::Exit) | Self::Left => GoneReason::Exit,
            _ => GoneReason::Disconnected,
        }
    }
}

/// `AUTH_FAILED,TEMP[backoff N,advance no|addr|remote]:words` asks to come again; all else is meant for good. Source:
/// options_util.c `parse_auth_failed_temp`.
fn refused(text: &str) -> Sequel {
    let Some(rest) = text.strip_prefix("TEMP") else {
        return Sequel::GiveUp(format!(
            "the server refuses this client{}: the server's log says why",
            if text.is_empty() { String::new() } else { format!(" ({})", words(text)) }
        ));
    };
    let mut next = Next::Same;
    let mut pause = Duration::ZERO;
    for flag in flags(rest).split(',') {
        match flag.trim().split_once(' ') {
            Some(("backoff", seconds)) => {
                pause = Duration::from_secs(seconds.trim().parse::<u16>().unwrap_or(0).into());
            }
            Some(("advance", "addr")) => next = Next::Address,
            Some(("advance", "remote")) => next = Next::Remote,
            _ => {}
        }
    }
    Sequel::Call(next, pause)
}

/// What stands in the brackets that `text` begins with.
fn flags(text: &str) -> &str {
    text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("", |(flags, _)| flags)
}

/// What a server said, fit for a log: bounded, printable.
fn words(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequel(reason: CloseReason) -> Sequel {
        Ending::from(reason).sequel(true, false)
    }

    #[test]
    fn a_restart_goes_on_where_the_server_says() {
        let cases = [("", Next::Same), ("[P]", Next::Same), ("[N]", Next::Remote), ("[PN]", Next::Remote)];
        for (text, next) in cases {
            assert_eq!(
                sequel(CloseReason::Restart(text.into())),
                Sequel::Call(next, RESTART_PAUSE),
                "{text}"
            );
        }
    }

    #[test]
    fn a_refusal_is_for_good_unless_it_is_temporary() {
        let refused = |text: &str| sequel(CloseReason::Refused(text.into()));
        assert!(
            matches!(refused("no shared\ncipher"), Sequel::GiveUp(words) if words.contains("no shared_cipher"))
        );
        assert!(matches!(refused(""), Sequel::GiveUp(_)));
        assert_eq!(refused("TEMP"), Sequel::Call(Next::Same, Duration::ZERO));
        let full = "TEMP[backoff 42,advance remote]:come later";
        assert_eq!(refused(full), Sequel::Call(Next::Remote, Duration::from_secs(42)));
        assert_eq!(refused("TEMP[advance addr]"), Sequel::Call(Next::Address, Duration::ZERO));
        assert_eq!(refused("TEMP[backoff 99999999"), Sequel::Call(Next::Same, Duration::ZERO));
    }

    #[test]
    fn what_never_came_up_is_tried_elsewhere() {
        for ending in [Ending::NoAnswer, Ending::Unresolved("x".into()), CloseReason::RekeyFailed.into()] {
            assert_eq!(ending.sequel(false, false), Sequel::Call(Next::Address, Duration::ZERO), "{ending}");
            assert_eq!(ending.sequel(true, false), Sequel::Call(Next::Same, Duration::ZERO), "{ending}");
        }
    }

    #[test]
    fn ping_exit_ends_the_gateway() {
        assert!(matches!(Ending::from(CloseReason::PingTimeout).sequel(true, true), Sequel::GiveUp(_)));
    }
}
