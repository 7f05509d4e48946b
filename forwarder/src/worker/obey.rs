//! Commands of the control thread.

use std::time::Instant;

use openvpn::data::DataChannel;

use super::{Command, Worker};
use crate::{
    ports::Port,
    switch::{self, Change},
};

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    pub(super) fn obey(&mut self, now: Instant) {
        while let Some(command) = self.mailbox.take() {
            self.obey_one(command, now);
        }
    }

    fn obey_one(&mut self, command: Command, now: Instant) {
        match command {
            Command::AddPeer(new) => {
                self.handovers.locate(new.peer_id, Some(new.path.remote));
                self.peers.add(*new);
            }
            Command::RemovePeer(peer_id) => {
                self.handovers.locate(peer_id, None);
                self.peers.remove(peer_id);
            }
            Command::InstallKey(peer_id, key_id, keys) => {
                self.with_peer(peer_id, |peer| peer.channel.install(key_id, *keys));
            }
            Command::SendWith(peer_id, key_id) => {
                self.with_peer(peer_id, |peer| peer.channel.send_with(key_id))
            }
            Command::RetireKey(peer_id, key_id) => {
                self.with_peer(peer_id, |peer| peer.channel.retire(key_id))
            }
            Command::SetOuter(peer_id, path, outer) => {
                self.handovers.locate(peer_id, Some(path.remote));
                self.with_peer(peer_id, |peer| {
                    peer.path = path;
                    peer.outer = outer;
                });
            }
            Command::Unnamed(path, peer_id) => self.unnamed.set(path, peer_id),
            Command::Ping(peer_id) => self.seal_message(peer_id, DataChannel::seal_ping, now),
            Command::Exit(peer_id) => self.seal_message(peer_id, DataChannel::seal_exit, now),
            Command::Station(change) => self.enter(change, now),
            Command::AddNic(_)
            | Command::RemoveNic(_)
            | Command::OpenWire(..)
            | Command::ShutWire(_)
            | Command::VlanAware(_) => self.obey_bridge(command),
            Command::BeginCapture(capture) => self.captures.push(*capture),
            Command::EndCapture(id) => self.captures.retain(|capture| capture.id != id),
            Command::Guards(_) | Command::MacLimit(..) | Command::Hold(..) | Command::Probe(..) => {
                self.obey_guards(command, now);
            }
            Command::NicMac(mac) => self.settings.nic_mac = mac,
            Command::Stop => self.stopped = true,
        }
    }

    pub(super) fn with_peer(
        &mut self,
        peer_id: openvpn::ids::PeerId,
        act: impl FnOnce(&mut super::peers::Peer),
    ) {
        // A command can overtake the removal of its peer only within one mailbox, where it cannot.
        if let Some(peer) = self.peers.get_mut(peer_id) {
            act(peer);
        }
    }

    fn enter(&mut self, change: Change, now: Instant) {
        let former = self.fdb.get(change.key).map(|station| station.port);
        self.fdb.set(change.key, change.station, now);
        self.count_station(former, change.station.map(|station| station.port));
    }

    /// Keeps the number of stations behind a peer.
    pub(super) fn count_station(&mut self, former: Option<switch::Port>, port: Option<switch::Port>) {
        if let Some(switch::Port::Peer(peer_id)) = former {
            self.with_peer(peer_id, |peer| peer.macs = peer.macs.saturating_sub(1));
        }
        if let Some(switch::Port::Peer(peer_id)) = port {
            self.with_peer(peer_id, |peer| peer.macs += 1);
        }
    }
}
