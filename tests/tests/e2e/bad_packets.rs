//! Garbage, truncated, replayed and forged packets on the tunnel's port: counted, not answered, survived.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use trestle_tests::echo::ping;
use trestle_tests::gateway::Mode;
use trestle_tests::netns::Namespace;
use trestle_tests::network::{LAN_HOST, PUBLIC};
use trestle_tests::process::read_lossy;
use trestle_tests::raw::RawPort;
use trestle_tests::runner::Suite;
use trestle_tests::site::Site;
use trestle_tests::{Fault, Result, scenarios};

use crate::stations::{self, SOON, Station};

pub const SUITE: Suite = Suite {
    name: "bad_packets",
    modes: Mode::TRESTLE,
    site: stations::reference,
    fresh: false,
    scenarios: scenarios![
        replayed_packets_are_counted_and_not_delivered_again,
        forged_packets_are_counted_and_not_delivered,
        packets_of_no_session_or_key_are_counted,
        truncated_packets_are_counted_and_not_answered,
        a_flood_of_first_packets_is_limited_and_keeps_no_state,
        garbage_is_counted_and_not_answered_and_takes_no_memory,
    ],
};

/// Outer headers before the tunnel packet: Ethernet, IPv4 without options, UDP.
const OUTER: usize = 14 + 20 + 8;
/// First byte of a data packet with key 0: `P_DATA_V2 << 3`.
const DATA_V2: u8 = 9 << 3;

fn replayed_packets_are_counted_and_not_delivered_again(site: &mut Site) -> Result<()> {
    let (two, captured) = captured(site, b"to be replayed")?;
    assert!(two.hears(b"to be replayed"), "the original does not arrive");
    let before = site.gateway()?.drops("replayed")?;
    inject(site, &captured, 10, |_| ())?;
    assert!(two.hears_nothing_of(b"to be replayed"), "a replayed packet is delivered");
    assert_eq!(site.gateway()?.drops("replayed")? - before, 10);
    alive(site)
}

fn forged_packets_are_counted_and_not_delivered(site: &mut Site) -> Result<()> {
    let (two, captured) = captured(site, b"to be forged")?;
    assert!(two.hears(b"to be forged"), "the original does not arrive");
    let before = refusals(site)?;
    // Last byte of the ciphertext, first of the tag, first of the packet id.
    for at in [captured.len() - 1, OUTER + 8, OUTER + 4] {
        inject(site, &captured, 1, |frame| frame[at] ^= 0x55)?;
    }
    assert!(two.hears_nothing_of(b"to be forged"), "a forged packet is delivered");
    let after = refusals(site)?;
    // The packet id of the first two was received before, which may be found first; that of the third was not.
    assert!(after.0 > before.0, "a forged packet id is not counted as forged");
    assert_eq!(after.0 + after.1 - before.0 - before.1, 3);
    alive(site)
}

/// Packets that did not authenticate, and packets received before.
fn refusals(site: &mut Site) -> Result<(u64, u64)> {
    let gateway = site.gateway()?;
    Ok((gateway.drops("authentication_failed")?, gateway.drops("replayed")?))
}

fn packets_of_no_session_or_key_are_counted(site: &mut Site) -> Result<()> {
    let (_, captured) = captured(site, b"astray")?;
    let before = (site.gateway()?.drops("peer_unknown")?, site.gateway()?.drops("key_unknown")?);
    inject(site, &captured, 5, |frame| frame[OUTER + 2] = 0x0f)?;
    inject(site, &captured, 5, |frame| frame[OUTER] = DATA_V2 | 5)?;
    let after = (site.gateway()?.drops("peer_unknown")?, site.gateway()?.drops("key_unknown")?);
    assert_eq!((after.0 - before.0, after.1 - before.1), (5, 5));
    alive(site)
}

fn truncated_packets_are_counted_and_not_answered(site: &mut Site) -> Result<()> {
    let (_, captured) = captured(site, b"to be cut short")?;
    let packet = &captured[OUTER..];
    let socket = outsider(site.agent(1))?;
    let before = all_drops(site)?;
    for length in 0..40 {
        send(&socket, &packet[..length])?;
    }
    assert_eq!(answers(&socket), 0, "truncated packets are answered");
    let counted = all_drops(site)? - before;
    assert!(counted >= 40, "{counted} of 40 truncated packets are counted");
    alive(site)
}

fn garbage_is_counted_and_not_answered_and_takes_no_memory(site: &mut Site) -> Result<()> {
    const PACKETS: u64 = 5000;
    let socket = outsider(site.agent(1))?;
    let before = (all_drops(site)?, resident_bytes(site)?);
    let mut random = Random(0x7265_7374_6c65);
    for number in 0..PACKETS {
        send(&socket, &garbage(&mut random))?;
        if number % 16 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(answers(&socket), 0, "garbage is answered");
    let counted = all_drops(site)? - before.0;
    // What the kernel's own socket had no room for is its loss, not ours.
    assert!(counted > PACKETS * 9 / 10, "{counted} of {PACKETS} garbage packets are counted");
    let grown = resident_bytes(site)?.saturating_sub(before.1);
    assert!(grown < 4 << 20, "garbage makes the gateway grow by {grown} bytes");
    alive(site)
}

fn a_flood_of_first_packets_is_limited_and_keeps_no_state(site: &mut Site) -> Result<()> {
    const FIRST_PACKETS: u32 = 3000;
    // As many as `max-clients`, 1024 where server.conf says nothing, and as many again if a period ends meanwhile.
    const ANSWERS: u32 = 2048;
    let socket = outsider(site.agent(1))?;
    let before = (site.gateway()?.drops("control_rate_limited")?, resident_bytes(site)?);
    for number in 0..FIRST_PACKETS {
        let session = [b"session".as_slice(), &[0], &number.to_be_bytes()].concat();
        // P_CONTROL_HARD_RESET_CLIENT_V2, session id, no acknowledgements, packet id 0.
        send(&socket, &[&[0x38], &session[4..12], &[0, 0, 0, 0, 0]].concat())?;
        std::thread::sleep(Duration::from_micros(100));
    }
    let answered = answers(&socket);
    assert!(answered > 0, "no first packet is answered");
    let limited = site.gateway()?.drops("control_rate_limited")? - before.0;
    assert!(limited >= u64::from(FIRST_PACKETS - ANSWERS), "{limited} first packets are counted as too many");
    assert_eq!(
        site.gateway()?.status()?["peers"].as_array().map(Vec::len),
        Some(2),
        "a first packet makes a peer"
    );
    let grown = resident_bytes(site)?.saturating_sub(before.1);
    assert!(grown < 4 << 20, "first packets make the gateway grow by {grown} bytes");
    alive(site)
}

/// Sends `payload` from agent 1 to agent 2 and returns agent 2's station and the outer frame that carried it, as it
/// came from the router. Its UDP checksum is taken out, so that it can be altered.
fn captured(site: &Site, payload: &[u8]) -> Result<(Station, Vec<u8>)> {
    let (one, two) = (Station::agent(site, 0)?, Station::agent(site, 1)?);
    let tap = RawPort::open(&site.network.wire, "w-router")?;
    let long = [payload, &[0x5a; 600]].concat();
    one.send_as(one.mac, two.mac, &long)?;
    let wanted =
        |frame: &[u8]| frame.len() > OUTER + 600 && frame[23] == 17 && frame[OUTER] & 0xf8 == DATA_V2;
    let mut frame =
        tap.expect(SOON, wanted).ok_or_else(|| Fault::other("no tunnel packet passes the router"))?;
    frame[OUTER - 2..OUTER].fill(0);
    Ok((two, frame))
}

/// Sends altered copies of an outer frame as the router would.
fn inject(site: &Site, frame: &[u8], times: usize, alter: impl Fn(&mut [u8])) -> Result<()> {
    let router = RawPort::open(&site.network.router, "lan0")?;
    let mut altered = frame.to_vec();
    alter(&mut altered);
    for _ in 0..times {
        router.send(&altered)?;
    }
    std::thread::sleep(Duration::from_millis(200));
    Ok(())
}

/// A UDP socket outside, like anybody's on the Internet.
fn outsider(namespace: &Namespace) -> Result<UdpSocket> {
    let open = || -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(SocketAddr::from((PUBLIC, 443)))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(socket)
    };
    namespace.within(open)?.map_err(Fault::io("opening a socket outside"))
}

fn send(socket: &UdpSocket, packet: &[u8]) -> Result<()> {
    socket.send(packet).map(drop).map_err(Fault::io("sending a bad packet"))
}

/// How many packets come back until none comes for half a second.
fn answers(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 2048];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
}

fn all_drops(site: &mut Site) -> Result<u64> {
    let status = site.gateway()?.status()?;
    let drops = status["drops"].as_object().ok_or_else(|| Fault::other("`status -j` has no drops"))?;
    Ok(drops.values().filter_map(serde_json::Value::as_u64).sum())
}

fn resident_bytes(site: &mut Site) -> Result<u64> {
    let path = format!("/proc/{}/status", site.gateway()?.process().pid());
    let text = read_lossy(std::path::Path::new(&path));
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|k| k * 1024).ok_or_else(|| Fault::other(format!("no VmRSS in {path}")))
}

fn alive(site: &mut Site) -> Result<()> {
    for to in [site.address(1), LAN_HOST] {
        let echoes = ping(site.agent(0), to, 5, 56)?;
        assert!(echoes.complete(), "afterwards, agent1 to {to}: {echoes:?}");
    }
    Ok(())
}

/// Random bytes that no correct gateway answers.
fn garbage(random: &mut Random) -> Vec<u8> {
    let length = random.next() as usize % 1400;
    let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
    // A hard reset with a sane head would be due an answer: give it more acknowledgements than there may be.
    if let Some(acknowledgements) = bytes.get_mut(9) {
        *acknowledgements |= 0x80;
    }
    bytes
}

/// xorshift64: the same packets in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }
}
