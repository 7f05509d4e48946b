//! Writing pcapng, as far as a capture needs it: one section, its interfaces, packets with comments.
//!
//! Source: draft-ietf-opsawg-pcapng, sections 4.1 (section header), 4.2 (interface description), 4.3 (enhanced packet),
//! 4.6 (interface statistics), 3.5 (options). All numbers in this machine's order, as the format has it.

use std::io::{self, Write};

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;
/// `if_tsresol`: time in units of 10^-9 s.
const NANOSECONDS: u8 = 9;

mod block {
    pub const SECTION: u32 = 0x0a0d_0d0a;
    pub const INTERFACE: u32 = 1;
    pub const STATISTICS: u32 = 5;
    pub const PACKET: u32 = 6;
}

mod option {
    pub const END: u16 = 0;
    pub const COMMENT: u16 = 1;
    pub const USER_APPLICATION: u16 = 4;
    pub const IF_NAME: u16 = 2;
    pub const IF_DESCRIPTION: u16 = 3;
    pub const IF_RESOLUTION: u16 = 9;
    pub const PACKET_FLAGS: u16 = 2;
    pub const STATISTICS_IF_DROP: u16 = 5;
}

/// A frame as it is written down.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Number of its interface.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// It leaves by the interface; else it came by it.
    pub outbound: bool,
    /// Length of the frame in bytes.
    pub length: u32,
    /// As much of it as was kept.
    pub bytes: &'a [u8],
    /// What is to be said of it.
    pub comment: Option<&'a str>,
}

/// A section with interfaces that are all Ethernet.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Begins a section: `interfaces` are names and descriptions, `snap` bytes are kept of each frame.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn begin(to: W, interfaces: &[(&str, &str)], snap: u32) -> io::Result<Self> {
        let mut writer = Self { to };
        let mut section = Body::default();
        // Byte order magic, version 1.0, length unknown.
        section.u32(0x1a2b_3c4d).u16(1).u16(0).u64(u64::MAX);
        let application = concat!("trestle ", env!("CARGO_PKG_VERSION"));
        section.option(option::USER_APPLICATION, application.as_bytes()).end();
        writer.block(block::SECTION, section)?;
        for (name, description) in interfaces {
            let mut interface = Body::default();
            interface.u16(ETHERNET).u16(0).u32(snap);
            interface.option(option::IF_NAME, name.as_bytes());
            interface.option(option::IF_DESCRIPTION, description.as_bytes());
            interface.option(option::IF_RESOLUTION, &[NANOSECONDS]).end();
            writer.block(block::INTERFACE, interface)?;
        }
        Ok(writer)
    }

    /// One frame.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn packet(&mut self, packet: Packet<'_>) -> io::Result<()> {
        let Packet { interface, time_ns, outbound, length, bytes, comment } = packet;
        let kept = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut body = Body::default();
        body.u32(interface).time(time_ns).u32(kept).u32(length).padded(bytes);
        // epb_flags: the lowest two bits are the direction.
        let direction: u32 = if outbound { 2 } else { 1 };
        body.option(option::PACKET_FLAGS, &direction.to_ne_bytes());
        if let Some(comment) = comment {
            body.option(option::COMMENT, comment.as_bytes());
        }
        body.end();
        self.block(block::PACKET, body)
    }

    /// So many frames of an interface were not written down.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn missed(&mut self, interface: u32, time_ns: u64, frames: u64) -> io::Result<()> {
        let mut body = Body::default();
        body.u32(interface).time(time_ns).option(option::STATISTICS_IF_DROP, &frames.to_ne_bytes()).end();
        self.block(block::STATISTICS, body)
    }

    /// Has everything written down reach whoever reads.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn block(&mut self, kind: u32, Body(body): Body) -> io::Result<()> {
        // Kind, length, body, length again.
        let length = u32::try_from(body.len() + 12).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.to.write_all(&kind.to_ne_bytes())?;
        self.to.write_all(&length.to_ne_bytes())?;
        self.to.write_all(&body)?;
        self.to.write_all(&length.to_ne_bytes())
    }
}

/// What stands between the two lengths of a block: always a multiple of four bytes.
#[derive(Debug, Default)]
struct Body(Vec<u8>);

impl Body {
    fn u16(&mut self, number: u16) -> &mut Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    /// The upper half first, in any byte order.
    fn time(&mut self, time_ns: u64) -> &mut Self {
        let low = u32::try_from(time_ns & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        self.u32(u32::try_from(time_ns >> 32).unwrap_or(u32::MAX)).u32(low)
    }

    fn padded(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// One longer than an option can be is cut.
    fn option(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.u16(kind).u16(length);
        let value = value.get(..usize::from(length)).unwrap_or(value);
        self.padded(value)
    }

    fn end(&mut self) -> &mut Self {
        self.u16(option::END).u16(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Kind and body of each block.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut found = Vec::new();
        while !file.is_empty() {
            let length = number(file, 4) as usize;
            assert_eq!((length % 4, number(file, length - 4) as usize), (0, length));
            found.push((number(file, 0), file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        found
    }

    #[test]
    fn blocks_are_whole_and_in_order() {
        let mut file = Vec::new();
        let mut writer = Writer::begin(&mut file, &[("agent1", "peer 1"), ("tap0", "host")], 96).unwrap();
        let packet = Packet {
            interface: 1,
            time_ns: 0x1_0000_0002,
            outbound: true,
            length: 1514,
            bytes: b"abcde",
            comment: Some("lost: mac_limit"),
        };
        writer.packet(packet).unwrap();
        writer.missed(0, 5, 7).unwrap();
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 1, 6, 5]);
        let packet = &blocks[3].1;
        let head: Vec<u32> = (0..5).map(|at| number(packet, at * 4)).collect();
        assert_eq!(head, [1, 1, 2, 5, 1514], "interface, time in two halves, kept and whole length");
        assert_eq!(&packet[20..28], b"abcde\0\0\0");
        let comment = packet.windows(15).any(|bytes| bytes == b"lost: mac_limit");
        assert!(comment);
    }
}
