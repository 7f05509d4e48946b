//! A captured frame in one line, as `tcpdump -e` begins its own.

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    management::capture::FrameRecord,
    switch::{ETHERNET_HEADER, Header},
    worker::Direction,
};

/// Time, interface, way, addresses, type, length; and why it was lost.
pub(super) fn line(interface: &str, frame: &FrameRecord, drop: Option<&str>) -> String {
    let way = match frame.direction {
        Direction::In => "In ",
        Direction::Out => "Out",
    };
    let lost = drop.map(|drop| format!(", lost: {drop}")).unwrap_or_default();
    let time = time(frame.time_ns);
    format!("{time} {interface} {way} {}, length {}{lost}", addresses(&frame.bytes), frame.length)
}

fn time(time_ns: u64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.6f").to_string()
}

fn addresses(frame: &[u8]) -> String {
    let Some(header) = Header::parse(frame) else { return "too short for Ethernet".into() };
    let vlan = if header.vlan == 0 { String::new() } else { format!(", vlan {}", header.vlan) };
    let mac = |mac: common::Mac| mac.map(|byte| format!("{byte:02x}")).join(":");
    format!("{} > {}, {}{vlan}", mac(header.source), mac(header.destination), ether_type(frame))
}

/// The type behind a tag, by its name where it has a common one.
fn ether_type(frame: &[u8]) -> String {
    let at = |at: usize| frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let outer = at(ETHERNET_HEADER - 2);
    let found = if matches!(outer, Some(0x8100 | 0x88a8)) { at(ETHERNET_HEADER + 2) } else { outer };
    match found {
        Some(0x0800) => "IPv4".into(),
        Some(0x86dd) => "IPv6".into(),
        Some(0x0806) => "ARP".into(),
        // IEEE 802.3: up to here it is a length.
        Some(0..0x0600) => "802.3".into(),
        Some(other) => format!("ethertype {other:#06x}"),
        None => "cut short".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_the_frame_is_and_what_became_of_it() {
        let mut bytes = vec![0xff; 6];
        bytes.extend([2, 0, 0, 0, 0, 0x1a]);
        let frame = |tail: &[u8]| FrameRecord {
            time_ns: 1,
            interface: 0,
            direction: Direction::Out,
            drop: 0,
            length: 60,
            bytes: [&bytes, tail].concat(),
        };
        let text = line("agent1", &frame(&[0x81, 0, 0, 5, 0x88, 0xb5]), Some("mac_limit"));
        let rest = "agent1 Out 02:00:00:00:00:1a > ff:ff:ff:ff:ff:ff, ethertype 0x88b5, vlan 5, length 60, lost: mac_limit";
        assert!(text.ends_with(rest), "{text}");
        assert!(line("a", &frame(&[8, 0]), None).contains("IPv4, length 60"));
        assert!(line("a", &frame(&[0, 38]), None).contains("802.3"));
        assert!(line("a", &frame(&[0x81, 0, 0, 5]), None).contains("cut short"));
        assert!(line("a", &frame(&[]), None).contains("too short") || bytes.len() == 12);
    }
}
