//! Fragments of one datagram stay together: all of them go to the workers, or all of them to the kernel.
//!
//! Only the first fragment has the ports, so only there can be seen whether the datagram is a tunnel packet. What was
//! decided is noted under its addresses and identification, by whichever of its fragments comes first:
//!
//! ```text
//!   the first fragment, of a tunnel packet    steer, and note it; but pass if it is noted that others have passed
//!   the first fragment, of anything else      pass, and note it
//!   a later one                               what is noted; nothing: pass, and note it
//! ```
//!
//! So the host's own datagrams never leave the kernel, and a tunnel packet whose fragments come in another order is the
//! kernel's to reassemble: slower, not lost. Marks stand in a table without chains. A datagram's slot is a hash of its
//! addresses plus its identification, so that those of one sender in a row stand side by side and none in another's
//! place. Where another sender's mark stands, or an old one, nothing is noted.
//!
//! Marks are written without a lock (this target has no compare-and-swap). NICs choose the queue of fragments by their
//! addresses alone, so one CPU sees all of a datagram. Where two CPUs do and look in the same instant, they may decide
//! differently: one packet is lost then, as on a path that loses one.
//!
//! Of IPv6 a mark holds a fold of the source and half of the identification, whose other half is in the slot: who wants
//! to disturb another's packets must guess the whole, which senders choose at random.
//!
//! ```text
//!   mark  │ source address 32 │ fold of destination 8 │ when, in 2^20 ns 23 │ steered 1 │
//! ```

use common::{FRAGMENT_AGE_NS, Settings};

use crate::{
    frame::Frame,
    maps::{self, FragmentMark},
    parse::{Datagram, Fragment, FragmentV6, Ipv4, Ipv6, Malformed},
};

const TIME_SHIFT: u32 = 20;
const TIME_BITS: u64 = (1 << 23) - 1;
const STEERED: u64 = 1;
/// All but time and decision.
const DATAGRAM: u64 = !(TIME_BITS << 1 | STEERED);

/// What a fragment by itself would have done with its datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Steer,
    Pass,
    /// It cannot know.
    Follow,
}

/// Whether the fragment behind `ip` goes to the workers.
#[inline(always)]
pub fn is_steered(frame: &impl Frame, settings: &Settings, ip: &Ipv4) -> Result<bool, Malformed> {
    if settings.fragments == 0 {
        return Ok(false);
    }
    let fragment = Fragment::behind(frame, ip)?;
    let mut wish = Wish::Follow;
    if fragment.is_first {
        let (listener, is_data) = fragment.leads(frame)?;
        wish = Wish::of(frame, settings, is_data && maps::is_listener(&listener));
    }
    Ok(decide(&fragment.datagram, wish))
}

/// The same of IPv6.
#[inline(always)]
pub fn is_steered_v6(frame: &impl Frame, settings: &Settings, ip: &Ipv6) -> Result<bool, Malformed> {
    if settings.fragments == 0 {
        return Ok(false);
    }
    let Some(fragment) = FragmentV6::behind(frame, ip)? else { return Ok(false) };
    let mut wish = Wish::Follow;
    if fragment.is_first {
        let (listener, is_data) = fragment.leads(frame)?;
        wish = Wish::of(frame, settings, is_data && maps::is_listener_v6(&listener));
    }
    Ok(decide(&fragment.datagram, wish))
}

impl Wish {
    /// Of a first fragment.
    #[inline(always)]
    fn of(frame: &impl Frame, settings: &Settings, is_tunnel: bool) -> Self {
        if is_tunnel && frame.length() <= settings.max_frame { Self::Steer } else { Self::Pass }
    }
}

#[inline(always)]
fn decide(of: &Datagram, wish: Wish) -> bool {
    match FragmentMark::at(slot(of)) {
        Some(mark) => agree(&mark, datagram(of), wish),
        None => false,
    }
}

#[inline(always)]
fn agree(mark: &FragmentMark, datagram: u64, wish: Wish) -> bool {
    let now = (maps::coarse_ns() >> TIME_SHIFT) & TIME_BITS;
    let seen = mark.read();
    match (wish, decision(seen, datagram, now)) {
        (Wish::Follow, Some(steered)) => return steered,
        (Wish::Steer | Wish::Pass, Some(false)) => return false,
        // Nothing is noted, or it is of an earlier datagram with the same identification.
        (_, None) | (Wish::Steer | Wish::Pass, Some(true)) => {}
    }
    let steer = wish == Wish::Steer;
    mark.write(datagram | now << 1 | u64::from(steer));
    steer
}

/// What is noted of the datagram.
#[inline(always)]
fn decision(mark: u64, datagram: u64, now: u64) -> Option<bool> {
    let age = now.wrapping_sub(mark >> 1) & TIME_BITS;
    (mark & DATAGRAM == datagram && age <= FRAGMENT_AGE_NS >> TIME_SHIFT).then_some(mark & STEERED != 0)
}

#[inline(always)]
fn datagram(of: &Datagram) -> u64 {
    let [a, b, c, d] = of.destination.to_be_bytes();
    u64::from(of.source) << 32 | u64::from(a ^ b ^ c ^ d) << 24
}

#[inline(always)]
fn slot(of: &Datagram) -> u16 {
    // Knuth's multiplicative hash, whose upper bits are the good ones.
    let addresses = u64::from(of.destination) << 32 | u64::from(of.source);
    let hash = addresses.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    (hash as u16).wrapping_add(of.identification)
}
