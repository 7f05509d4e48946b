use aya::{
    Ebpf,
    maps::{MapData, XskMap},
    programs::{Xdp, XdpMode},
};
use crossbeam::channel::{Receiver, unbounded};

use super::*;
use crate::{
    ports::{
        memory::{MemoryPort, wire},
        own_memory::OwnMemory,
        testing::{Station, assert_same, frames_of, in_namespace, ip, numbered, programs},
        xsk::XskPort,
    },
    xdp::frames::SMALL_CHUNK_BYTES,
};

fn id(number: u16) -> WireId {
    WireId::new(number).unwrap()
}

struct Bench {
    nics: Nics,
    frames: Frames,
    drops: Arc<DropCounters>,
    removed: Receiver<NewNic>,
}

impl Bench {
    fn new() -> Self {
        let (sender, removed) = unbounded();
        let drops = Arc::new(DropCounters::default());
        let nics = Nics::new(sender, Arc::clone(&drops)).unwrap();
        Self { nics, frames: Frames::in_memory(256, 2048), drops, removed }
    }

    fn add_memory(&mut self, number: u16) -> MemoryPort {
        let (near, far) = wire(64, &self.drops);
        self.nics.add(NewNic { wire: id(number), port: Box::new(near) });
        far
    }

    /// A queue of a veth whose frames are all steered to it, and what stands at the far end.
    fn add_veth(&mut self, number: u16) -> Option<(Station, Ebpf)> {
        let (near, far) = (format!("near{number}"), format!("far{number}"));
        ip(&format!("link add {near} type veth peer name {far}"));
        for name in [&near, &far] {
            ip(&format!("link set {name} addrgenmode none up"));
        }
        let mut programs = programs()?;
        let steer: &mut Xdp = programs.program_mut("steer").unwrap().try_into().unwrap();
        steer.load().unwrap();
        steer.attach(&near, XdpMode::Driver).unwrap();
        let mut frames = Frames::for_nic(512, SMALL_CHUNK_BYTES, false).unwrap();
        let port = XskPort::open(&mut frames, &near, 0, false, Arc::clone(&self.drops)).unwrap();
        let mut sockets: XskMap<&mut MapData> = programs.map_mut("sockets").unwrap().try_into().unwrap();
        sockets.set(0, port.fd(), 0).unwrap();
        let port = Box::new(OwnMemory::new(port, frames, Arc::clone(&self.drops)));
        self.nics.add(NewNic { wire: id(number), port });
        Some((Station::on(&far), programs))
    }

    fn send(&mut self, number: u16, contents: &[&[u8]]) {
        let mut queue = frames_of(&mut self.frames, contents);
        queue.iter_mut().for_each(|frame| frame.set_wire(id(number)));
        self.nics.transmit(&mut self.frames, &mut queue);
        self.nics.wake(&mut self.frames);
    }

    /// What comes until `count` are there or two seconds have passed, with the wires it came by.
    fn receive(&mut self, count: usize) -> Vec<(u16, Vec<u8>)> {
        let (mut seen, mut batch) = (Vec::new(), Vec::new());
        for _ in 0..2000 {
            self.nics.receive(&mut self.frames, &mut batch, 64);
            for frame in batch.drain(..) {
                seen.push((frame.wire().number(), self.frames.bytes(&frame).to_vec()));
                self.frames.put(frame);
            }
            self.nics.wake(&mut self.frames);
            if seen.len() >= count {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(self.frames.free(), self.frames.total());
        seen
    }
}

/// Whether a queue can be bound within two seconds: the kernel lets go of one in its own time (`xp_release_deferred`).
fn is_free(nic: &str) -> bool {
    (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let mut frames = Frames::for_nic(64, SMALL_CHUNK_BYTES, false).unwrap();
        XskPort::open(&mut frames, nic, 0, false, Arc::default()).is_ok()
    })
}

#[test]
fn frames_say_by_which_wire_they_came_and_leave_by_the_one_they_name() {
    let mut bench = Bench::new();
    let (one, two) = (bench.add_memory(1), bench.add_memory(200));
    assert!(one.send(b"by one") && two.send(b"by two"));
    let mut seen = bench.receive(2);
    seen.sort();
    assert_eq!(seen, [(1, b"by one".to_vec()), (200, b"by two".to_vec())]);
    bench.send(200, &[b"to two"]);
    bench.send(1, &[b"to one"]);
    assert_eq!((one.next(), two.next()), (Some(b"to one".to_vec()), Some(b"to two".to_vec())));
    bench.send(7, &[b"to nobody"]);
    assert_eq!(bench.drops.get(Drop::WireGone), 1);
}

#[test]
fn no_wire_starves_another_that_always_fills_the_batch() {
    let mut bench = Bench::new();
    let (one, two) = (bench.add_memory(1), bench.add_memory(2));
    let mut received = Vec::new();
    for _ in 0..2 {
        (0..8).for_each(|_| assert!(one.send(b"one") && two.send(b"two")));
        bench.nics.receive(&mut bench.frames, &mut received, 8);
    }
    let by = |number| received.iter().filter(|frame| frame.wire() == id(number)).count();
    assert_eq!((by(1), by(2)), (8, 8));
}

#[test]
fn a_wire_with_two_queues_sends_by_one_and_goes_with_both() {
    let mut bench = Bench::new();
    let (one, two, other) = (bench.add_memory(1), bench.add_memory(1), bench.add_memory(2));
    bench.send(1, &[b"once"]);
    assert_eq!((one.next(), two.next()), (Some(b"once".to_vec()), None));
    bench.nics.remove(id(1));
    assert_eq!(bench.removed.try_iter().count(), 2);
    assert!(!bench.nics.serves(id(1)) && bench.nics.serves(id(2)));
    bench.send(2, &[b"other"]);
    assert_eq!(other.next(), Some(b"other".to_vec()));
}

#[test]
fn queues_of_real_nics_come_and_go_without_losing_memory() {
    in_namespace(|| {
        let mut bench = Bench::new();
        let Some((first, _first)) = bench.add_veth(1) else { return };
        let Some((second, _second)) = bench.add_veth(2) else { return };
        let sent: Vec<Vec<u8>> = (0..100).map(|number| numbered(number, 200)).collect();
        let slices: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
        bench.send(2, &slices);
        assert_same(&second.receive(100), &sent);
        assert!(slices.iter().all(|frame| first.send(frame)));
        let seen = bench.receive(100);
        assert!(seen.iter().all(|(wire, _)| *wire == 1), "{seen:?}");
        assert_same(&seen.into_iter().map(|(_, frame)| frame).collect::<Vec<_>>(), &sent);
        // In the rings of one that goes, frames may be waiting both ways.
        assert!(slices.iter().all(|frame| first.send(frame)));
        bench.nics.remove(id(1));
        drop(bench.removed.try_recv().unwrap());
        assert!(is_free("near1"), "the queue is another socket's to have");
        let Some((third, _third)) = bench.add_veth(3) else { return };
        bench.send(3, &slices[..10]);
        assert_same(&third.receive(10), &sent[..10]);
        assert_eq!(bench.nics.held(), 0);
    });
}
