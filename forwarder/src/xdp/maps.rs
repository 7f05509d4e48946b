//! The maps the eBPF programs and the gateway share, each with the words of [`common`].
//!
//! One type a map, each the only handle on it, so that the control thread can lend one out without the others. Updates
//! are system calls on descriptors opened before privileges were dropped; CAP_BPF is what they ask for.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::maps::{Array, HashMap, MapData, MapError as AyaError, PerCpuArray, RingBuf, XskMap};
use common::{FdbKey, FdbValue, ListenerKey, ListenerKeyV6, QUEUES, Settings, SourceEvent, Verdict};
use nix::time::{ClockId, clock_gettime};

use crate::switch::WireId;

/// What XDP is told of the ports of a kernel bridge, and what it tells of them.
pub mod ports;

/// What the kernel said to an operation on a map.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// No room for another entry.
    #[error("the {map} is full")]
    Full {
        /// Which map.
        map: &'static str,
    },
    /// The NIC has more receive queues than there are workers for.
    #[error(
        "receive queue {queue} is above the highest one served, {}: give the NIC fewer queues with `ethtool -L`",
        QUEUES - 1
    )]
    Queue {
        /// The queue's number.
        queue: u32,
    },
    /// All else.
    #[error("the kernel refused to {action} the {map}: {cause}")]
    Refused {
        /// "read" or "write".
        action: &'static str,
        /// Which map.
        map: &'static str,
        /// What it said.
        cause: String,
    },
}

/// Forwarding database: where stations stand. At most [`common::FDB_ENTRIES`].
pub struct Fdb(pub(super) HashMap<MapData, [u8; FdbKey::SIZE], [u8; FdbValue::SIZE]>);

impl Fdb {
    const NAME: &str = "forwarding database";

    /// Enters a station, or overwrites its entry.
    pub fn insert(&mut self, key: FdbKey, value: FdbValue) -> Result<(), MapError> {
        self.0.insert(key.to_bytes(), value.to_bytes(), 0).map_err(|error| failed("write", Self::NAME, error))
    }

    /// Forgets a station; `false` if it was not known.
    pub fn remove(&mut self, key: FdbKey) -> Result<bool, MapError> {
        found(self.0.remove(&key.to_bytes())).map_err(|error| failed("write", Self::NAME, error))
    }

    /// A station's entry, with the time it was last heard on the wire.
    pub fn value(&self, key: FdbKey) -> Result<Option<FdbValue>, MapError> {
        match self.0.get(&key.to_bytes(), 0) {
            Ok(bytes) => Ok(Some(FdbValue::from_bytes(bytes))),
            Err(AyaError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("read", Self::NAME, error)),
        }
    }

    /// All entries, in no order. An entry removed meanwhile may make the walk start over, and show some twice.
    pub fn entries(&self) -> impl Iterator<Item = Result<(FdbKey, FdbValue), MapError>> + '_ {
        self.0.iter().map(|entry| match entry {
            Ok((key, value)) => Ok((FdbKey::from_bytes(key), FdbValue::from_bytes(value))),
            Err(error) => Err(failed("read", Self::NAME, error)),
        })
    }
}

/// Where tunnel packets are addressed to. At most [`common::LISTENERS`] of each family.
pub struct Listeners {
    pub(super) v4: HashMap<MapData, [u8; ListenerKey::SIZE], u32>,
    pub(super) v6: HashMap<MapData, [u8; ListenerKeyV6::SIZE], u32>,
}

impl Listeners {
    const NAME: &str = "set of listeners";

    /// Steers data packets for this address and port to the workers.
    pub fn insert(&mut self, at: SocketAddr) -> Result<(), MapError> {
        let inserted = match at {
            SocketAddr::V4(at) => self.v4.insert(key_v4(at), 1, 0),
            SocketAddr::V6(at) => self.v6.insert(key_v6(at), 1, 0),
        };
        inserted.map_err(|error| failed("write", Self::NAME, error))
    }

    /// Leaves them to the kernel again; `false` if they were.
    pub fn remove(&mut self, at: SocketAddr) -> Result<bool, MapError> {
        let removed = match at {
            SocketAddr::V4(at) => self.v4.remove(&key_v4(at)),
            SocketAddr::V6(at) => self.v6.remove(&key_v6(at)),
        };
        found(removed).map_err(|error| failed("write", Self::NAME, error))
    }
}

fn key_v4(at: SocketAddrV4) -> [u8; ListenerKey::SIZE] {
    ListenerKey { address: at.ip().octets(), port: at.port().to_be_bytes(), reserved: [0; 2] }.to_bytes()
}

fn key_v6(at: SocketAddrV6) -> [u8; ListenerKeyV6::SIZE] {
    ListenerKeyV6 { address: at.ip().octets(), port: at.port().to_be_bytes(), reserved: [0; 2] }.to_bytes()
}

/// The programs' settings: all zero, which passes everything, until they are set.
pub struct SettingsMap(pub(super) Array<MapData, [u8; Settings::SIZE]>);

impl SettingsMap {
    /// Sets them all. A frame that is judged meanwhile may see some new and some old.
    pub fn set(&mut self, settings: Settings) -> Result<(), MapError> {
        self.0.set(0, settings.to_bytes(), 0).map_err(|error| failed("write", "settings", error))
    }
}

/// The AF_XDP sockets, by NIC and receive queue. A closed socket leaves by itself.
pub struct Sockets(pub(super) XskMap<MapData>);

impl Sockets {
    const NAME: &str = "map of AF_XDP sockets";

    /// Steers frames of receive queue `queue` of the NIC `wire` to `socket`, which must be bound to that queue of that
    /// NIC: the kernel drops frames for a socket of another.
    pub fn insert(&mut self, wire: WireId, queue: u32, socket: BorrowedFd<'_>) -> Result<(), MapError> {
        let index = socket_index(wire, queue)?;
        self.0.set(index, socket.as_raw_fd(), 0).map_err(|error| failed("write", Self::NAME, error))
    }

    /// Leaves frames of receive queue `queue` of the NIC `wire` to the kernel, if they were not.
    pub fn remove(&mut self, wire: WireId, queue: u32) -> Result<(), MapError> {
        let removed = self.0.unset(socket_index(wire, queue)?);
        found(removed).map_err(|error| failed("write", Self::NAME, error))?;
        Ok(())
    }
}

fn socket_index(wire: WireId, queue: u32) -> Result<u32, MapError> {
    if queue >= QUEUES {
        return Err(MapError::Queue { queue });
    }
    Ok(u32::from(wire.number()) * QUEUES + queue)
}

/// New and moved sources that TC saw on the wire.
pub struct Sources(pub(super) RingBuf<MapData>);

impl Sources {
    /// The next one, in the order seen, or `None` when there is no more for now. The same source may come many times,
    /// until it is entered in the [`Fdb`]. Never waits; read until `None` each time the descriptor is readable.
    pub fn next_source(&mut self) -> Option<FdbKey> {
        loop {
            let event = self.0.next()?;
            // The kernel rounds nothing: an event of another size is not one of ours, and there are none.
            if let Ok(bytes) = <[u8; size_of::<SourceEvent>()]>::try_from(&*event) {
                return Some(FdbKey::from_bytes(bytes));
            }
        }
    }
}

impl AsFd for Sources {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How often XDP decided what, since the programs were loaded.
pub struct Verdicts(pub(super) PerCpuArray<MapData, u64>);

impl Verdicts {
    /// Frames with this verdict, of all CPUs.
    pub fn count(&self, verdict: Verdict) -> Result<u64, MapError> {
        let by_cpu =
            self.0.get(&(verdict as u32), 0).map_err(|error| failed("read", "verdict counters", error))?;
        Ok(by_cpu.iter().sum())
    }
}

/// The gateway's sign of life, for programs that no link ties to its life.
pub struct Heartbeat(pub(super) Array<MapData, u64>);

impl Heartbeat {
    /// Lives now. Due well within [`Settings::heartbeat_timeout_ns`], if that is not 0.
    pub fn beat(&mut self) -> Result<(), MapError> {
        self.0.set(0, monotonic_ns(), 0).map_err(|error| failed("write", "heartbeat", error))
    }
}

/// The clock of [`FdbValue::last_seen_ns`] and the heartbeat: `bpf_ktime_get_ns` is CLOCK_MONOTONIC.
///
/// (In a time namespace the two differ: there the heartbeat is wrong. Nobody runs a gateway in one.)
pub fn monotonic_ns() -> u64 {
    // It cannot fail: the clock exists, and the time is positive.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Removing what is not there is no error.
fn found(result: Result<(), AyaError>) -> Result<bool, AyaError> {
    match result {
        Ok(()) => Ok(true),
        Err(AyaError::KeyNotFound | AyaError::ElementNotFound) => Ok(false),
        Err(error) if os_error(&error) == Some(nix::libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn failed(action: &'static str, map: &'static str, error: AyaError) -> MapError {
    match os_error(&error) {
        Some(nix::libc::E2BIG | nix::libc::ENOSPC) => MapError::Full { map },
        Some(code) => {
            MapError::Refused { action, map, cause: io::Error::from_raw_os_error(code).to_string() }
        }
        None => MapError::Refused { action, map, cause: error.to_string() },
    }
}

fn os_error(error: &AyaError) -> Option<i32> {
    match error {
        AyaError::SyscallError(error) => error.io_error.raw_os_error(),
        AyaError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}
