//! A tunnel packet as it comes from a client on the wire: Ethernet, IPv4 and UDP around what the client sealed.

use std::net::SocketAddrV4;

use trestle_tests::frame::Mac;

/// Ethernet header in bytes.
const ETHERNET: usize = 14;
/// IPv4 header without options in bytes.
const IPV4: usize = 20;
/// UDP header in bytes.
const UDP: usize = 8;
/// Longest IP packet of the wire in bytes.
const MTU: usize = 1500;
/// What all fragments but the last are a multiple of (RFC 791, fragment offset).
const FRAGMENT_UNIT: usize = 8;
/// RFC 791: more fragments follow.
const MORE_FRAGMENTS: u16 = 0x2000;

/// The way from a client to the server.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Hardware addresses: source, destination.
    pub macs: (Mac, Mac),
    /// Addresses: source, destination.
    pub addresses: (SocketAddrV4, SocketAddrV4),
}

impl Outer {
    /// The frames that carry `payload`: one, or two fragments. `identification` tells packets apart.
    ///
    /// The UDP checksum is absent (RFC 768), as verified by a NIC: no receiver spends time on it.
    pub fn frames(&self, payload: &[u8], identification: u16) -> Vec<Vec<u8>> {
        let mut datagram = Vec::with_capacity(UDP + payload.len());
        let length = (UDP + payload.len()) as u16;
        for half in [self.addresses.0.port(), self.addresses.1.port(), length, 0] {
            datagram.extend(half.to_be_bytes());
        }
        datagram.extend(payload);
        let room = (MTU - IPV4) / FRAGMENT_UNIT * FRAGMENT_UNIT;
        let parts = datagram.chunks(if IPV4 + datagram.len() <= MTU { datagram.len() } else { room });
        let last = parts.len() - 1;
        let offset = |number: usize| (number * room / FRAGMENT_UNIT) as u16;
        let more = |number: usize| if number < last { MORE_FRAGMENTS } else { 0 };
        parts
            .enumerate()
            .map(|(number, part)| self.frame(part, identification, offset(number) | more(number)))
            .collect()
    }

    fn frame(&self, part: &[u8], identification: u16, fragment: u16) -> Vec<u8> {
        let mut frame = Vec::with_capacity(ETHERNET + IPV4 + part.len());
        frame.extend(self.macs.1);
        frame.extend(self.macs.0);
        frame.extend([0x08, 0x00]);
        frame.extend(self.ip_header(part.len(), identification, fragment));
        frame.extend(part);
        frame
    }

    fn ip_header(&self, payload: usize, identification: u16, fragment: u16) -> [u8; IPV4] {
        const TTL: u8 = 64;
        const PROTOCOL_UDP: u8 = 17;
        let mut header = [0; IPV4];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&((IPV4 + payload) as u16).to_be_bytes());
        header[4..6].copy_from_slice(&identification.to_be_bytes());
        header[6..8].copy_from_slice(&fragment.to_be_bytes());
        (header[8], header[9]) = (TTL, PROTOCOL_UDP);
        header[12..16].copy_from_slice(&self.addresses.0.ip().octets());
        header[16..20].copy_from_slice(&self.addresses.1.ip().octets());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }
}

/// The Internet checksum (RFC 1071) of a header, whose checksum field is zero.
fn checksum(header: &[u8; IPV4]) -> u16 {
    let words = header.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outer() -> Outer {
        let at = |text: &str| text.parse().unwrap();
        Outer { macs: ([2; 6], [4; 6]), addresses: (at("10.10.21.1:5000"), at("10.10.21.5:443")) }
    }

    #[test]
    fn a_packet_that_fits_is_one_frame() {
        let frames = outer().frames(&[7; 1438], 9);
        let [frame] = frames.as_slice() else { panic!("{} frames", frames.len()) };
        assert_eq!(frame.len(), 14 + 20 + 8 + 1438);
        assert_eq!(frame[20..22], [0, 0]);
        assert_eq!(frame[34..38], [0x13, 0x88, 0x01, 0xbb]);
    }

    #[test]
    fn fragments_of_a_packet_carry_all_of_it() {
        let payload: Vec<u8> = (0..1538_u32).map(|at| at as u8).collect();
        let frames = outer().frames(&payload, 9);
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [14 + 1500, 14 + 20 + 66]);
        assert_eq!((frames[0][20..22].to_vec(), frames[1][20..22].to_vec()), (vec![0x20, 0], vec![0, 185]));
        let together = [&frames[0][34 + 8..], &frames[1][34..]].concat();
        assert_eq!(together, payload);
    }

    #[test]
    fn a_header_with_its_checksum_sums_to_zero() {
        let header = outer().ip_header(100, 9, 0);
        assert_eq!(checksum(&header), 0);
    }
}
