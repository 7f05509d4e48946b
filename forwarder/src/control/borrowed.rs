//! The operator's own TAP as it was: one that the gateway makes vanishes with it, one that was there before is given back.

use super::plan::Plan;
use crate::host::{
    links::{self, Link, LinkChange},
    netlink::Requests,
};

/// An interface as it was found and as it was left; put back when dropped, as far as nobody else has changed it since.
/// After a `kill -9` it stays as it was left: set up, a port of the bridge, ready for the next start.
#[derive(Debug)]
#[must_use = "dropping it puts the interface back"]
pub(super) struct Borrowed {
    was: Link,
    /// It spoke IPv6, and the gateway has it silent.
    silenced: bool,
    left: Option<Link>,
}

impl Borrowed {
    /// Of the host port called `name`, before it is changed; `None` where the gateway makes it.
    pub fn of(plan: &Plan, name: &str, requests: &mut Requests) -> Option<Self> {
        let was = plan.host_port_exists.then(|| links::by_name(requests, name).ok())??;
        Some(Self { silenced: links::speaks_ipv6(&was) == Some(true), was, left: None })
    }

    /// It is as the gateway wants it now.
    pub fn changed(&mut self, requests: &mut Requests) {
        self.left = links::by_name(requests, &self.was.name).ok();
        self.silenced &= links::speaks_ipv6(&self.was) == Some(false);
    }

    fn put_back(&self, left: &Link) -> crate::host::Result<()> {
        let mut requests = Requests::routing().map_err(crate::host::Error::os("talk to netlink"))?;
        let Some(now) = links::all(&mut requests)?.remove(&self.was.index) else { return Ok(()) };
        if let Some(change) = way_back(&self.was, left, &now) {
            change.apply(&mut requests)?;
        }
        if self.silenced { links::enable_ipv6(&now) } else { Ok(()) }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let Some(left) = &self.left else { return };
        if let Err(error) = self.put_back(left) {
            tracing::warn!("{} is not as it was before the gateway: {error}", self.was.name);
        }
    }
}

/// What makes an interface again what it `was`, where it is still as it was `left`; `None`: nothing.
fn way_back(was: &Link, left: &Link, now: &Link) -> Option<LinkChange> {
    let mut change = None;
    let mut then = |ours: bool, step: fn(LinkChange, &Link) -> LinkChange| {
        if ours {
            change = Some(step(change.take().unwrap_or_else(|| LinkChange::of(was.index)), was));
        }
    };
    then(was.mtu != left.mtu && now.mtu == left.mtu, |change, was| change.mtu(was.mtu));
    then(
        was.transmit_queue != left.transmit_queue && now.transmit_queue == left.transmit_queue,
        |change, was| change.transmit_queue(was.transmit_queue),
    );
    then(was.no_arp != left.no_arp && now.no_arp == left.no_arp, |change, was| change.arp(!was.no_arp));
    // Number 0: of none.
    then(was.master != left.master && now.master == left.master, |change, was| {
        change.master(was.master.unwrap_or(0))
    });
    then(was.up != left.up && now.up == left.up, |change, _| change.down());
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Namespace;

    #[test]
    fn what_the_gateway_changed_is_put_back_and_what_the_admin_changed_since_is_not() {
        let Some(host) = Namespace::new() else { return };
        host.ip("link add br0 type bridge");
        host.ip("tuntap add dev tap0 mode tap");
        let find = |requests: &mut Requests| links::by_name(requests, "tap0").unwrap();
        let (was, back, kept) = host.run(move || {
            let mut requests = Requests::routing().unwrap();
            let bridge = links::by_name(&mut requests, "br0").unwrap();
            let was = find(&mut requests);
            let ours = || {
                LinkChange::of(was.index).mtu(1400).transmit_queue(77).arp(false).master(bridge.index).up()
            };
            let borrowed = || Borrowed { silenced: false, was: was.clone(), left: None };

            let mut whole = borrowed();
            ours().apply(&mut requests).unwrap();
            whole.changed(&mut requests);
            drop(whole);
            let back = find(&mut requests);

            let mut part = borrowed();
            ours().apply(&mut requests).unwrap();
            part.changed(&mut requests);
            LinkChange::of(was.index).mtu(1300).apply(&mut requests).unwrap();
            drop(part);
            (was.clone(), back, find(&mut requests))
        });
        assert_eq!(back, was);
        assert_eq!(kept, Link { mtu: 1300, ..was });
    }
}
