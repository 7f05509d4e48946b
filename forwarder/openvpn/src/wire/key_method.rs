//! The key-method 2 message: the first thing each end says inside TLS. Source: brief A.6.
//!
//! ```text
//! u32 0 | u8 2 | [client only: pre_master 48] | random1 32 | random2 32
//!       | options | username | password | peer_info        each u16 length with the NUL, bytes, NUL; 0 = absent
//! ```

use super::{Malformed, cursor::Cursor};

/// Longest options string accepted.
const MAX_OPTIONS: usize = 512;
/// Longest message accepted: four strings at their largest sensible size. Upstream's buffer has 2048 bytes.
pub const MAX_LEN: usize = 8192;

/// What the message holds.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyMethod {
    /// Seed of the pseudo-random function; the client's message has it, the server's has not.
    pub pre_master: Option<[u8; 48]>,
    /// First random of the sender.
    pub random1: [u8; 32],
    /// Second random of the sender.
    pub random2: [u8; 32],
    /// Options consistency string; empty from small builds.
    pub options: Vec<u8>,
    /// User name, or empty.
    pub username: Vec<u8>,
    /// Password, or empty.
    pub password: Vec<u8>,
    /// Lines `KEY=value`, or empty.
    pub peer_info: Vec<u8>,
}

impl std::fmt::Debug for KeyMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyMethod")
            .field("options", &String::from_utf8_lossy(&self.options))
            .field("peer_info", &String::from_utf8_lossy(&self.peer_info))
            .finish_non_exhaustive()
    }
}

impl KeyMethod {
    /// Reads a message and says how many bytes it took. `from_client` decides whether a pre-master is expected.
    /// A message may end early: what follows the randoms is optional (brief C.13).
    ///
    /// # Errors
    /// Another key method, randoms cut off, a string without its NUL or longer than allowed.
    pub fn parse(bytes: &[u8], from_client: bool) -> Result<(Self, usize), Malformed> {
        let mut cursor = Cursor::new(bytes);
        // The upper four bits of the method byte are flags no release has used.
        if cursor.u32()? != 0 || cursor.u8()? & 0x0f != 2 {
            return Err(Malformed);
        }
        let pre_master = if from_client { Some(cursor.array()?) } else { None };
        let message = Self {
            pre_master,
            random1: cursor.array()?,
            random2: cursor.array()?,
            options: string(&mut cursor, MAX_OPTIONS)?,
            username: string(&mut cursor, MAX_LEN)?,
            password: string(&mut cursor, MAX_LEN)?,
            peer_info: string(&mut cursor, MAX_LEN)?,
        };
        Ok((message, bytes.len() - cursor.rest().len()))
    }

    /// The message as it goes into TLS, in one write. Strings longer than 65534 bytes are left out.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![0, 0, 0, 0, 2];
        out.extend_from_slice(self.pre_master.as_ref().map_or(&[], |secret| secret.as_slice()));
        out.extend_from_slice(&self.random1);
        out.extend_from_slice(&self.random2);
        for text in [&self.options, &self.username, &self.password, &self.peer_info] {
            emit_string(text, &mut out);
        }
        out
    }
}

fn string(cursor: &mut Cursor<'_>, max: usize) -> Result<Vec<u8>, Malformed> {
    if cursor.is_empty() {
        return Ok(Vec::new());
    }
    let len = usize::from(cursor.u16()?);
    if len > max + 1 {
        return Err(Malformed);
    }
    match cursor.bytes(len)?.split_last() {
        None => Ok(Vec::new()),
        Some((0, text)) => Ok(text.to_vec()),
        Some(_) => Err(Malformed),
    }
}

fn emit_string(text: &[u8], out: &mut Vec<u8>) {
    match u16::try_from(text.len() + 1) {
        Ok(len) if !text.is_empty() => {
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(text);
            out.push(0);
        }
        _ => out.extend_from_slice(&[0, 0]),
    }
}
