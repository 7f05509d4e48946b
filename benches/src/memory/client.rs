//! The other end of a peer's data channel.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
};

use common::Mac;
use openvpn::{
    data::{Cipher, DataChannel, DataKeys, Framing, MAX_OVERHEAD, Role},
    ids::{KeyId, PeerId},
    server::Path,
};
use trestle::worker::{Outer, outer::OUTER_HEADER};

use super::gateway::{GATEWAY, NIC, ROUTER};

/// Longest frame a client sends, in bytes.
const MAX_FRAME: usize = 1518;

/// A connected client with one station behind it.
#[derive(Debug)]
pub struct Client {
    peer_id: PeerId,
    channel: DataChannel,
    outer: Outer,
    packet: Vec<u8>,
}

/// The keys of every session: what they are does not matter here.
pub(super) fn keys(role: Role) -> DataKeys {
    DataKeys::new(Cipher::Aes256Gcm, role, &[7; 256])
}

impl Client {
    /// # Errors
    /// `number` is no peer id, or does not fit the third and fourth byte of an address.
    pub(super) fn new(number: u32) -> io::Result<Self> {
        let peer_id = u16::try_from(number).ok().and_then(|_| PeerId::new(number));
        let peer_id =
            peer_id.ok_or_else(|| io::Error::other(format!("{number} is no peer id for a benchmark")))?;
        let mut channel = DataChannel::new(peer_id, Framing::V2, MAX_FRAME);
        channel.install(KeyId::FIRST, keys(Role::Client));
        channel.send_with(KeyId::FIRST);
        // The packet arrives in one piece: reassembled, where it was longer than the route's MTU.
        let outer = Outer::by_nic(remote(peer_id), GATEWAY, ROUTER, NIC, u16::MAX);
        Ok(Self { peer_id, channel, outer, packet: vec![0; OUTER_HEADER + MAX_FRAME + MAX_OVERHEAD] })
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
        Path { remote: SocketAddr::V4(self.remote()), local: IpAddr::V4(*GATEWAY.ip()) }
    }

    /// The tunnel packet with `frame` in it, as the gateway's NIC receives it.
    ///
    /// # Errors
    /// The frame is too long.
    pub fn seal(&mut self, frame: &[u8]) -> io::Result<&[u8]> {
        let sealed = self.channel.seal(frame, &mut self.packet[OUTER_HEADER..]).map_err(io::Error::other)?;
        let packet = &mut self.packet[..OUTER_HEADER + sealed];
        self.outer.write(packet, 0);
        Ok(packet)
    }
}

fn remote(peer_id: PeerId) -> SocketAddrV4 {
    let [_, _, high, low] = peer_id.value().to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(198, 18, high, low), 40_000)
}
