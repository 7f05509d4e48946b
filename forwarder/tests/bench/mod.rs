//! What the kernel's tests share: the BPF object in the kernel's own loader, frames, namespaces.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    io::Write,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Command,
};

use caps::{CapSet, Capability};
use common::bridge::{CaptureHeader, PortCounters, PortValue};
use common::{FdbKey, FdbValue, ListenerKey, Mac, Place, Settings, Verdict, names};
use libbpf_rs::{MapCore, MapFlags, MapMut, Object, ObjectBuilder, ProgramInput};
use nix::{
    libc,
    sched::{CloneFlags, unshare},
};

pub const NIC_MAC: Mac = [0x02, 0, 0, 0, 0, 0x01];
pub const ROUTER: Mac = [0x02, 0, 0, 0, 0, 0x02];
pub const PEER: Mac = [0x02, 0, 0, 0, 0, 0x03];
pub const STRANGER: Mac = [0x02, 0, 0, 0, 0, 0x04];
pub const WIRE: Mac = [0x02, 0, 0, 0, 0, 0x05];
pub const GROUP: Mac = [0x01, 0x00, 0x5e, 0, 0, 1];
pub const BROADCAST: Mac = [0xff; 6];
pub const ADDRESS: [u8; 4] = [192, 0, 2, 1];
pub const PORT: u16 = 443;
pub const MAX_FRAME: usize = 2048;
pub const TAG: u16 = 0x8100;
pub const SERVICE_TAG: u16 = 0x88a8;

/// Whether the test can run; if not, says so where no test runner hides it.
pub fn privileged(test: &str) -> bool {
    let needed = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN];
    let able = needed.iter().all(|&one| caps::has_cap(None, CapSet::Effective, one).unwrap_or(false));
    if !able {
        // One write, so that no other thread's words come between.
        let line = format!("SKIPPED {test}: needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    able
}

/// Puts the calling thread in a network namespace of its own, which goes with it.
pub fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    ip("link set lo up");
}

/// Runs `ip` in the namespace of the calling thread.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip is installed");
    assert!(status.success(), "ip {arguments}");
}

pub fn index_of(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).expect("the interface is there")
}

/// Frames an interface has been given to transmit.
pub fn transmitted(interface: &str) -> u64 {
    // Not /proc/net: that is the namespace of the process's first thread.
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").expect("proc is mounted");
    let line =
        table.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:")).map(str::to_owned));
    let line = line.expect("the interface is listed");
    line.split_whitespace()
        .nth(9)
        .and_then(|field| field.parse().ok())
        .expect("the tenth column counts frames sent")
}

/// An AF_XDP socket as far as the map wants it: with a receive ring. Bound it need not be, for nothing is sent to it.
pub fn xsk() -> OwnedFd {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW, 0) };
    assert!(fd >= 0, "this kernel has AF_XDP");
    // SAFETY: the descriptor was just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let entries = 64u32;
    // SAFETY: the option's value is a u32, which outlives the call, and its size is given.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_RX_RING,
            (&raw const entries).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    assert_eq!(failed, 0, "a receive ring");
    socket
}

/// The object, loaded by libbpf, with its maps filled.
pub struct Bench {
    object: Object,
}

impl Bench {
    /// Bridge mode, one listener, and one station of each kind; no AF_XDP socket.
    pub fn new() -> Self {
        let open =
            ObjectBuilder::default().open_memory(trestle::xdp::programs::OBJECT).expect("libbpf reads it");
        let mut bench = Self { object: open.load().expect("the kernel verifies it") };
        bench.settings(default_settings());
        bench.put(names::LISTENERS, &listener(ADDRESS, PORT).to_bytes(), &1u32.to_ne_bytes());
        for (mac, place, fixed) in [
            (NIC_MAC, Place::Host, true),
            (ROUTER, Place::Wire, true),
            (WIRE, Place::Wire, false),
            (PEER, Place::Peer, false),
        ] {
            bench.station(0, mac, place, fixed);
        }
        bench
    }

    pub fn settings(&mut self, settings: Settings) {
        self.put(names::SETTINGS, &0u32.to_ne_bytes(), &settings.to_bytes());
    }

    pub fn station(&mut self, vlan: u16, mac: Mac, place: Place, fixed: bool) {
        let value =
            FdbValue { place: place as u32, fixed: fixed.into(), last_seen_ns: 0, ..Default::default() };
        self.put(names::FDB, &FdbKey::new(vlan, mac).to_bytes(), &value.to_bytes());
    }

    /// A station on the wire of the port in `slot` of a bridge.
    pub fn station_on(&mut self, slot: u32, vlan: u16, mac: Mac) {
        let value = FdbValue { place: Place::Wire as u32, port: slot, ..Default::default() };
        self.put(names::FDB, &FdbKey::new(vlan, mac).to_bytes(), &value.to_bytes());
    }

    /// A port of a bridge.
    pub fn port(&mut self, slot: u32, value: PortValue) {
        self.put(names::PORTS, &slot.to_ne_bytes(), &value.to_bytes());
    }

    /// What XDP counted at the port, on all CPUs.
    pub fn port_counters(&mut self, slot: u32) -> PortCounters {
        let cpus = self.map(names::PORT_COUNTERS).lookup_percpu(&slot.to_ne_bytes(), MapFlags::ANY);
        let cpus = cpus.expect("it answers").expect("an array has all its entries").into_iter();
        let counters = cpus.map(|bytes| PortCounters::from_bytes(bytes.try_into().expect("its size")));
        counters.fold(PortCounters::default(), PortCounters::plus)
    }

    pub fn put(&mut self, map: &str, key: &[u8], value: &[u8]) {
        self.map(map).update(key, value, MapFlags::ANY).expect("the map takes it");
    }

    pub fn last_seen_ns(&mut self, mac: Mac) -> Option<u64> {
        let key = FdbKey::new(0, mac).to_bytes();
        let bytes = self.map(names::FDB).lookup(&key, MapFlags::ANY).expect("the map answers")?;
        Some(FdbValue::from_bytes(bytes.try_into().expect("its size")).last_seen_ns)
    }

    /// Frames with this verdict so far.
    pub fn verdicts(&mut self, verdict: Verdict) -> u64 {
        let key = (verdict as u32).to_ne_bytes();
        let cpus = self.map(names::VERDICTS).lookup_percpu(&key, MapFlags::ANY).expect("it answers");
        let counts = cpus.expect("an array has all its entries").into_iter();
        counts.map(|bytes| u64::from_ne_bytes(bytes.try_into().expect("8 bytes"))).sum()
    }

    /// What waits in the ring of new sources.
    pub fn reported(&mut self) -> Vec<FdbKey> {
        let events = self.ring(names::EVENTS).into_iter();
        events.map(|event| FdbKey::from_bytes(event.try_into().expect("an event is a key"))).collect()
    }

    /// What waits in the ring of captured frames.
    pub fn captured(&mut self) -> Vec<(CaptureHeader, Vec<u8>)> {
        let split = |record: Vec<u8>| {
            let (header, bytes) = record.split_first_chunk().expect("a header");
            (CaptureHeader::from_bytes(*header), bytes.to_vec())
        };
        self.ring(names::CAPTURES).into_iter().map(split).collect()
    }

    fn ring(&mut self, name: &str) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let map = self.map(name);
        let mut rings = libbpf_rs::RingBufferBuilder::new();
        let note = |record: &[u8]| {
            records.push(record.to_vec());
            0
        };
        rings.add(&map, note).expect("a ring");
        let reader = rings.build().expect("a reader");
        reader.consume().expect("it reads");
        drop(reader);
        records
    }

    /// Runs an XDP program on a frame: its return value, or what the kernel has against the frame.
    pub fn xdp(&mut self, program: &str, frame: &[u8]) -> libbpf_rs::Result<u32> {
        let program =
            self.object.progs_mut().find(|one| one.name() == program).expect("the program is there");
        let mut out = vec![0; frame.len() + 512];
        let input = ProgramInput { data_in: Some(frame), data_out: Some(&mut out), ..Default::default() };
        let output = program.test_run(input)?;
        let after = output.data.expect("the frame comes back");
        assert_eq!(after, frame, "the program must not touch the frame");
        Ok(output.return_value)
    }

    /// Runs a TC program on a frame that carries `mark`: its return value, and the mark afterwards.
    pub fn tc(&mut self, program: &str, frame: &[u8], mark: u32) -> (i32, u32) {
        let program =
            self.object.progs_mut().find(|one| one.name() == program).expect("the program is there");
        let mut context = vec![0; SK_BUFF];
        context[MARK..MARK + 4].copy_from_slice(&mark.to_ne_bytes());
        let mut after = vec![0; SK_BUFF];
        let input = ProgramInput {
            context_in: Some(&mut context),
            context_out: Some(&mut after),
            data_in: Some(frame),
            ..Default::default()
        };
        let returned = program.test_run(input).expect("the kernel takes the frame").return_value;
        let mark = u32::from_ne_bytes(after[MARK..MARK + 4].try_into().expect("4 bytes"));
        (returned.cast_signed(), mark)
    }

    fn map(&mut self, name: &str) -> MapMut<'_> {
        self.object.maps_mut().find(|map| map.name() == name).expect("the map is there")
    }
}

/// Size of `struct __sk_buff` in Linux 6.1, which later kernels take too, and the offset of `mark` in it.
const SK_BUFF: usize = 192;
const MARK: usize = 8;

pub fn default_settings() -> Settings {
    Settings {
        nic: 1,
        host_port: 1,
        bridge: 1,
        max_frame: u32::try_from(MAX_FRAME).expect("it is small"),
        mac: NIC_MAC,
        fragments: 1,
        ..Default::default()
    }
}

pub fn listener(address: [u8; 4], port: u16) -> ListenerKey {
    ListenerKey { address, port: port.to_be_bytes(), reserved: [0; 2] }
}

/// An Ethernet frame with the given tags, outermost first, as (type, control information).
pub fn ethernet(
    destination: Mac,
    source: Mac,
    tags: &[(u16, u16)],
    ethertype: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = [destination, source].concat();
    for (kind, control) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(control.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A frame of a protocol nobody knows, as long as the shortest there is.
pub fn plain(destination: Mac, source: Mac) -> Vec<u8> {
    ethernet(destination, source, &[], 0x88b5, &[0; 46])
}

/// A UDP datagram in a frame; the default is a tunnel data packet for the gateway.
#[derive(Clone)]
pub struct Datagram {
    pub to: Mac,
    pub from: Mac,
    pub tags: Vec<(u16, u16)>,
    pub ethertype: u16,
    pub version: u8,
    pub options: Vec<u8>,
    pub fragment: u16,
    pub identification: u16,
    pub protocol: u8,
    pub source: ([u8; 4], u16),
    pub destination: ([u8; 4], u16),
    pub payload: Vec<u8>,
}

impl Default for Datagram {
    fn default() -> Self {
        Self {
            to: NIC_MAC,
            from: ROUTER,
            tags: Vec::new(),
            ethertype: 0x0800,
            version: 4,
            options: Vec::new(),
            fragment: 0,
            identification: 1,
            protocol: 17,
            source: ([198, 51, 100, 7], 40_000),
            destination: (ADDRESS, PORT),
            payload: [&[9 << 3][..], &[0; 60]].concat(),
        }
    }
}

impl Datagram {
    pub fn frame(&self) -> Vec<u8> {
        ethernet(self.to, self.from, &self.tags, self.ethertype, &self.packet())
    }

    fn packet(&self) -> Vec<u8> {
        let words = u8::try_from(5 + self.options.len() / 4).expect("at most 40 bytes of options");
        let udp_len = u16::try_from(8 + self.payload.len()).expect("it is short");
        let ip_len = u16::from(words) * 4 + udp_len;
        let mut packet = vec![self.version << 4 | words, 0];
        packet.extend(ip_len.to_be_bytes());
        packet.extend(self.identification.to_be_bytes());
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(self.source.0);
        packet.extend(self.destination.0);
        packet.extend(&self.options);
        let checksum = checksum(&packet);
        packet[10..12].copy_from_slice(&checksum);
        packet.extend(self.source.1.to_be_bytes());
        packet.extend(self.destination.1.to_be_bytes());
        packet.extend(udp_len.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(&self.payload);
        packet
    }
}

/// The Internet checksum of an IPv4 header.
fn checksum(header: &[u8]) -> [u8; 2] {
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}
