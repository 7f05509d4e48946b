//! Load from inside the kernel: frames that appear on a wire.

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ProgramInput};
use trestle_tests::{Fault, Result};

use super::{
    bpf,
    shared::{Load, SLOT_HEADER, maps, programs},
};

/// Run a program on frames that go where it says (`BPF_F_TEST_XDP_LIVE_FRAMES` in linux/bpf.h).
const LIVE_FRAMES: u32 = 1 << 1;
/// Packets that are written into the recording with one system call.
const CHUNK: usize = 1024;

/// Sends frames out of an interface, on the processor it is run on.
#[derive(Debug)]
pub struct Generator {
    object: Object,
    program: &'static str,
    template: Vec<u8>,
    /// Packets recorded, not all of them written yet.
    recorded: u32,
    /// The last of them: key and slot one after the other.
    unwritten: (Vec<u8>, Vec<u8>),
}

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time between two frames in nanoseconds; 0: as fast as it goes.
    pub gap_ns: u64,
    /// Nothing is sent after that (CLOCK_MONOTONIC, nanoseconds).
    pub until_ns: u64,
    /// How often the program is run, at most: each time one frame is sent, or none.
    pub runs: u32,
}

/// How far a generator is, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Frames sent, those included that the interface had no room for.
    pub sent: u64,
    /// How often the program has run while it was to send.
    pub runs: u64,
}

impl Generator {
    /// Sends `frame` out of `device`, to `destinations` addresses in turn: its own, and those that follow it.
    ///
    /// To be called in the network namespace of `device`, as all that follows.
    pub fn repeating(device: &str, frame: &[u8], destinations: u32) -> Result<Self> {
        let object = bpf::load(bpf::open()?)?;
        let first = frame.get(2..6).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        let load = Load {
            destinations: destinations.into(),
            first_destination: first.into(),
            limit: u64::MAX,
            ..Load::default()
        };
        Self::new(object, programs::GENERATE, frame.to_vec(), device, load)
    }

    /// Sends up to `packets` packets of up to `room` bytes out of `device`, each once: see [`Generator::record`].
    pub fn replaying(device: &str, packets: u32, room: u32) -> Result<Self> {
        let mut open = bpf::open()?;
        for mut map in open.maps_mut() {
            if map.name() == maps::RECORDING {
                let slot = room.next_multiple_of(8) + SLOT_HEADER as u32;
                map.set_value_size(slot).map_err(bpf::refused("sizing the recording"))?;
                map.set_max_entries(packets.max(1)).map_err(bpf::refused("sizing the recording"))?;
            } else if map.name().to_string_lossy().ends_with(".rodata") {
                map.set_initial_value(&room.to_ne_bytes()).map_err(bpf::refused("sizing a packet"))?;
            }
        }
        let template = vec![0; room as usize];
        Self::new(bpf::load(open)?, programs::REPLAY, template, device, Load::default())
    }

    fn new(
        object: Object,
        program: &'static str,
        template: Vec<u8>,
        device: &str,
        load: Load,
    ) -> Result<Self> {
        let load = Load { interface: bpf::index(device)?.into(), ..load };
        let generator = Self { object, program, template, recorded: 0, unwritten: Default::default() };
        generator.write(load)?;
        Ok(generator)
    }

    /// Adds a packet to the recording.
    pub fn record(&mut self, packet: &[u8]) -> Result<()> {
        let room = self.template.len();
        if packet.len() > room {
            return Err(Fault::other(format!("a packet of {} bytes does not fit {room}", packet.len())));
        }
        let (keys, slots) = &mut self.unwritten;
        keys.extend(self.recorded.to_ne_bytes());
        slots.extend((packet.len() as u64).to_ne_bytes());
        slots.extend(packet);
        slots.resize(keys.len() / 4 * (room.next_multiple_of(8) + SLOT_HEADER), 0);
        self.recorded += 1;
        if keys.len() / 4 >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Writes what is recorded, and allows it to be sent.
    pub fn flush(&mut self) -> Result<()> {
        let (keys, slots) = &mut self.unwritten;
        if !keys.is_empty() {
            let count = (keys.len() / 4) as u32;
            let map = bpf::map(&self.object, maps::RECORDING)?;
            let written = map.update_batch(keys, slots, count, MapFlags::ANY, MapFlags::ANY);
            written.map_err(bpf::refused(format!("recording {count} packets")))?;
            keys.clear();
            slots.clear();
        }
        let load = Load { limit: self.recorded.into(), ..self.load()? };
        self.write(load)
    }

    /// Sends at that pace; returns when the programs have run as often as they may.
    pub fn run(&mut self, pace: Pace) -> Result<()> {
        let load = self.load()?;
        self.write(Load { gap_ns: pace.gap_ns, until_ns: pace.until_ns, next_ns: 0, ..load })?;
        let input = ProgramInput {
            data_in: Some(&self.template),
            flags: LIVE_FRAMES,
            repeat: pace.runs.max(1),
            ..ProgramInput::default()
        };
        let program = bpf::program(&mut self.object, self.program)?;
        program.test_run(input).map(drop).map_err(bpf::refused("sending"))
    }

    /// What tells how far it is, also while it runs.
    pub fn gauge(&self) -> Result<Gauge> {
        let map = bpf::map(&self.object, maps::LOAD)?;
        MapHandle::try_from(&map).map(Gauge).map_err(bpf::refused("a second handle of the load's state"))
    }

    fn load(&self) -> Result<Load> {
        read(&bpf::map(&self.object, maps::LOAD)?)
    }

    fn write(&self, load: Load) -> Result<()> {
        bpf::update(&self.object, maps::LOAD, 0, &bpf::bytes(&load.to_words()))
    }
}

/// Tells how far a generator is.
#[derive(Debug)]
pub struct Gauge(MapHandle);

impl Gauge {
    /// How far it is now.
    pub fn read(&self) -> Result<Progress> {
        read(&self.0).map(|load| Progress { sent: load.sent, runs: load.runs })
    }
}

fn read(map: &impl MapCore) -> Result<Load> {
    let rows = bpf::rows(map, 0)?;
    let words = rows.first().and_then(|row| row.as_slice().try_into().ok());
    words.map(Load::from_words).ok_or_else(|| Fault::other("the load's state has another size than expected"))
}
