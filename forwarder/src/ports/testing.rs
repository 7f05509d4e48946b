//! For tests: a network namespace of one's own, and frames to send through it.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc::ETH_P_ALL,
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
    },
};

use super::{Frame, Frames, Port};
use crate::xdp::sys;

/// Runs `test` on a thread with a network namespace of its own, which goes with it. Without the privilege the test is
/// skipped, loudly. Fails where `test` panics.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let name = thread::current().name().unwrap_or("?").to_owned();
    let inside = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED {name}: a network namespace needs root ({error})");
            return;
        }
        ip("link set lo up");
        test();
    };
    if let Err(panic) = thread::spawn(inside).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these words, in the namespace of the calling thread.
pub fn ip(words: &str) {
    run("ip", words);
}

/// Runs a program with these words, in the namespace of the calling thread, and returns what it wrote.
pub fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split_whitespace()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {words}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Two interfaces `near` and `far` joined by a wire, up.
pub fn veth_pair() {
    ip("link add near type veth peer name far");
    for name in ["near", "far"] {
        ip(&format!("link set {name} addrgenmode none"));
        ip(&format!("link set {name} up"));
    }
}

/// What a kernel says unasked as soon as an interface is up: IPv6 to a group.
fn is_chatter(frame: &[u8]) -> bool {
    frame.starts_with(&[0x33, 0x33])
}

/// Memory with a frame for each of `contents`.
pub fn frames_of(frames: &mut Frames, contents: &[&[u8]]) -> Vec<Frame> {
    let fill = |bytes: &&[u8]| {
        let mut frame = frames.take().unwrap();
        frames.room(&mut frame)[..bytes.len()].copy_from_slice(bytes);
        frames.set_len(&mut frame, bytes.len());
        frame
    };
    contents.iter().map(fill).collect()
}

/// Turns `port` until `count` frames have come or two seconds have passed, and returns what they hold. Their memory is
/// given back.
pub fn receive(port: &mut impl Port, frames: &mut Frames, count: usize) -> Vec<Vec<u8>> {
    let end = Instant::now() + Duration::from_secs(2);
    let mut received = Vec::new();
    let mut seen = Vec::new();
    let mut is_late = false;
    // On a busy machine the time may have passed between two looks: the last one comes after it.
    while seen.len() < count && !is_late {
        is_late = Instant::now() >= end;
        port.receive(frames, &mut received, super::BATCH);
        port.wake(frames);
        for frame in received.drain(..) {
            seen.push(frames.bytes(&frame).to_vec());
            frames.put(frame);
        }
        seen.retain(|frame| !is_chatter(frame));
        thread::sleep(Duration::from_micros(200));
    }
    seen
}

/// Sends `contents` through `port`.
pub fn transmit(port: &mut impl Port, frames: &mut Frames, contents: &[&[u8]]) {
    let mut queue = frames_of(frames, contents);
    port.transmit(frames, &mut queue);
    assert!(queue.is_empty());
    port.wake(frames);
}

/// The number of an interface's `ip -d link` output that follows `word`.
pub fn link_number(name: &str, word: &str) -> u32 {
    let text = run("ip", &format!("-d link show {name}"));
    let mut words = text.split_whitespace().skip_while(|seen| *seen != word);
    words.nth(1).unwrap().parse().unwrap()
}

/// What stands at the other end of a wire: a packet socket that sends and sees whole frames.
pub struct Station(OwnedFd);

impl Station {
    /// On that interface.
    pub fn on(interface: &str) -> Self {
        let flags = SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
        setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).unwrap();
        sys::bind_packet_socket(socket.as_fd(), if_nametoindex(interface).unwrap(), ETH_P_ALL as u16)
            .unwrap();
        Self(socket)
    }

    /// Sends one frame. False if it is lost on its way out.
    pub fn send(&self, frame: &[u8]) -> bool {
        loop {
            match send(self.0.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return true,
                Err(Errno::ENOBUFS) => return false,
                Err(error) => assert_eq!(error, Errno::EAGAIN),
            }
        }
    }

    /// One frame that has arrived.
    pub fn next(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        let len = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        Some(buffer[..len].to_vec())
    }

    /// The frames that arrive until there are `count` or two seconds have passed.
    pub fn receive(&self, count: usize) -> Vec<Vec<u8>> {
        let end = Instant::now() + Duration::from_secs(2);
        let mut seen = Vec::new();
        while seen.len() < count && Instant::now() < end {
            match self.next() {
                Some(frame) if is_chatter(&frame) => {}
                Some(frame) => seen.push(frame),
                None => thread::sleep(Duration::from_micros(200)),
            }
        }
        seen
    }
}

/// The programs of `testing.bpf.c`, loaded; `None`, loudly, without clang or the privilege.
pub fn programs() -> Option<aya::Ebpf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ports/testing.bpf.c");
    let object = std::env::temp_dir().join(format!("trestle-testing-{:?}.o", thread::current().id()));
    let clang =
        Command::new("clang").args(["-O2", "-g", "-target", "bpf", "-c", source, "-o"]).arg(&object).status();
    if !clang.is_ok_and(|code| code.success()) {
        eprintln!("SKIPPED: clang, which makes the programs for tests, is missing");
        return None;
    }
    let loaded = aya::Ebpf::load(&std::fs::read(&object).unwrap());
    std::fs::remove_file(object).unwrap();
    loaded.inspect_err(|error| eprintln!("SKIPPED: no programs can be loaded: {error}")).ok()
}

/// Fails where frames that came differ from those sent, and says which, not all.
pub fn assert_same(seen: &[Vec<u8>], sent: &[Vec<u8>]) {
    for (number, (seen, sent)) in seen.iter().zip(sent).enumerate() {
        assert!(
            seen == sent,
            "frame {number}: {} bytes came, {} were sent: {seen:02x?}",
            seen.len(),
            sent.len()
        );
    }
    assert_eq!(seen.len(), sent.len(), "frames that came, and that were sent");
}

/// A frame of no known EtherType, `len` bytes long, that carries `number`.
pub fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![number as u8; len];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}
