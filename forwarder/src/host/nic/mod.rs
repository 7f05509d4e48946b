//! The NIC: what it does to frames, what it must stop doing while the gateway uses it, and what it cannot do.

/// Whether the NIC is a cloud's, whose fabric carries only what it knows.
pub mod cloud;
/// NIC features over ethtool's netlink family.
pub mod ethtool;
mod far_end;
/// What was changed on NICs, written down before it is changed.
pub mod journal;
mod look;
/// How large an MTU XDP takes.
pub mod mtu;
mod namespaces;
mod prepare;
mod unfinished;
/// What drivers can do with XDP, followed.
pub mod xdp_features;

use std::path::Path;

pub use look::{FarSide, InTheWay, Look};
pub use prepare::Preparation;
pub use unfinished::{Unfinished, unfinished};

use super::links::Link;

/// Where the kernel shows devices.
pub const SYSFS: &str = "/sys";

/// The name of the driver of `link` (`ena`, `ixgbe`), or what kind of software interface it is (`veth`).
///
/// `sysfs` is [`SYSFS`]. It shows the namespace it was mounted in: an interface that is there by this name but not the
/// same one is not believed.
pub fn driver(sysfs: &Path, link: &Link) -> Option<String> {
    if link.kind.is_some() {
        return link.kind.clone();
    }
    let device = sysfs.join("class/net").join(&link.name);
    let index = std::fs::read_to_string(device.join("ifindex")).ok()?;
    if index.trim() != link.index.to_string() {
        return None;
    }
    let driver = std::fs::read_link(device.join("device/driver")).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}
