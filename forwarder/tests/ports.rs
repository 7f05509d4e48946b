//! The XDP program on the ports of a bridge, held by the gateway's own loader, on real interfaces in a namespace of the
//! test's own: frames really cross.
#![allow(clippy::disallowed_methods, reason = "tests begin at some moment")]

mod bench;

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use aya::programs::xdp::XdpLink;
use bench::*;
use common::{
    FdbKey, FdbValue, Mac, Place,
    bridge::{PortValue, port_flag as flag},
};
use nix::{
    libc,
    sys::socket::{self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike},
};
use trestle::{
    switch::WireId,
    xdp::{
        attach::{PortAttachment, XdpChoice, XdpGot},
        programs::Programs,
        refusal::AttachError,
    },
};

/// How long a frame may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const NEAR: Mac = [0x02, 0, 0, 0, 1, 0x01];
const FAR: Mac = [0x02, 0, 0, 0, 2, 0x01];

/// Two ports `p1`, `p2`, whose wires end at `w1`, `w2`. Nothing but XDP joins them.
struct Rig {
    programs: Programs,
    attachments: Vec<PortAttachment>,
    /// A veth takes frames while its far end has a program.
    _far_ends: Vec<XdpLink>,
}

fn wire(number: u16) -> WireId {
    WireId::new(number).expect("there are so many")
}

impl Rig {
    fn new() -> Self {
        enter_namespace();
        let mut programs = Programs::load().unwrap_or_else(|error| panic!("{error}"));
        let (mut attachments, mut far_ends) = (Vec::new(), Vec::new());
        for number in [1, 2] {
            let (port, far) = (format!("p{number}"), format!("w{number}"));
            ip(&format!("link add {port} type veth peer name {far}"));
            // What is in the way of a wire that carries nothing of its own accord.
            for interface in [&port, &far] {
                let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1");
                ip(&format!("link set {interface} up"));
            }
            let attached = programs.attach_port(&port, XdpChoice::Native);
            attachments.push(attached.unwrap_or_else(|error| panic!("{error}")));
            far_ends.push(programs.attach_pass(&far).unwrap_or_else(|error| panic!("{error}")));
        }
        let mut rig = Self { programs, attachments, _far_ends: far_ends };
        for (number, station) in [(1, NEAR), (2, FAR)] {
            let value = FdbValue { place: Place::Wire as u32, port: number.into(), ..Default::default() };
            rig.programs.fdb.insert(FdbKey::new(0, station), value).expect("fdb");
            rig.programs.devmap.set(wire(number), index_of(&format!("p{number}"))).expect("devmap");
            rig.port(number, flag::FROM | flag::TO);
        }
        rig
    }

    fn port(&mut self, number: u16, flags: u32) {
        let ifindex = index_of(&format!("p{number}"));
        let value = PortValue { ifindex, flags, max_frame: 1518, ..Default::default() };
        self.programs.ports.set(wire(number), value).expect("ports");
    }
}

/// Every frame of an interface.
struct Tap(OwnedFd, LinkAddr);

impl Tap {
    fn on(interface: &str) -> Self {
        let (kind, protocol) = (SockType::Raw, socket::SockProtocol::EthAll);
        let fd = socket::socket(AddressFamily::Packet, kind, SockFlag::SOCK_NONBLOCK, protocol);
        let fd = fd.expect("a packet socket");
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: index_of(interface).try_into().expect("small"),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the pointer is to a whole sockaddr_ll, which says so in its family.
        let address = unsafe {
            LinkAddr::from_raw((&raw const address).cast(), Some(size_of_val(&address) as libc::socklen_t))
        };
        let address = address.expect("a link-layer address");
        socket::bind(fd.as_raw_fd(), &address).expect("it binds");
        Self(fd, address)
    }

    fn send(&self, frame: &[u8]) {
        socket::sendto(self.0.as_raw_fd(), frame, &self.1, MsgFlags::empty()).expect("it is sent");
    }

    /// The next frame that is one of `frames`.
    fn next_of(&self, frames: &[&[u8]]) -> Option<Vec<u8>> {
        let (deadline, mut room) = (Instant::now() + PATIENCE, [0; 4096]);
        while Instant::now() < deadline {
            match socket::recv(self.0.as_raw_fd(), &mut room, MsgFlags::empty()) {
                Ok(length) if frames.contains(&&room[..length]) => return Some(room[..length].to_vec()),
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }
}

macro_rules! needs_privileges {
    ($name:literal) => {
        if !privileged($name) {
            return;
        }
    };
}

#[test]
fn frames_of_learnt_stations_cross_and_all_others_stay_on_their_port() {
    needs_privileges!("frames_of_learnt_stations_cross_and_all_others_stay_on_their_port");
    let mut rig = Rig::new();
    assert!(rig.attachments.iter().all(|one| one.xdp() == XdpGot::Native));
    let (near, far, bridge) = (Tap::on("w1"), Tap::on("w2"), Tap::on("p1"));
    let marked = |to, from, mark| ethernet(to, from, &[], 0x88b5, &[mark; 1500]);
    // Sent in this order; what passes is seen by the stack of the port, where a bridge would be.
    let (known, unknown) = (marked(FAR, NEAR, 1), marked(STRANGER, NEAR, 2));
    let (broadcast, last) = (marked(BROADCAST, NEAR, 3), marked(FAR, NEAR, 4));
    let all = [&known[..], &unknown, &broadcast, &last];
    all.iter().for_each(|frame| near.send(frame));
    assert_eq!(far.next_of(&all).as_deref(), Some(&known[..]));
    assert_eq!(far.next_of(&all).as_deref(), Some(&last[..]), "and nothing between");
    assert_eq!(bridge.next_of(&all).as_deref(), Some(&unknown[..]));
    assert_eq!(bridge.next_of(&all).as_deref(), Some(&broadcast[..]));
    let counted = rig.programs.port_counts.read(wire(1)).expect("counters");
    assert_eq!((counted.frames_to_ports, counted.bytes_to_ports), (2, 2 * 1514));
    // The other way, and then no more.
    let answer = marked(NEAR, FAR, 5);
    far.send(&answer);
    assert_eq!(near.next_of(&[&answer]).as_deref(), Some(&answer[..]));
    rig.programs.ports.clear(wire(1)).expect("ports");
    let (refused, bridge) = (marked(NEAR, FAR, 6), Tap::on("p2"));
    far.send(&refused);
    assert_eq!(bridge.next_of(&[&refused]).as_deref(), Some(&refused[..]));
}

#[test]
fn a_frame_too_long_for_the_other_port_is_not_lost_in_silence() {
    needs_privileges!("a_frame_too_long_for_the_other_port_is_not_lost_in_silence");
    let _rig = Rig::new();
    for interface in ["w1", "p1"] {
        ip(&format!("link set {interface} mtu 2000"));
    }
    let (near, far, bridge) = (Tap::on("w1"), Tap::on("w2"), Tap::on("p1"));
    let sized = |length: usize| ethernet(FAR, NEAR, &[], 0x88b5, &vec![7; length - 14]);
    // What the far port takes besides its MTU: an Ethernet header and a tag.
    let (longest, longer) = (sized(1518), sized(1519));
    near.send(&longer);
    near.send(&longest);
    assert_eq!(bridge.next_of(&[&longer, &longest]).as_deref(), Some(&longer[..]));
    assert_eq!(far.next_of(&[&longer, &longest]).as_deref(), Some(&longest[..]));
}

#[test]
fn a_device_that_goes_leaves_its_frames_to_the_bridge() {
    needs_privileges!("a_device_that_goes_leaves_its_frames_to_the_bridge");
    let _rig = Rig::new();
    let (near, bridge) = (Tap::on("w1"), Tap::on("p1"));
    ip("link del p2");
    let frame = plain(FAR, NEAR);
    near.send(&frame);
    assert_eq!(bridge.next_of(&[&frame]).as_deref(), Some(&frame[..]));
}

#[test]
fn frames_of_a_stack_that_leaves_checksums_unfinished_do_not_cross() {
    needs_privileges!("frames_of_a_stack_that_leaves_checksums_unfinished_do_not_cross");
    let mut rig = Rig::new();
    rig.port(1, flag::FROM | flag::TO | flag::UNFINISHED);
    ip(&format!("link set w1 address {}", shown(NEAR)));
    ip("addr add 192.0.2.1/24 dev w1");
    ip(&format!("neigh add 192.0.2.2 lladdr {} dev w1", shown(FAR)));
    let sender = std::net::UdpSocket::bind("192.0.2.1:0").expect("a socket");
    let (far, bridge) = (Tap::on("w2"), Tap::on("p1"));
    let first_of = |tap: &Tap| {
        let (deadline, mut room) = (Instant::now() + PATIENCE, [0; 4096]);
        while Instant::now() < deadline {
            match socket::recv(tap.0.as_raw_fd(), &mut room, MsgFlags::empty()) {
                Ok(length) if room[12..14] == [8, 0] => return room[42..length].to_vec(),
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        panic!("nothing came")
    };
    sender.send_to(b"unfinished", "192.0.2.2:9").expect("it is sent");
    assert_eq!(first_of(&bridge), b"unfinished");
    // As `ethtool -K w1 tx off` has it: the stack sums them itself.
    let off =
        std::process::Command::new("ethtool").args(["-K", "w1", "tx", "off"]).output().expect("ethtool");
    assert!(off.status.success());
    sender.send_to(b"finished", "192.0.2.2:9").expect("it is sent");
    assert_eq!(first_of(&far), b"finished");
}

fn shown(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[test]
fn a_port_that_is_none_and_one_with_another_owner_are_named() {
    needs_privileges!("a_port_that_is_none_and_one_with_another_owner_are_named");
    let mut rig = Rig::new();
    let error = rig.programs.attach_port("none0", XdpChoice::Auto).expect_err("there is none");
    assert!(matches!(error, AttachError::NoInterface { .. }), "{error}");
    let error = rig.programs.attach_port("w1", XdpChoice::Auto).expect_err("it has a program");
    assert!(matches!(error, AttachError::Occupied { .. }), "{error}");
    rig.attachments.clear();
    let deadline = Instant::now() + PATIENCE;
    let again = loop {
        match rig.programs.attach_port("p1", XdpChoice::Generic) {
            // What another test starts holds our descriptors until it is executed.
            Err(AttachError::Occupied { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            outcome => break outcome.unwrap_or_else(|error| panic!("{error}")),
        }
    };
    assert_eq!(again.xdp(), XdpGot::Generic);
}
