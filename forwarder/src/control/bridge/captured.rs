//! Ports of the bridge that a capture listens to.

use super::{Bridge, Member};
use crate::{control::datapath::Datapath, management::capture::Interface, switch::WireId};

/// Where a port is, as long as it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) struct Standing {
    /// Its interface.
    pub port: u32,
    /// Its number; `None`: there was none left, and XDP has nothing to do with it.
    pub wire: Option<WireId>,
}

impl Bridge {
    /// The ports that a capture can listen to.
    pub fn capturable(&self) -> impl Iterator<Item = Interface> {
        let description = format!("a port of {}", self.name);
        let ports = self.mirror.known().ports();
        let here = self.members.keys().filter_map(|index| ports.get(index));
        here.map(move |port| Interface { name: port.link.name.clone(), description: description.clone() })
    }

    /// Where the port of this name is, if there is one now.
    pub fn standing(&self, name: &str) -> Option<Standing> {
        let ports = self.mirror.known().ports();
        let (port, member) = self
            .members
            .iter()
            .find(|(index, _)| ports.get(index).is_some_and(|port| port.link.name == name))?;
        Some(Standing { port: *port, wire: member.wire() })
    }

    /// Has XDP copy what it takes at these ports, and at no others.
    pub fn set_captured(&mut self, captured: &[u32], datapath: &mut Datapath) {
        for (port, member) in &mut self.members {
            Member::set_captured(member, captured.contains(port), datapath);
        }
    }
}
