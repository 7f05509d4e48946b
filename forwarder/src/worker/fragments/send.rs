//! Sealed packets longer than the route's MTU, as fragments in frames of their own.
//!
//! As the kernel cuts (`ip_frag_next` in net/ipv4/ip_output.c): every fragment but the last as long as fits. The first
//! keeps its frame, what follows is copied behind headers of its own.

use super::{
    super::{Worker, outer},
    header::{MORE_FRAGMENTS, UNIT},
};
use crate::{
    drops::Drop,
    ports::{Frame, Frames, Port},
};

/// Ethernet and IPv4 headers as the gateway writes them: without options.
const HEADER: usize = 34;
const IPV4: usize = 20;

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    /// Queues a packet as fragments of at most `mtu` bytes: all of them or, where memory lacks for one, none.
    pub(in crate::worker) fn queue_fragments(&mut self, packet: Frame, mtu: u16) -> Result<(), Drop> {
        let part = part_len(mtu);
        let datagram = packet.len().saturating_sub(HEADER);
        let count = datagram.div_ceil(part);
        if self.frames.free() + 1 < count {
            self.frames.put(packet);
            return Err(Drop::NoFreeFrame);
        }
        let Self { frames, batch, .. } = self;
        let first = batch.to_nic.len();
        batch.to_nic.push(packet);
        for offset in (part..datagram).step_by(part) {
            let Some(later) = copy_part(frames, &batch.to_nic[first], offset, part) else { break };
            batch.to_nic.push(later);
        }
        let packet = &mut batch.to_nic[first];
        frames.set_len(packet, HEADER + part);
        outer::fragment(&mut frames.room(packet)[..HEADER + part], MORE_FRAGMENTS);
        Ok(())
    }
}

/// Bytes of the datagram in each fragment but the last.
fn part_len(mtu: u16) -> usize {
    (usize::from(mtu).saturating_sub(IPV4) & !(UNIT - 1)).max(UNIT)
}

/// A fresh frame with at most `part` bytes of the datagram from `offset` on.
fn copy_part(frames: &mut Frames, packet: &Frame, offset: usize, part: usize) -> Option<Frame> {
    let mut later = frames.take()?;
    let bytes = frames.bytes(packet);
    let rest = &bytes[HEADER + offset..];
    let (len, more) = if rest.len() > part { (part, MORE_FRAGMENTS) } else { (rest.len(), 0) };
    let room = &mut frames.room(&mut later)[..HEADER + len];
    room[..HEADER].copy_from_slice(&bytes[..HEADER]);
    room[HEADER..].copy_from_slice(&rest[..len]);
    // At most 65,535 / 8.
    outer::fragment(room, more | (offset / UNIT) as u16);
    frames.set_len(&mut later, HEADER + len);
    Some(later)
}
