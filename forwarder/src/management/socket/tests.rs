use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use mio::{Events, Poll};

use super::*;
use crate::management::status::example;

const FIRST: usize = 100;

/// A socket in a loop of its own, driven by hand.
struct Loop {
    socket: ControlSocket,
    poll: Poll,
    path: PathBuf,
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("trestle-control-{}-{name}", std::process::id()))
}

impl Loop {
    fn new(name: &str) -> Self {
        let path = path(name);
        let mut socket = ControlSocket::bind(&path).unwrap();
        let poll = Poll::new().unwrap();
        socket.register(poll.registry(), FIRST).unwrap();
        Self { socket, poll, path }
    }

    /// Turns until nothing happens for a moment, answering every request.
    fn turn(&mut self) {
        let snapshot = example();
        let mut events = Events::with_capacity(64);
        loop {
            self.poll.poll(&mut events, Some(Duration::from_millis(20))).unwrap();
            if events.is_empty() {
                return;
            }
            for event in &events {
                assert!(self.socket.owns(event.token()));
                for (client, asked) in self.socket.handle_ready(event.token()) {
                    match asked {
                        Asked::Question(request) => self.socket.reply(client, &snapshot.answer(request)),
                        Asked::Capture(ask) => self.stream(client, &ask),
                        Asked::Guards(guards) => self.socket.reply(client, &guards.line()),
                    }
                }
            }
        }
    }

    /// More than may wait, to somebody who does not read: what is too much is left out.
    fn stream(&mut self, client: ClientId, ask: &Ask) {
        let piece = vec![b'x'; 1 << 20];
        let became: Vec<Streamed> = (0..16).map(|_| self.socket.stream(client, &piece)).collect();
        let taken = became.iter().take_while(|became| **became == Streamed::Taken).count();
        assert!((8..=12).contains(&taken), "{became:?}");
        assert!(became.iter().skip(taken).all(|became| *became == Streamed::Full), "{became:?}");
        assert_eq!(ask.name, "tap 0");
    }

    fn connect(&self) -> StdStream {
        let stream = StdStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    fn connected(&self) -> usize {
        self.socket.clients.iter().flatten().count()
    }
}

fn line(stream: &StdStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn a_request_is_answered_by_one_line_of_json() {
    let mut server = Loop::new("answer");
    let mut client = server.connect();
    client.write_all(b"peers\n").unwrap();
    server.turn();
    let answer: serde_json::Value = serde_json::from_str(&line(&client)).unwrap();
    assert_eq!(answer["peers"][0]["name"], "agent-1");
}

#[test]
fn a_request_in_pieces_and_several_in_one_are_answered() {
    let mut server = Loop::new("pieces");
    let mut client = server.connect();
    client.write_all(b"dro").unwrap();
    server.turn();
    client.write_all(b"ps\r\nports\n").unwrap();
    server.turn();
    let mut reader = BufReader::new(&client);
    let (mut first, mut second) = (String::new(), String::new());
    reader.read_line(&mut first).unwrap();
    reader.read_line(&mut second).unwrap();
    assert!(first.starts_with("{\"drops\":") && second.starts_with("{\"ports\":"));
}

#[test]
fn an_unknown_request_is_answered_with_what_can_be_asked() {
    let mut server = Loop::new("unknown");
    let mut client = server.connect();
    client.write_all(b"kill\nstatus\n").unwrap();
    server.turn();
    assert!(line(&client).contains("ask for one of status, peers, fdb, ports, drops"));
}

#[test]
fn an_endless_request_and_a_client_that_leaves_are_forgotten() {
    let mut server = Loop::new("endless");
    let mut client = server.connect();
    client.write_all(&[b'x'; 1000]).unwrap();
    let leaving = server.connect();
    server.turn();
    drop(leaving);
    server.turn();
    assert_eq!(server.connected(), 0);
}

#[test]
fn clients_beyond_the_limit_are_turned_away_and_the_others_served() {
    let mut server = Loop::new("limit");
    let mut clients: Vec<StdStream> = (0..=CLIENTS).map(|_| server.connect()).collect();
    server.turn();
    assert_eq!(server.connected(), CLIENTS);
    assert!(line(&clients[CLIENTS]).contains("too many clients"));
    clients[0].write_all(b"fdb\n").unwrap();
    server.turn();
    assert!(line(&clients[0]).contains("entries"));
}

#[test]
fn a_client_that_does_not_read_gets_a_large_answer_when_it_does() {
    let mut server = Loop::new("large");
    let mut client = server.connect();
    client.write_all(b"status\n").unwrap();
    let mut events = Events::with_capacity(8);
    let large = "x".repeat(4 << 20);
    let mut asked = None;
    while asked.is_none() {
        server.poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        for event in &events {
            asked = asked.or(server.socket.handle_ready(event.token()).pop());
        }
    }
    server.socket.reply(asked.unwrap().0, &large);
    let reader = std::thread::spawn(move || line(&client).len());
    while !reader.is_finished() {
        server.turn();
    }
    assert_eq!(reader.join().unwrap(), large.len() + 3);
}

#[test]
fn answers_to_a_client_whose_place_was_taken_go_nowhere() {
    let mut server = Loop::new("generation");
    let client = server.connect();
    server.turn();
    let old = ClientId { slot: 0, generation: server.socket.generation };
    drop(client);
    server.turn();
    let mut next = server.connect();
    server.turn();
    server.socket.reply(old, &"for another");
    next.write_all(b"ports\n").unwrap();
    server.turn();
    assert!(line(&next).starts_with("{\"ports\""));
}

#[test]
fn only_the_owner_may_ask_and_the_file_goes_with_the_gateway() {
    let directory = path("mode");
    let file = directory.join("control.sock");
    let socket = ControlSocket::bind(&file).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
    drop(socket);
    assert!(!file.exists());
    fs::remove_dir(&directory).unwrap();
}

#[test]
fn a_dead_gateways_socket_is_replaced_and_a_live_ones_is_not() {
    let path = path("stale");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let live = ControlSocket::bind(&path).unwrap();
    let error = ControlSocket::bind(&path).unwrap_err();
    assert!(error.to_string().starts_with("another trestle is running"), "{error}");
    drop(live);
    fs::write(&path, "").unwrap();
    let error = ControlSocket::bind(&path).unwrap_err();
    assert!(error.to_string().contains("is not a socket"), "{error}");
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_stream_leaves_out_what_its_reader_is_too_slow_for_and_ends_with_it() {
    let mut server = Loop::new("stream");
    let mut client = server.connect();
    client.write_all(b"capture 96 tap 0\n").unwrap();
    server.turn();
    assert_eq!(server.connected(), 1);
    drop(client);
    server.turn();
    assert_eq!(server.connected(), 0);
}
