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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Cipher, Framing, Layout};

    const GCM: Profile = Profile::new(Cipher::Aes256Gcm, Framing::None);

    fn path(remote: &str) -> Path {
        Path::udp(remote.parse().unwrap(), "10.10.21.5:443".parse().unwrap())
    }

    fn sizes(mssfix: Mssfix) -> Sizes {
        Sizes { mssfix, ..Sizes::default() }
    }

    fn packets(bytes: u16, with_outer_headers: bool) -> Mssfix {
        Mssfix::Packets(Limit { bytes, with_outer_headers })
    }

    #[track_caller]
    fn mss(sizes: Sizes, profile: Profile, remote: &str) -> u16 {
        sizes.agree(profile, &path(remote), None).mssfix.unwrap()
    }

    /// As 2.6 and 2.7 have them, tun-mtu-extra included; brief A.13.
    #[test]
    fn by_default_segments_have_1368_bytes_and_20_less_over_ipv6() {
        let default = sizes(packets(1492, true));
        assert_eq!(mss(default, GCM, "198.51.100.11:1194"), 1368);
        assert_eq!(mss(default, GCM, "[2001:db8::1]:1194"), 1348);
        for (framing, expected) in [(Framing::V2, 1368), (Framing::Prefixed, 1367), (Framing::Swapped, 1367)]
        {
            assert_eq!(
                mss(default, Profile { framing, ..GCM }, "198.51.100.11:1194"),
                expected,
                "{framing:?}"
            );
        }
        for (layout, expected) in [(Layout::V1, 1371), (Layout::Epoch, 1364)] {
            assert_eq!(mss(default, Profile { layout, ..GCM }, "198.51.100.11:1194"), expected, "{layout:?}");
        }
    }

    /// Source: tests/unit_tests/openvpn/test_crypto.c `test_mssfix_mtu_calculation`, which has no TAP.
    #[test]
    fn upstreams_figures_come_out() {
        for bytes in 900..=1200 {
            let tun = Sizes { tun_mtu_extra: 0, ..sizes(packets(bytes, false)) };
            assert_eq!(mss(tun, GCM, "198.51.100.11:1194"), bytes - 4 - 4 - 16 - 40);
        }
        // There AES-128-CBC without digest and with a packet id of 8 bytes, here with SHA1 and one of 4: 20 bytes more
        // around, and the same steps of 16 between.
        let cbc = Profile::new(Cipher::Aes128Cbc, Framing::None);
        let at = |bytes| {
            mss(Sizes { tun_mtu_extra: 0, ..sizes(packets(bytes, false)) }, cbc, "198.51.100.11:1194")
        };
        for bytes in 1000..1200 {
            let room = (bytes - 4 - 20 - 16) / 16 * 16;
            assert_eq!(at(bytes), room - 1 - 4 - 40, "{bytes}");
        }
    }

    #[test]
    fn fixed_counts_nothing_around() {
        assert_eq!(mss(sizes(Mssfix::Fixed(1400)), GCM, "[2001:db8::1]:1194"), 1360);
        assert_eq!(sizes(Mssfix::Off).agree(GCM, &path("198.51.100.11:1"), None).mssfix, None);
        assert_eq!(mss(sizes(Mssfix::Fixed(10)), GCM, "198.51.100.11:1"), 0);
    }

    #[test]
    fn over_tcp_the_length_and_longer_headers_count_and_nothing_is_cut() {
        let tcp = Path { transport: Transport::Tcp, ..path("198.51.100.11:1194") };
        let fragment = Some(Limit { bytes: 1200, with_outer_headers: false });
        let agreed = Sizes { fragment, ..sizes(packets(1492, true)) }.agree(GCM, &tcp, Some(true));
        assert_eq!((agreed.mssfix, agreed.fragment), (Some(1368 - 2 - 12), None));
    }

    #[test]
    fn the_peer_decides_whether_there_are_fragments_and_the_file_how_long() {
        let limit = |with_outer_headers| Some(Limit { bytes: 1200, with_outer_headers });
        let agreed = |fragment, says| {
            Sizes { fragment, ..sizes(packets(1200, true)) }.agree(GCM, &path("198.51.100.11:1"), says)
        };
        for (fragment, says, expected) in [
            (limit(false), None, Some(1200 - 24 - 4)),
            (limit(false), Some(true), Some(1200 - 24 - 4)),
            (limit(true), Some(true), Some(1200 - 28 - 24 - 4)),
            (limit(false), Some(false), None),
            (None, Some(true), Some(u16::MAX)),
            (None, None, None),
        ] {
            assert_eq!(agreed(fragment, says).fragment, expected, "{fragment:?} {says:?}");
        }
        // The header counts for segments, too.
        assert_eq!(agreed(limit(false), None).mssfix, Some(1200 - 28 - 24 - 4 - 32 - 40));
    }

    /// Each part is a packet of its own, padded and numbered: with CBC it must be counted as such.
    #[test]
    fn parts_under_cbc_fit_their_packets() {
        let cbc = Profile::new(Cipher::Aes256Cbc, Framing::None);
        let fragment = Some(Limit { bytes: 1200, with_outer_headers: false });
        let piece =
            Sizes { fragment, ..Sizes::default() }.agree(cbc, &path("198.51.100.11:1"), None).fragment;
        let longest = usize::from(piece.unwrap()) + FRAGMENT_HEADER;
        assert!(cbc.sealed_len(longest) <= 1200 && cbc.sealed_len(longest + 1) > 1200, "{longest}");
    }
}
