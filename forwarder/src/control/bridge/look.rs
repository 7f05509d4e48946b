//! Looking at a port: what its frames are like, what its device takes, and what XDP would bypass.

use super::policy::{Arrival, Attached, Facts, State, Vlans};
use crate::{
    host::{
        bridge::{Bridge, Port, PortState},
        nic::{Look, xdp_features::AllXdpFeatures},
    },
    xdp::programs::is_gateways,
};

/// 802.1Q: the one kind of tag XDP knows as one.
const CUSTOMER_TAG: u16 = 0x8100;
/// By this a veth's far end says that it leaves checksums to others.
const LEAVES_CHECKSUMS: &str = "tx-checksum-ip-generic";

/// What it takes some system calls to find out of a port, and the kernel gives no news of.
#[derive(Clone, Debug)]
pub(super) struct Looked {
    pub arrival: Arrival,
    pub takes_frames: Option<bool>,
}

impl Looked {
    /// Asks the kernel.
    pub fn at(port: &Port) -> Self {
        Self { arrival: arrival(port), takes_frames: None }
    }

    /// Asks only what the device takes.
    pub fn look_at_device(&mut self, port: &Port, devices: Option<&AllXdpFeatures>) {
        // The kernel says nothing before 6.3; of what it does not know nothing is taken.
        self.takes_frames = devices.map(|all| all.of(port.link.index).is_some_and(|can| can.takes_frames()));
    }

    /// Puts together what is known of a port; `xdp` is what came, or would come, of attaching to it.
    pub fn facts(
        &self,
        port: &Port,
        bridge: &Bridge,
        obstacles: &[(Option<u32>, String)],
        xdp: Attached,
        numbered: bool,
    ) -> Facts {
        let here = |of: &Option<u32>| of.is_none_or(|index| index == port.link.index);
        let obstacles = obstacles.iter().filter(|(of, _)| here(of)).map(|(_, sentence)| sentence.clone());
        Facts {
            running: port.link.up && port.link.running,
            state: state(port),
            answers_neighbours: port.settings.answers_neighbours,
            vlan_tunnel: port.settings.vlan_tunnel,
            vlans: vlans(bridge),
            arrival: self.arrival.clone(),
            takes_frames: self.takes_frames,
            xdp,
            obstacles: obstacles.collect(),
            numbered,
        }
    }
}

fn arrival(port: &Port) -> Arrival {
    match port.link.kind.as_deref() {
        Some("veth") => by_far_end(port),
        Some("tun" | "macvtap" | "ipvtap") => Arrival::Virtual,
        _ => Arrival::Finished { veth: false },
    }
}

fn by_far_end(port: &Port) -> Arrival {
    let far = Look::at(&port.link).map(|look| look.far_side);
    match far {
        Ok(Some(Ok(far))) if far.unfinished.contains(&LEAVES_CHECKSUMS) => Arrival::Unfinished,
        Ok(Some(Ok(_))) => Arrival::Finished { veth: true },
        Ok(Some(Err(why))) => Arrival::Unknown(why),
        Ok(None) => Arrival::Unknown("the kernel does not say which it is".into()),
        Err(error) => Arrival::Unknown(error.to_string()),
    }
}

/// Whether the program that was seen on the port is nobody else's: ours, or gone meanwhile, of which there is no news.
pub(super) fn is_no_stranger(program_id: u32) -> bool {
    is_gateways(program_id) != Some(false)
}

pub(super) const fn state(port: &Port) -> State {
    match port.settings.state {
        PortState::Disabled => State::Disabled,
        PortState::Listening => State::Listening,
        PortState::Learning => State::Learning,
        PortState::Forwarding => State::Forwarding,
        PortState::Blocking => State::Blocking,
    }
}

/// XDP leaves frames whose tag would change to the kernel by itself; these it could not tell.
pub(super) const fn vlans(bridge: &Bridge) -> Vlans {
    match (bridge.vlan_filtering, bridge.vlan_protocol, bridge.mst) {
        (false, ..) => Vlans::Ignored,
        (true, CUSTOMER_TAG, false) => Vlans::Filtered,
        (true, CUSTOMER_TAG, true) => Vlans::Changed("VLANs have spanning trees of their own (mst_enabled)"),
        (true, ..) => Vlans::Changed("the bridge filters by service tags (vlan_protocol 802.1ad)"),
    }
}
