//! Peers' stations in the kernel bridge that we have joined: on our port, as long as they stand behind a peer.
//!
//! What the workers carry past the bridge it would forget and then flood; `bridge fdb` and `brctl showmacs` would say
//! nothing of them.

use std::collections::BTreeSet;

use common::FdbKey;

use crate::{
    host::{
        self,
        bridge::remove_stations,
        links::{enter_station, entered_stations, remove_station},
        netlink::Requests,
    },
    switch::{Change, Port},
};

/// What of the MAC table the bridge is told. Bounded as the table is.
#[derive(Debug)]
pub(super) struct PeerEntries {
    requests: Requests,
    /// Number of our port's interface.
    port: u32,
    /// VLAN and address of what is entered.
    entered: BTreeSet<(u16, common::Mac)>,
}

impl PeerEntries {
    /// On the port with that number, from which what a killed gateway left is taken away.
    pub fn open(port: u32) -> host::Result<Self> {
        let mut requests = Requests::routing().map_err(host::Error::os("talk to netlink"))?;
        let left = entered_stations(&mut requests, port)?;
        remove_stations(&mut requests, port, &left)?;
        Ok(Self { requests, port, entered: BTreeSet::new() })
    }

    /// The MAC table has changed.
    pub fn follow(&mut self, change: Change) {
        let (key, port) = (change.key, change.station.map(|station| station.port));
        let told = match port {
            Some(Port::Peer(_)) if self.entered.insert(name(key)) => self.enter(key),
            Some(Port::Peer(_)) => Ok(()),
            _ if !self.entered.remove(&name(key)) => Ok(()),
            None => remove_station(&mut self.requests, self.port, key),
            // The bridge itself has said that it stands elsewhere now.
            Some(Port::Wire(_) | Port::Host) => Ok(()),
        };
        if let Err(error) = told {
            tracing::warn!(?key, "{error}");
        }
    }

    /// Somebody has taken the entry of `key` away from our port, by a flush perhaps: if it is ours, it is entered again.
    pub fn restore(&mut self, key: FdbKey) {
        if self.entered.contains(&name(key))
            && let Err(error) = self.enter(key)
        {
            tracing::warn!(?key, "{error}");
        }
    }

    /// Our port has come back into the bridge, which has forgotten everything of it.
    pub fn restore_all(&mut self) {
        let entered: Vec<_> = self.entered.iter().copied().collect();
        entered.into_iter().for_each(|(vlan, mac)| self.restore(FdbKey::new(vlan, mac)));
    }

    /// What the bridge does not take is not entered: it is tried again when the station is news again.
    fn enter(&mut self, key: FdbKey) -> host::Result<()> {
        let outcome = enter_station(&mut self.requests, self.port, key);
        if outcome.is_err() {
            self.entered.remove(&name(key));
        }
        outcome
    }
}

/// A port that outlives us (the operator's own TAP) keeps nothing of ours.
impl Drop for PeerEntries {
    fn drop(&mut self) {
        let entered = std::mem::take(&mut self.entered);
        let keys: Vec<FdbKey> = entered.into_iter().map(|(vlan, mac)| FdbKey::new(vlan, mac)).collect();
        if let Err(error) = remove_stations(&mut self.requests, self.port, &keys) {
            tracing::warn!("{error}");
        }
    }
}

fn name(key: FdbKey) -> (u16, common::Mac) {
    (key.vlan, key.mac)
}
