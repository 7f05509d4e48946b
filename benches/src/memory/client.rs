//! The other end of a peer's data channel, and the way its packets take to the gateway.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use common::Mac;
use openvpn::{
    data::{Cipher, DataChannel, DataKeys, Framing, MAX_OVERHEAD, Profile, Role},
    ids::{KeyId, PeerId},
    server::Path,
};
use trestle::{
    switch::WireId,
    worker::{Outer, outer::OUTER_HEADER},
};

use super::gateway::{GATEWAY, MTU, NIC, ROUTER};

/// Longest frame a client sends, in bytes.
const MAX_FRAME: usize = 1518;
/// What every peer in memory has agreed.
pub(super) const PROFILE: Profile =
    Profile { mssfix: Some(1368), ..Profile::new(Cipher::Aes256Gcm, Framing::V2) };
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
const IPV4: usize = 20;
/// Flag of every fragment but the last (RFC 791).
const MORE_FRAGMENTS: u16 = 0x2000;
/// A NIC pads what is shorter, in bytes.
const MIN_FRAME: usize = 60;

/// A connected client with one station behind it.
#[derive(Debug)]
pub struct Client {
    peer_id: PeerId,
    channel: DataChannel,
    outer: Outer,
    packet: Vec<u8>,
    fragment: Vec<u8>,
    identification: u16,
}

/// The keys of every session: what they are does not matter here.
pub(super) fn keys(role: Role) -> DataKeys {
    DataKeys::new(PROFILE, role, &[7; 256])
}

impl Client {
    /// # Errors
    /// `number` is no peer id, or does not fit the third and fourth byte of an address.
    pub(super) fn new(number: u32) -> io::Result<Self> {
        let peer_id = u16::try_from(number).ok().and_then(|_| PeerId::new(number));
        let peer_id =
            peer_id.ok_or_else(|| io::Error::other(format!("{number} is no peer id for a benchmark")))?;
        let mut channel = DataChannel::new(peer_id, PROFILE, MAX_FRAME);
        channel.install(KeyId::FIRST, keys(Role::Client));
        channel.send_with(KeyId::FIRST);
        // Whole at first: cut afterwards.
        let outer = Outer::by_nic(WireId::UPLINK, remote(peer_id), GATEWAY, ROUTER, NIC, u16::MAX);
        let packet = vec![0; OUTER_HEADER + MAX_FRAME + MAX_OVERHEAD];
        Ok(Self { peer_id, channel, outer, packet, fragment: Vec::new(), identification: 0 })
    }

    /// Its number.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The station behind it.
    pub fn mac(&self) -> Mac {
        let [_, _, high, low] = self.peer_id.value().to_be_bytes();
        [2, 0, 0, 1, high, low]
    }

    /// From where it sends.
    pub fn remote(&self) -> SocketAddrV4 {
        remote(self.peer_id)
    }

    /// From where to which address of the gateway.
    pub fn path(&self) -> Path {
        Path::udp(self.remote().into(), GATEWAY.into())
    }

    /// Seals `frame` and calls `arrive` with what of it comes to the gateway's NIC: a packet, or the fragments of one.
    ///
    /// # Errors
    /// The frame is too long, or `arrive` says so.
    pub fn send(&mut self, frame: &[u8], arrive: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let sealed = self.channel.seal(frame, &mut self.packet[OUTER_HEADER..]).map_err(io::Error::other)?;
        self.identification = self.identification.wrapping_add(1);
        let packet = &mut self.packet[..OUTER_HEADER + sealed];
        self.outer.write(packet, self.identification);
        cut(packet, &mut self.fragment, arrive)
    }
}

/// Gives `arrive` the packet, cut as a router cuts it where it is longer than the route's MTU. (Header checksums of
/// fragments stay wrong: the gateway's NIC or kernel looks at them, its workers do not.)
fn cut(
    packet: &[u8],
    fragment: &mut Vec<u8>,
    mut arrive: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    if packet.len() <= ETHERNET + usize::from(MTU) {
        return arrive(packet);
    }
    let (header, datagram) = packet.split_at(ETHERNET + IPV4);
    let part = (usize::from(MTU) - IPV4) & !7;
    let last = datagram.len().div_ceil(part) - 1;
    datagram.chunks(part).enumerate().try_for_each(|(at, payload)| {
        let bits = (at * part / 8) as u16 | if at < last { MORE_FRAGMENTS } else { 0 };
        fragment.clear();
        fragment.extend_from_slice(header);
        fragment.extend_from_slice(payload);
        fragment[16..18].copy_from_slice(&((IPV4 + payload.len()) as u16).to_be_bytes());
        fragment[20..22].copy_from_slice(&bits.to_be_bytes());
        fragment.resize(fragment.len().max(MIN_FRAME), 0);
        arrive(fragment)
    })
}

fn remote(peer_id: PeerId) -> SocketAddrV4 {
    let [_, _, high, low] = peer_id.value().to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(198, 18, high, low), 40_000)
}
