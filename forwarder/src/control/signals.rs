//! The signals an operator sends, as something to read in the control loop.

use std::os::fd::{AsFd, BorrowedFd};

use nix::{
    errno::Errno,
    libc,
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// SIGTERM, SIGINT: tell the peers, and end.
    Stop,
    /// SIGUSR2: the status into the log, as OpenVPN does.
    LogStatus,
    /// SIGHUP, SIGUSR1: OpenVPN would read its file again.
    Reload,
}

/// The signals the gateway answers to.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// From now on these signals are read here. Threads started later inherit that, so this comes before them.
    pub fn take() -> Result<Self, Errno> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
            set.add(signal);
        }
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Self)
    }

    /// The next wish.
    pub fn next(&self) -> Option<Wish> {
        let info = self.0.read_signal().ok()??;
        match i32::try_from(info.ssi_signo) {
            Ok(libc::SIGUSR2) => Some(Wish::LogStatus),
            Ok(libc::SIGHUP | libc::SIGUSR1) => Some(Wish::Reload),
            _ => Some(Wish::Stop),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
