//! Load from inside the kernel: frames that appear on a wire.

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ProgramInput};
use trestle_tests::{Fault, Result};

use super::{
    bpf,
    shared::{Orders, Progress, SLOT_HEADER, maps, programs},
};

/// Run a program on frames that go where it says (`BPF_F_TEST_XDP_LIVE_FRAMES` in linux/bpf.h).
const LIVE_FRAMES: u32 = 1 << 1;
/// Packets that are written into the recording with one system call.
const CHUNK: usize = 1024;

/// Sends frames out of an interface, on the processor it is run on, as its [`Valve`] says.
#[derive(Debug)]
pub struct Generator {
    object: Object,
    program: &'static str,
    template: Vec<u8>,
    orders: Orders,
    /// The last packets of the recording, not written yet: keys and slots.
    unwritten: (Vec<u8>, Vec<u8>),
}

impl Generator {
    /// Sends `frame` out of `device`, to `destinations` addresses in turn: its own, and those that follow it.
    ///
    /// To be called in the network namespace of `device`, as all that follows.
    pub fn repeating(device: &str, frame: &[u8], destinations: u32) -> Result<Self> {
        let object = bpf::load(bpf::open()?)?;
        let first = frame.get(2..6).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        let orders = Orders {
            limit: u64::MAX,
            destinations: destinations.into(),
            first_destination: first.into(),
            ..Orders::default()
        };
        Self::new(object, programs::GENERATE, frame.to_vec(), device, orders)
    }

    /// Sends up to `packets` packets of up to `room` bytes out of `device`, each once: see [`Generator::record`].
    pub fn replaying(device: &str, packets: u32, room: u32) -> Result<Self> {
        let mut open = bpf::open()?;
        for mut map in open.maps_mut() {
            if map.name() == maps::RECORDING {
                map.set_value_size(slot_bytes(room)).map_err(bpf::refused("sizing the recording"))?;
                map.set_max_entries(packets.max(1)).map_err(bpf::refused("sizing the recording"))?;
            } else if map.name().to_string_lossy().ends_with(".rodata") {
                map.set_initial_value(&room.to_ne_bytes()).map_err(bpf::refused("sizing a packet"))?;
            }
        }
        let template = vec![0; room as usize];
        Self::new(bpf::load(open)?, programs::REPLAY, template, device, Orders::default())
    }

    fn new(
        object: Object,
        program: &'static str,
        template: Vec<u8>,
        device: &str,
        orders: Orders,
    ) -> Result<Self> {
        let orders = Orders { interface: bpf::index(device)?.into(), ..orders };
        Ok(Self { object, program, template, orders, unwritten: Default::default() })
    }

    /// Adds a packet to the recording.
    pub fn record(&mut self, packet: &[u8]) -> Result<()> {
        let room = self.template.len();
        if packet.len() > room {
            return Err(Fault::other(format!("a packet of {} bytes does not fit {room}", packet.len())));
        }
        let (keys, slots) = &mut self.unwritten;
        let key = u32::try_from(self.orders.limit).map_err(|_| Fault::other("the recording is too long"))?;
        keys.extend(key.to_ne_bytes());
        slots.extend((packet.len() as u64).to_ne_bytes());
        slots.extend(packet);
        slots.resize(keys.len() / size_of_val(&key) * slot_bytes(room as u32) as usize, 0);
        self.orders.limit += 1;
        if keys.len() / size_of_val(&key) >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Writes what is recorded but for the last packets into the kernel.
    fn flush(&mut self) -> Result<()> {
        let (keys, slots) = &mut self.unwritten;
        if !keys.is_empty() {
            let count = (keys.len() / size_of::<u32>()) as u32;
            let map = bpf::map(&self.object, maps::RECORDING)?;
            let written = map.update_batch(keys, slots, count, MapFlags::ANY, MapFlags::ANY);
            written.map_err(bpf::refused(format!("recording {count} packets")))?;
            keys.clear();
            slots.clear();
        }
        Ok(())
    }

    /// What lets frames through, and tells how many were; closed at first. The recording is complete by now.
    pub fn valve(&mut self) -> Result<Valve> {
        self.flush()?;
        let handle = |name: &str| {
            MapHandle::try_from(&bpf::map(&self.object, name)?)
                .map_err(bpf::refused("a second handle of a map"))
        };
        let valve =
            Valve { orders: self.orders, written: handle(maps::ORDERS)?, read: handle(maps::PROGRESS)? };
        valve.close()?;
        Ok(valve)
    }

    /// Runs the program so often: each time it sends one frame, or none. Not to be interrupted.
    pub fn run(&mut self, runs: u32) -> Result<()> {
        let input = ProgramInput {
            data_in: Some(&self.template),
            flags: LIVE_FRAMES,
            repeat: runs.max(1),
            ..ProgramInput::default()
        };
        let program = bpf::program(&mut self.object, self.program)?;
        program.test_run(input).map(drop).map_err(bpf::refused("sending"))
    }
}

/// Bytes of a packet of up to `room` bytes in the recording, its length ahead of it.
fn slot_bytes(room: u32) -> u32 {
    room.next_multiple_of(8) + SLOT_HEADER as u32
}

/// Lets a generator's frames through, and tells how many were.
#[derive(Debug)]
pub struct Valve {
    orders: Orders,
    written: MapHandle,
    read: MapHandle,
}

impl Valve {
    /// Frames go from now on, `rate` a second; 0: as fast as it goes.
    pub fn open(&self, rate: f64) -> Result<()> {
        let gap_ns = if rate > 0.0 { (1e9 / rate) as u64 } else { 0 };
        self.write(Orders { sending: 1, gap_ns, ..self.orders })
    }

    /// Nothing goes from now on.
    pub fn close(&self) -> Result<()> {
        self.write(Orders { sending: 0, ..self.orders })
    }

    /// How far it is.
    pub fn progress(&self) -> Result<Progress> {
        let rows = bpf::rows(&self.read, 0)?;
        let words = rows.first().and_then(|row| row.as_slice().try_into().ok());
        words.map(Progress::from_words).ok_or_else(|| Fault::other("a load's progress has an unknown size"))
    }

    fn write(&self, orders: Orders) -> Result<()> {
        bpf::set(&self.written, 0, &bpf::bytes(&orders.to_words()))
    }
}
