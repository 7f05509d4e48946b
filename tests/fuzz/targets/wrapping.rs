//! Arbitrary bytes against what stands before TLS: key files, wrappings, wrapped client keys; and a whole server that
//! wants its packets wrapped, with datagrams that this target wraps as a client would.
#![no_main]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use openvpn::{
    data::{Digest, Role},
    server::{Config, OwnKeys, Path, Server, Wrappings},
    tls,
    wire::{
        Body, ControlPacket, Head, SessionId, early,
        wrapping::{
            ClientKey, Direction, Metadata, ServerKey, Stamp, StaticKey, Wrapping, split_wrapped_key,
        },
    },
};

fuzz_target!(|input: &[u8]| {
    parse(input);
    let mut gateway = Gateway::new();
    for (kind, datagram) in trestle_fuzz::records(input) {
        gateway.receive(kind, datagram);
    }
});

/// What nobody has wrapped is not authentic; what a server key wraps comes back.
fn parse(input: &[u8]) {
    let _ = (StaticKey::parse(input), ServerKey::parse(input), ClientKey::parse(input));
    let _ = early::wants_wrapped_key(input);
    if let Ok((rest, wrapped)) = split_wrapped_key(input) {
        assert_eq!(rest.len() + wrapped.len(), input.len());
        assert!(KEYS.server.unwrap(wrapped).is_err(), "a key that nobody wrapped");
    }
    if let Some(wrapped) = KEYS.server.wrap(&KEYS.own, &Metadata::User(input.to_vec())) {
        let unwrapped = KEYS.server.unwrap(&wrapped).expect("what is wrapped is unwrapped");
        assert_eq!(unwrapped.metadata, Metadata::User(input.to_vec()));
    }
    if let Ok((head, rest)) = Head::parse(input) {
        assert!(
            KEYS.auth_server.unwrap(&head, rest).is_err() && KEYS.crypt_server.unwrap(&head, rest).is_err()
        );
    }
}

struct Keys {
    server: ServerKey,
    own: StaticKey,
    wrapped: Vec<u8>,
    auth_client: Wrapping,
    auth_server: Wrapping,
    crypt_client: Wrapping,
    crypt_server: Wrapping,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let (shared, own) = (StaticKey::from_bytes(&[0x5a; 256]), StaticKey::from_bytes(&[0xa5; 256]));
    let server = server_key();
    let wrapped = server.wrap(&own, &Metadata::Other).expect("it fits");
    let auth = |direction| Wrapping::auth(shared.clone(), Digest::Sha256, Some(direction));
    Keys {
        auth_client: auth(Direction::One),
        auth_server: auth(Direction::Zero),
        crypt_client: Wrapping::crypt(own.clone(), Role::Client),
        crypt_server: Wrapping::crypt(own.clone(), Role::Server),
        server,
        own,
        wrapped,
    }
});

/// 128 zeros, in base64.
fn server_key() -> ServerKey {
    let label = "OpenVPN tls-crypt-v2 server key";
    let text = format!("-----BEGIN {label}-----\n{}=\n-----END {label}-----\n", "A".repeat(171));
    ServerKey::parse(text.as_bytes()).expect("a key of 128 bytes")
}

/// A server, and what a client of it needs to know.
struct Gateway {
    server: Server,
    now: Instant,
    /// The client's transmissions.
    stamp: Stamp,
    /// The last session id that the server used.
    session_id: Option<SessionId>,
}

impl Gateway {
    fn new() -> Self {
        let now = Instant::now();
        let stamp = Stamp { id: 0, time: 9 };
        Self { server: Server::new(CONFIG.clone(), [7; 32], now), now, stamp, session_id: None }
    }

    /// A datagram comes in after some time: as it is, or its head and body wrapped by one of two keys; bit 5 repeats the
    /// last stamp, bit 2 fills in the server's session id.
    fn receive(&mut self, kind: u8, bytes: &[u8]) {
        self.now += Duration::from_millis(u64::from(kind >> 6) * 700);
        let datagram = match kind & 0b11 {
            0 => Some(bytes.to_vec()),
            1 => self.wrap(kind, bytes, &KEYS.auth_client, &[]),
            2 => self.wrap(kind, bytes, &KEYS.crypt_client, &KEYS.wrapped),
            _ => self.wrap(kind, bytes, &KEYS.crypt_client, &[]),
        };
        // An error says that it is to be counted: here it is not.
        let _ = datagram.map(|datagram| self.server.handle_datagram(self.now, path(), &datagram));
        self.server.handle_timeout(self.now);
        self.drain();
    }

    fn wrap(&mut self, kind: u8, bytes: &[u8], wrapping: &Wrapping, behind: &[u8]) -> Option<Vec<u8>> {
        let (head, rest) = Head::parse(bytes).ok()?;
        let mut body = Body::parse(head.opcode, rest).ok()?;
        if kind & 0b100 != 0 {
            body.remote_session_id = self.session_id.or(body.remote_session_id);
        }
        self.stamp.id += u32::from(kind & 0b10_0000 == 0);
        let marked = Stamp { id: self.stamp.id | u32::from(kind & 0b1000 != 0) * 0x0f00_0000, ..self.stamp };
        let mut datagram = wrapping.wrap(marked, &ControlPacket { head, body });
        datagram.extend_from_slice(behind);
        Some(datagram)
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.server.poll_transmit() {
            assert!(transmit.payload.len() + 28 <= 1250, "control packets are not fragmented");
            let (head, rest) = Head::parse(&transmit.payload).expect("the server's packets can be parsed");
            let opened =
                [&KEYS.auth_client, &KEYS.crypt_client].map(|wrapping| wrapping.unwrap(&head, rest).ok());
            assert_eq!(opened.iter().flatten().count(), 1, "the server's packets are wrapped");
            self.session_id = Some(head.session_id);
        }
        while self.server.poll_event().is_some() {}
        assert!(self.server.is_empty(), "nobody here has a certificate");
        assert!(self.server.half_open() <= 2, "one session an address, and one that may replace it");
    }
}

fn path() -> Path {
    Path::udp(
        SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), 40_000)),
        SocketAddr::from((Ipv4Addr::new(10, 10, 21, 5), 443)),
    )
}

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["server".to_owned()]).expect("a key can be made");
    let (certificate, key) = (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes());
    let tls = tls::server_config(&certificate, &certificate, &key).expect("the certificates are good");
    let own = OwnKeys { server_key: Arc::new(server_key()), force_cookie: false, max_age: None };
    let wrappings = Wrappings { shared: KEYS.auth_server.clone(), own: Some(own) };
    Config { wrappings, ..Config::new(tls) }
});
