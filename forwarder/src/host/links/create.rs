//! Making interfaces.

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifla, IflaInfo};
use neli::types::Buffer;
use nix::libc;

use super::super::netlink::Requests;
use super::super::{Error, Result};
use super::{invalid, put, question};

/// Makes a veth called `name`, in the namespace of the calling thread; the kernel names its far end. Both are down.
///
/// # Errors
/// What the kernel says.
pub fn create_veth(requests: &mut Requests, name: &str) -> Result<()> {
    let kind = put(IflaInfo::Kind, "veth")?;
    let info = put(Ifla::Linkinfo, Buffer::new())?.nest(&kind).map_err(invalid)?;
    let attributes = [put(Ifla::Ifname, name)?, info];
    let message = question().rtattrs(attributes.into_iter().collect()).build().map_err(invalid)?;
    let flags = i32::from((NlmF::CREATE | NlmF::EXCL).bits());
    requests.order(libc::RTM_NEWLINK, flags, &message).map_err(Error::os(format!("make the veth {name}")))
}
