//! Where a frame goes.
//!
//! ```text
//!                    to:   a peer   the wire            the host
//!   from: a peer           yes      yes, but not        what is addressed to it, and groups
//!                                   link-local groups   (underlay: unknown stations too)
//!         the wire         yes      -                   - (the kernel gave it the frame)
//!         the host         yes      - (the kernel sent  -
//!                                   it there)
//! ```

use openvpn::ids::PeerId;

use super::{Fdb, Header, Port, Station, WireId};
use crate::drops::Drop;

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// A peer.
    Peer(PeerId),
    /// A NIC's wire, straight from XDP.
    Wire(WireId),
    /// The host port: the host's own frames, and wire frames the kernel handed over. Both were given to the wire and
    /// to the host already, so they go to peers only.
    Host,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To the one port where its destination stands.
    To(Port),
    /// To several ports, never the one it came from.
    Flood(Flood),
    /// Nowhere.
    Drop(Drop),
}

/// Which ports get a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// The peers, but the one it came from.
    pub peers: bool,
    /// The wire.
    pub wire: bool,
    /// The host.
    pub host: bool,
}

impl Flood {
    const PEERS: Self = Self { peers: true, wire: false, host: false };
}

/// What ports a segment has, and what is let through between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The NIC's wire is a port (bridge mode); without it (underlay) the host is an ordinary port of its own.
    pub wire: bool,
    /// Peers see each other (`client-to-client`).
    pub peer_to_peer: bool,
}

impl Segment {
    /// Where a frame with `header` goes that came in by `ingress`.
    pub fn decide(&self, fdb: &Fdb, ingress: Ingress, header: &Header) -> Decision {
        if header.is_group() {
            return self.flood_group(ingress, header);
        }
        match fdb.get(header.destination_key()) {
            Some(station) => self.forward(ingress, station),
            None => self.flood_unknown(ingress),
        }
    }

    /// Why a frame that is flooded does not reach the wire, where it otherwise would.
    pub fn withheld(&self, ingress: Ingress, header: &Header) -> Option<Drop> {
        // A home bridge's BPDU would trip the guard of the switch on the wire, and mislead the host on it.
        let from_peer = matches!(ingress, Ingress::Peer(_));
        (from_peer && self.wire && header.is_link_local()).then_some(Drop::LinkLocalGroup)
    }

    fn forward(&self, ingress: Ingress, station: Station) -> Decision {
        match (ingress, station.port) {
            (Ingress::Peer(from), Port::Peer(to)) if from == to || !self.peer_to_peer => {
                Decision::Drop(Drop::HairpinFiltered)
            }
            (_, Port::Peer(_)) | (Ingress::Peer(_), Port::Host) => Decision::To(station.port),
            (Ingress::Peer(_), Port::Wire(_)) if self.wire => Decision::To(station.port),
            // The kernel has forwarded these itself.
            (_, Port::Host | Port::Wire(_)) => Decision::Drop(Drop::HairpinFiltered),
        }
    }

    fn flood_group(&self, ingress: Ingress, header: &Header) -> Decision {
        let peers = Flood { peers: self.peer_to_peer, ..Flood::PEERS };
        match (ingress, self.withheld(ingress, header)) {
            (Ingress::Wire(_) | Ingress::Host, _) => Decision::Flood(Flood::PEERS),
            (Ingress::Peer(_), Some(_)) => Decision::Flood(Flood { wire: false, host: false, ..peers }),
            (Ingress::Peer(_), None) => Decision::Flood(Flood { wire: self.wire, host: true, ..peers }),
        }
    }

    fn flood_unknown(&self, ingress: Ingress) -> Decision {
        Decision::Flood(match ingress {
            Ingress::Wire(_) | Ingress::Host => Flood::PEERS,
            // On the NIC the host's addresses are all known; an unknown one is none of its business.
            Ingress::Peer(_) => Flood { peers: self.peer_to_peer, wire: self.wire, host: !self.wire },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const BRIDGE: Segment = Segment { wire: true, peer_to_peer: true };
    const UNDERLAY: Segment = Segment { wire: false, peer_to_peer: true };
    const UPLINK: Port = Port::Wire(WireId::UPLINK);
    const FROM_WIRE: Ingress = Ingress::Wire(WireId::UPLINK);
    const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const ON_WIRE: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const BEHIND_1: [u8; 6] = [2, 0, 0, 0, 0, 3];
    const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const BROADCAST: [u8; 6] = [0xff; 6];
    const BPDU: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];

    fn peer(id: u32) -> PeerId {
        PeerId::new(id).unwrap()
    }

    fn decide(segment: Segment, ingress: Ingress, destination: [u8; 6]) -> Decision {
        let (mut fdb, now) = (Fdb::default(), Instant::now());
        let mut stands =
            |mac, port, fixed| fdb.set(common::FdbKey::new(0, mac), Some(Station { port, fixed }), now);
        stands(HOST, Port::Host, true);
        stands(ON_WIRE, UPLINK, false);
        stands(BEHIND_1, Port::Peer(peer(1)), false);
        segment.decide(&fdb, ingress, &Header { destination, source: [2, 0, 0, 0, 0, 0xaa], vlan: 0 })
    }

    fn flood(peers: bool, wire: bool, host: bool) -> Decision {
        Decision::Flood(Flood { peers, wire, host })
    }

    #[test]
    fn known_stations_get_their_frames_alone() {
        let from = Ingress::Peer(peer(2));
        assert_eq!(decide(BRIDGE, from, HOST), Decision::To(Port::Host));
        assert_eq!(decide(BRIDGE, from, ON_WIRE), Decision::To(UPLINK));
        assert_eq!(decide(BRIDGE, from, BEHIND_1), Decision::To(Port::Peer(peer(1))));
        assert_eq!(decide(BRIDGE, FROM_WIRE, BEHIND_1), Decision::To(Port::Peer(peer(1))));
        assert_eq!(decide(BRIDGE, Ingress::Host, BEHIND_1), Decision::To(Port::Peer(peer(1))));
    }

    #[test]
    fn a_frame_never_returns_to_its_port() {
        assert_eq!(decide(BRIDGE, Ingress::Peer(peer(1)), BEHIND_1), Decision::Drop(Drop::HairpinFiltered));
        assert_eq!(decide(BRIDGE, FROM_WIRE, ON_WIRE), Decision::Drop(Drop::HairpinFiltered));
        assert_eq!(decide(BRIDGE, Ingress::Host, HOST), Decision::Drop(Drop::HairpinFiltered));
    }

    #[test]
    fn unknown_unicast_floods_but_never_into_the_host_on_its_nic() {
        assert_eq!(decide(BRIDGE, Ingress::Peer(peer(1)), NOBODY), flood(true, true, false));
        assert_eq!(decide(UNDERLAY, Ingress::Peer(peer(1)), NOBODY), flood(true, false, true));
        assert_eq!(decide(BRIDGE, FROM_WIRE, NOBODY), flood(true, false, false));
    }

    #[test]
    fn broadcast_of_a_peer_reaches_everyone() {
        assert_eq!(decide(BRIDGE, Ingress::Peer(peer(1)), BROADCAST), flood(true, true, true));
        assert_eq!(decide(UNDERLAY, Ingress::Peer(peer(1)), BROADCAST), flood(true, false, true));
    }

    #[test]
    fn broadcast_from_the_lan_goes_to_peers_only() {
        assert_eq!(decide(BRIDGE, Ingress::Host, BROADCAST), flood(true, false, false));
        assert_eq!(decide(BRIDGE, FROM_WIRE, BROADCAST), flood(true, false, false));
    }

    #[test]
    fn link_local_groups_of_a_peer_do_not_reach_the_wire_or_the_host_on_it() {
        assert_eq!(decide(BRIDGE, Ingress::Peer(peer(1)), BPDU), flood(true, false, false));
        assert_eq!(decide(UNDERLAY, Ingress::Peer(peer(1)), BPDU), flood(true, false, true));
    }

    #[test]
    fn without_client_to_client_peers_do_not_see_each_other() {
        let apart = Segment { wire: true, peer_to_peer: false };
        assert_eq!(decide(apart, Ingress::Peer(peer(2)), BEHIND_1), Decision::Drop(Drop::HairpinFiltered));
        assert_eq!(decide(apart, Ingress::Peer(peer(2)), BROADCAST), flood(false, true, true));
        assert_eq!(decide(apart, Ingress::Peer(peer(2)), BPDU), flood(false, false, false));
    }
}
