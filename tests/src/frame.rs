//! Ethernet frames as bytes. Written anew rather than taken from the product, which must not judge itself.

/// A hardware address.
pub type Mac = [u8; 6];

/// Everybody.
pub const BROADCAST: Mac = [0xff; 6];
/// Spanning tree: a link-local group, which no bridge forwards.
pub const BPDU_GROUP: Mac = [0x01, 0x80, 0xc2, 0, 0, 0];
/// EtherType for experiments (IEEE 802): the build protocol's stand-in, not IP.
pub const ETHERTYPE_EXPERIMENT: u16 = 0x88b5;
/// EtherType of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// Longest untagged frame of a segment with an MTU of 1500, without its check sequence.
pub const FULL_SIZE: usize = 1514;
/// Shortest frame on a wire, without its check sequence.
pub const MIN_SIZE: usize = 60;
/// Destination, source and EtherType.
pub const HEADER: usize = 14;

/// A frame: destination, source, EtherType and `payload`, as they stand on the wire.
pub fn frame(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&destination);
    bytes.extend_from_slice(&source);
    bytes.extend_from_slice(&ethertype.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// `frame` with an 802.1Q tag for `vlan`.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let tag = [ETHERTYPE_VLAN.to_be_bytes(), vlan.to_be_bytes()].concat();
    [addresses, &tag, rest].concat()
}

/// `frame` lengthened with zeros to `length`.
pub fn padded(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.resize(length.max(frame.len()), 0);
    frame
}

/// Destination of a frame; all zero where it is too short.
pub fn destination(frame: &[u8]) -> Mac {
    frame.get(..6).and_then(|mac| mac.try_into().ok()).unwrap_or_default()
}

/// Source of a frame; all zero where it is too short.
pub fn source(frame: &[u8]) -> Mac {
    frame.get(6..12).and_then(|mac| mac.try_into().ok()).unwrap_or_default()
}

/// EtherType of a frame; zero where it is too short.
pub fn ethertype(frame: &[u8]) -> u16 {
    frame.get(12..14).and_then(|kind| kind.try_into().ok()).map_or(0, u16::from_be_bytes)
}

/// A locally administered address that ends in `number`.
pub fn local_mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    [0x02, 0x5e, a, b, c, d]
}

/// `02:00:00:00:00:01` as bytes.
pub fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Vec<u8> =
        text.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>().ok()?;
    bytes.try_into().ok()
}

/// Bytes as `02:00:00:00:00:01`.
pub fn show_mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_gives_back_what_it_was_made_of() {
        let made = frame(BROADCAST, local_mac(7), ETHERTYPE_EXPERIMENT, b"hello");
        assert_eq!(destination(&made), BROADCAST);
        assert_eq!(source(&made), local_mac(7));
        assert_eq!(ethertype(&made), ETHERTYPE_EXPERIMENT);
        assert_eq!(&made[HEADER..], b"hello");
    }

    #[test]
    fn a_tag_stands_between_the_addresses_and_the_ethertype() {
        let plain = frame(BROADCAST, local_mac(7), ETHERTYPE_EXPERIMENT, b"hello");
        let with_tag = tagged(&plain, 5);
        assert_eq!(with_tag.len(), plain.len() + 4);
        assert_eq!(with_tag[12..16], [0x81, 0x00, 0x00, 0x05]);
        assert_eq!(with_tag[16..], plain[12..]);
    }

    #[test]
    fn addresses_survive_being_written_and_read() {
        assert_eq!(parse_mac(&show_mac(local_mac(0xabcdef))), Some(local_mac(0xabcdef)));
        assert_eq!(parse_mac("02:00"), None);
        assert_eq!(parse_mac("no address"), None);
    }
}
