//! Messages of the TLS stream after key exchange: NUL-terminated text. Source: brief A.8.

/// A message we act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Client: send me my options.
    PushRequest,
    /// Server: options, or a part of them.
    PushReply(&'a str),
    /// Client: I leave.
    Exit,
    /// Server: start anew; the text says whether here or at the next remote.
    Restart(&'a str),
    /// Server: go and stay away.
    Halt(&'a str),
    /// Server: you may not in; the text says why.
    AuthFailed(&'a str),
    /// Anything else.
    Other(&'a str),
}

impl<'a> Command<'a> {
    /// What `text` (without its NUL) says.
    pub fn parse(text: &'a str) -> Self {
        let (word, rest) = text.split_once(',').unwrap_or((text, ""));
        match word {
            "PUSH_REQUEST" => Self::PushRequest,
            "PUSH_REPLY" => Self::PushReply(rest),
            "EXIT" => Self::Exit,
            "RESTART" => Self::Restart(rest),
            "HALT" => Self::Halt(rest),
            "AUTH_FAILED" => Self::AuthFailed(rest),
            _ => Self::Other(text),
        }
    }
}

/// Longest message kept while its NUL is awaited.
pub const MAX_LEN: usize = 2048;

/// Takes the first whole message off the front of `stream`; `None` when there is none yet. Empty messages are
/// skipped, and bytes that are not UTF-8 replaced: every message defined is ASCII.
///
/// # Errors
/// More than [`MAX_LEN`] bytes without a NUL.
pub fn take(stream: &mut Vec<u8>) -> Result<Option<String>, super::Malformed> {
    // All at once: each drain moves what is left, and a peer may send nothing but empty messages.
    let empty = stream.iter().position(|&byte| byte != 0).unwrap_or(stream.len());
    stream.drain(..empty);
    let Some(end) = stream.iter().position(|&byte| byte == 0) else {
        return if stream.len() > MAX_LEN { Err(super::Malformed) } else { Ok(None) };
    };
    let text = String::from_utf8_lossy(stream.get(..end).unwrap_or_default()).into_owned();
    stream.drain(..=end);
    Ok(Some(text))
}
