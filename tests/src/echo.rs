//! Echo requests of our own: `ping` gives up on the last replies after twice the longest round trip it has seen, which
//! on a busy machine looks like loss.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Namespace;
use crate::process::patient;
use crate::{Fault, Result};

/// Time between two requests.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long to wait for replies after the last request.
const PATIENCE: Duration = Duration::from_secs(3);
/// ICMP header: type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

/// What came back of a number of echo requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echoes {
    /// Requests sent.
    pub sent: u16,
    /// Requests answered.
    pub received: u16,
    /// Replies received more than once.
    pub duplicates: u16,
}

impl Echoes {
    /// Whether every request was answered once.
    pub fn complete(&self) -> bool {
        self.sent > 0 && self.sent == self.received && self.duplicates == 0
    }
}

/// Sends `count` echo requests with `payload` bytes each from `namespace` to `address`, and waits for the replies.
pub fn ping(namespace: &Namespace, address: impl Into<IpAddr>, count: u16, payload: usize) -> Result<Echoes> {
    let address = address.into();
    let socket = namespace.within(|| open(address))?;
    let failed = format!("sending an echo request from {} to {address}", namespace.name());
    exchange(&socket.map_err(Fault::io(failed.clone()))?, address, count, payload).map_err(Fault::io(failed))
}

/// Whether an answer comes from `address` within `limit`.
pub fn reachable(namespace: &Namespace, address: impl Into<IpAddr>, limit: Duration) -> bool {
    let address = address.into();
    let Ok(Ok(socket)) = namespace.within(|| open(address)) else { return false };
    let kind = Kind::of(address);
    let identifier = next_identifier();
    let deadline = Instant::now() + patient(limit);
    for number in 0.. {
        // Unreachable is an error of the moment: the next hop's address may not be resolved yet.
        let _ = socket.send(&kind.request(identifier, number, 56));
        let next = Instant::now() + Duration::from_millis(100);
        while Instant::now() < next {
            if receive(&socket, kind, identifier).is_some() {
                return true;
            }
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    false
}

fn exchange(socket: &Socket, address: IpAddr, count: u16, payload: usize) -> std::io::Result<Echoes> {
    let (kind, identifier) = (Kind::of(address), next_identifier());
    let mut answers = vec![0_u16; count.into()];
    let mut echoes = Echoes::default();
    let mut next = Instant::now();
    let mut end = None;
    while end.is_none_or(|end| Instant::now() < end && answers.contains(&0)) {
        if echoes.sent < count && Instant::now() >= next {
            socket.send(&kind.request(identifier, echoes.sent, payload))?;
            echoes.sent += 1;
            next += INTERVAL;
        }
        if end.is_none() && echoes.sent == count {
            end = Some(Instant::now() + patient(PATIENCE));
        }
        if let Some(times) =
            receive(socket, kind, identifier).and_then(|number| answers.get_mut(usize::from(number)))
        {
            *times += 1;
        }
    }
    echoes.received = answers.iter().map(|times| (*times).min(1)).sum();
    echoes.duplicates = answers.iter().map(|times| times.saturating_sub(1)).sum();
    Ok(echoes)
}

fn open(address: IpAddr) -> std::io::Result<Socket> {
    let socket = match address {
        IpAddr::V4(_) => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?,
        IpAddr::V6(_) => Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?,
    };
    socket.connect(&SocketAddr::new(address, 0).into())?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    Ok(socket)
}

/// Number of the reply that arrives within a millisecond, if it is one of ours.
fn receive(socket: &Socket, kind: Kind, identifier: u16) -> Option<u16> {
    let mut bytes = [0; 65_536];
    let mut reader = socket;
    let length = reader.read(&mut bytes).ok()?;
    kind.reply(&bytes[..length], identifier)
}

/// ICMP or ICMPv6.
#[derive(Clone, Copy, Debug)]
enum Kind {
    V4,
    V6,
}

impl Kind {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn request(self, identifier: u16, number: u16, payload: usize) -> Vec<u8> {
        let mut message = vec![0; HEADER + payload];
        message[0] = match self {
            Self::V4 => 8,
            Self::V6 => 128,
        };
        message[4..6].copy_from_slice(&identifier.to_be_bytes());
        message[6..8].copy_from_slice(&number.to_be_bytes());
        // The kernel computes that of ICMPv6, which covers addresses.
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    }

    /// Sequence number of an echo reply with `identifier`.
    fn reply(self, packet: &[u8], identifier: u16) -> Option<u16> {
        let (kind, message) = match self {
            // A raw IPv4 socket delivers the IP header too.
            Self::V4 => (0, packet.get(usize::from(packet.first()? & 0x0f) * 4..)?),
            Self::V6 => (129, packet),
        };
        let [found, _, _, _, i0, i1, n0, n1] = *message.first_chunk::<HEADER>()?;
        (found == kind && u16::from_be_bytes([i0, i1]) == identifier).then_some(u16::from_be_bytes([n0, n1]))
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// An identifier that no other echo of this process uses; other processes are in other namespaces.
fn next_identifier() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_over_itself_is_zero() {
        let request = Kind::V4.request(7, 3, 57);
        assert_eq!(checksum(&request), 0);
    }

    #[test]
    fn a_reply_is_recognised_by_kind_and_identifier() {
        let mut message = Kind::V6.request(7, 3, 10);
        assert_eq!(Kind::V6.reply(&message, 7), None);
        message[0] = 129;
        assert_eq!(Kind::V6.reply(&message, 7), Some(3));
        assert_eq!(Kind::V6.reply(&message, 8), None);
        assert_eq!(Kind::V6.reply(&message[..7], 7), None);
    }
}
