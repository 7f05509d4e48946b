//! One session that is up.

use std::{
    fmt, io,
    net::{SocketAddrV4, UdpSocket},
    time::Instant,
};

use openvpn::{
    client::{Client, Connected, Event},
    data::{DataChannel, OCC_EXIT, Opened, SealError},
    ids::PeerId,
};

use super::{Handshake, Reason};

/// Room for a sealed message that is no frame: a keepalive, an exit.
const MESSAGE: usize = 64;
/// Opcodes of data packets, DATA_V1 and DATA_V2, in the five high bits of a packet's first byte.
const DATA_OPCODES: [u8; 2] = [6, 9];
/// Packets taken from one socket before others have their turn.
const BATCH: usize = 64;

/// One session with the server. Frames are sealed and opened with [`Session::channel_mut`]; whatever a caller sends by
/// ways of his own he tells with [`Session::has_sent`] and [`Session::has_heard`], for keepalive to know.
pub struct Session {
    number: usize,
    local: SocketAddrV4,
    remote: SocketAddrV4,
    handshake: Handshake,
    connected: Connected,
    channel: DataChannel,
    client: Client,
    socket: UdpSocket,
    heard: Instant,
    sent: Instant,
    /// Keys that came after the first.
    rekeys: u32,
    over: Option<Reason>,
}

impl Session {
    pub(super) fn new(
        number: usize,
        (local, remote): (SocketAddrV4, SocketAddrV4),
        handshake: Handshake,
        connected: Connected,
        channel: DataChannel,
        client: Client,
        socket: UdpSocket,
    ) -> Self {
        let (heard, sent) = (handshake.ended, handshake.ended);
        let mut session = Self {
            number,
            local,
            remote,
            handshake,
            connected,
            channel,
            client,
            socket,
            heard,
            sent,
            rekeys: 0,
            over: None,
        };
        session.drain(handshake.ended);
        session.rekeys = 0;
        session
    }

    /// Which session it is, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Our address and port.
    pub fn local(&self) -> SocketAddrV4 {
        self.local
    }

    /// The server's.
    pub fn remote(&self) -> SocketAddrV4 {
        self.remote
    }

    /// What stands in its data packets.
    pub fn peer_id(&self) -> PeerId {
        self.connected.peer_id
    }

    /// The server's terms: cipher, framing, leased address, all pushed options.
    pub fn connected(&self) -> &Connected {
        &self.connected
    }

    /// When it came to be.
    pub fn handshake(&self) -> Handshake {
        self.handshake
    }

    /// How many rekeys there were.
    pub fn rekeys(&self) -> u32 {
        self.rekeys
    }

    /// Seals and opens.
    pub fn channel_mut(&mut self) -> &mut DataChannel {
        &mut self.channel
    }

    /// The socket, connected to the server and non-blocking.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Channel and socket at once.
    pub fn parts_mut(&mut self) -> (&mut DataChannel, &UdpSocket) {
        (&mut self.channel, &self.socket)
    }

    /// Data packets were sent to the server at `now`.
    pub fn has_sent(&mut self, now: Instant) {
        self.sent = self.sent.max(now);
    }

    /// An authentic data packet of the server was opened at `now`.
    pub fn has_heard(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
    }

    /// Why it is over, if it is.
    pub fn over(&self) -> Option<&Reason> {
        self.over.as_ref()
    }

    pub(super) fn end(&mut self, reason: Reason) {
        self.over.get_or_insert(reason);
    }

    /// Seals `frame` and sends it by the session's socket; for a frame now and then.
    ///
    /// # Errors
    /// There is no key to seal with, or the frame is too long.
    pub fn send(&mut self, now: Instant, frame: &[u8]) -> Result<(), SealError> {
        let mut packet = vec![0; frame.len() + openvpn::data::MAX_OVERHEAD];
        let len = self.channel.seal(frame, &mut packet)?;
        self.send_packet(now, packet.get(..len).unwrap_or_default());
        Ok(())
    }

    /// Receives what has arrived at the socket, a batch at most, and hands the frames to `sink`. True when there may be
    /// more.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        buffers: &mut Buffers,
        sink: &mut impl FnMut(usize, &[u8]),
    ) -> bool {
        for _ in 0..BATCH {
            match self.socket.recv(&mut buffers.packet) {
                Ok(len) => {
                    let Buffers { packet, frame } = buffers;
                    self.handle_packet(now, packet.get(..len).unwrap_or_default(), frame, sink);
                }
                Err(error) => {
                    // Refused: the server is gone for now. Ping-restart decides, as in any client.
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::ConnectionRefused
                            | io::ErrorKind::Interrupted
                    ) {
                        self.end(Reason::Socket(error.to_string()));
                    }
                    return false;
                }
            }
        }
        true
    }

    /// A packet from the server, however it came: frames go to `sink` with the session's number. `frame` has room for
    /// the longest.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        packet: &[u8],
        frame: &mut [u8],
        sink: &mut impl FnMut(usize, &[u8]),
    ) {
        if !packet.first().is_some_and(|first| DATA_OPCODES.contains(&(first >> 3))) {
            // What comes to nothing is as good as lost.
            let _ = self.client.handle_datagram(now, packet);
            return self.drain(now);
        }
        match self.channel.open(packet, frame) {
            Ok(Opened::Frame { len }) => sink(self.number, frame.get(..len).unwrap_or_default()),
            Ok(Opened::Exit) => self.end(Reason::ServerLeft),
            Ok(Opened::Ping | Opened::Occ | Opened::Fragment) => {}
            // Forged, replayed, under an unknown key: not heard.
            Err(_) => return,
        }
        self.has_heard(now);
    }

    /// Sees to keepalive, rekeying and time-outs.
    pub(super) fn tick(&mut self, now: Instant) {
        self.client.handle_activity(self.heard, self.sent);
        if self.channel.take_rekey_request() {
            self.client.handle_rekey_request(now);
        }
        if self.client.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.client.handle_timeout(now);
        }
        self.drain(now);
    }

    /// Asks for new keys: a server that still knows the session answers.
    pub(super) fn rekey(&mut self, now: Instant) {
        self.client.handle_rekey_request(now);
        self.drain(now);
    }

    /// Tells the server that we leave, in the way it asked for, else in the old one.
    pub(super) fn leave(&mut self, now: Instant) {
        let by_control = self.connected.options.iter().any(|option| {
            option.starts_with("protocol-flags") && option.split(' ').any(|flag| flag == "cc-exit")
        });
        if !by_control && self.over.is_none() {
            self.send_message(now, &OCC_EXIT);
        }
        self.client.exit(now);
        self.drain(now);
    }

    /// True once nothing is left to be said.
    pub(super) fn has_left(&self) -> bool {
        self.client.is_closed()
    }

    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.client.poll_event() {
            self.handle_event(now, event);
        }
        flush(&mut self.client, &self.socket);
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected(_) => {}
            Event::KeyInstalled { key_id, keys } => {
                self.channel.install(key_id, *keys);
                self.rekeys += 1;
            }
            Event::SendWith { key_id } => self.channel.send_with(key_id),
            Event::KeyRetired { key_id } => self.channel.retire(key_id),
            Event::PingDue => self.send_message(now, &openvpn::data::PING),
            Event::Closed(reason) => self.end(Reason::Closed(reason)),
        }
    }

    fn send_message(&mut self, now: Instant, message: &[u8]) {
        let mut packet = [0; MESSAGE];
        if let Ok(len) = self.channel.seal(message, &mut packet) {
            self.send_packet(now, packet.get(..len).unwrap_or_default());
        }
    }

    fn send_packet(&mut self, now: Instant, packet: &[u8]) {
        // What the kernel does not take is lost, as on the way.
        let _ = self.socket.send(packet);
        self.has_sent(now);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("number", &self.number)
            .field("local", &self.local)
            .field("channel", &self.channel)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// Memory to receive and open into.
pub(super) struct Buffers {
    packet: Vec<u8>,
    pub frame: Vec<u8>,
}

impl Buffers {
    /// For any UDP packet.
    pub fn new() -> Self {
        Self { packet: vec![0; 65_536], frame: vec![0; 65_536] }
    }
}

/// Sends the control packets that wait.
pub(super) fn flush(client: &mut Client, socket: &UdpSocket) {
    while let Some(packet) = client.poll_transmit() {
        // What the kernel does not take is lost, as on the way: retransmission sees to it.
        let _ = socket.send(&packet);
    }
}
