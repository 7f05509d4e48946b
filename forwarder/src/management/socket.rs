//! The control socket: a request word a line, a JSON object a line in return.
//!
//! It serves from the control thread's own mio loop and never waits. What one client can hold is bounded: so many
//! clients, so long a request, so many bytes of answers; a client is not read from while answers wait for it.

use std::{
    fs, io,
    io::{Read, Write},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
        net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
};

use mio::{
    Interest, Registry, Token,
    net::{UnixListener, UnixStream},
};
use serde::Serialize;

use super::{capture::Ask, status::Request};
use crate::config::Guards;

/// Most clients at once; further ones are turned away with a sentence.
pub const CLIENTS: usize = 16;
/// Tokens the socket uses, from the first one given to [`ControlSocket::register`].
pub const TOKENS: usize = CLIENTS + 1;
/// Longest request, in bytes: a word, or the name of a peer to capture, which is a common name of at most 64 characters.
const REQUEST_BYTES: usize = 320;
/// Most answers waiting for one client, in bytes: a full MAC table is about 9 MB.
const ANSWER_BYTES: usize = 32 << 20;

/// Most bytes of a stream waiting for one client, some tens of thousands of small frames: a reader who is slower for
/// longer misses some.
const STREAM_BYTES: usize = 8 << 20;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A question that has one answer.
    Question(Request),
    /// Copies of frames, until the client goes.
    Capture(Ask),
    /// Other guards from now on, which a supervisor's file says.
    Guards(Guards),
}

/// What became of a piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streamed {
    /// It is on its way.
    Taken,
    /// The client does not read as fast: it was left out.
    Full,
    /// The client has gone.
    Gone,
}

/// Why the socket cannot be made: a sentence with its cure.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A gateway answers there.
    #[error("another trestle is running with the control socket {0}; stop it, or name another by --control")]
    InUse(PathBuf),
    /// Something else stands there.
    #[error("{0} exists and is not a socket; name another control socket by --control")]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("the control socket {path} cannot be made: {error}; name another by --control")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Who asked: stays unique when a client's place is taken by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientId {
    slot: usize,
    generation: u64,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    generation: u64,
    input: Vec<u8>,
    output: Vec<u8>,
    /// `0 <= sent <= output.len()`.
    sent: usize,
}

/// The listening socket with its clients. Dropped, it removes its file, where its privileges still allow that.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    registry: Option<Registry>,
    first: usize,
    clients: [Option<Client>; CLIENTS],
    generation: u64,
}

impl ControlSocket {
    /// Makes the socket, mode 0600, and its directory, mode 0700, where that does not exist.
    ///
    /// # Errors
    /// Another gateway answers there, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |error| SocketError::Io { path: path.to_owned(), error };
        make_directory(path).map_err(failed)?;
        remove_stale(path)?;
        let listener = listen(path).map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            registry: None,
            first: 0,
            clients: [const { None }; CLIENTS],
            generation: 0,
        })
    }

    /// Adds the socket to a loop, with the [`TOKENS`] tokens from `first`.
    ///
    /// # Errors
    /// The system refuses.
    pub fn register(&mut self, registry: &Registry, first: usize) -> io::Result<()> {
        registry.register(&mut self.listener, Token(first), Interest::READABLE)?;
        self.registry = Some(registry.try_clone()?);
        self.first = first;
        Ok(())
    }

    /// True for the socket's own tokens.
    pub fn owns(&self, token: Token) -> bool {
        self.registry.is_some() && (self.first..self.first + TOKENS).contains(&token.0)
    }

    /// Something is ready under one of the socket's tokens: takes new clients, reads requests, sends what waits.
    pub fn handle_ready(&mut self, token: Token) -> Vec<(ClientId, Asked)> {
        let mut requests = Vec::new();
        match token.0.checked_sub(self.first) {
            Some(0) => self.accept(),
            Some(at) if at <= CLIENTS => self.serve(at - 1, &mut requests),
            _ => {}
        }
        requests
    }

    /// Answers one request. A client that has gone, or lets too many answers wait, is forgotten.
    pub fn reply(&mut self, id: ClientId, answer: &impl Serialize) {
        let Some(client) = self.client(id) else { return };
        let written = serde_json::to_writer(&mut client.output, answer);
        client.output.push(b'\n');
        let kept = written.is_ok() && client.output.len() <= ANSWER_BYTES && client.flush().is_ok();
        if !kept {
            self.forget(id.slot);
        }
    }

    /// Sends `bytes` to a client that asked for a stream, unless too much is waiting for it already.
    pub fn stream(&mut self, id: ClientId, bytes: &[u8]) -> Streamed {
        let Some(client) = self.client(id) else { return Streamed::Gone };
        if client.output.len() - client.sent > STREAM_BYTES {
            return Streamed::Full;
        }
        client.output.drain(..std::mem::take(&mut client.sent));
        client.output.extend_from_slice(bytes);
        if client.flush().is_ok() {
            return Streamed::Taken;
        }
        self.forget(id.slot);
        Streamed::Gone
    }

    fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.get_mut(id.slot)?.as_mut().filter(|client| client.generation == id.generation)
    }

    fn accept(&mut self) {
        // Ends with WouldBlock; any other error will come again with the next client.
        while let Ok((stream, _)) = self.listener.accept() {
            self.admit(stream);
        }
    }

    fn admit(&mut self, mut stream: UnixStream) {
        let Some(slot) = self.clients.iter().position(Option::is_none) else {
            // The answer is a courtesy: the stream is new, so that a line fits its buffer.
            let _ = stream.write(b"{\"error\":\"too many clients ask at once; try again\"}\n");
            return;
        };
        let Some(registry) = &self.registry else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut stream, Token(self.first + 1 + slot), interest).is_err() {
            return;
        }
        self.generation += 1;
        let generation = self.generation;
        let client = Client { stream, generation, input: Vec::new(), output: Vec::new(), sent: 0 };
        if let Some(place) = self.clients.get_mut(slot) {
            *place = Some(client);
        }
    }

    fn serve(&mut self, slot: usize, requests: &mut Vec<(ClientId, Asked)>) {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return };
        let id = ClientId { slot, generation: client.generation };
        let mut found = Vec::new();
        let kept = client.flush().is_ok() && client.receive(&mut found).is_ok();
        requests.extend(found.into_iter().map(|request| (id, request)));
        if !kept {
            // What was asked before leaving need not be answered: `reply` finds nobody.
            self.forget(slot);
        }
    }

    fn forget(&mut self, slot: usize) {
        let gone = self.clients.get_mut(slot).and_then(Option::take);
        if let (Some(mut client), Some(registry)) = (gone, &self.registry) {
            // Closing the stream deregisters it in any case.
            let _ = registry.deregister(&mut client.stream);
        }
    }
}

impl Asked {
    fn from_line(line: &str) -> Option<Self> {
        let question = Request::from_word(line).map(Self::Question);
        let capture = || Ask::from_line(line).map(Self::Capture);
        question.or_else(capture).or_else(|| Guards::from_line(line).map(Self::Guards))
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // After privileges are given up this fails, and the next start removes the file.
        let _ = fs::remove_file(&self.path);
    }
}

impl Client {
    /// Sends what waits, as far as the stream takes it.
    fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A large answer's memory is given back with it.
        self.output = Vec::new();
        self.sent = 0;
        Ok(())
    }

    /// Reads requests until there is nothing more to read, or answers wait.
    fn receive(&mut self, requests: &mut Vec<Asked>) -> io::Result<()> {
        let mut bytes = [0; REQUEST_BYTES];
        while self.output.is_empty() {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.take(bytes.get(..read).unwrap_or_default(), requests)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if requests.len() >= REQUESTS_AT_ONCE {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], requests: &mut Vec<Asked>) -> io::Result<()> {
        for &byte in bytes {
            if byte != b'\n' {
                self.input.push(byte);
                if self.input.len() > REQUEST_BYTES {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                continue;
            }
            let line = std::mem::take(&mut self.input);
            match std::str::from_utf8(&line).ok().and_then(|line| Asked::from_line(line.trim())) {
                Some(request) => requests.push(request),
                None => self.refuse()?,
            }
        }
        Ok(())
    }

    fn refuse(&mut self) -> io::Result<()> {
        let words: Vec<&str> = Request::ALL.iter().map(|request| request.word()).collect();
        let answer = serde_json::json!({
            "error": format!("the request is not known; ask for one of {}", words.join(", ")),
        });
        self.output.extend_from_slice(answer.to_string().as_bytes());
        self.output.push(b'\n');
        self.flush()
    }
}

/// Most requests taken from a client in one go; who asks faster than it reads is turned away.
const REQUESTS_AT_ONCE: usize = 64;

fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists()) {
        Some(directory) => fs::DirBuilder::new().mode(0o700).create(directory),
        None => Ok(()),
    }
}

/// Makes the socket where nobody else can reach it, and moves it to its place once only the owner may use it.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let mut private = path.as_os_str().to_owned();
    private.push(format!(".{}", std::process::id()));
    let private = PathBuf::from(private);
    fs::DirBuilder::new().mode(0o700).create(&private)?;
    let made = private.join("s");
    let listener = UnixListener::bind(&made).and_then(|listener| {
        fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
        fs::rename(&made, path)?;
        Ok(listener)
    });
    if listener.is_err() {
        // It may not have been made at all.
        let _ = fs::remove_file(&made);
    }
    fs::remove_dir(&private)?;
    listener
}

/// Removes the socket of a process that is gone.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |error| SocketError::Io { path: path.to_owned(), error };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests;
