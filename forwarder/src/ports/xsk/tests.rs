use aya::{
    Ebpf,
    maps::{MapData, XskMap},
    programs::{Xdp, XdpMode},
};

use super::*;
use crate::{
    ports::{
        BATCH,
        testing::{
            Station, assert_same, frames_of, in_namespace, ip, numbered, programs, receive, transmit,
            veth_pair,
        },
    },
    xdp::frames::SMALL_CHUNK_BYTES,
};

/// A veth whose near end has an AF_XDP port on its one queue, all frames steered there.
struct Bench {
    frames: Frames,
    port: XskPort,
    drops: Arc<DropCounters>,
    far: Station,
    _programs: Ebpf,
}

impl Bench {
    fn new(flags: XdpMode) -> Option<Self> {
        veth_pair();
        let mut programs = programs()?;
        let steer: &mut Xdp = programs.program_mut("steer").unwrap().try_into().unwrap();
        steer.load().unwrap();
        steer.attach("near", flags).unwrap();
        let mut frames = Frames::for_nic(3 * RING, SMALL_CHUNK_BYTES, false).unwrap();
        let drops = Arc::new(DropCounters::default());
        let port = XskPort::open(&mut frames, "near", 0, false, Arc::clone(&drops)).unwrap();
        let mut sockets: XskMap<&mut MapData> = programs.map_mut("sockets").unwrap().try_into().unwrap();
        sockets.set(0, port.fd(), 0).unwrap();
        Some(Self { frames, port, drops, far: Station::on("far"), _programs: programs })
    }

    fn conserves(&self) {
        assert_eq!(self.frames.free() + self.port.held(), self.frames.total());
    }
}

/// Frames of all lengths, `count` of them.
fn of_all_lengths(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| numbered(number, 60 + number as usize * 7 % 1455)).collect()
}

fn slices(frames: &[Vec<u8>]) -> Vec<&[u8]> {
    frames.iter().map(Vec::as_slice).collect()
}

#[test]
fn frames_arrive_whole_and_in_order_more_than_a_ring_of_them() {
    for flags in [XdpMode::Driver, XdpMode::Skb] {
        in_namespace(move || {
            let Some(mut bench) = Bench::new(flags) else { return };
            assert_eq!(bench.port.mode(), XskMode::Copy);
            let sent = of_all_lengths(3 * RING);
            let mut seen = Vec::new();
            for burst in sent.chunks(500) {
                assert!(burst.iter().all(|frame| bench.far.send(frame)));
                seen.extend(receive(&mut bench.port, &mut bench.frames, burst.len()));
                bench.conserves();
            }
            assert_same(&seen, &sent);
            assert_eq!(bench.port.missed(), 0);
        });
    }
}

#[test]
fn frames_leave_whole_and_in_order_more_than_a_ring_of_them() {
    for flags in [XdpMode::Driver, XdpMode::Skb] {
        in_namespace(move || {
            let Some(mut bench) = Bench::new(flags) else { return };
            let sent = of_all_lengths(3 * RING);
            let mut seen = Vec::new();
            for burst in sent.chunks(300) {
                transmit(&mut bench.port, &mut bench.frames, &slices(burst));
                seen.extend(bench.far.receive(burst.len()));
                bench.conserves();
            }
            assert_same(&seen, &sent);
            assert_eq!(bench.drops.get(Drop::TransmitQueueFull), 0);
            bench.port.wake(&mut bench.frames);
            assert!(!bench.port.has_leftovers());
            assert_eq!(bench.port.rings.sending(), 0, "all memory has come back");
        });
    }
}

#[test]
fn a_short_frame_is_padded_and_what_is_no_frame_counted() {
    in_namespace(|| {
        let Some(mut bench) = Bench::new(XdpMode::Driver) else { return };
        let dirty = numbered(0xffff_ffff, 1514);
        transmit(&mut bench.port, &mut bench.frames, &[&dirty, &dirty]);
        bench.port.wake(&mut bench.frames);
        transmit(&mut bench.port, &mut bench.frames, &[&[9; 14], &[9; 13], &[]]);
        let seen = bench.far.receive(3);
        assert_eq!(seen[2], [&[9; 14][..], &[0; 46]].concat());
        assert_eq!((seen.len(), bench.drops.get(Drop::FrameMalformed)), (3, 2));
        bench.conserves();
    });
}

#[test]
fn frames_too_many_for_the_ring_are_sent_as_far_as_it_goes_and_none_is_lost_without_a_name() {
    in_namespace(|| {
        let Some(mut bench) = Bench::new(XdpMode::Driver) else { return };
        // All the memory at once, without a turn between.
        let count = bench.frames.free();
        let contents: Vec<_> = (0..count as u32).map(|number| numbered(number, 60)).collect();
        let mut queue = frames_of(&mut bench.frames, &slices(&contents));
        bench.port.transmit(&mut bench.frames, &mut queue);
        assert!(queue.is_empty());
        bench.port.wake(&mut bench.frames);
        let seen = bench.far.receive(count).len() as u64;
        assert!(seen >= u64::from(RING));
        assert_eq!(seen + bench.drops.get(Drop::TransmitQueueFull), count as u64);
        bench.conserves();
    });
}

#[test]
fn an_interface_that_goes_down_or_away_is_no_panic_and_no_memory_is_lost() {
    in_namespace(|| {
        let Some(mut bench) = Bench::new(XdpMode::Driver) else { return };
        let frame = numbered(1, 100);
        let mut received = Vec::new();
        for event in ["link set near down", "link del near"] {
            ip(event);
            for _ in 0..100 {
                transmit(&mut bench.port, &mut bench.frames, &[frame.as_slice(); BATCH]);
                bench.port.receive(&mut bench.frames, &mut received, BATCH);
                bench.conserves();
                assert!(!bench.port.has_leftovers(), "no reason to ask again at once: {event}");
            }
        }
        assert!(received.is_empty());
        assert!(bench.drops.get(Drop::TransmitQueueFull) > 0, "the ring is full, and that is counted");
    });
}

#[test]
fn memory_is_never_all_lent_for_receiving() {
    in_namespace(|| {
        veth_pair();
        let Ok(mut frames) = Frames::for_nic(1024, SMALL_CHUNK_BYTES, false) else {
            return eprintln!("SKIPPED: AF_XDP needs root");
        };
        let port = XskPort::open(&mut frames, "near", 0, true, Arc::default()).unwrap();
        assert_eq!((port.held(), frames.free()), (512, 512));
    });
}

#[test]
fn why_a_queue_cannot_be_had_is_said_in_words() {
    in_namespace(|| {
        veth_pair();
        let memory = || Frames::for_nic(64, SMALL_CHUNK_BYTES, false);
        let Ok(mut frames) = memory() else { return eprintln!("SKIPPED: AF_XDP needs root") };
        let mut error = |nic: &str, queue| {
            XskPort::open(&mut frames, nic, queue, false, Arc::default()).unwrap_err().to_string()
        };
        assert!(error("nosuchnic", 0).contains("no interface of that name"), "{}", error("nosuchnic", 0));
        assert!(error("near", 7).contains("no such queue"), "{}", error("near", 7));

        let mut other = memory().unwrap();
        let _holder = XskPort::open(&mut other, "near", 0, false, Arc::default()).unwrap();
        let busy = error("near", 0);
        assert!(busy.contains("queue 0 of near") && busy.contains("another AF_XDP socket"), "{busy}");
        let plain =
            XskPort::open(&mut Frames::in_memory(8, 1792), "near", 0, false, Arc::default()).unwrap_err();
        assert!(plain.to_string().contains("plain memory"), "{plain}");
    });
}

#[test]
fn two_ports_share_a_worker_s_memory() {
    in_namespace(|| {
        let Some(mut bench) = Bench::new(XdpMode::Driver) else { return };
        let mut second = XskPort::open(&mut bench.frames, "far", 0, false, Arc::clone(&bench.drops)).unwrap();
        let sent = of_all_lengths(500);
        transmit(&mut second, &mut bench.frames, &slices(&sent));
        assert_same(&receive(&mut bench.port, &mut bench.frames, 500), &sent);
        second.wake(&mut bench.frames);
        assert_eq!(bench.frames.free() + bench.port.held() + second.held(), bench.frames.total());
    });
}

#[test]
fn system_calls_are_fewer_than_one_for_sixteen_frames_in_batches() {
    in_namespace(|| {
        let Some(mut bench) = Bench::new(XdpMode::Driver) else { return };
        let batch: Vec<_> = (0..BATCH as u32).map(|number| numbered(number, 1414)).collect();
        let before = bench.port.kicks();
        for _ in 0..16 {
            // The way of a turn: what has come is taken, a batch is sent, then the kernel is asked to.
            assert!(batch.iter().all(|frame| bench.far.send(frame)));
            assert_eq!(receive(&mut bench.port, &mut bench.frames, BATCH).len(), BATCH);
            transmit(&mut bench.port, &mut bench.frames, &slices(&batch));
            assert_eq!(bench.far.receive(BATCH).len(), BATCH);
        }
        let (kicks, sent) = (bench.port.kicks() - before, 16 * BATCH as u64);
        assert!(kicks > 0, "sending needs a system call");
        // Of frames sent alone: those received cost none. In copy mode one kick sends 32.
        assert!(kicks * 16 < sent, "{kicks} system calls for {sent} frames sent");
    });
}
