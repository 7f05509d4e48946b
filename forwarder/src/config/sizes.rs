//! How long frames and packets may get: `tun-mtu`, `link-mtu`, `fragment`, `mssfix`. Source: options.c
//! `options_postprocess_mutate_ce`, brief A.13.

use openvpn::server::{Limit, Mssfix, Sizes};

use super::{
    apply::Done,
    error::{Error, Level, Place},
    server::Server,
    words::Directive,
};

/// Least and largest `tun-mtu`, in bytes. 9000: a jumbo frame; more does not fit a worker's chunk of memory beside its
/// headers.
const LEAST_TUN_MTU: u16 = 576;
const LARGEST_TUN_MTU: u16 = 9000;
/// Upstream's `tun-mtu` where the file has none: `mssfix` has a default of its own with it only.
const TUN_MTU: u16 = 1500;
/// `mssfix` where the file has none: what most lines by PPPoE carry. Source: mtu.h `MSSFIX_DEFAULT`.
const MSSFIX: Limit = Limit { bytes: 1492, with_outer_headers: true };
/// Least `mssfix` other than 0. Source: common.h `TLS_CHANNEL_MTU_MIN`.
const LEAST_MSSFIX: u16 = 154;
/// Least `fragment`. Source: options.c.
const LEAST_FRAGMENT: u16 = 68;
/// Bytes of a packet besides its frame as old versions count them in `link-mtu`, by the end of the cipher's name, with SHA1.
/// Source: crypto.c `calculate_crypto_overhead`: opcode 1, packet id 4, tag 16, nonce 12 and block 16; for CBC opcode 1,
/// HMAC 20, IV and one more block.
const LINK_OVERHEAD: &[(&str, u16)] =
    &[("-GCM", 49), ("POLY1305", 34), ("AES-128-CBC", 53), ("AES-192-CBC", 53), ("AES-256-CBC", 53)];
/// The same for BF-CBC, whose blocks have 8 bytes: `cipher` where the file has none.
const LINK_OVERHEAD_BF_CBC: u16 = 37;

/// What has been read of sizes.
#[derive(Debug, Default)]
pub(super) struct Sizing {
    tun_mtu_at: Option<u32>,
    link_mtu: Option<(u16, u32)>,
    fragment: Option<Limit>,
    /// `None`: by default.
    mssfix: Option<Mssfix>,
    extra: Option<u16>,
    /// `cipher`, for `link-mtu`.
    pub(super) cipher: Option<String>,
}

pub(super) fn tun_mtu(d: Directive<'_>) -> Done {
    d.draft.server.tun_mtu = d.number(0, LEAST_TUN_MTU..=LARGEST_TUN_MTU)?;
    // The second number is for the options string, which is compared by nobody.
    d.number_or(1, 100..=u16::MAX, 0)?;
    d.draft.sizing.tun_mtu_at = Some(d.line.number);
    Ok(())
}

pub(super) fn tun_mtu_extra(d: Directive<'_>) -> Done {
    d.draft.sizing.extra = Some(d.number(0, 0..=LARGEST_TUN_MTU)?);
    Ok(())
}

pub(super) fn link_mtu(d: Directive<'_>) -> Done {
    d.draft.sizing.link_mtu = Some((d.number(0, LEAST_TUN_MTU..=LARGEST_TUN_MTU)?, d.line.number));
    Ok(())
}

pub(super) fn fragment(d: Directive<'_>) -> Done {
    let bytes = d.number(0, LEAST_FRAGMENT..=u16::MAX)?;
    let with_outer_headers = match d.optional(1) {
        None => false,
        Some("mtu") => true,
        Some(_) => return Err(d.not_among(1, "`fragment N` or `fragment N mtu`")),
    };
    d.draft.sizing.fragment = Some(Limit { bytes, with_outer_headers });
    Ok(())
}

pub(super) fn mssfix(d: Directive<'_>) -> Done {
    if d.optional(0).is_none() {
        d.draft.sizing.mssfix = None;
        return Ok(());
    }
    let bytes = d.number(0, 0..=u16::MAX)?;
    if bytes != 0 && bytes < LEAST_MSSFIX {
        return Err(d.error("`mssfix` is too small", format!("write {LEAST_MSSFIX} or more, or 0 for none")));
    }
    let packets = |with_outer_headers| Mssfix::Packets(Limit { bytes, with_outer_headers });
    let mode = match d.optional(1) {
        _ if bytes == 0 => Mssfix::Off,
        None => packets(false),
        Some("mtu") => packets(true),
        Some("fixed") => Mssfix::Fixed(bytes),
        Some(_) => return Err(d.not_among(1, "`mssfix N`, `mssfix N mtu` or `mssfix N fixed`")),
    };
    d.draft.sizing.mssfix = Some(mode);
    Ok(())
}

/// `max-packet-size N`: `mssfix N mtu`, and control packets no longer than that, as ours never are.
pub(super) fn max_packet_size(d: Directive<'_>) -> Done {
    let bytes = d.number(0, LEAST_MSSFIX..=u16::MAX)?;
    if bytes < CONTROL_PACKET {
        let text = format!("control packets stay below {CONTROL_PACKET} bytes, not {bytes}");
        d.draft.note(Level::Warning, d.line.number, text);
    }
    d.draft.sizing.mssfix = Some(Mssfix::Packets(Limit { bytes, with_outer_headers: true }));
    Ok(())
}

/// Longest control packet with its outer headers, in bytes. Source: brief A.3.
const CONTROL_PACKET: u16 = 1250;

impl Sizing {
    /// Fills in what follows from several lines.
    pub(super) fn finish(&self, server: &mut Server, place: impl Fn(u32) -> Place) -> Done {
        if let Some((link_mtu, line)) = self.link_mtu {
            server.tun_mtu = self.inner_of(link_mtu, place(line))?;
        }
        let sizes = Sizes::default();
        server.sizes = Sizes {
            fragment: self.fragment,
            mssfix: self.mssfix.unwrap_or_else(|| self.default_mssfix(server.tun_mtu)),
            tun_mtu_extra: self.extra.unwrap_or(sizes.tun_mtu_extra),
        };
        Ok(())
    }

    fn inner_of(&self, link_mtu: u16, place: Place) -> Result<u16, Error> {
        if self.tun_mtu_at.is_some() {
            return Err(Error::at(
                place,
                "`tun-mtu` says this already",
                "keep `tun-mtu` and take this line out",
            ));
        }
        let cipher = self.cipher.as_deref().unwrap_or_default().to_ascii_uppercase();
        let known = LINK_OVERHEAD.iter().find(|(end, _)| cipher.ends_with(end));
        let tun_mtu = link_mtu.saturating_sub(known.map_or(LINK_OVERHEAD_BF_CBC, |&(_, overhead)| overhead));
        if tun_mtu < LEAST_TUN_MTU {
            let cure = format!("write `tun-mtu` with {LEAST_TUN_MTU} or more instead");
            return Err(Error::at(place, format!("that leaves frames of {tun_mtu} bytes"), cure));
        }
        Ok(tun_mtu)
    }

    /// Source: options.c `options_postprocess_mutate_ce`, "Set MTU defaults".
    fn default_mssfix(&self, tun_mtu: u16) -> Mssfix {
        match (self.fragment, self.link_mtu) {
            (Some(fragment), _) => Mssfix::Packets(Limit { with_outer_headers: true, ..fragment }),
            (None, Some(_)) => Mssfix::Off,
            (None, None) if tun_mtu == TUN_MTU => Mssfix::Packets(MSSFIX),
            (None, None) => Mssfix::Fixed(tun_mtu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{parsed, refused},
        *,
    };

    fn packets(bytes: u16, with_outer_headers: bool) -> Mssfix {
        Mssfix::Packets(Limit { bytes, with_outer_headers })
    }

    #[test]
    fn mssfix_has_upstreams_modes_and_defaults() {
        for (lines, expected) in [
            ("", packets(1492, true)),
            ("mssfix\n", packets(1492, true)),
            ("mssfix 0\n", Mssfix::Off),
            ("mssfix 1400\n", packets(1400, false)),
            ("mssfix 1400 mtu\n", packets(1400, true)),
            ("mssfix 1400 fixed\n", Mssfix::Fixed(1400)),
            ("fragment 1300\n", packets(1300, true)),
            ("fragment 1300\nmssfix 1200\n", packets(1200, false)),
            ("tun-mtu 1400\n", Mssfix::Fixed(1400)),
            ("tun-mtu 1400\nmssfix 1300\n", packets(1300, false)),
            ("link-mtu 1549\n", Mssfix::Off),
            ("max-packet-size 1300\n", packets(1300, true)),
        ] {
            assert_eq!(parsed(lines).sizes.mssfix, expected, "{lines}");
        }
        assert!(refused("mssfix 153").contains("too small"));
        assert!(refused("mssfix 1300 maybe").contains("mssfix N fixed"));
    }

    #[test]
    fn fragment_is_read() {
        let fragment = |lines| parsed(lines).sizes.fragment;
        assert_eq!(fragment(""), None);
        assert_eq!(fragment("fragment 1200\n"), Some(Limit { bytes: 1200, with_outer_headers: false }));
        assert_eq!(fragment("fragment 1200 mtu\n"), Some(Limit { bytes: 1200, with_outer_headers: true }));
        assert!(refused("fragment 67").contains("from 68"));
        assert!(refused("fragment 1200 maybe").contains("fragment N mtu"));
    }

    /// The differences are those of upstream's test_crypto.c `test_occ_mtu_calculation`, less what stands within packets.
    #[test]
    fn link_mtu_becomes_tun_mtu_as_upstream_has_it() {
        for (cipher, tun_mtu) in [("AES-256-GCM", 1500), ("CHACHA20-POLY1305", 1515), ("AES-128-CBC", 1496)] {
            assert_eq!(parsed(&format!("cipher {cipher}\nlink-mtu 1549\n")).tun_mtu, tun_mtu, "{cipher}");
        }
        assert_eq!(parsed("link-mtu 1549\n").tun_mtu, 1512);
        assert!(refused("tun-mtu 1500\nlink-mtu 1549").contains("says this already"));
        assert!(refused("link-mtu 600").contains("563"));
    }

    #[test]
    fn tun_mtu_takes_a_second_number_for_old_peers() {
        assert_eq!(parsed("tun-mtu 1400 1532\n").tun_mtu, 1400);
        assert!(refused("tun-mtu 500").contains("from 576"));
        assert_eq!(parsed("tun-mtu-extra 64\n").sizes.tun_mtu_extra, 64);
    }
}
