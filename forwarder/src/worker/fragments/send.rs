//! Sealed packets longer than the route's MTU, as fragments in frames of their own.
//!
//! As the kernel cuts (`ip_frag_next` in net/ipv4/ip_output.c, `ip6_frag_next` in net/ipv6/ip6_output.c): every fragment
//! but the last as long as fits. The first keeps its frame, what follows is copied behind headers of its own. With IPv6
//! the first one's part moves, too, to make room for the fragment header.

use super::{
    super::{Worker, outer},
    header::{MORE_FRAGMENTS, UNIT},
};
use crate::{
    drops::Drop,
    ports::{Frame, Frames, Port},
};

const ETHERNET: usize = 14;

/// How packets of one IP version are cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    V4,
    V6 { identification: u32 },
}

impl<N: Port, T: Port, H: Port> Worker<N, T, H> {
    /// Queues a packet as fragments of at most `mtu` bytes: all of them or, where memory lacks for one, none.
    pub(in crate::worker) fn queue_fragments(&mut self, packet: Frame, mtu: u16) -> Result<(), Drop> {
        let cut = if outer::ipv6::is_ipv6(self.frames.bytes(&packet)) {
            Cut::V6 { identification: self.identifications.next_v6() }
        } else {
            Cut::V4
        };
        let part = cut.part_len(mtu);
        let datagram = packet.len().saturating_sub(cut.whole_header());
        let count = datagram.div_ceil(part);
        if self.frames.free() + 1 < count {
            self.frames.put(packet);
            return Err(Drop::NoFreeFrame);
        }
        let Self { frames, batch, .. } = self;
        let first = batch.to_nic.len();
        batch.to_nic.push(packet);
        for offset in (part..datagram).step_by(part) {
            let Some(later) = cut.copy_part(frames, &batch.to_nic[first], offset, part) else { break };
            batch.to_nic.push(later);
        }
        cut.shorten(frames, &mut batch.to_nic[first], part);
        Ok(())
    }
}

impl Cut {
    /// Bytes ahead of the datagram in a whole packet, as the gateway writes it.
    fn whole_header(self) -> usize {
        match self {
            Self::V4 => ETHERNET + 20,
            Self::V6 { .. } => ETHERNET + 40,
        }
    }

    /// The same in a fragment.
    fn header(self) -> usize {
        match self {
            Self::V4 => self.whole_header(),
            Self::V6 { .. } => self.whole_header() + outer::ipv6::FRAGMENT_LEN,
        }
    }

    /// Bytes of the datagram in each fragment but the last.
    fn part_len(self, mtu: u16) -> usize {
        ((ETHERNET + usize::from(mtu)).saturating_sub(self.header()) & !(UNIT - 1)).max(UNIT)
    }

    /// A fresh frame with at most `part` bytes of the datagram from `offset` on.
    fn copy_part(self, frames: &mut Frames, packet: &Frame, offset: usize, part: usize) -> Option<Frame> {
        let mut later = frames.take()?;
        later.set_wire(packet.wire());
        let bytes = frames.bytes(packet);
        let (headers, datagram) = bytes.split_at(self.whole_header());
        let rest = &datagram[offset..];
        let len = rest.len().min(part);
        let end = self.header() + len;
        let room = &mut frames.room(&mut later)[..end];
        room[..headers.len()].copy_from_slice(headers);
        room[self.header()..].copy_from_slice(&rest[..len]);
        self.write_header(room, offset, rest.len() > part);
        frames.set_len(&mut later, end);
        Some(later)
    }

    /// Makes a whole packet its first fragment.
    fn shorten(self, frames: &mut Frames, packet: &mut Frame, part: usize) {
        let (from, to) = (self.whole_header(), self.header());
        // No longer than the packet, which it is a part of, but for the fragment header. A frame has room for that:
        // it is counted in `LONGEST_OUTER_HEADER`.
        frames.room(packet).copy_within(from..from + part, to);
        frames.set_len(packet, to + part);
        self.write_header(&mut frames.room(packet)[..to + part], 0, true);
    }

    fn write_header(self, frame: &mut [u8], offset: usize, more: bool) {
        // An offset is below 65,536, and a multiple of UNIT, which is what IPv4 counts in; IPv6 has its flags below.
        match self {
            Self::V4 => {
                let bits = (offset / UNIT) as u16 | if more { MORE_FRAGMENTS } else { 0 };
                outer::ipv4::fragment(frame, bits);
            }
            Self::V6 { identification } => {
                outer::ipv6::fragment(frame, offset as u16 | u16::from(more), identification);
            }
        }
    }
}
