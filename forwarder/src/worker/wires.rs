//! The ports of a kernel bridge: NICs that come and go, and those of which another worker has the queues.

use super::{Command, Errand, Worker};
use crate::{
    drops::Drop,
    ports::{Frame, Port},
    switch::{WireId, WireSet, Wires},
};

/// Wires of which this worker has no queue, and which of the others has one.
#[derive(Debug, Default)]
pub(super) struct Elsewhere(Vec<(WireId, usize)>);

impl Elsewhere {
    /// True where every wire is served here, or none is open.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn set(&mut self, wire: WireId, worker: Option<usize>) {
        self.0.retain(|(other, _)| *other != wire);
        self.0.extend(worker.map(|worker| (wire, worker)));
    }

    fn worker(&self, wire: WireId) -> Option<usize> {
        self.0.iter().find(|(other, _)| *other == wire).map(|(_, worker)| *worker)
    }
}

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    #[cold]
    pub(super) fn obey_bridge(&mut self, command: Command) {
        match command {
            Command::AddNic(new) => {
                if let Some(nics) = self.ports.nic.nics() {
                    nics.add(new);
                }
            }
            Command::RemoveNic(wire) => {
                if let Some(nics) = self.ports.nic.nics() {
                    nics.remove(wire);
                }
            }
            Command::OpenWire(wire, worker) => {
                self.elsewhere.set(wire, (!self.handovers.is_me(worker)).then_some(worker));
                self.open_wires(|open| open.set(wire, true));
            }
            Command::ShutWire(wire) => {
                self.elsewhere.set(wire, None);
                self.open_wires(|open| open.set(wire, false));
            }
            Command::VlanAware(aware) => {
                if let Wires::Joined(joined) = &mut self.settings.segment.wires {
                    joined.vlan_aware = aware;
                }
            }
            _ => {}
        }
    }

    fn open_wires(&mut self, change: impl FnOnce(&mut WireSet)) {
        if let Wires::Joined(joined) = &mut self.settings.segment.wires {
            change(&mut joined.open);
        }
    }

    /// Gives what is to leave by other workers' queues to them.
    pub(super) fn hand_over_for_wires(&mut self) {
        let mut to_nic = std::mem::take(&mut self.batch.to_nic);
        let elsewhere = std::mem::take(&mut self.elsewhere);
        for frame in to_nic.extract_if(.., |frame| elsewhere.worker(frame.wire()).is_some()) {
            let wire = frame.wire();
            if let Some(worker) = elsewhere.worker(wire) {
                self.hand_over(worker, Errand::ToWire(wire), &frame);
            }
            self.frames.put(frame);
        }
        (self.batch.to_nic, self.elsewhere) = (to_nic, elsewhere);
    }

    /// A frame that another worker has for a wire of this one's. Where that has gone meanwhile the frame is lost with it:
    /// it may be a sealed packet, which the bridge would not know what to do with.
    pub(super) fn accept_for_wire(&mut self, wire: WireId, mut frame: Frame) {
        if self.ports.nic.nics().is_some_and(|nics| nics.serves(wire)) {
            frame.set_wire(wire);
            self.batch.to_nic.push(frame);
        } else {
            self.drop_frame(frame, Drop::WireGone);
        }
    }
}
