//! Queueing disciplines: what a host does to frames before a NIC sends them, or after it has received them.

use std::collections::BTreeSet;

use neli::consts::rtnl::Tca;
use neli::rtnl::{Tcmsg, TcmsgBuilder};
use nix::libc;

use super::super::netlink::Requests;
use super::super::netlink::wire::{Attributes, body};
use super::super::{Error, Result};
use super::invalid;

/// Kinds of the queueing disciplines of an interface (`fq_codel`, `htb`; `clsact` and `ingress` hold filters).
pub fn qdiscs(requests: &mut Requests, index: u32) -> Result<BTreeSet<String>> {
    let index = i32::try_from(index).map_err(invalid)?;
    let all = TcmsgBuilder::default()
        .tcm_family(0)
        .tcm_ifindex(index)
        .tcm_handle(0)
        .tcm_parent(0)
        .tcm_info(0)
        .build()
        .map_err(invalid)?;
    requests
        .dump(libc::RTM_GETQDISC, &all, |found: &mut BTreeSet<_>, _, rest| found.extend(kind(rest, index)))
        .map_err(Error::os("read the queueing disciplines"))
}

fn kind(rest: &[u8], index: i32) -> Option<String> {
    let message: Tcmsg = body(rest)?;
    // Older kernels tell of all interfaces.
    (*message.tcm_ifindex() == index).then(|| Attributes::of(message.rtattrs()).text(Tca::Kind))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::links;
    use crate::host::testing::Namespace;

    #[test]
    fn the_disciplines_of_one_interface_are_read() {
        let Some(host) = Namespace::new() else { return };
        host.ip("link add uplink type veth peer name wire");
        for words in
            ["qdisc add dev uplink root tbf rate 1mbit burst 10k latency 50ms", "qdisc add dev uplink clsact"]
        {
            host.command("tc", words);
        }
        host.command("tc", "qdisc add dev wire ingress");
        let found = host.run(|| {
            let mut requests = Requests::routing().unwrap();
            let link = links::by_name(&mut requests, "uplink").unwrap();
            qdiscs(&mut requests, link.index).unwrap()
        });
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["clsact", "tbf"]);
    }
}
