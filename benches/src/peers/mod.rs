//! Other people's layer-2 tunnels and switches, from Debian's packages: SoftEther, tinc, fastd, Open vSwitch.
//!
//! They speak protocols of their own, so a load sealed ahead is not to be had: each tunnel comes with its own client,
//! and what its server sends to that client is counted at the first hop. Open vSwitch has no tunnel here: like the null
//! forwarder it sends every frame back to where it came from.

/// A kernel bridge between the NIC and a tunnel's TAP device.
mod bridge;
/// Processes of a system, and the system they are.
mod daemon;
mod fastd;
mod ovs;
mod softether;
#[cfg(test)]
mod tests;
mod tinc;

use std::path::Path;

use crate::rig::system::Starter;

/// UDP port of every server: the one that the first hop counts.
const SERVER_PORT: u16 = crate::rig::shared::SERVER_PORT;
/// UDP port of every client of its own: known ahead, so that the first hop can count what goes there.
pub const CLIENT_PORT: u16 = 40_000;
/// The TAP device of servers and clients where they may be told one.
const TAP: &str = "tap0";

/// The systems by name.
pub const PEERS: &[(&str, Starter)] = &[
    (softether::NAME, softether::start),
    (tinc::NAME, tinc::start),
    (fastd::NAME, fastd::start),
    (ovs::AF_PACKET, ovs::start_af_packet),
    (ovs::AF_XDP, ovs::start_af_xdp),
];

/// Programs that are missing for `system`, one of [`PEERS`]: `cargo xtask bench --peers` installs them.
pub fn missing(system: &str) -> Vec<&'static str> {
    let programs: &[&str] = match system {
        softether::NAME => &[softether::SERVER, "/usr/bin/vpncmd", "/usr/sbin/openvpn"],
        tinc::NAME => &[tinc::PROGRAM],
        fastd::NAME => &[fastd::PROGRAM],
        ovs::AF_PACKET | ovs::AF_XDP => &ovs::PROGRAMS,
        _ => &[],
    };
    programs.iter().copied().filter(|program| !Path::new(program).exists()).collect()
}
