//! A kernel bridge, seen and told over netlink: the truth that XDP carries further.
//!
//! ```text
//!   Mirror::open("br0") ─► known(): Bridge, Ports, Stations     as the kernel has them
//!            │ as_fd
//!            ▼ handle_netlink
//!          Events                                               what changed since
//!   touch, enter_stations, remove_stations                       what the bridge is told
//! ```
//!
//! Nothing here decides what is accelerated: that is [`control`](crate::control)'s.

mod facts;
mod known;
mod mirror;
/// What XDP would bypass.
pub mod obstacles;
mod parse;
mod stations;
#[cfg(test)]
mod tests;

pub use facts::{Bridge, FarEnd, Port, PortSettings, PortState, Station, StationKind, VlanRange, Vlans};
pub use known::{Event, Known, STATIONS};
pub use mirror::Mirror;
pub use obstacles::{Obstacle, ObstacleKind, Obstacles};
pub use stations::{enter_stations, remove_stations};
