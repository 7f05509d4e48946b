//! Asking a running gateway over its control socket.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{AskArgs, Error};
use crate::{config::Guards, management::status::Request};

/// The gateway answers between two turns of its control loop; longer means that it hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Segments stop side by side; certificates of many are judged one after another.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);
/// Longest answer read, in bytes: what the gateway sends at most.
const ANSWER_BYTES: u64 = 64 << 20;

/// Asks `request`; prints the answer as it came with `-j`, else what `table` makes of it.
pub(super) fn show<T: DeserializeOwned>(
    args: &AskArgs,
    request: Request,
    table: impl Fn(&T) -> String,
) -> Result<(), Error> {
    let line = ask(&args.control.control, request)?;
    let show =
        |line: &str| if args.json { Ok(line.to_owned()) } else { read(line).map(|answer| table(&answer)) };
    match serde_json::from_str::<Overview>(&line) {
        Ok(Overview { segments }) => print(&show_segments(args, segments, request, show)?),
        Err(_) if args.segment.is_some() => {
            Err(Error::new("this gateway has no segments: leave --segment away"))
        }
        Err(_) => print(&show(&line)?),
    }
}

/// A supervisor's answer to every question: who is to be asked instead.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Overview {
    segments: BTreeMap<String, Answering>,
}

#[derive(Deserialize)]
struct Answering {
    control: PathBuf,
}

/// One segment's answer as a gateway's own; of several, each under its name.
fn show_segments(
    args: &AskArgs,
    mut segments: BTreeMap<String, Answering>,
    request: Request,
    show: impl Fn(&str) -> Result<String, Error>,
) -> Result<String, Error> {
    if let Some(name) = &args.segment {
        let known: Vec<String> = segments.keys().cloned().collect();
        segments.retain(|known, _| known == name);
        if segments.is_empty() {
            return Err(Error::new(format!("there is no segment `{name}`; there are {}", known.join(", "))));
        }
    }
    if segments.len() == 1 {
        return segments.values().map(|only| show(&ask(&only.control, request)?)).collect();
    }
    let mut answers = serde_json::Map::new();
    let mut text = String::new();
    for (name, Answering { control }) in segments {
        let answer = ask(&control, request);
        text += &format!(
            "== {name} ==\n{}\n",
            answer.clone().and_then(|line| show(&line)).unwrap_or_else(|e| e.to_string())
        );
        let value = answer
            .and_then(|line| read(&line))
            .unwrap_or_else(|e| serde_json::json!({ "error": e.to_string() }));
        answers.insert(name, value);
    }
    Ok(if args.json { serde_json::json!({ "segments": answers }).to_string() } else { text })
}

pub(super) fn read<T: DeserializeOwned>(line: &str) -> Result<T, Error> {
    serde_json::from_str(line).map_err(|_| {
        Error::new("the gateway's answer is not understood; is it of another version than this command?")
    })
}

/// One request, one line in return.
pub(super) fn ask(path: &Path, request: Request) -> Result<String, Error> {
    // A reload waits for segments to stop.
    let patience = if request == Request::Reload { RELOAD_PATIENCE } else { PATIENCE };
    say(path, request.word(), patience)
}

/// Has a gateway guard its segment so from now on.
pub(super) fn change_guards(path: &Path, guards: &Guards) -> Result<String, Error> {
    say(path, &guards.line(), PATIENCE)
}

fn say(path: &Path, line: &str, patience: Duration) -> Result<String, Error> {
    let mut stream = connect(path)?;
    exchange(&mut stream, line, patience).map_err(|error| {
        Error::new(format!("the gateway at {} does not answer ({error}); see its log", path.display()))
    })
}

/// The gateway whose control socket that is.
pub(super) fn connect(path: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(path).map_err(|error| unreachable(path, &error))
}

fn exchange(stream: &mut UnixStream, request: &str, patience: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{request}")?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES)).read_line(&mut line)?;
    if line.ends_with('\n') {
        Ok(line.trim_end().to_owned())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn unreachable(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    Error::new(match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "no gateway is running with the control socket {path}; start one with `trestle run SERVER.CONF`, \
             or name its socket by --control"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("the control socket {path} belongs to another user; ask as root")
        }
        _ => format!("the control socket {path} cannot be reached ({error}); name it by --control"),
    })
}

/// Prints to standard output; a reader that has seen enough (`| head`) is no error.
pub(super) fn print(text: &str) -> Result<(), Error> {
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(format!("the answer cannot be printed: {error}")))
        }
        _ => Ok(()),
    }
}
