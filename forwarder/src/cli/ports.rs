//! `trestle ports`: the ports of the segment.

use super::{
    AskArgs, Error, ask,
    table::{Align, aligned},
};
use crate::{
    config::UplinkMode,
    management::status::{Port, Ports, Request, Role, Xdp, Xsk},
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
    aligned(&headings, &rows)
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
