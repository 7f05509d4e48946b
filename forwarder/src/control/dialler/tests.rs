use std::{path::Path as File, sync::Arc};

use super::*;
use crate::{config::Guards, worker::Clock};

const FILE: &str = "dev tap\nremote 127.0.0.1 1\nremote 127.0.0.2 2\nremote ::1 3\nconnect-timeout 4\n\
     <ca>\n</ca>\n<cert>\n</cert>\n<key>\n</key>\n";

fn dialler(lines: &str, now: Instant) -> Dialler {
    let file = config::client::parse(format!("{FILE}{lines}\n").as_bytes(), File::new("c.ovpn")).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let protocol = Config::new(tls.into());
    let local = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5000));
    Dialler::new(&file, protocol, local, || Ok([7; 32]), Arc::new(|| ()), now).unwrap()
}

fn sessions(now: Instant) -> Sessions {
    Sessions::new(Clock::new(now), 1514, vec![8], Guards::default())
}

/// Ports of the remotes that are called within `seconds`, in order.
fn called(dialler: &mut Dialler, start: Instant, seconds: u64) -> Vec<u16> {
    let sessions = sessions(start);
    let mut ports = Vec::new();
    for second in 0..seconds {
        dialler.handle_time(start + Duration::from_secs(second), &sessions);
        while let Some(transmit) = dialler.poll_transmit() {
            assert_eq!(transmit.path.local, SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)));
            ports.push(transmit.path.remote.port());
        }
    }
    ports.dedup();
    ports
}

#[test]
fn remotes_that_say_nothing_are_left_for_the_next_in_turn() {
    let start = Instant::now();
    let mut dialler = dialler("", start);
    // The third has no IPv4 address: it is passed over.
    assert_eq!(called(&mut dialler, start, 14), [1, 2, 1]);
    let trouble = dialler.trouble().unwrap();
    assert!(trouble.contains("not connected") && trouble.contains("no IPv4 address"), "{trouble}");
}

#[test]
fn connect_retry_max_ends_it_with_a_sentence() {
    let start = Instant::now();
    let mut dialler = dialler("connect-retry-max 1", start);
    assert_eq!(called(&mut dialler, start, 30), [1, 2]);
    assert!(dialler.is_stopped());
    assert!(dialler.take_failure().unwrap().to_string().contains("connect-retry-max"));
}

#[test]
fn packets_of_others_than_the_server_come_to_nothing() {
    let start = Instant::now();
    let mut dialler = dialler("", start);
    called(&mut dialler, start, 1);
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
    let from = |port| Path::udp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), local);
    assert_eq!(dialler.handle_datagram(start, from(9), &[0x40; 14]), Err(ControlError::UnknownPeer));
    assert_eq!(dialler.handle_datagram(start, from(1), &[0x40; 3]), Err(ControlError::Malformed));
    // Neither is an answer.
    assert_eq!(called(&mut dialler, start, 7), [1, 2]);
}

#[test]
fn told_to_stop_before_it_is_connected_it_stops_at_once() {
    let start = Instant::now();
    let mut dialler = dialler("", start);
    called(&mut dialler, start, 1);
    dialler.stop(start);
    assert!(dialler.is_stopped() && dialler.take_failure().is_none());
    assert_eq!(dialler.poll_timeout(), None);
}
