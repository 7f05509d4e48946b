//! What came in: tunnel packets to open, or frames to switch.

use super::{Arrival, Worker};
use crate::{
    ports::{Port, checksum},
    switch::Ingress,
};

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    #[inline(never)]
    pub(super) fn classify(&mut self) {
        let Self { settings, frames, batch, .. } = self;
        for mut frame in batch.from_nic.drain(..) {
            // XDP hands over two kinds: tunnel packets, which are addressed to the NIC, and frames for others.
            if frames.bytes(&frame).starts_with(&settings.nic_mac) {
                batch.packets.push((Arrival::Xdp, frame));
                continue;
            }
            // A veth, or a virtual machine's NIC in generic mode, delivers what the sender's stack left undone, and XDP
            // cannot see the difference. For a finished frame this is a look at one field.
            let len = frame.len();
            checksum::finish(&mut frames.room(&mut frame)[..len]);
            batch.inner.push((Ingress::Wire, frame));
        }
        batch.packets.extend(batch.from_tunnel.drain(..).map(|frame| (Arrival::Socket, frame)));
        batch.inner.extend(batch.from_host.drain(..).map(|frame| (Ingress::Host, frame)));
    }
}
