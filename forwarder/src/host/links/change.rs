//! Changing an interface.

use common::Mac;
use neli::consts::rtnl::{Iff, Ifla, RtAddrFamily};
use neli::rtnl::{IfinfomsgBuilder, Rtattr};
use neli::types::Buffer;
use nix::libc;

use super::super::netlink::Requests;
use super::super::{Error, Result};
use super::{Link, invalid, put};

/// What is to change on one interface, in one request: `LinkChange::of(index).mtu(1500).up().apply(requests)`.
#[derive(Clone, Debug)]
#[must_use = "nothing changes before apply()"]
pub struct LinkChange {
    index: u32,
    flags: Iff,
    mask: Iff,
    mac: Option<Mac>,
    mtu: Option<u32>,
    transmit_queue: Option<u32>,
    master: Option<u32>,
    without_ipv6_addresses: bool,
}

impl LinkChange {
    /// Of the interface with this number; nothing yet.
    pub fn of(index: u32) -> Self {
        Self {
            index,
            flags: Iff::empty(),
            mask: Iff::empty(),
            mac: None,
            mtu: None,
            transmit_queue: None,
            master: None,
            without_ipv6_addresses: false,
        }
    }

    /// Set it up.
    pub fn up(self) -> Self {
        self.flag(Iff::UP, true)
    }

    /// Set it down.
    pub fn down(self) -> Self {
        self.flag(Iff::UP, false)
    }

    /// Whether the host asks for addresses (ARP) on it, and answers.
    pub fn arp(self, on: bool) -> Self {
        self.flag(Iff::NOARP, !on)
    }

    /// Its hardware address.
    pub fn mac(mut self, mac: Mac) -> Self {
        self.mac = Some(mac);
        self
    }

    /// Its largest IP packet in bytes.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Most frames that wait to be sent through it. Too few: bursts are lost where the gateway is slower than the
    /// host; too many: the host's frames wait long (the kernel's own choice for a TAP is 1000).
    pub fn transmit_queue(mut self, frames: u32) -> Self {
        self.transmit_queue = Some(frames);
        self
    }

    /// Make it a port of the bridge with this number.
    pub fn master(mut self, bridge: u32) -> Self {
        self.master = Some(bridge);
        self
    }

    /// The host gives itself no link-local IPv6 address on it (`addrgenmode none`), so that setting it up is silent:
    /// no neighbour discovery, no router solicitation. Router advertisements would still give it one: see
    /// [`disable_ipv6`]. Without IPv6 in the kernel there is nothing to switch off, and the kernel refuses: leave it
    /// away then.
    pub fn without_ipv6_addresses(mut self) -> Self {
        self.without_ipv6_addresses = true;
        self
    }

    /// Makes the changes.
    pub fn apply(self, requests: &mut Requests) -> Result<()> {
        let message = IfinfomsgBuilder::default()
            .ifi_family(RtAddrFamily::Unspecified)
            .ifi_index(i32::try_from(self.index).map_err(invalid)?)
            .ifi_flags(self.flags)
            .ifi_change(self.mask)
            .rtattrs(self.attributes()?.into_iter().collect())
            .build()
            .map_err(invalid)?;
        requests
            .order(libc::RTM_NEWLINK, 0, &message)
            .map_err(Error::os(format!("change interface {}", self.index)))
    }

    fn flag(mut self, flag: Iff, on: bool) -> Self {
        self.mask |= flag;
        self.flags.set(flag, on);
        self
    }

    fn attributes(&self) -> Result<Vec<Rtattr<Ifla, Buffer>>> {
        let mut attributes = Vec::new();
        if let Some(mac) = self.mac {
            attributes.push(put(Ifla::Address, &mac[..])?);
        }
        if let Some(mtu) = self.mtu {
            attributes.push(put(Ifla::Mtu, mtu)?);
        }
        if let Some(frames) = self.transmit_queue {
            attributes.push(put(Ifla::Txqlen, frames)?);
        }
        if let Some(bridge) = self.master {
            attributes.push(put(Ifla::Master, bridge)?);
        }
        if self.without_ipv6_addresses {
            attributes.push(address_generation_off()?);
        }
        Ok(attributes)
    }
}

/// Turns IPv6 off on an interface, in the namespace of the calling thread; nothing to do where the kernel has none.
pub fn disable_ipv6(link: &Link) -> Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", link.name);
    match std::fs::write(&path, "1") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::os(format!("write {path}"))),
    }
}

/// Largest IPv6 packet on an interface, in bytes, in the namespace of the calling thread: the interface's MTU, or what a
/// router advertises there. `None` without IPv6.
pub fn ipv6_mtu(name: &str) -> Option<u32> {
    std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/mtu")).ok()?.trim().parse().ok()
}

/// `IFLA_AF_SPEC { AF_INET6 { IFLA_INET6_ADDR_GEN_MODE = IN6_ADDR_GEN_MODE_NONE } }`.
/// Kernel: include/uapi/linux/if_link.h.
fn address_generation_off() -> Result<Rtattr<Ifla, Buffer>> {
    const INET6: u16 = 10;
    const ADDR_GEN_MODE: u16 = 8;
    const NONE: u8 = 1;
    let mode = put(ADDR_GEN_MODE, NONE)?;
    let family = put(INET6, Buffer::new())?.nest(&mode).map_err(invalid)?;
    put(Ifla::AfSpec, Buffer::new())?.nest(&family).map_err(invalid)
}
