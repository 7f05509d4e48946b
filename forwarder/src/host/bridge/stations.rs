//! Telling the bridge of stations: those in use, so that they do not age, and those that we vouch for. Many in one go.

use common::FdbKey;
use neli::consts::rtnl::Ntf;
use neli::rtnl::Ndmsg;
use nix::libc;

use super::super::links::entry;
use super::super::netlink::Requests;
use super::super::{Error, Result};
use super::facts::{PortState, Station, StationKind};
use super::{Known, Mirror};

impl Mirror {
    /// Has the bridge take `stations` for heard just now, so that they do not age there. How many it was told of.
    ///
    /// To the bridge this is as if the station had sent a frame at its port, also where it moved away meanwhile
    /// (`NTF_USE`; `br_fdb_update` in net/bridge/br_fdb.c), and one that it has forgotten is learnt again. So what the
    /// kernel has told is read first, and only what is still learnt at the same port is touched. A station that moves
    /// within the microseconds in between is moved back until its next frame.
    pub fn touch(&mut self, stations: &[Station]) -> Result<usize> {
        self.read_news()?;
        let entries: Result<Vec<_>> = stations
            .iter()
            .filter(|station| may_touch(self.known(), station))
            .map(|station| entry(station.port, station.key, Ntf::USE))
            .collect();
        order(&mut self.requests, libc::RTM_NEWNEIGH, 0, &entries?, "keep stations from ageing")
    }
}

/// The kernel takes no VLAN for all of the port's (`br_fdb_add` in net/bridge/br_fdb.c): a station of a bridge that does
/// not filter would come to stand in every VLAN, so on ports of several it ages, and is learnt again by its next frame.
fn may_touch(known: &Known, station: &Station) -> bool {
    let Some(now) = known.station(&station.key) else { return false };
    let filters = known.bridge().is_some_and(|bridge| bridge.vlan_filtering);
    let learns = known.ports().get(&now.port).is_some_and(|port| {
        let in_one = match now.key.vlan {
            0 => {
                !filters
                    && port
                        .vlans
                        .ranges
                        .iter()
                        .all(|range| Some(range.first) == port.vlans.pvid && range.first == range.last)
            }
            _ => filters,
        };
        in_one
            && port.settings.learning
            && matches!(port.settings.state, PortState::Learning | PortState::Forwarding)
    });
    learns && now.port == station.port && now.kind == StationKind::Learned && !now.locked
}

/// Enters `keys` at `port` of a bridge as stations that we vouch for (`extern_learn`), or moves them there: the bridge
/// neither ages nor flushes them. How many it took; a port that left its bridge takes none.
pub fn enter_stations(requests: &mut Requests, port: u32, keys: &[FdbKey]) -> Result<usize> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    order(requests, libc::RTM_NEWNEIGH, flags, &entries(port, keys)?, "enter peers' stations into the bridge")
}

/// Takes `keys` away from `port`. Some may have moved to another one, or be gone: they are not among those counted.
pub fn remove_stations(requests: &mut Requests, port: u32, keys: &[FdbKey]) -> Result<usize> {
    order(requests, libc::RTM_DELNEIGH, 0, &entries(port, keys)?, "take peers' stations out of the bridge")
}

fn entries(port: u32, keys: &[FdbKey]) -> Result<Vec<Ndmsg>> {
    keys.iter().map(|key| entry(port, *key, Ntf::EXT_LEARNED)).collect()
}

fn order(requests: &mut Requests, kind: u16, flags: i32, entries: &[Ndmsg], doing: &str) -> Result<usize> {
    let mut done = 0;
    for answer in requests.order_all(kind, flags, entries).map_err(Error::os(doing))? {
        match answer {
            Ok(()) => done += 1,
            // The port is gone, left its bridge or lost the VLAN, or the entry is not there: all can happen meanwhile.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOENT | libc::ENODEV | libc::EINVAL | libc::EOPNOTSUPP)
                ) => {}
            Err(error) => return Err(Error::os(doing)(error)),
        }
    }
    Ok(done)
}
