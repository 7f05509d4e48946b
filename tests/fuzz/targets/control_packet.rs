//! Arbitrary datagrams against the control channel: the parsers, and a whole server that some of them get past the
//! cookie of, because the target fills in the session ids that the server has made up.
#![no_main]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::LazyLock,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use openvpn::{
    server::{AllowCompression, Compress, Config, ExitNotify, Path, Pool, Server},
    tls,
    wire::{Acks, Body, ControlPacket, SessionId, command, key_method::KeyMethod, occ, peer_info::PeerInfo},
};

fuzz_target!(|input: &[u8]| {
    parse(input);
    let mut gateway = Gateway::new();
    for (kind, datagram) in trestle_fuzz::records(input) {
        gateway.receive(kind, datagram);
    }
});

/// What is parsed and written again is what it was.
fn parse(input: &[u8]) {
    if let Ok(packet) = ControlPacket::parse(input) {
        assert_eq!(packet.emit(), input);
    }
    for from_client in [true, false] {
        if let Ok((_, len)) = KeyMethod::parse(input, from_client) {
            assert!(len <= input.len());
        }
    }
    PeerInfo::parse(input);
    occ::cipher_name(input);
    occ::device_type(input);
    let mut stream = input.to_vec();
    while let Ok(Some(text)) = command::take(&mut stream) {
        command::Command::parse(&text);
    }
}

/// A server, and what a client of it needs to know.
struct Gateway {
    server: Server,
    now: Instant,
    /// The last session id that the server used.
    session_id: Option<SessionId>,
}

impl Gateway {
    fn new() -> Self {
        let now = Instant::now();
        Self { server: Server::new(CONFIG.clone(), [7; 32], now), now, session_id: None }
    }

    /// A datagram comes in: from one of four addresses, after some time, as it is or answering the server's last.
    fn receive(&mut self, kind: u8, datagram: &[u8]) {
        let port = 40_000 + u16::from(kind & 0b11);
        let path = Path::udp(
            SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), port)),
            SocketAddr::from((Ipv4Addr::new(10, 10, 21, 5), 443)),
        );
        self.now += Duration::from_millis(u64::from(kind >> 3) * 100);
        let answer = self.session_id.filter(|_| kind & 0b100 != 0).and_then(|id| answering(datagram, id));
        let datagram = answer.as_deref().unwrap_or(datagram);
        // An error says that it is to be counted: here it is not.
        let _ = self.server.handle_datagram(self.now, path, datagram);
        self.server.handle_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.server.poll_transmit() {
            assert!(transmit.payload.len() <= 1250, "control packets are not fragmented");
            let packet = ControlPacket::parse(&transmit.payload).expect("the server's packets can be parsed");
            self.session_id = Some(packet.head.session_id);
        }
        while self.server.poll_event().is_some() {}
        assert!(self.server.is_empty(), "nobody here has a certificate");
        assert!(self.server.half_open() <= 8, "one session an address, and one that may replace it");
    }
}

/// `datagram` with its acknowledgements addressed to the server's session `id`.
fn answering(datagram: &[u8], id: SessionId) -> Option<Vec<u8>> {
    let ControlPacket { head, body } = ControlPacket::parse(datagram).ok()?;
    let acks = if body.acks.as_slice().is_empty() { Acks::from_iter([0]) } else { body.acks };
    let body = Body { acks, remote_session_id: Some(id), ..body };
    Some(ControlPacket { head, body }.emit())
}

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let (certificate, key) = certificate();
    let tls = tls::server_config(&certificate, &certificate, &key).expect("the certificates are good");
    Config {
        ping: Some(Duration::from_secs(10)),
        ping_restart: Some(Duration::from_secs(240)),
        push: vec!["route-gateway 10.10.21.5".to_owned()],
        compress: Compress::Lz4V2,
        allow_compression: AllowCompression::Asym,
        pool: Some(Pool {
            gateway: Ipv4Addr::new(10, 10, 21, 5),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            first: Ipv4Addr::new(10, 10, 21, 100),
            last: Ipv4Addr::new(10, 10, 21, 255),
        }),
        max_clients: 4,
        exit_notify: Some(ExitNotify::Restart),
        ..Config::new(tls)
    }
});

/// A certificate that signed itself, which is also the authority no client has one of; and its key.
fn certificate() -> (Vec<u8>, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(["server".to_owned()]).expect("a key can be made");
    (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
}
