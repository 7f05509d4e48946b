//! What an authentic peer with `fragment` may send: arbitrary plaintexts in a row, and sound parts in any order.
//!
//! An input is a byte that chooses framing and sizes, and records.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openvpn::{
    data::{Cipher, DataChannel, DataKeys, Framing, MAX_OVERHEAD, Opened, Profile, Role},
    ids::{KeyId, PeerId},
};

const MAX_FRAME: usize = 1518;
/// Plaintexts are not longer: as much as comes in one packet.
const LONGEST: usize = 1900;
/// Frames that are always put together, however mixed up.
const TOGETHER: usize = 16;

fuzz_target!(|input: &[u8]| {
    let Some((&shape, records)) = input.split_first() else { return };
    let framing = [Framing::None, Framing::V2, Framing::Prefixed, Framing::Swapped][usize::from(shape & 3)];
    let profile = Profile {
        compresses: shape & 4 != 0,
        fragment: Some(100 + u16::from(shape >> 4) * 100),
        ..Profile::new(Cipher::Aes256Gcm, framing)
    };
    if shape & 8 == 0 {
        arbitrary_plaintexts(profile, records);
    } else {
        sound_parts(profile, records);
    }
});

/// Whatever comes, nothing longer than a frame is opened.
fn arbitrary_plaintexts(profile: Profile, records: &[u8]) {
    let mut server = channel(Role::Server, profile);
    let mut client = channel(Role::Client, Profile::new(Cipher::Aes256Gcm, Framing::None));
    for (_, plaintext) in trestle_fuzz::records(records).take(200) {
        let plaintext = plaintext.get(..LONGEST).unwrap_or(plaintext);
        if let Some(frame) =
            seal_all(&mut client, plaintext).first().and_then(|packet| open(&mut server, packet))
        {
            assert!((14..=MAX_FRAME).contains(&frame.len()));
        }
    }
}

/// Frames cut and delivered in an order of the input's: each comes out once, as it was.
fn sound_parts(profile: Profile, records: &[u8]) {
    let (mut server, mut client) = (channel(Role::Server, profile), channel(Role::Client, profile));
    let (mut sent, mut packets, mut order) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, bytes) in trestle_fuzz::records(records).take(TOGETHER) {
        let frame = grown(bytes, sent.len());
        packets.extend(seal_all(&mut client, &frame));
        order.push(usize::from(kind));
        sent.push(frame);
    }
    let mut came = Vec::new();
    for at in 0.. {
        if packets.is_empty() {
            break;
        }
        let packet = packets.swap_remove(order[at % order.len()] % packets.len());
        came.extend(open(&mut server, &packet));
    }
    sent.sort();
    came.sort();
    assert_eq!(came, sent);
}

/// A frame of a length and with bytes that the input chooses; `number` tells it from others and from messages.
fn grown(bytes: &[u8], number: usize) -> Vec<u8> {
    let len = bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>() % (MAX_FRAME - 14);
    let first = bytes.first().copied().unwrap_or(2);
    let head = [&[first, number as u8][..], &[0xee; 12]].concat();
    head.into_iter().chain(bytes.iter().copied().cycle().take(len)).collect()
}

fn open(channel: &mut DataChannel, packet: &[u8]) -> Option<Vec<u8>> {
    let mut out = [0; 2048];
    match channel.open(packet, &mut out) {
        Ok(Opened::Frame { len }) => Some(out[..len].to_vec()),
        _ => None,
    }
}

fn seal_all(channel: &mut DataChannel, frame: &[u8]) -> Vec<Vec<u8>> {
    let mut out = vec![0; frame.len() + MAX_OVERHEAD];
    let mut packets = Vec::new();
    let mut sealed = Some(channel.seal(frame, &mut out));
    while let Some(len) = sealed {
        let len = len.expect("a key is there, and a frame has no more than 32 parts");
        packets.push(out[..len].to_vec());
        sealed = channel.seal_rest(&mut out);
    }
    packets
}

fn channel(role: Role, profile: Profile) -> DataChannel {
    let peer_id = PeerId::new(1).expect("it fits 24 bits");
    let mut channel = DataChannel::new(peer_id, profile, MAX_FRAME);
    channel.install(KeyId::FIRST, DataKeys::new(profile, role, &[7; 256]));
    channel.send_with(KeyId::FIRST);
    channel
}
