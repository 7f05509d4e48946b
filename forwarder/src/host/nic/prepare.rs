//! What a NIC must not do while frames are taken from it by XDP, and putting it back afterwards.

use tracing::warn;

use super::super::Result;
use super::super::links::Link;
use super::ethtool::Ethtool;

/// Features that change frames before XDP sees them, with what goes wrong.
const HARMFUL: &[(&str, &str)] = &[
    ("rx-vlan-hw-parse", "it takes VLAN tags out of frames, and VLANs would merge"),
    ("rx-vlan-stag-hw-parse", "it takes service VLAN tags out of frames, and VLANs would merge"),
    ("rx-gro-hw", "it joins TCP segments into frames longer than XDP takes"),
    ("rx-lro", "it joins TCP segments into frames longer than XDP takes"),
];

/// A NIC prepared for XDP; put back when dropped. After a `kill -9` the features stay off: that costs the host some
/// speed until they are turned on again or the machine is started anew, and breaks nothing.
#[derive(Debug)]
#[must_use = "dropping it puts the NIC back"]
pub struct Preparation {
    ethtool: Ethtool,
    nic: Link,
    changed: Vec<&'static str>,
    refused: Vec<String>,
}

impl Preparation {
    /// Turns off what is harmful and on.
    pub fn of(nic: &Link) -> Result<Self> {
        let nic = nic.clone();
        let mut this = Self { ethtool: Ethtool::open()?, nic, changed: Vec::new(), refused: Vec::new() };
        for (feature, harm) in HARMFUL {
            this.turn_off(feature, harm)?;
        }
        Ok(this)
    }

    /// Features that were on and are now off.
    pub fn changed(&self) -> &[&'static str] {
        &self.changed
    }

    /// What could not be changed: a sentence each, with what it means.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    fn turn_off(&mut self, feature: &'static str, harm: &str) -> Result<()> {
        if !self.is_on(feature)? {
            return Ok(());
        }
        let outcome = self.ethtool.set_feature(self.nic.index, feature, false);
        if self.is_on(feature)? {
            let why = outcome.err().map(|error| format!(" ({error})")).unwrap_or_default();
            let nic = &self.nic.name;
            self.refused.push(format!("{feature} of {nic} cannot be turned off{why}: {harm}"));
        } else {
            self.changed.push(feature);
        }
        Ok(())
    }

    fn is_on(&mut self, feature: &str) -> Result<bool> {
        Ok(self.ethtool.active_features(self.nic.index)?.contains(feature))
    }
}

impl Drop for Preparation {
    fn drop(&mut self) {
        for feature in self.changed.drain(..).rev() {
            if let Err(error) = self.ethtool.set_feature(self.nic.index, feature, true) {
                warn!("{}: {error}; `ethtool -K` can", self.nic.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::links;
    use crate::host::netlink::Requests;
    use crate::host::testing::Namespace;

    #[test]
    fn vlan_stripping_is_off_while_prepared_and_on_again_afterwards() {
        let Some(host) = Namespace::new() else { return };
        host.ip("link add uplink numrxqueues 3 numtxqueues 3 type veth peer name wire");
        let shown = |host: &Namespace| {
            let features = host.command("ethtool", "-k uplink");
            features.lines().any(|line| line == "rx-vlan-offload: on")
        };
        assert!(shown(&host), "a veth strips VLAN tags unless told otherwise");
        let prepared = host.run(|| {
            let nic = links::by_name(&mut Requests::routing().unwrap(), "uplink").unwrap();
            let mut prepared = Preparation::of(&nic).unwrap();
            assert!(prepared.changed().contains(&"rx-vlan-hw-parse"), "{:?}", prepared.changed());
            assert!(prepared.refused().is_empty(), "{:?}", prepared.refused());
            assert_eq!(prepared.ethtool.receive_queues(nic.index).unwrap(), Some(3));
            prepared
        });
        assert!(!shown(&host));
        host.run(move || drop(prepared));
        assert!(shown(&host));
    }

    #[test]
    fn an_interface_that_is_gone_is_an_error_with_its_number() {
        let Some(host) = Namespace::new() else { return };
        host.run(|| {
            let gone = links::sample(4711, [2; 6]);
            let error = Preparation::of(&gone).unwrap_err().to_string();
            assert!(error.starts_with("cannot read the features of interface 4711"), "{error}");
        });
    }
}
