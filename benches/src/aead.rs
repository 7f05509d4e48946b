//! One AEAD operation on one frame: what no gateway that encrypts can do without.

use std::hint::black_box;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use openvpn::data::{Cipher, DataChannel, DataKeys, Framing, MAX_OVERHEAD, Profile, Role};
use openvpn::ids::{KeyId, PeerId};
use trestle_tests::{Fault, Result};

use crate::report::grid::AEAD;
use crate::results::{Cell, Direction, Measure, Sample};

/// Operations timed: some 50 ms, long beside the clock's own cost, far below what one key may seal.
const OPERATIONS: u32 = 200_000;
/// Those ahead of them, which find caches and frequency as they are.
const WARM_UP: u32 = 20_000;

/// The cell that [`measure`] makes samples of.
pub fn cell(frame_bytes: u32) -> Cell {
    Cell {
        measure: Measure::Cpu,
        system: AEAD.to_owned(),
        direction: Direction::LanToPeer,
        frame_bytes,
        peers: 1,
        offered_per_second: None,
        load_share: None,
        samples: Vec::new(),
    }
}

/// Seals frames of that length with AES-256-GCM, on the calling thread, within the cache.
///
/// # Errors
/// The frame is shorter than its header, or the kernel does not tell the thread's CPU time.
pub fn measure(round: u32, frame_bytes: u32) -> Result<Sample> {
    let mut channel = channel(frame_bytes as usize)?;
    let frame = vec![2; frame_bytes as usize];
    let mut packet = vec![0; frame.len() + MAX_OVERHEAD];
    let mut seal = |times: u32| {
        (0..times).try_for_each(|_| channel.seal(black_box(&frame), black_box(&mut packet)).map(drop))
    };
    let refused = |error| Fault::other(format!("sealing {frame_bytes} bytes: {error}"));
    seal(WARM_UP).map_err(refused)?;
    let begin = used()?;
    seal(OPERATIONS).map_err(refused)?;
    let used = used()?.saturating_sub(begin);
    Ok(Sample {
        round,
        seconds: used.as_secs_f64(),
        offered_frames: OPERATIONS.into(),
        delivered_frames: OPERATIONS.into(),
        gateway_cpu_ns: u64::try_from(used.as_nanos()).unwrap_or(u64::MAX),
        ..Sample::default()
    })
}

fn channel(max_frame: usize) -> Result<DataChannel> {
    let peer_id = PeerId::new(1).ok_or_else(|| Fault::other("1 is no peer_id"))?;
    let profile = Profile::new(Cipher::Aes256Gcm, Framing::None);
    let mut channel = DataChannel::new(peer_id, profile, max_frame);
    channel.install(KeyId::FIRST, DataKeys::new(profile, Role::Server, &[7; 256]));
    channel.send_with(KeyId::FIRST);
    Ok(channel)
}

/// CPU time of the calling thread.
fn used() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map(Duration::from).map_err(Fault::os("reading a thread's CPU time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::marks::aead_us;
    use crate::results::Report;

    #[test]
    fn an_operation_becomes_a_floor() {
        let mut report = Report::default();
        report.add(cell(60), measure(1, 60).unwrap());
        assert!(aead_us(&report, 60).unwrap() > 0.0);
        assert_eq!(aead_us(&report, 1414), None);
    }
}
