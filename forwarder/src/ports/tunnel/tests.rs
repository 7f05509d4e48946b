use std::net::{Ipv4Addr, SocketAddrV4};

use super::*;
use crate::ports::testing::{in_namespace, ip, receive, transmit};

const ANY_PORT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// A data packet for a peer, `len` bytes long.
pub(super) fn data(peer_id: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[..4].copy_from_slice(&(0x4800_0000 | peer_id).to_be_bytes());
    packet
}

fn client() -> UdpSocket {
    client_at("127.0.0.1")
}

pub(super) fn client_at(address: &str) -> UdpSocket {
    let client = UdpSocket::bind((address, 0)).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    client
}

/// One worker's port, its memory, the counters, and the control socket of the group (which must live: it is member 0).
fn one_worker() -> (TunnelPort, Frames, Arc<DropCounters>, ControlSocket) {
    one_worker_at(ANY_PORT)
}

pub(super) fn one_worker_at(bind: impl Into<Bind>) -> (TunnelPort, Frames, Arc<DropCounters>, ControlSocket) {
    let drops = Arc::new(DropCounters::default());
    let (control, mut workers) = open(bind, 1).unwrap();
    let port = TunnelPort::new(workers.remove(0), Arc::clone(&drops)).unwrap();
    (port, Frames::in_memory(256, 1792), drops, ControlSocket::new(control).unwrap())
}

/// The frame that answers `frame` with the same payload.
pub(super) fn answer(frame: &[u8]) -> Vec<u8> {
    let arrived = crate::worker::outer::parse(frame).unwrap();
    answer_with(&arrived.path, &frame[arrived.payload])
}

fn answer_with(path: &openvpn::server::Path, payload: &[u8]) -> Vec<u8> {
    let outer = crate::worker::Outer::by_socket(path.local, path.remote);
    let mut answer = [&vec![0; outer.header_len()][..], payload].concat();
    outer.write(&mut answer, 0);
    answer
}

#[test]
fn control_goes_to_the_control_thread_and_data_to_the_worker_of_its_peer() {
    let (control, workers) = open(ANY_PORT, 3).unwrap();
    let port = control.local_addr().unwrap().port();
    let client = client();
    let send = |payload: &[u8]| client.send_to(payload, ("127.0.0.1", port)).unwrap();
    let length = |socket: &UdpSocket| socket.recv(&mut [0; 2000]).ok();

    for opcode in (0..32_u8).filter(|opcode| ![6, 9].contains(opcode)) {
        send(&[opcode << 3, 0, 0, 1, 5, 5]);
        assert_eq!(length(&control), Some(6), "opcode {opcode}");
    }
    for short in [&[][..], &[0x48], &[0x48, 0, 0]] {
        send(short);
        assert_eq!(length(&control), Some(short.len()), "{short:?}");
    }
    for peer_id in [0, 1, 2, 3, 4, 5, 255, 256, 65_536, 0x00ff_fffe] {
        for (first_byte, worker) in
            [(0x48, peer_id as usize % 3), (0x4f, peer_id as usize % 3), (0x30, 0), (0x37, 0)]
        {
            let mut packet = data(peer_id, 60);
            packet[0] = first_byte;
            send(&packet);
            assert_eq!(length(&workers[worker]), Some(60), "peer {peer_id}, {first_byte:02x}");
        }
    }
    assert!(workers.iter().chain([&control]).all(|socket| length(socket).is_none()), "nothing is left");
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let error = open(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), 1).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)));
    assert!(error.to_string().contains(&format!("UDP port {port} of 127.0.0.1 is in use")), "{error}");

    let (group, _) = open(ANY_PORT, 1).unwrap();
    let same = SocketAddr::from((Ipv4Addr::UNSPECIFIED, group.local_addr().unwrap().port()));
    assert!(matches!(open(same, 1), Err(OpenError::InUse(_))), "not even a group of our own is joined");
}

#[test]
fn an_address_of_another_host_is_an_error_that_names_it() {
    let error = open("192.0.2.7:1194".parse::<SocketAddr>().unwrap(), 1).unwrap_err();
    assert!(error.to_string().starts_with("192.0.2.7 is no address of this host"), "{error}");
}

#[test]
fn an_answer_leaves_from_the_address_the_client_used() {
    let (mut port, mut frames, drops, control) = one_worker();
    let client = client();
    let listens = control.local_addr().unwrap().port();
    for used in ["127.0.0.1", "127.0.0.2", "127.1.2.3"] {
        client.send_to(&data(0, 100), (used, listens)).unwrap();
        let seen = receive(&mut port, &mut frames, 1);
        assert_eq!(seen[0].len(), headers::LEN + 100);
        transmit(&mut port, &mut frames, &[&answer(&seen[0])]);
        let mut payload = [0; 2000];
        let (len, from) = client.recv_from(&mut payload).unwrap();
        assert_eq!(from.to_string(), format!("{used}:{listens}"));
        assert_eq!(payload[..len], data(0, 100));
    }
    assert_eq!(Drop::ALL.iter().map(|reason| drops.get(*reason)).sum::<u64>(), 0);
    assert_eq!(frames.free() + port.held(), frames.total());
}

#[test]
fn the_control_socket_answers_from_the_address_the_client_used() {
    let (_port, _frames, _drops, control) = one_worker();
    let client = client();
    let listens = control.local_addr().unwrap().port();
    client.send_to(b"\x38hello", ("127.0.0.3", listens)).unwrap();
    let mut buffer = [0; 100];
    let (len, remote, local) = control.recv(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..len], remote, local),
        (&b"\x38hello"[..], client.local_addr().unwrap(), (Ipv4Addr::new(127, 0, 0, 3), listens).into())
    );
    assert_eq!(control.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    control.send(b"welcome", remote, local.ip()).unwrap();
    let (len, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from.to_string()), (&b"welcome"[..], format!("127.0.0.3:{listens}")));
}

#[test]
fn more_than_a_batch_crosses_in_order() {
    let (mut port, mut frames, _drops, control) = one_worker();
    let client = client();
    client.connect(("127.0.0.1", control.local_addr().unwrap().port())).unwrap();
    for number in 0..200_u32 {
        client.send(&data(number, 80)).unwrap();
    }
    let seen = receive(&mut port, &mut frames, 200);
    let ids: Vec<_> =
        seen.iter().map(|frame| u32::from_be_bytes(frame[42..46].try_into().unwrap())).collect();
    assert_eq!(ids, (0..200).map(|number| 0x4800_0000 | number).collect::<Vec<_>>());
    let answers: Vec<_> = seen.iter().map(|frame| answer(frame)).collect();
    transmit(&mut port, &mut frames, &answers.iter().map(Vec::as_slice).collect::<Vec<_>>());
    for number in 0..200 {
        let mut payload = [0; 100];
        assert_eq!(client.recv(&mut payload).unwrap(), 80);
        assert_eq!(payload[..80], data(number, 80));
    }
    assert_eq!(frames.free(), frames.total());
}

#[test]
fn a_datagram_longer_than_a_frame_is_counted_and_the_next_one_arrives() {
    let (mut port, mut frames, drops, control) = one_worker();
    let client = client();
    let listens = control.local_addr().unwrap().port();
    for len in [1751, 9000, 1750] {
        client.send_to(&data(0, len), ("127.0.0.1", listens)).unwrap();
    }
    let seen = receive(&mut port, &mut frames, 1);
    assert_eq!(seen[0].len(), 1792);
    assert_eq!(drops.get(Drop::FrameMalformed), 2);
    assert_eq!(frames.free(), frames.total());
}

#[test]
fn what_cannot_be_sent_is_counted_and_what_is_behind_it_is_sent() {
    in_namespace(|| {
        let (mut port, mut frames, drops, control) = one_worker();
        let client = client();
        client.send_to(&data(0, 60), ("127.0.0.1", control.local_addr().unwrap().port())).unwrap();
        let seen = receive(&mut port, &mut frames, 1);
        let good = answer(&seen[0]);
        let mut unroutable = good.clone();
        unroutable[26..30].copy_from_slice(&[0; 4]);
        unroutable[30..34].copy_from_slice(&[198, 51, 100, 1]);
        transmit(&mut port, &mut frames, &[&good, &unroutable, &good, b"no packet at all", &good, &good]);
        for _ in 0..4 {
            assert_eq!(client.recv(&mut [0; 100]).unwrap(), 60);
        }
        assert_eq!((drops.get(Drop::SocketSendFailed), drops.get(Drop::FrameMalformed)), (1, 1));
        assert_eq!(frames.free(), frames.total());
    });
}

/// One of the IP counters of the thread's namespace.
fn ip_counter(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|seen| seen == name).unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

#[test]
fn a_packet_longer_than_the_mtu_crosses_in_fragments() {
    in_namespace(|| {
        ip("link set lo mtu 1500");
        let (mut port, mut frames, drops, control) = one_worker();
        let client = client();
        // As a stock client does: DF 0.
        sys::set_socket_option(
            client.as_fd(),
            nix::libc::IPPROTO_IP,
            nix::libc::IP_MTU_DISCOVER,
            nix::libc::IP_PMTUDISC_DONT,
        )
        .unwrap();
        // 1514 bytes inside, sealed: PROTOCOL A.13.
        let packet = data(0, 1538);
        client.send_to(&packet, ("127.0.0.1", control.local_addr().unwrap().port())).unwrap();
        let seen = receive(&mut port, &mut frames, 1);
        assert_eq!(seen[0].len(), headers::LEN + 1538);
        assert_eq!((ip_counter("FragCreates"), ip_counter("ReasmOKs")), (2, 1));

        transmit(&mut port, &mut frames, &[&answer(&seen[0])]);
        let mut payload = [0; 2000];
        let len = client.recv(&mut payload).unwrap();
        assert_eq!(payload[..len], packet);
        assert_eq!((ip_counter("FragCreates"), ip_counter("ReasmOKs")), (4, 2), "ours is in fragments, too");
        assert_eq!(drops.get(Drop::SocketSendFailed), 0);
    });
}

/// Frames that answer `frame` with payloads of these lengths, each filled with its number.
fn answers(frame: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
    let numbered = |(number, len): (usize, &usize)| {
        let mut payload = data(0, *len);
        payload[4..].fill(number as u8);
        answer_with(&crate::worker::outer::parse(frame).unwrap().path, &payload)
    };
    lengths.iter().enumerate().map(numbered).collect()
}

/// Sends payloads of these lengths to a client, who must get each as a datagram of its own, in order.
fn assert_sent_apart(lengths: &[usize]) {
    assert_sent_apart_to("127.0.0.1", ANY_PORT, lengths);
}

/// The same to a client that sends to `used`, a loopback address, by a gateway bound to `bind`.
pub(super) fn assert_sent_apart_to(used: &str, bind: SocketAddr, lengths: &[usize]) {
    let (mut port, mut frames, drops, control) = one_worker_at(bind);
    let client = client_at(used);
    client.send_to(&data(0, 60), (used, control.local_addr().unwrap().port())).unwrap();
    let seen = receive(&mut port, &mut frames, 1);
    let sent = answers(&seen[0], lengths);
    // No more at once than the client's receive buffer takes.
    for part in sent.chunks(40) {
        transmit(&mut port, &mut frames, &part.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for frame in part {
            let mut payload = [0; 2000];
            let len = client.recv(&mut payload).unwrap();
            assert_eq!(&payload[..len], headers::read(frame).unwrap().1);
        }
    }
    assert_eq!(drops.get(Drop::SocketSendFailed), 0);
    assert_eq!(frames.free(), frames.total());
}

#[test]
fn packets_of_one_length_to_one_peer_arrive_apart_and_in_order() {
    assert_sent_apart(&[1438; 200]);
    assert_sent_apart(&[[100; 3], [1438; 3], [84, 0, 84].map(|len: usize| len.max(5))].concat());
}

#[test]
fn packets_longer_than_the_mtu_are_not_sent_in_runs() {
    in_namespace(|| {
        ip("link set lo mtu 1500");
        let lengths = [[1538; 4], [1438; 4], [1538; 4]].concat();
        assert_sent_apart(&lengths);
        assert_eq!(ip_counter("FragCreates"), 16, "eight long ones in two fragments each");
    });
}
