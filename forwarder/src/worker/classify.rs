//! What came in: tunnel packets to open, or frames to switch.

use std::time::Instant;

use super::{Arrival, Worker, fragments::header::is_fragment};
use crate::{
    ports::{Frame, Port, checksum},
    switch::Ingress,
};

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    #[inline(never)]
    pub(super) fn classify(&mut self, now: Instant) {
        let mut from_nic = std::mem::take(&mut self.batch.from_nic);
        from_nic.iter().for_each(|frame| self.frames.prefetch_head(frame));
        for frame in from_nic.drain(..) {
            // XDP hands over two kinds: tunnel packets, which are addressed to the NIC, and frames for others.
            if self.frames.bytes(&frame).starts_with(&self.settings.nic_mac) {
                self.classify_packet(frame, false, now);
            } else {
                self.classify_frame(frame);
            }
        }
        self.batch.from_nic = from_nic;
        let mut handed_over = std::mem::take(&mut self.batch.handed_over);
        for packet in handed_over.drain(..) {
            self.classify_packet(packet, true, now);
        }
        self.batch.handed_over = handed_over;
        let Self { batch, .. } = self;
        batch.packets.extend(batch.from_tunnel.drain(..).map(|frame| (Arrival::Socket, frame)));
        batch.inner.extend(batch.from_host.drain(..).map(|frame| (Ingress::Host, frame)));
    }

    /// A tunnel packet, or a fragment of one, which is a packet when the others are there.
    fn classify_packet(&mut self, packet: Frame, was_handed_on: bool, now: Instant) {
        let whole = if is_fragment(self.frames.bytes(&packet)) {
            self.gather(packet, was_handed_on, now)
        } else {
            Some(packet)
        };
        self.batch.packets.extend(whole.map(|packet| (Arrival::Xdp, packet)));
    }

    fn classify_frame(&mut self, mut frame: Frame) {
        // A veth, or a virtual machine's NIC in generic mode, delivers what the sender's stack left undone, and XDP
        // cannot see the difference. For a finished frame this is a look at one field.
        let len = frame.len();
        checksum::finish(&mut self.frames.room(&mut frame)[..len]);
        let ingress = Ingress::Wire(frame.wire());
        self.batch.inner.push((ingress, frame));
    }
}
