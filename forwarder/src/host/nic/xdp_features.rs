//! What an interface's driver can do with XDP, by the netdev netlink family, and its changes. Kernels have it since 6.3.
//! Kernel: Documentation/netlink/specs/netdev.yaml.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;

use super::super::netlink::generic::{self, Family, HEADER};
use super::super::netlink::nested::Nested;
use super::super::netlink::{News, Requests, Subscription};
use super::super::{Error, Result};

mod number {
    pub(super) const DEV_GET: u8 = 1;
    pub(super) const DEV_DEL_NTF: u8 = 3;
    pub(super) const IFINDEX: u16 = 1;
    pub(super) const XDP_FEATURES: u16 = 3;
}

/// Datagrams read in one go; news that comes meanwhile rings again.
const LOOKS: usize = 4_096;

/// What a driver can do with XDP, now: a veth's depends on its other end, some NICs' on whether a program is attached.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    /// Native XDP at all: pass, drop, send back.
    pub fn basic(self) -> bool {
        self.bit(0)
    }

    /// Its programs may redirect.
    pub fn redirect(self) -> bool {
        self.bit(1)
    }

    /// It takes frames redirected to it (`ndo_xdp_xmit`).
    pub fn takes_frames(self) -> bool {
        self.bit(2)
    }

    /// AF_XDP without copying.
    pub fn zero_copy(self) -> bool {
        self.bit(3)
    }

    /// Its programs get frames in several buffers.
    pub fn receives_fragments(self) -> bool {
        self.bit(5)
    }

    /// It takes redirected frames in several buffers.
    pub fn takes_fragments(self) -> bool {
        self.bit(6)
    }

    fn bit(self, number: u32) -> bool {
        self.0 & (1 << number) != 0
    }
}

impl fmt::Debug for XdpFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XdpFeatures({:#x})", self.0)
    }
}

/// Features of all interfaces, followed.
#[derive(Debug)]
pub struct AllXdpFeatures {
    requests: Requests,
    family: u16,
    subscription: Subscription,
    known: BTreeMap<u32, XdpFeatures>,
}

impl AllXdpFeatures {
    /// Reads them and subscribes to changes; `None` where the kernel does not say (before 6.3).
    pub fn open() -> Result<Option<Self>> {
        let mut requests = Requests::generic().map_err(Error::os("open a generic netlink socket"))?;
        let family = match Family::find(&mut requests, "netdev") {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            other => other.map_err(Error::os("find the netdev netlink family"))?,
        };
        let Some(group) = family.group("mgmt") else { return Ok(None) };
        let subscription = Subscription::generic(group).map_err(Error::os("follow XDP features"))?;
        let mut this = Self { requests, family: family.id, subscription, known: BTreeMap::new() };
        this.reread()?;
        Ok(Some(this))
    }

    /// Those of an interface; `None`: it is not there.
    pub fn of(&self, index: u32) -> Option<XdpFeatures> {
        self.known.get(&index).copied()
    }

    /// Reads what the kernel has told since, to be called when [`AsFd`] becomes readable. True: something changed.
    pub fn handle_netlink(&mut self) -> Result<bool> {
        let mut changed = false;
        for _ in 0..LOOKS {
            let known = &mut self.known;
            let news = self.subscription.look(|_, rest| changed |= take(known, rest));
            match news.map_err(Error::os("read changes of XDP features"))? {
                News::Some => {}
                News::None => return Ok(changed),
                News::Lost => break,
            }
        }
        self.reread()?;
        Ok(true)
    }

    fn reread(&mut self) -> Result<()> {
        let everything = generic::message(number::DEV_GET, &[]);
        let found = self.requests.dump(self.family, &everything, |found: &mut BTreeMap<_, _>, _, rest| {
            take(found, rest);
        });
        self.known = found.map_err(Error::os("read XDP features"))?;
        Ok(())
    }
}

impl AsFd for AllXdpFeatures {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscription.as_fd()
    }
}

/// True: something changed.
fn take(known: &mut BTreeMap<u32, XdpFeatures>, rest: &[u8]) -> bool {
    let attributes = Nested::behind(HEADER, rest);
    let Some(index) = attributes.number(number::IFINDEX) else { return false };
    if rest.first() == Some(&number::DEV_DEL_NTF) {
        return known.remove(&index).is_some();
    }
    let Some(bits) = attributes.array(number::XDP_FEATURES).map(u64::from_ne_bytes) else { return false };
    known.insert(index, XdpFeatures(bits)) != Some(XdpFeatures(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::links::by_name;
    use crate::host::testing::{Namespace, eventually, skip};

    #[test]
    fn a_veth_takes_frames_once_its_far_end_has_gro() {
        let Some(host) = Namespace::new() else { return };
        host.ip("link add uplink type veth peer name wire");
        let index = host.run(|| by_name(&mut Requests::routing().unwrap(), "uplink").unwrap().index);
        for end in ["uplink", "wire"] {
            host.ip(&format!("link set {end} up"));
        }
        let Some(mut features) = host.run(|| AllXdpFeatures::open().unwrap()) else {
            skip("this kernel has no netdev netlink family");
            return;
        };
        let before = features.of(index).unwrap();
        assert!(before.basic() && before.redirect() && !before.takes_frames() && !before.zero_copy());
        host.command("ethtool", "-K wire gro on");
        eventually("it takes frames", || {
            features.handle_netlink().unwrap();
            features.of(index).unwrap().takes_frames()
        });
        host.command("ethtool", "-K wire gro off");
        eventually("it takes none", || {
            features.handle_netlink().unwrap();
            !features.of(index).unwrap().takes_frames()
        });
        host.ip("link del uplink");
        eventually("it is gone", || {
            features.handle_netlink().unwrap();
            features.of(index).is_none()
        });
    }
}
