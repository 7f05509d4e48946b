//! Cutting an outer packet into IPv4 fragments, for the packets of full-size frames on a path of 1500.
//!
//! ```text
//!   whole      Ethernet 14 │ IPv4 20 │ UDP 8, payload ................ │
//!   first      Ethernet 14 │ IPv4 20 │ UDP 8, payload .... │            more fragments
//!   later      Ethernet 14 │ IPv4 20 │                     ........ │   offset
//! ```

use std::ops::Range;

use trestle::ports::checksum;

/// Ethernet and IPv4 headers.
pub(super) const HEADERS: usize = 34;

const IP: usize = 14;
const IP_HEADER: usize = HEADERS - IP;
const TOTAL_LENGTH: Range<usize> = 16..18;
const FLAGS_AND_OFFSET: Range<usize> = 20..22;
const CHECKSUM: Range<usize> = 24..26;
const MORE_FRAGMENTS: u16 = 0x2000;
/// Offsets are counted in these.
const UNIT: usize = 8;

/// Whether the IPv4 packet in the frame `whole` is longer than `mtu` bytes.
pub(super) fn are_needed(whole: usize, mtu: u16) -> bool {
    whole > IP + usize::from(mtu)
}

/// Cuts the frame `whole`, whose IPv4 header has no options, for a path of `mtu`, and hands each fragment's headers and
/// payload to `take`, in order.
pub(super) fn cut(whole: &[u8], mtu: u16, mut take: impl FnMut(&[u8; HEADERS], &[u8])) {
    let room = (usize::from(mtu).saturating_sub(IP_HEADER) / UNIT * UNIT).max(UNIT);
    let Some((header, payload)) = whole.split_first_chunk::<HEADERS>() else { return };
    let mut fragments = payload.chunks(room).enumerate().peekable();
    while let Some((index, part)) = fragments.next() {
        let mut own = *header;
        finish(&mut own, part.len(), index * room, fragments.peek().is_some());
        take(&own, part);
    }
}

fn finish(header: &mut [u8; HEADERS], payload: usize, offset: usize, more: bool) {
    // Both fit: a packet has 65,535 bytes at most.
    let total = u16::try_from(IP_HEADER + payload).unwrap_or(u16::MAX);
    let offset = u16::try_from(offset / UNIT).unwrap_or(u16::MAX);
    let flags = if more { MORE_FRAGMENTS } else { 0 };
    header[TOTAL_LENGTH].copy_from_slice(&total.to_be_bytes());
    header[FLAGS_AND_OFFSET].copy_from_slice(&(flags | offset).to_be_bytes());
    header[CHECKSUM].fill(0);
    let sum = !checksum::fold(checksum::sum(&header[IP..]));
    header[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use trestle::{
        switch::WireId,
        worker::{Outer, outer::OUTER_HEADER},
    };

    use super::*;

    const ENDS: (SocketAddrV4, SocketAddrV4) =
        (SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 1), SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 2));

    fn packet(payload: usize) -> Vec<u8> {
        let mut packet = vec![0; OUTER_HEADER];
        packet.extend((0..payload).map(|at| at as u8));
        Outer::by_nic(WireId::UPLINK, ENDS.0, ENDS.1, [2; 6], [4; 6], u16::MAX).write(&mut packet, 7);
        packet
    }

    fn field(frame: &[u8], at: Range<usize>) -> u16 {
        u16::from_be_bytes(frame[at].try_into().unwrap())
    }

    #[test]
    fn fragments_fit_and_make_up_the_whole() {
        for payload in [1473, 1540, 2953, 4000] {
            let whole = packet(payload);
            assert!(are_needed(whole.len(), 1500));
            let mut frames = Vec::new();
            cut(&whole, 1500, |header, part| frames.push([header, part].concat()));
            let mut data = Vec::new();
            for (index, frame) in frames.iter().enumerate() {
                assert!(frame.len() <= 1514);
                assert_eq!(usize::from(field(frame, TOTAL_LENGTH)), frame.len() - IP);
                assert_eq!(checksum::fold(checksum::sum(&frame[IP..HEADERS])), 0xffff);
                let offset = field(frame, FLAGS_AND_OFFSET);
                assert_eq!(usize::from(offset & 0x1fff) * UNIT, data.len());
                assert_eq!(offset & MORE_FRAGMENTS != 0, index + 1 < frames.len());
                assert_eq!(frame[18..20], whole[18..20], "all have one identification");
                data.extend_from_slice(&frame[HEADERS..]);
            }
            assert_eq!(data, whole[HEADERS..]);
        }
    }

    #[test]
    fn a_packet_that_fits_is_one_fragment_and_no_other() {
        let whole = packet(1472);
        assert!(!are_needed(whole.len(), 1500));
        let mut frames = Vec::new();
        cut(&whole, 1500, |header, part| frames.push([header, part].concat()));
        assert_eq!(frames, [whole]);
    }
}
