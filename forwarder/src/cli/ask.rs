//! Asking a running gateway over its control socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::{AskArgs, Error};
use crate::management::status::Request;

/// The gateway answers between two turns of its control loop; longer means that it hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer read, in bytes: what the gateway sends at most.
const ANSWER_BYTES: u64 = 64 << 20;

/// Asks `request`; prints the answer as it came with `-j`, else what `table` makes of it.
pub(super) fn show<T: DeserializeOwned>(
    args: &AskArgs,
    request: Request,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Error> {
    let line = ask(&args.control.control, request)?;
    let text = if args.json { line } else { table(&read(&line)?) };
    print(&text)
}

pub(super) fn read<T: DeserializeOwned>(line: &str) -> Result<T, Error> {
    serde_json::from_str(line).map_err(|_| {
        Error::new("the gateway's answer is not understood; is it of another version than this command?")
    })
}

/// One request, one line in return.
pub(super) fn ask(path: &Path, request: Request) -> Result<String, Error> {
    let mut stream = connect(path)?;
    exchange(&mut stream, request).map_err(|error| {
        Error::new(format!("the gateway at {} does not answer ({error}); see its log", path.display()))
    })
}

/// The gateway whose control socket that is.
pub(super) fn connect(path: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(path).map_err(|error| unreachable(path, &error))
}

fn exchange(stream: &mut UnixStream, request: Request) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{}", request.word())?;
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
