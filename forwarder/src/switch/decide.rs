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
//!
//! Where the wires are ports of a kernel bridge ([`Wires::Joined`]), "the host" is the bridge, by the port we have of it: it
//! floods, learns and knows where the host is. A known station on a wire that is open to peers gets their frames by that
//! wire, all else goes by the bridge. What comes straight from a wire never goes there: the bridge would learn a station of
//! the LAN at our port.

use openvpn::ids::PeerId;

use super::{Fdb, Header, Joined, Port, Station, WireId, Wires};
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
    /// Which wires are ports, and by whom they are joined.
    pub wires: Wires,
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
        (from_peer && self.wires != Wires::None && header.is_link_local()).then_some(Drop::LinkLocalGroup)
    }

    /// What the MAC table knows a frame by: without its VLAN where that makes no difference.
    pub fn known_by(&self, header: Header) -> Header {
        match self.wires {
            Wires::Joined(Joined { vlan_aware: false, .. }) => Header { vlan: 0, ..header },
            _ => header,
        }
    }

    /// Whether sources that come by the host port are learnt there: only in underlay mode. On a wire the host's are fixed,
    /// and those on the wire reported by TC; a kernel bridge tells us itself.
    pub fn learns_from_host(&self) -> bool {
        self.wires == Wires::None
    }

    /// Whether sources that come straight from a wire are learnt there. A kernel bridge learns by itself: what we get of its
    /// ports is from stations that it knows.
    pub fn learns_from_wires(&self) -> bool {
        !matches!(self.wires, Wires::Joined(_))
    }

    /// Where a peer's frame for a station on a wire goes.
    fn by_wire(&self, station: Station, wire: WireId) -> Decision {
        match self.wires {
            Wires::Uplink => Decision::To(station.port),
            Wires::Joined(joined) if joined.open.contains(wire) => Decision::To(station.port),
            Wires::Joined(_) => Decision::To(Port::Host),
            Wires::None => Decision::Drop(Drop::HairpinFiltered),
        }
    }

    fn forward(&self, ingress: Ingress, station: Station) -> Decision {
        match (ingress, station.port) {
            (Ingress::Peer(from), Port::Peer(to)) if from == to || !self.peer_to_peer => {
                Decision::Drop(Drop::HairpinFiltered)
            }
            (_, Port::Peer(_)) | (Ingress::Peer(_), Port::Host) => Decision::To(station.port),
            (Ingress::Peer(_), Port::Wire(wire)) => self.by_wire(station, wire),
            // The kernel has forwarded these itself.
            (_, Port::Host | Port::Wire(_)) => Decision::Drop(Drop::HairpinFiltered),
        }
    }

    fn flood_group(&self, ingress: Ingress, header: &Header) -> Decision {
        let peers = Flood { peers: self.peer_to_peer, ..Flood::PEERS };
        match (ingress, self.withheld(ingress, header)) {
            (Ingress::Wire(_) | Ingress::Host, _) => Decision::Flood(Flood::PEERS),
            (Ingress::Peer(_), Some(_)) => Decision::Flood(Flood { wire: false, host: false, ..peers }),
            (Ingress::Peer(_), None) => {
                Decision::Flood(Flood { wire: self.wires == Wires::Uplink, host: true, ..peers })
            }
        }
    }

    fn flood_unknown(&self, ingress: Ingress) -> Decision {
        Decision::Flood(match ingress {
            Ingress::Wire(_) | Ingress::Host => Flood::PEERS,
            // On the NIC the host's addresses are all known; an unknown one is none of its business.
            Ingress::Peer(_) => {
                let uplink = self.wires == Wires::Uplink;
                Flood { peers: self.peer_to_peer, wire: uplink, host: !uplink }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{super::WireSet, *};

    const BRIDGE: Segment = Segment { wires: Wires::Uplink, peer_to_peer: true };
    const UNDERLAY: Segment = Segment { wires: Wires::None, peer_to_peer: true };
    const UPLINK: Port = Port::Wire(WireId::UPLINK);
    const FROM_WIRE: Ingress = Ingress::Wire(WireId::UPLINK);
    const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const ON_WIRE: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const BEHIND_1: [u8; 6] = [2, 0, 0, 0, 0, 3];
    const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const BROADCAST: [u8; 6] = [0xff; 6];
    const BPDU: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];

    /// A kernel bridge with wire 0 open to peers.
    fn joined() -> Segment {
        let mut open = WireSet::default();
        open.set(WireId::UPLINK, true);
        Segment { wires: Wires::Joined(Joined { open, vlan_aware: false }), peer_to_peer: true }
    }

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
    fn a_peers_frames_pass_the_kernels_bridge_unless_their_way_is_known_and_open() {
        let from = Ingress::Peer(peer(2));
        let mut shut = joined();
        shut.wires = Wires::Joined(Joined::default());
        assert_eq!(decide(joined(), from, ON_WIRE), Decision::To(UPLINK));
        assert_eq!(decide(shut, from, ON_WIRE), Decision::To(Port::Host));
        assert_eq!(decide(joined(), from, HOST), Decision::To(Port::Host));
        assert_eq!(decide(joined(), from, NOBODY), flood(true, false, true));
        assert_eq!(decide(joined(), from, BROADCAST), flood(true, false, true));
        assert_eq!(decide(joined(), from, BPDU), flood(true, false, false));
        assert_eq!(decide(joined(), from, BEHIND_1), Decision::To(Port::Peer(peer(1))));
    }

    #[test]
    fn nothing_of_a_joined_wire_goes_back_into_the_kernels_bridge() {
        for ingress in [FROM_WIRE, Ingress::Host] {
            assert_eq!(decide(joined(), ingress, BEHIND_1), Decision::To(Port::Peer(peer(1))));
            for destination in [ON_WIRE, HOST] {
                assert_eq!(decide(joined(), ingress, destination), Decision::Drop(Drop::HairpinFiltered));
            }
            for destination in [NOBODY, BROADCAST, BPDU] {
                assert_eq!(decide(joined(), ingress, destination), flood(true, false, false));
            }
        }
        assert!(!joined().learns_from_host() && !joined().learns_from_wires());
    }

    #[test]
    fn a_bridge_that_filters_no_vlans_knows_a_station_whatever_its_tag() {
        let header = Header { destination: HOST, source: ON_WIRE, vlan: 7 };
        assert_eq!(joined().known_by(header).vlan, 0);
        assert_eq!(BRIDGE.known_by(header).vlan, 7);
        let aware =
            Segment { wires: Wires::Joined(Joined { vlan_aware: true, ..Joined::default() }), ..BRIDGE };
        assert_eq!(aware.known_by(header).vlan, 7);
    }

    #[test]
    fn without_client_to_client_peers_do_not_see_each_other() {
        let apart = Segment { wires: Wires::Uplink, peer_to_peer: false };
        assert_eq!(decide(apart, Ingress::Peer(peer(2)), BEHIND_1), Decision::Drop(Drop::HairpinFiltered));
        assert_eq!(decide(apart, Ingress::Peer(peer(2)), BROADCAST), flood(false, true, true));
        assert_eq!(decide(apart, Ingress::Peer(peer(2)), BPDU), flood(false, false, false));
    }
}
