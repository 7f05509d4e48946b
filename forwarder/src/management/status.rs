//! What `trestle status|peers|fdb|ports|drops -j` print, and what the control thread fills in for them.
//!
//! The keys of [`Status`] are a contract; keys may be added, none may change its meaning or go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{config::UplinkMode, drops::Drop};

/// What can be asked over the control socket: one word a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Everything but the MAC table.
    Status,
    /// The clients connected.
    Peers,
    /// The MAC table.
    Fdb,
    /// The ports of the segment.
    Ports,
    /// Lost frames by reason.
    Drops,
    /// No question: whoever started the gateway with `--confirm` is still there.
    Confirm,
    /// No question: a supervisor reads its file again.
    Reload,
}

impl Request {
    /// All requests.
    pub const ALL: [Self; 7] =
        [Self::Status, Self::Peers, Self::Fdb, Self::Ports, Self::Drops, Self::Confirm, Self::Reload];

    /// The word on the socket.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Peers => "peers",
            Self::Fdb => "fdb",
            Self::Ports => "ports",
            Self::Drops => "drops",
            Self::Confirm => "confirm",
            Self::Reload => "reload",
        }
    }

    /// The request a line asks for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|request| request.word() == word)
    }
}

/// The gateway's state at one moment, filled in by the control thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Everything but the MAC table.
    pub status: Status,
    /// The MAC table.
    pub fdb: Fdb,
    /// What came of [`Request::Confirm`], if that was asked.
    pub confirmed: Option<Confirmed>,
}

impl Snapshot {
    /// The answer to `request`.
    pub fn answer(&self, request: Request) -> Answer<'_> {
        match request {
            Request::Status => Answer::Status(&self.status),
            Request::Peers => Answer::Peers { peers: &self.status.peers },
            Request::Fdb => Answer::Fdb(&self.fdb),
            Request::Ports => Answer::Ports { ports: &self.status.ports },
            Request::Drops => Answer::Drops { drops: &self.status.drops },
            Request::Reload => Answer::Refusal { error: NO_SUPERVISOR },
            Request::Confirm => Answer::Confirm(Confirmation {
                confirm: self.confirmed.unwrap_or(Confirmed::NothingToConfirm),
            }),
        }
    }
}

/// An answer as it goes over the socket, borrowed from a [`Snapshot`].
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum Answer<'a> {
    /// To `status`.
    Status(&'a Status),
    /// To `peers`.
    Peers {
        /// The clients connected.
        peers: &'a [Peer],
    },
    /// To `fdb`.
    Fdb(&'a Fdb),
    /// To `ports`.
    Ports {
        /// The ports of the segment.
        ports: &'a [Port],
    },
    /// To `drops`.
    Drops {
        /// Lost frames by reason.
        drops: &'a Drops,
    },
    /// To `confirm`.
    Confirm(Confirmation),
    /// To what this gateway cannot do.
    Refusal {
        /// Cause and cure.
        error: &'a str,
    },
}

/// A gateway of one server file does not reload.
const NO_SUPERVISOR: &str = "this gateway has no file of segments: restart it to have its server file read again, or run it \
                             by `trestle run --config`";

/// Lost frames by reason; reasons that never happened stand there with 0.
pub type Drops = BTreeMap<String, u64>;

/// [`Drops`] from a count for each reason.
pub fn drops(count: impl Fn(Drop) -> u64) -> Drops {
    Drop::ALL.iter().map(|&reason| (reason.name().to_owned(), count(reason))).collect()
}

/// `trestle status -j`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The gateway's version.
    pub version: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// How frames come to the workers.
    pub datapath: Datapath,
    /// The ports of the segment.
    pub ports: Vec<Port>,
    /// The clients connected.
    pub peers: Vec<Peer>,
    /// Lost frames by reason.
    pub drops: Drops,
    /// The gateway's process.
    #[serde(default)]
    pub pid: u32,
    /// Where clients connect to: addresses and port.
    #[serde(default)]
    pub listen: Vec<String>,
    /// `max-clients`.
    #[serde(default)]
    pub max_peers: usize,
    /// What is wrong or slower than it could be: a sentence each, with cause and cure. Empty: all is well.
    #[serde(default)]
    pub health: Vec<String>,
    /// Seconds until everything is taken back unless `trestle confirm` comes; `null`: nothing is to be confirmed.
    #[serde(default)]
    pub confirm_s: Option<u64>,
}

/// How frames come to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Datapath {
    /// XDP and AF_XDP sockets.
    AfXdp,
    /// XDP alone, from port to port of a bridge: there are no workers.
    Xdp,
    /// The kernel's own sockets.
    Socket,
}

/// A port of the segment; each peer is one more, and stands in [`Status::peers`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The interface.
    pub name: String,
    /// What stands behind it.
    pub role: Role,
    /// How the gateway stands beside the host.
    pub mode: UplinkMode,
    /// Where XDP runs on it.
    pub xdp: Xdp,
    /// How frames come through AF_XDP.
    pub xsk: Xsk,
    /// Frames from the port.
    pub rx_frames: u64,
    /// Frames to the port.
    pub tx_frames: u64,
    /// Receive queues with an AF_XDP socket.
    #[serde(default)]
    pub queues: u32,
    /// The longest frame without its Ethernet header, in bytes.
    #[serde(default)]
    pub mtu: u32,
    /// For ports of a kernel bridge: what is accelerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgePort>,
}

/// A port of a kernel bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgePort {
    /// The bridge.
    pub name: String,
    /// Its state there, in the words of `bridge link`: `forwarding`, `blocking`, ...
    pub state: String,
    /// What does not go through the kernel bridge once it is learnt; empty: everything does.
    pub accelerated: Vec<Way>,
    /// Why not all of it: a sentence each, with cause and cure.
    pub reasons: Vec<String>,
    /// Frames that came by the port, by what carried them on.
    pub frames: FramesByWay,
}

/// A way past the kernel bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From this port to others.
    From,
    /// From other ports to this one.
    To,
    /// From this port to peers.
    Peers,
}

/// Frames that came by a port, by what carried them on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FramesByWay {
    /// XDP, to another port.
    pub xdp: u64,
    /// XDP and a worker, to a peer.
    pub peers: u64,
    /// The kernel: into the bridge, or to the host.
    pub kernel: u64,
}

/// What stands behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The NIC that carries the tunnel.
    Uplink,
    /// Another local NIC.
    Port,
    /// The gateway host itself.
    Host,
}

/// Where XDP runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Xdp {
    /// In the driver.
    Native,
    /// Behind the driver.
    Generic,
    /// Nowhere.
    None,
}

/// How frames come through AF_XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Xsk {
    /// The NIC writes into the worker's memory.
    ZeroCopy,
    /// The kernel copies each frame once.
    Copy,
    /// They do not.
    None,
}

/// A client that is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its certificate's common name.
    pub name: String,
    /// Address and port it sends from.
    pub address: String,
    /// Its number in data packets.
    pub peer_id: u32,
    /// The data cipher agreed.
    pub cipher: String,
    /// Frames from it.
    pub rx_frames: u64,
    /// Frames to it.
    pub tx_frames: u64,
    /// Data packets of it that came through AF_XDP.
    pub rx_frames_xdp: u64,
    /// Data packets of it that came through the kernel's UDP socket.
    pub rx_frames_socket: u64,
    /// Bytes from it: UDP payload, as OpenVPN counts.
    pub rx_bytes: u64,
    /// Bytes to it: UDP payload.
    pub tx_bytes: u64,
    /// The stations behind it.
    pub macs: Vec<String>,
    /// Seconds since it connected.
    pub connected_s: u64,
    /// The address leased to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased: Option<String>,
    /// Its version and platform, as it says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub software: String,
    /// Why no frames pass from it or to it; `null`: they do.
    #[serde(default)]
    pub held: Option<Held>,
    /// Seconds since it was last heard; `null` when it has not been since it connected.
    #[serde(default)]
    pub heard_s: Option<u64>,
}

/// A client that the loop guard holds down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What it joins the segment to: another client, or a NIC of the gateway.
    pub joined_with: String,
    /// Seconds since then.
    pub held_s: u64,
}

/// `trestle fdb -j`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fdb {
    /// The stations known.
    pub entries: Vec<Station>,
    /// Most stations the table holds.
    pub limit: usize,
    /// A station not heard for this long is forgotten, in seconds.
    pub ageing_s: u64,
    /// Stations learnt since the start.
    pub learned: u64,
    /// Stations that moved to another port since the start.
    pub moved: u64,
    /// Stations forgotten since the start.
    pub expired: u64,
}

/// A station of the segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// Its hardware address.
    pub mac: String,
    /// VLAN; 0: untagged.
    pub vlan: u16,
    /// Where it stands.
    pub place: Place,
    /// The interface, or the peer's name.
    pub port: String,
    /// The peer's number, where it stands behind one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<u32>,
    /// Never learnt over and never forgotten: the host and its routers.
    pub fixed: bool,
    /// Seconds since it was last heard; 0 for fixed ones.
    pub age_s: u64,
}

/// Where a station stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The gateway host itself.
    Host,
    /// On the NIC's wire.
    Wire,
    /// Behind a peer.
    Peer,
}

/// The answer to `peers`, as the client reads it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Peers {
    /// The clients connected.
    pub peers: Vec<Peer>,
}

/// The answer to `ports`, as the client reads it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ports {
    /// The ports of the segment.
    pub ports: Vec<Port>,
}

/// The answer to `drops`, as the client reads it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DropCounts {
    /// Lost frames by reason.
    pub drops: Drops,
}

/// The answer to `confirm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// What came of it.
    pub confirm: Confirmed,
}

/// What came of a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confirmed {
    /// The gateway stays.
    Confirmed,
    /// It was started without `--confirm`, or confirmed before.
    NothingToConfirm,
    /// The time was over: it ends.
    TooLate,
}

/// A snapshot with something of everything, for tests here and in `cli`.
#[cfg(test)]
pub(crate) fn example() -> Snapshot {
    let port = |name: &str, role, xdp, xsk| Port {
        name: name.into(),
        role,
        mode: UplinkMode::Bridge,
        xdp,
        xsk,
        rx_frames: 1_234_567,
        tx_frames: 89,
        queues: u32::from(role == Role::Uplink) * 2,
        mtu: 1500,
        bridge: None,
    };
    let peer = |name: &str, peer_id, macs: &[&str]| Peer {
        name: name.into(),
        address: format!("203.0.113.{}:40001", 7 + peer_id),
        peer_id,
        cipher: "AES-256-GCM".into(),
        rx_frames: 1200,
        tx_frames: 34,
        rx_frames_xdp: 1190,
        rx_frames_socket: 10,
        rx_bytes: 1_600_000,
        tx_bytes: 2048,
        macs: macs.iter().map(|&mac| mac.to_owned()).collect(),
        connected_s: 3723,
        leased: Some(format!("10.10.21.{}", 100 + peer_id)),
        software: "2.6.14 linux".into(),
        heard_s: Some(2),
        held: None,
    };
    let station = |mac: &str, place, port: &str, peer_id, fixed, age_s| Station {
        mac: mac.into(),
        vlan: 0,
        place,
        port: port.into(),
        peer_id,
        fixed,
        age_s,
    };
    Snapshot {
        status: Status {
            version: "0.1.0".into(),
            uptime_s: 90_061,
            datapath: Datapath::AfXdp,
            ports: vec![
                port("ens5", Role::Uplink, Xdp::Native, Xsk::Copy),
                port("tap0", Role::Host, Xdp::None, Xsk::None),
            ],
            peers: vec![
                peer("agent-1", 0, &["02:00:00:00:00:01", "02:00:00:00:00:11"]),
                peer("agent-22", 1, &[]),
            ],
            drops: drops(|reason| u64::from(reason == Drop::Replayed) * 3),
            pid: 4242,
            listen: vec!["10.10.21.5:443".into()],
            max_peers: 1024,
            health: Vec::new(),
            confirm_s: None,
        },
        fdb: Fdb {
            entries: vec![
                station("02:00:00:00:00:01", Place::Peer, "agent-1", Some(0), false, 63),
                station("0a:00:00:00:00:05", Place::Host, "ens5", None, true, 0),
                station("0a:00:00:00:00:99", Place::Wire, "ens5", None, false, 5),
            ],
            limit: 65_536,
            ageing_s: 300,
            learned: 12,
            moved: 1,
            expired: 9,
        },
        confirmed: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(request: Request) -> serde_json::Value {
        serde_json::to_value(example().answer(request)).unwrap()
    }

    fn keys(value: &serde_json::Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_keys_of_the_contract_are_all_there() {
        let status = json(Request::Status);
        for key in ["version", "uptime_s", "datapath", "ports", "peers", "drops"] {
            assert!(keys(&status).contains(&key), "{key}");
        }
        for key in ["name", "role", "mode", "xdp", "xsk", "rx_frames", "tx_frames"] {
            assert!(keys(&status["ports"][0]).contains(&key), "{key}");
        }
        let peer = "name address peer_id cipher rx_frames tx_frames rx_frames_xdp rx_frames_socket \
                    rx_bytes tx_bytes macs connected_s";
        for key in peer.split(' ') {
            assert!(keys(&status["peers"][0]).contains(&key), "{key}");
        }
    }

    #[test]
    fn a_port_of_a_bridge_has_keys_of_its_own() {
        let mut port = example().status.ports.remove(0);
        assert!(!keys(&serde_json::to_value(&port).unwrap()).contains(&"bridge"));
        let accelerated = vec![Way::From, Way::To, Way::Peers];
        port.bridge = Some(BridgePort { name: "br0".into(), accelerated, ..BridgePort::default() });
        let value = serde_json::to_value(&port).unwrap();
        assert_eq!(keys(&value["bridge"]), ["accelerated", "frames", "name", "reasons", "state"]);
        assert_eq!(value["bridge"]["accelerated"], serde_json::json!(["from", "to", "peers"]));
        assert_eq!(keys(&value["bridge"]["frames"]), ["kernel", "peers", "xdp"]);
        assert_eq!(serde_json::from_value::<Port>(value).unwrap(), port);
    }

    #[test]
    fn words_are_spelt_as_the_contract_has_them() {
        let status = json(Request::Status);
        assert_eq!(status["datapath"], "af-xdp");
        assert_eq!(serde_json::to_value(Datapath::Socket).unwrap(), "socket");
        assert_eq!(status["ports"][0]["role"], "uplink");
        assert_eq!(status["ports"][0]["mode"], "bridge");
        assert_eq!(status["ports"][0]["xdp"], "native");
        assert_eq!(status["ports"][1]["xsk"], "none");
        assert_eq!(serde_json::to_value(Xsk::ZeroCopy).unwrap(), "zero-copy");
        assert_eq!(status["drops"]["replayed"], 3);
        assert_eq!(status["drops"].as_object().unwrap().len(), Drop::ALL.len());
    }

    #[test]
    fn every_answer_is_one_object_with_its_own_key() {
        assert_eq!(keys(&json(Request::Peers)), ["peers"]);
        assert_eq!(keys(&json(Request::Ports)), ["ports"]);
        assert_eq!(keys(&json(Request::Drops)), ["drops"]);
        assert!(keys(&json(Request::Fdb)).contains(&"entries"));
    }

    #[test]
    fn the_status_reads_back_as_it_was_written() {
        let snapshot = example();
        let text = serde_json::to_string(&snapshot.status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), snapshot.status);
        let text = serde_json::to_string(&snapshot.fdb).unwrap();
        assert_eq!(serde_json::from_str::<Fdb>(&text).unwrap(), snapshot.fdb);
    }

    #[test]
    fn every_request_has_its_word() {
        for request in Request::ALL {
            assert_eq!(Request::from_word(request.word()), Some(request));
        }
        assert_eq!(Request::from_word("kill"), None);
    }
}
