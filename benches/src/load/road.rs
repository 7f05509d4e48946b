//! How sealed packets leave: by the sessions' UDP sockets, or by AF_XDP.

use std::{fmt, time::Instant};

use openvpn::data::{MAX_OVERHEAD, SealError};

use super::{Fleet, Session, cargo::Cargo, nic::Nic, stamp::Stamp, tally::Tally, udp::Udp};

/// Most frames of one session that are sealed in a row: what one call sends.
pub(super) const BURST: usize = 64;

/// By which way packets leave and, as far as it has one, come.
pub(super) enum Road {
    /// The sessions' sockets.
    Udp(Udp),
    /// AF_XDP; packets too long for it, and what the kernel is left with, by the sockets.
    Nic(Box<Nic>),
}

impl Road {
    /// Seals `count` frames of `session` and sends them, or has them ready for [`Road::flush`].
    pub fn send(&mut self, session: &mut Session, burst: &mut Burst<'_>, count: usize) {
        match self {
            Self::Udp(udp) => udp.send(session, burst, count),
            Self::Nic(nic) => nic.send(session, burst, count),
        }
    }

    /// Sends what is ready.
    pub fn flush(&mut self) {
        match self {
            Self::Udp(_) => {}
            Self::Nic(nic) => nic.flush(),
        }
    }

    /// Takes what has arrived on the road itself; what comes to the sockets is the fleet's. True if there was anything.
    pub fn receive(&mut self, fleet: &mut Fleet, sink: &mut impl FnMut(usize, &[u8])) -> bool {
        match self {
            Self::Udp(_) => false,
            Self::Nic(nic) => nic.receive(fleet, sink),
        }
    }

    /// Frames the kernel dropped after it had taken them, as far as it tells.
    pub fn lost(&self) -> u64 {
        match self {
            Self::Udp(_) => 0,
            Self::Nic(nic) => nic.lost(),
        }
    }

    /// As the command line says it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Udp(_) => "socket",
            Self::Nic(_) => "af-xdp",
        }
    }
}

impl fmt::Debug for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(udp) => udp.fmt(f),
            Self::Nic(nic) => nic.fmt(f),
        }
    }
}

/// What a session's next frames are made with.
pub(super) struct Burst<'a> {
    pub cargo: &'a mut Cargo,
    pub tally: &'a mut Tally,
    /// Number of the session's next frame.
    pub sequence: &'a mut u32,
    pub now: Instant,
}

impl Burst<'_> {
    /// Room for the longest packet.
    pub fn room(cargo: &Cargo) -> usize {
        cargo.len() + MAX_OVERHEAD
    }

    /// Seals the session's next frame into `packet` and returns the packet's length.
    pub fn seal(&mut self, session: &mut Session, packet: &mut [u8]) -> Result<usize, SealError> {
        let number = u32::try_from(session.number()).unwrap_or(u32::MAX);
        let stamp =
            Stamp { session: number, sequence: *self.sequence, sent_ns: self.tally.elapsed_ns(self.now) };
        let len = session.channel_mut().seal(self.cargo.stamped(stamp), packet)?;
        *self.sequence = self.sequence.wrapping_add(1);
        Ok(len)
    }
}
