//! The thread with real connections; the other ends of its lanes are held by the test.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mio::{Poll, Token, Waker};
use nix::sys::eventfd::EventFd;
use openvpn::{ids::PeerId, server::Path};

use super::{unframe::framed, *};
use crate::{
    drops::Drop,
    worker::{Errand, Handovers},
};

/// A client's first packet: its opcode, and nine bytes that this thread does not read.
const GREETING: &[u8] = b"\x38sessionid\0\0\0\0\0";
const LIMIT: usize = 8;
const UNCLAIMED: usize = 64;

/// The thread, its listener's address, and what others hold.
struct Bench {
    desk: Desk,
    worker: Handovers,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    _poll: Poll,
}

impl Bench {
    fn new() -> Self {
        Self::that_keeps(UNCLAIMED)
    }

    fn that_keeps(unclaimed_limit: usize) -> Self {
        let poll = Poll::new().unwrap();
        let control = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (desk, counter) = Desk::new(control).unwrap();
        let bell = Arc::new(EventFd::new().unwrap());
        let (mut workers, lanes) = Handovers::with_streams(&[bell], counter.bell());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let hand_window = Duration::from_secs(60);
        let settings = Settings { longest: 2000, queue_limit: LIMIT, hand_window, unclaimed_limit };
        let listeners = vec![mio::net::TcpListener::from_std(listener)];
        let streams = Streams::new(settings, listeners, counter, lanes, Instant::now()).unwrap();
        let thread = std::thread::Builder::new().spawn(move || streams.run()).unwrap();
        Self { desk, worker: workers.remove(0), address, thread: Some(thread), _poll: poll }
    }

    fn dial(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    /// Connects and greets; the connection's number and path as the control thread hears them.
    fn greet(&mut self) -> (TcpStream, StreamId, Path) {
        let mut client = self.dial();
        client.write_all(&framed(GREETING).unwrap()).unwrap();
        let Report::Packet(stream, path, packet) = self.report() else { panic!("no packet") };
        assert_eq!((&packet[..], path), (GREETING, Path::tcp(client.local_addr().unwrap(), self.address)));
        (client, stream, path)
    }

    /// The same, and a peer is behind it.
    fn peer(&mut self, number: u32) -> (TcpStream, StreamId, PeerId) {
        let (mut client, stream, _) = self.greet();
        let peer_id = PeerId::new(number).unwrap();
        self.desk.send(Order::Claim(stream, peer_id));
        self.desk.send(Order::Send(stream, b"your options".to_vec()));
        assert_eq!(read_packet(&mut client), b"your options");
        (client, stream, peer_id)
    }

    fn report(&self) -> Report {
        until(|| self.desk.take())
    }

    fn handed_over(&mut self) -> (Errand, Vec<u8>) {
        until(|| {
            let mut taken = None;
            self.worker.pop(|errand, bytes| taken = Some((errand, bytes.to_vec())));
            taken
        })
    }

    fn seal(&mut self, stream: StreamId, packet: &[u8]) -> bool {
        let pushed = self.worker.push_stream(stream, packet);
        self.worker.wake_others();
        pushed
    }
}

impl std::ops::Drop for Bench {
    fn drop(&mut self) {
        self.desk.send(Order::Stop);
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Waits for something, for long.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read_packet(client: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    client.read_exact(&mut length).unwrap();
    let mut packet = vec![0; u16::from_be_bytes(length).into()];
    client.read_exact(&mut packet).unwrap();
    packet
}

#[test]
fn control_packets_go_to_the_control_thread_and_its_answers_back() {
    let mut bench = Bench::new();
    let (mut client, stream, path) = bench.greet();
    bench.desk.send(Order::Send(stream, b"welcome".to_vec()));
    assert_eq!(read_packet(&mut client), b"welcome");
    drop(client);
    assert_eq!(bench.report(), Report::Closed(stream, path));
}

#[test]
fn data_packets_go_to_the_peers_worker_once_there_is_a_peer() {
    let mut bench = Bench::new();
    let (mut client, stream, _) = bench.greet();
    let data = |number: u8| framed(&[0x48, 0, 0, 7, number]).unwrap();
    client.write_all(&data(1)).unwrap();
    until(|| (bench.desk.drops().get(Drop::PeerUnknown) == 1).then_some(()));
    let peer_id = PeerId::new(3).unwrap();
    bench.desk.send(Order::Claim(stream, peer_id));
    bench.desk.send(Order::Send(stream, b"claimed".to_vec()));
    assert_eq!(read_packet(&mut client), b"claimed");
    client.write_all(&data(2)).unwrap();
    // To the peer behind the connection, whatever peer id the packet names.
    assert_eq!(bench.handed_over(), (Errand::FromStream(peer_id), vec![0x48, 0, 0, 7, 2]));
    assert!(bench.seal(stream, b"sealed"));
    assert_eq!(read_packet(&mut client), b"sealed");
}

#[test]
fn packets_for_which_there_is_no_room_wait_and_come_in_order() {
    let mut bench = Bench::new();
    let (mut client, _, _) = bench.peer(0);
    // More than a lane holds.
    let sending = std::thread::spawn(move || {
        for number in 0..3000_u32 {
            let packet = [&[0x48, 0, 0, 0], &number.to_be_bytes()[..], &[0; 100]].concat();
            client.write_all(&framed(&packet).unwrap()).unwrap();
        }
        client
    });
    for number in 0..3000_u32 {
        let (_, packet) = bench.handed_over();
        assert_eq!(packet[4..8], number.to_be_bytes());
    }
    drop(sending.join().unwrap());
    assert!(matches!(bench.report(), Report::Closed(..)));
}

#[test]
fn a_client_that_does_not_read_costs_only_itself() {
    let mut bench = Bench::new();
    let (_deaf, deaf, _) = bench.peer(0);
    let (mut other, listening, _) = bench.peer(1);
    let mut round = 0_u32;
    while bench.desk.drops().get(Drop::StreamQueueFull) == 0 {
        for _ in 0..100 {
            bench.seal(deaf, &[7; 1500]);
        }
        round += 1;
        until(|| bench.seal(listening, &round.to_be_bytes()).then_some(()));
        assert_eq!(read_packet(&mut other), round.to_be_bytes());
    }
    assert!(bench.desk.take().is_none(), "nobody is closed");
}

#[test]
fn whoever_says_something_else_is_closed() {
    let bench = Bench::new();
    let longer = [&[0xff, 0xff][..], &[0; 100]].concat();
    let unknown = framed(&[0xf8; 20]).unwrap();
    let no_greeting = framed(b"\x20 a control packet").unwrap();
    for said in [&[0, 0][..], &longer, &unknown, &no_greeting, b"GET / HTTP/1.0\r\n\r\n"] {
        let mut client = bench.dial();
        client.write_all(said).unwrap();
        let closed = client.read(&mut [0; 10]);
        assert!(closed.is_err() || closed.is_ok_and(|count| count == 0), "{said:?}");
        assert!(matches!(bench.report(), Report::Closed(..)), "{said:?}");
    }
    assert_eq!(bench.desk.drops().get(Drop::TunnelMalformed), 5);
}

#[test]
fn strangers_are_bounded_and_peers_stay() {
    let mut bench = Bench::new();
    let (mut peer, stream, _) = bench.peer(0);
    let mut greeted = bench.greet().0;
    let silent: Vec<TcpStream> = (0..UNCLAIMED + 20).map(|_| bench.dial()).collect();
    for _ in 0..21 {
        assert!(matches!(bench.report(), Report::Closed(..)));
    }
    assert!(bench.desk.take().is_none());
    bench.desk.send(Order::Send(stream, b"still here".to_vec()));
    assert_eq!(read_packet(&mut peer), b"still here");
    // The first to give way are those that have said nothing, the oldest before others.
    let mut oldest = &silent[0];
    assert_eq!(oldest.read(&mut [0; 1]).unwrap(), 0);
    greeted.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(greeted.read(&mut [0; 1]).is_err(), "it is not closed");
}

#[test]
fn hundreds_of_clients_may_come_back_at_once() {
    allow_many_files();
    let bench = Bench::that_keeps(MAX_UNCLAIMED);
    let clients: Vec<TcpStream> = (0..400).map(|_| bench.dial()).collect();
    for mut client in &clients {
        client.write_all(&framed(GREETING).unwrap()).unwrap();
    }
    for _ in &clients {
        assert!(matches!(bench.report(), Report::Packet(..)));
    }
}

#[test]
fn what_is_said_last_arrives_before_the_end() {
    let mut bench = Bench::new();
    let (mut client, stream, path) = bench.greet();
    bench.desk.send(Order::Send(stream, b"go away".to_vec()));
    bench.desk.send(Order::Close(stream));
    assert_eq!(read_packet(&mut client), b"go away");
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(bench.report(), Report::Closed(stream, path));
    bench.desk.send(Order::Send(stream, b"too late".to_vec()));
    until(|| (bench.desk.drops().get(Drop::StreamGone) == 1).then_some(()));
}
