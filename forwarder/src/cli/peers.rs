//! `trestle peers`: the clients connected.

use super::{
    AskArgs, Error, ask,
    table::{Align, aligned, bytes, duration},
};
use crate::management::status::{Peer, Peers, Request};

pub(super) fn run(args: &AskArgs) -> Result<(), Error> {
    ask::show(args, Request::Peers, |answer: &Peers| {
        if answer.peers.is_empty() { "no peer is connected".to_owned() } else { table(&answer.peers) }
    })
}

/// `by xdp` and `by socket` say which way its data packets took.
pub(super) fn table(peers: &[Peer]) -> String {
    let headings = [
        ("peer", Align::Left),
        ("address", Align::Left),
        ("leased", Align::Left),
        ("received", Align::Right),
        ("sent", Align::Right),
        ("by xdp", Align::Right),
        ("by socket", Align::Right),
        ("macs", Align::Right),
        ("connected", Align::Left),
    ];
    let rows: Vec<Vec<String>> = peers.iter().map(row).collect();
    aligned(&headings, &rows)
}

fn row(peer: &Peer) -> Vec<String> {
    vec![
        peer.name.clone(),
        peer.address.clone(),
        peer.leased.clone().unwrap_or_else(|| "-".into()),
        bytes(peer.rx_bytes),
        bytes(peer.tx_bytes),
        peer.rx_frames_xdp.to_string(),
        peer.rx_frames_socket.to_string(),
        peer.macs.len().to_string(),
        duration(peer.connected_s),
    ]
}
