//! Whole sessions whose control packets are wrapped, in virtual time; and what strangers get from a server that wants
//! them wrapped.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

mod pair;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pair::{FINE, GATEWAY, PKI, Pair, STORM, server_config};
use trestle_openvpn::{
    client,
    data::{Digest, Role},
    ids::KeyId,
    server::{Config, ControlError, Event, OwnKeys, Path, Server, Wrappings},
    wire::{
        Acks, Body, ControlPacket, Head, Opcode, SessionId, early,
        wrapping::{
            ClientKey, Direction, Metadata, ServerKey, Stamp, StaticKey, Wrapping, split_wrapped_key,
        },
    },
};

const SECOND: Duration = Duration::from_secs(1);
const SERVER_KEY: &[u8] = include_bytes!("data/tls_crypt_v2_server.key");
const CLIENT_KEY: &[u8] = include_bytes!("data/tls_crypt_v2_client.key");
const UNIX_S: u64 = 1_800_000_000;

fn key(byte: u8) -> StaticKey {
    StaticKey::from_bytes(&std::array::from_fn(|at| byte ^ u8::try_from(at).unwrap()))
}

fn own_keys() -> OwnKeys {
    let server_key = Arc::new(ServerKey::parse(SERVER_KEY).unwrap());
    OwnKeys { server_key, force_cookie: false, max_age: None }
}

fn own_client() -> ClientKey {
    ClientKey::parse(CLIENT_KEY).unwrap()
}

fn server_with(shared: Wrapping, own: Option<OwnKeys>) -> Config {
    Config { wrappings: Wrappings { shared, own }, unix_s: UNIX_S, ..server_config() }
}

fn client_with(wrapping: Wrapping, wrapped_key: Option<Vec<u8>>) -> client::Config {
    let unix_s = UNIX_S;
    client::Config { wrapping, wrapped_key, unix_s, ..client::Config::new(PKI.client("agent")) }
}

/// A server and a client of it, for each way to wrap.
fn ways() -> Vec<(&'static str, Config, client::Config)> {
    let auth = |digest, direction| Wrapping::auth(key(1), digest, direction);
    let own = own_client();
    vec![
        (
            "tls-auth with directions",
            server_with(auth(Digest::Sha1, Some(Direction::Zero)), None),
            client_with(auth(Digest::Sha1, Some(Direction::One)), None),
        ),
        (
            "tls-auth without",
            server_with(auth(Digest::Sha512, None), None),
            client_with(auth(Digest::Sha512, None), None),
        ),
        (
            "tls-crypt",
            server_with(Wrapping::crypt(key(2), Role::Server), Some(own_keys())),
            client_with(Wrapping::crypt(key(2), Role::Client), None),
        ),
        (
            "tls-crypt-v2",
            server_with(auth(Digest::Sha1, None), Some(own_keys())),
            client_with(Wrapping::crypt(own.key, Role::Client), Some(own.wrapped)),
        ),
    ]
}

#[test]
fn every_wrapping_carries_a_session_and_its_rekeys_and_no_frame_is_lost() {
    for (name, mut server, client) in ways() {
        server.reneg = Some(60 * SECOND);
        let mut pair = Pair::new(server, FINE, 1);
        pair.traffic = Some(SECOND);
        let at = pair.connect(client);
        pair.run_for(600 * SECOND);
        assert!(pair.agents[at].connected().is_some(), "{name}: {:?}", pair.agents[at].events);
        assert!(pair.keys_installed >= 10, "{name}: {} keys", pair.keys_installed);
        assert_eq!(pair.gone_reasons(), [], "{name}");
        let (agent, peer) = (pair.agents[at].tunnel(), &pair.peers[&pair.agents[at].terms().peer_id].1);
        assert!(agent.opened + 3 >= peer.sent && peer.opened + 3 >= agent.sent, "{name}");
    }
}

#[test]
fn every_wrapping_comes_through_a_storm() {
    for seed in 0..5 {
        for (name, mut server, client) in ways() {
            server.reneg = Some(120 * SECOND);
            let mut pair = Pair::new(server, STORM, seed);
            let at = pair.connect(client);
            pair.run_for(300 * SECOND);
            assert!(pair.agents[at].connected().is_some(), "{name}, seed {seed}");
            assert!(pair.keys_installed >= 2, "{name}, seed {seed}: {} keys", pair.keys_installed);
            assert_eq!(pair.server.len(), 1, "{name}, seed {seed}");
        }
    }
}

#[test]
fn clients_of_both_ways_are_served_beside_one_another() {
    let own = own_client();
    let mut pair = Pair::new(server_with(Wrapping::crypt(key(2), Role::Server), Some(own_keys())), FINE, 1);
    let shared = client_with(Wrapping::crypt(key(2), Role::Client), None);
    let mut other = client_with(Wrapping::crypt(own.key, Role::Client), Some(own.wrapped));
    other.tls = PKI.client("other");
    let ats = [pair.connect(shared), pair.connect(other)];
    pair.run_for(5 * SECOND);
    assert!(ats.iter().all(|at| pair.agents[*at].connected().is_some()));
}

#[test]
fn a_client_with_another_key_or_none_hears_nothing() {
    let own = own_client();
    let wrong = [
        client_with(Wrapping::None, None),
        client_with(Wrapping::crypt(key(3), Role::Client), None),
        client_with(Wrapping::crypt(key(2), Role::Server), None),
        client_with(Wrapping::auth(key(2), Digest::Sha1, None), None),
        client_with(Wrapping::crypt(own.key, Role::Client), Some(own.wrapped)),
    ];
    for client in wrong {
        let mut pair = Pair::new(server_with(Wrapping::crypt(key(2), Role::Server), None), FINE, 1);
        pair.connect(client);
        pair.run_for(30 * SECOND);
        assert!(pair.events.is_empty(), "{:?}", pair.events);
        assert_eq!((pair.server.len(), pair.server.half_open()), (0, 0));
    }
}

#[test]
fn a_server_without_wrapping_still_says_that_a_client_is_wrapped() {
    for (name, _, client) in ways() {
        let mut pair = Pair::new(server_config(), FINE, 1);
        pair.connect(client);
        pair.run_for(SECOND);
        let [Event::Refused { reason, .. }] = &pair.events[..] else { panic!("{name}: {:?}", pair.events) };
        assert!(reason.contains("wrapped"), "{name}: {reason}");
    }
}

/// A server, and one who speaks to it by hand.
struct Stranger {
    server: Server,
    now: Instant,
    wrapping: Wrapping,
    wrapped: Vec<u8>,
}

impl Stranger {
    fn new(config: Config, wrapping: Wrapping, wrapped: Vec<u8>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the test begins at some moment")]
        let now = Instant::now();
        Self { server: Server::new(config, [7; 32], now), now, wrapping, wrapped }
    }

    fn with_own_key(config: OwnKeys) -> Self {
        let own = own_client();
        Self::new(
            server_with(Wrapping::None, Some(config)),
            Wrapping::crypt(own.key, Role::Client),
            own.wrapped,
        )
    }

    fn datagram(
        &self,
        opcode: Opcode,
        stamp: u32,
        id: Option<u32>,
        ours: Option<SessionId>,
        payload: &[u8],
    ) -> Vec<u8> {
        let head = Head { opcode, key_id: KeyId::FIRST, session_id: SessionId::new([5; 8]).unwrap() };
        let acks = if ours.is_some() { Acks::from_iter([0]) } else { Acks::default() };
        let body = Body { acks, remote_session_id: ours, packet_id: id, payload };
        let mut datagram = self.wrapping.wrap(Stamp { id: stamp, time: 9 }, &ControlPacket { head, body });
        if matches!(opcode, Opcode::HardResetClientV3 | Opcode::ControlWrappedKey) {
            datagram.extend_from_slice(&self.wrapped);
        }
        datagram
    }

    fn say(&mut self, datagram: &[u8]) -> Result<(), ControlError> {
        self.server.handle_datagram(self.now, path(), datagram)
    }

    /// What the server says: head and body's payload, with the stamp.
    fn hear(&mut self) -> Option<(Head, Stamp, Vec<u8>)> {
        let datagram = self.server.poll_transmit()?.payload;
        let (head, rest) = Head::parse(&datagram).unwrap();
        let unwrapped = self.wrapping.unwrap(&head, rest).unwrap();
        let payload = Body::parse(head.opcode, &unwrapped.body).unwrap().payload.to_vec();
        Some((head, unwrapped.stamp.unwrap(), payload))
    }
}

fn path() -> Path {
    Path::udp(SocketAddr::from(([203, 0, 113, 9], 1194)), GATEWAY)
}

#[test]
fn a_client_that_can_tell_its_key_again_is_asked_to_and_nothing_is_kept_of_it() {
    let mut stranger = Stranger::with_own_key(own_keys());
    let reset = stranger.datagram(Opcode::HardResetClientV3, 0x0f00_0001, Some(0), None, &[]);
    stranger.say(&reset).unwrap();
    let (head, _, payload) = stranger.hear().unwrap();
    assert_eq!((head.opcode, payload.as_slice()), (Opcode::HardResetServer, &early::RESEND[..]));
    assert_eq!((stranger.server.half_open(), stranger.server.poll_timeout()), (0, None));
    // Without the cookie its key is worth nothing, with it a session.
    let without = stranger.datagram(Opcode::ControlWrappedKey, 0x0f00_0002, Some(1), None, &[]);
    assert_eq!(stranger.say(&without), Err(ControlError::UnknownPeer));
    let with =
        stranger.datagram(Opcode::ControlWrappedKey, 0x0f00_0003, Some(1), Some(head.session_id), &[22]);
    stranger.say(&with).unwrap();
    assert_eq!(stranger.server.half_open(), 1);
    // The same again, and another transmission of the same packet.
    assert_eq!(stranger.say(&with), Err(ControlError::Replayed));
    let again =
        stranger.datagram(Opcode::ControlWrappedKey, 0x0f00_0004, Some(1), Some(head.session_id), &[22]);
    stranger.say(&again).unwrap();
    assert_eq!(stranger.server.half_open(), 1);
}

#[test]
fn a_second_wrapped_key_is_not_looked_at() {
    let mut stranger = Stranger::with_own_key(own_keys());
    let reset = stranger.datagram(Opcode::HardResetClientV3, 0x0f00_0001, Some(0), None, &[]);
    stranger.say(&reset).unwrap();
    let answer = stranger.hear().unwrap().0.session_id;
    let ours = Some(answer);
    let first = stranger.datagram(Opcode::ControlWrappedKey, 0x0f00_0002, Some(1), ours, &[22]);
    stranger.say(&first).unwrap();
    let server_key = ServerKey::parse(SERVER_KEY).unwrap();
    let another = server_key.wrap(&key(9), &Metadata::Other).unwrap();
    let nonsense: Vec<u8> = [1; 290].into_iter().chain([1, 36]).collect();
    for (stamp, told) in (0x0f00_0003..).zip([another, nonsense]) {
        assert!(split_wrapped_key(&told).is_ok_and(|(packet, _)| packet.is_empty()));
        stranger.wrapped = told;
        let second = stranger.datagram(Opcode::ControlWrappedKey, stamp, Some(2), ours, &[]);
        assert_eq!(stranger.say(&second), Ok(()));
    }
    // Its packets are still wrapped with the first.
    let (head, ..) = std::iter::from_fn(|| stranger.hear()).last().unwrap();
    assert_eq!(head.session_id, answer);
}

#[test]
fn a_client_that_cannot_tell_its_key_again_is_kept_from_its_first_packet_on() {
    let mut stranger = Stranger::with_own_key(own_keys());
    let reset = stranger.datagram(Opcode::HardResetClientV3, 1, Some(0), None, &[]);
    stranger.say(&reset).unwrap();
    assert_eq!(stranger.server.half_open(), 1);
    let (head, stamp, payload) = stranger.hear().unwrap();
    assert_eq!((head.opcode, stamp.id, payload.len()), (Opcode::HardResetServer, 1, 0));
    assert_eq!(stranger.say(&reset), Err(ControlError::Replayed));
    // It goes on with ordinary packets.
    let hello = stranger.datagram(Opcode::Control, 2, Some(1), Some(head.session_id), &[22, 3, 1]);
    assert_eq!(stranger.say(&hello), Ok(()));
    assert_eq!(stranger.server.half_open(), 1);
}

#[test]
fn force_cookie_keeps_nothing_of_clients_that_cannot_tell_their_key_again() {
    let mut stranger = Stranger::with_own_key(OwnKeys { force_cookie: true, ..own_keys() });
    let reset = stranger.datagram(Opcode::HardResetClientV3, 1, Some(0), None, &[]);
    assert_eq!(stranger.say(&reset), Err(ControlError::Refused));
    assert!(stranger.hear().is_none());
    assert_eq!(stranger.server.half_open(), 0);
}

#[test]
fn sessions_begun_by_first_packets_with_keys_are_limited_like_answers() {
    let mut stranger = Stranger::with_own_key(own_keys());
    let reset = stranger.datagram(Opcode::HardResetClientV3, 1, Some(0), None, &[]);
    let results: Vec<_> = (0..200)
        .map(|port| {
            let path = Path::udp(SocketAddr::from(([203, 0, 113, 9], 2000 + port)), GATEWAY);
            stranger.server.handle_datagram(stranger.now, path, &reset)
        })
        .collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 100);
    assert_eq!(results[199], Err(ControlError::RateLimited));
}

#[test]
fn a_key_that_is_too_old_is_refused_in_words() {
    let Metadata::Made(made) =
        ServerKey::parse(SERVER_KEY).unwrap().unwrap(&own_client().wrapped).unwrap().metadata
    else {
        panic!("the key has a date");
    };
    for (late, expected) in [(-1, Ok(())), (0, Ok(())), (1, Err(ControlError::Refused))] {
        let own = own_client();
        let mut config = server_with(
            Wrapping::None,
            Some(OwnKeys { max_age: Some(Duration::from_secs(86_400)), ..own_keys() }),
        );
        config.unix_s = u64::try_from(made + 86_400 + late).unwrap();
        let mut stranger = Stranger::new(config, Wrapping::crypt(own.key, Role::Client), own.wrapped);
        let reset = stranger.datagram(Opcode::HardResetClientV3, 0x0f00_0001, Some(0), None, &[]);
        assert_eq!(stranger.say(&reset), expected, "{late} s late");
        if expected.is_err() {
            assert!(stranger.hear().is_none());
            let Some(Event::Refused { reason, .. }) = stranger.server.poll_event() else { panic!() };
            assert!(reason.contains("tls-crypt-v2-max-age"), "{reason}");
        }
    }
}

#[test]
fn answers_without_state_never_have_the_same_stamp_as_one_another_or_as_the_session() {
    let crypt = |role| Wrapping::crypt(key(2), role);
    let config = server_with(crypt(Role::Server), None);
    let mut stranger = Stranger::new(config, crypt(Role::Client), Vec::new());
    let mut stamps = Vec::new();
    let mut session_id = None;
    for at in 0..5 {
        let reset = stranger.datagram(Opcode::HardResetClient, 1 + at, Some(0), None, &[]);
        stranger.say(&reset).unwrap();
        let (head, stamp, _) = stranger.hear().unwrap();
        session_id = Some(head.session_id);
        stamps.push((stamp.time, stamp.id));
        stranger.now += Duration::from_millis(7);
    }
    let hello = stranger.datagram(Opcode::Control, 9, Some(1), session_id, &[22]);
    stranger.say(&hello).unwrap();
    stamps.extend(std::iter::from_fn(|| stranger.hear()).map(|(_, stamp, _)| (stamp.time, stamp.id)));
    assert!(stamps.len() >= 6 && stamps.is_sorted_by(|before, after| before < after), "{stamps:?}");
}

#[test]
fn a_packet_that_was_recorded_is_of_no_use_to_who_plays_it_again() {
    let (_, server, client) = ways().remove(0);
    let mut pair = Pair::new(server, FINE, 1);
    pair.record = Some(Vec::new());
    let at = pair.connect(client);
    pair.run_for(5 * SECOND);
    let recorded = pair.record.take().unwrap();
    let address = pair.agents[at].address;
    let played: Vec<_> = recorded
        .iter()
        .chain(&recorded)
        .map(|datagram| pair.server.handle_datagram(pair.now, Path::udp(address, GATEWAY), datagram))
        .collect();
    // Of the reset, which was answered without state, nobody knows that it has come: it is acknowledged, once.
    assert_eq!(played[0], Ok(()));
    assert!(
        played.len() > 8 && played[1..].iter().all(|played| *played == Err(ControlError::Replayed)),
        "{played:?}"
    );
    // From elsewhere they begin nothing: the cookie is another.
    let elsewhere = Path::udp(SocketAddr::from(([198, 51, 100, 77], 9)), GATEWAY);
    for datagram in &recorded {
        let _ = pair.server.handle_datagram(pair.now, elsewhere, datagram);
    }
    assert_eq!((pair.server.len(), pair.server.half_open()), (1, 0));
}
