//! A socket of IPv6, which serves IPv4 as well.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    tests::{answer, assert_sent_apart_to, client_at, data, one_worker_at},
    *,
};
use crate::ports::testing::{in_namespace, ip, receive, transmit};

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

#[test]
fn clients_of_both_families_are_answered_from_the_address_they_used() {
    in_namespace(|| {
        ip("-6 address add 2001:db8::5/128 dev lo nodad");
        ip("-6 address add 2001:db8::6/128 dev lo nodad");
        let (mut port, mut frames, drops, control) = one_worker_at(ANY_PORT);
        let listens = control.local_addr().unwrap().port();
        for used in ["127.0.0.1", "2001:db8::5", "127.0.0.2", "::1", "2001:db8::6"] {
            let used: IpAddr = used.parse().unwrap();
            let client = client_at(if used.is_ipv6() { "::1" } else { "127.0.0.1" });
            client.send_to(&data(0, 100), (used, listens)).unwrap();
            let seen = receive(&mut port, &mut frames, 1);
            assert_eq!(seen[0].len(), headers::LEN_V6 + 100);
            transmit(&mut port, &mut frames, &[&answer(&seen[0])]);
            let mut payload = [0; 2000];
            let (len, from) = client.recv_from(&mut payload).unwrap();
            assert_eq!((from, &payload[..len]), (SocketAddr::new(used, listens), &data(0, 100)[..]));

            client.send_to(b"\x38hello", (used, listens)).unwrap();
            let (len, remote, local) = control.recv(&mut payload).unwrap();
            assert_eq!((&payload[..len], remote), (&b"\x38hello"[..], client.local_addr().unwrap()));
            assert_eq!(local, SocketAddr::new(used, listens));
            control.send(b"welcome", remote, local.ip()).unwrap();
            assert_eq!(client.recv_from(&mut payload).unwrap(), (7, SocketAddr::new(used, listens)));
            // The kernel's choice, as for a client that connects somewhere by itself.
            control.send(b"welcome", remote, Ipv4Addr::UNSPECIFIED.into()).unwrap();
            assert_eq!(client.recv_from(&mut payload).unwrap().0, 7);
        }
        assert_eq!(Drop::ALL.iter().map(|reason| drops.get(*reason)).sum::<u64>(), 0);
        assert_eq!(frames.free(), frames.total());
    });
}

#[test]
fn data_of_both_families_goes_to_the_worker_of_its_peer() {
    let (control, workers) = open(ANY_PORT, 3).unwrap();
    let port = control.local_addr().unwrap().port();
    for address in ["127.0.0.1", "::1"] {
        let client = client_at(address);
        for peer_id in 0..6 {
            client.send_to(&data(peer_id, 60), (address, port)).unwrap();
            let owner = &workers[peer_id as usize % 3];
            assert_eq!(owner.recv(&mut [0; 100]).unwrap(), 60, "peer {peer_id} by {address}");
        }
        client.send_to(&[7 << 3; 60], (address, port)).unwrap();
        assert_eq!(control.recv(&mut [0; 100]).unwrap(), 60);
    }
}

#[test]
fn ipv6only_leaves_the_port_of_ipv4_to_others() {
    let four = UdpSocket::bind("0.0.0.0:0").unwrap();
    let address = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), four.local_addr().unwrap().port());
    assert!(matches!(open(address, 1), Err(OpenError::InUse(_))));
    let (control, _workers) = open(Bind { address, v6_only: true }, 1).unwrap();
    assert_eq!(control.local_addr().unwrap(), address);
    let other = open(address, 1).unwrap_err();
    assert!(
        other.to_string().starts_with(&format!("UDP port {} of :: is in use", address.port())),
        "{other}"
    );
}

#[test]
fn runs_are_sent_to_both_families_apart_and_in_order() {
    for used in ["127.0.0.1", "::1"] {
        assert_sent_apart_to(used, ANY_PORT, &[1438; 80]);
        assert_sent_apart_to(used, ANY_PORT, &[[100; 3], [1438; 3], [84, 5, 84]].concat());
    }
}

#[test]
fn a_packet_longer_than_the_mtu_crosses_in_fragments_of_either_family() {
    in_namespace(|| {
        ip("link set lo mtu 1500");
        for used in ["127.0.0.1", "::1"] {
            assert_sent_apart_to(used, ANY_PORT, &[[1538; 4], [1438; 4], [1538; 4]].concat());
        }
        // In /proc/net/snmp6 each counter has a line of its own.
        let table = std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
        let made = table.lines().find_map(|line| line.strip_prefix("Ip6FragCreates")).unwrap();
        assert_eq!(made.trim(), "16", "eight long ones in two fragments each");
    });
}
