//! What a device can do with XDP, over the netdev netlink family (kernel: Documentation/netlink/specs/netdev.yaml).

use nix::libc;

use super::super::netlink::Requests;
use super::super::netlink::wire::body;
use super::super::{Error, Result};
use super::ethtool::{Message, family, find, leaf, message};

/// Numbers from include/uapi/linux/netdev.h.
mod number {
    pub(super) const DEV_GET: u8 = 1;
    pub(super) const DEV_IFINDEX: u16 = 1;
    pub(super) const DEV_XDP_FEATURES: u16 = 3;
    /// `NETDEV_XDP_ACT_NDO_XMIT`.
    pub(super) const NDO_XMIT: u64 = 4;
}

/// Whether frames may be redirected to the interface with this index, as it is now; `None`: the kernel does not say
/// (before 6.3).
pub fn takes_frames(index: u32) -> Result<Option<bool>> {
    let mut requests = Requests::generic().map_err(Error::os("open a generic netlink socket"))?;
    let family = match family(&mut requests, "netdev") {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        family => family.map_err(Error::os("find netdev's netlink family"))?,
    };
    let question = message(number::DEV_GET, [leaf(number::DEV_IFINDEX, index)?])?;
    let features = requests.request(family, 0, &question, |found: &mut Option<u64>, _, rest| {
        *found = found.or_else(|| features(rest));
    });
    let features = features.map_err(Error::os(format!("read what interface {index} does with XDP")))?;
    Ok(features.map(|features| features & number::NDO_XMIT != 0))
}

fn features(rest: &[u8]) -> Option<u64> {
    let answer: Message = body(rest)?;
    let features = find(answer.attrs().as_ref(), number::DEV_XDP_FEATURES)?;
    Some(u64::from_ne_bytes(features.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::links;
    use crate::host::preflight::Kernel;
    use crate::host::testing::Namespace;

    #[test]
    fn a_veth_takes_frames_while_its_far_end_receives_in_batches() {
        let Some(host) = Namespace::new() else { return };
        if Kernel::running().unwrap() < (Kernel { major: 6, minor: 3 }) {
            return;
        }
        host.ip("link add near type veth peer name far");
        // The kernel does not say anew what changed while the far end was down.
        ["near", "far"].iter().for_each(|end| drop(host.ip(&format!("link set {end} up"))));
        let index = host.run(|| links::by_name(&mut Requests::routing().unwrap(), "near").unwrap().index);
        assert_eq!(host.run(move || takes_frames(index)).unwrap(), Some(false));
        host.command("ethtool", "-K far gro on");
        assert_eq!(host.run(move || takes_frames(index)).unwrap(), Some(true));
    }
}
