//! NIC features and queues over ethtool's netlink family (kernel: Documentation/networking/ethtool-netlink.rst).

use std::collections::BTreeSet;

use neli::genl::{AttrTypeBuilder, Genlmsghdr, GenlmsghdrBuilder, Nlattr, NlattrBuilder};
use neli::types::{Buffer, GenlBuffer};
use neli::{Size, ToBytes};
use nix::libc;

use super::super::links::invalid;
use super::super::netlink::Requests;
use super::super::netlink::generic::Family;
use super::super::netlink::wire::body;
use super::super::{Error, Result};

type Message = Genlmsghdr<u8, u16>;
type Attribute = Nlattr<u16, Buffer>;

/// Numbers from include/uapi/linux/ethtool_netlink.h.
mod number {
    pub(super) const FEATURES_GET: u8 = 11;
    pub(super) const FEATURES_SET: u8 = 12;
    pub(super) const CHANNELS_GET: u8 = 17;

    pub(super) const HEADER: u16 = 1;
    pub(super) const DEV_INDEX: u16 = 1;

    pub(super) const FEATURES_WANTED: u16 = 3;
    pub(super) const FEATURES_ACTIVE: u16 = 4;
    pub(super) const FEATURES_NOCHANGE: u16 = 5;
    pub(super) const CHANNELS_RX_COUNT: u16 = 6;
    pub(super) const CHANNELS_COMBINED_COUNT: u16 = 9;

    pub(super) const BITSET_NOMASK: u16 = 1;
    pub(super) const BITSET_BITS: u16 = 3;
    pub(super) const BITS_BIT: u16 = 1;
    pub(super) const BIT_NAME: u16 = 2;
    pub(super) const BIT_VALUE: u16 = 3;
}

/// The way to ethtool's settings.
#[derive(Debug)]
pub struct Ethtool {
    requests: Requests,
    family: u16,
}

impl Ethtool {
    /// Finds the family; kernels have it since 5.6.
    pub fn open() -> Result<Self> {
        let mut requests = Requests::generic().map_err(Error::os("open a generic netlink socket"))?;
        let family =
            Family::find(&mut requests, "ethtool").map_err(Error::os("find ethtool's netlink family"))?.id;
        Ok(Self { requests, family })
    }

    /// Features of an interface that are on, by the kernel's names (`ethtool -k` has others for some).
    pub fn active_features(&mut self, index: u32) -> Result<BTreeSet<String>> {
        self.features(index, number::FEATURES_ACTIVE)
    }

    /// Features of an interface that cannot be changed, on or off.
    pub fn fixed_features(&mut self, index: u32) -> Result<BTreeSet<String>> {
        self.features(index, number::FEATURES_NOCHANGE)
    }

    fn features(&mut self, index: u32, which: u16) -> Result<BTreeSet<String>> {
        let question = message(number::FEATURES_GET, [device(index)?])?;
        self.requests
            .request(self.family, 0, &question, |found: &mut BTreeSet<_>, _, rest| {
                found.extend(set_bits(rest, which).unwrap_or_default());
            })
            .map_err(Error::os(format!("read the features of interface {index}")))
    }

    /// Asks for a feature to be on or off. Whether the driver complies, [`Ethtool::active_features`] tells: some
    /// features hang together, some cannot be changed, and neither is an error.
    pub fn set_feature(&mut self, index: u32, name: &str, on: bool) -> Result<()> {
        let mut bit = vec![leaf(number::BIT_NAME, name)?];
        if on {
            bit.push(leaf(number::BIT_VALUE, Buffer::new())?);
        }
        let bits = nest(number::BITSET_BITS, [nest(number::BITS_BIT, bit)?])?;
        let order = message(number::FEATURES_SET, [device(index)?, nest(number::FEATURES_WANTED, [bits])?])?;
        let turn = if on { "on" } else { "off" };
        self.requests
            .order(self.family, 0, &order)
            .map_err(Error::os(format!("turn {name} {turn} on interface {index}")))
    }

    /// Receive queues in use; `None` where the driver does not say.
    pub fn receive_queues(&mut self, index: u32) -> Result<Option<u32>> {
        let question = message(number::CHANNELS_GET, [device(index)?])?;
        let answer = self.requests.request(self.family, 0, &question, |found: &mut u32, _, rest| {
            *found = found.saturating_add(queues(rest));
        });
        match answer {
            Ok(queues) => Ok((queues > 0).then_some(queues)),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
            Err(error) => Err(Error::os(format!("read the queues of interface {index}"))(error)),
        }
    }
}

fn queues(rest: &[u8]) -> u32 {
    let Some(answer) = body::<Message>(rest) else { return 0 };
    let count = |kind| find(answer.attrs().as_ref(), kind)?.try_into().ok().map(u32::from_ne_bytes);
    let (own, shared) = (count(number::CHANNELS_RX_COUNT), count(number::CHANNELS_COMBINED_COUNT));
    own.unwrap_or(0).saturating_add(shared.unwrap_or(0))
}

/// Names of a bitset's bits that are set. Without a mask those listed are; with one, those with a value.
fn set_bits(rest: &[u8], kind: u16) -> Option<BTreeSet<String>> {
    let answer: Message = body(rest)?;
    let set = attributes(find(answer.attrs().as_ref(), kind)?)?;
    let no_mask = find(&set, number::BITSET_NOMASK).is_some();
    let bits = attributes(find(&set, number::BITSET_BITS)?)?;
    Some(bits.iter().filter_map(|bit| set_bit(bit.nla_payload().as_ref(), no_mask)).collect())
}

fn set_bit(bit: &[u8], no_mask: bool) -> Option<String> {
    let bit = attributes(bit)?;
    let name = find(&bit, number::BIT_NAME)?.strip_suffix(&[0])?;
    let on = no_mask || find(&bit, number::BIT_VALUE).is_some();
    on.then(|| String::from_utf8_lossy(name).into_owned())
}

fn attributes(bytes: &[u8]) -> Option<Vec<Attribute>> {
    body::<GenlBuffer<u16, Buffer>>(bytes).map(|attributes| attributes.into_iter().collect())
}

fn find(attributes: &[Attribute], kind: u16) -> Option<&[u8]> {
    let found = attributes.iter().find(|attribute| *attribute.nla_type().nla_type() == kind)?;
    Some(found.nla_payload().as_ref())
}

fn message(command: u8, attributes: impl IntoIterator<Item = Attribute>) -> Result<Message> {
    let attributes = attributes.into_iter().collect();
    GenlmsghdrBuilder::default().cmd(command).version(1).attrs(attributes).build().map_err(invalid)
}

fn device(index: u32) -> Result<Attribute> {
    nest(number::HEADER, [leaf(number::DEV_INDEX, index)?])
}

fn leaf(kind: u16, payload: impl Size + ToBytes) -> Result<Attribute> {
    let kind = AttrTypeBuilder::default().nla_type(kind).build().map_err(invalid)?;
    NlattrBuilder::default().nla_type(kind).nla_payload(payload).build().map_err(invalid)
}

fn nest(kind: u16, inner: impl IntoIterator<Item = Attribute>) -> Result<Attribute> {
    let outer = leaf(kind, Buffer::new())?;
    inner.into_iter().try_fold(outer, |outer, inner| outer.nest(&inner).map_err(invalid))
}
