//! What [`super::Preparation`] would change on a NIC, without changing it.

use super::super::links::Link;
use super::super::netlink::Requests;
use super::super::{Error, Result};
use super::ethtool::Ethtool;
use super::far_end::FarEnd;
use super::prepare::{HARMFUL, UNFINISHED};

/// A feature that is on and should not be while XDP runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTheWay {
    /// By the kernel's name.
    pub feature: &'static str,
    /// What goes wrong.
    pub harm: &'static str,
    /// It cannot be turned off.
    pub fixed: bool,
}

/// The far end of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarSide {
    /// Its name in its namespace.
    pub name: String,
    /// What it leaves undone when it sends.
    pub unfinished: Vec<&'static str>,
}

/// A NIC as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What it does to frames.
    pub in_the_way: Vec<InTheWay>,
    /// Of a veth: the far end, or why it cannot be looked at.
    pub far_side: Option<std::result::Result<FarSide, String>>,
}

impl Look {
    /// Reads the features of `nic` and of its far end. A far end in another network namespace needs CAP_SYS_ADMIN.
    pub fn at(nic: &Link) -> Result<Self> {
        let mut ethtool = Ethtool::open()?;
        let (active, fixed) = (ethtool.active_features(nic.index)?, ethtool.fixed_features(nic.index)?);
        let on = HARMFUL.iter().filter(|(feature, _)| active.contains(*feature));
        let in_the_way =
            on.map(|&(feature, harm)| InTheWay { feature, harm, fixed: fixed.contains(feature) });
        let veth = nic.kind.as_deref() == Some("veth");
        let far_side = veth.then(|| far_side(nic)).transpose()?;
        Ok(Self { in_the_way: in_the_way.collect(), far_side })
    }
}

/// The outer error: the process is in another namespace and cannot come back.
fn far_side(nic: &Link) -> Result<std::result::Result<FarSide, String>> {
    let mut requests = Requests::routing().map_err(Error::os("open a routing netlink socket"))?;
    let far = match FarEnd::of(nic, &mut requests) {
        Ok(far) => far,
        Err(why) => return Ok(Err(why.to_string())),
    };
    let reached = far.ethtool(&mut requests)?;
    let looked = reached.and_then(|(mut ethtool, _)| ethtool.active_features(far.index));
    let side = looked.map(|active| FarSide {
        name: far.name,
        unfinished: UNFINISHED
            .iter()
            .map(|(feature, _)| *feature)
            .filter(|name| active.contains(*name))
            .collect(),
    });
    Ok(side.map_err(|why| why.to_string()))
}
