//! Stations that we vouch for, in the forwarding database of a kernel bridge: on a port of it, and of our making
//! (`extern_learn`). The bridge neither ages them nor flushes them; where they are heard at another port they move there.
//! Kernel: `br_fdb_external_learn_add` and `br_fdb_update` in net/bridge/br_fdb.c.

use common::FdbKey;
use neli::consts::rtnl::{Nda, Ntf, Nud, RtAddrFamily, Rtn};
use neli::rtnl::{Ndmsg, NdmsgBuilder};
use nix::libc;

use super::super::netlink::Requests;
use super::super::netlink::wire::{Attributes, body};
use super::super::{Error, Result};
use super::{invalid, put, unicast_filter::BRIDGE};

/// Enters the station `key` at `port` of a bridge, or moves it there.
pub fn enter_station(requests: &mut Requests, port: u32, key: FdbKey) -> Result<()> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    requests
        .order(libc::RTM_NEWNEIGH, flags, &entry(port, key, Ntf::EXT_LEARNED)?)
        .map_err(Error::os("enter a peer's station into the bridge"))
}

/// Takes the station `key` away from `port`. It may have moved to another one, or be gone: that is no error.
pub fn remove_station(requests: &mut Requests, port: u32, key: FdbKey) -> Result<()> {
    match requests.order(libc::RTM_DELNEIGH, 0, &entry(port, key, Ntf::EXT_LEARNED)?) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        other => other.map_err(Error::os("take a peer's station out of the bridge")),
    }
}

/// The stations that somebody entered at `port` in this way.
pub fn entered_stations(requests: &mut Requests, port: u32) -> Result<Vec<FdbKey>> {
    let everything = NdmsgBuilder::default()
        .ndm_family(RtAddrFamily::UnrecognizedConst(BRIDGE))
        .ndm_index(0)
        .ndm_state(Nud::empty())
        .ndm_type(Rtn::Unspec)
        .build()
        .map_err(invalid)?;
    requests
        .dump(libc::RTM_GETNEIGH, &everything, |found: &mut Vec<_>, _, rest| {
            found.extend(entered(rest, port))
        })
        .map_err(Error::os("read the bridge's stations"))
}

/// The entry of the station `key` at `port`, for the port's bridge.
pub(in crate::host) fn entry(port: u32, key: FdbKey, flags: Ntf) -> Result<Ndmsg> {
    let vlan = (key.vlan != 0).then(|| put(Nda::Vlan, key.vlan)).transpose()?;
    let mac = put(Nda::Lladdr, &key.mac[..])?;
    NdmsgBuilder::default()
        .ndm_family(RtAddrFamily::UnrecognizedConst(BRIDGE))
        .ndm_index(i32::try_from(port).map_err(invalid)?)
        .ndm_state(Nud::REACHABLE)
        .ndm_flags(Ntf::MASTER | flags)
        .ndm_type(Rtn::Unspec)
        .rtattrs([mac].into_iter().chain(vlan).collect())
        .build()
        .map_err(invalid)
}

fn entered(rest: &[u8], port: u32) -> Option<FdbKey> {
    let entry: Ndmsg = body(rest)?;
    let there = u32::try_from(*entry.ndm_index()).ok()? == port;
    let attributes = Attributes::of(entry.rtattrs());
    let key = FdbKey::new(
        attributes.array(Nda::Vlan).map_or(0, u16::from_ne_bytes),
        attributes.array(Nda::Lladdr)?,
    );
    (there && entry.ndm_flags().contains(Ntf::EXT_LEARNED)).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::super::by_name;
    use super::*;
    use crate::host::testing::Namespace;

    const KEY: FdbKey = FdbKey::new(0, [2, 0, 0, 0, 0, 0x77]);

    #[test]
    fn a_station_is_entered_found_and_removed_and_one_that_moved_stays() {
        let Some(host) = Namespace::new() else { return };
        for words in [
            "add br0 type bridge",
            "add near type veth peer name far",
            "set near master br0",
            "set far master br0",
        ] {
            host.ip(&format!("link {words}"));
        }
        let shown = |host: &Namespace| host.command("bridge", "fdb show br br0");
        let entry = "02:00:00:00:00:77 dev near extern_learn master br0";
        host.run(|| {
            let mut requests = Requests::routing().unwrap();
            let port = by_name(&mut requests, "near").unwrap().index;
            enter_station(&mut requests, port, KEY).unwrap();
            enter_station(&mut requests, port, KEY).unwrap();
            assert_eq!(entered_stations(&mut requests, port).unwrap(), [KEY]);
        });
        assert!(shown(&host).contains(entry), "{}", shown(&host));
        host.run(|| {
            let mut requests = Requests::routing().unwrap();
            let port = by_name(&mut requests, "near").unwrap().index;
            remove_station(&mut requests, port, KEY).unwrap();
            remove_station(&mut requests, port, KEY).unwrap();
        });
        assert!(!shown(&host).contains("00:77"), "{}", shown(&host));
        host.run(|| {
            let mut requests = Requests::routing().unwrap();
            let [near, far] = ["near", "far"].map(|name| by_name(&mut requests, name).unwrap().index);
            enter_station(&mut requests, near, KEY).unwrap();
            enter_station(&mut requests, far, KEY).unwrap();
            remove_station(&mut requests, near, KEY).unwrap();
            assert_eq!(entered_stations(&mut requests, near).unwrap(), []);
        });
        assert!(shown(&host).contains("02:00:00:00:00:77 dev far"), "{}", shown(&host));
    }
}
