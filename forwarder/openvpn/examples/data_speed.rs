//! How long the data channel takes for one frame: `cargo run --release --example data_speed -p trestle-openvpn`.
//!
//! Every frame is sealed and opened for real, from and into buffers that stay in the cache: the least it can cost.
#![allow(clippy::disallowed_methods, reason = "outside the crate somebody has to read the clock")]

use std::{hint::black_box, time::Instant};

use trestle_openvpn::{
    data::{Cipher, DataChannel, DataKeys, Framing, HEADER, Profile, Role},
    ids::{KeyId, PeerId},
};

/// Packets sealed, then opened, at a time: no more than the worker has in a batch.
const BATCH: usize = 64;
/// Batches in one round.
const BATCHES: usize = 4000;
/// Rounds; the fastest is printed, since the others were disturbed.
const ROUNDS: usize = 5;

fn main() {
    println!("{:>10} {:>6} {:>10} {:>10}", "cipher", "bytes", "seal ns", "open ns");
    for cipher in [Cipher::Aes128Gcm, Cipher::Aes256Gcm] {
        for len in [60, 590, 1400, 1514] {
            let rounds = (0..ROUNDS).map(|_| round(cipher, len));
            let (seal, open) = rounds.fold((f64::MAX, f64::MAX), |a, b| (a.0.min(b.0), a.1.min(b.1)));
            println!("{:>10} {len:>6} {seal:>10.0} {open:>10.0}", format!("{cipher:?}"));
        }
    }
}

/// Nanoseconds a frame of `len` bytes takes to seal and to open.
fn round(cipher: Cipher, len: usize) -> (f64, f64) {
    let (mut client, mut server) = (channel(cipher, Role::Client), channel(cipher, Role::Server));
    let frame = vec![0x02; len];
    let mut packets = vec![[0; 2048]; BATCH];
    let mut out = [0; 2048];
    let mut spent = (0.0, 0.0);
    for _ in 0..BATCHES {
        let start = Instant::now();
        for packet in &mut packets {
            client.seal(black_box(&frame), packet).expect("the packet fits and the key is fresh");
        }
        let sealed = Instant::now();
        for packet in &packets {
            let packet = &packet[..HEADER + len];
            black_box(server.open(packet, &mut out)).expect("the packet is authentic");
        }
        spent.0 += (sealed - start).as_secs_f64();
        spent.1 += sealed.elapsed().as_secs_f64();
    }
    let frames = (BATCH * BATCHES) as f64;
    (spent.0 / frames * 1e9, spent.1 / frames * 1e9)
}

fn channel(cipher: Cipher, role: Role) -> DataChannel {
    let peer_id = PeerId::new(1).expect("it fits 24 bits");
    let profile = Profile::new(cipher, Framing::V2);
    let mut channel = DataChannel::new(peer_id, profile, 1518);
    channel.install(KeyId::FIRST, DataKeys::new(profile, role, &[7; 256]));
    channel.send_with(KeyId::FIRST);
    channel
}
