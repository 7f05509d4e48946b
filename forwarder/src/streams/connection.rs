//! One TCP connection.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use mio::net::TcpStream;
use openvpn::{ids::PeerId, server::Path, wire::Opcode};
use socket2::{SockRef, TcpKeepalive};

use super::{
    Settings, canonical,
    outbox::Outbox,
    unframe::{NoLength, Unframer},
};

/// A client says who it is at once. Too low closes connections over bad links, too high keeps those of scanners.
const FIRST_WORD: Duration = Duration::from_secs(8);
/// After `hand-window` a session is given up; what it said last still gets so long.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Finds connections whose other end vanished, also where no `keepalive` does: within two minutes.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// A connection and what waits on it.
#[derive(Debug)]
pub(super) struct Connection {
    pub stream: TcpStream,
    pub path: Path,
    pub unframer: Unframer,
    pub outbox: Outbox,
    /// Whose path it is.
    pub peer: Option<PeerId>,
    accepted: Instant,
    /// Its first packet began a session.
    pub greeted: bool,
    /// The kernel has, or may have, bytes that were not read.
    pub readable: bool,
    /// Nothing more will come.
    pub ended: bool,
    /// It stands in the list of those to be read, or of those to be written.
    pub in_ready: bool,
    pub in_dirty: bool,
}

/// What the next packet is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// To be passed on, then consumed.
    Control(&'a [u8]),
    /// To be passed on to the peer's worker, then consumed.
    Data(PeerId, &'a [u8]),
    /// A data packet of nobody.
    Stray,
    /// Not all there.
    Nothing,
}

impl Connection {
    /// A connection that was just accepted.
    ///
    /// # Errors
    /// It is gone already.
    pub fn new(stream: TcpStream, settings: &Settings, now: Instant) -> io::Result<Self> {
        let path = Path::tcp(canonical(stream.peer_addr()?), canonical(stream.local_addr()?));
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
        Ok(Self {
            stream,
            path,
            unframer: Unframer::new(settings.longest),
            outbox: Outbox::new(settings.queue_limit),
            peer: None,
            accepted: now,
            greeted: false,
            readable: true,
            ended: false,
            in_ready: false,
            in_dirty: false,
        })
    }

    /// When it is closed unless it is claimed, or at least greets, before.
    pub fn deadline(&self, settings: &Settings) -> Option<Instant> {
        let patience = if self.greeted { settings.hand_window + LAST_WORD } else { FIRST_WORD };
        self.peer.is_none().then(|| self.accepted + patience)
    }

    /// Reads once, as much as there is room for.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn read(&mut self) -> io::Result<()> {
        let room = self.unframer.room();
        let wanted = room.len();
        match self.stream.read(room) {
            Ok(0) => (self.readable, self.ended) = (false, true),
            Ok(count) => {
                self.unframer.filled(count);
                // Less than was asked for: the kernel has no more, and tells when it has.
                self.readable = count == wanted;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What the next packet is.
    ///
    /// # Errors
    /// Nothing that an OpenVPN client says here.
    pub fn next(&self) -> Result<Next<'_>, NoLength> {
        let Some(packet) = self.unframer.next()? else { return Ok(Next::Nothing) };
        let opcode = packet.first().copied().and_then(Opcode::from_first_byte).ok_or(NoLength)?;
        if !self.greeted && !matches!(opcode, Opcode::HardResetClient | Opcode::HardResetClientV3) {
            return Err(NoLength);
        }
        Ok(match (opcode.is_data(), self.peer) {
            (false, _) => Next::Control(packet),
            (true, Some(peer)) => Next::Data(peer, packet),
            (true, None) => Next::Stray,
        })
    }

    /// The packet that [`Self::next`] gave is dealt with.
    pub fn consume(&mut self) {
        self.greeted = true;
        self.unframer.consume();
    }
}
