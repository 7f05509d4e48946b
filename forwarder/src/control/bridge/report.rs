//! The bridge's ports for the operator.

use std::collections::BTreeMap;

use super::{Bridge, member::Member, policy::State};
use crate::{
    config::UplinkMode,
    control::datapath::Datapath,
    host::bridge::Port,
    management::status::{self, BridgePort, FramesByWay, Role, Way, Xdp, Xsk},
};

impl Bridge {
    /// Every port that is a wire, by name.
    pub fn report(&self, datapath: &Datapath) -> Vec<status::Port> {
        let sums = interface_sums();
        let ports = self.mirror.known().ports();
        let members = self.members.iter().filter_map(|(index, member)| Some((ports.get(index)?, member)));
        let mut rows: Vec<status::Port> =
            members.map(|(port, member)| self.row(port, member, &sums, datapath)).collect();
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        rows
    }

    /// What is wrong with the bridge as a whole.
    pub fn trouble(&self) -> Option<String> {
        let gone = self.mirror.known().bridge().is_none();
        gone.then(|| {
            format!("the bridge {} is gone: it is waited for; make it anew, or stop trestle", self.name)
        })
    }

    fn row(
        &self,
        port: &Port,
        member: &Member,
        sums: &BTreeMap<String, (u64, u64)>,
        datapath: &Datapath,
    ) -> status::Port {
        let (rx_frames, tx_frames) = sums.get(&port.link.name).copied().unwrap_or_default();
        status::Port {
            name: port.link.name.clone(),
            role: Role::Port,
            mode: UplinkMode::Bridge,
            xdp: member.xdp().map_or(Xdp::None, Into::into),
            xsk: datapath.xsk().filter(|_| member.has_sockets()).map_or(Xsk::None, Into::into),
            rx_frames,
            tx_frames,
            queues: 0,
            mtu: port.link.mtu,
            bridge: Some(BridgePort {
                name: self.name.clone(),
                state: state(super::look::state(port)).to_owned(),
                accelerated: ways(member),
                reasons: member.ruling().reasons.iter().map(ToString::to_string).collect(),
                frames: frames(member, rx_frames, datapath),
            }),
        }
    }
}

fn ways(member: &Member) -> Vec<Way> {
    let ruling = member.ruling();
    let ways = [(ruling.from, Way::From), (ruling.to, Way::To), (ruling.peers, Way::Peers)];
    ways.into_iter().filter(|(open, _)| *open).map(|(_, way)| way).collect()
}

fn frames(member: &Member, received: u64, datapath: &Datapath) -> FramesByWay {
    let counts = member.wire().and_then(|wire| datapath.port_counts(wire)).unwrap_or_default();
    let before = member.counted();
    let xdp = counts.frames_to_ports.saturating_sub(before.frames_to_ports);
    let peers = counts.frames_to_sockets.saturating_sub(before.frames_to_sockets);
    FramesByWay { xdp, peers, kernel: received.saturating_sub(xdp).saturating_sub(peers) }
}

const fn state(state: State) -> &'static str {
    match state {
        State::Disabled => "disabled",
        State::Listening => "listening",
        State::Learning => "learning",
        State::Forwarding => "forwarding",
        State::Blocking => "blocking",
    }
}

/// Frames received and sent, of every interface of this namespace.
fn interface_sums() -> BTreeMap<String, (u64, u64)> {
    // Unlike sysfs this is always of the namespace the process is in.
    let table = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    table.lines().filter_map(interface_sum).collect()
}

fn interface_sum(line: &str) -> Option<(String, (u64, u64))> {
    // Eight receive columns, then transmit: bytes, packets. Source: net/core/net-procfs.c.
    const RECEIVED: usize = 1;
    const SENT: usize = 9;
    let (name, columns) = line.trim_start().split_once(':')?;
    let columns: Vec<&str> = columns.split_whitespace().collect();
    let number = |at: usize| columns.get(at)?.parse().ok();
    Some((name.to_owned(), (number(RECEIVED)?, number(SENT)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_s_sums_stand_in_the_second_and_tenth_columns() {
        let line = "  w0: 21 22 0 0 0 0 0 0 31 32 0 77 0 0 0 0";
        assert_eq!(interface_sum(line), Some(("w0".into(), (22, 32))));
        assert_eq!(interface_sum("Inter-|   Receive |  Transmit"), None);
        assert_eq!(interface_sum(" face |bytes: packets"), None);
    }
}
