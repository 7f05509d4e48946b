//! `server.conf` into directives: OpenVPN's quoting, comments and inline blocks.
//!
//! A line is words between white space. `#` and `;` begin a comment where a word could begin. `"..."` and `'...'`
//! hold white space; a backslash outside single quotes takes the next character as it is, which must be a
//! backslash, a double quote or white space. A line `<name>` begins a block that stands in place of a file, up to
//! `</name>`. Source: `parse_line` and `read_inline_file` of options_parse.c.

use std::{fmt, path::Path};

use super::{
    error::{Error, Place},
    words,
};

/// Most words in a line, as upstream (`MAX_PARMS`).
const MAX_WORDS: usize = 16;
/// Longest configuration, in bytes: inline certificates and keys make some tens of kilobytes.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// One directive as it stands in the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it stands, counted from 1.
    pub number: u32,
    /// The directive's name, without leading dashes.
    pub name: String,
    /// What follows the name.
    pub words: Vec<String>,
    /// The contents of an inline block.
    pub block: Option<String>,
}

/// Without a block's text, which may be a private key.
impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {:?}", self.number, self.name, self.words)
    }
}

/// Splits `bytes` into directives. Does no IO: `file` only names the file in errors.
///
/// # Errors
/// Not UTF-8, a NUL, an open quote, a wrong backslash, an open block, too many words or bytes.
pub fn lines(bytes: &[u8], file: &Path) -> Result<Vec<Line>, Error> {
    let text = text(bytes, file)?;
    let mut found = Vec::new();
    let mut rest = (1_u32..).zip(text.lines());
    while let Some((number, line)) = rest.next() {
        let words = words(line).map_err(|fault| fault.at(Place::line(file, number)))?;
        let Some((name, words)) = words.split_first() else { continue };
        found.push(match block_name(name).filter(|_| words.is_empty()) {
            Some(name) => Line {
                number,
                name: name.to_owned(),
                words: Vec::new(),
                block: Some(block(name, number, &mut rest, file)?),
            },
            None => Line { number, name: undashed(name).to_owned(), words: words.to_vec(), block: None },
        });
    }
    Ok(found)
}

fn text<'a>(bytes: &'a [u8], file: &Path) -> Result<&'a str, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::at(
            Place::file(file),
            "the file is larger than 1 MiB",
            "name an OpenVPN server configuration",
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Error::at(
            Place::line(file, line_of(bytes, error.valid_up_to())),
            "the text is not UTF-8",
            "save the file as UTF-8",
        )
    })?;
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err(Error::at(
            Place::line(file, line_of(bytes, at)),
            "the line holds a NUL byte",
            "save the file as plain text",
        ));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The line in which byte `at` stands.
fn line_of(bytes: &[u8], at: usize) -> u32 {
    let ends = bytes.iter().take(at).filter(|&&byte| byte == b'\n').count();
    u32::try_from(ends).unwrap_or(u32::MAX).saturating_add(1)
}

fn block_name(word: &str) -> Option<&str> {
    word.strip_prefix('<')?.strip_suffix('>').filter(|name| !name.is_empty() && !name.starts_with('/'))
}

/// Directives may be written as on OpenVPN's command line.
fn undashed(name: &str) -> &str {
    name.strip_prefix("--").filter(|rest| !rest.is_empty()).unwrap_or(name)
}

fn block<'a>(
    name: &str,
    number: u32,
    rest: &mut impl Iterator<Item = (u32, &'a str)>,
    file: &Path,
) -> Result<String, Error> {
    let end = format!("</{name}>");
    let mut text = String::new();
    for (_, line) in rest {
        if line.trim_start().starts_with(&end) {
            return Ok(text);
        }
        text.push_str(line);
        text.push('\n');
    }
    Err(Error::at(
        Place::line(file, number),
        format!("the block <{}> does not end", words::shown(name)),
        format!("write </{}> on a line of its own behind it", words::shown(name)),
    ))
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    OpenQuote,
    Backslash,
    TooManyWords,
}

impl Fault {
    fn at(self, place: Place) -> Error {
        let (sentence, cure) = match self {
            Self::OpenQuote => ("a quotation does not end", "close it in the same line"),
            Self::Backslash => (
                "a backslash stands before a character that needs none",
                "write \\\\ for a backslash, or put the word in single quotes",
            ),
            Self::TooManyWords => ("the line has more than 16 words", "put what belongs together in quotes"),
        };
        Error::at(place, sentence, cure)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Plain,
    Double,
    Single,
}

fn words(line: &str) -> Result<Vec<String>, Fault> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut state = State::Between;
    let mut characters = line.chars();
    while let Some(read) = characters.next() {
        let escaped = read == '\\' && state != State::Single;
        let character = if escaped { escape(characters.next())? } else { read };
        let (next, keep) = step(state, character, escaped);
        if state == State::Between && next == State::Between && matches!(character, '#' | ';') {
            break;
        }
        if keep {
            word.push(character);
        }
        if state != State::Between && next == State::Between {
            finish(&mut words, &mut word)?;
        }
        state = next;
    }
    match state {
        State::Between => {}
        State::Plain => finish(&mut words, &mut word)?,
        State::Double | State::Single => return Err(Fault::OpenQuote),
    }
    Ok(words)
}

fn finish(words: &mut Vec<String>, word: &mut String) -> Result<(), Fault> {
    if words.len() == MAX_WORDS {
        return Err(Fault::TooManyWords);
    }
    words.push(std::mem::take(word));
    Ok(())
}

fn escape(next: Option<char>) -> Result<char, Fault> {
    next.filter(|&character| matches!(character, '\\' | '"') || character.is_ascii_whitespace())
        .ok_or(Fault::Backslash)
}

/// Where reading stands after `character`, and whether it belongs to the word.
fn step(state: State, character: char, escaped: bool) -> (State, bool) {
    let space = character.is_ascii_whitespace();
    match state {
        State::Between if space => (State::Between, false),
        State::Between if matches!(character, '#' | ';') => (State::Between, false),
        State::Between if character == '"' && !escaped => (State::Double, false),
        State::Between if character == '\'' => (State::Single, false),
        State::Between => (State::Plain, true),
        State::Plain if space && !escaped => (State::Between, false),
        State::Double if character == '"' && !escaped => (State::Between, false),
        State::Single if character == '\'' => (State::Between, false),
        same => (same, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        words(line).unwrap()
    }

    #[test]
    fn words_stand_between_white_space() {
        assert_eq!(
            split("  server-bridge\t10.10.21.5 255.255.255.0 \r"),
            ["server-bridge", "10.10.21.5", "255.255.255.0"]
        );
        assert!(split("   ").is_empty());
    }

    #[test]
    fn comments_begin_where_a_word_could_begin() {
        assert_eq!(split("verb 3 # chatty"), ["verb", "3"]);
        assert_eq!(split("verb 3 ;chatty"), ["verb", "3"]);
        assert_eq!(split("status a#b;c"), ["status", "a#b;c"]);
        assert_eq!(split("push \"a # b\""), ["push", "a # b"]);
    }

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(split(r#"push "compress lz4-v2""#), ["push", "compress lz4-v2"]);
        assert_eq!(split(r#"push 'route "x" \'"#), ["push", r#"route "x" \"#]);
        assert_eq!(split(r#"a "" b"#), ["a", "", "b"]);
        assert_eq!(split(r#"ca it"s"#), ["ca", r#"it"s"#]);
    }

    #[test]
    fn backslashes_take_the_next_character_as_it_is() {
        assert_eq!(split(r"ca my\ ca.crt"), ["ca", "my ca.crt"]);
        assert_eq!(split(r#"ca "a\"b\\c""#), ["ca", r#"a"b\c"#]);
        assert_eq!(words(r"ca C:\keys"), Err(Fault::Backslash));
        assert_eq!(words("ca x\\"), Err(Fault::Backslash));
    }

    #[test]
    fn an_open_quote_is_an_error_with_its_line() {
        let error = lines(b"verb 3\npush \"a\n", Path::new("s.conf")).unwrap_err();
        assert_eq!(error.to_string(), "s.conf:2: a quotation does not end; close it in the same line");
    }

    #[test]
    fn a_block_stands_in_place_of_a_file() {
        let found = lines(b"<ca>\nline # 1\n\n  </ca>\nverb 3\n", Path::new("s.conf")).unwrap();
        assert_eq!(found[0].name, "ca");
        assert_eq!(found[0].block.as_deref(), Some("line # 1\n\n"));
        assert_eq!((found[1].number, found[1].name.as_str()), (5, "verb"));
    }

    #[test]
    fn an_open_block_is_an_error_where_it_begins() {
        let error = lines(b"\n<ca>\nx\n", Path::new("s.conf")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "s.conf:2: the block <ca> does not end; write </ca> on a line of its own behind it"
        );
    }

    #[test]
    fn a_byte_order_mark_dashes_and_carriage_returns_are_taken() {
        let found = lines("\u{feff}--verb 3\r\n".as_bytes(), Path::new("s.conf")).unwrap();
        assert_eq!(found[0].name, "verb");
        assert_eq!(found[0].words, ["3"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_line() {
        let error = lines(b"verb 3\n\xff\n", Path::new("s.conf")).unwrap_err();
        assert_eq!(error.to_string(), "s.conf:2: the text is not UTF-8; save the file as UTF-8");
        assert!(lines(b"verb 3\n\0", Path::new("s.conf")).unwrap_err().to_string().contains("NUL"));
    }

    #[test]
    fn more_words_than_openvpn_takes_are_refused() {
        assert_eq!(words(&"a ".repeat(16)).unwrap().len(), 16);
        assert_eq!(words(&"a ".repeat(17)), Err(Fault::TooManyWords));
    }
}
