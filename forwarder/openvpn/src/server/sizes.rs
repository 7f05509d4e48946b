//! How long packets may get: `fragment` and `mssfix`, and what they come to with a peer. Source: brief A.13; upstream's
//! mss.c and mtu.c.
//!
//! ```text
//!   ├─ outer IP, UDP ─┼─ data packet's own ─┼─ fragment ─┼─ framing ─┼─ Ethernet ─┼─ IP ─┼─ TCP ─┼─ segment ─┤
//!   └── counts for `mtu` ──┘                                 tun-mtu-extra      20     20        the MSS
//! ```

use std::net::SocketAddr;

use super::{Path, Transport};
use crate::data::{FRAGMENT_HEADER, Profile};

/// What the configuration says about the length of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// `fragment`.
    pub fragment: Option<Limit>,
    /// `mssfix`.
    pub mssfix: Mssfix,
    /// `tun-mtu-extra`: what `mssfix` leaves for an Ethernet header and tags, in bytes.
    pub tun_mtu_extra: u16,
}

/// The longest packet, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many.
    pub bytes: u16,
    /// The outer IP and UDP or TCP headers are counted: `mtu` behind the number.
    pub with_outer_headers: bool,
}

/// `mssfix` in its modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mssfix {
    /// SYNs cross as they are.
    Off,
    /// Whole segments make packets of at most this length.
    Packets(Limit),
    /// Inner IP packets have at most so many bytes, whatever is around them.
    Fixed(u16),
}

/// Neither `fragment` nor `mssfix`. (A file that does not mention `mssfix` has it: configuration says so.)
impl Default for Sizes {
    fn default() -> Self {
        Self { fragment: None, mssfix: Mssfix::Off, tun_mtu_extra: TUN_MTU_EXTRA }
    }
}

/// Upstream's `tun-mtu-extra` for TAP. Source: options.h `TAP_MTU_EXTRA_DEFAULT`.
const TUN_MTU_EXTRA: u16 = 32;
/// Inner IPv4 and TCP headers without options. (RFC 879, section 7)
const INNER_HEADERS: usize = 20 + 20;
/// A peer that uses fragment headers where no limit is configured here: only its own frames come in parts.
const UNLIMITED: u16 = u16::MAX;

impl Sizes {
    /// `profile` with what the sizes come to for a peer at `path`. `peer_fragments` says whether the peer has `fragment`
    /// in its file, where it tells: both must or neither, so the peer's word decides.
    pub fn agree(self, profile: Profile, path: &Path, peer_fragments: Option<bool>) -> Profile {
        let by_default = self.fragment.is_some();
        let fragments = path.transport == Transport::Udp && peer_fragments.unwrap_or(by_default);
        let piece = || self.fragment.map_or(UNLIMITED, |limit| piece(limit, profile, path));
        let profile = Profile { fragment: fragments.then(piece), ..profile };
        Profile { mssfix: self.segment(profile, path), ..profile }
    }

    /// The largest segment. Source: mss.c `frame_calculate_mssfix`.
    fn segment(self, profile: Profile, path: &Path) -> Option<u16> {
        let bytes = match self.mssfix {
            Mssfix::Off => return None,
            Mssfix::Fixed(bytes) => usize::from(bytes),
            Mssfix::Packets(limit) => {
                let fragment = if profile.fragment.is_some() { FRAGMENT_HEADER } else { 0 };
                let around = usize::from(self.tun_mtu_extra + profile.framing.overhead()) + fragment;
                plaintext(limit, profile, path).saturating_sub(around)
            }
        };
        Some(clamp(bytes.saturating_sub(INNER_HEADERS)))
    }
}

/// Most bytes behind a fragment header. Source: mss.c `frame_calculate_fragment`.
fn piece(limit: Limit, profile: Profile, path: &Path) -> u16 {
    clamp(plaintext(limit, profile, path).saturating_sub(FRAGMENT_HEADER))
}

/// The longest plaintext within `limit`.
fn plaintext(limit: Limit, profile: Profile, path: &Path) -> usize {
    let outer = if limit.with_outer_headers { outer_headers(path) } else { 0 };
    // Over TCP a packet's length stands ahead of it.
    let length = if path.transport == Transport::Tcp { 2 } else { 0 };
    profile.longest_plaintext(usize::from(limit.bytes).saturating_sub(outer + length))
}

/// Source: socket.h `datagram_overhead`.
fn outer_headers(path: &Path) -> usize {
    let ip = match path.remote {
        SocketAddr::V4(_) => 20,
        SocketAddr::V6(_) => 40,
    };
    ip + match path.transport {
        Transport::Udp => 8,
        Transport::Tcp => 20,
    }
}

fn clamp(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}
