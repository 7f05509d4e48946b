//! Control packets. Source: brief A.1, A.2.
//!
//! ```text
//!  0          1                 9        10             10+4n        10+4n+8     +4
//!  +----------+-----------------+--------+--------------+------------+-----------+---------+
//!  | opcode,  | sender's        | n acks | n packet ids | receiver's | packet id | payload |
//!  | key_id   | session id      | 0..=8  |              | session id | (not in   |         |
//!  |          |                 |        |              | (if n > 0) |  ACK_V1)  |         |
//!  +----------+-----------------+--------+--------------+------------+-----------+---------+
//!   \___________ Head _________/ \_________________________ Body ________________________/
//! ```
//! A wrapping (tls-auth, tls-crypt) stands between [`Head`] and [`Body`]; that is why they are parsed apart.

use super::{Malformed, cursor::Cursor};
use crate::ids::KeyId;

/// Most acknowledgements in one packet; readers reject more.
pub const MAX_ACKS: usize = 8;
/// Bytes of a [`Head`].
pub const HEAD_LEN: usize = 9;

/// The kinds of packet, data packets included so that the receiver can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// Begins a rekey.
    SoftReset = 3,
    /// Carries TLS bytes.
    Control = 4,
    /// Acknowledges, and nothing else: it has no packet id.
    Ack = 5,
    /// Data without peer id.
    DataV1 = 6,
    /// A client begins a session.
    HardResetClient = 7,
    /// The server answers.
    HardResetServer = 8,
    /// Data with peer id.
    DataV2 = 9,
    /// A client with tls-crypt-v2 begins a session.
    HardResetClientV3 = 10,
    /// TLS bytes with the wrapped client key appended (tls-crypt-v2).
    ControlWrappedKey = 11,
}

impl Opcode {
    /// The opcode in the high five bits of a packet's first byte; `None` for kinds that OpenVPN 2.4 and later do
    /// not send (key method 1) or that do not exist.
    pub const fn from_first_byte(byte: u8) -> Option<Self> {
        match byte >> 3 {
            3 => Some(Self::SoftReset),
            4 => Some(Self::Control),
            5 => Some(Self::Ack),
            6 => Some(Self::DataV1),
            7 => Some(Self::HardResetClient),
            8 => Some(Self::HardResetServer),
            9 => Some(Self::DataV2),
            10 => Some(Self::HardResetClientV3),
            11 => Some(Self::ControlWrappedKey),
            _ => None,
        }
    }

    /// True for packets that begin a negotiation, and carry nothing of TLS.
    pub const fn is_reset(self) -> bool {
        matches!(
            self,
            Self::SoftReset | Self::HardResetClient | Self::HardResetServer | Self::HardResetClientV3
        )
    }

    /// True for data packets.
    pub const fn is_data(self) -> bool {
        matches!(self, Self::DataV1 | Self::DataV2)
    }
}

/// What one end calls its session: eight random bytes, never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 8]);

impl SessionId {
    /// `None` for the all-zero value, which stands for "none".
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// As it stands in packets.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

/// Acknowledged packet ids, at most [`MAX_ACKS`].
#[derive(Clone, Copy, Default)]
pub struct Acks {
    ids: [u32; MAX_ACKS],
    /// `len <= MAX_ACKS`
    len: usize,
}

impl Acks {
    /// Appends `id`; false when there is no room.
    pub fn push(&mut self, id: u32) -> bool {
        let Some(slot) = self.ids.get_mut(self.len) else { return false };
        *slot = id;
        self.len += 1;
        true
    }

    /// The ids in the order they stand in the packet.
    pub fn as_slice(&self) -> &[u32] {
        self.ids.get(..self.len).unwrap_or_default()
    }
}

impl PartialEq for Acks {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Acks {}

impl std::fmt::Debug for Acks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl FromIterator<u32> for Acks {
    /// Takes the first [`MAX_ACKS`] ids.
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut acks = Self::default();
        for id in ids.into_iter().take(MAX_ACKS) {
            acks.push(id);
        }
        acks
    }
}

/// The part of a control packet that no wrapping hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What kind.
    pub opcode: Opcode,
    /// Which negotiation.
    pub key_id: KeyId,
    /// Whose: the sender's session id.
    pub session_id: SessionId,
}

impl Head {
    /// Splits `datagram` into its head and what follows it.
    ///
    /// # Errors
    /// Too short, a data packet, an unknown opcode, or an all-zero session id.
    pub fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut cursor = Cursor::new(datagram);
        let first = cursor.u8()?;
        let opcode = Opcode::from_first_byte(first).filter(|opcode| !opcode.is_data()).ok_or(Malformed)?;
        let session_id = SessionId::new(cursor.array()?).ok_or(Malformed)?;
        Ok((Self { opcode, key_id: KeyId::from_first_byte(first), session_id }, cursor.rest()))
    }

    /// Appends the head to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }

    /// As it stands in packets.
    pub fn bytes(&self) -> [u8; HEAD_LEN] {
        let first = (self.opcode as u8) << 3 | self.key_id.value();
        let [a, b, c, d, e, f, g, h] = self.session_id.bytes();
        [first, a, b, c, d, e, f, g, h]
    }
}

/// The part of a control packet that a wrapping protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// Acknowledged packet ids.
    pub acks: Acks,
    /// The receiver's session id; present exactly when `acks` is not empty.
    pub remote_session_id: Option<SessionId>,
    /// Place in the sender's sequence; absent exactly in [`Opcode::Ack`].
    pub packet_id: Option<u32>,
    /// TLS bytes.
    pub payload: &'a [u8],
}

impl<'a> Body<'a> {
    /// Reads what follows the head of a packet of kind `opcode`.
    ///
    /// # Errors
    /// Too short, more than [`MAX_ACKS`] acknowledgements, an all-zero session id, or bytes behind an ACK_V1.
    pub fn parse(opcode: Opcode, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let count = usize::from(cursor.u8()?);
        let mut acks = Acks::default();
        for _ in 0..count {
            acks.push(cursor.u32()?).then_some(()).ok_or(Malformed)?;
        }
        let remote_session_id = match count {
            0 => None,
            _ => Some(SessionId::new(cursor.array()?).ok_or(Malformed)?),
        };
        let packet_id = if opcode == Opcode::Ack { None } else { Some(cursor.u32()?) };
        if opcode == Opcode::Ack && !cursor.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { acks, remote_session_id, packet_id, payload: cursor.rest() })
    }

    /// Appends the body to `out`. The caller keeps the two presence rules of the fields.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let acks = self.acks.as_slice();
        // At most MAX_ACKS.
        out.push(u8::try_from(acks.len()).unwrap_or(0));
        for id in acks {
            out.extend_from_slice(&id.to_be_bytes());
        }
        if let Some(id) = self.remote_session_id.filter(|_| !acks.is_empty()) {
            out.extend_from_slice(&id.bytes());
        }
        if let Some(id) = self.packet_id {
            out.extend_from_slice(&id.to_be_bytes());
        }
        out.extend_from_slice(self.payload);
    }
}

/// A whole control packet without wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPacket<'a> {
    /// Opcode, key id and sender.
    pub head: Head,
    /// The rest.
    pub body: Body<'a>,
}

impl<'a> ControlPacket<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// See [`Head::parse`] and [`Body::parse`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let (head, rest) = Head::parse(datagram)?;
        let body = Body::parse(head.opcode, rest)?;
        Ok(Self { head, body })
    }

    /// The datagram.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN + 1 + 4 * MAX_ACKS + 8 + 4 + self.body.payload.len());
        self.head.emit(&mut out);
        self.body.emit(&mut out);
        out
    }
}
