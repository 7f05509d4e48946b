//! Arbitrary fragments against the parser and against reassembly: what becomes whole has every byte where it belongs,
//! and no frame's memory is lost or kept beyond the bounds.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use trestle::{
    drops::DropCounters,
    ports::Frames,
    worker::fragments::{
        header::{self, Fragment, is_fragment},
        reassembly::{Arrival, Reassembly},
    },
};

const FRAMES: usize = 64;
/// Room for one chunk's frame.
const CAPACITY: usize = 1792;
/// Ethernet and IPv4 headers.
const HEADER: usize = 34;
/// Ethernet, IPv6 and fragment headers.
const HEADER_V6: usize = 62;

fuzz_target!(|input: &[u8]| {
    let mut bench = Bench::new();
    for (kind, bytes) in trestle_fuzz::records(input) {
        bench.now_ms += u64::from(kind >> 4) * 40;
        match kind & 3 {
            0 => bench.receive(bytes.get(..CAPACITY).unwrap_or(bytes), kind),
            1 => bench.sweep(),
            _ => drop(made(bytes).map(|frame| bench.receive(&frame, kind))),
        }
        bench.check();
    }
});

/// A sound fragment: number, place, flags, length and IP version are the input's, the bytes are those of that place.
fn made(bytes: &[u8]) -> Option<Vec<u8>> {
    let &[number, unit, flags, length, ..] = bytes else { return None };
    let more = flags & 1;
    let length = usize::from(length) * if more == 1 { 8 } else { 3 };
    let mut frame = if flags & 2 == 0 {
        made_v4(number, unit, flags, length)?
    } else {
        made_v6(number, unit, flags, length)?
    };
    let offset = usize::from(unit) * 8;
    frame.extend((offset..offset + length).map(|at| pattern(number, at)));
    (frame.len() <= CAPACITY).then_some(frame)
}

fn made_v4(number: u8, unit: u8, flags: u8, length: usize) -> Option<Vec<u8>> {
    let total = u16::try_from(20 + length).ok()?;
    let mut frame = vec![0; HEADER];
    (frame[12], frame[14], frame[23]) = (0x08, 0x45, 17);
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[19] = number;
    frame[20..22].copy_from_slice(&[(flags & 1) << 5, unit]);
    frame[26] = flags >> 6;
    Some(frame)
}

fn made_v6(number: u8, unit: u8, flags: u8, length: usize) -> Option<Vec<u8>> {
    let payload = u16::try_from(8 + length).ok()?;
    let mut frame = vec![0; HEADER_V6];
    (frame[12], frame[13], frame[14], frame[20], frame[54]) = (0x86, 0xdd, 0x60, 44, 17);
    frame[18..20].copy_from_slice(&payload.to_be_bytes());
    frame[56..58].copy_from_slice(&(u16::from(unit) << 3 | u16::from(flags & 1)).to_be_bytes());
    frame[61] = number;
    frame[37] = flags >> 6;
    Some(frame)
}

fn pattern(number: u8, at: usize) -> u8 {
    number.wrapping_mul(31) ^ (at as u8) ^ (at >> 8) as u8
}

struct Bench {
    frames: Frames,
    reassembly: Reassembly,
    now_ms: u64,
    /// Only fragments that [`made`] made have come: bytes can be told by their place.
    all_made: bool,
}

impl Bench {
    fn new() -> Self {
        let reassembly = Reassembly::new(FRAMES, 0, Arc::<DropCounters>::default());
        Self { frames: Frames::in_memory(FRAMES, CAPACITY), reassembly, now_ms: 0, all_made: true }
    }

    fn receive(&mut self, bytes: &[u8], kind: u8) {
        let Some(fragment) = header::parse(bytes) else { return };
        assert!(is_fragment(bytes) && fragment.len > 0 && fragment.begin + fragment.len <= bytes.len());
        self.all_made &= kind & 3 != 0;
        let mut frame = self.frames.take().expect("a quarter is held at most");
        self.frames.room(&mut frame)[..bytes.len()].copy_from_slice(bytes);
        self.frames.set_len(&mut frame, bytes.len());
        let arrival =
            Arrival { is_trusted: kind & 4 != 0, was_handed_on: kind & 8 != 0, now_ms: self.now_ms };
        if let Some(whole) = self.reassembly.add(&mut self.frames, frame, fragment, arrival) {
            self.look_at(self.frames.bytes(&whole.packet), &fragment);
            self.frames.put(whole.packet);
        }
    }

    fn look_at(&self, packet: &[u8], last: &Fragment) {
        assert!(!is_fragment(packet) && packet.len() <= CAPACITY);
        let is_six = packet[12] == 0x86;
        let (length, from, header) = if is_six { (18, 54, HEADER_V6) } else { (16, 14, HEADER) };
        let told = u16::from_be_bytes([packet[length], packet[length + 1]]);
        assert_eq!(usize::from(told), packet.len() - from);
        if self.all_made {
            let [.., number] = last.key.identification.to_be_bytes();
            let mut datagram = packet[header..].iter().enumerate();
            assert!(datagram.all(|(at, byte)| *byte == pattern(number, at)), "a byte is out of its place");
        }
    }

    fn sweep(&mut self) {
        if self.reassembly.is_sweep_due(self.now_ms) {
            self.reassembly.sweep(&mut self.frames, self.now_ms);
        }
        while let Some((_, frame)) = self.reassembly.next_lone(self.now_ms, |key| key.identification % 2 == 0)
        {
            self.frames.put(frame);
        }
    }

    fn check(&self) {
        assert_eq!(self.frames.free() + self.reassembly.held(), FRAMES, "a frame was lost or doubled");
        assert!(self.reassembly.held() <= FRAMES / 4);
    }
}
