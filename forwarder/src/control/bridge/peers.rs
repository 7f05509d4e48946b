//! What a port is to the peers of a gateway that has joined the bridge: AF_XDP sockets on its queues, as long as frames
//! may go between it and our own port.

use std::time::{Duration, Instant};

use crate::{
    control::{datapath::Datapath, plan},
    host::bridge::{Bridge, Known, Port, PortState},
    switch::WireId,
    xdp::attach::XdpChoice,
};

/// Sockets that were refused are asked for again after this long: of one that was closed a moment ago, by us or by a gateway
/// that was killed, the kernel lets go in its own time.
const AGAIN: Duration = Duration::from_secs(2);

/// Our side of the bridge.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct Peers {
    /// Number of our own port's interface.
    pub port: u32,
    /// Which XDP is wanted.
    pub xdp: XdpChoice,
}

/// Our own port, as far as it decides what others may do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OwnPort {
    forwards: bool,
    isolated: bool,
    filters_vlans: bool,
}

impl OwnPort {
    /// As the bridge has it.
    pub fn of(peers: Peers, known: &Known, bridge: &Bridge) -> Self {
        let port = known.ports().get(&peers.port);
        Self {
            forwards: port.is_some_and(|port| port.settings.state == PortState::Forwarding),
            isolated: port.is_some_and(|port| port.settings.isolated),
            filters_vlans: bridge.vlan_filtering,
        }
    }

    /// Why frames between it and `port` are the bridge's; `None`: they need not be.
    fn objection(&self, port: &Port) -> Option<&'static str> {
        if self.filters_vlans {
            return Some("it filters VLANs, which the workers do not");
        }
        if self.isolated && port.settings.isolated {
            return Some("both are isolated, so it drops them");
        }
        (!self.forwards).then_some("the tunnel's own port does not forward; see `bridge link`")
    }
}

/// The sockets of one port.
#[derive(Debug, Default)]
pub(super) struct Served {
    open: bool,
    refused: Option<(String, Instant)>,
}

impl Served {
    /// Opens the sockets, if they are not. The sentence says why peers are not served.
    pub fn serve(
        &mut self,
        wire: WireId,
        port: &Port,
        own: &OwnPort,
        datapath: &mut Datapath,
        now: Instant,
    ) -> Result<(), String> {
        if let Some(objection) = own.objection(port) {
            return Err(objection.to_owned());
        }
        if self.open {
            return Ok(());
        }
        if let Some((sentence, again)) = &self.refused
            && now < *again
        {
            return Err(sentence.clone());
        }
        match datapath.serve_wire(wire, &port.link, plan::receive_queues(&port.link)) {
            Ok(()) => {
                (self.open, self.refused) = (true, None);
                Ok(())
            }
            Err(error) => {
                tracing::debug!(port = %port.link.name, %error, "no sockets");
                self.refused = Some((error.to_string(), now + AGAIN));
                Err(error.to_string())
            }
        }
    }

    /// Whether there are sockets.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Closes the sockets: XDP takes nothing from the port any more.
    pub fn close(&mut self, wire: WireId, datapath: &mut Datapath) {
        if std::mem::take(&mut self.open) {
            datapath.abandon_wire(wire);
        }
    }
}
