//! The far end of the gateway's wire: what belongs to the load is counted and dropped there.

use libbpf_rs::{Link, Object};
use trestle_tests::Result;

use super::{
    bpf,
    shared::{CLASSES, Class, PORT_ANY, PORT_OPENVPN, maps, programs},
};

/// Counts at one device. Detached when dropped.
#[derive(Debug)]
pub struct Counter {
    object: Object,
    _link: Link,
}

impl Counter {
    /// Attaches to `device` of the network namespace that the calling thread is in.
    pub fn attach(device: &str) -> Result<Self> {
        let mut object = bpf::load(bpf::open()?)?;
        let link = bpf::attach(&mut object, programs::COUNT, device)?;
        Ok(Self { object, _link: link })
    }

    /// The data packets of OpenVPN that the server sends to UDP port `port` belong to the load from now on.
    pub fn add_port(&self, port: u16) -> Result<()> {
        bpf::update(&self.object, maps::PORTS, port.into(), &PORT_OPENVPN.to_ne_bytes())
    }

    /// Whatever the server sends to UDP port `port`, keepalives excepted, belongs to the load from now on.
    pub fn add_foreign_port(&self, port: u16) -> Result<()> {
        bpf::update(&self.object, maps::PORTS, port.into(), &PORT_ANY.to_ne_bytes())
    }

    /// What was counted so far.
    pub fn read(&self) -> Result<Counts> {
        let mut total = Counts::default();
        for (class, sum) in (0..).zip(&mut total.0) {
            *sum = bpf::lookup(&self.object, maps::COUNTS, class)?.iter().flatten().sum();
        }
        Ok(total)
    }
}

/// Frames counted, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; CLASSES]);

impl Counts {
    /// Inner frames: a fragmented packet is one.
    pub fn frames(self) -> u64 {
        self.of(Class::Plain) + self.of(Class::Tunnel) + self.of(Class::FirstFragment)
    }

    /// Those of one class.
    pub fn of(self, class: Class) -> u64 {
        self.0.get(class as usize).copied().unwrap_or(0)
    }
}
