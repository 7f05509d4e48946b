//! What a NIC must not do while frames are taken from it by XDP, and putting it back afterwards.

use common::Mac;
use nix::libc;
use tracing::warn;

use super::super::links::Link;
use super::super::netlink::Requests;
use super::super::{Error, Result};
use super::ethtool::Ethtool;
use super::far_end::FarEnd;
use super::journal::{self, Change, Entry, Namespace};
use super::namespaces;

/// Features that change frames before XDP sees them, with what goes wrong.
pub(super) const HARMFUL: &[(&str, &str)] = &[
    ("rx-vlan-hw-parse", "it takes VLAN tags out of frames, and VLANs would merge"),
    ("rx-vlan-stag-hw-parse", "it takes service VLAN tags out of frames, and VLANs would merge"),
    ("rx-gro-hw", "it joins TCP segments into frames longer than XDP takes"),
    ("rx-lro", "it joins TCP segments into frames longer than XDP takes"),
];

/// Features by which the far end of a veth leaves work to "hardware" that nobody is: frames arrive without it done.
pub(super) const UNFINISHED: &[(&str, &str)] = &[
    ("tx-vlan-hw-insert", "frames it sends lose their VLAN tags, and VLANs would merge"),
    ("tx-vlan-stag-hw-insert", "frames it sends lose their service VLAN tags, and VLANs would merge"),
    ("tx-checksum-sctp", "SCTP it sends arrives with wrong checksums"),
    // Without it the kernel also cuts TCP into segments before the far end sends them. Native XDP has that done anyway;
    // generic XDP does not, and there it costs: measured, the LAN's TCP to the host itself goes at 4.5 instead of
    // 9 Gbit/s, to peers at the same speed. The worker finishes plain TCP and UDP, but not what is inside a tunnel.
    ("tx-checksum-ip-generic", "tunnels (VXLAN, GRE) it sends have wrong checksums inside"),
];

/// A NIC prepared for XDP, with the far end if it is a veth; put back when dropped, also after privileges were reduced
/// to CAP_NET_ADMIN. After a `kill -9` the features stay off until the next start finds them in the [`journal`]: that
/// costs some speed, and breaks nothing.
#[derive(Debug)]
#[must_use = "dropping it puts the NIC back"]
pub struct Preparation {
    near: End,
    far: Option<End>,
    refused: Vec<String>,
}

impl Preparation {
    /// Turns off what is harmful and on. A far end in another network namespace needs CAP_SYS_ADMIN, and is entered for
    /// a moment: the process must have one thread.
    pub fn of(nic: &Link) -> Result<Self> {
        let mut near = End::of(Ethtool::open()?, namespaces::here()?, nic.index, &nic.name, nic.mac);
        let refused = near.turn_off(HARMFUL)?;
        let mut this = Self { near, far: None, refused };
        if nic.kind.as_deref() == Some("veth") {
            this.prepare_far_end(nic)?;
        }
        Ok(this)
    }

    /// Features that were on and are now off, each with its interface.
    pub fn changed(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let ends = [Some(&self.near), self.far.as_ref()].into_iter().flatten();
        ends.flat_map(|end| end.changed.iter().map(|(feature, _)| (end.name.as_str(), *feature)))
    }

    /// What could not be changed: a sentence each, with what it means.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    fn prepare_far_end(&mut self, nic: &Link) -> Result<()> {
        let mut requests = Requests::routing().map_err(Error::os("open a routing netlink socket"))?;
        let far = match FarEnd::of(nic, &mut requests) {
            Ok(far) => far,
            Err(why) => {
                self.refused.push(unreachable(nic, None, &why));
                return Ok(());
            }
        };
        let reached = far.ethtool(&mut requests)?;
        let end =
            reached.map(|(ethtool, namespace)| End::of(ethtool, namespace, far.index, &far.name, far.mac));
        let prepared = end.and_then(|end| self.far.insert(end).turn_off(UNFINISHED));
        self.refused.extend(prepared.unwrap_or_else(|why| vec![unreachable(nic, Some(&far.name), &why)]));
        Ok(())
    }
}

fn unreachable(nic: &Link, far: Option<&str>, why: &Error) -> String {
    let nic = &nic.name;
    let which = far.map(|far| format!(", {far},")).unwrap_or_default();
    let far = far.unwrap_or("FAR");
    format!(
        "the far end of {nic}{which} cannot be prepared ({why}): frames it sends lose their VLAN tags, and VLANs \
         merge, unless `ethtool -K {far} tx off txvlan off tx-vlan-stag-hw-insert off` was run in its network \
         namespace; or run with --datapath socket"
    )
}

/// One interface, and what was changed on it.
#[derive(Debug)]
struct End {
    ethtool: Ethtool,
    namespace: Namespace,
    index: u32,
    name: String,
    mac: Option<Mac>,
    /// Each with what the journal has of it.
    changed: Vec<(&'static str, Entry)>,
}

impl End {
    fn of(ethtool: Ethtool, namespace: Namespace, index: u32, name: &str, mac: Option<Mac>) -> Self {
        Self { ethtool, namespace, index, name: name.to_owned(), mac, changed: Vec::new() }
    }

    /// Turns off those that are on; a sentence for each that stays on.
    fn turn_off(&mut self, features: &[(&'static str, &str)]) -> Result<Vec<String>> {
        let refusals = features.iter().map(|(feature, harm)| self.turn_one_off(feature, harm));
        refusals.filter_map(Result::transpose).collect()
    }

    fn turn_one_off(&mut self, feature: &'static str, harm: &str) -> Result<Option<String>> {
        if !self.is_on(feature)? {
            return Ok(None);
        }
        // Written down first: between the two somebody may kill us.
        let entry = journal::enter(self.change(feature));
        let outcome = self.ethtool.set_feature(self.index, feature, false);
        if self.is_on(feature)? {
            entry.strike();
            let why = outcome.err().map(|error| format!(" ({error})")).unwrap_or_default();
            let name = &self.name;
            return Ok(Some(format!("{feature} of {name} cannot be turned off{why}: {harm}")));
        }
        self.changed.push((feature, entry));
        Ok(None)
    }

    fn change(&self, feature: &str) -> Change {
        Change {
            namespace: self.namespace,
            index: self.index,
            name: self.name.clone(),
            mac: self.mac,
            feature: feature.to_owned(),
            was: true,
            set: false,
        }
    }

    fn is_on(&mut self, feature: &str) -> Result<bool> {
        Ok(self.ethtool.active_features(self.index)?.contains(feature))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        for (feature, entry) in self.changed.drain(..).rev() {
            match self.ethtool.set_feature(self.index, feature, true) {
                // An interface that is gone has nothing to put back.
                Err(error) if error.errno() != Some(libc::ENODEV) => {
                    warn!("{}: {error}; `ethtool -K` can", self.name);
                }
                _ => entry.strike(),
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
    use caps::{CapSet, Capability};
    use std::process::{Child, Command};

    /// What a veth leaves undone when it sends, as `ethtool -k` shows it.
    const SENDING: [&str; 4] =
        ["tx-checksum-ip-generic", "tx-checksum-sctp", "tx-vlan-offload", "tx-vlan-stag-hw-insert"];

    /// Those of [`SENDING`] that are on.
    fn left_undone(features: &str) -> Vec<&'static str> {
        let lines: Vec<_> = features.lines().map(str::trim).collect();
        SENDING.into_iter().filter(|name| lines.contains(&format!("{name}: on").as_str())).collect()
    }

    fn prepare(host: &Namespace) -> Preparation {
        host.run(|| {
            let nic = links::by_name(&mut Requests::routing().unwrap(), "uplink").unwrap();
            Preparation::of(&nic).unwrap()
        })
    }

    /// Has the thread that is in `host` keep no capability but `kept`, as after [`crate::host::privileges`].
    fn keep_only<const N: usize>(host: &Namespace, kept: [Capability; N]) {
        host.run(move || {
            let kept = kept.into();
            caps::set(None, CapSet::Effective, &kept).unwrap();
            caps::set(None, CapSet::Permitted, &kept).unwrap();
        });
    }

    /// A process that shows its namespace to others.
    struct Resident(Child);

    impl Resident {
        fn of(namespace: &Namespace) -> Self {
            Self(namespace.run(|| Command::new("sleep").arg("60").spawn().unwrap()))
        }
    }

    impl Drop for Resident {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A namespace with a name.
    struct Named(String);

    impl Named {
        fn new(host: &Namespace) -> Self {
            let name = format!("trestle-far-end-{}", std::process::id());
            host.ip(&format!("netns add {name}"));
            Self(name)
        }
    }

    impl Drop for Named {
        fn drop(&mut self) {
            let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
        }
    }

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
            assert!(
                prepared.changed().any(|(name, feature)| (name, feature) == ("uplink", "rx-vlan-hw-parse"))
            );
            assert!(prepared.refused().is_empty(), "{:?}", prepared.refused());
            assert_eq!(prepared.near.ethtool.receive_queues(nic.index).unwrap(), Some(3));
            prepared
        });
        assert!(!shown(&host));
        host.run(move || drop(prepared));
        assert!(shown(&host));
    }

    #[test]
    fn a_far_end_in_the_same_namespace_sends_finished_frames_while_prepared() {
        let Some(host) = Namespace::new() else { return };
        host.ip("link add uplink type veth peer name wire");
        let shown = |interface: &str| left_undone(&host.command("ethtool", &format!("-k {interface}")));
        let prepared = prepare(&host);
        assert!(prepared.refused().is_empty(), "{:?}", prepared.refused());
        assert_eq!(prepared.changed().filter(|(name, _)| *name == "wire").count(), SENDING.len());
        assert_eq!(shown("wire"), [""; 0]);
        assert_eq!(shown("uplink"), SENDING, "what we send ourselves is not the far end's business");
        host.run(move || drop(prepared));
        assert_eq!(shown("wire"), SENDING);
    }

    #[test]
    fn a_far_end_in_another_namespace_is_found_by_a_process_and_put_back_with_cap_net_admin_alone() {
        let (Some(host), Some(lan)) = (Namespace::new(), Namespace::new()) else { return };
        host.join("uplink", &lan, "wire");
        let shown = || left_undone(&lan.command("ethtool", "-k wire"));
        let resident = Resident::of(&lan);
        let prepared = prepare(&host);
        drop(resident);
        assert!(prepared.refused().is_empty(), "{:?}", prepared.refused());
        assert_eq!(shown(), [""; 0]);
        keep_only(&host, [Capability::CAP_NET_ADMIN]);
        host.run(move || drop(prepared));
        assert_eq!(shown(), SENDING);
    }

    #[test]
    fn a_far_end_in_a_namespace_with_a_name_is_found_by_it() {
        let Some(host) = Namespace::new() else { return };
        let lan = Named::new(&host);
        host.ip(&format!("link add uplink type veth peer name wire netns {}", lan.0));
        let shown =
            || left_undone(&host.command("nsenter", &format!("--net=/run/netns/{} ethtool -k wire", lan.0)));
        let prepared = prepare(&host);
        assert!(prepared.refused().is_empty(), "{:?}", prepared.refused());
        assert_eq!(shown(), [""; 0]);
        host.run(move || drop(prepared));
        assert_eq!(shown(), SENDING);
    }

    #[test]
    fn a_far_end_that_cannot_be_reached_is_named_with_the_cure() {
        let (Some(host), Some(lan)) = (Namespace::new(), Namespace::new()) else { return };
        host.join("uplink", &lan, "wire");
        // Only a thread of this process is in it, and threads are not looked at.
        let prepared = prepare(&host);
        let [refused] = prepared.refused() else { panic!("{:?}", prepared.refused()) };
        assert!(
            refused.starts_with("the far end of uplink, wire, cannot be prepared (neither a name"),
            "{refused}"
        );
        assert!(
            refused.contains("`ethtool -K wire tx off txvlan off tx-vlan-stag-hw-insert off`"),
            "{refused}"
        );
        lan.command("ethtool", "-K wire tx off txvlan off tx-vlan-stag-hw-insert off");
        assert_eq!(left_undone(&lan.command("ethtool", "-k wire")), [""; 0], "the cure does the same");
    }

    #[test]
    fn who_may_not_enter_the_far_end_s_namespace_stays_where_it_is() {
        let (Some(host), Some(lan)) = (Namespace::new(), Namespace::new()) else { return };
        host.join("uplink", &lan, "wire");
        let _resident = Resident::of(&lan);
        // The second lets it look at other processes' namespaces.
        keep_only(&host, [Capability::CAP_NET_ADMIN, Capability::CAP_SYS_PTRACE]);
        let prepared = prepare(&host);
        let [refused] = prepared.refused() else { panic!("{:?}", prepared.refused()) };
        assert!(refused.contains("(cannot enter its network namespace: "), "{refused}");
        assert!(!left_undone(&lan.command("ethtool", "-k wire")).is_empty());
        host.run(|| links::by_name(&mut Requests::routing().unwrap(), "uplink").map(drop)).unwrap();
    }

    #[test]
    fn a_far_end_that_vanished_has_nothing_to_put_back() {
        let Some(host) = Namespace::new() else { return };
        host.ip("link add uplink type veth peer name wire");
        let mut prepared = prepare(&host);
        host.ip("link del wire");
        let error = host.run(move || prepared.far.as_mut().unwrap().is_on("tx-vlan-hw-insert")).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENODEV));
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
