//! The far end of a veth: whatever it sends is what the near end receives, so it is there that frames must be finished.

use common::Mac;
use neli::consts::rtnl::{Ifla, RtAddrFamily};
use neli::rtnl::{Ifinfomsg, IfinfomsgBuilder};
use nix::libc;

use super::super::links::{Link, invalid, put};
use super::super::netlink::Requests;
use super::super::netlink::wire::{Attributes, body};
use super::super::{Error, Result};
use super::ethtool::Ethtool;
use super::journal::Namespace;
use super::namespaces;

/// The far end of a veth.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FarEnd {
    /// Its number, in its namespace.
    pub index: u32,
    /// Its name there.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// The number its namespace has in ours; `None`: it is in ours.
    namespace: Option<i32>,
}

impl FarEnd {
    /// Asks the kernel for the other end of `nic`, a veth.
    pub fn of(nic: &Link, requests: &mut Requests) -> Result<Self> {
        let asked = IfinfomsgBuilder::default()
            .ifi_family(RtAddrFamily::Unspecified)
            .ifi_index(i32::try_from(nic.index).map_err(invalid)?)
            .build()
            .map_err(invalid)?;
        let ends = read(requests, &asked, |attributes| {
            let index = attributes.number(Ifla::Link).filter(|index| *index != 0)?;
            Some((index, attributes.array(Ifla::LinkNetnsid).map(i32::from_ne_bytes)))
        });
        let found = ends.map_err(Error::os(format!("read the far end of {}", nic.name)))?;
        let (index, namespace) =
            found.ok_or_else(|| Error::Unfit("the kernel does not say which it is".into()))?;
        let (name, mac) = name(requests, index, namespace)?;
        Ok(Self { index, name: name.unwrap_or_else(|| format!("interface {index}")), mac, namespace })
    }

    /// A way to its settings. It lasts when privileges are reduced to CAP_NET_ADMIN, for a netlink socket stays in the
    /// namespace it was opened in; and as long as it is held, so does that namespace.
    ///
    /// # Errors
    /// As of [`namespaces::inside`].
    pub fn ethtool(&self, requests: &mut Requests) -> Result<Result<(Ethtool, Namespace)>> {
        let open = || Ok((Ethtool::open()?, namespaces::here()?));
        let Some(id) = self.namespace else { return Ok(open()) };
        match namespaces::by_id(requests, id) {
            Ok(Some(namespace)) => namespaces::inside(&namespace, open),
            Ok(None) => Ok(Err(unseen())),
            Err(error) => Ok(Err(error)),
        }
    }
}

fn unseen() -> Error {
    Error::Unfit(
        "neither a name nor a process that trestle may look at leads to its network namespace".into(),
    )
}

/// Names and addresses can be asked for across namespaces without entering them; `None` where even that is not to be
/// had.
fn name(
    requests: &mut Requests,
    index: u32,
    namespace: Option<i32>,
) -> Result<(Option<String>, Option<Mac>)> {
    let across = namespace.map(|id| put(Ifla::IfNetnsid, id)).transpose()?;
    let asked = IfinfomsgBuilder::default()
        .ifi_family(RtAddrFamily::Unspecified)
        .ifi_index(i32::try_from(index).map_err(invalid)?)
        .rtattrs(across.into_iter().collect())
        .build()
        .map_err(invalid)?;
    let read = read(requests, &asked, |attributes| {
        Some((attributes.text(Ifla::Ifname), attributes.array(Ifla::Address)))
    });
    Ok(read.ok().flatten().unwrap_or_default())
}

fn read<T>(
    requests: &mut Requests,
    asked: &Ifinfomsg,
    pick: impl Fn(Attributes<'_, Ifla>) -> Option<T>,
) -> std::io::Result<Option<T>> {
    requests.request(libc::RTM_GETLINK, 0, asked, |found: &mut Option<T>, _, rest| {
        if let Some(info) = body::<Ifinfomsg>(rest) {
            *found = found.take().or_else(|| pick(Attributes::of(info.rtattrs())));
        }
    })
}
