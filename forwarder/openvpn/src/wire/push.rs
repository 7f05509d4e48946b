//! Push replies: the options a server gives a client, in one message or several. Source: brief A.8.

/// The first word of every message.
const WORD: &str = "PUSH_REPLY";
/// Longest text of options in one message, before the mark of continuation. Clients have buffers of 1024 bytes.
const MAX_PART: usize = 940;
/// Ends a message that others follow.
const MORE: &str = "push-continuation 2";
/// Ends the last of several messages.
const LAST: &str = "push-continuation 1";

/// The messages that carry `options` in order, without their NULs. Options that contain a comma or do not fit a
/// message are the caller's error and are left out: configuration checks them.
pub fn messages(options: &[String]) -> Vec<String> {
    let mut parts = vec![String::from(WORD)];
    for option in options.iter().filter(|option| is_sendable(option)) {
        match parts.last_mut() {
            Some(part) if part.len() + 1 + option.len() <= MAX_PART => append(part, option),
            _ => parts.push(format!("{WORD},{option}")),
        }
    }
    let count = parts.len();
    if count > 1 {
        for (at, part) in parts.iter_mut().enumerate() {
            append(part, if at + 1 < count { MORE } else { LAST });
        }
    }
    parts
}

/// True if `option` can stand in a push reply: no comma, NUL or line break, short enough.
pub fn is_sendable(option: &str) -> bool {
    WORD.len() + 1 + option.len() <= MAX_PART && !option.contains([',', '\0', '\n', '\r'])
}

fn append(part: &mut String, option: &str) {
    part.push(',');
    part.push_str(option);
}

/// Puts the parts of a reply together: the client's side.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    options: Vec<String>,
}

/// Most options a client takes.
const MAX_OPTIONS: usize = 1024;

impl Assembly {
    /// Adds one message's options (the text behind `PUSH_REPLY,`). Returns all of them once the reply is whole.
    pub fn add(&mut self, text: &str) -> Option<Vec<String>> {
        let mut whole = true;
        for option in text.split(',').filter(|option| !option.is_empty()) {
            match option {
                MORE => whole = false,
                LAST => {}
                _ if self.options.len() < MAX_OPTIONS => self.options.push(option.to_owned()),
                _ => {}
            }
        }
        whole.then(|| std::mem::take(&mut self.options))
    }
}
