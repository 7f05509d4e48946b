//! `trestle ports`: the ports of the segment.

use super::{
    AskArgs, Error, ask,
    table::{Align, aligned, plain},
};
use crate::{
    config::UplinkMode,
    management::status::{BridgePort, Port, Ports, Request, Role, Way, Xdp, Xsk},
};

pub(super) fn run(args: &AskArgs) -> Result<(), Error> {
    ask::show(args, Request::Ports, |answer: &Ports| table(&answer.ports))
}

pub(super) fn table(ports: &[Port]) -> String {
    let headings = [
        ("port", Align::Left),
        ("role", Align::Left),
        ("mode", Align::Left),
        ("xdp", Align::Left),
        ("xsk", Align::Left),
        ("queues", Align::Right),
        ("mtu", Align::Right),
        ("received", Align::Right),
        ("sent", Align::Right),
    ];
    let rows: Vec<Vec<String>> = ports.iter().map(row).collect();
    aligned(&headings, &rows) + &bridged(ports)
}

/// What is accelerated of the ports of a bridge, and below why not all is; empty without a bridge.
fn bridged(ports: &[Port]) -> String {
    let of_bridge = ports.iter().filter_map(|port| Some((port, port.bridge.as_ref()?)));
    let of_bridge: Vec<(&Port, &BridgePort)> = of_bridge.collect();
    if of_bridge.is_empty() {
        return String::new();
    }
    let headings = [
        ("port", Align::Left),
        ("bridge", Align::Left),
        ("state", Align::Left),
        ("accelerated", Align::Left),
        ("by xdp", Align::Right),
        ("to peers", Align::Right),
        ("by kernel", Align::Right),
    ];
    let rows: Vec<Vec<String>> = of_bridge.iter().map(|(port, bridge)| bridge_row(port, bridge)).collect();
    let reasons = of_bridge.iter().flat_map(|(port, bridge)| {
        bridge.reasons.iter().map(|reason| format!("{}: {}\n", plain(&port.name), plain(reason)))
    });
    format!("\n{}{}", aligned(&headings, &rows), reasons.collect::<String>())
}

fn bridge_row(port: &Port, bridge: &BridgePort) -> Vec<String> {
    let ways = bridge.accelerated.iter().map(|way| match way {
        Way::From => "from",
        Way::To => "to",
        Way::Peers => "peers",
    });
    let ways = ways.collect::<Vec<_>>().join(", ");
    vec![
        port.name.clone(),
        bridge.name.clone(),
        bridge.state.clone(),
        if ways.is_empty() { "-".into() } else { ways },
        bridge.frames.xdp.to_string(),
        bridge.frames.peers.to_string(),
        bridge.frames.kernel.to_string(),
    ]
}

fn row(port: &Port) -> Vec<String> {
    let role = match port.role {
        Role::Uplink => "uplink",
        Role::Port => "port",
        Role::Host => "host",
    };
    let mode = match port.mode {
        UplinkMode::Bridge => "bridge",
        UplinkMode::Underlay => "underlay",
    };
    let xdp = match port.xdp {
        Xdp::Native => "native",
        Xdp::Generic => "generic",
        Xdp::None => "-",
    };
    let xsk = match port.xsk {
        Xsk::ZeroCopy => "zero-copy",
        Xsk::Copy => "copy",
        Xsk::None => "-",
    };
    let queues = if port.queues == 0 { "-".into() } else { port.queues.to_string() };
    vec![
        port.name.clone(),
        role.into(),
        mode.into(),
        xdp.into(),
        xsk.into(),
        queues,
        port.mtu.to_string(),
        port.rx_frames.to_string(),
        port.tx_frames.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::management::status::{FramesByWay, example};

    #[test]
    fn ports_of_a_bridge_say_what_is_accelerated_and_why_not_all() {
        let mut ports = example().status.ports;
        assert_eq!(bridged(&ports), "");
        let bridge = |accelerated: &[Way], reasons: &[&str]| BridgePort {
            name: "br0".into(),
            state: "forwarding".into(),
            accelerated: accelerated.to_vec(),
            reasons: reasons.iter().map(|&reason| reason.to_owned()).collect(),
            frames: FramesByWay { xdp: 12, peers: 3, kernel: 4 },
        };
        ports[0].bridge = Some(bridge(&[Way::From, Way::To], &[]));
        ports[1].bridge = Some(bridge(&[], &["ebtables has rules: `ebtables -F`", "it is\u{1b}[2J down"]));
        assert_eq!(bridged(&ports), include_str!("testdata/bridged.txt"));
    }
}
