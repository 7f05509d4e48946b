//! Options as glibc's `getopt_long` finds them: anywhere among the words, long ones also abbreviated.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

/// Long options of the real one.
const LONG: [&str; 2] = ["help", "version"];

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// `-h`
    Help,
    /// `-V`
    Version,
    /// An option that is none, and the line to say so.
    Wrong(Vec<u8>),
    /// A command's words, and whether `-j` was among them.
    Words { words: Vec<OsString>, json: bool },
}

/// Reads `arguments`. `posix`: options end before the first other word, as POSIXLY_CORRECT in the environment wants.
pub(super) fn read(program: &OsStr, arguments: &[OsString], posix: bool) -> Asked {
    let mut words = Vec::new();
    let mut json = false;
    let mut rest = arguments.iter();
    for word in rest.by_ref() {
        let found = match word.as_bytes() {
            b"--" => break,
            b"--json" => Ok(()),
            [b'-', b'-', name @ ..] => Err(long(program, name)),
            [b'-', letters @ ..] if !letters.is_empty() => short(program, letters),
            _ => {
                words.push(word.clone());
                if posix {
                    break;
                }
                continue;
            }
        };
        match found {
            Ok(()) => json = true,
            Err(asked) => return asked,
        }
    }
    words.extend(rest.cloned());
    Asked::Words { words, json }
}

/// `-j` and nothing else, or the first letter that decides.
fn short(program: &OsStr, letters: &[u8]) -> Result<(), Asked> {
    match letters.iter().find(|letter| **letter != b'j') {
        None => Ok(()),
        Some(b'h') => Err(Asked::Help),
        Some(b'V') => Err(Asked::Version),
        Some(&letter) => Err(Asked::Wrong(invalid(program, letter))),
    }
}

fn long(program: &OsStr, word: &[u8]) -> Asked {
    let mut halves = word.splitn(2, |byte| *byte == b'=');
    let name = halves.next().unwrap_or_default();
    let has_value = halves.next().is_some();
    let mut candidates = LONG.iter().filter(|option| option.as_bytes().starts_with(name));
    match (candidates.next(), candidates.next()) {
        (None, _) => wrong(program, &[b"unrecognized option '--", word, b"'"]),
        (Some(_), Some(_)) => {
            let possible = b"' is ambiguous; possibilities: '--help' '--version'";
            wrong(program, &[b"option '--", word, possible])
        }
        (Some(option), None) if has_value => {
            wrong(program, &[b"option '--", option.as_bytes(), b"' doesn't allow an argument"])
        }
        (Some(&"help"), None) => Asked::Help,
        (Some(_), None) => Asked::Version,
    }
}

fn wrong(program: &OsStr, parts: &[&[u8]]) -> Asked {
    Asked::Wrong(line(program, parts))
}

/// The line for a letter that is no option.
pub(super) fn invalid(program: &OsStr, letter: u8) -> Vec<u8> {
    line(program, &[b"invalid option -- '", &[letter], b"'"])
}

fn line(program: &OsStr, parts: &[&[u8]]) -> Vec<u8> {
    [program.as_bytes(), b": ", &parts.concat(), b"\n"].concat()
}
