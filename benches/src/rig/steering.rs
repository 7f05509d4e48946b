use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_rs::{Link, Object};
use trestle_tests::Result;

use super::{
    bpf,
    shared::{maps, programs},
};

/// Gives the load's plain frames to an AF_XDP socket, and passes the rest. Detached when dropped.
#[derive(Debug)]
pub struct Steering {
    _object: Object,
    _link: Link,
}

impl Steering {
    /// What `device` receives on `queue` goes to `socket` from now on.
    pub fn attach(device: &str, queue: u32, socket: BorrowedFd<'_>) -> Result<Self> {
        let mut object = bpf::load(bpf::open()?)?;
        bpf::update(&object, maps::XSKS, queue, &socket.as_raw_fd().to_ne_bytes())?;
        let link = bpf::attach(&mut object, programs::STEER, device)?;
        Ok(Self { _object: object, _link: link })
    }
}
